"""Factor and rank: what the score is at every pair of them, each cell at its selected rate."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.figures.settings import knobs, matched, of_method, twins, whole, word
from analysis.figures.style import COLUMN, PAGE, Lacking, blank, framed, styled
from analysis.load import spell
from analysis.part import Part

DOWN, ACROSS = "decompose_factor", "r"
FACETS = ("use_effective_conv2d", "init_weights")
"""Knobs that get panels of their own, where they vary."""
COLORS = "cividis"
_DARK = 0.55
"""Share of the color range below which text is white."""


@styled
def draw(part: Part) -> Figure:
    """One panel a value of the knobs in ``FACETS``; the rest is averaged, and the note says so.

    Raises:
        Lacking: rank or factor does not vary, or no setting is shared.
    """
    note = "Rate chosen on the selection half, score on the report half. {}" + twins(part)
    part = whole(part)
    trials = of_method(part.selected)
    trials = trials[trials["status"] == "ok"].dropna(subset="score")
    varied = knobs(part.trials)
    for knob in (DOWN, ACROSS):
        if knob not in varied:
            raise Lacking(f"{knob} has one value in every LoKr trial")
    facets = [knob for knob in FACETS if knob in varied]
    others = [knob for knob in varied if knob not in (DOWN, ACROSS, *facets)]
    found = matched(trials, [*facets, DOWN, ACROSS], others)
    figure = _panels(found.means, facets, part.metric)
    return framed(figure, part.title, note.format(found.words))


def _panels(means: pd.Series, facets: list[str], metric: str) -> Figure:
    values = [sorted(means.index.unique(knob), key=spell) for knob in facets]
    panels = list(product(*values))
    down, across = (sorted(means.index.unique(knob)) for knob in (DOWN, ACROSS))
    height = 1.4 + 0.12 * len(facets) + 0.28 * len(down)
    figure = blank(PAGE if len(panels) > 1 else COLUMN, height)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    norm = Normalize(100 * means.min(), 100 * means.max())
    for axes, panel in zip(grid, panels, strict=True):
        own = means.xs(panel, level=facets) if panel else means
        table = 100 * own.unstack(ACROSS).reindex(index=down, columns=across)
        image = _squares(axes, table, norm)
        names = zip(facets, panel, strict=True)
        axes.set_title("\n".join(f"{word(knob)}: {spell(value)}" for knob, value in names))
    grid[0].set_ylabel("factor")
    figure.colorbar(image, ax=grid.tolist(), label=f"{metric}, points", aspect=12, pad=0.01)
    return figure


def _squares(axes: Axes, table: pd.DataFrame, norm: Normalize) -> object:
    image = axes.imshow(table.to_numpy(), cmap=COLORS, norm=norm, aspect="auto")
    axes.set_xticks(range(table.shape[1]), [str(r) for r in table.columns])
    axes.set_yticks(range(table.shape[0]), [str(f) for f in table.index])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("rank r")
    for (i, j), value in np.ndenumerate(table.to_numpy()):
        missing = math.isnan(value)
        color = "black" if missing or norm(value) >= _DARK else "white"
        text = "none" if missing else f"{value:.1f}"
        axes.text(j, i, text, ha="center", va="center", color=color)
    return image
