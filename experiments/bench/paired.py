"""Whether two methods' scores differ: trial by trial, with a bootstrap interval.

Legend: n pairs; k resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
SEED = 0
ENOUGH = 8
"""Pairs below which an interval over them says nothing."""


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences and its 95% interval (percentile bootstrap over pairs)."""

    pairs: int
    mean: float
    low: float
    high: float

    @property
    def is_nothing(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0 <= self.high


def difference(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """first minus second, pair by pair; None without pairs."""
    if len(first) == 0:
        return None
    deltas = np.subtract(first, second)  # (n,)
    generator = np.random.default_rng(SEED)
    drawn = generator.integers(len(deltas), size=(RESAMPLES, len(deltas)))  # (k, n)
    low, high = np.quantile(deltas[drawn].mean(1), (0.025, 0.975))
    return Difference(len(deltas), float(deltas.mean()), float(low), float(high))
