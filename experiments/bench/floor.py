"""The frozen base's forward and backward pass: what no adapter can beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from experiments.bench.timing import Graph
from experiments.step import autocast, lighten, open_first_layer
from experiments.tasks.base import Batch, Task
from lokr import LaneNoise

Step = Callable[[], Any]


def floor(
    task: Task,
    batches: Sequence[Batch],
    device: torch.device,
    precision: str,
    captured: bool,
) -> Step:
    """Forward and backward through the frozen base, down to its first layer, batch after batch.

    Args:
        task: gives base and loss.
        batches: the parts of a step, on ``device``.
        device: where to run.
        precision: as in ``Trial``; frozen weights are kept in it, as in our own step.
        captured: replay it from a CUDA graph.
    """
    model = task.model().to(device).requires_grad_(False)
    open_first_layer(model)
    lighten(model, precision)
    draws = LaneNoise([0]).to(device) if task.stochastic else None

    def passes() -> None:
        for batch in batches:
            with autocast(device, precision):
                loss = task.loss(model, batch, 1, draws)
            loss.sum().backward()

    return partial(Graph([passes]).run, 1) if captured else passes
