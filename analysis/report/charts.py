"""The page's charts, as Vega-Lite from Altair. They name their data and hold none: the page's
script gives each the rows that its filter lets through.

Colors that must follow light and dark are CSS (``currentColor``); ``group`` is whatever the reader
colors by, and its scale is set in the page, so that a filter never changes a color.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import altair as alt

HEIGHT = 300
FREE = alt.Scale(zero=False, padding=8)
LOG = alt.Scale(type="log", nice=False, padding=24)
STEP = 24
"""Pixels of a row where rows are names."""

_SCORE_TOOLTIP = (
    alt.Tooltip("score:Q", format=".2f"),
    alt.Tooltip("low:Q", title="95% from", format=".2f"),
    alt.Tooltip("high:Q", title="to", format=".2f"),
)


@dataclass(frozen=True)
class Chart:
    """A chart and what stands beside it.

    Args:
        name: its id in the page.
        title: its heading.
        lead: what it shows and how to read it.
        source: which rows it draws: cells, sizes (the cells that one would take, over training
            rows), trials, curves, effects, shares, against or costs.
        needs: fields that a row must have to be drawn.
        extreme: (field, heading) whose highest and lowest row is named in words.
        columns: (field, heading) of the same numbers as a table.
        lacking: what to say where no row is left.
        spec: Vega-Lite.
        noun, nouns: what a row is called.
        by: fields over which the table's rows are means; empty for rows as they are.
        tiles: whether the chart draws those means too.
        apart: why it cannot show several parts at once; empty if it can.
    """

    name: str
    title: str
    lead: str
    source: str
    needs: Sequence[str]
    extreme: tuple[str, str]
    columns: Sequence[tuple[str, str]]
    lacking: str
    spec: dict[str, Any]
    noun: str
    nouns: str
    by: Sequence[str] = ()
    tiles: bool = False
    apart: str = ""

    def in_page(self) -> dict[str, Any]:
        """What the page's script reads of it."""
        return asdict(self)


def charts() -> list[Chart]:
    """Every chart, in the page's order."""
    return [make() for make in _CHARTS]


def _quality() -> Chart:
    base = alt.Chart(alt.NamedData("rows"))
    x = alt.X(
        "trainable:Q",
        scale=LOG,
        title="trainable parameters (adapter and head)",
        axis=alt.Axis(format="~s", tickCount=5),
    )
    y = _value("score", "score, points")
    front = (
        base.transform_window(
            best="max(score)",
            frame=[None, 0],
            sort=[alt.SortField("trainable"), alt.SortField("score", order="descending")],
        )
        .transform_filter("datum.score >= datum.best")
        .mark_line(interpolate="step-after", strokeDash=[4, 3], color="currentColor", opacity=0.55)
        .encode(x=x, y=y)
    )
    return Chart(
        name="quality",
        title="Quality against parameters",
        lead="One point a cell at its selected rate, mean over seeds on the report half; the bar "
        "is its 95% interval. The dashed line is the front: no cell with as few parameters scores "
        "more.",
        source="cells",
        needs=("trainable", "score"),
        extreme=("score", "score"),
        columns=(
            ("label", "cell"),
            ("trainable", "trainable"),
            ("score", "score"),
            ("low", "95% from"),
            ("high", "to"),
            ("seeds", "seeds"),
        ),
        lacking="no cell that passes the filter has a score.",
        noun="cell",
        nouns="cells",
        spec=_spec(front + _bars(base, x) + _arrows(base, x, True, _color()) + _points(base, x, y)),
    )


def _effects() -> Chart:
    return Chart(
        name="effects",
        title="What each knob does",
        lead="Mean difference between cells that differ in that knob alone, in points of the "
        "score: right of zero, the second value is better. The bar is the 95% interval over pairs "
        "of cells; where it crosses zero no difference was seen.",
        source="effects",
        needs=("difference",),
        extreme=("difference", "difference"),
        columns=(
            ("part_title", "part"),
            ("method_label", "method"),
            ("change", "knob"),
            ("difference", "difference"),
            ("low", "95% from"),
            ("high", "to"),
            ("pairs", "pairs of cells"),
        ),
        lacking="no two cells that pass the filter's part and method differ in one knob alone.",
        noun="effect",
        nouns="effects",
        spec=_spec(_intervals("difference", "difference, points"), alt.Step(STEP)),
    )


