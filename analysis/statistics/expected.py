"""What a budget of n trials buys: the expected score of the best of n trials drawn at random.

N: trials at hand; n: trials drawn, without replacement; i: place in the order of selection scores,
1 the worst. The trial at place i is the best of those drawn with probability

    C(i-1, n-1) / C(N, n)

which makes the estimator unbiased (Tang et al. 2020, arXiv 2004.13705); drawing with replacement,
as in Dodge et al. 2019, is not. Here the trial that is kept is the best by its selection score, and
what counts is its report score; with one score for both it is the paper's expected maximum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.statistics.bootstrap import LEVEL, tails

RESAMPLES = 1_000


def expected_maximum(selection: np.ndarray, report: np.ndarray | None = None) -> np.ndarray:
    """Expected report score of the trial with the best selection score among n = 1 … N.

    Trials with equal selection scores are equally likely to be kept. A trial without a score (it
    diverged) uses up the budget and is never kept; the expectation is then over draws that have a
    score. Trials that differ in the seed alone count as trials of their own.

    Args:
        selection: (N,) float, higher is better; NaN of a trial that failed.
        report: (N,) float; the selection scores themselves by default.

    Returns:
        (N,) float: at index n-1 that of n trials; NaN everywhere if no trial has a score.

    Raises:
        ValueError: there is no trial, or the two do not have the same shape.
    """
    ordered = _ordered(selection, report)
    scored = ~np.isnan(ordered)
    if not scored.any():
        return np.full(len(ordered), np.nan)
    filled = np.where(scored, ordered, 0.0)
    curve = np.empty(len(ordered))
    for n, weights in enumerate(_weights(len(ordered))):
        curve[n] = weights @ filled / weights[scored].sum()
    return curve


def band(
    selection: np.ndarray,
    report: np.ndarray | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> pd.DataFrame:
    """The curve with a pointwise percentile band from trials drawn anew.

    It is only given up to half of the trials: near n = N the curve hangs on the single best trial,
    of which no resample knows how much better others could have been (Tang et al. 2020, section 4).

    Args:
        selection, report: of :func:`expected_maximum`.
        seed, resamples, level: of the bootstrap.

    Returns:
        One row for each n = 1 … N: ``trials`` (n), ``expected``, ``low``, ``high``.
    """
    curve = expected_maximum(selection, report)
    ordered, trials = _ordered(selection, report), len(curve)
    half = trials // 2
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.integers(trials, size=(resamples, trials)), axis=1)
    redrawn = ordered[drawn]  # (resamples, N), in the order of selection scores
    scored = ~np.isnan(redrawn)
    filled = np.where(scored, redrawn, 0.0)
    bounds = np.full((trials, 2), np.nan)
    for n, weights in zip(range(half), _weights(trials), strict=False):
        total = scored @ weights
        kept = total > 0  # a resample of failed trials alone has no best
        if kept.any():
            bounds[n] = np.quantile((filled @ weights)[kept] / total[kept], tails(level))
    return pd.DataFrame(
        {
            "trials": np.arange(1, trials + 1),
            "expected": curve,
            "low": bounds[:, 0],
            "high": bounds[:, 1],
        }
    )


def _ordered(selection: np.ndarray, report: np.ndarray | None) -> np.ndarray:
    """(N,) report scores from the worst selection score to the best; NaN, the failed, come first.

    Equal selection scores share the mean of their report scores: any of them may be kept.
    """
    selection = np.asarray(selection, dtype=float)
    report = selection if report is None else np.asarray(report, dtype=float)
    if selection.ndim != 1 or selection.shape != report.shape or not len(selection):
        raise ValueError(f"trials x score: {selection.shape} and {report.shape} are no two lists")
    frame = pd.DataFrame({"selection": selection, "report": report})
    frame.loc[frame.isna().any(axis=1)] = np.nan
    frame["shared"] = frame.groupby("selection")["report"].transform("mean")
    ordered = frame.sort_values("selection", na_position="first", kind="stable")
    return ordered["shared"].to_numpy()


def _weights(trials: int) -> Iterator[np.ndarray]:
    """For n = 1 … N the probability (N,) that the trial at each place is kept.

    C(i-1, n) / C(N, n+1) is C(i-1, n-1) / C(N, n) times (i-n)(n+1) / (n(N-n)): no factorials.
    """
    place = np.arange(1, trials + 1)
    weights = np.full(trials, 1 / trials)
    for n in range(1, trials + 1):
        yield weights
        if n < trials:
            weights = weights * np.maximum(place - n, 0) * ((n + 1) / (n * (trials - n)))
