"""Performance profiles over all tasks: what share of a method's runs beats a threshold?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import COLUMN, INK, Lacking, blank, framed, key, style, styled
from analysis.part import Part
from analysis.statistics.choice import pick
from analysis.statistics.normalize import NoScaleError, normalized, scale
from analysis.statistics.profiles import score_profile

TITLE = "Performance profile over tasks"
THRESHOLDS = np.linspace(0.0, 1.25, 126)
LEAST = 2
"""Parts."""
_NOTE = (
    "Share of runs above a normalized score, mean over {parts} parts (task, base, rows), each "
    "method by its cell of the best selection score; 95% bootstrap within parts. {how}. A run that "
    "failed is below all. {without}"
)


@styled
def draw(root: Path, parts: Sequence[Part]) -> Figure:
    """One line a method that all parts with a scale have.

    Args:
        root: the folder of all results; not used.
        parts: of all studies.

    Raises:
        Lacking: fewer than two parts have a scale, or they have no method in common.
    """
    whole = [part for part in parts if _scaled(part)]
    if len(whole) < LEAST:
        raise Lacking(f"{len(whole)} parts have a normalized score, {LEAST} are needed")
    methods = common(whole)
    if not methods:
        raise Lacking("no method ran in every part that has a normalized score")
    figure = blank(COLUMN, 3.3)
    axes = figure.subplots()
    for method in methods:
        look, table = style(method), profile(whole, method)
        x = table["threshold"]
        axes.fill_between(x, table["low"], table["high"], color=look.color, alpha=0.15, lw=0)
        line = {"color": look.color, "linestyle": look.line, "marker": look.marker}
        axes.plot(x, table["share"], markevery=25, **line)
    axes.axvline(1, color=INK, linewidth=0.6, linestyle=":")
    axes.set(xlabel="normalized score", ylabel="share of runs above it", ylim=(-0.03, 1.03))
    axes.grid(True)
    handles = [key(style(method), line=True) for method in methods]
    return framed(figure, TITLE, _note(whole, len(parts)), handles, 3)


def common(parts: Sequence[Part]) -> list[str]:
    """The methods that every part has a selection score of, in the order of their names."""
    sets = [set(part.cells.dropna(subset=["selection_score"])["method"]) for part in parts]
    return sorted(set.intersection(*sets))


def profile(parts: Sequence[Part], method: str) -> pd.DataFrame:
    """:func:`analysis.statistics.profiles.score_profile` of the method's chosen cells."""
    return score_profile([_runs(part, method) for part in parts], THRESHOLDS)


def _runs(part: Part, method: str) -> np.ndarray:
    """Normalized scores of the chosen cell's seeds; -inf of one that failed."""
    own = part.selected[part.selected["cell"] == pick(part, method)]
    scores = own["score"].astype(float).where(own["status"] == "ok")
    return np.nan_to_num(normalized(part, scores.to_numpy()), nan=-np.inf)


def _scaled(part: Part) -> bool:
    try:
        scale(part)
    except NoScaleError:
        return False
    return True


def _note(whole: Sequence[Part], count: int) -> str:
    how = "; ".join(dict.fromkeys(scale(part).how for part in whole))
    without = count - len(whole)
    missing = f"Parts without such a scale: {without}." if without else ""
    return _NOTE.format(parts=len(whole), how=how, without=missing)
