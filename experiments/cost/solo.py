"""One trial alone, with its real batches: the step as it is trained, and the frozen base's own.

The frozen base is measured as a trial of the method ``head`` whose gradient runs back through all
of the base: forward and backward of the base, and next to nothing else. An adapter that reaches
down to the first layer needs as much, but for that layer's gradient of its own input; ``head``
itself needs far less, since its backward pass ends at the head.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from experiments.batches import BUCKET, Pass, epoch_orders, merged, plan
from experiments.cost.clock import Action, laps
from experiments.cost.kept import bytes_for_backward, peak
from experiments.methods import attach, generator_of
from experiments.step import PackStep, obstacle
from experiments.tasks.base import Task
from experiments.trial import Trial

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
        base = cls(replace(trial, method="head"), task, device, steps)
        _open_embeddings(base.model)
        return base

    @property
    def examples(self) -> int:
        """Rows of a step."""
        return self.batches.shapes[0].rows

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
        kinds = {("train", shape) for shape in self.batches.shapes}
        if kinds <= set(self.step.recorder.recorded):
            return None
        return obstacle([self.trial]) or "the recording failed: a warning said why"

    def eager_turn(self) -> list[float]:
        """Milliseconds of the parts of each step, launched from Python: three a step."""
        self.warm_up()
        return laps(self.device, self._parts())

    def captured_turn(self) -> list[float]:
        """Milliseconds of each step, replayed."""
        self._rewind()
        self.step.train(self.batches.shapes[0])
        self._rewind()
        return laps(self.device, [lambda s=s: self.step.train(s) for s in self.batches.shapes])

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
            self.step.train(self.batches.shapes[self._place])
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
        self.step.prepare(self.batches.shapes)
        self._rewind()
        self.run(len(self.batches))

    def close(self) -> None:
        """Let recordings and their memory go."""
        self.step.close()

    def _kept(self) -> int:
        """Of the largest batch."""
        self._rewind()
        lengths = [shape.length or 0 for shape in self.batches.shapes]
        largest = lengths.index(max(lengths))
        self.step.train_feed.line.fill_(largest)
        shape = self.batches.shapes[largest]
        return bytes_for_backward(self.model, lambda: self.step.forward(shape))

    def _parts(self) -> list[Action]:
        """Forward, backward and update of each batch; a rewound feed is expected."""
        losses: list[Tensor] = []
        actions: list[Action] = []
        for shape in self.batches.shapes:
            actions += [
                lambda shape=shape: losses.append(self.step.forward(shape)),
                lambda: self.step.backward(losses[-1]),
                lambda: self._update(losses.pop()),
            ]
        return actions

    def _update(self, losses: Tensor) -> None:
        self.step.update(losses)
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
    on_gpu = device == "cuda"
    generators = [generator_of(trial, "order")]
    shape = (task.train.lengths, BUCKET if on_gpu else 1, task.train.width or 0)
    epochs = [
        plan(epoch_orders(task.train_size, generators), trial.batch_size, *shape)
        for _ in range(trial.epochs)
    ]
    epoch = (merged(epochs) if on_gpu else epochs)[0]
    full = [shape for shape in epoch.shapes if shape.rows == epoch.shapes[0].rows][:steps]
    return Pass(epoch.rows[: len(full)], tuple(full))


def _open_embeddings(model: Any) -> None:
    """Let the gradient run back to the embeddings, so that the whole base takes part."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.requires_grad_(True)

    model.get_input_embeddings().register_forward_hook(hook)
