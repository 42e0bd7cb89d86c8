"""GLUE: nine tasks with their official metrics, from the hub or from a folder of parquet.

A folder has the hub's own layout (``nyu-mll/glue``): ``<folder>/<task>/train-*.parquet`` and
``validation-*.parquet`` (MNLI: ``validation_matched-*`` and ``validation_mismatched-*``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import BenchError
from experiments.tasks import text
from experiments.tasks.text import Row, TextData
from experiments.trial import Trial

HUB_ID = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """Text columns, metrics (the papers' headline first) and number of classes (1: regression)."""

    columns: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    labels: int = 2
    dev_splits: tuple[str, ...] = ("validation",)


_PAIR = ("sentence1", "sentence2")
TASKS: dict[str, GlueTask] = {
    "cola": GlueTask(("sentence",), ("matthews_correlation",)),
    "sst2": GlueTask(("sentence",)),
    "mrpc": GlueTask(_PAIR, ("accuracy", "f1")),
    "stsb": GlueTask(_PAIR, ("pearson", "spearman"), labels=1),
    "qqp": GlueTask(("question1", "question2"), ("accuracy", "f1")),
    "mnli": GlueTask(
        ("premise", "hypothesis"),
        labels=3,
        dev_splits=("validation_matched", "validation_mismatched"),
    ),
    "qnli": GlueTask(("question", "sentence")),
    "rte": GlueTask(_PAIR),
    "wnli": GlueTask(_PAIR),
}
# MNLI's two dev sets are scored apart: "accuracy" is matched, "accuracy_mm" mismatched.
_PARTS = {"validation_matched": "", "validation_mismatched": "_mm"}


def load(name: str, folder: str | None) -> TextData:
    """The rows of a GLUE task, from ``folder`` or, if None, from the hub.

    Raises:
        BenchError: the task is unknown, or its rows cannot be had; says what to do.
    """
    if name not in TASKS:
        raise BenchError(f"task 'glue/{name}': expected one of {', '.join(TASKS)}")
    task = TASKS[name]
    several = len(task.dev_splits) > 1
    dev: list[Row] = []
    for split in task.dev_splits:
        rows = _rows(name, split, task, folder)
        dev += [{**row, "part": split} for row in rows] if several else rows
    return TextData(
        train=_rows(name, "train", task, folder),
        dev=dev,
        columns=task.columns,
        metrics=task.metrics,
        labels=task.labels,
        source=f"hub {HUB_ID}" if folder is None else "folder",
        parts=_PARTS if several else None,
    )


def _data(trial: Trial, folder: str | None) -> TextData:
    return load(trial.task.partition("/")[2], folder)


def _labels(name: str) -> int:
    return TASKS[name].labels if name in TASKS else 2


FAMILY = text.family(_data, _labels)


def _rows(name: str, split: str, task: GlueTask, folder: str | None) -> list[Row]:
    columns = [*task.columns, "label"]
    rows = _from_hub(name, split) if folder is None else _from_folder(Path(folder) / name, split)
    missing = [column for column in columns if rows and column not in rows[0]]
    if missing:
        raise BenchError(f"glue/{name} {split}: columns {missing} are missing, expected {columns}")
    rows = [{c: row[c] for c in columns} for row in rows if row["label"] not in (-1, None)]
    if not rows:
        raise BenchError(f"glue/{name} {split}: no labelled rows")
    return rows


def _from_folder(folder: Path, split: str) -> Sequence[Row]:
    import pandas as pd

    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise BenchError(
            f"{folder} has no {split}-*.parquet; --data takes a folder in the layout of "
            f"{HUB_ID}: <folder>/<task>/{split}-00000-of-00001.parquet"
        )
    try:
        return pd.concat([pd.read_parquet(file) for file in files]).to_dict("records")
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        reason = str(error).strip().splitlines()[0]
        raise BenchError(f"{folder}: {split}-*.parquet cannot be read ({reason})") from error


def _from_hub(name: str, split: str) -> Sequence[Row]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise BenchError(
            "GLUE from the hub needs the package datasets: `pip install datasets`, or give a "
            "folder of parquet with --data"
        ) from None
    try:
        return list(load_dataset(HUB_ID, name, split=split))
    except Exception as error:  # the hub's client raises whatever its network layer does
        reason = str(error).strip().splitlines()[0]
        raise BenchError(
            f"glue/{name} could not be had from the hub ({reason}); give a folder of parquet in "
            f"the layout of {HUB_ID} with --data PATH"
        ) from error
