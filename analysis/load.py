"""Results to a tidy frame: one row a trial, its fields and its scores side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
COST = ("seconds", "lanes", "peak_bytes")
PROVENANCE = ("commit", "dirty", "platform", "device", "gpu", "cpu", "compiled", "finished")
VERSIONS = ("torch", "transformers", "peft", "triton")
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
    unread = {str(root / n / file): why for n, read in found.items() for file, why in read.unread}
    return Results(
        pd.concat(trials, ignore_index=True), pd.concat(epochs, ignore_index=True), unread
    )


def load(folder: Path) -> pd.DataFrame:
    """Every result in a study's folder; files that are none are named in the frame's attrs.

    Args:
        folder: ``results/<study>``.

    Returns:
        Columns: the trial's fields, ``id``, ``status``, those of ``metrics`` and ``parameters``
        (``reference.<name>`` of what is under ``reference``), ``drift`` at the selected epoch where
        it was measured, ``seconds``, ``lanes``, ``peak_bytes``, ``provenance.<name>`` for those of
        ``PROVENANCE``, and ``cell`` (what distinguishes the cell from the others of the study).
        ``frame.attrs["unread"]``: file names that hold no result of this schema.

    Raises:
        FileNotFoundError: there is no result.
    """
    read = _read(folder)
    _require(read, folder)
    frame = _framed(read)
    frame.attrs["unread"] = [name for name, _ in read.unread]
    return frame


class _Read(NamedTuple):
    """What a folder holds: rows of trials and of epochs, and (file name, why it is no result)."""

    rows: list[dict]
    epochs: list[dict]
    unread: list[tuple[str, str]]


def _read(folder: Path) -> _Read:
    read = _Read([], [], [])
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            result = json.loads(path.read_bytes())
            row, epochs = _row(result), [_epoch(result["id"], e) for e in result["history"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            read.unread.append((path.name, f"{type(error).__name__}: {error}"))
            continue
        read.rows.append(row)
        read.epochs.extend(epochs)
    return read


def _require(read: _Read, folder: Path) -> None:
    if not read.rows:
        raise FileNotFoundError(f"{folder} holds no results; run the study first")


def _framed(read: _Read) -> pd.DataFrame:
    frame = pd.DataFrame(read.rows)
    numbers = [name for name in frame if name in _NUMBERS or name.startswith("reference.")]
    nulls = [name for name in numbers if frame[name].isna().all()]
    frame[nulls] = frame[nulls].astype(float)  # else they are columns of objects
    return frame.assign(cell=cell_names(frame))


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
        **{name: result["cost"].get(name) for name in COST},
        **_provenance(result.get("provenance") or {}),
    }


def _provenance(found: dict) -> dict[str, object]:
    """Where a result comes from; null where an older file does not say."""
    versions = found.get("versions") or {}
    return {
        **{f"provenance.{name}": found.get(name) for name in PROVENANCE},
        **{f"provenance.{name}": versions.get(name) for name in VERSIONS},
        **{f"provenance.{n}_sha256": (found.get(n) or {}).get("sha256") for n in ("base", "data")},
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


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def spell(value: object) -> str:
    """A field's value for people."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
