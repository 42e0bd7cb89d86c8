"""Task families, found by their names: ``experiments/tasks/<family>`` has a ``FAMILY``."""

from __future__ import annotations

import importlib
from functools import lru_cache

from torch import nn

from experiments.errors import BenchError
from experiments.tasks.base import Family, Task
from experiments.trial import Trial

FAMILIES = ("sentences", "glue", "emoji", "dreambooth")
READ = (
    "task",
    "base",
    "train_size",
    "max_length",
    "samples",
    "drift_rows",
    "resolution",
    "text_r",
    "text_alpha",
    "prior_weight",
    "gradient_checkpointing",
)
"""Fields of a trial that say what is loaded; the others may differ between trials of one task."""


def family(trial: Trial) -> Family:
    """The family of the trial's task.

    Raises:
        BenchError: there is none of this name.
    """
    name, _, _ = trial.task.partition("/")
    if name not in FAMILIES:
        raise BenchError(f"task {trial.task!r}: expected a family of {', '.join(FAMILIES)}")
    found: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
    return found


def load(trial: Trial, data: str | None = None) -> Task:
    """The trial's task on its base; kept in memory for the next trial that shares both.

    Args:
        trial: names task, base, rows and lengths.
        data: folder of the task's data, or None for the hub or what the task brings itself.

    Raises:
        BenchError: task, base or data cannot be had; says what to do.
    """
    return _load(Trial(**{name: getattr(trial, name) for name in READ}), data)


def skeleton(trial: Trial) -> nn.Module:
    """The trial's model on the meta device, to count and compare adapters."""
    return family(trial).skeleton(trial)


@lru_cache(maxsize=2)
def _load(shared: Trial, data: str | None) -> Task:
    return family(shared).load(shared, data)
