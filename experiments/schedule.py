"""Which pack comes next, and how the packs that wait are cut.

The longest comes first, so that no device is left alone with a long one at the end. How long is
known from packs that have run, in this run or before it; until then it is counted in rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.plan import Key, Pack, cut
from experiments.store import Result
from experiments.trial import Trial


@dataclass
class _Work:
    """Rows through the base, and what they took."""

    rows: float = 0.0
    seconds: float = 0.0

    def add(self, rows: float, seconds: float) -> None:
        self.rows += rows
        self.seconds += seconds

    @property
    def rate(self) -> float:
        return self.seconds / self.rows


class Pace:
    """How long a pack takes, from the packs most like it that have run.

    Like it: same task, base, method and lengths; else same method; else any.
    """

    def __init__(self) -> None:
        self._measured: dict[Hashable, _Work] = {}
        self._seeded: dict[Hashable, _Work] = {}

    def observe(self, pack: Pack, seconds: float) -> None:
        """A pack has run, in this run."""
        for like in _likes(pack.trials[0]):
            self._measured.setdefault(like, _Work()).add(pack.row_passes, seconds)

    def learn(self, results: Iterable[Result], provenance: Mapping[str, Any]) -> None:
        """Take over what earlier runs on the same device measured; this run's own count more."""
        for result in results:
            if result.status == "ok" and _same_device(result.provenance, provenance):
                rows = result.trial.batch_size * result.history[-1]["step"]
                for like in _likes(result.trial):
                    self._seeded.setdefault(like, _Work()).add(rows, result.cost["seconds"])

    def cost(self, pack: Pack) -> float:
        """Seconds, or rows where nothing was measured at all: to compare packs by."""
        for like in _likes(pack.trials[0]):
            for source in (self._measured, self._seeded):
                if like in source:
                    return pack.row_passes * source[like].rate
        return pack.row_passes


class Schedule:
    """The packs of a run that wait for their turn.

    Args:
        packs: as planned; the widest of a kind says how wide packs of the kind may ever be.
        pace: how long they take.
    """

    def __init__(self, packs: Iterable[Pack], pace: Pace) -> None:
        self._pace = pace
        self._waiting: dict[Key, list[Pack]] = {}
        self._most: dict[Key, int] = {}
        for pack in packs:
            self._waiting.setdefault(pack.key, []).append(pack)
            self._most[pack.key] = max(pack.lanes, self._most.get(pack.key, 1))

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    @property
    def packs(self) -> list[Pack]:
        """All that wait, the longest first."""
        waiting = [pack for packs in self._waiting.values() for pack in packs]
        return sorted(waiting, key=self._pace.cost, reverse=True)

    def put_back(self, packs: Sequence[Pack]) -> None:
        """Let packs wait again, or what is to run in their place, ahead of equal ones."""
        for pack in reversed(packs):
            self._waiting.setdefault(pack.key, []).insert(0, pack)
            self._most.setdefault(pack.key, pack.lanes)

    def longest(self) -> Pack:
        """The pack whose turn it is; it goes on waiting."""
        return self.packs[0]

    def pop(self, key: Key) -> Pack:
        """Take out the longest pack of a kind."""
        packs = self._waiting[key]
        chosen = max(packs, key=self._pace.cost)
        packs.remove(chosen)
        return chosen

    def most(self, key: Key) -> int:
        """Lanes that a pack of this kind can make use of: its plan's, and there must be trials."""
        return min(self._most[key], sum(pack.lanes for pack in self._waiting[key]))

    def recut(self, key: Key, lanes: int) -> bool:
        """Cut the waiting packs of a kind to at most ``lanes``, wider or narrower than before.

        Returns:
            Whether anything changed. Packs that are few and narrow enough stay as they are.
        """
        packs = self._waiting[key]
        width = min(lanes, self._most[key])
        trials = [trial for pack in packs for trial in pack.trials]
        if max(pack.lanes for pack in packs) <= width and len(packs) == -(-len(trials) // width):
            return False
        self._waiting[key] = cut(trials, key, packs[0].steps, width)
        return True


def _likes(trial: Trial) -> Sequence[Hashable]:
    """From the most alike to anything."""
    kind = (trial.task, trial.base, trial.method, trial.max_length, trial.precision)
    return (*kind, trial.target_modules), kind, trial.method, ()


def _same_device(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return all(ours.get(name) == theirs.get(name) for name in ("device", "gpu", "cpu"))