def _shares() -> Chart:
    return Chart(
        name="shares",
        title="Which knob matters",
        lead="Share of the variance of LoKr's trials, each cell at its selected rate, that a knob "
        "makes, with 95% intervals, and of those pairs of knobs whose interval leaves zero out. "
        "Exact on a full grid, a forest's (fANOVA) on one with holes; nothing is drawn where that "
        "fits badly.",
        source="shares",
        needs=("share",),
        extreme=("share", "share"),
        columns=(
            ("part_title", "part"),
            ("change", "knobs"),
            ("share", "share, %"),
            ("low", "95% from"),
            ("high", "to"),
        ),
        lacking="the knobs of this part could not be ranked; its summary says why.",
        noun="share",
        nouns="shares",
        spec=_spec(_intervals("share", "share, %"), alt.Step(STEP)),
    )


def _against() -> Chart:
    return Chart(
        name="against",
        title="Methods against each other",
        lead="Chosen cell of one method minus chosen cell of another, paired by seed, in points of "
        "the score: right of zero, the first is better. Bars are 95% intervals over seeds, "
        "Student's t with the variance pooled over the part's cells. Over all parts, LoKr's alone.",
        source="against",
        needs=("difference",),
        extreme=("difference", "difference"),
        columns=(
            ("part_title", "part"),
            ("change", "comparison"),
            ("difference", "difference"),
            ("low", "95% from"),
            ("high", "to"),
            ("seeds", "seeds"),
        ),
        lacking="no two methods that pass the filter share a seed.",
        noun="comparison",
        nouns="comparisons",
        spec=_spec(_intervals("difference", "difference, points"), alt.Step(STEP)),
    )


def _sizes() -> Chart:
    base = alt.Chart(alt.NamedData("rows"))
    x = alt.X(
        "beside:Q",
        scale=alt.Scale(type="log", base=2, nice=False, padding=24),
        title="training rows",
        axis=alt.Axis(format=",d"),
    )
    y, color = _value("score", "score, points"), _method()
    line = base.mark_line().encode(x=x, y=y, color=color)
    bars = base.mark_rule(strokeWidth=2, opacity=0.6).encode(
        x=x, y=alt.Y("from:Q", title="score, points"), y2="to:Q", color=color
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=x,
        y=y,
        color=color,
        shape=alt.Shape("method_label:N", title=None),
        tooltip=[
            alt.Tooltip("label:N", title="cell"),
            alt.Tooltip("rows:Q", title="training rows", format=","),
            *_SCORE_TOOLTIP,
        ],
    )
    return Chart(
        name="sizes",
        title="Score over training rows",
        lead="The cell that one would take of each method, by its selection score, in every part "
        "that differs from this one in training rows alone. Bars are 95% intervals over seeds; "
        "methods stand a little beside each other. Of the filter, methods alone count.",
        source="sizes",
        needs=("beside", "score"),
        extreme=("score", "score"),
        columns=(
            ("label", "cell"),
            ("rows", "training rows"),
            ("score", "score"),
            ("low", "95% from"),
            ("high", "to"),
            ("seeds", "seeds"),
        ),
        lacking="this task was trained on one number of rows.",
        noun="cell",
        nouns="cells",
        apart="tasks have scores of their own; choose a part.",
        spec=_spec(line + bars + _arrows(base, x, upright=True, color=color) + dots),
    )


def _rate_alpha() -> Chart:
    return Chart(
        name="rate-alpha",
        title="Learning rate and alpha",
        lead="Mean score of all trials at a rate and an alpha. Both scale the update, so what is "
        "good lies along a diagonal where a higher alpha wants a lower rate.",
        source="trials",
        needs=("alpha", "rate", "score"),
        extreme=("score", "mean score"),
        columns=(
            ("rate", "rate"),
            ("alpha", "alpha"),
            ("score", "mean score"),
            ("n", "trials"),
        ),
        lacking="no trial that passes the filter has an alpha that varies.",
        noun="tile",
        nouns="tiles",
        by=("rate", "alpha"),
        tiles=True,
        spec=_spec(_heat("rate:O", "learning rate", "alpha:O", "alpha")),
    )


