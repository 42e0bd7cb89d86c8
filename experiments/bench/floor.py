"""The frozen base's forward and backward pass: what no adapter can beat.

Legend: L lanes; B rows a lane.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.bench.timing import Graph
from experiments.step import autocast, lighten
from experiments.tasks.base import Task

Step = Callable[[], Any]


def floor(
    task: Task,
    rows: Tensor,
    length: int | None,
    device: torch.device,
    precision: str,
    captured: bool,
) -> Step:
    """Forward and backward through the frozen base, down to its embeddings, on one batch.

    Args:
        task: gives base, data and loss.
        rows: row numbers of the batch, (L·B,) int64.
        length: tokens that the batch is cut to, see ``Split.gather``.
        device: where to run.
        precision: as in ``Trial``; frozen weights are kept in it, as in our own step.
        captured: replay it from a CUDA graph.
    """
    model: Any = task.model().to(device).requires_grad_(False)
    model.enable_input_require_grads()
    lighten(model, precision)
    batch = task.train.gather(rows.to(device), length)

    def passes() -> None:
        with autocast(device, precision):
            loss = task.loss(model, batch, 1)
        loss.sum().backward()

    return partial(Graph([passes]).run, 1) if captured else passes
