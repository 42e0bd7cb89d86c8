"""The one seam that a new task touches: a `Family` says what its trials need before anything is
loaded, a `Task` is one of its tasks on a base, loaded.

Legend: L lanes (trials of a pack); B rows a lane; M rows of all lanes, L·B, lane-major; N rows of a
split; T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from experiments.trial import Trial
from lokr import LaneNoise

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


@dataclass(frozen=True)
class Final:
    """What is read off one lane when its last step is done.

    Args:
        metrics: name -> value, None where it is not defined; under ``reference`` what the others
            are to be read against.
        pictures: file ending (``"samples.webp"``) -> content, kept beside the trial's result.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)


class Task(Protocol):
    """A task on a base, loaded: all that the training loop may ask of it.

    ``loss`` and ``predict`` may be recorded once and replayed on other rows: they read no tensor's
    value on the host and draw no random numbers but from ``draws``.
    """

    primary: str
    """Name of the metric that selects and is reported; higher is better."""
    train_size: int
    """Training rows; an epoch shows each ``repeats`` times."""
    train: Split
    """The training rows."""
    dev: Split
    """The dev rows."""
    heads: tuple[str, ...]
    """Names of the modules that are new in this task, trained by every method."""
    provenance: dict[str, Any]
    """Which data and base were used, from where, with their fingerprints."""
    stochastic: bool = False
    """Whether ``loss`` draws random numbers."""
    task_type: str | None = None
    """As in the ``Family``."""

    def model(self) -> nn.Module:
        """A fresh copy of the pretrained base with an untrained head, fp32, on the CPU."""
        ...

    def reset_heads(self, model: nn.Module, seed: int) -> None:
        """Draw new head weights in place; equal seeds give equal weights."""
        ...

    def loss(
        self, model: nn.Module, batch: Batch, lanes: int, draws: LaneNoise | None = None
    ) -> Tensor:
        """Mean loss of each lane on a lane-major batch, (L,) fp32.

        ``draws`` are the lanes' random numbers of this step, if the task is stochastic.
        """
        ...

    def predict(self, model: nn.Module, batch: Batch, lanes: int) -> Tensor:
        """What the model says of each row of a lane-major batch, one number each: (L, B) fp32."""
        ...

    def scores(self, predictions: Tensor) -> Scores:
        """Dev-set scores from one lane's predictions, (N,) on the CPU."""
        ...

    def parts(self, trial: Trial) -> dict[str, Trial]:
        """As in the ``Family``."""
        return {"": trial}

    def settle(self, device: torch.device, precision: str) -> None:
        """Measure, once, what scores are compared with: the untouched base on this device."""

    def finish(self, model: nn.Module, trials: Sequence[Trial]) -> list[Final]:
        """What else is to be known of each lane after its last step; the model is on its device,
        in evaluation mode, and autocast and no_grad are on.
        """
        return [Final() for _ in trials]

    def exhibits(self) -> dict[str, bytes]:
        """Pictures that all trials of the task share: file name -> content."""
        return {}


@dataclass(frozen=True)
class Family:
    """A kind of task. ``trial.task`` is ``family/name``.

    Args:
        load: the trial's task, with the folder of ``--data`` or None; raises BenchError if task,
            base or data cannot be had.
        skeleton: the trial's model on the meta device, to count and compare adapters.
        heads: names of the modules of such a model that are new in the task.
        parts: submodule -> the trial whose knobs its adapter reads; ``""`` is the whole model.
        task_type: PEFT's name for the kind of task, for the adapter's config.
        check: whether task and data can be had, as far as that is known at once; raises BenchError.
    """

    load: Callable[[Trial, str | None], Task]
    skeleton: Callable[[Trial], nn.Module]
    heads: Callable[[nn.Module], tuple[str, ...]] = lambda model: ()
    parts: Callable[[Trial], dict[str, Trial]] = lambda trial: {"": trial}
    task_type: str | None = None
    check: Callable[[Trial, str | None], None] = lambda trial, data: None
