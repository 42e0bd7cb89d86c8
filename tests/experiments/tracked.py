"""The offline runs of a test, read back by wandb's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class Run:
    """What ``wandb leet inspect`` finds in the folder of an offline run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
        lines = _output([*command, str(folder)]).splitlines()
        self.records = [json.loads(line) for line in lines]
        self.whole = json.loads(_output([*command, "--summary", str(folder)]))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind, in order."""
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def head(self) -> dict[str, Any]:
        """Id, group, job type, name and tags."""
        return self.of("run")[0]

    @property
    def config(self) -> dict[str, Any]:
        return self.whole["config"]

    @property
    def summary(self) -> dict[str, Any]:
        return self.whole["summary"]

    def curve(self, key: str) -> dict[int, float]:
        """Step -> value, of the steps that have it."""
        items = [history["item"] for history in self.of("history")]
        return {item["_step"]: item[key] for item in items if key in item}


def runs(folder: Path) -> dict[str, Run]:
    """Id -> run, of those in a folder ``wandb``."""
    found = [Run(path) for path in sorted(folder.glob("offline-run-*"))]
    return {run.head["run_id"]: run for run in found}


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
