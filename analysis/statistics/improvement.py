"""How likely a run of one method beats a run of another.

p, q: runs of x and of y in a task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.statistics.bootstrap import LEVEL, RESAMPLES, Interval, check, stratified


def probability_of_improvement(
    x: Sequence[np.ndarray],
    y: Sequence[np.ndarray],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, Interval]:
    """P(X > Y) + P(X = Y) / 2 for a run of x and one of y, mean over tasks (Agarwal et al. 2021,
    arXiv 2108.13264). Higher is better; how much better does not count.

    The runs of a task are taken as independent; that seeds are shared is not used.

    Args:
        x, y: (p,) and (q,) float for each task, tasks in the same order.
        seed, resamples, level: of the stratified bootstrap.

    Returns:
        The probability and its interval.

    Raises:
        ValueError: not the same number of tasks, a task without runs, or a missing value.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} tasks of one method and {len(y)} of the other")
    strata = [np.asarray(values, dtype=float) for values in (*x, *y)]
    check(strata)
    bounds = stratified(strata, _improvement, seed=seed, resamples=resamples, level=level)
    return float(_improvement(strata)), bounds


def _improvement(strata: list[np.ndarray]) -> np.ndarray:
    tasks = len(strata) // 2
    pairs = zip(strata[:tasks], strata[tasks:], strict=True)
    return np.mean([_share(x, y) for x, y in pairs], axis=0)


def _share(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(..., p), (..., q) -> (...): the share of pairs that x wins, ties by halves."""
    gap = x[..., :, None] - y[..., None, :]  # (..., p, q)
    return (0.5 + np.sign(gap) / 2).mean(axis=(-2, -1))
