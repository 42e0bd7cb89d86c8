"""Fidelity against drift: what the adapted model has learned of the style, and what it forgot."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.fronts import front
from analysis.figures.style import (
    FAINT,
    PAGE,
    Lacking,
    blank,
    framed,
    key,
    style,
    styled,
)
from analysis.part import Part

FIDELITY = {
    "score": "{metric}, points",
    "similarity": "cosine with the true drawing",
    "style": "taken for the style, % of samples",
}
"""Measure -> label; in the figure where it was measured."""
_PERCENT = ("score", "style", "drift")
_NOTE = (
    "Mean over seeds. Filled: each cell at the rate chosen on the selection half; small and gray: "
    "its other rates. Line: no cell drifts less and has more. Drift: % by which the loss on the "
    "base's own pictures rises, at the selected epoch like {metric}; samples are drawn after the "
    "last step."
)


@styled
def draw(part: Part) -> Figure:
    """A panel a measure of fidelity, over drift.

    Raises:
        Lacking: drift was not measured.
    """
    table = points(part)
    if table["drift"].isna().all():
        raise Lacking("drift was not measured")
    measures = [name for name in FIDELITY if name in table and table[name].notna().any()]
    figure = blank(PAGE, 2.9)
    grid = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(grid, measures, strict=True):
        _panel(axes, table, measure)
        axes.set_ylabel(FIDELITY[measure].format(metric=part.metric))
        axes.set_xlabel("drift, %")
    methods = table.loc[table["selected"], "method"].drop_duplicates()
    handles = [key(style(method)) for method in methods]
    return framed(figure, part.title, _NOTE.format(metric=part.metric), handles)


def points(part: Part) -> pd.DataFrame:
    """One row a cell and rate: ``cell``, ``method``, ``rate``, ``selected``, ``drift`` and what of
    ``FIDELITY`` there is, means over seeds; shares are in percent.
    """
    well = part.trials[part.trials["status"] == "ok"]
    names = [name for name in ("drift", *FIDELITY) if name in well]
    if "drift" not in names:
        raise Lacking("drift was not measured")
    by = ["cell", "trial.method", "trial.learning_rate"]
    means = well.groupby(by, sort=False)[names].mean().reset_index()
    means[[n for n in names if n in _PERCENT]] *= 100
    rates = dict(zip(part.cells["cell"], part.cells["rate"], strict=True))
    means = means.rename(columns={"trial.method": "method", "trial.learning_rate": "rate"})
    return means.assign(selected=means["rate"] == means["cell"].map(rates))


def _panel(axes: Axes, table: pd.DataFrame, measure: str) -> None:
    others, own = table[~table["selected"]], table[table["selected"]]
    axes.scatter(others["drift"], others[measure], color=FAINT, s=4, alpha=0.6, linewidths=0)
    for method, group in own.groupby("method", sort=False):
        look = style(method)
        axes.scatter(
            group["drift"],
            group[measure],
            color=look.color,
            marker=look.marker,
            s=18,
            edgecolors="white",
            linewidths=0.4,
            zorder=3,
        )
    line = front(own, "drift", measure)
    axes.plot(line["drift"], line[measure], color="black", linewidth=0.7, zorder=2)
    axes.grid(True)
