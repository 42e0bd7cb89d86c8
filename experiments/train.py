"""The one training loop: a pack of L trials on one base; a trial alone is a pack of one.

The passes over the data are planned on the CPU; the steps (:mod:`experiments.step`) run on the
device. In between nothing waits for the device: losses and predictions of all epochs stay there and
are read, and scored, when the last step is done.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from experiments import batches, tasks
from experiments.batches import Pass
from experiments.methods import Adapted, attach, generator_of
from experiments.outcome import Outcome
from experiments.step import PackStep, obstacle, own_stream
from experiments.tasks.base import Final, Scores, Task
from experiments.trial import Trial

OnStep = Callable[[int, int, float], None]
SHOW_EVERY = 10
"""Steps between two looks at the loss."""
AHEAD = 4
"""Looks that may be under way before the host waits: how far it runs ahead of the device."""
DIVERGED = 10.0
"""A lane has diverged if its loss is not finite, or an epoch's mean is so many times its first."""
EVALUATION_ROWS = {"cpu": 256, "cuda": 4096}
"""Rows, of all lanes together, that one forward pass of an evaluation sees."""


@dataclass
class Lane:
    """What is recorded of one trial while it trains."""

    trial: Trial
    first_loss: float = math.nan
    diverged: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def train_pack(
    trials: Sequence[Trial],
    *,
    device: str = "cpu",
    data: str | None = None,
    on_step: OnStep = lambda done, total, loss: None,
    capture: bool | None = None,
    compile: bool = False,
    parts: int | None = None,
) -> list[Outcome]:
    """Train the trials of a pack side by side.

    Args:
        trials: they share all that ``experiments.plan`` says a pack must share.
        device: ``"cpu"`` or ``"cuda"``.
        data: folder of the task's data, None for the hub or what the task brings itself.
        on_step: told (steps done, steps in all, mean loss of the lanes) now and then, on a GPU a
            little after the fact.
        capture: replay the steps from CUDA graphs; None: on a GPU.
        compile: let ``torch.compile`` have the base's repeated layers.
        parts: into how many parts by length each batch is cut, see :func:`training_passes`.

    Returns:
        One outcome a trial, in order.

    Raises:
        BenchError: task, base or data cannot be had.
    """
    task = tasks.load(trials[0], data)
    place = torch.device(device)
    with own_stream(place):
        task.settle(place, trials[0].precision)
        adapted = attach(trials, task)
        adapted.model.to(place)
        step = PackStep(task, adapted, trials, place, capture=capture, compile=compile)
        try:
            return _train(trials, task, adapted, step, on_step, parts)
        finally:
            step.close()


def _train(
    trials: Sequence[Trial],
    task: Task,
    adapted: Adapted,
    step: PackStep,
    on_step: OnStep,
    parts: int | None,
) -> list[Outcome]:
    epochs = training_passes(trials, task, step.device, parts)
    dev = dev_pass(len(trials), task, step.device)
    predictions = []  # (L, N) an epoch, on the device
    look = Look(step, on_step)
    _prepare(step, epochs, dev)
    for epoch in epochs:
        step.train_feed.load(epoch)
        for kind in epoch.steps:
            step.train(kind)
            look.after(step.done)
        step.evaluate(dev)
        predictions.append(step.predictions.clone())
    look.finish()
    losses = step.losses.view(len(epochs), -1, len(trials)).cpu()
    lanes = [Lane(trial) for trial in trials]
    for epoch, (seen, said) in enumerate(zip(losses, predictions, strict=True), 1):
        _record(lanes, epoch, seen, [task.scores(lane) for lane in said.cpu()])
    finals = step.finish(trials)
    return [_outcome(*one, task) for one in zip(lanes, adapted.counts, finals, strict=True)]


def training_passes(
    trials: Sequence[Trial], task: Task, device: torch.device, parts: int | None = None
) -> list[Pass]:
    """Every lane's rows in its own order, epoch by epoch; on a GPU in steps of a few kinds.

    Args:
        trials: one a lane.
        task: whose training rows they are.
        device: where they are trained.
        parts: into how many parts by length each batch is cut; None: as many as keep a GPU full
            (:func:`experiments.batches.parts_of`), and one on a CPU, where it would gain nothing.
    """
    on_gpu = device.type == "cuda"
    if parts is None:
        parts = _parts(trials, task) if on_gpu else 1
    generators = [generator_of(trial, "order") for trial in trials]
    bucket = batches.BUCKET if parts == 1 else batches.PART_BUCKET
    repeats = trials[0].repeats
    cut = (trials[0].batch_size, task.train.lengths, bucket if on_gpu else 1, task.train.width)
    epochs = [
        batches.plan(batches.epoch_orders(task.train_size, generators, repeats), *cut, parts)
        for _ in range(trials[0].epochs)
    ]
    return [batches.joined(one) for one in (batches.merged(epochs) if on_gpu else epochs)]


