"""Results to a tidy frame: one row a trial, its fields and its scores side by side.

A file that is no result is named with the reason, and never keeps the others from being read.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
PARAMETERS = ("adapter", "head", "trainable", "base")
COST = ("seconds", "lanes", "peak_bytes")
PROVENANCE = ("commit", "dirty", "platform", "device", "gpu", "cpu", "compiled", "finished")
VERSIONS = ("torch", "transformers", "peft", "triton")
FIELDS = ("schema", "id", "status", "trial", "metrics", "history", "parameters", "cost")
"""Of a result; an older file may lack the others."""
IDENTITY = ("task", "base", "method", "learning_rate", "seed")
"""Of a trial: without them it belongs to no part and no cell."""
OTHER_SCHEMAS = ("bench", "cost")
"""Folders of results that are no study."""
_NUMBERS = {*METRICS[1:], *(f"parameters.{name}" for name in PARAMETERS), *COST, *JUDGED}


class Results(NamedTuple):
    """The results of several studies.

    Args:
        trials: one row a trial: ``study``, and the columns of :func:`load`.
        epochs: one row a trial and epoch, as in a result's ``history``: ``study``, ``id``,
            ``epoch``, ``step``, ``train_loss``, and ``<half>.<metric>`` with half one of selection,
            report and full.
        unread: path of a file that is no result -> why.
    """

    trials: pd.DataFrame
    epochs: pd.DataFrame
    unread: dict[str, str]


def studies(root: Path) -> list[str]:
    """Names of the folders that hold a result; speed and cost have schemas of their own."""
    folders = (path for path in sorted(root.glob("*/")) if path.name not in OTHER_SCHEMAS)
    return [folder.name for folder in folders if any(folder.glob("[!.]*.json"))]


def load_all(root: Path, names: Sequence[str] = ()) -> Results:
    """The results of every study under a folder, or of those named.

    Args:
        root: the folder that holds ``<study>/<id>.json``.
        names: of studies; empty for all.

    Raises:
        FileNotFoundError: a named study, or all of ``root``, holds no result.
    """
    found = {name: _read(root / name) for name in names or studies(root)}
    for name in names:
        _require(found[name], root / name)
    if not any(read.rows for read in found.values()):
        raise FileNotFoundError(f"{root} holds no results; run a study first")
    trials = [_framed(read).assign(study=name) for name, read in found.items() if read.rows]
    epochs = [pd.DataFrame(read.epochs).assign(study=name) for name, read in found.items()]
    unread = {
        str(root / name / file): why for name, read in found.items() for file, why in read.unread
    }
    return Results(_together(trials), _together(epochs), unread)


def load(folder: Path) -> pd.DataFrame:
    """Every result in a study's folder; files that are none are named in the frame's attrs.

    Args:
        folder: ``results/<study>``.

    Returns:
        Columns: the trial's fields, ``id``, ``status``, those of ``metrics`` and ``parameters``
        (``reference.<name>`` of what is under ``reference``), ``drift`` at the selected epoch where
        it was measured, ``seconds``, ``lanes``, ``peak_bytes``, ``provenance.<name>`` for those of
        ``PROVENANCE``, and ``cell`` (what distinguishes the cell from the others of the study).
        ``frame.attrs["unread"]``: name of a file that holds no result -> why.

    Raises:
        FileNotFoundError: there is no result.
    """
    read = _read(folder)
    _require(read, folder)
    frame = _framed(read)
    frame.attrs["unread"] = dict(read.unread)
    return frame


class _Read(NamedTuple):
    """What a folder holds: rows of trials and of epochs, and (file name, why it is no result)."""

    rows: list[dict]
    epochs: list[dict]
    unread: list[tuple[str, str]]


class ForeignError(ValueError):
    """A file holds no result; the message says why in a few words."""


def _read(folder: Path) -> _Read:
    read = _Read([], [], [])
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            result = _checked(parsed(path), path)
            row, epochs = _row(result), [_epoch(result["id"], e) for e in result["history"]]
            _check_values(row)
        except ForeignError as error:
            read.unread.append((path.name, str(error)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            read.unread.append((path.name, f"not as the schema says ({error!r})"))
        else:
            read.rows.append(row)
            read.epochs.extend(epochs)
    return read


def parsed(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        ForeignError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ForeignError(f"cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ForeignError(f"not valid JSON: {error}") from error


def _checked(result: Any, path: Path) -> dict:
    """The result, if its schema, its fields and its name are right."""
    if not isinstance(result, dict):
        raise ForeignError(f"holds a {type(result).__name__}, not an object")
    if result.get("schema") != SCHEMA:
        raise ForeignError(f"schema {result.get('schema')!r}, expected {SCHEMA}")
    if missing := [name for name in FIELDS if name not in result]:
        raise ForeignError(f"no field {', '.join(missing)}")
    if missing := [f"trial.{name}" for name in IDENTITY if name not in result["trial"]]:
        raise ForeignError(f"no field {', '.join(missing)}")
    if result["id"] != path.stem:
        raise ForeignError(f"its id {result['id']!r} is not its name")
    return result


def _check_values(row: dict) -> None:
    """Raise on what no column can hold: it would turn up far from the file."""
    for name in _NUMBERS & row.keys():
        if not isinstance(row[name], int | float | None):
            raise ForeignError(f"{name} is {row[name]!r}, not a number")
    for name in row:
        if name.startswith("trial.") and not isinstance(row[name], Hashable):
            raise ForeignError(f"{name} is {row[name]!r}, not a value")


def _require(read: _Read, folder: Path) -> None:
    if not read.rows:
        why = "".join(f"; {name}: {reason}" for name, reason in read.unread[:1])
        names = [] if folder.is_dir() else studies(folder.parent)
        there = f" (there are {', '.join(names)})" if names else ""
        raise FileNotFoundError(f"{folder} holds no results; run the study first{there}{why}")


def _framed(read: _Read) -> pd.DataFrame:
    frame = pd.DataFrame(read.rows)
    numbers = [name for name in frame if name in _NUMBERS or name.startswith("reference.")]
    nulls = [name for name in numbers if frame[name].isna().all()]
    frame[nulls] = frame[nulls].astype(float)  # else they are columns of objects
    return _plain(frame.assign(cell=cell_names(frame)))


def _together(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return _plain(pd.concat(frames, ignore_index=True))


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one kind of missing in a column: None among objects, NaN elsewhere."""
    objects = [name for name in frame if frame[name].dtype == object]
    blanks = {name: frame[name].where(frame[name].notna(), None) for name in objects}
    return frame.assign(**blanks)


