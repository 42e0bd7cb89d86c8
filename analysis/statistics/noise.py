"""How much the runs of a part vary, and which differences its design could have seen.

C: cells; S: seeds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats

from analysis.part import Part
from analysis.statistics.additive import failures, fit, wide
from analysis.statistics.bootstrap import LEVEL

POWER = 0.8
ODD = 0.01
"""A cell leaves the pool where so great a variance has at most this chance in any of the cells."""


class Noise(NamedTuple):
    """The noise floor of a part, in the metric's own unit.

    It is that of the seeds alone: initialization, head, order of the rows. Training rows, dev rows
    and the selected rate are the same in all runs, so other data would add to it, see
    :func:`dev_se`.

    Args:
        sd: standard deviation of a run around its cell's mean; NaN where no cell has two seeds.
        df: its degrees of freedom (not whole, see :class:`analysis.statistics.additive.Additive`).
        cells: that it was pooled from.
        seeds: of most cells; detectable is for so many.
        detectable: the smallest true paired difference between two cells that the design shows at
            5% (two-sided) in 80% of all repetitions; NaN where it cannot be told.
        residual: standard deviation of a run beside others of its seed; a paired difference over n
            seeds has the standard error residual·√(2/n).
        residual_df: its degrees of freedom.
        odd: cells that vary far more than the others (one that collapses with some seeds, say).
            They are not in the pool; their intervals come from their own seeds alone.
    """

    sd: float
    df: float
    cells: int
    seeds: int
    detectable: float
    residual: float
    residual_df: int
    odd: tuple[str, ...]


def pooled(part: Part, metric: str = "score") -> Noise:
    """Noise of a part from all of its cells in which no trial failed at the selected rate.

    All cells are taken to vary alike, the odd ones apart: the cell with the greatest variance
    leaves, again and again, as long as its F ratio to the others is beyond ``ODD`` after Bonferroni
    over cells ('t Lam 2010, Cochran's test for cells of unequal size).

    Not for a part that is completed with collapsed trials: their numbers would count twice.
    """
    return of(wide(part, metric), failures(part, metric))


def of(values: pd.DataFrame, failed: pd.Series) -> Noise:
    """As :func:`pooled`.

    Args:
        values: (C, S) float, from :func:`analysis.statistics.additive.wide`.
        failed: (C,) int, trials of each cell that failed, indexed by cell.
    """
    values = values[(failed.reindex(values.index) == 0) & values.notna().any(axis=1)]
    odd = odd_cells(values)
    regular = values.drop(index=odd)
    found = fit(regular.to_numpy())
    seeds = _usual(regular.notna().sum(axis=1))
    return Noise(
        sd=found.sd,
        df=found.df,
        cells=len(regular),
        seeds=seeds,
        detectable=detectable(found.residual, found.residual_df, seeds),
        residual=found.residual,
        residual_df=found.residual_df,
        odd=tuple(odd),
    )


def detectable(residual: float, df: float, seeds: int) -> float:
    """The smallest true paired difference that a t test at 5% sees with 80% power.

    Args:
        residual: standard deviation of a run beside others of its seed.
        df: its degrees of freedom.
        seeds: that the two cells share.

    Returns:
        In the unit of ``residual``; NaN without degrees of freedom or seeds.
    """
    if math.isnan(residual) or df < 1 or seeds < 1:
        return math.nan
    critical = stats.t.ppf((1 + LEVEL) / 2, df)

    def lacking(shift: float) -> float:  # the chance of the wrong sign is below 1e-5 here
        return POWER - float(stats.nct.sf(critical, df, shift))

    shift = optimize.brentq(lacking, 0, 2 * critical)
    return float(shift * residual * math.sqrt(2 / seeds))


def dev_se(accuracy: float, rows: int) -> float:
    """Standard error of an accuracy from the dev rows that it is measured on, √(p(1-p)/n).

    What an interval over seeds leaves out. Two cells are judged on the same rows, which cancels
    most of it in their difference.

    Args:
        accuracy: a share.
        rows: of the half that it was measured on.

    Raises:
        ValueError: not a share, or no rows.
    """
    if not 0 <= accuracy <= 1 or rows < 1:
        raise ValueError(f"accuracy {accuracy} of {rows} rows is no share of rows")
    return math.sqrt(accuracy * (1 - accuracy) / rows)


def odd_cells(values: pd.DataFrame) -> list[str]:
    """Cells whose variance sticks out, the greatest first; at most a fourth of all.

    Args:
        values: (C, S) float, NaN where a trial is missing.

    Returns:
        Their names in the index, as text.
    """
    counts = values.notna().sum(axis=1)
    table = pd.DataFrame({"variance": values.var(axis=1, ddof=1), "df": counts - 1})
    table = table[table["df"] > 0].sort_values("variance", ascending=False, kind="stable")
    odd: list[str] = []
    while len(odd) < len(table) // 4 and _sticks_out(table.iloc[len(odd) :]):
        odd.append(str(table.index[len(odd)]))
    return odd


def _sticks_out(table: pd.DataFrame) -> bool:
    """Whether the first cell's variance is beyond what the others' allow."""
    first, others = table.iloc[0], table.iloc[1:]
    df = others["df"].sum()
    mean = float(np.average(others["variance"], weights=others["df"]))
    if mean == 0:
        return bool(first["variance"] > 0)
    chance = stats.f.sf(first["variance"] / mean, first["df"], df) * len(table)
    return bool(chance < ODD)


def _usual(counts: pd.Series) -> int:
    """What most cells have; the greater of two that are as frequent; 0 of none."""
    return int(counts.mode().max()) if len(counts) else 0
