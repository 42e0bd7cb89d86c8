"""Operations recorded once in a CUDA graph and replayed: the host's share of a step is one launch.

What is recorded must read and write the same memory each time, and never wait for the device; it
must have run once before, so that what is made lazily (workspaces, compiled kernels) is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Protocol

import torch

from experiments.executors import is_out_of_memory

_log = logging.getLogger(__name__)


class Graph(Protocol):
    """A recording."""

    def record(self, operations: Callable[[], None]) -> None:
        """Record the operations without running them."""
        ...

    def replay(self) -> None:
        """Run what was recorded."""
        ...


class CudaGraph:
    """A CUDA graph of the current stream.

    Args:
        pool: memory shared with the other graphs of a pack, which never run at the same time.
    """

    def __init__(self, pool: tuple[int, int]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._pool = pool

    def record(self, operations: Callable[[], None]) -> None:
        """Record; an error in the operations comes out as it is, memory running out included."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # a recording cannot take blocks that lie unused in the cache
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            operations()
        except BaseException:
            self._abandon()
            raise
        self._graph.capture_end()

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()

    def _abandon(self) -> None:
        """End a recording that failed; what this raises must not hide the cause."""
        try:
            self._graph.capture_end()
        except RuntimeError:
            # torch then leaves its allocator in the state of a recording, the pool never freed.
            device = torch.cuda.current_device()
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(device, self._pool)
                torch._C._cuda_releasePool(device, self._pool)


class Recorder:
    """Runs operations of several kinds: a replay of those recorded, the others as they come.

    Args:
        make: a new, empty graph; None to record nothing.
    """

    def __init__(self, make: Callable[[], Graph] | None) -> None:
        self._make = make
        self._graphs: dict[Hashable, Graph] = {}

    @property
    def active(self) -> bool:
        """Whether anything can be recorded."""
        return self._make is not None

    @property
    def recorded(self) -> tuple[Hashable, ...]:
        """The kinds that are replayed."""
        return tuple(self._graphs)

    def record(self, kind: Hashable, operations: Callable[[], None]) -> None:
        """Record operations, which do nothing yet.

        If that fails for another reason than memory, a warning says why, and from then on nothing
        is recorded.

        Raises:
            RuntimeError: memory ran out.
        """
        if self._make is None:
            return
        graph = self._make()
        try:
            graph.record(operations)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.give_up(str(error).strip().splitlines()[0])
        else:
            self._graphs[kind] = graph

    def run(self, kind: Hashable, operations: Callable[[], None]) -> None:
        """Run the operations, which are the same whenever ``kind`` is."""
        if kind in self._graphs:
            self._graphs[kind].replay()
        else:
            operations()

    def give_up(self, reason: str) -> None:
        """Record nothing more, and say why; what is recorded stays good."""
        self._make = None
        _log.warning("no CUDA graph, steps are launched one by one: %s", reason)

    def clear(self) -> None:
        """Let the recordings and their memory go."""
        self._graphs.clear()


def cuda_graphs() -> Callable[[], Graph]:
    """A maker of graphs that share one pool of memory."""
    pool = torch.cuda.graph_pool_handle()
    return lambda: CudaGraph(pool)
