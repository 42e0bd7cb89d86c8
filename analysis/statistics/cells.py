"""The cells of a part with their centers, intervals and places.

C: cells; S: seeds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.part import Part
from analysis.statistics.additive import failures, sign, wide
from analysis.statistics.bootstrap import LEVEL
from analysis.statistics.center import iqm
from analysis.statistics.choice import pick
from analysis.statistics.noise import Noise, dev_se, of
from analysis.statistics.paired import differences

COVERS = (
    "95% intervals are Student's t with the variance pooled over the cells of the task: they cover "
    "other seeds, not other training or dev rows, nor the choice of the rate"
)
"""For captions."""
RANGES = {
    **dict.fromkeys(("accuracy", "accuracy_mm", "f1"), (0.0, 1.0)),
    **dict.fromkeys(("matthews_correlation", "pearson", "spearman", "similarity"), (-1.0, 1.0)),
    **dict.fromkeys(("style", "retrieval_top1", "retrieval_top5"), (0.0, 1.0)),
    "gain": (-np.inf, 1.0),
    "frechet": (0.0, np.inf),
    "vendi": (1.0, np.inf),
}
"""Where a metric can be at all; an interval ends there."""
SCORES = ("score", "selection_score", "full_dev_best")
DIGITS = 12
COLUMNS = (
    *("cell", "method", "n", "failed", "mean", "median", "iqm", "sd", "low", "high", "rank"),
    *("dev_se", "tied", "odd", "chosen", "selection", "adapter", "trainable", "rate"),
)


def summarize(part: Part, metric: str = "score") -> pd.DataFrame:
    """Every cell at its selected rate.

    ``rank`` and the order are by the metric itself on the report half. The first of many cells is
    the first partly by luck, so ``tied`` says which cells cannot be told from the best: a cell is
    out where another beats it in a one-sided test at 5% over the number of other cells, which keeps
    the truly best cell in with 95% (the subset selection of Gupta 1965, with Bonferroni).
    ``chosen`` is the cell that one would have taken by the selection half: its report score owes
    nothing to the dev rows it was chosen on, though the same runs were chosen and reported, so luck
    of their seeds is still in it, see :func:`analysis.statistics.choice.crossed`. That holds for
    the rate of every cell too; where three rates are equally good and the halves agree, which is
    the worst case, an interval of a mean holds in 93 of 100 (simulated), of a difference in more
    than 95.

    Args:
        metric: a column of the trials; see :data:`analysis.statistics.additive.LOWER` for those of
            which less is better.

    Returns:
        One row a cell, best first: ``cell``, ``method``, ``n`` (runs with a value), ``failed``
        (runs without, at the selected rate), ``mean``, ``median``, ``iqm``, ``sd`` (the cell's
        own), ``low``, ``high`` (95%, see ``COVERS``; of an odd cell from its own seeds; never
        outside of ``RANGES``), ``rank`` (Int64), ``dev_se`` (standard error of an accuracy from the
        rows it is measured on, which the interval does not cover; half of the dev set, the whole
        for ``full_dev_best``; NaN of what is no accuracy), ``tied`` (boolean), ``odd`` and
        ``chosen`` (bool), ``selection`` (mean selection score), ``adapter`` and ``trainable``
        (parameters), ``rate``. A cell in which a seed failed has neither interval, rank nor tied,
        and comes last: the mean of the survivors is no mean. No cell is chosen where all failed.

    Raises:
        ValueError: the trials have no such metric.
    """
    values, failed = wide(part, metric), failures(part, metric)
    table = placed(values, failed, sign(metric))
    bounds = table[["low", "high"]].clip(*range_of(part, metric))
    table = table.assign(**bounds, dev_se=_dev_se(part, table["mean"], metric))
    scored = part.cells["selection_score"].notna().any()
    table["chosen"] = table.index == pick(part) if scored else False
    table = table.join(_named(part)).rename_axis("cell").reset_index()
    return table[list(COLUMNS)]


def placed(values: pd.DataFrame, failed: pd.Series, better: int = 1) -> pd.DataFrame:
    """The numbers of :func:`summarize` that need no more than the scores.

    Args:
        values: (C, S) float, from :func:`analysis.statistics.additive.wide`.
        failed: (C,) int, trials of each cell that failed, indexed by cell.
        better: 1 where more is better, -1 where less is.

    Returns:
        One row a cell, indexed by it, best first: ``n``, ``mean``, ``median``, ``iqm``, ``sd``,
        ``failed``, ``low``, ``high``, ``rank``, ``odd``, ``tied``.
    """
    noise = of(values, failed)
    table = _centers(values).assign(failed=failed)
    whole = (table["failed"] == 0) & (table["n"] > 0)
    table = table.join(_bounds(table[whole], noise))
    key = better * table["mean"].round(DIGITS)  # means that are equal but for rounding are one
    table["rank"] = (-key.where(whole)).rank(method="min").astype("Int64")
    table["odd"] = table.index.isin(noise.odd)
    tied = pd.Series(_tied(values[whole], noise, better), values.index[whole])
    table["tied"] = tied.astype("boolean").reindex(table.index)
    order = pd.DataFrame({"lost": ~whole, "key": -key, "name": table.index}, table.index)
    return table.loc[order.sort_values(["lost", "key", "name"]).index]


def _centers(values: pd.DataFrame) -> pd.DataFrame:
    counts = values.notna().sum(axis=1)
    return pd.DataFrame(
        {
            "n": counts,
            "mean": values.mean(axis=1),
            "median": values.median(axis=1),
            "iqm": _iqms(values.to_numpy(), counts.to_numpy()),
            "sd": values.std(axis=1, ddof=1),
        }
    )


def _iqms(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(C,): of each row without what is missing; rows with as many values at once."""
    ordered, found = np.sort(values, axis=1), np.full(len(values), np.nan)  # NaN comes last
    for count in np.unique(counts[counts > 0]):
        found[counts == count] = iqm(ordered[counts == count, :count])
    return found


