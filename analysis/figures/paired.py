"""Every cell against LoRA's and against full fine-tuning's: paired differences with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import rows
from analysis.figures.settings import require_scores
from analysis.figures.style import INK, SMALL, Lacking, framed, style, styled
from analysis.part import Part
from analysis.statistics.paired import against

RIVALS = ("lora", "full")
LEVEL = 0.05
_NOTE = (
    "Each cell at its selected rate minus the rival's cell of the best selection score, report "
    "half, paired over shared seeds. 95% intervals, one at a time, of seeds alone; filled: differs "
    "at 5% after Holm. {short}"
)


@styled
def draw(part: Part) -> Figure:
    """A row a cell, best first; a panel a rival.

    Raises:
        Lacking: neither LoRA nor full fine-tuning has a score, or there is nothing beside them.
    """
    require_scores(part)
    found = {rival: against(part, rival) for rival in rivals(part)}
    if not found:
        raise Lacking("neither LoRA nor full fine-tuning has a score to compare with")
    order = _order(found)
    if not order:
        raise Lacking("there is no cell beside the one that is compared with")
    figure, panels = rows.panels(part, order, len(found))
    for axes, (rival, table) in zip(panels, found.items(), strict=True):
        _panel(axes, table.set_index("cell").reindex(order))
        axes.set_xlabel(f"{part.metric} minus {style(rival).label}'s, points")
    return framed(figure, part.title, _NOTE.format(short=rows.explained(part)))


def rivals(part: Part) -> list[str]:
    """Those of ``RIVALS`` of which a cell has a selection score."""
    scored = part.cells.dropna(subset=["selection_score"])["method"]
    return [method for method in RIVALS if method in set(scored)]


def _order(found: dict[str, pd.DataFrame]) -> list[str]:
    """All cells that are compared, by their difference to the first rival that has it."""
    first, *others = found.values()
    names = first["cell"].tolist()
    for table in others:
        names = [*(c for c in table["cell"] if c not in names), *names]
    return names


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    points = {name: 100 * table[column] for name, column in _COLUMNS.items()}
    differs = table["p_holm"] < LEVEL
    rows.dots(axes, table.assign(**points), differs)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    left, right = axes.get_xlim()
    offset, side = ((4, 0), "left") if right > -left else ((-4, 0), "right")
    look = {"xytext": offset, "textcoords": "offset points", "ha": side, "va": "center"}
    for place in np.flatnonzero(table["seeds"].isna()):
        axes.annotate("the rival", (0, place), size=SMALL, **look)


_COLUMNS = {"at": "difference", "low": "low", "high": "high"}
