"""Energy of a step: the GPU's own counter, read between updates of it while steps run.

The counter moves in jumps (20 to 100 ms apart on an H100), and a power sensor sees only a part of
the time, so a window is seconds long and reaches from one jump to another.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 5.0
"""Least window, unless the user asks for another."""
LEAD_SECONDS = 1.0
"""Steps before the window, until clock and power are steady."""
CHUNK_SECONDS = 0.05
"""Steps between two readings: waiting for the device is nothing against it."""
UPDATES = 20
"""Jumps of the counter that a window must see: the ends of the window are off by less than one."""


@dataclass(frozen=True)
class Reading:
    """The counter at one moment.

    Args:
        seconds: of any clock that does not jump.
        millijoules: what the counter says.
        steps: taken since the first reading.
    """

    seconds: float
    millijoules: int
    steps: int


def watch(
    counter: Callable[[], int],
    run: Callable[[int], None],
    step_seconds: float,
    seconds: float = SECONDS,
    now: Callable[[], float] = time.perf_counter,
) -> list[Reading]:
    """Readings over a window in which steps run without a pause.

    Args:
        counter: millijoules since any moment.
        run: takes so many steps and waits for them.
        step_seconds: of one step, roughly.
        seconds: the window.
        now: the clock.
    """
    chunk = max(1, round(CHUNK_SECONDS / step_seconds))
    start = now()
    while now() < start + LEAD_SECONDS:
        run(chunk)
    readings = [Reading(now(), counter(), 0)]
    while now() < start + LEAD_SECONDS + seconds:
        run(chunk)
        readings.append(Reading(now(), counter(), readings[-1].steps + chunk))
    return readings


def per_examples(readings: Sequence[Reading], examples: int) -> dict[str, Any]:
    """Energy between the first and the last jump of the counter.

    Args:
        readings: in order.
        examples: of one step.

    Returns:
        ``joules_per_1000_examples``, ``watts``, ``seconds``, ``steps``, ``updates`` (jumps seen),
        ``resolution_joules`` (the largest jump) and ``reason``: why the first two are null.
    """
    pairs = list(itertools.pairwise(readings))
    jumps = [after for before, after in pairs if after.millijoules != before.millijoules]
    sizes = [after.millijoules - before.millijoules for before, after in pairs]
    if len(jumps) <= UPDATES:
        return unknown(
            f"the counter moved {len(jumps)} times in the window, over {UPDATES} are needed: "
            "give a longer --energy-seconds"
        )
    first, last = jumps[0], jumps[-1]
    joules = (last.millijoules - first.millijoules) / 1000
    seconds, steps = last.seconds - first.seconds, last.steps - first.steps
    return {
        "joules_per_1000_examples": 1000 * joules / (steps * examples),
        "watts": joules / seconds,
        "seconds": seconds,
        "steps": steps,
        "updates": len(jumps),
        "resolution_joules": max(sizes) / 1000,
        "reason": None,
    }


def unknown(reason: str) -> dict[str, Any]:
    """No energy, and why."""
    names = ("joules_per_1000_examples", "watts", "seconds", "steps", "updates")
    return {**dict.fromkeys((*names, "resolution_joules")), "reason": reason}
