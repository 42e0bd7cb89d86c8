"""What each knob of a study does, and how each method's best cell stands to the others': paired
differences of one metric, every cell at its selected rate.

Pairs that differ in one knob alone stand in for a model of the whole grid: nothing has to be
additive, and a cell that collapsed into another just makes no pair. The interval of a knob's effect
is the percentile bootstrap of Efron and Tibshirani, An Introduction to the Bootstrap (1993),
chapter 13, of clusters: a cell pair is drawn with all its seeds. It tells how the effect varies
between the cells of this grid. The seeds, the training rows and the dev rows are the same in every
pair, so it does not tell how it would vary with other data. Two cells are compared over their few
seeds, where that bootstrap would be far too narrow: there it is Student's t interval.

n: units that are drawn (cell pairs, or the seeds of the only one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from scipy import stats

from analysis import labels
from analysis.load import knobs_of, load, spell
from analysis.selection import cells, judged, select_rates
from analysis.tables import Column, fitting, identity

SCORES = ("score", "selection_score", "full_dev_best")
RESAMPLES = 10_000
LEVEL = 0.95
SMALL, LARGE, SHARE = "lokr", "lora", 20
"""TINY is the best cell of SMALL with at most 1/SHARE of the adapter parameters of LARGE's best."""
TINY = f"{SMALL} (small)"
_POINTS = {*SCORES, "style", "retrieval_top1", "retrieval_top5", "drift"}
"""Shares, shown as points of 100."""
_DIGITS = {**dict.fromkeys(_POINTS, 2), "frechet": 1, "vendi": 2}
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_KNOBS = (
    "diff: {metric}{unit} at to minus at from, mean over pairs of cells that differ in this knob "
    "alone, each at its selected rate, trials paired by seed. 95%: percentile bootstrap, "
    f"{RESAMPLES:,} resamples of cell pairs (*: of the seeds of the only pair, too narrow). same: "
    "pairs that go the way of the mean. All pairs share seeds and data: the interval is about the "
    "cells of this grid."
)
_BEST = (
    "Each method's cell with the best selection score, at its selected rate; {metric}{unit}, mean "
    "± standard error over seeds."
)
_AGAINST = (
    "diff: {metric}{unit}, method minus against, trials paired by seed; 95%: Student's t "
    "over the seeds, which are few. same: seeds that go the way of the mean. its se: "
    "standard error of the cell it is compared with."
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
        _say(console, f"{name} holds no result of this schema and was left out", "yellow")
    found = []
    for (task, base), part in frame.groupby(["trial.task", "trial.base"]):
        knobs, against = knob_effects(part, metric), comparisons(part, metric)
        _print(Part(part, f"{task} on {Path(str(base)).name}", metric, console), knobs, against)
        found += [rows.assign(task=task, base=base) for rows in (knobs, against)]
    return _write(found, folder / "figures" / f"effects-{metric}.csv", console)


def metrics(frame: pd.DataFrame) -> list[str]:
    """What effects can be asked for; seconds are not: in a pack they are shares of it."""
    return [*SCORES, *(name for name in judged(frame) if not name.endswith("_se"))]


def knob_effects(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The main effect of every knob that varies in a method, for each method.

    Args:
        frame: trials of one task and base, from :func:`analysis.load.load`.
        metric: one of :func:`metrics`.

    Returns:
        One row for each value of a knob after its first: ``kind`` ("knob"), ``method``, ``knob``,
        ``from`` and ``to`` (spelled), then what :func:`estimate` gives.
    """
    trials = _selected(frame, metric)
    rows = []
    for method, knobs in knobs_of(frame).items():
        group = trials[trials["trial.method"] == method]
        for knob in knobs:
            first, *later = _values(frame[frame["trial.method"] == method], knob)
            others = [name for name in knobs if name != knob]
            for value in later:
                changes = differences(group, metric, knob, (first, value), others)
                names = {"kind": "knob", "method": method, "knob": knob, "from": first, "to": value}
                rows.append(names | estimate(changes))
    return pd.DataFrame(rows)


def differences(
    trials: pd.DataFrame, metric: str, knob: str, values: tuple[str, str], others: list[str]
) -> pd.Series:
    """The metric at the second value minus that at the first, where all else is the same.

    Args:
        trials: of one method, each cell at one rate.
        metric: a column.
        knob: the field that differs.
        values: two of its values, spelled.
        others: the fields in which a pair agrees.

    Returns:
        float, indexed by ``pair`` (the other fields, spelled) and ``trial.seed``; empty if no
        two cells pair.
    """
    wide = trials.assign(
        pair=[" ".join(map(spell, row)) for row in _fields(trials, others)],
        value=trials[f"trial.{knob}"].map(spell),
    ).pivot(index=["pair", "trial.seed"], columns="value", values=metric)
    wide = wide.reindex(columns=values)  # no trial may have come through at one of them
    return (wide[values[1]] - wide[values[0]]).dropna()


def estimate(changes: pd.Series) -> dict[str, object]:
    """Mean difference, its interval, and what it rests on.

    Args:
        changes: from :func:`differences`.

    Returns:
        ``difference`` (mean over trial pairs), ``low``, ``high`` and ``interval`` ("pairs" or
        "seeds", what was resampled; missing where there are not two), ``pairs`` (of cells),
        ``seeds``, ``trials`` (pairs of them), ``same`` (cell pairs whose mean has the sign of
        ``difference``).
    """
    if changes.empty:
        nothing = dict.fromkeys(("difference", "low", "high"), math.nan)
        return {**nothing, "interval": None, "pairs": 0, "seeds": 0, "trials": 0, "same": 0}
    clusters = changes.groupby(level="pair").agg(["sum", "count", "mean"])
    alone = len(clusters) == 1
    units = pd.DataFrame({"sum": changes, "count": 1}) if alone else clusters
    low, high = bootstrap(units["sum"].to_numpy(), units["count"].to_numpy())
    return {
        "difference": changes.mean(),
        "low": low,
        "high": high,
        "interval": None if math.isnan(low) else "seeds" if alone else "pairs",
        "pairs": len(clusters),
        "seeds": changes.index.get_level_values("trial.seed").nunique(),
        "trials": len(changes),
        "same": _same(clusters["mean"], changes.mean()),
    }


def bootstrap(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Percentile interval of a mean over clusters, the same at every call.

    Args:
        sums: (n,) float, a cluster's sum.
        counts: (n,) int, how many it sums.

    Returns:
        Bounds at ``LEVEL``; NaN where there is but one cluster.
    """
    if len(sums) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)  # (RESAMPLES,)
    low, high = np.quantile(means, _TAILS)
    return float(low), float(high)


def best_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Each method's best cell by selection score, by a name: the method's, or ``lokr (small)``.

    A cell in which a seed failed at the selected rate is taken only if its method has no other.

    Args:
        frame: trials of one task and base.

    Returns:
        Rows of :func:`analysis.selection.cells`, indexed by name; "lokr (small)" is missing where
        no cell is small enough, a method where none of its trials has a selection score.
    """
    selected = select_rates(frame)
    failed = (selected["status"] != "ok").groupby(selected["cell"]).any()
    table = cells(frame).dropna(subset=["selection_score"])
    table = table.assign(lame=table["cell"].map(failed)).sort_values(
        ["lame", "selection_score", "adapter", "cell"], ascending=[True, False, True, True]
    )
    best = table.drop_duplicates("method").set_index("method", drop=False)
    best = best.loc[sorted(best.index, key=lambda method: (method != SMALL, method))]
    if not {SMALL, LARGE} <= {*best.index}:
        return best
    enough = table["adapter"] <= best.at[LARGE, "adapter"] / SHARE
    small = table[(table["method"] == SMALL) & enough].head(1)
    return pd.concat([best, small.set_axis([TINY] * len(small))])


def comparisons(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Every method's best cell against every other method's, and the small one against LoRA's.

    Args:
        frame: trials of one task and base.
        metric: one of :func:`metrics`.

    Returns:
        One row a comparison: ``kind`` ("best" or "small"), ``method``, ``against``, ``cell``,
        ``against_cell``, what :func:`compared` gives.
    """
    names = best_cells(frame)["cell"]
    trials = _selected(frame, metric)
    by_seed = {
        name: trials[trials["cell"] == cell].set_index("trial.seed")[metric]
        for name, cell in names.items()
    }
    return pd.DataFrame(
        {
            "kind": "small" if one == TINY else "best",
            "method": one,
            "against": other,
            "cell": names[one],
            "against_cell": names[other],
            **compared(by_seed[one], by_seed[other]),
        }
        for one, other in _rivals([*names.index])
    )


def compared(ours: pd.Series, theirs: pd.Series) -> dict[str, object]:
    """Mean difference over the seeds of both, Student's t interval, and theirs' standard error.

    Args:
        ours, theirs: the metric, indexed by seed.

    Returns:
        As :func:`estimate` (``same`` counts seeds), and ``against_se``; numbers that need two
        seeds are missing where there is one.
    """
    changes = (ours - theirs).dropna()
    half = (
        stats.t.ppf(_TAILS[1], len(changes) - 1) * changes.sem() if len(changes) > 1 else math.nan
    )
    mean = changes.mean()
    return {
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "interval": None if math.isnan(half) else "t",
        "pairs": int(len(changes) > 0),
        "seeds": len(changes),
        "trials": len(changes),
        "same": _same(changes, mean),
        "against_se": theirs.sem(),
    }


def _selected(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    trials = select_rates(frame)
    return trials[(trials["status"] == "ok") & trials[metric].notna()]


def _values(trials: pd.DataFrame, knob: str) -> list[str]:
    """A knob's values, spelled, in a fixed order: missing, numbers and flags, words, tuples."""
    return list(dict.fromkeys(map(spell, sorted(trials[f"trial.{knob}"].unique(), key=_order))))


def _order(value: object) -> tuple[int, float, str]:
    if isinstance(value, str):
        return 2, 0, value
    if isinstance(value, tuple):
        return 3, len(value), spell(value)
    return (0, 0, "") if pd.isna(value) else (1, float(value), "")


def _fields(trials: pd.DataFrame, names: list[str]) -> Iterator[tuple[object, ...]]:
    """The fields of each trial; an empty tuple each if there is no name."""
    columns = [trials[f"trial.{name}"] for name in names]
    return zip(*columns, strict=True) if columns else iter([()] * len(trials))


def _same(changes: pd.Series, mean: float) -> int:
    return int((np.sign(changes) == np.sign(mean)).sum())


def _rivals(names: list[str]) -> list[tuple[str, str]]:
    pairs = combinations([name for name in names if name != TINY], 2)
    return [*pairs, *((name, LARGE) for name in names if name == TINY)]


class Part(NamedTuple):
    """The trials of one task and base, and how numbers of the metric are shown."""

    frame: pd.DataFrame
    title: str
    metric: str
    console: Console

    def words(self) -> dict[str, str]:
        """What the score is called in this task (any other metric has its own name); the unit."""
        primary = self.frame["primary"].dropna()
        name = str(primary.iloc[0]) if self.metric == "score" and len(primary) else self.metric
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
            return "one seed"
        text = f"{self.change(row['low'])} to {self.change(row['high'])}"
        return text + ("*" if row["interval"] == "seeds" else "")

    def show(self, title: str, columns: list[Column], caption: str) -> None:
        caption = caption.format(**self.words())
        self.console.print(fitting(title, lambda layout: columns, caption, self.console))


def _print(part: Part, knobs: pd.DataFrame, against: pd.DataFrame) -> None:
    """The tables of one task and base."""
    if len(knobs):
        part.show(f"effects on {part.title}", _knob_columns(part, knobs), _KNOBS)
    else:
        _say(part.console, f"{part.title}: no knob varies in any method")
    best = best_cells(part.frame)
    if len(best):
        notes = labels.explained(best, part.frame)
        part.show("best cells", _best_columns(part, best), f"{_BEST} {notes}".strip())
    if len(against):
        part.show("best cells against each other", _against_columns(part, against), _AGAINST)
    else:
        _say(part.console, f"{part.title}: no two methods to compare")
    for line in _small_lines(part, best, against):
        _say(part.console, line)


def _knob_columns(part: Part, knobs: pd.DataFrame) -> list[Column]:
    table = cells(part.frame)
    short = labels.shortened(table, part.frame)
    texts = {knob: dict(zip(table[knob], short[knob], strict=True)) for knob in labels.knobs(table)}

    def shown(side: str) -> list[str]:
        return [texts[knob].get(v, v) for knob, v in zip(knobs["knob"], knobs[side], strict=True)]

    return [
        Column("method", [*knobs["method"]], number=False),
        Column("knob", [*knobs["knob"]], number=False),
        Column("from", shown("from"), number=False),
        Column("to", shown("to"), number=False),
        *_numbers(part, knobs, "pairs"),
        Column("seeds", [*map(str, knobs["seeds"])]),
    ]


def _best_columns(part: Part, best: pd.DataFrame) -> list[Column]:
    by_cell = _selected(part.frame, part.metric).groupby("cell")[part.metric]
    means, errors = (values.reindex(best["cell"]) for values in (by_cell.mean(), by_cell.sem()))
    scores = [
        part.value(mean) + ("" if math.isnan(error) else f" ± {part.value(error)}")
        for mean, error in zip(means, errors, strict=True)
    ]
    return [
        *identity(labels.shortened(best, part.frame).assign(method=best.index)),
        Column("adapter", [*map(labels.whole, best["adapter"])]),
        Column("rate", [f"{rate:g}" for rate in best["rate"]]),
        Column(part.words()["metric"], scores),
    ]


def _against_columns(part: Part, against: pd.DataFrame) -> list[Column]:
    return [
        Column("method", [*against["method"]], number=False),
        Column("against", [*against["against"]], number=False),
        *_numbers(part, against, "seeds"),
        Column("its se", [*map(part.value, against["against_se"])]),
    ]


def _numbers(part: Part, rows: pd.DataFrame, units: str) -> list[Column]:
    """Difference, interval, and how many of the units go its way."""
    return [
        Column("diff", [*map(part.change, rows["difference"])]),
        Column("95%", [*map(part.bounds, rows.to_dict("records"))]),
        Column("same", [f"{s} of {n}" for s, n in zip(rows["same"], rows[units], strict=True)]),
    ]


def _small_lines(part: Part, best: pd.DataFrame, against: pd.DataFrame) -> Iterator[str]:
    """What the small cell comes to in a sentence, or that there is none."""
    if not {SMALL, LARGE} <= {*best.index}:
        return
    bound = f"1/{SHARE} of {LARGE}'s {labels.whole(best.at[LARGE, 'adapter'])} adapter parameters"
    if TINY not in best.index:
        yield f"small   no {SMALL} cell has at most {bound}"
        return
    (row,) = against[against["kind"] == "small"].to_dict("records")
    size = labels.whole(best.at[TINY, "adapter"])
    change = part.change(row["difference"]) or "no seed in common"
    error = part.value(row["against_se"]) or "not known"
    yield f"small   {size} are at most {bound}: {change} against its best, standard error {error}"


def _write(found: list[pd.DataFrame], path: Path, console: Console) -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = pd.concat([rows for rows in found if len(rows)] or found, ignore_index=True)
    front = ["task", "base"] if len(rows) else []
    rows[[*front, *(c for c in rows if c not in front)]].to_csv(path, index=False)
    _say(console, f"table   {path}")
    return path


def _say(console: Console, line: str, style: str | None = None) -> None:
    """One line whatever its length, so that a path can be copied."""
    console.print(line, style=style, soft_wrap=True, highlight=False, markup=False)
