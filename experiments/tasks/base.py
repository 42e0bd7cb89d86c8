"""The one seam that a new task touches.

Legend: L lanes (trials of a pack); B rows a lane; M rows of all lanes, L·B, lane-major; N rows of a
split; T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

# The three readings of one dev set: `selection` chooses the rate and the epoch, `report` is what we
# publish, `full` is both halves together (the papers' protocol).
READINGS = ("selection", "report", "full")
Scores = dict[str, dict[str, float]]  # reading -> metric -> value
Batch = dict[str, Tensor]


class Split:
    """The rows of a split as tensors, cut to what a batch needs.

    Args:
        tensors: what a row is made of, (N, …) each; ``labels`` among them.
        lengths: tokens of each row, (N,) int64, or None if all rows are of one size. With it, the
            tensors of two dimensions are (N, T), padded at the end.
    """

    def __init__(self, tensors: Mapping[str, Tensor], lengths: Tensor | None = None) -> None:
        self.tensors = dict(tensors)
        self.lengths = lengths
        self._resident: dict[torch.device, Batch] = {}

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def width(self) -> int | None:
        """T, the longest that a row may be cut to; None without lengths."""
        if self.lengths is None:
            return None
        return next(tensor.shape[1] for tensor in self.tensors.values() if tensor.dim() == 2)

    def on(self, device: torch.device) -> Batch:
        """The tensors on a device: sent there once, and kept."""
        if device not in self._resident:
            self._resident[device] = {n: t.to(device) for n, t in self.tensors.items()}
        return self._resident[device]

    def gather(self, rows: Tensor, length: int | None) -> Batch:
        """Rows (M,) int64 -> (M, …) each, where ``rows`` is; token tensors cut to ``length``.

        Nothing waits for the device.
        """
        return {
            name: _cut(tensor, length).index_select(0, rows)
            for name, tensor in self.on(rows.device).items()
        }


def _cut(tensor: Tensor, length: int | None) -> Tensor:
    return tensor if length is None or tensor.dim() != 2 else tensor[:, :length]


class Task(Protocol):
    """A task on a base, loaded: all that the training loop may ask of it.

    ``loss`` and ``predict`` may be recorded once and replayed on other rows: they read no tensor's
    value on the host and draw no random numbers.
    """

    primary: str
    """Name of the metric that selects and is reported; higher is better."""
    train_size: int
    """Training rows."""
    train: Split
    """The training rows."""
    dev: Split
    """The dev rows."""
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

    def loss(self, model: nn.Module, batch: Batch, lanes: int) -> Tensor:
        """Mean loss of each lane on a lane-major batch, (L,) fp32."""
        ...

    def predict(self, model: nn.Module, batch: Batch, lanes: int) -> Tensor:
        """What the model says of each row of a lane-major batch, one number each: (L, B) fp32."""
        ...

    def scores(self, predictions: Tensor) -> Scores:
        """Dev-set scores from one lane's predictions, (N,) on the CPU."""
        ...
