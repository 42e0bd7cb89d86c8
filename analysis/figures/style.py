"""What every figure shares: colors, markers, sizes of a paper's page, and the way to a file.

The palette is Okabe and Ito's (Color Universal Design, 2008), safe for color-blind readers;
markers, dashes and hatches say the same in gray. Fonts are of 7 points and more at the size that is
written, so a figure goes into a column (``COLUMN`` inches) or across a page (``PAGE``) as it is.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLUMN, PAGE = 3.3, 6.8
"""Inches."""
SMALL, TEXT, TITLE = 7.0, 7.5, 8.5
"""Points."""
DPI = 200
INK, FAINT = "#222222", "#8C8C8C"
PAD = 0.05
_LINE, _KEY = 0.125, 0.155
"""Heights of a line of the note and of the legend, inches."""
_CHARACTERS = 19.0
"""Of small text to an inch, on average and a little less than that."""


class Style(NamedTuple):
    """How a method looks wherever it is drawn.

    Args:
        color: of Okabe and Ito.
        marker: matplotlib's letter.
        label: for people.
        line: dashes.
        hatch: of a bar.
    """

    color: str
    marker: str
    label: str
    line: str = "-"
    hatch: str = ""


STYLES = {
    "lokr": Style("#0072B2", "o", "LoKr", "-", ""),
    "lokr-peft": Style("#56B4E9", "D", "LoKr (peft)", (0, (1, 1)), "...."),
    "lora": Style("#D55E00", "s", "LoRA (peft)", (0, (5, 1.5)), "////"),
    "full": Style("#009E73", "^", "full fine-tuning", (0, (5, 1, 1, 1)), "\\\\\\\\"),
    "head": Style("#555555", "v", "head on the frozen base", (0, (2, 2)), "xxxx"),
}
SERIES = (
    Style("#0072B2", "o", "", "-", ""),
    Style("#D55E00", "s", "", (0, (5, 1.5)), "////"),
    Style("#009E73", "^", "", (0, (1, 1)), "...."),
    Style("#CC79A7", "D", "", (0, (5, 1, 1, 1)), "xxxx"),
    Style("#E69F00", "v", "", (0, (3, 1, 1, 1, 1, 1)), "\\\\\\\\"),
    Style("#56B4E9", "P", "", (0, (2, 2)), "++++"),
)
"""For values of a knob and the like, in this order."""
RC = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "figure.titlesize": TITLE,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.0,
    "legend.columnspacing": 1.5,
    "legend.labelspacing": 0.35,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # journals refuse the other kind
    "figure.dpi": 100,
}
styled = mpl.rc_context(RC)
"""Decorates what draws."""


class Lacking(ValueError):  # noqa: N818 - nobody's error: the results do not hold what is drawn
    """The part has no data for the figure; the message is one sentence that says what lacks."""


def style(method: object) -> Style:
    """The method's, or a gray cross under its own name where it is none of ``STYLES``."""
    return STYLES.get(str(method), Style(FAINT, "X", str(method), (0, (1, 2)), "oo"))


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches, that makes room for what is put around its axes."""
    return Figure(figsize=(width, height), layout="constrained")


class Note(NamedTuple):
    """Small text in lines that fit the width.

    Args:
        lines: with line breaks.
        height: inches.
    """

    lines: str
    height: float


def note(width: float, text: str) -> Note:
    """Small text broken to fit ``width`` inches."""
    lines = textwrap.fill(text, int(width * _CHARACTERS))
    return Note(lines, _LINE * (lines.count("\n") + 1))


def framed(
    figure: Figure, title: str, small: str, handles: Sequence[Artist] = (), columns: int = 4
) -> Figure:
    """Put a short title above, a legend for all axes below, and under it the note.

    Args:
        figure: from :func:`blank`; its axes keep to the room in between.
        title: what the figure is of.
        small: how the numbers came about.
        handles: the legend's entries.
        columns: of the legend.

    Returns:
        The figure.
    """
    width, height = figure.get_size_inches()
    text = note(width, small)
    under = text.height + PAD
    keys = _KEY * math.ceil(len(handles) / columns)
    over = TITLE * 1.2 / 72 + PAD
    figure.text(PAD / width, 1 - PAD / height, title, va="top", size=TITLE)
    figure.text(PAD / width, PAD / height, text.lines, va="bottom", size=SMALL, color="#444444")
    if handles:
        place = (PAD / width, (under + PAD / 2) / height)
        figure.legend(handles=list(handles), loc="lower left", bbox_to_anchor=place, ncols=columns)
    bottom = (under + keys + PAD) / height
    figure.get_layout_engine().set(rect=(0, bottom, 1, 1 - bottom - over / height))
    return figure


def key(look: Style, label: str | None = None, line: bool = False) -> Line2D:
    """An entry of a legend: the marker, and the dashes where lines are drawn."""
    dashes = look.line if line else "none"
    return Line2D(
        [], [], color=look.color, marker=look.marker, linestyle=dashes, label=label or look.label
    )


def without(axes: Axes, *sides: str) -> None:
    """Take away some of the four lines around the axes."""
    for side in sides:
        axes.spines[side].set_visible(False)


def logarithmic(axis: Axis, values: Iterable[float], spell: Callable[[float], str]) -> None:
    """Make an axis logarithmic, with few ticks that are labeled as people write the numbers.

    Args:
        axis: of the axes.
        values: that it has to show, positive.
        spell: a number as text.
    """
    shown = [*values]
    low, high = min(shown), max(shown)
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    subs = (1.0,) if high / low > 300 else (1.0, 3.0) if high / low > 30 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, place: spell(value)))
    axis.set_minor_formatter(NullFormatter())


@styled
def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.pdf``: no date and no version, so the same bytes each time.

    Args:
        figure: laid out once, for both.
        stem: the path without a suffix; its folder is made.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    png, pdf = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf"))
    figure.savefig(png, dpi=DPI, metadata={"Software": None})
    figure.savefig(pdf, metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return [png, pdf]
