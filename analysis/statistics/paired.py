"""Differences between cells over the seeds that both have, and tests of them.

C: cells; S: seeds; n: units of a test.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.part import Part
from analysis.statistics.additive import failures, wide
from analysis.statistics.bootstrap import LEVEL
from analysis.statistics.choice import pick
from analysis.statistics.noise import Noise, of

UNITS = 6
"""Fewest units for a permutation test: of five, the smallest two-sided p is .0625."""
EXACT = 16
"""Most units whose 2^n signs are all tried."""
DRAWS = 10_000
COLUMNS = (
    *("cell", "method", "against", "difference", "low", "high"),
    *("p", "p_holm", "seeds", "test"),
)
POOLED, OWN, FLIP, NONE = "pooled t", "own t", "sign-flip", "none"


class Against(NamedTuple):
    """Every cell minus one of them, (C,) each; NaN where there is no seed in common.

    Args:
        mean: of the differences.
        se: its standard error.
        df: the degrees of freedom of the standard error.
        seeds: in common.
    """

    mean: np.ndarray
    se: np.ndarray
    df: np.ndarray
    seeds: np.ndarray


def differences(values: np.ndarray, row: int, odd: np.ndarray, noise: Noise) -> Against:
    """Paired differences of all cells to one, with the part's pooled residual variance.

    Args:
        values: (C, S) float, NaN where a trial is missing.
        row: of the cell that is taken away.
        odd: (C,) bool, cells that are not in the pool: their differences have their own variance.
        noise: of the part.
    """
    gaps = values - values[row]  # (C, S)
    seeds = (~np.isnan(gaps)).sum(axis=1)
    count = np.where(seeds > 0, seeds, np.nan)
    mean = np.nansum(gaps, axis=1) / count
    squares = np.nansum((gaps - mean[:, None]) ** 2, axis=1)
    own = np.sqrt(squares / np.where(seeds > 1, seeds - 1, np.nan))
    alone = odd | odd[row]
    sd = np.where(alone, own, noise.residual * np.sqrt(2))
    df = np.where(alone, seeds - 1.0, float(noise.residual_df))
    return Against(mean, sd / np.sqrt(count), df, seeds)


def against(part: Part, method: str, metric: str = "score") -> pd.DataFrame:
    """Every cell against the cell of a method that one would have taken by the selection half.

    With two or three seeds no rank or permutation test can go below p = .25, so the test is
    Student's t with the residual variance pooled over cells ("pooled t"). Where an odd cell takes
    part it is the differences' own ("own t"), and with :data:`UNITS` seeds or more the p value is
    that of the sign-flip permutation test ("sign-flip"; the interval stays the t). Holm's
    correction is over all cells that are compared. The method's cell was chosen by the same seeds
    that are reported; where it was one of many, see :func:`analysis.statistics.choice.crossed`.

    Args:
        method: that is compared with, such as ``lora``.
        metric: a column of the trials.

    Returns:
        One row a cell, in the order of ``difference``: ``cell``, ``method``, ``against`` (the
        method's cell), ``difference`` (cell minus it, mean over common seeds), ``low``, ``high``
        (95%, one at a time), ``p``, ``p_holm`` (two-sided), ``seeds`` (in common), ``test`` ("none"
        where a seed of either failed, or none is shared: then no interval and no p).

    Raises:
        ValueError: no cell of the method has a score, or the trials have no such metric.
    """
    cell = pick(part, method)
    table = compared(wide(part, metric), failures(part, metric), cell)
    names = part.cells.set_index("cell")["method"].reindex(table.index)
    table = table.assign(method=names, against=cell).rename_axis("cell").reset_index()
    return table[list(COLUMNS)]


def compared(values: pd.DataFrame, failed: pd.Series, cell: str) -> pd.DataFrame:
    """The numbers of :func:`against`.

    Args:
        values: (C, S) float, from :func:`analysis.statistics.additive.wide`.
        failed: (C,) int, trials of each cell that failed, indexed by cell.
        cell: that the others are compared with.

    Returns:
        One row for each other cell, indexed by it: ``difference``, ``low``, ``high``,
        ``interval`` ("pooled t" or "own t"; missing where there is none), ``p``, ``seeds``,
        ``test``, ``p_holm``.
    """
    noise, row = of(values, failed), values.index.get_loc(cell)
    odd = values.index.isin(noise.odd)
    lost = failed.reindex(values.index).to_numpy() > 0
    gaps = values.to_numpy() - values.to_numpy()[row]  # (C, S)
    found = differences(values.to_numpy(), row, odd, noise)
    how = np.where(odd | odd[row], OWN, POOLED)
    table = _tested(found, gaps, test=how)
    table.loc[lost | lost[row], ["low", "high", "p"]] = np.nan
    table["interval"] = pd.Series(how, dtype=object).where(table["low"].notna(), None)
    table = table.set_index(values.index).drop(index=cell)
    table["test"] = table["test"].where(table["p"].notna(), NONE)
    table["p_holm"] = holm(table["p"].to_numpy())
    order = pd.DataFrame({"key": -table["difference"], "name": table.index}, table.index)
    return table.loc[order.sort_values(["key", "name"]).index]


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) step-down correction: reject what is below 5%, and the chance of any error in
    the family is at most 5%.

    Args:
        p: (n,) float; NaN where there was no test, which does not count.

    Returns:
        (n,) float, at least p and at most 1.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    left = np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(left * p[order]), 1.0)
    return adjusted


def sign_flip(changes: np.ndarray) -> float:
    """Two-sided p of no difference, by the permutation test that turns the sign of every unit.

    Exact for up to :data:`EXACT` units: all 2^n signs. Beyond, :data:`DRAWS` random ones, the same
    at every call, and the seen one counts among them (Phipson and Smyth 2010).

    Args:
        changes: (n,) float, one paired difference a unit; units are independent, and without an
            effect each is as likely to be negative.

    Returns:
        NaN with fewer than :data:`UNITS` units.
    """
    changes = np.asarray(changes, dtype=float)
    units = len(changes)
    if units < UNITS:
        return float("nan")
    exact = units <= EXACT
    drawn = _every_sign(units) if exact else _random_signs(units)
    sums = np.abs(drawn @ changes)
    # Sums that are equal but for rounding are as extreme as the one that was seen.
    bound = abs(changes.sum()) - 1e-12 * np.abs(changes).sum()
    extreme = int((sums >= bound).sum())
    return extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)


def _every_sign(units: int) -> np.ndarray:
    return 1.0 - 2.0 * ((np.arange(2**units)[:, None] >> np.arange(units)) & 1)


def _random_signs(units: int) -> np.ndarray:
    return np.random.default_rng(0).choice((-1.0, 1.0), size=(DRAWS, units))


def _tested(found: Against, gaps: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """(C,) rows: the interval and p of each cell's differences."""
    df = np.where(found.df >= 1, found.df, np.nan)
    half = stats.t.ppf((1 + LEVEL) / 2, df) * found.se
    p = _two_sided(found.mean, found.se, df)
    flips = found.seeds >= UNITS
    p[flips] = [sign_flip(row[~np.isnan(row)]) for row in gaps[flips]]
    return pd.DataFrame(
        {
            "difference": found.mean,
            "low": found.mean - half,
            "high": found.mean + half,
            "p": p,
            "seeds": found.seeds,
            "test": np.where(flips, FLIP, test),
        }
    )


def _two_sided(mean: np.ndarray, se: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Student's p; where nothing varies at all (se 0), 1 of no difference and 0 of any."""
    flat = se == 0
    t = np.abs(mean) / np.where(flat, np.nan, se)
    return np.where(flat & ~np.isnan(df), (mean == 0).astype(float), 2 * stats.t.sf(t, df))
