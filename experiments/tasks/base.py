"""The one seam that a new task touches.

Legend: L lanes (trials of a pack), B rows a lane.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

# The three readings of one dev set: `selection` chooses the rate and the epoch, `report` is what we
# publish, `full` is both halves together (the papers' protocol).
READINGS = ("selection", "report", "full")
Scores = dict[str, dict[str, float]]  # reading -> metric -> value


class Task(Protocol):
    """A task on a base, loaded: all that the training loop may ask of it."""

    primary: str
    """Name of the metric that selects and is reported; higher is better."""
    train_size: int
    """Training rows."""
    heads: tuple[str, ...]
    """Names of the modules that are new in this task, trained by every method."""
    provenance: dict[str, Any]
    """Which data and base were used, from where, with their fingerprints."""

    def model(self) -> nn.Module:
        """A fresh copy of the pretrained base with an untrained head, fp32, on the CPU."""
        ...

    def reset_heads(self, model: nn.Module, seed: int) -> None:
        """Draw new head weights in place; equal seeds give equal weights."""
        ...

    def batch(self, rows: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
        """Training rows (L, B) int64 -> a lane-major batch, first dimension L·B."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], lanes: int) -> torch.Tensor:
        """Mean loss of each lane, (L,) fp32."""
        ...

    def evaluate(self, model: nn.Module, lanes: int, device: torch.device) -> list[Scores]:
        """Dev-set scores of each lane."""
        ...
