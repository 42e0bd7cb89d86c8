"""Why shares of a variance may mislead: what they rest on, one noise for all cells and a scale
without an end, does not hold.

U: units (cells that ran);  S: seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.noise import odd_cells
from analysis.variance import Noise, fit_noise

CEILING = 0.01
"""So near to the best that a score can be, cells cannot be told apart."""
FAR = 2.0
"""Standard deviations that differ by less are taken for one."""
CHANCE = 0.01
"""And so are those that differ by luck more often than this."""


def doubts(values: np.ndarray, best: float) -> tuple[str, ...]:
    """Sentences, without capital and period; none where nothing is wrong.

    * Cells at the best that a score can be: what a knob does there is cut off, and the runs vary
      less than others, so that the pooled noise is too much for them and too little for the rest.
    * The better half of the cells varies otherwise than the worse one, by an F test at ``CHANCE``
      and by a factor of ``FAR``; the mean of a cell, by which the halves are told, says nothing of
      its variance where all vary alike.
    * Cells that stick out, without which the noise would be less than half
      (:func:`analysis.statistics.noise.odd_cells`).

    Args:
        values: (U, S) float, NaN where a trial has no number.
        best: the end of the metric on its better side, infinite where there is none.

    Raises:
        NoNoiseError: noise cannot be told from effects.
    """
    noise = fit_noise(values)
    return (*_ceiling(values, best), *_halves(values, noise), *_odd(values, noise))


def _ceiling(values: np.ndarray, best: float) -> Iterator[str]:
    top = int((np.abs(best - np.nanmean(values, axis=1)) <= CEILING).sum())
    if top > 1:
        yield (
            f"{top} of {len(values)} cells are at the end of the scale, where no knob can do more "
            "and runs vary less"
        )


def _halves(values: np.ndarray, noise: Noise) -> Iterator[str]:
    left = values - noise.seeds - noise.means[:, None]
    order = np.argsort(noise.means, kind="stable")
    half = len(order) // 2
    worse, better = (_pooled(left[rows], noise) for rows in (order[:half], order[-half:]))
    for more, less, names in ((worse, better, "worse better"), (better, worse, "better worse")):
        if _far(more, less):
            one, other = names.split()
            yield (
                f"runs of the {one} half of the cells vary more than {FAR:g} times as much as "
                f"those of the {other} half, and one noise stands for both"
            )


def _pooled(left: np.ndarray, noise: Noise) -> tuple[float, float]:
    """Mean square of residuals and its degrees of freedom, a part of those of all units."""
    within = float((~np.isnan(left)).sum() - len(left))
    df = within * noise.df / float((noise.counts - 1).sum())
    return (float(np.nansum(left**2)) / df if df else math.nan), df


def _far(more: tuple[float, float], less: tuple[float, float]) -> bool:
    """Whether one mean square is the larger by far, and not by luck; False of none."""
    (large, df), (small, df_small) = more, less
    if not large > FAR**2 * small:
        return False
    return small == 0 or 2 * stats.f.sf(large / small, df, df_small) < CHANCE


def _odd(values: np.ndarray, noise: Noise) -> Iterator[str]:
    odd = [int(row) for row in odd_cells(pd.DataFrame(values - noise.seeds))]
    if not odd:
        return
    rest = fit_noise(np.delete(values, odd, axis=0))
    if FAR * rest.variance < noise.variance:
        vary = "varies" if len(odd) == 1 else "vary"
        yield (
            f"{len(odd)} of {len(values)} cells {vary} far more than the others: without, the "
            f"noise is {math.sqrt(rest.variance):.3g} and not {math.sqrt(noise.variance):.3g}"
        )
