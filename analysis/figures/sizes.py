"""What more training rows (pictures) buy: the score over their number, a line a method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import (
    PAGE,
    Lacking,
    blank,
    framed,
    key,
    logarithmic,
    style,
    styled,
)
from analysis.part import Part
from analysis.statistics.cells import summarize
from analysis.statistics.choice import pick

TITLE = "Score over the number of training rows"
BESIDE = 3
_NOTE = (
    "Each method by its cell of the best selection score for that number of rows, at its selected "
    "rate; mean over seeds on the report half, 95% intervals (seeds alone, variance pooled over "
    "the part's cells)."
)


@styled
def draw(root: Path, parts: Sequence[Part]) -> Figure:
    """A panel a task with several numbers of rows.

    Args:
        root: the folder of all results; not used.
        parts: of all studies.

    Raises:
        Lacking: no task of a study has a score for two numbers of rows.
    """
    table = pd.DataFrame(chosen(parts))
    groups = (
        [
            (panel, group)
            for panel, group in table.groupby("panel", sort=False)
            if group["rows"].nunique() > 1
        ]
        if len(table)
        else []
    )
    if not groups:
        raise Lacking("no task has scores for two numbers of training rows")
    down = math.ceil(len(groups) / BESIDE)
    figure = blank(PAGE, 0.9 + 1.75 * down)
    grid = figure.subplots(down, BESIDE, squeeze=False).flatten()
    for axes, (panel, group) in zip(grid, groups, strict=False):
        _panel(axes, group)
        axes.set_title(panel)
    for axes in grid[len(groups) :]:
        axes.set_axis_off()
    methods = pd.concat([group for _, group in groups])["method"].drop_duplicates()
    return framed(figure, TITLE, _NOTE, [key(style(m), line=True) for m in methods], 5)


def chosen(parts: Sequence[Part]) -> Iterator[dict[str, object]]:
    """One row a part with a counted number of rows and method: ``panel``, ``metric``, ``rows``,
    ``method`` and, in points, ``at``, ``low``, ``high``.
    """
    for part in parts:
        if part.rows is None:
            continue
        scored = part.cells.dropna(subset=["selection_score"])["method"].unique()
        table = summarize(part).set_index("cell") if len(scored) else None
        for method in sorted(scored):
            row = table.loc[pick(part, method)]
            yield {
                "panel": f"{part.task} on {Path(part.base).name}\n({part.study})",
                "metric": part.metric,
                "rows": part.rows,
                "method": method,
                "at": 100 * row["mean"],
                "low": 100 * row["low"],
                "high": 100 * row["high"],
            }


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    for method, group in table.groupby("method"):
        look, group = style(method), group.sort_values("rows")
        line = {"color": look.color, "linestyle": look.line, "marker": look.marker}
        axes.plot(group["rows"], group["at"], **line)
        axes.vlines(group["rows"], group["low"], group["high"], color=look.color, linewidth=0.8)
    logarithmic(axes.xaxis, table["rows"], "{:g}".format)
    counts = sorted(table["rows"].unique())
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set(xlabel="rows", ylabel=f"{table['metric'].iloc[0]}, points")
    axes.grid(True)
