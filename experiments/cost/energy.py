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
UPDATES = 10
"""Jumps of the counter that a window must see: the ends of the window are off by less than one."""
Wait = Callable[[], Any]


@dataclass(frozen=True)
class Reading:
    """The counter at one moment.

    Args:
        seconds: of any clock that does not jump.
        millijoules: what the counter says.
        steps: done since the first reading.
    """

    seconds: float
    millijoules: int
    steps: int


def watch(
    counter: Callable[[], int],
    run: Callable[[int], Wait],
    step_seconds: float,
    seconds: float = SECONDS,
    now: Callable[[], float] = time.perf_counter,
) -> list[Reading]:
    """Readings over a window in which steps run without a pause.

    Args:
        counter: millijoules since any moment.
        run: starts so many steps, and gives what waits for them.
        step_seconds: of one step, roughly.
        seconds: the window.
        now: the clock.
    """
    chunk = max(1, round(CHUNK_SECONDS / step_seconds))
    start = now() + LEAD_SECONDS
    readings: list[Reading] = []
    wait = run(chunk)
    while now() < start + seconds:
        following = run(chunk)  # so that the device has work while we read
        wait()
        wait = following
        if now() >= start:
            done = readings[-1].steps + chunk if readings else 0
            readings.append(Reading(now(), counter(), done))
    wait()
    return readings


def per_examples(readings: Sequence[Reading], examples: int) -> dict[str, Any]:
    """Energy between the first and the last jump of the counter.

    Args:
        readings: in order.
        examples: of one step.

    Returns:
        ``joules_per_1000_examples``, ``watts``, ``seconds``, ``steps``, ``updates`` (jumps seen),
        ``resolution_joules`` (the largest jump) and ``reason``: why all the others are null.
    """
    pairs = list(itertools.pairwise(readings))
    jumps = [after for before, after in pairs if after.millijoules != before.millijoules]
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
        "resolution_joules": max(b.millijoules - a.millijoules for a, b in pairs) / 1000,
        "reason": None,
    }


def unknown(reason: str) -> dict[str, Any]:
    """No energy, and why."""
    names = ("joules_per_1000_examples", "watts", "seconds", "steps", "updates")
    return {**dict.fromkeys((*names, "resolution_joules")), "reason": reason}
