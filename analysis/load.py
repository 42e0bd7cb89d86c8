"""Results to a tidy frame: one row a trial, its fields and its scores side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

SCHEMA = 1
NUISANCE = ("learning_rate", "seed")
"""Fields of a trial that name no cell: the rate is tuned within the cell, the seed repeated."""


def load(folder: Path) -> pd.DataFrame:
    """Every result in a study's folder; files that are none are named in the frame's attrs.

    Args:
        folder: ``results/<study>``.

    Returns:
        Columns: the trial's fields, ``id``, ``status``, those of ``metrics`` and ``parameters``,
        ``seconds``, and ``cell`` (what distinguishes the cell from the others of the study).
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
    frame["cell"] = cell_names(frame)
    frame.attrs["unread"] = unread
    return frame


def cell_names(frame: pd.DataFrame) -> pd.Series:
    """Method, and the fields in which the trials of that method differ, nuisances apart."""
    fields = [c for c in frame.columns if c.startswith("trial.")]
    names = pd.Series("", index=frame.index)
    for method, group in frame.groupby("trial.method"):
        differ = [c for c in fields if _varies(group[c]) and c.split(".")[1] not in NUISANCE]
        for index, row in group.iterrows():
            knobs = [f"{c.split('.')[1]}={_spell(row[c])}" for c in differ]
            names[index] = " ".join([str(method), *knobs])
    return names


def _row(result: dict) -> dict:
    if result["schema"] != SCHEMA:
        raise ValueError(result["schema"])
    trial = {f"trial.{name}": _hashable(value) for name, value in result["trial"].items()}
    parameters = result["parameters"] or {}
    return {
        "id": result["id"],
        "status": result["status"],
        **trial,
        **(result["metrics"] or {}),
        **{f"parameters.{name}": count for name, count in parameters.items()},
        "seconds": result["cost"]["seconds"],
    }


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _varies(column: pd.Series) -> bool:
    return len(set(column)) > 1


def _spell(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
