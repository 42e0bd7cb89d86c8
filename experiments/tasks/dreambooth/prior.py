"""The base's own pictures of a class, "a photo of a dog": drawn once, and kept.

They are what a base is not to lose (prior preservation, Ruiz et al. 2023, arXiv 2208.12242): some
are trained on beside the photos, others measure how much was forgotten. Picture i is drawn from the
seed i, so more of them can be had later.

Legend: C pictures; R side in pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from experiments import cache
from experiments.errors import BenchError
from experiments.tasks.dreambooth import painting, photos, sheet
from experiments.tasks.dreambooth.painting import Painter
from experiments.tasks.dreambooth.pipeline import Denoiser, Pipeline
from experiments.tasks.dreambooth.text import Texts

TRAINED = 100
"""Pictures of the class that are trained on, if any are."""
FIRST_TRAINED = 10_000
"""Number of the first of them: those before it measure forgetting."""
AT_A_TIME = 32
"""Pictures after which what is drawn is written down."""
_VERSION = 1


def numbers(drift: int, trained: bool) -> list[int]:
    """Which pictures a task needs: those that measure forgetting, then those to train on."""
    return [*range(drift), *range(FIRST_TRAINED, FIRST_TRAINED + (TRAINED if trained else 0))]


def pictures(
    pipeline: Pipeline,
    painter: Painter,
    model: Denoiser,
    texts: Texts,
    caption: tuple[int, str],
    wanted: Sequence[int],
) -> Tensor:
    """(C, 3, R, R) uint8: read where they are kept, drawn where they are not.

    Args:
        pipeline, painter: of the untouched base.
        model: the base, on the device that draws.
        texts: captions, the empty one first.
        caption: what the pictures show: its number among them, and its text.
        wanted: their numbers.

    Raises:
        BenchError: one cannot be kept, or is damaged.
    """
    folder = cache.folder("dreambooth", _key(pipeline, painter, caption[1]))
    files = {number: folder / f"{number}.png" for number in wanted}
    missing = [number for number, file in files.items() if not file.is_file()]
    for start in range(0, len(missing), AT_A_TIME):
        some = missing[start : start + AT_A_TIME]
        drawn = painter.draw(model.unet, texts, torch.full((len(some),), caption[0]), some, 1)
        for number, picture in zip(some, drawn[0], strict=True):
            _keep(files[number], sheet.png(picture))
    return _read(list(files.values()), painter.side)


def _read(files: Sequence[Path], side: int) -> Tensor:
    if not files:
        return torch.zeros(0, 3, side, side, dtype=torch.uint8)
    try:
        return photos.read(files, side)
    except BenchError as error:
        folder = files[0].parent
        raise BenchError(f"{error}; delete {folder} to have its pictures drawn again") from error


def _key(pipeline: Pipeline, painter: Painter, caption: str) -> str:
    parts = [_VERSION, pipeline.digest, caption, painter.side, painting.STEPS, painting.GUIDANCE]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _keep(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    cache.write(path, write)
