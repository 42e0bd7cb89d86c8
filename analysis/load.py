"""Results to a tidy frame: one row a trial, its fields and its scores side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

SCHEMA = 1
NUISANCE = ("learning_rate", "seed")
"""Fields of a trial that name no cell: the rate is tuned within the cell, the seed repeated."""
JUDGED = (
    "similarity",
    "similarity_se",
    "frechet",
    "dino",
    "clip_i",
    "clip_t",
    "vendi",
    "style",
    "retrieval_top1",
    "retrieval_top5",
    "drift",
)
"""What some tasks measure beside the score; a study has those of its tasks."""
METRICS = ("primary", "score", "selection_score", "selected_epoch", "full_dev_best")
PARAMETERS = ("adapter", "trainable")
_NUMBERS = {*METRICS[1:], *(f"parameters.{name}" for name in PARAMETERS), "seconds", *JUDGED}


def load(folder: Path) -> pd.DataFrame:
    """Every result in a study's folder; files that are none are named in the frame's attrs.

    Args:
        folder: ``results/<study>``.

    Returns:
        Columns: the trial's fields, ``id``, ``status``, those of ``metrics`` and ``parameters``
        (``reference.<name>`` of what is under ``reference``), ``drift`` at the selected epoch where
        it was measured, ``seconds``, and ``cell`` (what distinguishes the cell from the others of
        the study).
        ``frame.attrs["unread"]``: file names that hold no result of this schema.

    Raises:
        FileNotFoundError: there is no result.
    """
    rows, unread = [], []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            rows.append(_row(json.loads(path.read_text("utf-8"))))
        except (ValueError, KeyError, TypeError):
            unread.append(path.name)
    if not rows:
        raise FileNotFoundError(f"{folder} holds no results; run the study first")
    frame = pd.DataFrame(rows)
    numbers = [name for name in frame if name in _NUMBERS or name.startswith("reference.")]
    nulls = [name for name in numbers if frame[name].isna().all()]
    frame[nulls] = frame[nulls].astype(float)  # else they are columns of objects
    frame["cell"] = cell_names(frame)
    frame.attrs["unread"] = unread
    return frame


def knobs_of(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Method -> the fields in which its trials differ, nuisances apart."""
    fields = [c.removeprefix("trial.") for c in frame.columns if c.startswith("trial.")]
    scientific = [f for f in fields if f not in (*NUISANCE, "method", "task", "base")]
    return {
        str(method): [f for f in scientific if len(set(group[f"trial.{f}"])) > 1]
        for method, group in frame.groupby("trial.method")
    }


def cell_names(frame: pd.DataFrame) -> pd.Series:
    """Method, and the fields in which the trials of that method differ, nuisances apart."""
    knobs = knobs_of(frame)

    def name(row: pd.Series) -> str:
        method = str(row["trial.method"])
        return " ".join([method, *(f"{k}={spell(row[f'trial.{k}'])}" for k in knobs[method])])

    return frame.apply(name, axis=1)


def _row(result: dict) -> dict:
    if result["schema"] != SCHEMA:
        raise ValueError(result["schema"])
    trial = {f"trial.{name}": _hashable(value) for name, value in result["trial"].items()}
    metrics = {**dict.fromkeys(METRICS), **(result["metrics"] or {})}
    reference = metrics.pop("reference", None) or {}
    parameters = {**dict.fromkeys(PARAMETERS), **(result["parameters"] or {})}
    return {
        "id": result["id"],
        "status": result["status"],
        **trial,
        **metrics,
        **{f"reference.{name}": value for name, value in reference.items()},
        **_drift(result["history"], metrics["selected_epoch"]),
        **{f"parameters.{name}": count for name, count in parameters.items()},
        "seconds": result["cost"]["seconds"],
    }


def _drift(history: list[dict], epoch: int | None) -> dict[str, float]:
    """How much of the base was forgotten at an epoch, if that was measured."""
    reports = {row["epoch"]: row["report"] for row in history}
    return {name: value for name, value in reports.get(epoch, {}).items() if name == "drift"}


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def spell(value: object) -> str:
    """A field's value for people."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
