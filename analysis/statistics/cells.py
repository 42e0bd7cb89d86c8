"""The cells of a part with their centers, intervals and places.

C: cells; S: seeds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.part import Part
from analysis.statistics.additive import failures, sign, wide
from analysis.statistics.center import iqm
from analysis.statistics.choice import pick
from analysis.statistics.noise import LEVEL, Noise, of
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
DIGITS = 12  # means that differ by less are one
COLUMNS = (
    *("cell", "method", "n", "failed", "mean", "median", "iqm", "sd", "low", "high", "rank"),
    *("tied", "odd", "chosen", "selection", "adapter", "trainable", "rate"),
)


def summarize(part: Part, metric: str = "score") -> pd.DataFrame:
    """Every cell at its selected rate.

    ``rank`` and the order are by the metric itself on the report half. The first of many cells is
    the first partly by luck, so ``tied`` says which cells cannot be told from the best: a cell is
    out where another beats it in a one-sided test at 5% over the number of other cells, which keeps
    the truly best cell in with 95% (the subset selection of Gupta 1965, with Bonferroni).
    ``chosen`` is the cell that one would have taken by the selection half: its report score owes
    nothing to the dev rows it was chosen on, though the same runs were chosen and reported, so luck
    of their seeds is still in it.

    Args:
        metric: a column of the trials; see :data:`analysis.statistics.additive.LOWER` for those of
            which less is better.

    Returns:
        One row a cell, best first: ``cell``, ``method``, ``n`` (runs with a value), ``failed``
        (runs without, at the selected rate), ``mean``, ``median``, ``iqm``, ``sd`` (the cell's
        own), ``low``, ``high`` (95%, see ``COVERS``; of an odd cell from its own seeds; never
        outside of ``RANGES``), ``rank`` (Int64), ``tied`` (boolean), ``odd`` and ``chosen`` (bool),
        ``selection`` (mean selection score), ``adapter`` and ``trainable`` (parameters), ``rate``.
        A cell in which a seed failed has neither interval, rank nor tied, and comes last: the mean
        of the survivors is no mean.

    Raises:
        ValueError: the trials have no such metric.
    """
    values, failed = wide(part, metric), failures(part, metric)
    noise = of(values, failed)
    table = _centers(values).assign(failed=failed)
    whole = (table["failed"] == 0) & (table["n"] > 0)
    table = table.join(_bounds(table[whole], noise).clip(*_range(part, metric)))
    table["rank"] = _places(table["mean"].where(whole), metric)
    table["odd"] = table.index.isin(noise.odd)
    tied = pd.Series(_tied(values[whole], noise, sign(metric)), values.index[whole])
    table["tied"] = tied.astype("boolean").reindex(table.index)
    table["chosen"] = table.index == pick(part)
    return _ordered(table.join(_named(part)), metric, whole)


def _centers(values: pd.DataFrame) -> pd.DataFrame:
    runs = [row[~np.isnan(row)] for row in values.to_numpy()]
    return pd.DataFrame(
        {
            "n": [len(run) for run in runs],
            "mean": values.mean(axis=1),
            "median": values.median(axis=1),
            "iqm": [float(iqm(run)) if len(run) else np.nan for run in runs],
            "sd": values.std(axis=1, ddof=1),
        },
        index=values.index,
    )


def _bounds(table: pd.DataFrame, noise: Noise) -> pd.DataFrame:
    """(C, 2) low and high: the pooled variance, or an odd cell's own."""
    odd = table.index.isin(noise.odd)
    sd = np.where(odd, table["sd"], noise.sd)
    df = np.where(odd, table["n"] - 1, noise.df)
    half = stats.t.ppf((1 + LEVEL) / 2, df) * sd / np.sqrt(table["n"])
    return pd.DataFrame({"low": table["mean"] - half, "high": table["mean"] + half})


def _range(part: Part, metric: str) -> tuple[float, float]:
    name = part.metric if metric in ("score", "selection_score", "full_dev_best") else metric
    return RANGES.get(name, (-np.inf, np.inf))


def _places(means: pd.Series, metric: str) -> pd.Series:
    """1 for the best; means that are equal but for rounding share a place."""
    return (-sign(metric) * means.round(DIGITS)).rank(method="min").astype("Int64")


def _tied(values: pd.DataFrame, noise: Noise, better: int) -> list[bool]:
    """Whether no other cell is clearly better; without an estimate of noise none is out."""
    others = len(values) - 1
    odd = values.index.isin(noise.odd)
    found = []
    for row in range(len(values)):
        gaps = differences(values.to_numpy(), row, odd, noise)
        critical = stats.t.isf((1 - LEVEL) / max(others, 1), np.maximum(gaps.df, 1))
        found.append(not (better * gaps.mean > critical * gaps.se).any())
    return found


def _named(part: Part) -> pd.DataFrame:
    table = part.cells.set_index("cell")
    columns = {"selection_score": "selection"}
    names = ["method", "selection_score", "adapter", "trainable", "rate"]
    return table[names].rename(columns=columns)


def _ordered(table: pd.DataFrame, metric: str, whole: pd.Series) -> pd.DataFrame:
    key = sign(metric) * table["mean"].round(DIGITS)
    table = table.assign(whole=whole, key=key).rename_axis("cell").reset_index()
    order = ["whole", "key", "cell"]
    ranked = table.sort_values(order, ascending=[False, False, True], ignore_index=True)
    return ranked[list(COLUMNS)]
