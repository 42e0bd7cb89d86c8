"""Figures with a row a cell: its method and knobs in columns of text, then panels beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import labels
from analysis.figures.style import PAGE, SMALL, blank, style
from analysis.part import Part

ROW = 0.128
"""Inches from a row to the next: 7 points and what keeps them apart."""
AROUND = 1.1
"""Inches above and below the rows: title, headings, axis, note."""
LEAST = 0.35
WIDE = 4.0
"""Times the median width of an interval."""
_CHARACTER = 0.062
_GAP = 0.09
_STRIPE = "#F2F2F2"
_SHORT = {
    "lokr": "LoKr",
    "lokr-peft": "LoKr (peft)",
    "lora": "LoRA",
    "full": "full",
    "head": "head",
}
_HEADINGS = {"decompose_factor": "f", "use_effective_conv2d": "eff", "alpha": "a"}


class Column(NamedTuple):
    """A heading over texts, one a row, and how many inches it takes."""

    heading: str
    texts: list[str]

    @property
    def width(self) -> float:
        """Inches."""
        return _CHARACTER * max(map(len, (self.heading, *self.texts))) + _GAP


def columns(part: Part, cells: Sequence[str]) -> list[Column]:
    """Method and knobs of some cells, in their order."""
    table = labels.shortened(part.cells, part.trials).set_index("cell").loc[list(cells)]
    methods = [_SHORT.get(method, method) for method in table["method"]]
    knobs = labels.knobs(part.cells)
    return [
        Column("", methods),
        *(Column(_heading(knob), [str(text) for text in table[knob]]) for knob in knobs),
    ]


def explained(part: Part) -> str:
    """What the short headings stand for."""
    short = [
        f"{_HEADINGS[knob]}: {knob}." for knob in labels.knobs(part.cells) if knob in _HEADINGS
    ]
    common = labels.shared(part.trials["trial.target_modules"])
    if "target_modules" in labels.knobs(part.cells) and common:
        short.append(f"({len(common)}): {', '.join(common)}.")
    return " ".join(short)


def compact(part: Part) -> dict[str, str]:
    """Every cell in a few letters: ``LoKr r8 a4 f-1 both lycoris``; flags that are off are left
    out.
    """
    table = labels.shortened(part.cells, part.trials)
    names = labels.knobs(part.cells)
    return {
        str(row["cell"]): " ".join(
            [
                _SHORT.get(row["method"], row["method"]),
                *filter(None, (_said(knob, row[knob]) for knob in names)),
            ]
        )
        for row in table.to_dict("records")
    }


def _said(knob: str, value: str) -> str:
    heading = _heading(knob)
    if value in ("", "no"):
        return ""
    if value == "yes":
        return heading
    if value in ("True", "False", "None"):
        return f"{heading}:{value}"
    number = value.lstrip("-").replace(".", "", 1).isdigit()
    return f"{heading}{value}" if number else value


def panels(part: Part, cells: Sequence[str], count: int) -> tuple[Figure, list[Axes]]:
    """A figure with the cells' names and ``count`` panels; row i of each is cell i.

    Args:
        part: whose cells they are.
        cells: from above to below.
        count: of panels.
    """
    named = columns(part, cells)
    room = sum(column.width for column in named)
    figure = blank(PAGE, AROUND + max(LEAST, ROW * len(cells)))
    each = (PAGE - room) / count
    names, *axes = figure.subplots(1, count + 1, sharey=True, width_ratios=[room, *[each] * count])
    _write(names, named, room)
    for panel in axes:
        stripe(panel, len(cells))
    return figure, axes


def dots(axes: Axes, table: pd.DataFrame, filled: pd.Series) -> None:
    """A point and its interval on each row, in the look of its method.

    Where an interval is far wider than most (an odd cell's own), the axis does not follow it: a
    head at the edge says that it goes on.

    Args:
        axes: a panel.
        table: rows with ``method``, ``at``, ``low`` and ``high``; rows without ``at`` stay empty.
        filled: whether a row's marker is; the others are hollow.
    """
    left, right = limits(table)
    axes.set_xlim(left, right)
    for place, (row, full) in enumerate(zip(table.to_dict("records"), filled, strict=True)):
        if pd.isna(row["at"]):
            continue
        look = style(row["method"])
        ends = max(row["low"], left), min(row["high"], right)
        axes.plot(ends, [place, place], color=look.color, linewidth=1.0)
        for end, goes_on, head in (
            (left, row["low"] < left, "<"),
            (right, row["high"] > right, ">"),
        ):
            if goes_on:
                axes.plot(end, place, head, color=look.color, ms=3, clip_on=False)
        face = look.color if full else "white"
        axes.plot(row["at"], place, look.marker, color=look.color, markerfacecolor=face, ms=3.6)


def limits(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of an axis that shows all points, and the intervals that are not ``WIDE``."""
    width = table["high"] - table["low"]
    usual = table[~(width > WIDE * width.median())]
    least = min(table["at"].min(), usual["low"].min())
    most = max(table["at"].max(), usual["high"].max())
    margin = 0.04 * (most - least) or 1.0
    return least - margin, most + margin


def _heading(knob: str) -> str:
    return _HEADINGS.get(knob, labels.HEADINGS.get(knob, knob))


def _write(axes: Axes, named: list[Column], room: float) -> None:
    """The columns of text."""
    count = len(named[0].texts)
    axes.set(xlim=(0, room), ylim=(count - 0.4, -0.6))
    axes.set_axis_off()
    left = 0.0
    for column in named:
        axes.text(left, -0.75, column.heading, va="bottom", size=SMALL, weight="bold")
        for place, text in enumerate(column.texts):
            axes.text(left, place, text, va="center", size=SMALL)
        left += column.width


def stripe(axes: Axes, count: int) -> None:
    """Every other row on gray, so that the eye stays on it; no ticks, the names say it."""
    for place in range(0, count, 2):
        axes.axhspan(place - 0.5, place + 0.5, color=_STRIPE, linewidth=0, zorder=0)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)
