"""``emoji/<style>``: the ``Task`` of customizing the base to a style from k captioned pictures.

The primary metric is the *gain*: the share of the base's own denoising loss, on concepts of the
style that were never shown, that the adapter takes away (0: the untouched base; higher is better).
*drift* is the share by which the loss on the base's own styles rises: what is forgotten.

Legend: L lanes; B rows a lane; M rows of all lanes, L·B, lane-major; N rows of the dev split.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments import bases
from experiments.errors import BenchError
from experiments.step import autocast, lighten
from experiments.tasks.base import READINGS, Batch, Final, Scores, Split, Task
from experiments.tasks.emoji import diffusion, rows, table, unet
from experiments.tasks.emoji.concepts import HELD_OUT_STYLES
from experiments.tasks.emoji.sampling import Sampler, strip
from experiments.trial import Trial
from lokr import LaneNoise
from lokr.kernels.launch import rehearse

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
        self.exam = _exam(style, trial.base, trial.drift_rows, trial.samples)
        self.train = self.exam.shown(trial.train_size)
        self.train_size = len(self.train)
        self.dev = self.exam.dev
        self._untouched = Untouched(torch.full((len(self.dev),), torch.nan), {}, {})
        self.provenance = {
            "base": {"name": trial.base, "sha256": self.exam.base_fingerprint},
            "data": {
                "source": "packages, see experiments/tasks/emoji/sources.py",
                "train": self.train_size,
                "dev": len(self.dev),
                "sha256": self.exam.fingerprint,
            },
        }

    def model(self) -> nn.Module:
        """A fresh copy of the base."""
        return copy.deepcopy(self.exam.model)

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
        return _losses(model, batch, x, times, noise).view(lanes, -1).mean(1)

    def predict(self, model: nn.Module, batch: Batch, lanes: int) -> Tensor:
        """Mean squared error of v of each row, at its own time and noise, (L, B)."""
        return predict(model, batch, lanes)

    def scores(self, predictions: Tensor) -> Scores:
        """``gain`` and ``loss`` on each reading; ``drift`` beside them, if it is measured."""
        readings = self.exam.readings
        own = readings["own"]
        drift = {"drift": -self._gain(predictions, own)} if len(own) else {}
        return {
            reading: {
                "gain": self._gain(predictions, readings[reading]),
                "loss": predictions[readings[reading]].mean().item(),
                **drift,
            }
            for reading in READINGS
        }

    def settle(self, device: torch.device, precision: str) -> None:
        """Losses, samples and scores of the untouched base, once a device and precision."""
        self._untouched = self.exam.untouched(device, precision)

    def finish(self, model: nn.Module, trials: Sequence[Trial]) -> list[Final]:
        """Scores of the samples of each lane, and a strip of them."""
        finals = self.exam.sampler.finals(model, len(trials))
        if not len(self.exam.sampler.rows):
            return finals
        reference = {"reference": self._untouched.reference}
        return [Final({**final.metrics, **reference}, final.pictures) for final in finals]

    def exhibits(self) -> dict[str, bytes]:
        """The same strip by the untouched base, and as it is in truth."""
        return self._untouched.exhibits

    def _gain(self, predictions: Tensor, chosen: Tensor) -> float:
        base = self._untouched.losses[chosen].mean()
        return (1 - predictions[chosen].mean() / base).item()


class Untouched(NamedTuple):
    """What the base does before it is trained.

    Args:
        losses: (N,) fp32, on the CPU.
        reference: what scores of samples are read against.
        exhibits: file name -> picture.
    """

    losses: Tensor
    reference: Reference
    exhibits: dict[str, bytes]


class Exam:
    """What is the same for all trials of a style, however many pictures they are shown.

    Args:
        style: of ``concepts.HELD_OUT_STYLES``.
        base: as in a trial.
        drift_rows: pictures of the base's own styles.
        samples: concepts drawn.

    Raises:
        BenchError: an unknown style, too few pictures, a base that does not fit.
    """

    def __init__(self, style: str, base: str, drift_rows: int, samples: int) -> None:
        self.style, self.drift_rows = style, drift_rows
        self.model = unet.load(base)
        self.base_fingerprint = bases.fingerprint(self.model)
        self.pictures = table.load(rows.styles_of(style, drift_rows))
        self.fingerprint = self.pictures.fingerprint
        chosen = self._choose(1)
        self.dev = rows.dev_split(self.pictures, chosen)
        self.readings = rows.readings(chosen)
        self.sampler = Sampler(self.pictures, style, chosen, samples)
        self._untouched: dict[tuple[str, str], Untouched] = {}

    def shown(self, count: int | None) -> Split:
        """The training rows of a trial that is shown ``count`` pictures."""
        return rows.train_split(self.pictures, self._choose(count))

    @torch.no_grad()
    def untouched(self, device: torch.device, precision: str) -> Untouched:
        """The untouched base, on a device in a precision; computed once."""
        key = (str(device), precision)
        if key not in self._untouched:
            model = copy.deepcopy(self.model).requires_grad_(False).to(device)
            model = lighten(model, precision).eval()
            parts = torch.arange(len(self.dev), device=device).split(BASE_ROWS)
            with autocast(device, precision):
                rehearse(device, lambda: predict(model, self.dev.gather(parts[0], None), 1))
                said = [predict(model, self.dev.gather(part, None), 1)[0] for part in parts]
                shown = self._drawn(model)
            self._untouched[key] = Untouched(torch.cat(said).cpu(), *shown)
        return self._untouched[key]

    def _choose(self, shown: int | None) -> rows.Rows:
        return rows.choose(self.pictures, self.style, shown, self.drift_rows)

    def _drawn(self, model: nn.Module) -> tuple[Reference, dict[str, bytes]]:
        if not len(self.sampler.rows):
            return {}, {}
        base = self.sampler.draw(model, 1)
        return self.sampler.reference(base), {
            f"{self.style}-base.webp": strip(base[0]),
            f"{self.style}-truth.webp": strip(self.sampler.truth()),
        }


_exam = lru_cache(maxsize=len(HELD_OUT_STYLES))(Exam)


def predict(model: nn.Module, batch: Batch, lanes: int) -> Tensor:
    """Mean squared error of v of each row, at its own time and noise, (L, B)."""
    x = unet.to_latents(batch["images"])
    return _losses(model, batch, x, batch["times"], batch["noise"]).view(lanes, -1)


def _losses(model: Any, batch: Batch, x: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    return diffusion.row_losses(model, x, times, noise, batch["states"], batch["pooled"])
