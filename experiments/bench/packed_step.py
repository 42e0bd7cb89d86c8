"""A packed step beside the frozen base's forward and backward pass on the same batch.

Legend: L lanes; B rows a lane; T tokens.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments import tasks
from experiments.batches import Pass, Step, part_rows, rows_of
from experiments.bench.floor import floor
from experiments.bench.sweep import Piece, Sweep, head
from experiments.bench.timing import laps
from experiments.methods import attach
from experiments.step import PackStep, own_stream
from experiments.tasks.base import Task
from experiments.train import training_passes
from experiments.trial import Trial

STEPS = {"cuda": 20, "cpu": 2}
"""Steps of a round."""


def measure(sweep: Sweep, lanes: int, rounds: int) -> Piece:
    """A step of ``lanes`` trials of one split beside the frozen base's passes on its batch.

    The batch is of the kind that most steps of an epoch are, and both take it part by part. In
    turns: so many rounds of both.
    """
    device, captured = torch.device(sweep.device), sweep.device == "cuda"
    steps = STEPS[sweep.device]
    trials = of_one_split(sweep, lanes)
    first = trials[0]
    task = tasks.load(first, sweep.data)
    with own_stream(device):
        train, line, kind = pack_step(task, trials, device, (rounds + 1) * steps)
        parts = [
            task.train.gather(part_rows(line, kind, len(trials), part).to(device), shape.length)
            for part, shape in enumerate(kind)
        ]
        base = floor(task, parts, device, first.precision, captured)
        samples: dict[str, list[float]] = {"step": [], "floor": []}
        for number in range(rounds + 1):
            for name, step in (("step", train), ("floor", base)):
                times = laps(step, steps, sweep.device)
                samples[name] += times if number else []  # the first round warms up
    return {
        **head(sweep, "floor"),
        "lanes": len(trials),
        "rows": len(trials) * rows_of(kind),
        "tokens": _tokens(kind),
        "parts": [[shape.rows, shape.length] for shape in kind],
        "samples": samples,
    }


def of_one_split(sweep: Sweep, lanes: int) -> list[Trial]:
    """The first trials that can be lanes of one pack, so many at most."""
    trials = sweep.study.trials
    return [t for t in trials if t.decompose_factor == trials[0].decompose_factor][:lanes]


def pack_step(
    task: Task, trials: Sequence[Trial], device: torch.device, steps: int
) -> tuple[Callable[[], Any], Tensor, Step]:
    """The packed step on batches of the kind that most steps of an epoch are, enough of them for so
    many steps; the row numbers of one batch, and the kind.
    """
    adapted = attach(trials, task)
    adapted.model.to(device)
    step = PackStep(task, adapted, trials, device, steps=steps)
    epoch = training_passes(trials, task, device)[0]
    kind = Counter(epoch.steps).most_common(1)[0][0]
    line = epoch.rows[epoch.steps.index(kind)]
    step.train_feed.load(Pass(line.repeat(steps, 1), (kind,) * steps))
    step.prepare([kind])
    return partial(step.train, kind), line, kind


def _tokens(kind: Step) -> int | None:
    """Of a row, padding included: the mean over the rows."""
    lengths = [shape.length for shape in kind if shape.length is not None]
    if len(lengths) < len(kind):
        return None
    rows = [shape.rows for shape in kind]
    return round(sum(map(operator.mul, rows, lengths)) / sum(rows))
