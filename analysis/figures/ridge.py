"""Alpha against the rate: is it their product alone that counts?

An adapter starts at ΔW = 0 and AdamW's steps have the size of the rate whatever the gradient's, so
to first order ΔW moves by rate · alpha/r a step (the *effective scale*). If that were all, scores
would be equal along its diagonals, and the lines of the last panel would lie on each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.settings import SCALE, knobs, matched, of_method, twins, whole
from analysis.figures.style import (
    FAINT,
    PAGE,
    SERIES,
    SMALL,
    Lacking,
    Style,
    blank,
    framed,
    key,
    logarithmic,
    styled,
)
from analysis.part import Part

COLORS = "cividis"
PLANES = 3
"""At most so many ranks get a plane."""
_DARK = 0.55
_NOTE = (
    "LoKr, every rate that was tried (none is chosen), score on the report half, mean over seeds. "
    "Dotted: equal rate · alpha/r. "
)


@styled
def draw(part: Part) -> Figure:
    """A plane (rate, alpha/r) for each rank that has several alphas, then the score over the
    product of the two, one line for each rank and alpha.

    Raises:
        Lacking: alpha/r or the rate has one value, or no setting is shared.
    """
    same, part = twins(part), whole(part)
    trials = of_method(part.trials)
    _require(trials)
    well = trials[trials["status"] == "ok"].dropna(subset="score")
    squares = ["r", "alpha", "rate"]
    well = well.assign(r=well["trial.r"], alpha=well["trial.alpha"].astype(float))
    others = [knob for knob in knobs(part.trials) if knob not in ("r", "alpha")]
    found = matched(well, squares, others)
    table = scored(found.means)
    figure, handles = _laid_out(table, part.metric)
    return framed(figure, part.title, _NOTE + found.words + _failures(trials) + same, handles)


def scored(means: pd.Series) -> pd.DataFrame:
    """Columns ``r``, ``alpha``, ``rate``, ``score`` (points), ``alpha/r``, ``effective``."""
    table = (100 * means).rename("score").reset_index()
    scale = table["alpha"] / table["r"]
    return table.assign(**{SCALE: scale, "effective": table["rate"] * scale})


def _require(trials: pd.DataFrame) -> None:
    for name, words in ((SCALE, "alpha/r"), ("rate", "the learning rate")):
        if trials[name].nunique() < 2:
            raise Lacking(f"{words} has one value in every LoKr trial")


def _failures(trials: pd.DataFrame) -> str:
    failed = int((trials["status"] != "ok").sum())
    return f" {failed} trials failed and are in no mean." if failed else ""


def _laid_out(table: pd.DataFrame, metric: str) -> tuple[Figure, list[Line2D]]:
    alphas = table.groupby("r")["alpha"].nunique()
    ranks = [r for r in alphas.index if alphas[r] > 1][:PLANES]
    figure = blank(PAGE, 3.0)
    grid = figure.subplots(1, len(ranks) + 1, width_ratios=[*[1] * len(ranks), 1.35])
    *planes, last = np.atleast_1d(grid)
    norm = Normalize(table["score"].min(), table["score"].max())
    for axes, r in zip(planes, ranks, strict=True):
        _plane(axes, table[table["r"] == r], norm)
        axes.set_title(f"r = {r}")
    for axes in planes[:1]:
        axes.set_ylabel("alpha/r")
    handles = _lines(last, table)
    last.set_ylabel(f"{metric}, points")
    return figure, handles


def _plane(axes: Axes, table: pd.DataFrame, norm: Normalize) -> None:
    """A colored square with its score at every (rate, alpha/r)."""
    axes.set(xscale="log", yscale="log", xlabel="learning rate")
    x, y = table["rate"].to_numpy(), table[SCALE].to_numpy()
    axes.set_xlim(x.min() / 2, x.max() * 2)
    axes.set_ylim(y.min() / 2.2, y.max() * 2.2)
    _diagonals(axes, table["effective"].unique())
    axes.scatter(x, y, c=table["score"], cmap=COLORS, norm=norm, marker="s", s=420, zorder=2)
    for at, height, score in zip(x, y, table["score"], strict=True):
        color = "white" if norm(score) < _DARK else "black"
        axes.text(at, height, f"{score:.1f}", ha="center", va="center", color=color, size=SMALL)
    _ticks(axes, sorted(set(x)), sorted(set(y)))


def _ticks(axes: Axes, rates: Sequence[float], scales: Sequence[float]) -> None:
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_yticks(scales, [f"{scale:g}" for scale in scales])
    axes.minorticks_off()


def _diagonals(axes: Axes, products: Sequence[float]) -> None:
    """Lines of equal rate · alpha/r through what was tried."""
    low, high = axes.get_xlim()
    rates = np.geomspace(low, high, 2)
    for constant in products:
        axes.plot(rates, constant / rates, color=FAINT, linewidth=0.7, linestyle=":", zorder=1)


def _lines(axes: Axes, table: pd.DataFrame) -> list[Line2D]:
    """The last panel: the score over the product; its legend's entries."""
    handles = []
    for (r, alpha), group in table.groupby(["r", "alpha"]):
        look: Style = SERIES[len(handles) % len(SERIES)]
        group = group.sort_values("effective")
        axes.plot(
            group["effective"],
            group["score"],
            color=look.color,
            marker=look.marker,
            linestyle=look.line,
        )
        handles.append(key(look, f"r={r}, alpha={alpha:g}", line=True))
    axes.set(xlabel="rate · alpha/r")
    logarithmic(axes.xaxis, table["effective"], "{:g}".format)
    axes.grid(True)
    return handles
