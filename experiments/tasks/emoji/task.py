"""``emoji/<style>``: the ``Task`` of customizing the base to a style from k captioned pictures.

The primary metric is the *gain*: the share of the base's own denoising loss, on concepts of the
style that were never shown, that the adapter takes away (0: the untouched base; higher is better).
*drift* is the share by which the loss on the base's own styles rises: what is forgotten.

Legend: L lanes; B rows a lane; M rows of all lanes, L·B, lane-major; N rows of the dev split.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments import bases
from experiments.errors import BenchError
from experiments.step import autocast, lighten
from experiments.tasks.base import READINGS, Batch, Final, Scores, Task
from experiments.tasks.emoji import diffusion, rows, table, unet
from experiments.tasks.emoji.sampling import Sampler, strip
from experiments.trial import Trial
from lokr import LaneNoise

Reference = dict[str, float | None]
BASE_ROWS = 64
"""Rows at a time where the untouched base is measured."""
TIMES, NOISE = 0, 1
"""Places of a step's draws, see ``LaneNoise``."""


class EmojiTask(Task):
    """A style to customize to, on a base.

    Args:
        trial: its style, base, and how many pictures are shown, drawn, and looked at for drift.
        data: must be None: the pictures come from packages.

    Raises:
        BenchError: an unknown style, too few pictures, a base that does not fit, or ``data``.
    """

    primary = "gain"
    heads = ()
    stochastic = True

    def __init__(self, trial: Trial, data: str | None = None) -> None:
        if data is not None:
            raise BenchError("--data: emoji come from packages, so that no folder is read")
        style = trial.task.partition("/")[2]
        wanted = rows.styles_of(style, trial.drift_rows)
        self._model = unet.load(trial.base)
        pictures = table.load(wanted)
        chosen = rows.choose(pictures, style, trial.train_size, trial.drift_rows)
        self.style = style
        self.train = rows.train_split(pictures, chosen)
        self.dev = rows.dev_split(pictures, chosen)
        self.train_size = len(self.train)
        self.sampler = Sampler(pictures, style, chosen, trial.samples)
        self._readings = rows.readings(chosen)
        self._untouched: dict[tuple[str, str], tuple[Tensor, Reference, dict[str, bytes]]] = {}
        self._base = torch.full((len(self.dev),), torch.nan)
        self._reference: Reference = {}
        self._exhibits: dict[str, bytes] = {}
        self.provenance = {
            "base": {"name": trial.base, "sha256": bases.fingerprint(self._model)},
            "data": {
                "source": "packages, see experiments/tasks/emoji/sources.py",
                "train": self.train_size,
                "dev": len(self.dev),
                "sha256": pictures.fingerprint,
            },
        }

    def model(self) -> nn.Module:
        """A fresh copy of the base."""
        return copy.deepcopy(self._model)

    def reset_heads(self, model: nn.Module, seed: int) -> None:
        """There are none."""

    def loss(
        self, model: nn.Module, batch: Batch, lanes: int, draws: LaneNoise | None = None
    ) -> Tensor:
        """Mean squared error of v in each lane, (L,), at times spread evenly over its rows."""
        assert draws is not None
        x = unet.to_latents(batch["images"])
        rows = len(x) // lanes
        times = diffusion.spread(draws.uniform(TIMES, rows)).flatten()  # (M,)
        noise = draws.normal(NOISE, x[0].numel() * rows).view_as(x)
        return self._losses(model, batch, x, times, noise).view(lanes, -1).mean(1)

    def predict(self, model: nn.Module, batch: Batch, lanes: int) -> Tensor:
        """Mean squared error of v of each row, at its own time and noise, (L, B)."""
        x = unet.to_latents(batch["images"])
        losses = self._losses(model, batch, x, batch["times"], batch["noise"])
        return losses.view(lanes, -1)

    def scores(self, predictions: Tensor) -> Scores:
        """``gain`` and ``loss`` on each reading; ``drift`` beside them, if it is measured."""
        own = self._readings["own"]
        drift = {"drift": -self._gain(predictions, own)} if len(own) else {}
        return {
            reading: {
                "gain": self._gain(predictions, self._readings[reading]),
                "loss": predictions[self._readings[reading]].mean().item(),
                **drift,
            }
            for reading in READINGS
        }

    @torch.no_grad()
    def settle(self, device: torch.device, precision: str) -> None:
        """Losses, samples and scores of the untouched base, once a device and precision."""
        key = (str(device), precision)
        if key not in self._untouched:
            model = lighten(self.model().requires_grad_(False).to(device), precision).eval()
            parts = torch.arange(len(self.dev), device=device).split(BASE_ROWS)
            with autocast(device, precision):
                said = [self.predict(model, self.dev.gather(part, None), 1)[0] for part in parts]
                shown = self._shown(model)
            self._untouched[key] = (torch.cat(said).cpu(), *shown)
        self._base, self._reference, self._exhibits = self._untouched[key]

    def finish(self, model: nn.Module, trials: Sequence[Trial]) -> list[Final]:
        """Scores of the samples of each lane, and a strip of them."""
        finals = self.sampler.finals(model, len(trials))
        if not len(self.sampler.rows):
            return finals
        reference = {"reference": self._reference}
        return [Final({**final.metrics, **reference}, final.pictures) for final in finals]

    def exhibits(self) -> dict[str, bytes]:
        """The same strip by the untouched base, and as it is in truth."""
        return self._exhibits

    def _shown(self, model: nn.Module) -> tuple[Reference, dict[str, bytes]]:
        if not len(self.sampler.rows):
            return {}, {}
        base = self.sampler.draw(model, 1)
        return self.sampler.reference(base), {
            f"{self.style}-base.webp": strip(base[0]),
            f"{self.style}-truth.webp": strip(self.sampler.truth()),
        }

    def _losses(self, model: Any, batch: Batch, x: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        return diffusion.row_losses(model, x, times, noise, batch["states"], batch["pooled"])

    def _gain(self, predictions: Tensor, chosen: Tensor) -> float:
        base = self._base[chosen].mean()
        return (1 - predictions[chosen].mean() / base).item()
