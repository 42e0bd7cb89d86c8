"""Which knobs matter: shares of the variance of the scores, with the rate tuned and without."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.settings import word
from analysis.figures.style import FAINT, INK, PAGE, SERIES, SMALL, Lacking, blank, framed, styled
from analysis.importance import VIEWS, Importance, importance
from analysis.part import Part

PAIRS = 6
"""At most so many pairs are shown, of those with ``LEAST`` percent or more."""
LEAST = 1.0
_BAR = 0.155
_TITLES = {"tuned": "each cell at its selected rate", "raw": "all rates that were tried"}
_HOW = {
    "exact": "exact decomposition of a full grid",
    "fanova": "random forest on a grid with holes, cross-validated R² {fit:.2f}",
}
_NOTE = (
    "LoKr, report half. Shares of a trial's variance; a knob that does nothing is about 0, of "
    "either sign; 95% intervals. seed: what all cells share; noise: the rest of a run. Pairs: at "
    f"most {PAIRS}, from {LEAST:g}%. {{how}}"
)
_SHORT = {"effective conv": "eff. conv"}


@styled
def draw(part: Part) -> Figure:
    """A panel a view, a bar a knob, then pairs, what takes three knobs or more, and noise.

    Raises:
        Lacking: neither view can be ranked; says why.
    """
    found = {view: importance(part, view=view) for view in VIEWS}
    if all(one.refused for one in found.values()):
        raise Lacking(next(iter(found.values())).refused)
    tables = {view: bars(one.table) for view, one in found.items()}
    figure = blank(PAGE, 1.1 + _BAR * max(map(len, tables.values())))
    panels = figure.subplots(1, len(found))
    for axes, (view, one) in zip(panels, found.items(), strict=True):
        axes.set_title(_TITLES[view], loc="left")
        if one.refused:
            _refusal(axes, one.refused)
        else:
            _panel(axes, tables[view])
    return framed(figure, part.title, _NOTE.format(how=f"{_how(found)}{_doubts(found)}"))


def bars(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are shown, with ``label``; shares and bounds in percent.

    Args:
        table: of :class:`analysis.importance.Importance`.
    """
    numbers = ["share", "low", "high"]
    table = table.assign(**{name: 100 * table[name] for name in numbers})
    large = (table["kind"] == "pair") & (table["share"] >= LEAST)
    kept = large & (large.cumsum() <= PAIRS)
    shown = table[(table["kind"] != "pair") | kept]
    labels = [_label(*row) for row in zip(shown["kind"], shown["knobs"], strict=True)]
    return shown.assign(label=labels)


def _label(kind: str, knobs: tuple[str, ...]) -> str:
    if kind == "higher":
        return "three or more"
    if kind == "noise":
        return "noise"
    return " x ".join(_name(knob) for knob in knobs)


def _name(knobs: str) -> str:
    """Of one variable, which may be several knobs that move together: ``r+alpha``."""
    words = [word(knob) for knob in knobs.split("+")]
    return "+".join(_SHORT.get(text, text) for text in words)


def _how(found: dict[str, Importance]) -> str:
    said = {
        view: _HOW[one.how].format(fit=one.fit) for view, one in found.items() if not one.refused
    }
    lost = max(one.lost for one in found.values())
    failed = f" {lost} trials failed and have no number." if lost else ""
    if len(set(said.values())) == 1:
        text = next(iter(said.values()))
        return f"{text[0].upper()}{text[1:]}.{failed}"
    return "; ".join(f"{_TITLES[view]}: {text}" for view, text in said.items()) + f".{failed}"


def _doubts(found: dict[str, Importance]) -> str:
    """What speaks against the shares of each view."""
    return "".join(
        f" {_TITLES[view].capitalize()}: {doubt}."
        for view, one in found.items()
        for doubt in one.doubts
        if not one.refused
    )


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    looks = [_LOOKS.get(kind, (FAINT, "xxxx")) for kind in table["kind"]]
    places = range(len(table))
    axes.barh(
        places,
        table["share"],
        height=0.72,
        color=[color for color, _ in looks],
        hatch=[hatch for _, hatch in looks],
        edgecolor="white",
        linewidth=0.3,
    )
    axes.hlines(places, table["low"], table["high"], color=INK, linewidth=1.0)
    axes.set_yticks(places, table["label"])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("share of variance, %")
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)


_LOOKS = {
    "main": (SERIES[0].color, SERIES[0].hatch),
    "pair": (SERIES[1].color, SERIES[1].hatch),
}


def _refusal(axes: Axes, reason: str) -> None:
    text = textwrap.fill(f"not ranked: {reason}", 48)
    axes.text(0, 0.9, text, transform=axes.transAxes, va="top", size=SMALL)
    axes.set_axis_off()
