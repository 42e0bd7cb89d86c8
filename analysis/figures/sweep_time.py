"""Packed against sequential: what a trial of a sweep takes, each way to train it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import cost
from analysis.figures.style import FAINT, PAGE, SMALL, STYLES, Lacking, blank, framed, styled
from analysis.part import Part

TITLE = "A sweep's trial, packed and alone"
_BAR = 0.19
_NOTE = (
    "Packed: start to last result over all trials, compiling and loading included. Others: mean of "
    "the trials that were timed after a warm-up (their number in brackets). Times: as long as "
    "packed. On {hardware}."
)


@styled
def draw(root: Path, parts: Sequence[Part]) -> Figure:
    """A panel a study and base, a bar a way.

    Args:
        root: the folder of all results.
        parts: not used: speed has files of its own.

    Raises:
        Lacking: nothing was measured.
    """
    table = cost.sweeps(root)
    if table.empty:
        raise Lacking(f"{root}/bench has no sweep; python -m experiments bench sweep times one")
    table = table[~table["small"].astype(bool)] if not table["small"].all() else table
    groups = [group for _, group in table.groupby(["study", "base"], sort=False)]
    heights = [len(group) for group in groups]
    figure = blank(PAGE, 0.95 + 0.42 * len(groups) + _BAR * sum(heights))
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True, height_ratios=heights)
    for axes, group in zip(panels[:, 0], groups, strict=True):
        _panel(axes, group)
    panels[-1, 0].set_xlabel("seconds a trial")
    hardware = " and ".join(sorted(table["hardware"].unique()))
    return framed(figure, TITLE, _NOTE.format(hardware=hardware))


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    ours = table["way"] == cost.PACKED
    looks = [STYLES["lokr" if own else "lokr-peft"] for own in ours]
    bars = axes.barh(
        table["label"],
        table["seconds"],
        height=0.7,
        color=[look.color for look in looks],
        edgecolor="black",
        linewidth=0.5,
        hatch=[look.hatch for look in looks],
    )
    axes.bar_label(bars, [_label(row) for row in table.to_dict("records")], padding=3, size=SMALL)
    axes.invert_yaxis()
    axes.margins(x=0.36)
    first = table.iloc[0]
    title = f"{first['trials']} trials of {first['task']} on {first['base']}"
    axes.set_title(title, loc="left")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x", color=FAINT, alpha=0.3)


def _label(row: dict) -> str:
    if row["way"] == cost.PACKED:
        return f"{row['seconds']:.3g}"
    return f"{row['seconds']:.3g} ({row['timed']}), {row['slower']:.1f} times"
