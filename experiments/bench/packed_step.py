"""A packed step beside the frozen base's forward and backward pass on the same batch.

Legend: L lanes; B rows a lane; T tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments import batches, tasks
from experiments.batches import Shape
from experiments.bench.floor import floor
from experiments.bench.sweep import Piece, Sweep, head
from experiments.bench.timing import laps
from experiments.methods import attach, generator_of
from experiments.step import PackStep, own_stream
from experiments.tasks.base import Task
from experiments.trial import Trial

STEPS = {"cuda": 20, "cpu": 2}
"""Steps of a round."""


def measure(sweep: Sweep, lanes: int, rounds: int) -> Piece:
    """A step of ``lanes`` trials of one split beside the frozen base's passes on its batch.

    The batch is of the shape that most steps of an epoch have. In turns: so many rounds of both.
    """
    device, captured = torch.device(sweep.device), sweep.device == "cuda"
    steps = STEPS[sweep.device]
    first, *_ = sweep.study.trials
    trials = [t for t in sweep.study.trials if t.decompose_factor == first.decompose_factor][:lanes]
    task = tasks.load(first, sweep.data)
    with own_stream(device):
        train, rows, shape = _pack_step(task, trials, device, (rounds + 1) * steps)
        base = floor(task, rows, shape.length, device, first.precision, captured)
        samples: dict[str, list[float]] = {"step": [], "floor": []}
        for number in range(rounds + 1):
            for name, step in (("step", train), ("floor", base)):
                times = laps(step, steps, sweep.device)
                samples[name] += times if number else []  # the first round warms up
    return {
        **head(sweep, "floor"),
        "lanes": len(trials),
        "rows": len(rows),
        "tokens": shape.length,
        "samples": samples,
    }


def _pack_step(
    task: Task, trials: Sequence[Trial], device: torch.device, steps: int
) -> tuple[Callable[[], Any], Tensor, Shape]:
    """The packed step on batches of one shape; the row numbers of one, and the shape."""
    adapted = attach(trials, task)
    adapted.model.to(device)
    step = PackStep(task, adapted, trials, device, steps=steps)
    bucket = batches.BUCKET if device.type == "cuda" else 1
    orders = batches.epoch_orders(task.train_size, [generator_of(t, "order") for t in trials])
    lengths, width = task.train.lengths, task.train.width
    epoch = batches.plan(orders, trials[0].batch_size, lengths, bucket, width)
    shape = Counter(epoch.shapes).most_common(1)[0][0]
    line = epoch.rows[epoch.shapes.index(shape)]
    step.train_feed.load(batches.Pass(line.expand(steps, -1), (shape,) * steps))
    step.prepare([shape])
    return partial(step.train, shape), line[: len(trials) * shape.rows], shape
