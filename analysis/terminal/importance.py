"""What makes the differences between a study's trials: shares of variance in two tables a part."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis.effects import metrics
from analysis.importance import VIEWS, Importance, importance
from analysis.load import load
from analysis.part import Part, parts
from analysis.scale import explained
from analysis.shares import percents
from analysis.terminal.effects import UnknownMetricError
from analysis.terminal.layout import Column, fitting
from analysis.terminal.say import say, warn

LEAST = 0.01
"""Pairs with a smaller share are one row together."""
_TITLES = {"tuned": "each cell at its selected rate", "raw": "all rates"}
_CAPTION = (
    "share: of the variance of one trial's {metric}, in percent of 100; noise taken off, so that "
    "what does nothing is about 0, of either sign. 95%: {interval}. seed: a shift that all cells "
    "share; noise: what else a seed does, standard deviation {noise}."
)
_INTERVALS = {
    "exact": "from the noise of the seeds, exact grid",
    "fanova": (
        "percentiles over resampled cells, {holes} holes in the grid filled by a random forest, "
        "cross-validated R² {fit:.2f}"
    ),
}
_SCALE = (
    "What linear models explain of {metric}: logarithms of the numbers named, with squares and "
    "products; knobs as categories. terms: free coefficients. held out: R² on cells that the "
    "model was not fitted to. alpha / r is PEFT's scale; where rate alpha / r or rate alpha do as "
    "well as alpha x r x rate, tuning alpha is tuning the rate."
)


class UnknownMethodError(ValueError):
    """The study has no such method; the message is one line for the user."""


def report(
    folder: Path, metric: str = "score", method: str = "lokr", console: Console | None = None
) -> Path:
    """Print what matters in a study; write ``<folder>/figures/importance-<method>-<metric>.csv``.

    Args:
        folder: ``results/<study>``.
        metric: one of :func:`analysis.effects.metrics`.
        method: whose knobs.
        console: where to print, the terminal by default.

    Returns:
        The file: the tables of every part and view, with what speaks against them (``doubts``), and
        a row without numbers, with the reason, for each that was refused.

    Raises:
        FileNotFoundError: the folder holds no results.
        UnknownMetricError, UnknownMethodError: the study does not have it.
        DamagedError: the study's ``collapsed.jsonl`` is damaged.
    """
    console = console or Console()
    frame = load(folder)
    _check(frame, folder, metric, method)
    for name in frame.attrs["unread"]:
        warn(console, f"{name} holds no result of this schema and was left out")
    found = []
    for part in parts(frame, folder):
        for view in VIEWS:
            one = importance(part, metric, method, view)
            _print(part, metric, one, console)
            found.append(_flat(part, one))
        _print_scale(part, metric, method, console)
    path = folder / "figures" / f"importance-{method}-{metric}.csv"
    path.parent.mkdir(exist_ok=True)
    pd.concat(found, ignore_index=True).to_csv(path, index=False)
    say(console, f"table   {path}")
    return path


def _check(frame: pd.DataFrame, folder: Path, metric: str, method: str) -> None:
    if metric not in metrics(frame):
        allowed = ", ".join(metrics(frame))
        raise UnknownMetricError(f"metric {metric!r} is not in {folder}; it has {allowed}")
    methods = sorted(frame["trial.method"].unique())
    if method not in methods:
        raise UnknownMethodError(
            f"method {method!r} is not in {folder}; it has {', '.join(methods)}"
        )


def _print(part: Part, metric: str, found: Importance, console: Console) -> None:
    title = f"{part.title}, {_TITLES[found.view]}"
    if found.refused:
        warn(console, f"{title}: nothing is ranked: {found.refused}")
        return
    rows = _few(found.table)
    columns = [
        Column("variable", [_named(row) for row in rows.to_dict("records")], number=False),
        Column("share", [f"{share:.1f}" for share in percents(rows["share"], 1)]),
        Column("95%", [*map(_bounds, rows["low"], rows["high"])]),
    ]
    named = part.metric if metric == "score" else metric
    caption = f"{_caption(named, found)}{_lost(found)}"
    console.print(fitting(title, lambda layout: columns, caption, console))
    for doubt in found.doubts:
        warn(console, f"doubt   {doubt}")


def _print_scale(part: Part, metric: str, method: str, console: Console) -> None:
    table = explained(part, metric, method)
    if table.empty:
        return
    columns = [
        Column("model", [*table["model"]], number=False),
        Column("terms", [*map(str, table["terms"])]),
        *(
            Column(heading, [f"{value:z.2f}" for value in table[name]])
            for name, heading in {"r2": "R²", "held_out": "held out"}.items()
        ),
    ]
    caption = _SCALE.format(metric=part.metric if metric == "score" else metric)
    title = f"{part.title}, effective scale and size"
    console.print(fitting(title, lambda layout: columns, caption, console))


def _few(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its small pairs as one row, which has no interval."""
    small = table["kind"].eq("pair") & (table["share"] < LEAST)
    if small.sum() < 2:
        return table
    name = f"{small.sum()} other pairs"
    together = {"kind": "pair", "knobs": (name,), "share": table["share"][small].sum()}
    kept = table[~small]
    after = kept["kind"].isin(("main", "pair"))
    return pd.concat([kept[after], pd.DataFrame([together]), kept[~after]], ignore_index=True)


def _named(row: dict) -> str:
    words = {"higher": "three and more together", "noise": "noise"}
    return " x ".join(row["knobs"]) or words[row["kind"]]


def _bounds(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def _caption(metric: str, found: Importance) -> str:
    interval = _INTERVALS[str(found.how)].format(holes=found.holes, fit=found.fit)
    return _CAPTION.format(metric=metric, interval=interval, noise=f"{found.noise:.4g}")


def _lost(found: Importance) -> str:
    if not found.lost:
        return ""
    trials = "trial has" if found.lost == 1 else "trials have"
    return f" {found.lost} {trials} no number; other seeds stand for the cell."


def _flat(part: Part, found: Importance) -> pd.DataFrame:
    names = {"task": part.task, "base": part.base} | ({"rows": part.rows} if part.sizes else {})
    table = found.table.assign(knobs=found.table["knobs"].map(" x ".join))
    if found.refused:
        table = pd.DataFrame([dict.fromkeys(found.table.columns)])
    about = {"view": found.view, "how": found.how, "fit": found.fit, "refused": found.refused}
    about["doubts"] = "; ".join(found.doubts)
    return table.assign(**{name: [value] * len(table) for name, value in (names | about).items()})
