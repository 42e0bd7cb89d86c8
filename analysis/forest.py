"""Functional ANOVA of a random forest: what a grid with holes says about its variables.

A forest (Breiman 2001; scikit-learn's) is fitted to the means of the points that were measured, and
asked for every point of the grid of observed levels. The marginals of its answers are then exact
(Hutter, Hoos and Leyton-Brown 2014). They are those of a model: how well it foretells points that
it was not shown is measured by cross-validation, and where that is poor nothing should be ranked.
A variable that does nothing gets next to nothing, since no split gains by it; PED-ANOVA (Watanabe
et al. 2023), which needs no grid either, gave one .24 on a grid whose poor points were pruned.

Intervals are percentiles over resamples of the units, each with a forest of its own. Unlike those
of a full grid they do not reach 0, and they do not know what the holes would have shown.

Legend: n variables;  P measured points;  U units (what ran);  B resamples.
"""

from __future__ import annotations

from math import prod

import numpy as np

from analysis.variance import LEVEL, Decomposition, Noise, Share, Subset, effects

FOLDS = 10
LEAST = 10
"""Fewest units that a forest is asked about."""
MOST = 1_000_000
"""Most points of a grid that it is asked for."""
TREES, RESAMPLES = 100, 100
_FEW_TREES = 20  # of a resample's forest: their average over the resamples is what counts


def cross_validated(points: np.ndarray, units: np.ndarray, means: np.ndarray) -> float:
    """R² of the forest on points of units that it was not shown.

    Args:
        points: (P, n) int, the levels.
        units: (P,) int, what ran at each: points of one unit are shown or held out together.
        means: (P,) float, the measured means.

    Returns:
        1 where every point is foretold, 0 where their average does as well, negative where worse.
    """
    from sklearn.model_selection import GroupKFold, cross_val_predict

    folds = GroupKFold(FOLDS, shuffle=True, random_state=0)
    foretold = cross_val_predict(_forest(TREES, 0), points, means, cv=folds, groups=units)
    return float(1 - ((foretold - means) ** 2).sum() / ((means - means.mean()) ** 2).sum())


def decompose(points: np.ndarray, units: np.ndarray, noise: Noise) -> Decomposition:
    """Shares of the total variance, with intervals; the same at every call.

    Args:
        points: (P, n) int, the levels 0 … k-1 of each variable at each measured point.
        units: (P,) int, what ran there.
        noise: from :func:`analysis.variance.fit_noise`.
    """
    rng = np.random.default_rng(0)
    found = _variances(points, noise.means[units], TREES, 0)
    rows = [np.flatnonzero(units == unit) for unit in range(len(noise.means))]
    resamples = []
    for seed in range(RESAMPLES):
        drawn = rng.integers(len(rows), size=len(rows))
        some = np.concatenate([rows[unit] for unit in drawn])
        sigma2 = noise.variance * noise.df / rng.chisquare(noise.df)
        # The grid's levels stay those of all points, whatever was drawn.
        resampled = _variances(points, noise.means[units], _FEW_TREES, seed, some)
        resamples.append(_shared(resampled, noise, sigma2))
    return _summarized(_shared(found, noise, noise.variance), resamples, found, noise)


def _forest(trees: int, seed: int):
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(trees, random_state=seed, n_jobs=1)


def _variances(
    points: np.ndarray, means: np.ndarray, trees: int, seed: int, some: np.ndarray | None = None
) -> dict[Subset, float]:
    """Variance of each effect of a forest fitted to some of the points."""
    levels = points.max(0) + 1
    shown = slice(None) if some is None else some
    forest = _forest(trees, seed).fit(points[shown], means[shown])
    everywhere = np.indices(levels).reshape(len(levels), -1).T  # (k1 … kn, n)
    answers = forest.predict(everywhere).reshape(levels)
    return {subset: float((effect**2).mean()) for subset, effect in effects(answers, len(levels))}


def size(points: np.ndarray) -> int:
    """Points of the grid of observed levels."""
    return prod(int(level) for level in points.max(0) + 1)


def _shared(found: dict[Subset, float], noise: Noise, sigma2: float) -> dict[Subset | str, float]:
    """Effects, seed and noise as shares of their sum."""
    trials = int(noise.counts.sum())
    shift = float((noise.seeds**2).mean()) - sigma2 * (len(noise.seeds) - 1) / trials
    whole: dict[Subset | str, float] = {**found, "seed": shift, "noise": sigma2}
    total = sum(whole.values())
    return {key: value / total for key, value in whole.items()}


def _summarized(
    shares: dict[Subset | str, float],
    resamples: list[dict[Subset | str, float]],
    found: dict[Subset, float],
    noise: Noise,
) -> Decomposition:
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    bounded = {
        key: Share(value, *map(float, np.quantile([one[key] for one in resamples], tails)))
        for key, value in shares.items()
    }
    total = noise.variance / shares["noise"]
    effects_ = {subset: bounded[subset] for subset in found}
    return Decomposition(effects_, bounded["seed"], bounded["noise"], total)
