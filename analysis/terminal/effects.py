"""A study's effects in tables: what each knob does, and the methods' best cells side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console

from analysis import labels
from analysis.effects import (
    LARGE,
    SCORES,
    SHARE,
    SMALL,
    TINY,
    best_cells,
    comparisons,
    knob_effects,
    metrics,
    selected,
)
from analysis.load import load
from analysis.part import Part, parts
from analysis.statistics.paired import OWN
from analysis.terminal.layout import Column, fitting, identity
from analysis.terminal.say import say, warn

_POINTS = {*SCORES, "style", "retrieval_top1", "retrieval_top5", "drift"}
"""Shares, shown as points of 100."""
_DIGITS = {**dict.fromkeys(_POINTS, 2), "frechet": 1, "vendi": 2}
_KNOBS = (
    "diff: {metric}{unit} at to minus at from, mean over pairs of cells that differ in this knob "
    "alone, each at its selected rate, trials paired by seed. 95%: Student's t over the cell pairs "
    "(*: over the seeds of the only pair). same: pairs that go the way of the mean. All pairs "
    "share seeds and data: the interval is about the cells of this grid."
)
_BEST = (
    "Each method's cell with the best selection score, at its selected rate; {metric}{unit}, mean "
    "± standard error over seeds."
)
_AGAINST = (
    "diff: {metric}{unit}, method minus against, trials paired by seed; 95%: Student's t with the "
    "noise pooled over all cells (*: over their own seeds alone, one varies far more than the "
    "others); it covers other seeds, not other data, nor the choice of the cells. same: seeds that "
    "go the way of the mean. its se: standard error of the cell it is compared with, over its own "
    "seeds."
)


class UnknownMetricError(ValueError):
    """The study has no such metric; the message is one line for the user."""


def report(folder: Path, metric: str = "score", console: Console | None = None) -> Path:
    """Print a study's effects and write ``<folder>/figures/effects-<metric>.csv``.

    Args:
        folder: ``results/<study>``.
        metric: one of :func:`metrics`.
        console: where to print, the terminal by default.

    Returns:
        The file: rows of :func:`knob_effects` and :func:`comparisons` for every task and base,
        told apart by ``kind``, in the metric's own unit (a share is not multiplied by 100).

    Raises:
        FileNotFoundError: the folder holds no results.
        UnknownMetricError: ``metric`` is not one of the study's.
    """
    console = console or Console()
    frame = load(folder)
    if metric not in metrics(frame):
        allowed = ", ".join(metrics(frame))
        raise UnknownMetricError(f"metric {metric!r} is not in {folder}; it has {allowed}")
    for name in frame.attrs["unread"]:
        warn(console, f"{name} holds no result of this schema and was left out")
    found = []
    for part in parts(frame, folder):
        knobs, against = knob_effects(part.trials, metric), comparisons(part.trials, metric)
        _print(Sheet(part, metric, console), knobs, against)
        names = {"task": part.task, "base": part.base} | ({"rows": part.rows} if part.sizes else {})
        found += [rows.assign(**names) for rows in (knobs, against)]
    return _write(found, folder / "figures" / f"effects-{metric}.csv", console)


class Sheet(NamedTuple):
    """The tables of a part, and how numbers of the metric are shown in them."""

    part: Part
    metric: str
    console: Console

    def words(self) -> dict[str, str]:
        """What the score is called in this task (any other metric has its own name); the unit."""
        name = self.part.metric if self.metric == "score" else self.metric
        return {"metric": name, "unit": " in points" if self.metric in _POINTS else ""}

    def value(self, number: float, sign: str = "") -> str:
        """Empty where it is missing."""
        scale = 100 if self.metric in _POINTS else 1
        digits = _DIGITS.get(self.metric, 3)
        return "" if math.isnan(number) else f"{scale * number:{sign}.{digits}f}"

    def change(self, number: float) -> str:
        return self.value(number, "+")

    def bounds(self, row: Mapping[str, Any]) -> str:
        """The interval, or why there is none."""
        if not row["pairs"]:
            return "no pair"
        if math.isnan(row["low"]):
            return "one seed" if row["seeds"] == 1 else "a seed failed"
        text = f"{self.change(row['low'])} to {self.change(row['high'])}"
        return text + ("*" if row["interval"] in ("seeds", OWN) else "")

    def show(self, title: str, columns: list[Column], caption: str) -> None:
        caption = caption.format(**self.words())
        self.console.print(fitting(title, lambda layout: columns, caption, self.console))


def _print(sheet: Sheet, knobs: pd.DataFrame, against: pd.DataFrame) -> None:
    """The tables of a part."""
    if len(knobs):
        sheet.show(f"effects on {sheet.part.title}", _knob_columns(sheet, knobs), _KNOBS)
    else:
        say(sheet.console, f"{sheet.part.title}: no knob varies in any method")
    best = best_cells(sheet.part.trials)
    if len(best):
        notes = labels.explained(best, sheet.part.trials)
        sheet.show("best cells", _best_columns(sheet, best), f"{_BEST} {notes}".strip())
    if len(against):
        sheet.show("best cells against each other", _against_columns(sheet, against), _AGAINST)
    else:
        say(sheet.console, f"{sheet.part.title}: no two methods to compare")
    for line in _small_lines(sheet, best, against):
        say(sheet.console, line)


def _knob_columns(sheet: Sheet, knobs: pd.DataFrame) -> list[Column]:
    table = sheet.part.cells
    short = labels.shortened(table, sheet.part.trials)
    texts = {knob: dict(zip(table[knob], short[knob], strict=True)) for knob in labels.knobs(table)}

    def shown(side: str) -> list[str]:
        return [texts[knob].get(v, v) for knob, v in zip(knobs["knob"], knobs[side], strict=True)]

    return [
        Column("method", [*knobs["method"]], number=False),
        Column("knob", [*knobs["knob"]], number=False),
        Column("from", shown("from"), number=False),
        Column("to", shown("to"), number=False),
        *_numbers(sheet, knobs, "pairs"),
        Column("seeds", [*map(str, knobs["seeds"])]),
    ]


def _best_columns(sheet: Sheet, best: pd.DataFrame) -> list[Column]:
    by_cell = selected(sheet.part.trials, sheet.metric).groupby("cell")[sheet.metric]
    means, errors = (values.reindex(best["cell"]) for values in (by_cell.mean(), by_cell.sem()))
    scores = [
        sheet.value(mean) + ("" if math.isnan(error) else f" ± {sheet.value(error)}")
        for mean, error in zip(means, errors, strict=True)
    ]
    return [
        *identity(labels.shortened(best, sheet.part.trials).assign(method=best.index)),
        Column("adapter", [*map(labels.whole, best["adapter"])]),
        Column("rate", [f"{rate:g}" for rate in best["rate"]]),
        Column(sheet.words()["metric"], scores),
    ]


def _against_columns(sheet: Sheet, against: pd.DataFrame) -> list[Column]:
    return [
        Column("method", [*against["method"]], number=False),
        Column("against", [*against["against"]], number=False),
        *_numbers(sheet, against, "seeds"),
        Column("its se", [*map(sheet.value, against["against_se"])]),
    ]


def _numbers(sheet: Sheet, rows: pd.DataFrame, units: str) -> list[Column]:
    """Difference, interval, and how many of the units go its way."""
    return [
        Column("diff", [*map(sheet.change, rows["difference"])]),
        Column("95%", [*map(sheet.bounds, rows.to_dict("records"))]),
        Column("same", [f"{s} of {n}" for s, n in zip(rows["same"], rows[units], strict=True)]),
    ]


def _small_lines(sheet: Sheet, best: pd.DataFrame, against: pd.DataFrame) -> Iterator[str]:
    """What the small cell comes to in a sentence, or that there is none."""
    if not {SMALL, LARGE} <= {*best.index}:
        return
    bound = f"1/{SHARE} of {LARGE}'s {labels.whole(best.at[LARGE, 'adapter'])} adapter parameters"
    if TINY not in best.index:
        yield f"small   no {SMALL} cell has at most {bound}"
        return
    (row,) = against[against["kind"] == "small"].to_dict("records")
    size = labels.whole(best.at[TINY, "adapter"])
    change = sheet.change(row["difference"]) or "no seed in common"
    error = sheet.value(row["against_se"]) or "not known"
    yield f"small   {size} are at most {bound}: {change} against its best, standard error {error}"


def _write(found: list[pd.DataFrame], path: Path, console: Console) -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = pd.concat([rows for rows in found if len(rows)] or found, ignore_index=True)
    front = [name for name in ("task", "base", "rows") if name in rows]
    rows[[*front, *(c for c in rows if c not in front)]].to_csv(path, index=False)
    say(console, f"table   {path}")
    return path
