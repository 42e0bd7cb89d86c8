"""The rows of a subject's task.

Training rows are photos. A dev row is a held-out photo, or one of the base's own pictures of the
class, with a time and noise of its own, the same for all trials. One half of the held-out photos
selects, the other is reported.

Legend: N rows; P pictures; k, h, w a latent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.tasks.base import Split
from experiments.tasks.dreambooth.latents import Posterior

PHOTO, CLASS = 0, 1
"""Numbers of the captions that are trained on: of the photos, and of the class."""
TIMES = 20
"""Dev rows of each held-out photo: at so many times, spread evenly."""
SEED = 0
"""Of the dev rows' noise."""
_GOLDEN = 0.6180339887498949  # its multiples fill [0, 1) evenly, however many there are


def train_split(photos: Posterior) -> Split:
    """A row a photo: what the VAE says of it."""
    return Split({"mean": photos.mean, "deviation": photos.deviation})


def dev_split(held_out: Posterior, own: Posterior, times: int) -> Split:
    """``TIMES`` rows of each held-out photo, then one of each of the base's own pictures.

    Args:
        held_out: photos.
        own: pictures of the class.
        times: of the noise schedule.
    """
    photo = torch.arange(len(held_out)).repeat_interleave(TIMES)
    x = torch.cat([held_out.mean.cpu()[photo], own.mean.cpu()])
    steps = (torch.arange(TIMES) + 0.5).repeat(len(held_out)) / TIMES
    own_steps = (0.5 + _GOLDEN * torch.arange(len(own), dtype=torch.float64)) % 1
    caption = torch.full((len(x),), CLASS)
    caption[: len(photo)] = PHOTO
    return Split(
        {
            "latents": x,
            "noise": torch.randn(x.shape, generator=torch.Generator().manual_seed(SEED)),
            "times": (torch.cat([steps, own_steps.float()]) * times).long(),
            "caption": caption,
        }
    )


def readings(held_out: int, own: int) -> dict[str, Tensor]:
    """Row numbers of each reading, and under ``"own"`` those of the base's own pictures."""
    photo = torch.arange(held_out).repeat_interleave(TIMES)
    found = {
        "selection": (photo % 2 == 0).nonzero().flatten(),
        "report": (photo % 2 == 1).nonzero().flatten(),
        "full": torch.arange(len(photo)),
    }
    return {**found, "own": torch.arange(len(photo), len(photo) + own)}
