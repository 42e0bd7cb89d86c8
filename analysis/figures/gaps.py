"""LoKr against LoRA and against full fine-tuning in every part: one row a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.paired import rivals
from analysis.figures.rows import ROW, dots, stripe
from analysis.figures.settings import METHOD
from analysis.figures.style import INK, PAGE, Lacking, blank, framed, style, styled
from analysis.part import Part
from analysis.statistics.choice import pick
from analysis.statistics.paired import against

TITLE = "LoKr minus LoRA and minus all weights, part by part"
LEVEL = 0.05
_NOTE = (
    "Each method by its cell of the best selection score at its selected rate; report half, paired "
    "over shared seeds. 95% intervals, of seeds alone; filled: differs at 5% after Holm over the "
    "part's cells."
)


@styled
def draw(root: Path, parts: Sequence[Part]) -> Figure:
    """A panel a rival, a row a part.

    Args:
        root: the folder of all results; not used.
        parts: of all studies.

    Raises:
        Lacking: no part has LoKr and one of the rivals.
    """
    table = pd.DataFrame(gaps(parts))
    if table.empty:
        raise Lacking("no part has a score of LoKr and of LoRA or full fine-tuning")
    order = table["part"].drop_duplicates().tolist()
    shown = table["rival"].drop_duplicates().tolist()
    figure = blank(PAGE, 1.1 + 1.3 * ROW * len(order))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, rival in zip(panels, shown, strict=True):
        _panel(axes, table[table["rival"] == rival].set_index("part").reindex(order))
        axes.set_xlabel(f"LoKr minus {style(rival).label}, points")
    panels[0].set_yticks(range(len(order)), order)
    panels[0].tick_params(axis="y", labelleft=True)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    return framed(figure, TITLE, _NOTE)


def gaps(parts: Sequence[Part]) -> Iterator[dict[str, object]]:
    """One row a part and rival: ``part``, ``rival``, ``method``, ``differs`` and, in points,
    ``at``, ``low`` and ``high``.
    """
    titles = Counter(part.title for part in parts)
    for part in parts:
        study = f"{part.study}: " if titles[part.title] > 1 else ""
        scored = set(part.cells.dropna(subset=["selection_score"])["method"])
        for rival in rivals(part) if METHOD in scored else ():
            rows = against(part, rival).set_index("cell")
            row = rows.loc[pick(part, METHOD)]
            yield {
                "part": f"{study}{part.title} ({part.metric})",
                "rival": rival,
                "method": METHOD,
                "differs": bool(row["p_holm"] < LEVEL),
                "at": 100 * row["difference"],
                "low": 100 * row["low"],
                "high": 100 * row["high"],
            }


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    stripe(axes, len(table))
    dots(axes, table, table["differs"].eq(True))
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
