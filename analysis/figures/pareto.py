"""Score against what a cell costs: parameters, and time and memory where they were measured."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import cost, labels
from analysis.figures.fronts import front
from analysis.figures.rows import limits
from analysis.figures.settings import require_scores
from analysis.figures.style import COLUMN, PAGE, blank, framed, key, logarithmic, style, styled
from analysis.part import Part
from analysis.statistics.cells import summarize


class Price(NamedTuple):
    """What a panel has on its x axis.

    Args:
        column: of the table.
        label: for the axis.
        log: whether the axis is logarithmic.
    """

    column: str
    label: str
    log: bool = False


PARAMETERS = Price("trainable", "trainable parameters", log=True)
MEASURED = (Price("step_p50_ms", "ms a step, alone"), Price("peak_gib", "peak GiB, alone"))
"""Of one trial that trains alone, from ``results/cost``."""
_NOTE = (
    "Rate chosen on the selection half; mean over seeds on the report half, 95% intervals (seeds "
    "alone, variance pooled over cells). Line: no cell costs less and scores more."
)


@styled
def draw(part: Part) -> Figure:
    """A panel a price, a point a cell, and the front.

    Raises:
        Lacking: no trial has a score.
    """
    require_scores(part)
    table = prices(part)
    there = [price for price in MEASURED if price.column in table]
    shown = [PARAMETERS, *there]
    figure = blank(PAGE if there else COLUMN, 2.9 if there else 3.0)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, price in zip(panels, shown, strict=True):
        _panel(axes, table, price)
    panels[0].set_ylim(limits(table.assign(at=table["mean"])))
    panels[0].set_ylabel(f"{part.metric}, points")
    handles = [key(style(method)) for method in table["method"].drop_duplicates()]
    return framed(figure, part.title, _note(table), handles, 5 if there else 2)


def prices(part: Part) -> pd.DataFrame:
    """One row a cell, best first: the columns of :func:`analysis.statistics.cells.summarize` (mean,
    low and high in points), and where cells were measured alone, ``hardware``, ``step_p50_ms`` and
    ``peak_gib`` on the hardware that measured most of them.
    """
    table = summarize(part)
    bounds = ["mean", "low", "high"]
    table[bounds] *= 100
    found = cost.of_part(part.folder.parent, part)
    if found.empty:
        return table
    hardware = found["hardware"].value_counts().sort_index(kind="stable").idxmax()
    own = found[found["hardware"] == hardware].drop_duplicates("cell")
    own = own.assign(peak_gib=own["peak_bytes"] / 2**30)
    measured = [price.column for price in MEASURED if own[price.column].notna().any()]
    return table.merge(own[["cell", "hardware", *measured]], how="left", on="cell")


def _note(table: pd.DataFrame) -> str:
    if "hardware" not in table:
        return _NOTE
    known = table["hardware"].dropna()
    return f"{_NOTE} Time and memory: {len(known)} of {len(table)} cells, on {known.iloc[0]}."


def _panel(axes: Axes, table: pd.DataFrame, price: Price) -> None:
    known = table.dropna(subset=[price.column, "mean"])
    for method, group in known.groupby("method", sort=False):
        look = style(method)
        x = group[price.column]
        axes.vlines(x, group["low"], group["high"], color=look.color, linewidth=0.6, alpha=0.7)
        axes.plot(
            x, group["mean"], look.marker, color=look.color, markeredgecolor="white", mew=0.4, ms=5
        )
    line = front(known, price.column, "mean")
    axes.plot(line[price.column], line["mean"], color="black", lw=0.8, zorder=1, ds="steps-post")
    if price.log:
        logarithmic(axes.xaxis, known[price.column], labels.count)
    axes.set_xlabel(price.label)
    axes.grid(True)