def _factor_rank() -> Chart:
    return Chart(
        name="factor-rank",
        title="Factor and rank",
        lead="Mean score of the cells, each at its selected rate, by rank r and decompose_factor "
        "(-1: as square as possible).",
        source="cells",
        needs=("r", "decompose_factor", "score"),
        extreme=("score", "mean score"),
        columns=(
            ("r", "r"),
            ("decompose_factor", "decompose_factor"),
            ("score", "mean score"),
            ("n", "cells"),
        ),
        lacking="r and decompose_factor do not both vary among the cells that pass the filter.",
        noun="tile",
        nouns="tiles",
        by=("r", "decompose_factor"),
        tiles=True,
        spec=_spec(_heat("r:O", "r", "decompose_factor:O", "decompose_factor")),
    )


def _curves() -> Chart:
    base = alt.Chart(alt.NamedData("rows"))
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, format="~s"))
    mean = alt.Y(
        "mean(value):Q",
        title="score, points",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=6),
    )
    band = base.mark_errorband(extent="iqr", opacity=0.18).encode(
        x=x, y=alt.Y("value:Q", title="score, points"), color=_color()
    )
    line = base.mark_line().encode(x=x, y=mean, color=_color())
    dots = base.mark_point(filled=True, size=45).encode(
        x=x,
        y=mean,
        color=_color(),
        shape=_shape(),
        tooltip=[
            alt.Tooltip("group:N", title="group"),
            alt.Tooltip("step:Q"),
            alt.Tooltip("mean(value):Q", title="mean score", format=".2f"),
            alt.Tooltip("count():Q", title="trials"),
        ],
    )
    return Chart(
        name="curves",
        title="Learning curves",
        lead="Score on the report half after each epoch, every cell at its selected rate: the mean "
        "of each color, and a band that holds the middle half of its trials. Color by init_weights "
        "to compare ways to begin.",
        source="curves",
        needs=("value",),
        extreme=("value", "mean score"),
        columns=(("group", "group"), ("step", "step"), ("value", "mean score"), ("n", "trials")),
        lacking="no trial that passes the filter has a history.",
        noun="point",
        nouns="points",
        by=("group", "step"),
        apart="parts are trained for different numbers of steps; choose one of them.",
        spec=_spec(band + line + dots),
    )


def _drift() -> Chart:
    base = alt.Chart(alt.NamedData("rows"))
    x = _axis("drift", "drift: % by which the loss on the base's own pictures rises")
    y = _axis("similarity", "similarity to the true drawings")
    return Chart(
        name="drift",
        title="Fidelity against drift",
        lead="What was learned against what was forgotten, one point a cell at its selected rate. "
        "Up is closer to the truth, right is further from what the base could do before.",
        source="cells",
        needs=("drift", "similarity"),
        extreme=("similarity", "similarity"),
        columns=(
            ("label", "cell"),
            ("drift", "drift, %"),
            ("similarity", "similarity"),
            ("score", "score"),
        ),
        lacking="no cell that passes the filter measured both, which only pictures have.",
        noun="cell",
        nouns="cells",
        spec=_spec(_points(base, alt.X(**x), alt.Y(**y))),
    )


def _cost() -> Chart:
    base = alt.Chart(alt.NamedData("rows"))
    x = alt.X(
        "step_ms:Q",
        title="milliseconds a training step, alone on the device",
        scale=LOG,
        axis=alt.Axis(tickCount=5, format="~s"),
    )
    return Chart(
        name="cost",
        title="Quality against time",
        lead="What a step of one trial alone takes, from the cost measurements, never from a pack. "
        "Up is better, left is faster.",
        source="costs",
        needs=("step_ms", "score"),
        extreme=("step_ms", "milliseconds a step"),
        columns=(
            ("label", "cell"),
            ("hardware", "hardware"),
            ("step_ms", "ms a step"),
            ("peak_gib", "peak GiB"),
            ("joules", "joules for 1,000 rows"),
            ("score", "score"),
        ),
        lacking="the cost of these cells was not measured: "
        "python -m experiments cost STUDY does it on an idle device.",
        noun="measurement",
        nouns="measurements",
        spec=_spec(_points(base, x, _value("score", "score, points"))),
    )


_CHARTS: tuple[Callable[[], Chart], ...] = (
    _quality,
    _effects,
    _shares,
    _against,
    _rate_alpha,
    _factor_rank,
    _sizes,
    _curves,
    _drift,
    _cost,
)


def _points(base: alt.Chart, x: alt.X, y: alt.Y) -> alt.Chart:
    return base.mark_point(filled=True, size=70, opacity=0.9).encode(
        x=x,
        y=y,
        color=_color(),
        shape=_shape(),
        tooltip=[
            alt.Tooltip("label:N", title="cell"),
            *_SCORE_TOOLTIP,
            alt.Tooltip("trainable:Q", format=","),
            alt.Tooltip("rate:N", title="selected rate"),
            alt.Tooltip("seeds:Q"),
        ],
    )


