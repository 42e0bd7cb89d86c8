"""Pareto fronts."""

from __future__ import annotations

import math

import pandas as pd


def front(table: pd.DataFrame, less: str, more: str) -> pd.DataFrame:
    """The rows that no other row beats: at most as much of one and at least as much of the other.

    Args:
        table: rows in which one is missing are on no front; of equal rows the first is kept.
        less: the column of which less is better.
        more: the column of which more is better.

    Returns:
        Rows of ``table``, ``less`` and ``more`` both rising.
    """
    ranked = table.dropna(subset=[less, more]).sort_values([less, more], ascending=[True, False])
    best = ranked[more].astype(float).cummax().shift().fillna(-math.inf)
    return ranked[ranked[more] > best]
