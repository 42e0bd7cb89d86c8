"""Exact decomposition of the variance of scores over a full grid, seed noise taken out.

A score is y[k, s] = f(k) + b[s] + e[k, s]: what the variables of the grid point k do, a shift of
seed s that all points share, and noise of variance σ². On a full grid f falls into orthogonal
effects of single variables, of pairs and of more, one for each subset u (functional ANOVA: Hooker
2007, with weights equal over the grid; Hutter et al. 2014), and

    total = Σ_u V[u] + V[seed] + σ²,    V[u] = mean over the grid of f_u²

is the variance of one trial's score over the grid and the seeds that ran.

* The effects of *measured* means hold noise too: mean f̂_u² is V[u] + σ² c[u] d[u] on average. That
  is taken off (Olejnik and Algina 2003 for omega squared), so a variable that does nothing has 0 on
  average, and comes out below 0 in half of all studies. Nothing is clipped.
* σ² is pooled over the points: the mean square of what is left after point and seed.
* A point whose trials never ran because another's are the same function repeats that one's numbers,
  noise included: noise is counted by unit, which is what ran. c[u] and d[u] match mean and variance
  of the noise in mean f̂_u² (Satterthwaite 1946); without twins c is 1/(K S), and d the degrees of
  freedom.
* Intervals: mean f̂_u² / (σ² c[u]) is noncentral chi-squared, whose noncentrality V[u] / (σ² c[u])
  has an exact confidence distribution with a point mass at 0 (Steiger 2004); all else is nearly
  normal. Shares are drawn from the two and from σ²; their quantiles are the interval, never below
  0, so that it may lie above the share of a variable that does nothing. A bootstrap over two or
  three seeds would be far too narrow, and one that draws noise onto the measured means never finds
  0. ``tests/analysis/test_importance.py`` measures the coverage.

Legend: k1…kn levels of the n variables;  K grid points;  U units;  S seeds;  D draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import special, stats

LEVEL = 0.95
DRAWS = 1_000
Subset = tuple[int, ...]
"""Variables by place: (0,) a main effect, (0, 2) a pair, () all that takes three or more."""
WHOLE: Subset = (-1,)
"""Of all variables together."""


class NoNoiseError(ValueError):
    """Noise cannot be told from effects; the message is a sentence."""


class Noise(NamedTuple):
    """What trials of one point differ by.

    Args:
        variance: σ², of one trial's score, pooled over units.
        df: its degrees of freedom.
        means: (U,) of each unit, at the average seed.
        counts: (U,) trials of each unit.
        seeds: (S,) shift of each seed, of mean 0.
    """

    variance: float
    df: int
    means: np.ndarray
    counts: np.ndarray
    seeds: np.ndarray


class Share(NamedTuple):
    """A part of the total variance, with its interval; all three as a share of the total."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Decomposition:
    """Shares of the total variance; they sum to 1.

    Args:
        effects: main effects and pairs by subset, and (): three variables or more.
        seed: the shift of a seed that all points share.
        noise: what is left.
        total: the variance of a trial's score, in the square of its unit.
    """

    effects: dict[Subset, Share]
    seed: Share
    noise: Share
    total: float


class _Reach(NamedTuple):
    """How noise of variance 1 a trial reaches the mean square of a part of the means: the sum of
    the eigenvalues of its quadratic form in the units' noise, and the sum of their squares.
    """

    trace: float
    square: float


class _Part(NamedTuple):
    """One orthogonal part of the means: its mean square, and the noise in it as a chi-squared of
    ``df`` degrees of freedom times σ² ``scale``, which has its mean and variance.
    """

    square: float
    scale: float
    df: float


def fit_noise(values: np.ndarray) -> Noise:
    """Pool the noise of trials over units, a shift of each seed apart.

    Args:
        values: (U, S) float, NaN where a trial has no number; no unit without any.

    Raises:
        NoNoiseError: no degree of freedom is left: one seed, or nothing but single trials.
    """
    there = ~np.isnan(values)
    counts = there.sum(1)
    seeds = _seed_shifts(values, there)
    shifted = values - seeds
    means = np.nanmean(shifted, axis=1)
    rest = np.where(there, shifted - means[:, None], 0)
    df = int(there.sum() - len(values) - (there.any(0).sum() - 1))
    if df < 1:
        raise NoNoiseError("no cell has two seeds to compare: noise cannot be told from effects")
    return Noise(float((rest**2).sum() / df), df, means, counts, seeds)


