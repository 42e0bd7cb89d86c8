"""Stand-ins for the model and the training loop: shapes of a real adapter, results in no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from experiments.outcome import Outcome
from experiments.store import Result
from experiments.trial import Trial
from lokr import LayerCount, LayerShape, LoKrConfig, factor_spec

LINEAR = LayerShape(384, 384)
CONVOLUTION = LayerShape(64, 32, (3, 3))


def layers_of(trial: Trial, shapes: Sequence[LayerShape] = (LINEAR, LINEAR)) -> list[LayerCount]:
    """The factors that the trial's knobs give layers of these shapes."""
    knobs = ("r", "alpha", "decompose_factor", "decompose_both", "use_effective_conv2d")
    config = LoKrConfig(**{knob: getattr(trial, knob) for knob in knobs})
    specs = [factor_spec(shape, config, trial.r, trial.alpha) for shape in shapes]
    return [LayerCount(f"layer.{i}", spec) for i, spec in enumerate(specs)]


def convolutions_of(trial: Trial) -> list[LayerCount]:
    """The same for a model of one convolution."""
    return layers_of(trial, (CONVOLUTION,))


def rows_of(trial: Trial, data: str | None = None) -> int:
    """100 training rows, unless the trial says otherwise."""
    return trial.train_size or 100


def parameters_of(trial: Trial) -> int:
    """Adapter parameters."""
    return sum(layer.parameters for layer in layers_of(trial))


def outcome(trial: Trial, **changes: Any) -> Outcome:
    """What a trial that went well gives."""
    score = 0.5 + trial.seed / 10
    readings = {name: {"accuracy": score} for name in ("selection", "report", "full")}
    fields: dict[str, Any] = {
        "status": "ok",
        "metrics": {
            "primary": "accuracy",
            "score": score,
            "selection_score": score,
            "selected_epoch": 1,
            "full_dev_best": score,
            "full_dev_best_epoch": 1,
        },
        "history": [{"epoch": 1, "step": 1, "train_loss": 0.7, "losses": [0.7], **readings}],
        "parameters": {"adapter": 10, "head": 2, "trainable": 12, "base": 100},
        "provenance": {"base": {"name": "minilm"}, "data": {"train": 100}},
    }
    return Outcome(**{**fields, **changes})


def result(trial: Trial, study: str = "small", **changes: Any) -> Result:
    """A result as a run would have written it."""
    done = outcome(trial)
    fields: dict[str, Any] = {
        "study": study,
        "trial": trial,
        "status": done.status,
        "message": None,
        "metrics": done.metrics,
        "history": done.history,
        "parameters": done.parameters,
        "cost": {"seconds": 1.0, "pack_seconds": 2.0, "lanes": 2},
        "provenance": {"commit": None, "pack": [trial.id]},
    }
    return Result(**{**fields, **changes})


class Trainer:
    """A ``train_pack`` that remembers its packs.

    ``before`` is called with the trials of each pack and may raise.
    """

    def __init__(self, before: Callable[[Sequence[Trial]], None] = lambda trials: None) -> None:
        self.before = before
        self.packs: list[tuple[Trial, ...]] = []
        self.compiled: list[bool] = []

    def __call__(
        self,
        trials: Sequence[Trial],
        *,
        device: str,
        data: str | None,
        on_step: Callable[[int, int, float], None],
        compile: bool = False,
    ) -> list[Outcome]:
        self.packs.append(tuple(trials))
        self.compiled.append(compile)
        self.before(trials)
        on_step(1, 1, 0.5)
        return [outcome(trial) for trial in trials]

    @property
    def sizes(self) -> list[int]:
        """Lanes of each attempt, in order."""
        return [len(pack) for pack in self.packs]


class Device:
    """A trainer and a meter that share a simulated memory of ``size`` bytes.

    A pack takes ``fixed + lanes * per_lane`` bytes, or what ``need`` says; torch's own error above
    the size.
    """

    def __init__(
        self, size: int, fixed: int = 0, per_lane: int = 1, need: Callable[[int], int] | None = None
    ) -> None:
        self.size = size
        self.need = need or (lambda lanes: fixed + lanes * per_lane)
        self.trainer = Trainer(self._fill)
        self.started = 0
        self._peak = 0

    def _fill(self, trials: Sequence[Trial]) -> None:
        if self.need(len(trials)) > self.size:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self._peak = self.need(len(trials))

    def budget(self) -> int:
        """All of it."""
        return self.size

    def start(self) -> None:
        """Forget the last peak."""
        self.started += 1
        self._peak = 0

    def peak(self) -> int:
        """Of the last pack."""
        return self._peak
