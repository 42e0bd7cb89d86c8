"""Who may watch a run. A listener only listens: no number depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from experiments.plan import Pack
from experiments.store import Result


class Listener(Protocol):
    """What a progress bar or a tracker is told."""

    def on_plan(self, packs: Sequence[Pack]) -> None:
        """What is still to run was cut anew; these are all packs that wait, the longest first."""

    def on_start(self, pack: Pack) -> None:
        """A pack begins. One that failed never ends: what runs in its place begins instead."""

    def on_step(self, done: int, total: int, loss: float) -> None:
        """``done`` of ``total`` steps of the pack are taken; the mean loss of its lanes."""

    def on_pack_end(self, results: Sequence[Result]) -> None:
        """The results of a pack are on disk."""


class Silent:
    """Nobody watches."""

    def on_plan(self, packs: Sequence[Pack]) -> None:
        """Say nothing."""

    def on_start(self, pack: Pack) -> None:
        """Say nothing."""

    def on_step(self, done: int, total: int, loss: float) -> None:
        """Say nothing."""

    def on_pack_end(self, results: Sequence[Result]) -> None:
        """Say nothing."""


class Several:
    """Tells all that it is told to each of several listeners, in order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def on_plan(self, packs: Sequence[Pack]) -> None:
        for listener in self._listeners:
            listener.on_plan(packs)

    def on_start(self, pack: Pack) -> None:
        for listener in self._listeners:
            listener.on_start(pack)

    def on_step(self, done: int, total: int, loss: float) -> None:
        for listener in self._listeners:
            listener.on_step(done, total, loss)

    def on_pack_end(self, results: Sequence[Result]) -> None:
        for listener in self._listeners:
            listener.on_pack_end(results)
