"""What tuning buys: the expected score of the best of n trials, for each method."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import COLUMN, Lacking, blank, framed, key, logarithmic, style, styled
from analysis.part import Part
from analysis.statistics.expected import band

LEAST = 3
"""Trials of a method."""
_NOTE = (
    "n trials of a method at random (any cell, rate, seed); the best on the selection half is "
    "kept, its report half is shown: expectation without replacement (Tang et al. 2020), 95% band "
    "up to half of the trials."
)


@styled
def draw(part: Part) -> Figure:
    """One line a method, up to as many trials as it has.

    Raises:
        Lacking: no method has three trials with a score.
    """
    curves = dict(_curves(part))
    if not curves:
        raise Lacking(f"no method has {LEAST} trials with a score")
    figure = blank(COLUMN, 3.0)
    axes = figure.subplots()
    for method, curve in curves.items():
        look = style(method)
        n = curve["trials"]
        low, high = 100 * curve["low"], 100 * curve["high"]
        axes.fill_between(n, low, high, color=look.color, alpha=0.15, linewidth=0)
        axes.plot(
            n,
            100 * curve["expected"],
            color=look.color,
            linestyle=look.line,
            marker=look.marker,
            markevery=[len(curve) - 1],
        )
    axes.set(xlabel="trials", ylabel=f"{part.metric}, points")
    logarithmic(axes.xaxis, [1, *map(len, curves.values())], "{:g}".format)
    axes.grid(True)
    handles = [key(style(method), line=True) for method in curves]
    return framed(figure, part.title, _NOTE, handles, 2)


def _curves(part: Part) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each method's curve, those with most trials first."""
    groups = dict(tuple(part.trials.groupby("trial.method")))
    for method in sorted(groups, key=lambda name: (-len(groups[name]), name)):
        group = groups[method]
        well = group["status"] == "ok"
        selection, report = (group[c].where(well) for c in ("selection_score", "score"))
        if (selection.notna() & report.notna()).sum() >= LEAST:
            yield str(method), band(selection.to_numpy(float), report.to_numpy(float))
