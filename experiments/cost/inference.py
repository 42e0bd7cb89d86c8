"""Latency of an answer: the model as adapted, and with the adapter merged into the weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from experiments.cost.clock import summary, waited

MERGED = ("lokr", "lora", "lokr-peft")
"""Methods with something to merge."""
TURNS = 4
"""Turns of each side: adapted, merged, adapted, merged, …"""
WARM_UP = 3


def latency(
    device: str, model: Any, predict: Callable[[], Tensor], calls: int, merges: bool
) -> dict[str, Any]:
    """Milliseconds from the call to the answer, the adapter merged and not, in turns.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        model: may have ``merge_adapter``; as it was afterwards.
        predict: answers one batch.
        calls: timed in each turn.
        merges: whether there is something to merge.

    Returns:
        ``adapted`` and ``merged`` (null where nothing is), each as ``clock.summary``.
    """
    adapted: list[float] = []
    merged: list[float] = []
    for _ in range(TURNS):
        adapted += _turn(device, predict, calls)
        if merges:
            with merged_adapter(model):
                merged += _turn(device, predict, calls)
    return {"adapted": summary(adapted), "merged": summary(merged) if merges else None}


@contextmanager
def merged_adapter(model: Any) -> Iterator[None]:
    """The adapter in the weights for a while."""
    model.merge_adapter()
    try:
        yield
    finally:
        model.unmerge_adapter()


@torch.no_grad()
def _turn(device: str, predict: Callable[[], Tensor], calls: int) -> list[float]:
    samples = waited(device, list(itertools.repeat(predict, WARM_UP + calls)))
    return samples[WARM_UP:]