def dev_pass(lanes: int, task: Task, device: torch.device) -> Pass:
    """The dev rows, short ones first, in steps of one part."""
    order = batches.by_length(len(task.dev), task.dev.lengths, lanes)
    size = max(1, EVALUATION_ROWS[device.type] // lanes)
    bucket = batches.BUCKET if device.type == "cuda" else 1
    return batches.plan(order, size, task.dev.lengths, bucket, task.dev.width)


def _parts(trials: Sequence[Trial], task: Task) -> int:
    if obstacle(trials) is not None:
        return 1  # masks that peft draws in each forward pass would differ between the parts
    rows = len(trials) * min(trials[0].batch_size, task.train_size * trials[0].repeats)
    return batches.parts_of(rows, task.train.lengths)


def _prepare(step: PackStep, epochs: Sequence[Pass], dev: Pass) -> None:
    step.train_feed.load(epochs[0])
    step.dev_feed.load(dev)
    step.prepare((kind for epoch in epochs for kind in epoch.steps), dev.steps)


class Look:
    """Reports the loss now and then without making the device wait for the host.

    Args:
        step: whose losses are shown.
        on_step: told (steps done, steps in all, mean loss of the lanes).
    """

    def __init__(self, step: PackStep, on_step: OnStep) -> None:
        self._step = step
        self._on_step = on_step
        self._under_way: deque[tuple[int, Tensor, torch.cuda.Event]] = deque()

    def after(self, done: int) -> None:
        """To be called after each step."""
        if done % SHOW_EVERY and done not in (1, self._step.steps):
            return
        losses = self._step.losses[done - 1]
        if losses.is_cuda:
            self._send(done, losses)
        else:
            self._show(done, losses)

    def finish(self) -> None:
        """Report what is under way."""
        while self._under_way:
            self._receive()

    def _send(self, done: int, losses: Tensor) -> None:
        here = torch.empty_like(losses, device="cpu", pin_memory=True)
        here.copy_(losses, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._under_way.append((done, here, event))
        while len(self._under_way) > AHEAD or (self._under_way and self._under_way[0][2].query()):
            self._receive()

    def _receive(self) -> None:
        done, losses, event = self._under_way.popleft()
        event.synchronize()
        self._show(done, losses)

    def _show(self, done: int, losses: Tensor) -> None:
        self._on_step(done, self._step.steps, losses.mean().item())


def _record(lanes: Sequence[Lane], epoch: int, losses: Tensor, scores: Sequence[Scores]) -> None:
    """Add an epoch, its losses (steps, L), to each lane's history."""
    for lane, column, score in zip(lanes, losses.T.tolist(), scores, strict=True):
        if not lane.history:
            lane.first_loss = column[0]
        mean = sum(column) / len(column)
        lane.diverged = lane.diverged or _divergence(column, mean, lane, epoch)
        row = {"epoch": epoch, "step": epoch * len(column), "train_loss": mean}
        lane.history.append({**row, "losses": column, **score})


def _divergence(losses: Sequence[float], mean: float, lane: Lane, epoch: int) -> str | None:
    for step, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            return f"the loss is {loss} at step {step} of epoch {epoch}"
    if mean > DIVERGED * lane.first_loss:
        return (
            f"the mean loss of epoch {epoch} is {mean:.4g}, "
            f"over {DIVERGED:g} times the first step's {lane.first_loss:.4g}"
        )
    return None


def _outcome(lane: Lane, counts: dict[str, int], final: Final, task: Task) -> Outcome:
    return Outcome(
        status="diverged" if lane.diverged else "ok",
        message=lane.diverged,
        metrics={**_metrics(lane.history, task.primary), **final.metrics},
        history=lane.history,
        parameters=counts,
        provenance=task.provenance,
        pictures=final.pictures,
        exhibits=task.exhibits(),
    )


def _metrics(history: Sequence[dict[str, Any]], primary: str) -> dict[str, Any]:
    """Both protocols: epoch chosen on one half and reported on the other; best on the full dev set.

    Ties go to the earlier epoch; an undefined (NaN) score is never chosen over a number.
    """
    chosen = max(history, key=lambda row: _comparable(row["selection"][primary]))
    best = max(history, key=lambda row: _comparable(row["full"][primary]))
    return {
        "primary": primary,
        "score": chosen["report"][primary],
        "selection_score": chosen["selection"][primary],
        "selected_epoch": chosen["epoch"],
        "full_dev_best": best["full"][primary],
        "full_dev_best_epoch": best["epoch"],
    }


def _comparable(score: float) -> float:
    return -math.inf if math.isnan(score) else score