def _bounds(table: pd.DataFrame, noise: Noise) -> pd.DataFrame:
    """(C, 2) low and high: the pooled variance, or an odd cell's own."""
    odd = table.index.isin(noise.odd)
    sd = np.where(odd, table["sd"], noise.sd)
    df = np.where(odd, table["n"] - 1, noise.df)
    half = stats.t.ppf((1 + LEVEL) / 2, df) * sd / np.sqrt(table["n"])
    return pd.DataFrame({"low": table["mean"] - half, "high": table["mean"] + half})


def range_of(part: Part, metric: str) -> tuple[float, float]:
    """Where the metric can be at all, of ``RANGES``; infinite where that is not known."""
    name = part.metric if metric in SCORES else metric
    return RANGES.get(name, (-np.inf, np.inf))


def _dev_se(part: Part, means: pd.Series, metric: str) -> pd.Series:
    """(C,) standard errors from the dev rows; they are known where a score is an accuracy."""
    if part.metric != "accuracy" or metric not in SCORES:
        return pd.Series(np.nan, index=means.index)
    rows = part.selected.groupby("cell")["provenance.dev_rows"].first().reindex(means.index)
    rows = rows.astype(float) if metric == "full_dev_best" else rows.astype(float) // 2
    errors = [
        dev_se(mean, int(n)) if n >= 1 and 0 <= mean <= 1 else np.nan
        for mean, n in zip(means, rows, strict=True)
    ]
    return pd.Series(errors, index=means.index)


def _tied(values: pd.DataFrame, noise: Noise, better: int) -> list[bool]:
    """Whether no other cell is clearly better; without an estimate of noise none is out."""
    others = len(values) - 1
    odd = values.index.isin(noise.odd)
    found = []
    for row in range(len(values)):
        gaps = differences(values.to_numpy(), row, odd, noise)
        kinds, kind = np.unique(np.maximum(gaps.df, 1), return_inverse=True)  # quantiles are slow
        critical = stats.t.isf((1 - LEVEL) / max(others, 1), kinds)[kind]
        found.append(not (better * gaps.mean > critical * gaps.se).any())
    return found


def _named(part: Part) -> pd.DataFrame:
    table = part.cells.set_index("cell")
    columns = {"selection_score": "selection"}
    names = ["method", "selection_score", "adapter", "trainable", "rate"]
    return table[names].rename(columns=columns)
