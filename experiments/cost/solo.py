"""One trial alone, with its real batches: the step as it is trained, and the frozen base's own.

The frozen base is measured as a trial of the method ``head`` whose gradient runs back through all
of the base: forward and backward of the base, and next to nothing else. An adapter that reaches
down to the first layer needs as much, but for that layer's gradient of its own input; ``head``
itself needs far less, since its backward pass ends at the head. A task without a head has adapters
in its place, switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from experiments.batches import Pass, rows_of
from experiments.cost.clock import Action, laps
from experiments.cost.kept import bytes_for_backward, peak
from experiments.methods import attach
from experiments.step import PackStep, largest_first, largest_part, obstacle, open_first_layer
from experiments.tasks.base import Task
from experiments.train import training_passes
from experiments.trial import Trial
from lokr import LoKrModel

STEPS = 50_000
"""Length of the schedule while we measure: the rate stays low, so no trial diverges."""
PARTS = ("forward", "backward", "optimizer")


class Solo:
    """A trial in a process of its own, ready to step.

    Args:
        trial: what is trained.
        task: its task, loaded.
        device: ``"cpu"`` or ``"cuda"``; the current stream is used.
        steps: batches of a turn, the first of the trial's first epoch; fewer if it has fewer.
    """

    def __init__(self, trial: Trial, task: Task, device: str, steps: int) -> None:
        self.trial = trial
        self.task = task
        self.device = device
        self.adapted = attach([trial], task)
        self.model = self.adapted.model.to(device)
        self.batches = first_batches(trial, task, device, steps)
        self.step = PackStep(task, self.adapted, [trial], torch.device(device), steps=STEPS)
        self.step.train_feed.load(self.batches)
        self._place = 0  # of the next batch of `run`

    @classmethod
    def frozen_base(cls, trial: Trial, task: Task, device: str, steps: int) -> Solo:
        """The frozen base of a trial, at the trial's batches."""
        method = "head" if task.heads else "lokr"
        base = cls(replace(trial, method=method), task, device, steps)
        for part in base.model.modules():  # no head to train: adapters that are switched off
            if isinstance(part, LoKrModel):
                part.disable_adapter_layers()
        open_first_layer(base.model)
        return base

    @property
    def examples(self) -> int:
        """Rows of a step."""
        return rows_of(self.batches.steps[0])

    @property
    def lengths(self) -> list[int | None]:
        """What the rows of each batch are cut or padded to, at most."""
        return [step[-1].length for step in self.batches.steps]

    @property
    def tokens(self) -> int | None:
        """Tokens of all batches of a turn, padding left out; None where rows have no length."""
        lengths, rows = self.task.train.lengths, self.batches.rows[:, : self.examples]
        return None if lengths is None else int(lengths[rows].sum())

    @property
    def not_captured(self) -> str | None:
        """Why steps are launched from Python; None if all are replayed from CUDA graphs."""
        if self.device == "cpu":
            return "a CPU has no CUDA graphs"
        kinds = {("train", step) for step in self.batches.steps}
        if kinds <= set(self.step.recorder.recorded):
            return None
        return obstacle([self.trial]) or "the recording failed: a warning said why"

    def eager_turn(self) -> list[float]:
        """Milliseconds of the parts of each step, launched from Python: three a step."""
        self.warm_up()
        times = iter(laps(self.device, self._parts()))
        self._rewind()
        return [ms for step in self.batches.steps for ms in _three(times, len(step))]

    def captured_turn(self) -> list[float]:
        """Milliseconds of each step, replayed."""
        self._rewind()
        self.step.train(self.batches.steps[0])
        self._rewind()
        times = laps(self.device, [lambda s=s: self.step.train(s) for s in self.batches.steps])
        self._rewind()
        return times

    def warm_up(self) -> None:
        """One turn of steps launched from Python."""
        self._rewind()
        for action in self._parts():
            action()
        self._rewind()

    def run(self, steps: int) -> Action:
        """Start so many steps as they are trained, round and round; gives what waits for them."""
        for _ in range(steps):
            if self._place == len(self.batches):
                self._rewind()
            self.step.train(self.batches.steps[self._place])
            self._place += 1
        if self.device == "cpu":
            return lambda: None
        done = torch.cuda.Event()
        done.record()
        return done.synchronize

    def memory(self) -> dict[str, Any]:
        """Peaks of eager steps and of captured ones (null on a CPU), and bytes kept for backward.

        Afterwards the steps are captured, where they can be.
        """
        self.warm_up()
        found: dict[str, Any] = {
            "kept_for_backward_bytes": self._kept(),
            "eager": None,
            "captured": None,
        }
        if self.device == "cuda":
            found["eager"] = peak(self.warm_up)
            captured = peak(self.capture)
            found["captured"] = captured if self.not_captured is None else None
        return found

    def capture(self) -> None:
        """Have the steps captured, where they can be, and take one turn of them."""
        self.step.prepare(self.batches.steps)
        self._rewind()
        self.run(len(self.batches))

    def close(self) -> None:
        """Let recordings and their memory go."""
        self.step.close()

    def _kept(self) -> int:
        """Of the largest batch, or of its largest part."""
        self._rewind()
        step = largest_first(self.batches.steps)[0]
        self.step.train_feed.line.fill_(self.batches.steps.index(step))
        part = largest_part(step)
        return bytes_for_backward(self.model, lambda: self.step.forward(step, part))

    def _parts(self) -> list[Action]:
        """Forward and backward of each part of a batch, its update; a rewound feed is expected."""
        shares: list[Tensor] = []
        actions: list[Action] = []
        for step in self.batches.steps:
            for part in range(len(step)):
                actions += [
                    lambda step=step, part=part: shares.append(self.step.forward(step, part)),
                    lambda: self.step.backward(shares[-1]),
                ]
            actions.append(lambda: self._update(shares))
        return actions

    def _update(self, shares: list[Tensor]) -> None:
        self.step.update(shares)
        shares.clear()
        self.step.done += 1  # as PackStep.train counts

    def _rewind(self) -> None:
        """Back to the first batch and, long before the schedule ends, to its beginning."""
        self.step.train_feed.line.zero_()
        self._place = 0
        if self.step.done > STEPS // 2:
            self.step.done = 0
            self.step.optimizer.done.zero_()


def first_batches(trial: Trial, task: Task, device: str, steps: int) -> Pass:
    """The first full batches of the trial's first epoch, cut to the lengths that training cuts to
    (which on a GPU depend on all epochs).

    Where the task has less than one full batch, that one.
    """
    epoch = training_passes([trial], task, torch.device(device))[0]
    full = [step for step in epoch.steps if rows_of(step) == rows_of(epoch.steps[0])][:steps]
    return Pass(epoch.rows[: len(full)], tuple(full))


def _three(times: Iterator[float], parts: int) -> tuple[float, float, float]:
    """Forward, backward and update of a step, from the laps of its parts and the update's."""
    pairs = [(next(times), next(times)) for _ in range(parts)]
    forward, backward = map(sum, zip(*pairs, strict=True))
    return forward, backward, next(times)