def _bars(base: alt.Chart, x: alt.X) -> alt.Chart:
    return base.mark_rule(opacity=0.45).encode(
        x=x,
        y=alt.Y("from:Q", title="score, points", scale=FREE),
        y2="to:Q",
        color=_color(),
    )


def _arrows(base: alt.Chart, along: Any, upright: bool, color: alt.Color) -> alt.LayerChart:
    """At ends of intervals that were cut. Every row is in the layer: one of none has no extent."""

    def ends(field: str, shape: str) -> alt.Chart:
        marks = base.mark_point(filled=True, size=60, shape=shape).encode(
            color=color, opacity=alt.condition(f"datum.cut_{field}", alt.value(1), alt.value(0))
        )
        end = {"low": "from", "high": "to"}[field]
        if upright:
            return marks.encode(x=along, y=alt.Y(f"{end}:Q", title="score, points"))
        return marks.encode(x=alt.X(f"{end}:Q"), y=along)

    low, high = ("triangle-down", "triangle-up") if upright else ("triangle-left", "triangle-right")
    return ends("low", low) + ends("high", high)


def _intervals(field: str, title: str) -> alt.LayerChart:
    """Named rows, each a number with its interval, and the line of zero."""
    base = alt.Chart(alt.NamedData("rows"))
    y = alt.Y("change:N", sort=None, title=None)
    method = _method()
    zero = base.mark_rule(color="currentColor", opacity=0.6).encode(x=alt.datum(0))
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("from:Q", title=title, axis=alt.Axis(tickCount=6)), x2="to:Q", y=y, color=method
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X(f"{field}:Q", title=title),
        y=y,
        color=method,
        shape=alt.Shape("method_label:N", title=None),
        tooltip=[
            alt.Tooltip("part_title:N", title="part"),
            alt.Tooltip("change:N", title="what"),
            alt.Tooltip(f"{field}:Q", format=".2f"),
            alt.Tooltip("low:Q", title="95% from", format=".2f"),
            alt.Tooltip("high:Q", title="to", format=".2f"),
        ],
    )
    return zero + bars + _arrows(base, y, False, method) + dots


def _heat(x: str, x_title: str, y: str, y_title: str) -> alt.LayerChart:
    """Mean score by two knobs, the number on each tile."""
    across = alt.X(x, title=x_title, sort=None, axis=alt.Axis(labelAngle=0))
    up = alt.Y(y, title=y_title, sort=None)
    base = alt.Chart(alt.NamedData("rows"))
    tiles = base.mark_rect(stroke="currentColor", strokeOpacity=0.25).encode(
        x=across,
        y=up,
        color=alt.Color("score:Q", title="score", scale=alt.Scale(scheme="cividis")),
        tooltip=[
            alt.Tooltip(x, title=x_title),
            alt.Tooltip(y, title=y_title),
            alt.Tooltip("score:Q", title="mean score", format=".2f"),
            alt.Tooltip("n:Q", title="of"),
        ],
    )
    numbers = base.mark_text(fontSize=13).encode(
        x=across,
        y=up,
        text=alt.Text("score:Q", format=".1f"),
        color=alt.condition("datum.bright", alt.value("#000000"), alt.value("#ffffff")),
    )
    return tiles + numbers


def _value(field: str, title: str) -> alt.Y:
    return alt.Y(f"{field}:Q", title=title, scale=FREE, axis=alt.Axis(tickCount=6))


def _axis(field: str, title: str) -> dict[str, Any]:
    return {
        "shorthand": f"{field}:Q",
        "title": title,
        "scale": FREE,
        "axis": alt.Axis(tickCount=6),
    }


def _color() -> alt.Color:
    return alt.Color("group:N", title=None, legend=alt.Legend(orient="bottom"))


def _method() -> alt.Color:
    return alt.Color("method_label:N", title=None, legend=alt.Legend(orient="bottom"))


def _shape() -> alt.Shape:
    return alt.Shape("group:N", title=None)


def _spec(chart: alt.Chart | alt.LayerChart, height: int | alt.Step = HEIGHT) -> dict[str, Any]:
    return chart.properties(width="container", height=height).to_dict()