def knobs_of(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Method -> the fields in which its trials differ, nuisances apart."""
    fields = [c.removeprefix("trial.") for c in frame.columns if c.startswith("trial.")]
    scientific = [f for f in fields if f not in (*NUISANCE, "method", "task", "base")]
    return {
        str(method): [f for f in scientific if group[f"trial.{f}"].nunique(dropna=False) > 1]
        for method, group in frame.groupby("trial.method")
    }


def cell_names(frame: pd.DataFrame) -> pd.Series:
    """Method, and the fields in which the trials of that method differ, nuisances apart."""
    names = np.empty(len(frame), dtype=object)
    rows = frame.groupby("trial.method").indices
    for method, knobs in knobs_of(frame).items():
        group = frame.iloc[rows[method]]
        parts = [[f"{knob}={spell(value)}" for value in group[f"trial.{knob}"]] for knob in knobs]
        names[rows[method]] = [
            " ".join(row) for row in zip([method] * len(group), *parts, strict=True)
        ]
    return pd.Series(names.tolist(), index=frame.index)


def _row(result: dict) -> dict:
    trial = {f"trial.{name}": hashable(value) for name, value in result["trial"].items()}
    metrics = {**dict.fromkeys(METRICS), **(result["metrics"] or {})}
    reference = metrics.pop("reference", None) or {}
    parameters = {**dict.fromkeys(PARAMETERS), **(result["parameters"] or {})}
    return {
        "id": result["id"],
        "status": result["status"],
        "message": result.get("message"),
        **trial,
        **metrics,
        **{f"reference.{name}": value for name, value in reference.items()},
        **_drift(result["history"], metrics["selected_epoch"]),
        **{f"parameters.{name}": count for name, count in parameters.items()},
        **{name: result["cost"].get(name) for name in COST},
        **origin(result.get("provenance") or {}),
    }


def origin(found: dict) -> dict[str, object]:
    """``provenance.<name>`` of a result or a measurement; None where an older file is silent."""
    versions, data = found.get("versions") or {}, found.get("data") or {}
    return {
        **{f"provenance.{name}": found.get(name) for name in PROVENANCE},
        **{f"provenance.{name}": versions.get(name) for name in VERSIONS},
        **{f"provenance.{n}_sha256": (found.get(n) or {}).get("sha256") for n in ("base", "data")},
        **{f"provenance.{split}_rows": data.get(split) for split in ("train", "dev")},
    }


def _epoch(trial_id: str, row: dict) -> dict[str, object]:
    halves = {
        f"{half}.{name}": value
        for half in ("selection", "report", "full")
        for name, value in (row.get(half) or {}).items()
    }
    numbers = {name: row.get(name) for name in ("epoch", "step", "train_loss")}
    return {"id": trial_id, **numbers, **halves}


def _drift(history: list[dict], epoch: int | None) -> dict[str, float]:
    """How much of the base was forgotten at an epoch, if that was measured."""
    reports = {row["epoch"]: row["report"] for row in history}
    return {name: value for name, value in reports.get(epoch, {}).items() if name == "drift"}


def hashable(value: object) -> object:
    """A list as a tuple, so that it can name a group."""
    return tuple(value) if isinstance(value, list) else value


def spell(value: object) -> str:
    """A field's value for people."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
