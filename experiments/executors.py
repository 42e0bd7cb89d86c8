"""Who runs the packs. Every executor keeps the same promises:

a finished trial is on disk before the next pack starts; packs are as wide as memory allows, and one
that does not fit is cut anew; a trial that fails takes no other with it; no trial is lost without a
row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from experiments import memory
from experiments.errors import BenchError
from experiments.listener import Listener
from experiments.memory import MemoryModel, Meter
from experiments.outcome import Outcome
from experiments.plan import Key, Pack
from experiments.schedule import Pace, Schedule
from experiments.store import FINISHED, Result, Store
from experiments.trial import Trial

# Called as train_pack(trials, device=..., data=..., on_step=...), see ``experiments.train``.
TrainPack = Callable[..., Sequence[Outcome]]
KIN_MARGIN = 2
"""A kind of pack is not probed where twice the memory of its kin would fit."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Attempt:
    """How a pack went: one outcome a lane, or the packs to run instead.

    ``peak`` is null unless all of it ran, and was measured.
    """

    outcomes: Sequence[Outcome] = ()
    peak: int | None = None
    again: Sequence[Pack] = ()


class InProcess:
    """One pack after the other, in this process, on one device.

    Args:
        train_pack: trains the lanes of a pack.
        store: where results go.
        study: name of the study.
        device: ``"cpu"`` or ``"cuda"``.
        data: folder of the task's data, None for the hub or what the task brings itself.
        provenance: what all trials of this run share, see ``experiments.provenance``.
        listener: is told of starts, steps, results, and packs that are cut anew.
        pace: how long packs take, for their order; learns as they end.
        meter: measures memory; by default the device's own.
    """

    def __init__(
        self,
        train_pack: TrainPack,
        store: Store,
        *,
        study: str,
        device: str,
        data: str | None,
        provenance: dict[str, Any],
        listener: Listener,
        pace: Pace | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.train_pack = train_pack
        self.store = store
        self.study = study
        self.device = device
        self.data = data
        self.provenance = provenance
        self.listener = listener
        self.pace = pace or Pace()
        self.meter = meter or memory.meter_of(device)
        self.memory = MemoryModel()
        self._probed: set[Key] = set()

    def run(self, packs: Iterable[Pack]) -> list[Result]:
        """Run the packs, the longest first; results are on disk as they come.

        Raises:
            BenchError: no trial can run (a missing base, say), or a result cannot be written.
            KeyboardInterrupt: the user's; what was finished stays on disk.
        """
        schedule = Schedule(packs, self.pace)
        results: list[Result] = []
        while schedule:
            pack = self._next(schedule)
            done, again = self._run_pack(pack)
            results += done
            if again:
                schedule.put_back(again)
                self.listener.on_plan(schedule.packs)
        return results

    def _next(self, schedule: Schedule) -> Pack:
        """The longest pack, once its kind is cut to what fits into memory now."""
        fitted: set[Key] = set()
        while (pack := schedule.longest()).key not in fitted:
            fitted.add(pack.key)
            most = schedule.most(pack.key)
            if most > 1 and schedule.recut(pack.key, self._room(pack, most)):
                self.listener.on_plan(schedule.packs)
        return schedule.pop(pack.key)

    def _room(self, pack: Pack, most: int) -> int:
        """How many lanes of this kind fit now, up to ``most``."""
        if self._unknown(pack.key, most):
            self._probed.add(pack.key)
            self._probe(pack, memory.PROBE_LANES)
            # Taken by itself that is too much rather than too little, and mostly settles it.
            if not self._ample(pack.key, most):
                self._probe(pack, 1)
        return self.memory.lanes(pack.key, self.meter.budget(), most)

    def _unknown(self, key: Key, most: int) -> bool:
        """Whether a probe could tell how wide the packs of this kind may be."""
        measurable = self.meter.budget() is not None and most > memory.PROBE_LANES
        return measurable and key not in self._probed and not self._ample(key.kin, most, KIN_MARGIN)

    def _ample(self, kind: Hashable, lanes: int, margin: int = 1) -> bool:
        expected, budget = self.memory.bytes(kind, lanes), self.meter.budget()
        return expected is not None and budget is not None and margin * expected <= budget

    def _probe(self, pack: Pack, lanes: int) -> None:
        trials = pack.trials[-lanes:]  # the last have the highest ranks
        try:
            peak = memory.probe(
                self.train_pack, trials, self.meter, device=self.device, data=self.data
            )
        except BenchError:
            raise
        except Exception as error:
            # Any other fault meets the pack itself next, which reports it with a row a trial.
            if is_out_of_memory(error):
                self.memory.fail(pack.key, len(trials), self.meter.budget())
            return
        self._observe(pack.key, len(trials), peak)

    def _observe(self, key: Key, lanes: int, peak: int | None) -> None:
        if peak is not None:
            self.memory.observe(key, lanes, peak)
            self.memory.observe(key.kin, lanes, peak)

    def _run_pack(self, pack: Pack) -> tuple[list[Result], Sequence[Pack]]:
        """The results of a pack or, if it failed, what is to run in its place."""
        self.listener.on_start(pack)
        started, clock = datetime.now(UTC), time.perf_counter()
        attempt = self._attempt(pack)
        if attempt.again:
            memory.release()
            return [], attempt.again
        seconds = time.perf_counter() - clock
        if all(outcome.status in FINISHED for outcome in attempt.outcomes):
            self.pace.observe(pack, seconds)
        cost = {
            "seconds": seconds / pack.lanes,
            "pack_seconds": seconds,
            "lanes": pack.lanes,
            "peak_bytes": attempt.peak,
        }
        results = [
            self._result(pack, trial, outcome, started, cost)
            for trial, outcome in zip(pack.trials, attempt.outcomes, strict=True)
        ]
        self.store.write_pictures(self.study, _pictures(pack, attempt.outcomes))
        for result in results:
            self.store.write(result)
        self.listener.on_pack_end(results)
        return results, []

    def _attempt(self, pack: Pack) -> _Attempt:
        self.meter.start()
        try:
            outcomes = self.train_pack(
                pack.trials, device=self.device, data=self.data, on_step=self.listener.on_step
            )
        except BenchError:
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            if is_out_of_memory(error):
                return self._too_large(pack, message)
            return _failed(pack, message)
        peak = self.meter.peak()
        self._observe(pack.key, pack.lanes, peak)
        return _Attempt(outcomes, peak)

    def _too_large(self, pack: Pack, message: str) -> _Attempt:
        """A pack that did not fit waits again, to be cut to the room that is now known."""
        if pack.lanes == 1:
            _log.warning("trial %s does not fit into memory", pack.trials[0].id)
            return _Attempt([Outcome(status="out_of_memory", message=message)])
        budget = self.meter.budget()
        self.memory.fail(pack.key, pack.lanes, budget)
        room = self.memory.lanes(pack.key, budget, pack.lanes)
        _log.warning("%d lanes do not fit into memory: going on with %d", pack.lanes, room)
        return _Attempt(again=[pack])

    def _result(
        self,
        pack: Pack,
        trial: Trial,
        outcome: Outcome,
        started: datetime,
        cost: dict[str, float | None],
    ) -> Result:
        return Result(
            study=self.study,
            trial=trial,
            status=outcome.status,
            message=outcome.message,
            metrics=outcome.metrics,
            history=outcome.history,
            parameters=outcome.parameters,
            cost=cost,
            provenance={
                **self.provenance,
                **outcome.provenance,
                "pack": [trial.id for trial in pack.trials],
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )


def _pictures(pack: Pack, outcomes: Sequence[Outcome]) -> dict[str, bytes]:
    """File name -> content: each trial's own, and once what they share."""
    found: dict[str, bytes] = {}
    for trial, outcome in zip(pack.trials, outcomes, strict=True):
        found |= outcome.exhibits
        found |= {f"{trial.id}.{end}": content for end, content in outcome.pictures.items()}
    return found


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on the host or on a device.

    torch raises its own OutOfMemoryError on CUDA but a plain RuntimeError elsewhere, and cuBLAS
    another one: the message is what they share.
    """
    if isinstance(error, MemoryError):
        return True
    signs = (
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def _failed(pack: Pack, message: str) -> _Attempt:
    """One bad trial must not take others with it: every trial of the pack runs again alone."""
    if pack.lanes > 1:
        _log.warning("a pack of %d failed (%s): its trials run again alone", pack.lanes, message)
        return _Attempt(again=pack.isolated())
    _log.error("trial %s failed", pack.trials[0].id, exc_info=True)
    return _Attempt([Outcome(status="error", message=message)])
