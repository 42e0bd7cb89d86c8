"""How much memory a pack takes: measured, and never guessed.

    bytes(L) = fixed + L · per_lane, for each kind of pack

The numbers, and why these:

*peak* is what torch had reserved from the device at its highest since the pack began
(``torch.cuda.max_memory_reserved``), not what its tensors filled (``max_memory_allocated``). A
captured pack keeps its graphs' memory in pools of their own: whatever lies in them unused, nobody
else can have. Without graphs the reserve may hold blocks that torch could give back, so the number
errs on the side of fewer lanes.

*budget* is ``SHARE`` of what the device has free now and what torch holds already. Other processes
may take memory at any time, and the driver, libraries and graphs need some that torch does not
count.

Host memory is not measured: a process cannot ask for its peak since a moment. There packs are as
wide as the plan says until one does not fit.

Legend: L lanes of a pack.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from experiments.trial import Trial

SHARE = 0.85
PROBE_LANES = 16
"""A probe of many lanes: the base's own memory, there once, weighs little in a lane's share. And a
wide pack's step goes in parts (:func:`experiments.batches.parts_of`): 16 lanes of text hold about
as many tokens at a time as 4 lanes do in one part, which would promise too few lanes."""
REGROWN = 1.25
"""What did not fit is tried again once the budget is larger by a quarter, not by a few bytes."""


@dataclass
class _Record:
    """What is known of one kind of pack."""

    peaks: dict[int, int] = field(default_factory=dict)  # L -> highest peak seen
    failed: dict[int, int | None] = field(default_factory=dict)  # L -> budget in which it ran out
    ceiling: int | None = None  # after a failure, until something that fits is measured


class MemoryModel:
    """Bytes of a pack by its lanes, from the packs seen so far.

    Two bounds hold however memory is spent: fewer lanes need no more than a pack that was seen, and
    more lanes need no more than their multiple of the widest one seen. Within them, two lane counts
    or more give a line by least squares, lifted until no pack seen lies above it.
    """

    def __init__(self) -> None:
        self._records: dict[Hashable, _Record] = {}

    def observe(self, key: Hashable, lanes: int, peak: int) -> None:
        """A pack of ``lanes`` fitted, with this peak in bytes."""
        record = self._record(key)
        record.peaks[lanes] = max(peak, record.peaks.get(lanes, 0))
        record.ceiling = None

    def fail(self, key: Hashable, lanes: int, budget: int | None) -> None:
        """A pack of ``lanes`` did not fit into ``budget`` bytes; None: unknown how many.

        The next one is at most half as wide. Wider ones, short of this one, come back once a pack
        that fits is observed.
        """
        record = self._record(key)
        record.failed[lanes] = budget
        record.ceiling = -(-lanes // 2)

    def bytes(self, key: Hashable, lanes: int) -> float | None:
        """Expected peak of a pack; None if no pack of the kind was observed."""
        peaks = self._record(key).peaks
        if not peaks:
            return None
        return min(_bound(peaks, lanes), _lifted_line(peaks, lanes))

    def lanes(self, key: Hashable, budget: int | None, most: int) -> int:
        """The widest pack that should fit into ``budget`` bytes, from 1 to ``most`` lanes.

        Args:
            key: the kind of pack.
            budget: bytes; None if unknown, and then only failures count.
            most: never more than this.
        """
        record = self._record(key)
        barred = [n for n, then in record.failed.items() if not _regrown(budget, then)]
        top = min([most, *(n - 1 for n in barred)])
        if record.ceiling is not None:
            top = min(top, record.ceiling)
        while top > 1 and not self._fits(key, top, budget):
            top -= 1
        return max(1, top)

    def _fits(self, key: Hashable, lanes: int, budget: int | None) -> bool:
        expected = self.bytes(key, lanes)
        return expected is None or budget is None or expected <= budget

    def _record(self, key: Hashable) -> _Record:
        return self._records.setdefault(key, _Record())


class Meter(Protocol):
    """Measures the memory of a device."""

    def budget(self) -> int | None:
        """Bytes that a pack may take now, itself included; None if that cannot be known."""

    def start(self) -> None:
        """Give back what earlier packs left, and begin to measure."""

    def peak(self) -> int | None:
        """Bytes at the highest since the start; None if that cannot be known."""


class Unmeasured:
    """Of a CPU's memory nothing is known."""

    def budget(self) -> None:
        """Unknown."""

    def start(self) -> None:
        """Nothing to begin."""

    def peak(self) -> None:
        """Unknown."""


class CudaMeter:
    """Measures a GPU through torch's allocator.

    Args:
        device: as torch names it.
    """

    def __init__(self, device: str) -> None:
        import torch

        torch.cuda.init()  # the counters below do not exist before
        self._cuda = torch.cuda
        self._device = torch.device(device)

    def budget(self) -> int:
        """``SHARE`` of what is free and of what torch holds, to be used again."""
        free, _ = self._cuda.mem_get_info(self._device)
        return int(SHARE * (free + self._cuda.memory_reserved(self._device)))

    def start(self) -> None:
        """Collect what the last pack left, and begin to measure."""
        release()
        self._cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        """The most that torch had reserved since the start; waits for the device."""
        self._cuda.synchronize(self._device)
        return self._cuda.max_memory_reserved(self._device)


def meter_of(device: str) -> Meter:
    """The meter of ``"cpu"`` or ``"cuda"``."""
    return CudaMeter(device) if device.startswith("cuda") else Unmeasured()


def probe(
    train_pack: Callable[..., Any],
    trials: Sequence[Trial],
    meter: Meter,
    *,
    device: str,
    data: str | None,
) -> int | None:
    """Peak of a pack that is dropped at its first look at the loss. What it raises, is raised.

    It is the real loop, which on a GPU records its steps and its evaluation, the largest first,
    before it takes the first step: by then it has had all the memory that training will ever need.
    """

    def stop(done: int, total: int, loss: float) -> None:
        # Asked for here, since that waits: no recording may be dropped while it is being replayed.
        raise _Enough(meter.peak())

    meter.start()
    try:
        train_pack(trials, device=device, data=data, on_step=stop)
    except _Enough as enough:
        return enough.peak
    return meter.peak()


def release() -> None:
    """Free what a finished or failed pack held, before the next one needs it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Enough(BaseException):
    """Ends a probe; like Ctrl-C it is no failure, so that nothing takes it for one."""

    def __init__(self, peak: int | None) -> None:
        super().__init__()
        self.peak = peak


def _regrown(budget: int | None, then: int | None) -> bool:
    return budget is not None and then is not None and budget >= REGROWN * then


def _bound(peaks: Mapping[int, int], lanes: int) -> float:
    wider = [n for n in peaks if n >= lanes]
    if wider:
        return peaks[min(wider)]
    widest = max(peaks)
    return peaks[widest] * lanes / widest


def _lifted_line(peaks: Mapping[int, int], lanes: int) -> float:
    """Infinite where the peaks are on no line that can be: a negative share of lanes or base."""
    count = len(peaks)
    if count == 1:
        return math.inf
    mean_lanes, mean_peak = sum(peaks) / count, sum(peaks.values()) / count
    spread = sum((n - mean_lanes) ** 2 for n in peaks)
    per_lane = sum((n - mean_lanes) * (b - mean_peak) for n, b in peaks.items()) / spread
    fixed = mean_peak - per_lane * mean_lanes
    if per_lane <= 0 or fixed < 0:
        return math.inf
    lift = max(peak / (fixed + n * per_lane) for n, peak in peaks.items())
    return lift * (fixed + lanes * per_lane)
