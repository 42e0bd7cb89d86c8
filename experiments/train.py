"""The one training loop: a pack of L trials on one base; a trial alone is a pack of one.

    batch (L·B, …) -> base and adapters -> loss of each lane (L,) -> their sum, backward
                   -> clipping and AdamW, each lane with its own numbers -> dev set after each epoch

The sum of the lanes' losses gives every lane the gradient it would have alone, since no lane's loss
depends on another lane's parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from experiments import tasks
from experiments.methods import Adapted, attach, generator_of
from experiments.optimizer import LaneAdamW, LaneParameters, share_of_peak
from experiments.outcome import Outcome
from experiments.tasks.base import Scores, Task
from experiments.trial import Trial

OnStep = Callable[[int, int, float], None]
SHOW_EVERY = 10
"""Steps between two looks at the loss: each waits for the device."""
DIVERGED = 10.0
"""A lane has diverged if its loss is not finite, or an epoch's mean is so many times its first."""


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
) -> list[Outcome]:
    """Train the trials of a pack side by side.

    Args:
        trials: they share all that ``experiments.plan`` says a pack must share.
        device: ``"cpu"`` or ``"cuda"``.
        data: folder of GLUE parquet, None for the hub.
        on_step: told (steps done, steps in all, mean loss of the lanes) now and then.

    Returns:
        One outcome a trial, in order.

    Raises:
        BenchError: task, base or data cannot be had.
    """
    task = tasks.load(trials[0], data)
    place = torch.device(device)
    adapted = attach(trials, task)
    adapted.model.to(place)
    lanes = [Lane(trial) for trial in trials]
    run = _Run(task, adapted, lanes, place, on_step)
    run.train()
    return [
        _outcome(lane, counts, task) for lane, counts in zip(lanes, adapted.counts, strict=True)
    ]


class _Run:
    """One pack in training."""

    def __init__(
        self,
        task: Task,
        adapted: Adapted,
        lanes: Sequence[Lane],
        device: torch.device,
        on_step: OnStep,
    ) -> None:
        self.task = task
        self.model = adapted.model
        self.noise = adapted.noise.to(device) if adapted.noise is not None else None
        self.lanes = lanes
        self.device = device
        self.on_step = on_step
        trials = [lane.trial for lane in lanes]
        self.shared = trials[0]
        self.optimizer = LaneAdamW(
            LaneParameters(adapted.trainable, len(trials), adapted.stacked),
            [trial.learning_rate for trial in trials],
            [trial.weight_decay for trial in trials],
            [trial.clip for trial in trials],
        )
        self.steps = trials[0].epochs * math.ceil(task.train_size / trials[0].batch_size)
        self.done = 0
        _lighten(self.model, self.shared.precision)

    def train(self) -> None:
        orders = [generator_of(lane.trial, "order") for lane in self.lanes]
        for epoch in range(1, self.shared.epochs + 1):
            self.model.train()
            batches = _batches(self.task.train_size, self.shared.batch_size, orders)
            losses = torch.stack([self._step(rows) for rows in batches])  # (steps, L)
            self._record(epoch, losses.cpu(), self._evaluate())

    def _step(self, rows: Tensor) -> Tensor:
        """One optimizer step on rows (L, B); the loss of each lane, (L,)."""
        batch = self.task.batch(rows, self.device)
        with self._precision():
            losses = self.task.loss(self.model, batch, len(self.lanes))
        losses.sum().backward()
        self.optimizer.step(share_of_peak(self.done, self.steps, self.shared.warmup))
        if self.noise is not None:
            self.noise.advance()
        self.done += 1
        if self.done % SHOW_EVERY == 0 or self.done in (1, self.steps):
            self.on_step(self.done, self.steps, losses.mean().item())
        return losses.detach()

    def _evaluate(self) -> list[Scores]:
        self.model.eval()
        with self._precision():
            return self.task.evaluate(self.model, len(self.lanes), self.device)

    def _record(self, epoch: int, losses: Tensor, scores: Sequence[Scores]) -> None:
        for lane, column, score in zip(self.lanes, losses.T.tolist(), scores, strict=True):
            if not lane.history:
                lane.first_loss = column[0]
            mean = sum(column) / len(column)
            lane.diverged = lane.diverged or _divergence(column, mean, lane, epoch)
            row = {"epoch": epoch, "step": self.done, "train_loss": mean}
            lane.history.append({**row, "losses": column, **score})

    def _precision(self) -> AbstractContextManager[Any]:
        if self.shared.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def _batches(size: int, batch: int, orders: Sequence[torch.Generator]) -> Iterator[Tensor]:
    """Row numbers (L, B) of one epoch: every lane in its own order, the last batch maybe short."""
    order = torch.stack([torch.randperm(size, generator=generator) for generator in orders])
    yield from order.split(batch, dim=1)


def _lighten(model: nn.Module, precision: str) -> None:
    """Keep the frozen linear weights in bf16 where autocast would cast them anew each step."""
    if precision == "bf16":
        for module in model.modules():
            frozen = not any(p.requires_grad for p in module.parameters())
            if isinstance(module, nn.Linear) and frozen:
                module.to(torch.bfloat16)


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


def _outcome(lane: Lane, counts: dict[str, int], task: Task) -> Outcome:
    return Outcome(
        status="diverged" if lane.diverged else "ok",
        message=lane.diverged,
        metrics=_metrics(lane.history, task.primary),
        history=lane.history,
        parameters=counts,
        provenance=task.provenance,
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
