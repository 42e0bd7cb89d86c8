"""Pictures drawn by a pack after its last step, and what they are worth.

All lanes draw the same concepts of the report half from the same noise. The classifier that tells
styles apart, and the true drawings' features, are made once a task and device.

Legend: L lanes; n concepts drawn.
"""

from __future__ import annotations

import io
from functools import lru_cache

import torch
from torch import Tensor, nn

from experiments.errors import BenchError
from experiments.executors import is_out_of_memory
from experiments.memory import release
from experiments.tasks.base import Final
from experiments.tasks.emoji import diffusion, table, text
from experiments.tasks.emoji.features import Features
from experiments.tasks.emoji.metrics import Drawings, Judge
from experiments.tasks.emoji.rows import Rows
from experiments.tasks.emoji.table import Table
from experiments.tasks.emoji.unet import to_images

ROWS = {"cpu": 32, "cuda": 4096}
"""Pictures, of all lanes together, that are drawn at a time."""
STRIP = 8
"""Pictures of each trial that are kept."""
LEARNED = 256
"""Drawings of each style that the classifier learns from."""
SEED = 0


class Sampler:
    """Draws and judges.

    Args:
        pictures: has the style, and the base's own styles if they are to be told apart.
        style: the one that is customized to.
        rows: of the trial.
        count: n, the first concepts of the report half; 0 to draw nothing.

    Raises:
        BenchError: there are fewer concepts.
    """

    def __init__(self, pictures: Table, style: str, rows: Rows, count: int) -> None:
        if count > len(rows.report):
            raise BenchError(
                f"samples={count}: {len(rows.report)} concepts of {style} are reported"
            )
        self.table = pictures
        self.style = style
        self.rows = rows.report[:count]
        self.captions = text.encode([pictures.captions[row] for row in self.rows.tolist()])
        self.noise = diffusion.initial_noise(count, SEED)
        self._judges: dict[torch.device, Judge] = {}

    def finals(self, model: nn.Module, lanes: int) -> list[Final]:
        """Scores and a strip of pictures of each lane.

        Args:
            model: of L lanes, in evaluation mode, on its device.
            lanes: L.
        """
        if not len(self.rows):
            return [Final() for _ in range(lanes)]
        pictures = self.draw(model, lanes)
        with torch.autocast(pictures.device.type, enabled=False):
            scores = self._judge(pictures.device).scores(pictures)
        return [
            Final(metrics=score, pictures={"samples.webp": strip(lane)})
            for score, lane in zip(scores, pictures, strict=True)
        ]

    def reference(self, pictures: Tensor) -> dict[str, float | None]:
        """What the scores are read against: ceilings, and under ``<name>_base`` the scores of the
        untouched base's pictures, (1, n, 3, 64, 64) uint8.
        """
        with torch.autocast(pictures.device.type, enabled=False):
            judge = self._judge(pictures.device)
            (floor,) = judge.scores(pictures)
            return {**judge.reference(), **{f"{name}_base": value for name, value in floor.items()}}

    def draw(self, model: nn.Module, lanes: int) -> Tensor:
        """(L, n, 3, 64, 64) uint8 on the model's device; fewer at a time where memory runs out."""
        device = next(model.parameters()).device
        size = min(len(self.rows), max(1, ROWS[device.type] // lanes))
        while True:
            try:
                parts = torch.arange(len(self.rows)).split(size)
                return torch.cat([self._draw(model, lanes, p, device) for p in parts], dim=1)
            except RuntimeError as error:  # a trained pack must not be lost to its pictures
                if size == 1 or not is_out_of_memory(error):
                    raise
            release()
            size //= 2

    def truth(self) -> Tensor:
        """The style's own drawings of the concepts, (n, 3, 64, 64) uint8."""
        return self.table.images[self.rows]

    def _draw(self, model: nn.Module, lanes: int, part: Tensor, device: torch.device) -> Tensor:
        def laned(tensor: Tensor) -> Tensor:
            rows = tensor[part].float().to(device)
            return rows.repeat(lanes, *(1,) * (rows.dim() - 1))  # lane-major

        states, pooled = laned(self.captions.states), laned(self.captions.pooled)
        latents = diffusion.sample(model, states, pooled, noise=laned(self.noise))
        return to_images(latents).unflatten(0, (lanes, -1))

    def _judge(self, device: torch.device) -> Judge:
        if device not in self._judges:
            concepts = [self.table.concepts[row] for row in self.rows.tolist()]
            drawings = self._drawings(device)
            self._judges[device] = Judge(drawings, self.style, concepts, _features(device), SEED)
        return self._judges[device]

    def _drawings(self, device: torch.device) -> Drawings:
        """Every drawing of a test concept and, where styles can be told apart, as many others as
        the classifier learns from.
        """
        styles = sorted(set(self.table.styles))
        tests = [_of_style(style, True, device) for style in styles]
        known = [_of_style(style, False, device) for style in styles]
        return Drawings.join([*tests, *(known if len(styles) > 1 else ())])


@lru_cache(maxsize=1)
def _features(device: torch.device) -> Features:
    return Features(device)


@lru_cache
def _of_style(style: str, test: bool, device: torch.device) -> Drawings:
    """A style's drawings of test concepts, or the others that a classifier learns from: computed
    once, since the base's own styles are in the judgment of every other.
    """
    pictures = table.load([style])
    rows = pictures.where(style=style, test=test)[: None if test else LEARNED]
    return Drawings.of(
        pictures.images[rows],
        [style] * len(rows),
        [pictures.concepts[row] for row in rows.tolist()],
        torch.full((len(rows),), test),
        _features(device),
    )


def strip(pictures: Tensor) -> bytes:
    """The first pictures (n, 3, 64, 64) uint8 side by side, as WebP."""
    from PIL import Image

    row = torch.cat(list(pictures[:STRIP].cpu()), dim=2).permute(1, 2, 0)
    content = io.BytesIO()
    Image.fromarray(row.numpy()).save(content, "WEBP", quality=90, method=6)
    return content.getvalue()