def _seed_shifts(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(S,) least squares of seeds beside units; of mean 0 over the seeds."""
    weights = there / there.sum(1, keepdims=True)
    centered = np.where(there, values - np.nanmean(values, axis=1, keepdims=True), 0)
    # Normal equations after each unit's own mean is taken out.
    gram = np.diag(there.sum(0)) - there.T.astype(float) @ weights
    shifts = np.linalg.lstsq(gram, centered.sum(0), rcond=None)[0]
    return shifts - shifts.mean()


def effects(grid: np.ndarray, n: int) -> Iterator[tuple[Subset, np.ndarray]]:
    """The orthogonal effects of a function on a grid: mains, pairs, then () for all the rest.

    Args:
        grid: (k1, …, kn) float.
        n: number of variables, >= 1.

    Yields:
        A subset and its effect, of length 1 along the variables that are not in it; that of () has
        the grid's shape.
    """
    rest = centered = grid - grid.mean()
    mains = [centered.mean(axis=_but(n, i), keepdims=True) for i in range(n)]
    for i, main in enumerate(mains):
        rest = rest - main
        yield (i,), main
    for i, j in combinations(range(n), 2):
        pair = centered.mean(axis=_but(n, i, j), keepdims=True) - mains[i] - mains[j]
        rest = rest - pair
        yield (i, j), pair
    yield (), rest


def decompose(units: np.ndarray, noise: Noise, draws: int = DRAWS) -> Decomposition:
    """Shares of the total variance, with intervals; the same at every call.

    Args:
        units: (k1, …, kn) int, the unit whose numbers each point shows.
        noise: from :func:`fit_noise`.
        draws: of each share.
    """
    reaches = _reaches(units, noise.counts)
    whole, _ = reaches[WHOLE]
    sampler = _Sampler(noise, units, whole, draws)
    found = {
        subset: sampler.share(effect, *reaches[subset])
        for subset, effect in effects(noise.means[units], units.ndim)
    }
    return Decomposition(found, sampler.seed(), sampler.noise(), sampler.total)


def _reaches(units: np.ndarray, counts: np.ndarray) -> dict[Subset, tuple[_Reach, _Reach]]:
    """How noise reaches each effect, and all others together; ``WHOLE``: all effects, and none."""
    shown = np.bincount(units.ravel(), minlength=len(counts)) / units.size  # (U,)
    # All effects take G = diag(d) - v vᵀ in the units' noise: the mean of the grid is taken off.
    d, v = shown / counts, shown / np.sqrt(counts)
    whole = _Reach(d.sum() - v @ v, (d**2).sum() - 2 * d @ v**2 + (v @ v) ** 2)

    def both(leak: np.ndarray) -> tuple[_Reach, _Reach]:
        own = _Reach((leak**2).sum(), ((leak @ leak.T) ** 2).sum())
        shared = d @ (leak**2).sum(0) - ((leak @ v) ** 2).sum()  # trace of G leakᵀ leak
        others = _Reach(whole.trace - own.trace, whole.square - 2 * shared + own.square)
        return clean(own), clean(others)

    def clean(reach: _Reach) -> _Reach:
        """Nothing where there is but rounding: each level shows every unit as often."""
        return reach if reach.square > 1e-10 * whole.square else _Reach(0.0, 0.0)

    leaks = _leaks(units, counts)
    small, rest = both(np.vstack([*leaks.values()]))
    return {
        **{subset: both(leak) for subset, leak in leaks.items()},
        (): (rest, small),
        WHOLE: (whole, _Reach(0.0, 0.0)),
    }


def _leaks(units: np.ndarray, counts: np.ndarray) -> dict[Subset, np.ndarray]:
    """Of mains and pairs: (levels, U), what a unit's noise, of variance 1 a trial, adds at each
    level, by the root of the number of levels.
    """
    n, mean = units.ndim, _shown(units, (), len(counts))
    mains = {(i,): _shown(units, (i,), len(counts)) - mean for i in range(n)}
    pairs = {
        (i, j): _shown(units, (i, j), len(counts)) - mains[i,] - mains[j,] - mean
        for i, j in combinations(range(n), 2)
    }
    found = {**mains, **pairs}
    scales = {key: np.sqrt(counts * (leak.size / len(counts))) for key, leak in found.items()}
    return {key: leak.reshape(-1, len(counts)) / scales[key] for key, leak in found.items()}


def _shown(units: np.ndarray, kept: Subset, size: int) -> np.ndarray:
    """(k1 or 1, …, kn or 1, U): the share of points at each level of ``kept`` that show a unit."""
    shape = [k if i in kept else 1 for i, k in enumerate(units.shape)]
    level = np.broadcast_to(np.arange(np.prod(shape)).reshape(shape), units.shape)
    counted = np.bincount((level * size + units).ravel(), minlength=int(np.prod(shape)) * size)
    return counted.reshape(*shape, size) * (np.prod(shape) / units.size)


class _Sampler:
    """Draws of shares, given the measured means and how noise reaches them."""

    def __init__(self, noise: Noise, units: np.ndarray, whole: _Reach, draws: int) -> None:
        self.rng, self.draws = np.random.default_rng(0), draws
        self.fitted, self.units, self.reach = noise, units, whole
        self.measured = noise.means[units] - noise.means[units].mean()
        self.variances = noise.variance * noise.df / stats.chi2.ppf(self._even(), noise.df)  # (D,)
        trials, seeds = int(noise.counts.sum()), len(noise.seeds)
        self.shift = _Part(float((noise.seeds**2).mean()), 1 / trials, seeds - 1)
        means = self._value(_part(self.measured, whole))
        self.total = noise.variance + means + self._value(self.shift)

    def share(self, effect: np.ndarray, reach: _Reach, others: _Reach) -> Share:
        """Of an effect, which noise reaches as ``reach`` says, and all that is not in it."""
        part = _part(effect, reach)
        rest = self._others(self.measured - effect, others) + self._draw(self.shift)
        return self._summary(self._value(part), self._draw(part), rest)

    def seed(self) -> Share:
        others = self._others(self.measured, self.reach)
        return self._summary(self._value(self.shift), self._draw(self.shift), others)

    def noise(self) -> Share:
        others = self._others(self.measured, self.reach) + self._draw(self.shift) - self.variances
        return self._summary(self.fitted.variance, self.variances, others)

    def _even(self) -> np.ndarray:
        """(D,) of a uniform number, one in each of D equal parts of [0, 1], in random order: fewer
        are enough (a Latin hypercube, McKay et al. 1979).
        """
        return (self.rng.permutation(self.draws) + 0.5) / self.draws

    def _value(self, part: _Part) -> float:
        """Without the noise in it, which may leave less than nothing."""
        return part.square - self.fitted.variance * part.scale * part.df

    def _draw(self, part: _Part) -> np.ndarray:
        """(D,) of a part's variance, from its confidence distribution."""
        unit = self.variances * part.scale
        if self.fitted.variance == 0 or part.scale == 0 or part.df == 0:  # no noise reaches it
            return np.full_like(self.variances, part.square)
        chances, ratios = self._even(), part.square / unit
        inside = special.chndtr(ratios, part.df, 0) > chances
        found = np.zeros_like(unit)  # the point mass at 0 needs no search, which is slow
        found[inside] = special.chndtrinc(ratios[inside], part.df, chances[inside])
        return unit * found

    def _others(self, effect: np.ndarray, reach: _Reach) -> np.ndarray:
        """(D,) of noise and all effects that make up ``effect``: many, so nearly normal."""
        sums = np.bincount(self.units.ravel(), effect.ravel(), len(self.fitted.counts))
        carried = 4 * self.variances * (sums**2 / self.fitted.counts).sum() / self.units.size**2
        spread = 2 * self.variances**2 * reach.square
        sd = np.sqrt(np.maximum(carried - spread, spread))
        normal = special.ndtri(self._even())
        drawn = (effect**2).mean() - self.variances * reach.trace + sd * normal
        return np.maximum(drawn, 0) + self.variances

    def _summary(self, value: float, drawn: np.ndarray, others: np.ndarray) -> Share:
        # The draws next to the tails, outwards: between them an interval is a little too short.
        shares, tail = drawn / (drawn + others), (1 - LEVEL) / 2
        low = np.quantile(shares, tail, method="lower")
        high = np.quantile(shares, 1 - tail, method="higher")
        return Share(float(value / self.total), float(low), float(high))


def _part(effect: np.ndarray, reach: _Reach) -> _Part:
    square = float((effect**2).mean())
    if reach.square == 0:
        return _Part(square, 0.0, 0.0)
    scale = reach.square / reach.trace
    return _Part(square, scale, reach.trace / scale)


def _but(n: int, *kept: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(n) if axis not in kept)
