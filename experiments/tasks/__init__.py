"""Task families. A new one is a module with a loader, and one line in ``load``."""

from __future__ import annotations

from functools import lru_cache

from torch import nn

from experiments import bases
from experiments.errors import BenchError
from experiments.tasks.base import Task
from experiments.trial import Trial

FAMILIES = ("sentences", "glue")


def load(trial: Trial, data: str | None = None) -> Task:
    """The trial's task on its base; kept in memory for the next trial that shares both.

    Args:
        trial: names task, base, rows and lengths.
        data: folder of GLUE parquet, or None for the hub; ``sentences`` needs none.

    Raises:
        BenchError: task, base or data cannot be had; says what to do.
    """
    return _load(trial.task, trial.base, trial.train_size, trial.max_length, data)


def skeleton(trial: Trial) -> nn.Module:
    """The trial's model on the meta device, to count and compare adapters."""
    return bases.skeleton(trial.base)


@lru_cache(maxsize=2)
def _load(task: str, base: str, train_size: int | None, max_length: int, data: str | None) -> Task:
    from experiments.tasks import text

    family, _, name = task.partition("/")
    if family not in FAMILIES:
        raise BenchError(f"task {task!r}: expected a family of {', '.join(FAMILIES)}")
    if family == "glue":
        from experiments.tasks import glue

        rows = glue.load(name, data)
    else:
        from experiments.tasks import sentences

        rows = sentences.load(name, train_size)
    return text.TextTask(text.limited(rows, train_size), base, max_length)
