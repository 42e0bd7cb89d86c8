"""The cells of a part beside their seeds, and how much a run varies:

    y[c, s] = m[c] + u[s] + e[c, s]

m: a cell's mean; u: what a seed does to all cells alike (order of the rows, head); e: the rest. A
difference between two cells over the same seeds is free of u. So the mean of a cell has the
variance of u + e, and a paired difference twice that of e, over the number of seeds.

Two or three seeds say next to nothing about one cell's variance; all cells together say much. It is
assumed that e varies alike in all cells, see :func:`analysis.statistics.noise.pooled` for the cells
where that is plainly wrong.

C: cells; S: seeds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.part import Part

LOWER = ("frechet", "drift", "similarity_se")
"""Metrics of which less is better."""


def sign(metric: str) -> int:
    """1 where more of the metric is better, -1 where less is."""
    return -1 if metric in LOWER else 1


class Additive(NamedTuple):
    """Least squares of the model above.

    Args:
        sd: of a run around its cell's mean, √(var u + var e); NaN where no cell has two seeds.
        df: its degrees of freedom. All cells see the same few seeds, so they are fewer than those
            of the sum of squares: by Satterthwaite (1946), from the two sums that it is made of.
            Where seeds do as much as all else, a 95% interval then holds the truth in 94 to 95 of
            100 (two or three seeds, simulated); where they do three times as much, in 88.
        residual: standard deviation of e; NaN where no two cells share two seeds.
        residual_df: its degrees of freedom.
    """

    sd: float
    df: float
    residual: float
    residual_df: int


def wide(part: Part, metric: str = "score") -> pd.DataFrame:
    """A metric of every cell at its selected rate.

    Args:
        metric: a column of the trials.

    Returns:
        (C, S) float, indexed by cell, one column a seed; NaN where the trial failed or never ran.

    Raises:
        ValueError: the trials have no such metric.
    """
    if metric not in part.trials:
        raise ValueError(f"metric {metric!r} is not in {part.folder}: no trial has it")
    return by_seed(part.selected, metric)


def failures(part: Part, metric: str = "score") -> pd.Series:
    """How many trials of each cell failed, or lack the metric, at its selected rate.

    Returns:
        (C,) int, indexed by cell.
    """
    return failed(part.selected, metric)


def by_seed(selected: pd.DataFrame, metric: str) -> pd.DataFrame:
    """As :func:`wide`, of trials each cell of which is at one rate."""
    values = selected[metric].astype(float).where(selected["status"] == "ok")
    table = selected.assign(value=values)
    table = table.pivot(index="cell", columns="trial.seed", values="value")
    return table.reindex(selected["cell"].drop_duplicates())


def failed(selected: pd.DataFrame, metric: str) -> pd.Series:
    """As :func:`failures`, of trials each cell of which is at one rate."""
    lost = (selected["status"] != "ok") | selected[metric].isna()
    return lost.groupby(selected["cell"], sort=False).sum().astype(int)


def fit(values: np.ndarray) -> Additive:
    """The two variances of the model.

    Args:
        values: (C, S) float, NaN where a trial is missing.
    """
    there = ~np.isnan(values)
    within = _centered(values, there)
    runs = int(there.sum() - there.any(axis=1).sum())  # degrees of freedom within cells
    if runs == 0:
        return Additive(math.nan, math.nan, math.nan, 0)
    total = float((within[there] ** 2).sum())
    left, rank = _without_seeds(within, there)
    parts = [(total - left, rank), (left, runs - rank)]
    residual = math.sqrt(left / (runs - rank)) if runs > rank else math.nan
    return Additive(math.sqrt(total / runs), _satterthwaite(parts), residual, runs - rank)


def _centered(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(C, S): each cell's mean taken away, 0 where a trial is missing."""
    filled = np.where(there, values, 0.0)
    means = filled.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.where(there, filled - means[:, None], 0.0)


def _without_seeds(within: np.ndarray, there: np.ndarray) -> tuple[float, int]:
    """Sum of squares that cells and seeds leave, and how many degrees of freedom the seeds take."""
    cells, seeds = there.shape
    indicators = np.broadcast_to(np.eye(seeds), (cells, seeds, seeds))  # (C, S, which seed)
    indicators = np.where(there[..., None], indicators, 0.0)
    centered = indicators - indicators.sum(axis=1, keepdims=True) / np.maximum(
        there.sum(axis=1), 1
    ).reshape(-1, 1, 1)
    x, y = centered[there], within[there]
    solution, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    return float(((y - x @ solution) ** 2).sum()), int(rank)


def _satterthwaite(parts: list[tuple[float, int]]) -> float:
    """Degrees of freedom of a variance pooled from sums of squares with their own."""
    squares = sum(total**2 / df for total, df in parts if df)
    total = sum(total for total, _ in parts)
    return total**2 / squares if squares > 0 else float(sum(df for _, df in parts))
