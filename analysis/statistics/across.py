"""Methods over several parts, on the normalized scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.part import Part
from analysis.statistics.additive import wide
from analysis.statistics.bootstrap import stratified
from analysis.statistics.center import iqm
from analysis.statistics.choice import pick
from analysis.statistics.normalize import NoScaleError, normalized, scale


class Across(NamedTuple):
    """Aggregates, and what they leave out.

    Args:
        table: see :func:`methods`.
        how: part's title -> how its scores were normalized.
        refused: why a part could not be normalized and is in no aggregate.
    """

    table: pd.DataFrame
    how: dict[str, str]
    refused: list[str]


def methods(parts: Sequence[Part]) -> Across:
    """Interquartile mean of each method's normalized scores over parts, every run counting alike.

    A method stands for the cell that is best by selection score in each part. The interval is the
    stratified bootstrap over runs: other seeds of these parts, not other tasks, and not the noise of
    the two cells that define the scale.

    Args:
        parts: of any studies.

    Returns:
        ``table``: one row a method, best first: ``method``, ``parts`` (in which it has runs),
        ``complete`` (it has all that could be normalized; others are not comparable), ``runs``,
        ``iqm``, ``low``, ``high``.
    """
    how, refused, scaled = {}, [], []
    for part in parts:
        try:
            how[part.title] = scale(part).how
            scaled.append(part)
        except NoScaleError as error:
            refused.append(str(error))
    names = sorted({name for part in scaled for name in part.cells["method"]})
    rows = [_row(name, scaled) for name in names]
    columns = ["method", "parts", "complete", "runs", "iqm", "low", "high"]
    table = pd.DataFrame([row for row in rows if row["parts"]], columns=columns)
    return Across(table.sort_values("iqm", ascending=False, ignore_index=True), how, refused)


def runs(part: Part, method: str) -> np.ndarray:
    """Normalized report scores of a method's chosen cell.

    Returns:
        (n,) float, n the seeds that have a score; empty where the method has none.
    """
    scored = part.cells.dropna(subset=["selection_score"])
    if method not in set(scored["method"]):
        return np.empty(0)
    values = wide(part).loc[pick(part, method)].to_numpy()
    return normalized(part, values[~np.isnan(values)])


def _row(method: str, parts: Sequence[Part]) -> dict[str, object]:
    strata = [values for part in parts if len(values := runs(part, method))]
    if not strata:
        return {"method": method, "parts": 0}
    bounds = stratified(strata, lambda drawn: iqm(np.concatenate(drawn, axis=-1)))
    return {
        "method": method,
        "parts": len(strata),
        "complete": len(strata) == len(parts),
        "runs": sum(map(len, strata)),
        "iqm": float(iqm(np.concatenate(strata))),
        **bounds._asdict(),
    }
