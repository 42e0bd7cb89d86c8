"""What the comparisons leave on disk: ``results/bench/<comparison>.json``.

A comparison is measured in *pieces* (a shape, a method, a part of the sweep), each saved as it ends
and whole or not at all; measuring a piece again replaces it alone. A small version, on a CPU, has a
file of its own (``layer-cpu.json``), so that it never takes the place of a GPU's figures.

The schema, version 1; what is missing is ``null``, and so is NaN or an infinity:

    schema      1
    comparison  layer | step | sweep
    small       whether it is the small version
    hardware    name of the GPU, or of the processor
    runs        the provenance of each run that left a piece here
    pieces      name -> what was measured, and ``run``: which of the runs measured it
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.errors import BenchError
from experiments.store import finite, write_then_rename

SCHEMA = 1
COMPARISONS = ("layer", "step", "sweep")
PEERS = ("torch", "triton", "peft", "lycoris-lora", "transformers")
_KEYS = ("comparison", "small", "hardware", "runs", "pieces")


@dataclass
class Record:
    """The file of one comparison, read or new.

    Args:
        comparison: one of ``COMPARISONS``.
        small: whether this is the small version.
        hardware: name of the GPU or processor that measured all of its pieces.
        runs: provenance of the runs.
        pieces: name -> what was measured.
    """

    comparison: str
    small: bool
    hardware: str | None
    runs: list[dict[str, Any]] = field(default_factory=list)
    pieces: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """``layer.json``, or ``layer-cpu.json`` for the small version."""
        return f"{self.comparison}{'-cpu' if self.small else ''}.json"

    def put(self, name: str, measured: dict[str, Any], run: dict[str, Any]) -> None:
        """Add or replace a piece; provenance that no piece refers to is dropped."""
        if run not in self.runs:
            self.runs.append(run)
        self.pieces[name] = {"run": self.runs.index(run), **measured}
        used = sorted({piece["run"] for piece in self.pieces.values()})
        for piece in self.pieces.values():
            piece["run"] = used.index(piece["run"])
        self.runs = [self.runs[i] for i in used]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in the order of the schema."""
        return {"schema": SCHEMA, **{key: getattr(self, key) for key in _KEYS}}

    @classmethod
    def from_dict(cls, values: Any) -> Record:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: not a record of this schema; says why.
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            found = values.get("schema") if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"schema={found!r}: expected {SCHEMA}")
        if missing := [key for key in _KEYS if key not in values]:
            raise ValueError(f"no {', '.join(missing)}")
        return cls(**{key: values[key] for key in _KEYS})


class Recorder:
    """One comparison's file while one run measures for it.

    Pieces that this hardware measured before are kept; another machine's are not mixed with them.

    Args:
        results: folder of all results; the file goes into ``results/bench``.
        comparison: one of ``COMPARISONS``.
        provenance: of this run, see :func:`provenance`.
    """

    def __init__(self, results: Path, comparison: str, provenance: dict[str, Any]) -> None:
        self.folder = results / "bench"
        self.run = provenance
        self.saved = False
        """Whether this run has measured anything."""
        small = provenance["gpu"] is None
        hardware = provenance["gpu"] or provenance["cpu"]
        self.record = Record(comparison, small, hardware)
        before = read(self.folder / self.record.file_name)
        if before is not None and before.hardware == hardware:
            self.record = before

    def put(self, name: str, measured: dict[str, Any]) -> None:
        """Save one piece.

        Raises:
            BenchError: the file cannot be written.
        """
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        self.record.put(name, {"finished": finished, **finite(measured)}, self.run)
        text = json.dumps(self.record.to_dict(), indent=1, allow_nan=False) + "\n"
        write(self.folder / self.record.file_name, text)
        self.saved = True


def provenance(device: str) -> dict[str, Any]:
    """Where this run's numbers come from: that of a trial, and the peers' versions."""
    from experiments.provenance import collect

    shared = collect(device)
    return {**shared, "versions": {**shared["versions"], **{p: _version(p) for p in PEERS}}}


def read_all(results: Path) -> list[Record]:
    """The comparisons on disk, GPU's before CPU's.

    Raises:
        BenchError: a file is damaged.
    """
    names = [f"{c}{end}.json" for end in ("", "-cpu") for c in COMPARISONS]
    found = (read(results / "bench" / name) for name in names)
    return [record for record in found if record is not None]


def read(path: Path) -> Record | None:
    """The record in a file; None if there is no file.

    Raises:
        BenchError: it cannot be read, or is no record of this schema.
    """
    try:
        return Record.from_dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise BenchError(f"{path} is no bench result ({error}): move it away") from error


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        BenchError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_then_rename(path, text.encode())
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror or error}") from error


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
