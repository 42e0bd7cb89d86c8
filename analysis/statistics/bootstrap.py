"""The percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.

s: strata (tasks); n: values of a stratum; b: resamples drawn at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_AT_ONCE = 200_000  # numbers drawn at a time: statistics look at them in pairs, or many times

Statistic = Callable[[list[np.ndarray]], np.ndarray]
"""Takes a (..., n_s) array of each stratum, gives (...): many resamples are asked for at once."""


class Interval(NamedTuple):
    """Bounds; NaN where there is no interval."""

    low: float
    high: float


NOTHING = Interval(math.nan, math.nan)


def tails(level: float = LEVEL) -> tuple[float, float]:
    """The two quantiles between which a share ``level`` lies."""
    return (1 - level) / 2, (1 + level) / 2


def stratified(
    strata: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Interval of a statistic whose values are drawn anew within each stratum, as in rliable
    (Agarwal et al. 2021, arXiv 2108.13264): every resample has all tasks, each with as many runs.

    Runs of one stratum have to be independent. With two or three runs a stratum the interval of a
    single stratum is far too narrow; over many strata that matters less.

    Args:
        strata: (n_s,) float each.
        statistic: of all strata together.
        seed: of the generator.
        resamples: how many.
        level: coverage.

    Returns:
        Bounds; NaN where no stratum has two values.

    Raises:
        ValueError: no stratum, an empty one, or a value that is missing.
    """
    check(strata)
    if max(map(len, strata)) < 2:
        return NOTHING
    values = drawn(strata, statistic, seed, resamples)
    return Interval(*map(float, np.quantile(values, tails(level))))


def drawn(
    strata: Sequence[np.ndarray], statistic: Statistic, seed: int = 0, resamples: int = RESAMPLES
) -> np.ndarray:
    """The statistic of each resample.

    Args:
        strata, statistic, seed, resamples: of :func:`stratified`.

    Returns:
        (resamples, ...) float, as the statistic gives it.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for count in _portions(resamples, sum(map(len, strata))):
        rows = [s[generator.integers(len(s), size=(count, len(s)))] for s in strata]  # (b, n_s)
        parts.append(statistic(rows))
    return np.concatenate(parts)


def check(strata: Sequence[np.ndarray]) -> None:
    """Raise ValueError where a stratum has nothing, or something is missing."""
    if not len(strata) or min(map(len, strata)) == 0:
        raise ValueError("every stratum needs a value, and there has to be a stratum")
    if any(np.isnan(values).any() for values in strata):
        raise ValueError("a value is missing: leave the trial out, and say so")


def _portions(resamples: int, values: int) -> Iterator[int]:
    """Resamples a portion, so that many values do not fill the memory."""
    portion = max(1, _AT_ONCE // values)
    for start in range(0, resamples, portion):
        yield min(portion, resamples - start)
