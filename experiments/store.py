"""Results on disk: ``results/<study>/<id>.json``, one file a finished trial.

A task that draws pictures leaves them in ``results/<study>/pictures``: ``<id>.<ending>`` of a
trial, other names for what its trials share.

``collapsed.jsonl`` names the trials that need no file (``experiments.collapsed``).

A file is written whole or not at all: a temporary name in the same folder, fsync, rename. So a run
that is killed loses only what it was training, and any number of runs may share a folder.

The schema, version 1; what is missing is ``null``, and so is NaN or an infinity:

    schema       1
    id           the hash that names the file, see ``experiments.trial``
    study        name of the study
    trial        all fields of the ``Trial``
    status       ok | diverged | out_of_memory | error
    message      why it is not ok, else null
    metrics      null if no epoch was scored, else
                   primary              name of the metric; higher is better
                   score                on the report half, at the epoch chosen on the other half
                   selection_score      on the selection half, at that epoch
                   selected_epoch       that epoch
                   full_dev_best        best epoch on the full dev set (the papers' protocol)
                   full_dev_best_epoch  that epoch
                   and whatever the task reads off the model after the last step
    history      one row an epoch: epoch, step, train_loss, losses (one a step), and the scores
                 selection, report and full, each metric -> value
    parameters   adapter, head, trainable, base: how many; null if the trial never started
    cost         seconds (pack_seconds / lanes), pack_seconds, lanes, and peak_bytes: device memory
                 reserved for the whole pack at its highest, see ``experiments.memory``; null where
                 it is not measured (a CPU) and in a trial that failed; older files have no such
                 key. To plan with, not to compare
    provenance   commit, dirty, python, platform, versions, device, gpu, cpu, threads, compiled,
                 base, data, pack (ids trained side by side), started, finished (UTC)
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import BenchError
from experiments.outcome import STATUSES, Status
from experiments.trial import Trial

SCHEMA = 1
PICTURES = "pictures"
# Training a diverged trial again gives the same numbers. A crash may have been a bug since fixed,
# and what did not fit here may fit on the next machine: those run again.
FINISHED: tuple[Status, ...] = ("ok", "diverged")
_KEYS = [
    "schema",
    "id",
    "study",
    "trial",
    "status",
    "message",
    "metrics",
    "history",
    "parameters",
    "cost",
    "provenance",
]
_TEMPORARY = ".{name}.{unique}.tmp"
_ABANDONED_AFTER = 600.0  # seconds; a live write takes milliseconds
_PROBE = b"\0" * 65536  # the room of a result or two
_log = logging.getLogger(__name__)


class StoreError(BenchError):
    """The results folder cannot be read or written."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One file; the fields are those of the schema above."""

    study: str
    trial: Trial
    status: Status
    message: str | None
    metrics: dict[str, Any] | None
    history: list[dict[str, Any]]
    parameters: dict[str, int] | None
    cost: dict[str, float | None]
    provenance: dict[str, Any]

    @property
    def id(self) -> str:
        return self.trial.id

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in the order of the schema."""
        values = {
            "schema": SCHEMA,
            "id": self.id,
            "study": self.study,
            "trial": self.trial.to_dict(),
            "status": self.status,
            "message": self.message,
            "metrics": self.metrics,
            "history": self.history,
            "parameters": self.parameters,
            "cost": self.cost,
            "provenance": self.provenance,
        }
        return {key: finite(value) for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Any) -> Result:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: not a result of this schema; says why.
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            found = values.get("schema") if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"schema={found!r}: expected {SCHEMA}")
        if missing := [key for key in _KEYS if key not in values]:
            raise ValueError(f"no {', '.join(missing)}")
        if values["status"] not in STATUSES:
            raise ValueError(f"status={values['status']!r}: expected one of {', '.join(STATUSES)}")
        try:
            trial = Trial.from_dict(values["trial"])
        except (TypeError, AttributeError) as error:
            raise ValueError(f"trial: {error}") from error
        if trial.id != values["id"]:
            raise ValueError(f"id={values['id']!r}: its trial has the id {trial.id}")
        rest = {k: v for k, v in values.items() if k in _KEYS and k not in ("schema", "id")}
        return cls(**{**rest, "trial": trial})


class Store:
    """The results of every study under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, study: str) -> Path:
        """Where a study's results are."""
        return self.root / study

    def prepare(self, study: str) -> None:
        """Make the folder ready to be written, before anything is trained.

        What a killed run left half-written is removed; damaged results are set aside.

        Raises:
            StoreError: the folder cannot be written, or the disk is full.
        """
        folder = self.folder(study)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            _remove_abandoned(folder / PICTURES)
            write_then_rename(folder / "probe", _PROBE)
            (folder / "probe").unlink(missing_ok=True)
        except OSError as error:
            raise _store_error("write", folder, error) from error
        for path, reason in self._damaged(study):
            aside = _set_aside(path)
            _log.warning(
                "%s is no result of this study (%s): set aside as %s", path, reason, aside.name
            )

    def write(self, result: Result) -> Path:
        """Put one result on disk, whole or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        path = self.folder(result.study) / f"{result.id}.json"
        text = json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n"
        try:
            write_then_rename(path, text.encode())
        except OSError as error:
            raise _store_error("write", path, error) from error
        return path

    def write_pictures(self, study: str, pictures: Mapping[str, bytes]) -> None:
        """Put pictures into the study's folder ``pictures``, file name -> content; to be called
        before the result that they belong to, which is what says that a trial is finished.

        Raises:
            StoreError: one cannot be written.
        """
        folder = self.folder(study) / PICTURES
        for name, content in pictures.items():
            path = folder / name
            try:
                folder.mkdir(exist_ok=True)
                write_then_rename(path, content)
            except OSError as error:
                raise _store_error("write", path, error) from error

    def load(self, study: str) -> dict[str, Result]:
        """Id -> result, of every readable file of the study; damaged ones are left alone.

        Raises:
            StoreError: the folder cannot be read.
        """
        found = (read for _, read in self._read_all(study) if isinstance(read, Result))
        return {result.id: result for result in found}

    def finished(self, study: str) -> set[str]:
        """Ids that need not run again."""
        return {i for i, result in self.load(study).items() if result.status in FINISHED}

    def find(self, prefix: str) -> list[Result]:
        """The results, of all studies, whose id starts with ``prefix``."""
        try:
            studies = sorted(p.name for p in self.root.iterdir() if p.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _store_error("read", self.root, error) from error
        results = (result for study in studies for result in self.load(study).values())
        return [result for result in results if result.id.startswith(prefix)]

    def _damaged(self, study: str) -> list[tuple[Path, ValueError]]:
        return [(p, read) for p, read in self._read_all(study) if isinstance(read, ValueError)]

    def _read_all(self, study: str) -> Iterator[tuple[Path, Result | ValueError]]:
        folder = self.folder(study)
        try:
            for path in sorted(folder.glob("*.json")):
                yield path, _read(path, study)
        except OSError as error:
            raise _store_error("read", folder, error) from error


def _read(path: Path, study: str) -> Result | ValueError:
    """The result in a file, or why there is none: damage is a finding here, not a failure."""
    try:
        result = Result.from_dict(json.loads(path.read_bytes()))
    except ValueError as error:  # also not JSON, not UTF-8
        return error
    if path.stem != result.id:
        return ValueError(f"it holds the result {result.id}")
    if study != result.study:
        return ValueError(f"it belongs to the study {result.study!r}")
    return result


def write_then_rename(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary name in its folder, fsync, rename.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(_TEMPORARY.format(name=path.name, unique=uuid.uuid4().hex))
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files of killed runs, but none that another run may be writing now."""
    for path in folder.glob(_TEMPORARY.format(name="*", unique="*")):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
                path.unlink()


def _set_aside(path: Path) -> Path:
    """Rename to the first free of ``<name>.damaged``, ``<name>.damaged.1``, …"""
    aside, count = path.with_name(f"{path.name}.damaged"), 0
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.damaged.{count}")
    try:
        path.rename(aside)
    except OSError as error:
        raise _store_error("rename", path, error) from error
    return aside


def _store_error(action: str, path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot {action} {path}: {error.strerror or error}")


def finite(value: Any) -> Any:
    """The same value with every NaN and infinity as None, which JSON can say."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def flat(values: Mapping[str, Any], joint: str) -> dict[str, Any]:
    """Nested dicts of a result as one, their names joined by ``joint``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{key}{joint}{name}": item for name, item in flat(value, joint).items()}
        else:
            found[key] = value
    return found
