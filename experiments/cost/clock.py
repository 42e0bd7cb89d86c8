"""Milliseconds of actions: CUDA events on a GPU, a clock on a CPU; and two sides taken in turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Action = Callable[[], Any]
Turn = Callable[[], list[float]]


def laps(device: str, actions: Sequence[Action]) -> list[float]:
    """Milliseconds of each action, done one after the other without waiting in between."""
    return _device_laps(actions) if device == "cuda" else _host_laps(actions)


def waited(device: str, actions: Sequence[Action]) -> list[float]:
    """Milliseconds from the call of each action until its result is there."""

    def complete(action: Action) -> None:
        action()
        if device == "cuda":
            torch.cuda.synchronize()

    return _host_laps([lambda action=action: complete(action) for action in actions])


def in_turns(sides: Sequence[Turn], rounds: int) -> list[list[list[float]]]:
    """Samples of each side, A, B, A, B, …: what drifts (clock, heat) then drifts for both.

    Args:
        sides: each gives the samples of one turn, always of the same work.
        rounds: turns of each side.

    Returns:
        One list a side, one list a round, one number a sample.
    """
    samples: list[list[list[float]]] = [[] for _ in sides]
    for _ in range(rounds):
        for turn, found in zip(sides, samples, strict=True):
            found.append(turn())
    return samples


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """``p50_ms``, ``p95_ms`` and how many samples."""
    p50, p95 = np.percentile(samples, (50, 95)).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "samples": len(samples)}


def ratio(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> dict[str, Any]:
    """First to second, paired by round and sample: the rounds' median and quartiles.

    Args:
        first, second: as :func:`in_turns` gives them, sample by sample the same work.
    """
    rounds = [
        float(np.median(np.divide(a, b))) for a, b in zip(first, second, strict=True)
    ]  # one a round
    low, middle, high = np.percentile(rounds, (25, 50, 75)).tolist()
    return {"median": middle, "q25": low, "q75": high, "rounds": len(rounds)}


def _host_laps(actions: Sequence[Action]) -> list[float]:
    marks = [time.perf_counter()]
    for action in actions:
        action()
        marks.append(time.perf_counter())
    return [(end - start) * 1000 for start, end in itertools.pairwise(marks)]


def _device_laps(actions: Sequence[Action]) -> list[float]:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(actions) + 1)]
    events[0].record()
    for action, event in zip(actions, events[1:], strict=True):
        action()
        event.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in itertools.pairwise(events)]
