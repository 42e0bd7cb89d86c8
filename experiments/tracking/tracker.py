"""Logs the results of a run while it runs, and never in its way.

A pack is logged when it ends, from its results, which hold every step: so no step waits for a
tracker and no number depends on one. It is done in a thread of its own, beside the next pack. If
W&B fails, that is said once, in one line, and no more is logged: the results are on disk, and
``python -m experiments log`` can log them later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from experiments.listener import Silent
from experiments.store import Result
from experiments.tracking.record import Record, name_of, record
from experiments.trial import Trial

Label = Callable[[Sequence[Trial]], str]
_log = logging.getLogger(__name__)


class Log(Protocol):
    """Where runs go."""

    def log(self, record: Record) -> None:
        """Log one run."""


class Tracker(Silent):
    """A listener that logs each result as a run.

    Args:
        session: where runs go.
        label: name of the cell of some trials.
        folder: ``results/<study>``.
    """

    def __init__(self, session: Log, label: Label, folder: Path) -> None:
        self.logged = 0
        self.lost = 0
        self._session = session
        self._label = label
        self._folder = folder
        self._broken = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tracker")

    def on_pack_end(self, results: Sequence[Result]) -> None:
        """Log each lane as a run, in the thread."""
        for result in results:
            self._thread.submit(self.log, result)

    def close(self) -> None:
        """Wait until all is logged, or until it is known that it cannot be."""
        self._thread.shutdown()

    def log(self, result: Result) -> None:
        """Log one result, if W&B has not failed before."""
        if self._broken:
            self.lost += 1
            return
        try:
            name = name_of(self._label([result.trial]), result.trial)
            self._session.log(record(result, name, self._folder))
        except Exception as error:
            self._broken = True
            self.lost += 1
            _log.warning("W&B failed, nothing more is logged: %s", first_line(error))
        else:
            self.logged += 1


def first_line(error: Exception) -> str:
    """Its kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
