"""Performance profiles: which share of runs is better than a threshold (Dolan and Moré 2002; for
scores, Agarwal et al. 2021, arXiv 2108.13264).

τ: thresholds; n: runs of a task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.statistics.bootstrap import LEVEL, RESAMPLES, check, drawn, tails


def score_profile(
    scores: Sequence[np.ndarray],
    thresholds: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Share of runs with a score above each threshold, mean over tasks, with a pointwise band.

    Args:
        scores: (n,) float for each task, normalized so that a threshold means the same in all.
        thresholds: (τ,) float.
        seed, resamples, level: of the stratified bootstrap.

    Returns:
        One row a threshold: ``threshold``, ``share``, ``low``, ``high``; the band is missing where
        no task has two runs.

    Raises:
        ValueError: no task, a task without runs, or a missing value.
    """
    strata = [np.asarray(values, dtype=float) for values in scores]
    check(strata)
    levels = np.asarray(thresholds, dtype=float)

    def share(runs: list[np.ndarray]) -> np.ndarray:  # (..., n) each -> (..., τ)
        return np.mean([(r[..., None, :] > levels[:, None]).mean(-1) for r in runs], axis=0)

    bounds = np.full((2, len(levels)), np.nan)
    if max(map(len, strata)) > 1:
        bounds = np.quantile(drawn(strata, share, seed, resamples), tails(level), axis=0)
    return pd.DataFrame(
        {"threshold": levels, "share": share(strata), "low": bounds[0], "high": bounds[1]}
    )
