"""What the training loop gives back for one lane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "diverged", "out_of_memory", "error"]
STATUSES: tuple[Status, ...] = ("ok", "diverged", "out_of_memory", "error")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one trial went; ``experiments.store`` documents the fields.

    Args:
        status: ``ok`` and ``diverged`` come from the training loop, the others from the executor.
        message: why the trial is not ``ok``.
        metrics: scores at the chosen epoch, None if no epoch was scored.
        history: one row an epoch.
        parameters: how many there are in the adapter, the head, the base, and how many are trained.
        provenance: ``base`` and ``data``: what was used, with fingerprints.
        pictures: file ending -> content, of this trial.
        exhibits: file name -> content, the same for all trials of the task.
    """

    status: Status
    message: str | None = None
    metrics: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, int] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    exhibits: Mapping[str, bytes] = field(default_factory=dict)
