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


class _Part(NamedTuple):
    """One orthogonal part of the means: mean square, and its noise: scale c and degrees d."""

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
        grid: (k1, …, kn, …) float; what follows the n variables is carried along.
        n: number of variables, >= 1.

    Yields:
        A subset and its effect, of the grid's shape.
    """
    rest = grid - grid.mean(axis=tuple(range(n)), keepdims=True)
    centered, mains = rest, []
    for i in range(n):
        mains.append(centered.mean(axis=_others(n, i), keepdims=True))
        effect = np.broadcast_to(mains[i], grid.shape)
        rest = rest - effect
        yield (i,), effect
    for i, j in combinations(range(n), 2):
        pair = centered.mean(axis=_others(n, i, j), keepdims=True) - mains[i] - mains[j]
        effect = np.broadcast_to(pair, grid.shape)
        rest = rest - effect
        yield (i, j), effect
    yield (), rest


def decompose(units: np.ndarray, noise: Noise, draws: int = DRAWS) -> Decomposition:
    """Shares of the total variance, with intervals; the same at every call.

    Args:
        units: (k1, …, kn) int, the unit whose numbers each point shows.
        noise: from :func:`fit_noise`.
        draws: of each share.
    """
    shown = np.eye(len(noise.means))[units]  # (k1, …, kn, U)
    seen = _shares_of_noise(shown.reshape(units.size, -1), noise)  # centered, (K, U)
    measured = noise.means[units].ravel() - noise.means[units].mean()
    sampler = _Sampler(noise, seen, measured, draws)
    found = {}
    pairs = zip(effects(noise.means[units], units.ndim), effects(shown, units.ndim), strict=True)
    for (subset, effect), (_, projected) in pairs:
        leak = _shares_of_noise(projected.reshape(units.size, -1), noise)
        found[subset] = sampler.share(effect.ravel(), leak)
    return Decomposition(found, sampler.seed(), sampler.noise(), sampler.total)


def _shares_of_noise(columns: np.ndarray, noise: Noise) -> np.ndarray:
    """(K, U): how a unit's noise, of variance 1 a trial, reaches each point, on average 0."""
    return (columns - columns.mean(0)) / np.sqrt(noise.counts)


class _Sampler:
    """Draws of shares, given the measured means and how noise reaches them."""

    def __init__(self, noise: Noise, seen: np.ndarray, measured: np.ndarray, draws: int) -> None:
        self.rng = np.random.default_rng(0)
        self.fitted, self.seen, self.measured = noise, seen, measured
        self.draws = draws
        self.variances = noise.variance * noise.df / stats.chi2.ppf(self._even(), noise.df)  # (D,)
        trials, seeds = int(noise.counts.sum()), len(noise.seeds)
        self.shift = _Part(float((noise.seeds**2).mean()), 1 / trials, seeds - 1)
        self.whole = _part(measured, seen)
        self.total = noise.variance + self._value(self.whole) + self._value(self.shift)

    def share(self, effect: np.ndarray, leak: np.ndarray) -> Share:
        """Of an effect (K,), which noise reaches by ``leak`` (K, U)."""
        part = _part(effect, leak)
        others = self._others(self.measured - effect, self.seen - leak)
        others += self._draw(self.shift)
        return self._summary(self._value(part), self._draw(part), others)

    def seed(self) -> Share:
        others = self._others(self.measured, self.seen)
        return self._summary(self._value(self.shift), self._draw(self.shift), others)

    def noise(self) -> Share:
        others = self._others(self.measured, self.seen) + self._draw(self.shift) - self.variances
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
        if self.fitted.variance == 0 or part.scale == 0 or part.df == 0:  # no noise can reach it
            return np.full_like(self.variances, part.square)
        chances = self._even()
        outside = special.chndtr(part.square / unit, part.df, 0) <= chances
        found = special.chndtrinc(part.square / unit, part.df, chances)
        return np.where(outside, 0, unit * found)

    def _others(self, effect: np.ndarray, leak: np.ndarray) -> np.ndarray:
        """(D,) of noise and all effects that make up ``effect`` (K,): a sum of many, so normal."""
        gram = leak.T @ leak / len(leak)
        bias = np.trace(gram)
        spread = 2 * self.variances**2 * (gram**2).sum()
        carried = 4 * self.variances * ((leak.T @ effect / len(effect)) ** 2).sum()
        sd = np.sqrt(np.maximum(carried - spread, spread))
        normal = special.ndtri(self._even())
        drawn = (effect**2).mean() - self.variances * bias + sd * normal
        return np.maximum(drawn, 0) + self.variances

    def _summary(self, value: float, drawn: np.ndarray, others: np.ndarray) -> Share:
        # The draws next to the tails, outwards: between them an interval is a little too short.
        shares, tail = drawn / (drawn + others), (1 - LEVEL) / 2
        low = np.quantile(shares, tail, method="lower")
        high = np.quantile(shares, 1 - tail, method="higher")
        return Share(value / self.total, float(low), float(high))


def _part(effect: np.ndarray, leak: np.ndarray) -> _Part:
    """Mean and variance of the noise in a mean square, as a scaled chi-squared has them."""
    gram = leak.T @ leak / len(leak)
    mean, spread = np.trace(gram), (gram**2).sum()
    if spread < 1e-24:  # rounding: every unit has the same weight at each level
        return _Part(0.0, 0.0, 0.0)
    return _Part(float((effect**2).mean()), float(spread / mean), float(mean**2 / spread))


def _others(n: int, *kept: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(n) if axis not in kept)
