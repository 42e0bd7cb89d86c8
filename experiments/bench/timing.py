"""Milliseconds of a call: CUDA graphs replayed between two events, or a clock on a CPU.

Contenders are sampled in turns (A, B, C, A, B, C, …), so that a clock that drifts drifts for all.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

Calls = Sequence[Callable[[], Any]]
Within = Callable[[], AbstractContextManager[Any]]
WARM_UP = 3
"""Runs before anything is timed or captured: they compile and tune, and fill the allocator."""
SAMPLE_MS = {"cuda": 3.0, "cpu": 30.0}
"""Least length of a sample: against it, the time to start a graph or read a clock is nothing."""


class Clock:
    """Calls on a CPU, one run being each of them once.

    Args:
        calls: what to time.
        within: makes the context that they run in.
    """

    mode = "clock"
    reason: str | None = None
    """Why it is not timed as most are; None if it is."""

    def __init__(self, calls: Calls, within: Within = nullcontext) -> None:
        self.calls = calls
        self.within = within
        self.run(WARM_UP)

    def run(self, times: int) -> None:
        """Run so many times, without waiting for the device."""
        with self.within():
            for _ in range(times):
                for call in self.calls:
                    call()

    def milliseconds(self, times: int) -> float:
        """Of one call, over so many runs."""
        return self._elapsed(times) / times / len(self.calls)

    def _elapsed(self, times: int) -> float:
        start = time.perf_counter()
        self.run(times)
        return (time.perf_counter() - start) * 1000


class Eager(Clock):
    """Calls launched from Python, timed on the GPU: what cannot be captured."""

    mode = "eager"

    def __init__(self, calls: Calls, within: Within, reason: str) -> None:
        super().__init__(calls, within)
        self.reason = reason

    def _elapsed(self, times: int) -> float:
        return _between_events(lambda: self.run(times))


class Graph(Clock):
    """Calls captured in one CUDA graph.

    What the calls return is kept: outputs of different calls then never share memory, which would
    leave them in the cache.

    Raises:
        RuntimeError: a call cannot be captured.
    """

    mode = "graph"

    def __init__(self, calls: Calls, within: Within = nullcontext) -> None:
        self.graph: torch.cuda.CUDAGraph | None = None
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            super().__init__(calls, within)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with within(), torch.cuda.graph(graph):
            self.kept = [call() for call in calls]
        self.graph = graph

    def run(self, times: int) -> None:
        if self.graph is None:  # not yet captured: warming up
            super().run(times)
            return
        for _ in range(times):
            self.graph.replay()

    def _elapsed(self, times: int) -> float:
        return _between_events(lambda: self.run(times))


def runner(calls: Calls, device: str, within: Within = nullcontext) -> Clock:
    """The way to time the calls on a device: a graph wherever they can be captured."""
    if device == "cpu":
        return Clock(calls, within)
    try:
        return Graph(calls, within)
    except RuntimeError as error:
        torch.cuda.synchronize()
        return Eager(calls, within, f"not captured: {first_line(error)}")


def interleaved(runners: Mapping[str, Clock], device: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a call of each runner, one sample a round, the runners in turns."""
    times = {name: _repetitions(one, device) for name, one in runners.items()}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, one in runners.items():
            one.run(1)  # its own data, and not its predecessor's, is then in the caches
            samples[name].append(one.milliseconds(times[name]))
    return samples


def laps(step: Callable[[], Any], steps: int, device: str) -> list[float]:
    """Milliseconds of each of so many steps, none of which waits for the one before."""
    if device == "cpu":
        marks = [time.perf_counter()]
        for _ in range(steps):
            step()
            marks.append(time.perf_counter())
        return [(end - start) * 1000 for start, end in itertools.pairwise(marks)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in itertools.pairwise(events)]


def input_sets(bytes_a_set: int, device: str) -> int:
    """How many inputs to rotate so that none is still in the GPU's cache when its turn comes."""
    if device == "cpu":
        return 2
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return int(max(2, -(-3 * cache // bytes_a_set)))


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def precision(device: str) -> AbstractContextManager[Any]:
    """bf16 autocast on a GPU, as people train; fp32 on a CPU.

    Without autocast's cache of casts, which must not outlive a captured graph.
    """
    if device == "cpu":
        return nullcontext()
    return torch.autocast(device, torch.bfloat16, cache_enabled=False)


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a table."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _repetitions(one: Clock, device: str) -> int:
    """Runs that make a sample of about SAMPLE_MS."""
    one.run(1)
    once = one.milliseconds(1) * len(one.calls)
    return max(1, round(SAMPLE_MS[device] / max(once, 1e-3)))


def _between_events(action: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    action()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
