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
from analysis.statistics.normalize import NoScaleError, Scale, scale

COLUMNS = ["method", "parts", "complete", "runs", "mean", "iqm", "low", "high"]


class Across(NamedTuple):
    """Aggregates, and what they leave out.

    Args:
        table: see :func:`methods`.
        how: ``<study>/<slug>`` of a part -> how its scores were normalized.
        refused: why a part could not be normalized and is in no aggregate, a sentence each.
    """

    table: pd.DataFrame
    how: dict[str, str]
    refused: list[str]


def methods(parts: Sequence[Part]) -> Across:
    """Each method's normalized scores over parts, every run counting alike.

    A method stands for the cell that is best by selection score in each part. The interval is the
    stratified bootstrap over runs: other seeds in these parts, not other tasks, nor the noise of
    the cells that define the scale. With two or three runs a part it is somewhat narrow.

    Args:
        parts: of any studies.

    Returns:
        ``table``: one row a method, best first: ``method``, ``parts`` (in which it has runs),
        ``complete`` (it has all that could be normalized; others are not comparable), ``runs``,
        ``mean``, ``iqm`` (it leaves out the worst quarter of the runs: look at the mean too), and
        of the latter ``low`` and ``high``.
    """
    scales, refused = _scales(parts)
    names = sorted({name for part in scales for name in part.cells["method"]})
    rows = [_row(name, scales) for name in names]
    table = pd.DataFrame([row for row in rows if row["parts"]], columns=COLUMNS)
    how = {f"{part.study}/{part.slug}": found.how for part, found in scales.items()}
    return Across(table.sort_values("iqm", ascending=False, ignore_index=True), how, refused)


def runs(part: Part, method: str) -> np.ndarray:
    """Report scores of a method's chosen cell, in the part's own unit.

    Returns:
        (n,) float, n the seeds that have a score; empty where the method has none.
    """
    scored = part.cells.dropna(subset=["selection_score"])
    if method not in set(scored["method"]):
        return np.empty(0)
    values = wide(part).loc[pick(part, method)].to_numpy()
    return values[~np.isnan(values)]


def _scales(parts: Sequence[Part]) -> tuple[dict[Part, Scale], list[str]]:
    scales, refused = {}, []
    for part in parts:
        try:
            scales[part] = scale(part)
        except NoScaleError as error:
            refused.append(str(error))
    return scales, refused


def _row(method: str, scales: dict[Part, Scale]) -> dict[str, object]:
    own = [found.of(runs(part, method)) for part, found in scales.items()]
    strata = [values for values in own if len(values)]
    if not strata:
        return {"method": method, "parts": 0}
    everything = np.concatenate(strata)
    bounds = stratified(strata, lambda drawn: iqm(np.concatenate(drawn, axis=-1)))
    return {
        "method": method,
        "parts": len(strata),
        "complete": len(strata) == len(scales),
        "runs": len(everything),
        "mean": float(everything.mean()),
        "iqm": float(iqm(everything)),
        **bounds._asdict(),
    }
