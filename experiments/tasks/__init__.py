"""Task families. A new one is a module with a loader, and one line in ``load``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from torch import nn

from experiments import bases
from experiments.errors import BenchError
from experiments.tasks.base import Task
from experiments.trial import Trial

if TYPE_CHECKING:
    from experiments.tasks.text import TextData

FAMILIES = ("sentences", "glue")
SENTENCES_TRAIN = 2000
SENTENCES_DEV = 400
"""Rows of a ``sentences`` task where the trial does not say how many."""


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
    from experiments.tasks import glue

    family, _, name = trial.task.partition("/")
    labels = glue.TASKS[name].labels if family == "glue" and name in glue.TASKS else 2
    return bases.skeleton(trial.base, labels)


def _sentences(name: str, train_size: int | None) -> TextData:
    """The rows of our own generator; any number can be had, so None is SENTENCES_TRAIN."""
    from experiments.tasks import sentences, text

    try:
        train = sentences.generate(name, "train", train_size or SENTENCES_TRAIN)
    except ValueError as error:
        raise BenchError(f"sentences: {error}") from None
    return text.TextData(
        train=train,
        dev=sentences.generate(name, "validation", SENTENCES_DEV),
        columns=sentences.SENTENCES[name].columns,
        metrics=("accuracy",),
        labels=2,
        source="experiments/tasks/sentences.py",
    )


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
        rows = _sentences(name, train_size)
    return text.TextTask(text.limited(rows, train_size), base, max_length)
