"""A study's two tables: the cells with their scores, and what their samples are worth.

A table that is wider than the terminal is laid out again in a narrower way; numbers are never cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from analysis import labels


class Layout(NamedTuple):
    """How much room a table takes: blanks beside the one between columns, how a mean and its spread
    are joined, whether counts are rounded.
    """

    padding: int = 1
    between: str = " ± "
    rounded: bool = False


class Column(NamedTuple):
    """A heading over texts, one a row."""

    heading: str
    texts: Sequence[str]
    number: bool = True


LAYOUTS = (Layout(), Layout(0), Layout(0, "±"), Layout(0, "±", rounded=True))
"""The first that fits is taken."""
_SCORES = (
    "score: {metric} on the report half of the dev set, rate and epoch chosen on the other half; "
    "mean ± standard deviation, seeds a cell: {seeds}. full: the papers' protocol, best rate and "
    "epoch on the whole dev set that it reports. s: seconds a trial, its share of its pack's."
)


def scores(table: pd.DataFrame, title: str, metric: str, notes: str, console: Console) -> Group:
    """The first table: one row a cell; its caption below it.

    Args:
        table: from :func:`analysis.selection.cells`, its knobs shortened.
        title: task and base.
        metric: name of the score.
        notes: what short knobs stand for.
        console: where it has to fit.
    """
    seeds = ", ".join(str(n) for n in sorted(table["seeds"].unique()))
    caption = f"{_SCORES.format(metric=metric, seeds=seeds)} {notes}".strip()
    return fitting(title, lambda layout: _score_columns(table, layout), caption, console)


def identity(table: pd.DataFrame) -> list[Column]:
    """The columns that name a cell: method and knobs."""
    names = ["method", *labels.knobs(table)]
    return [
        Column(labels.HEADINGS.get(name, name), [str(text) for text in table[name]], number=False)
        for name in names
    ]


def fitting(
    title: str, columns: Callable[[Layout], Iterable[Column]], caption: str, console: Console
) -> Group:
    """A table in the first layout that is not wider than the console, or else in the last."""
    unbounded = console.options.update(width=10_000)
    for layout in LAYOUTS:
        table = _build(title, [*columns(layout)], layout.padding)
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    return Group(table, Text(caption, style="dim italic"))


def _build(title: str, columns: Sequence[Column], padding: int) -> Table:
    """Names may be broken into lines if there is no other way; numbers may not."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), pad_edge=False)
    table.show_edge = padding > 0
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.number else "left",
            no_wrap=column.number,
            overflow="fold",
        )
    for row in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*row)
    return table


def _score_columns(table: pd.DataFrame, layout: Layout) -> list[Column]:
    counted = labels.count if layout.rounded else labels.whole
    columns = [
        *identity(table),
        Column("params" if layout.rounded else "trainable", [*map(counted, table["trainable"])]),
        Column("rate", [f"{rate:g}" for rate in table["rate"]]),
        Column("score", _spreads(table, layout.between)),
        Column("full", [*map(labels.percent, table["full_dev_best"])]),
        Column("s", ["" if math.isnan(s) else f"{s:.1f}" for s in table["seconds"]]),
    ]
    if table["failed"].any():
        columns.append(Column("fail" if layout.rounded else "failed", [*map(str, table["failed"])]))
    return columns


def _spreads(table: pd.DataFrame, between: str) -> list[str]:
    return [
        labels.percent(score) + ("" if math.isnan(spread) else f"{between}{100 * spread:.1f}")
        for score, spread in zip(table["score"], table["spread"], strict=True)
    ]
