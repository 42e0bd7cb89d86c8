"""What a measurement leaves on disk: ``results/cost/<study>/<hardware>/<id>.json``.

One file a trial and kind of hardware, written whole or not at all; never among the results of
trials, which are ``results/<study>/<id>.json``. ``experiments.cost`` documents the schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.bench.record import write
from experiments.errors import BenchError

SCHEMA = 1
KEYS = (
    "schema",
    "id",
    "study",
    "cell",
    "trial",
    "hardware",
    "settings",
    "parameters",
    "batch",
    "step",
    "frozen",
    "memory",
    "energy",
    "files",
    "inference",
    "provenance",
)
# What must be the same for a measurement to stand: the code, and what it runs on.
CODE = ("commit", "dirty", "versions", "threads")


class Records:
    """The measurements of one study on the hardware of this run.

    Args:
        results: folder of all results.
        study: name of the study.
        provenance: of this run, see ``experiments.provenance``.
    """

    def __init__(self, results: Path, study: str, provenance: Mapping[str, Any]) -> None:
        self.provenance = provenance
        self.hardware = str(provenance["gpu"] or provenance["cpu"])
        name = re.sub(r"[^a-z0-9]+", "-", self.hardware.lower()).strip("-")
        self.folder = results / "cost" / study / name

    def write(self, record: dict[str, Any]) -> Path:
        """Put one measurement on disk, in the place of an earlier one of that trial.

        Raises:
            BenchError: it cannot be written.
        """
        path = self.folder / f"{record['id']}.json"
        text = json.dumps({key: record[key] for key in KEYS}, indent=1, allow_nan=False) + "\n"
        write(path, text)
        return path

    def read(self, trial_id: str) -> dict[str, Any] | None:
        """The measurement of a trial; None if there is none.

        Raises:
            BenchError: the file cannot be read, or is no measurement of this schema.
        """
        path = self.folder / f"{trial_id}.json"
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BenchError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise BenchError(f"{path} is no measurement ({error}): move it away") from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or set(record) != {*KEYS}:
            raise BenchError(f"{path} is no measurement of schema {SCHEMA}: move it away")
        return record

    def current(self, trial_id: str) -> dict[str, Any] | None:
        """The measurement of a trial if this very code made it: same commit, nothing changed."""
        record = self.read(trial_id)
        if record is None or self.provenance["dirty"]:
            return None
        same = all(record["provenance"].get(key) == self.provenance[key] for key in CODE)
        return record if same else None
