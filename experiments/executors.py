"""Who runs the packs. Every executor keeps the same promises:

a finished trial is on disk before the next pack starts; a pack that does not fit into memory is
halved; a trial that fails takes no other with it; no trial is lost without a row.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from experiments.errors import BenchError
from experiments.listener import Listener
from experiments.outcome import Outcome
from experiments.plan import Pack
from experiments.store import Result, Store
from experiments.trial import Trial

# Called as train_pack(trials, device=..., data=..., on_step=...), see ``experiments.train``.
TrainPack = Callable[..., Sequence[Outcome]]
_log = logging.getLogger(__name__)


class InProcess:
    """One pack after the other, in this process, on one device.

    Args:
        train_pack: trains the lanes of a pack.
        store: where results go.
        study: name of the study.
        device: ``"cpu"`` or ``"cuda"``.
        data: folder of GLUE parquet, None for the hub.
        provenance: what all trials of this run share, see ``experiments.provenance``.
        listener: is told of starts, steps and results.
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
    ) -> None:
        self.train_pack = train_pack
        self.store = store
        self.study = study
        self.device = device
        self.data = data
        self.provenance = provenance
        self.listener = listener
        self._room: dict[Hashable, int] = {}  # lanes of this key known not to be too many

    def run(self, packs: Iterable[Pack]) -> list[Result]:
        """Run the packs in order; results are on disk as they come.

        Raises:
            BenchError: no trial can run (a missing base, say), or a result cannot be written.
            KeyboardInterrupt: the user's; what was finished stays on disk.
        """
        queue = deque(packs)
        results: list[Result] = []
        while queue:
            pack = queue.popleft()
            room = self._room.get(pack.key, pack.lanes)
            if pack.lanes > room:
                queue.extendleft(reversed(pack.split(-(-pack.lanes // room))))
                continue
            done, parts = self._run_pack(pack)
            results += done
            queue.extendleft(reversed(parts))
        return results

    def _run_pack(self, pack: Pack) -> tuple[list[Result], list[Pack]]:
        """The results of a pack or, if it failed, the smaller packs to try in its place."""
        self.listener.on_start(pack)
        started, clock = datetime.now(UTC), time.perf_counter()
        outcomes = self._attempt(pack)
        if isinstance(outcomes, int):
            _release_memory()
            return [], pack.split(outcomes)
        seconds = time.perf_counter() - clock
        results = [
            self._result(pack, trial, outcome, started, seconds)
            for trial, outcome in zip(pack.trials, outcomes, strict=True)
        ]
        for result in results:
            self.store.write(result)
        self.listener.on_pack_end(results)
        return results, []

    def _attempt(self, pack: Pack) -> Sequence[Outcome] | int:
        """The outcome of each lane, or into how many packs to split this one."""
        try:
            return self.train_pack(
                pack.trials, device=self.device, data=self.data, on_step=self.listener.on_step
            )
        except BenchError:
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            if is_out_of_memory(error):
                return self._too_large(pack, message)
            return _failed(pack, message)

    def _too_large(self, pack: Pack, message: str) -> Sequence[Outcome] | int:
        if pack.lanes == 1:
            _log.warning("trial %s does not fit into memory", pack.trials[0].id)
            return [Outcome(status="out_of_memory", message=message)]
        half = -(-pack.lanes // 2)
        self._room[pack.key] = half
        _log.warning("%d lanes do not fit into memory: going on with %d", pack.lanes, half)
        return 2

    def _result(
        self, pack: Pack, trial: Trial, outcome: Outcome, started: datetime, seconds: float
    ) -> Result:
        return Result(
            study=self.study,
            trial=trial,
            status=outcome.status,
            message=outcome.message,
            metrics=outcome.metrics,
            history=outcome.history,
            parameters=outcome.parameters,
            cost={
                "seconds": seconds / pack.lanes,
                "pack_seconds": seconds,
                "lanes": pack.lanes,
            },
            provenance={
                **self.provenance,
                **outcome.provenance,
                "pack": [trial.id for trial in pack.trials],
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )


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


def _failed(pack: Pack, message: str) -> Sequence[Outcome] | int:
    """One bad trial must not take others with it: every trial of the pack runs again alone."""
    if pack.lanes > 1:
        _log.warning("a pack of %d failed (%s): its trials run again alone", pack.lanes, message)
        return pack.lanes
    _log.error("trial %s failed", pack.trials[0].id, exc_info=True)
    return [Outcome(status="error", message=message)]


def _release_memory() -> None:
    """Free what the failed attempt held, before the next one needs it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
