"""All cells in the order of their scores, with intervals: which cannot be told from the best?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import rows
from analysis.figures.settings import require_scores
from analysis.figures.style import SMALL, framed, styled
from analysis.part import Part
from analysis.statistics.cells import COVERS, summarize

_NOTE = (
    "Rate chosen on the selection half, mean over {seeds} seeds on the report half. Filled: not "
    "told from the best at 5%. Chosen: best on the selection half. {covers}. {short}"
)

_ODD = "A far wider interval is of a cell that varies far more than the others: its own seeds'. "


@styled
def draw(part: Part) -> Figure:
    """A row a cell, best first.

    Raises:
        Lacking: no trial has a score.
    """
    require_scores(part)
    table = summarize(part)
    figure, (axes,) = rows.panels(part, table["cell"].tolist(), 1)
    points = table.assign(**{k: 100 * table[v] for k, v in _BOUNDS.items()})
    rows.dots(axes, points, table["tied"].fillna(False).astype(bool))
    _remarks(axes, points)
    axes.set_xlabel(f"{part.metric}, points")
    seeds = ", ".join(str(n) for n in sorted(set(table["n"])))
    odd = _ODD if table["odd"].any() else ""
    note = _NOTE.format(seeds=seeds, covers=COVERS, short=odd + rows.explained(part))
    return framed(figure, part.title, note)


_BOUNDS = {"at": "mean", "low": "low", "high": "high"}


def _remarks(axes: Axes, table: pd.DataFrame) -> None:
    """Which cell one would have taken, and in which a seed failed."""
    left, right = axes.get_xlim()
    for place, row in table.iterrows():
        if row["failed"]:
            axes.text(right, place, f"{row['failed']} failed", ha="right", va="center", size=SMALL)
        elif row["chosen"]:
            ends = [row["at"], row["low"], row["high"]]
            low, high = np.nanmin(ends), np.nanmax(ends)
            room = high < left + 0.8 * (right - left)
            offset, side = ((4, 0), "left") if room else ((-4, 0), "right")
            axes.annotate(
                "chosen",
                (high if room else low, place),
                xytext=offset,
                textcoords="offset points",
                ha=side,
                va="center",
                size=SMALL,
            )
