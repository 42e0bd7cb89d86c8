"""Learning curves by how the factors start: the training loss by step, the score by epoch.

c: cells that every init mode has, s: steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.settings import knobs, of_method, require_scores, twins, whole
from analysis.figures.style import PAGE, SERIES, Lacking, Style, blank, framed, key, styled
from analysis.load import spell
from analysis.part import Part

MODE = "init_weights"
WINDOW = 20
"""Steps of a running mean: a batch is mostly noise."""
BAND = (0.25, 0.75)
_NOTE = (
    "LoKr at each cell's selected rate, mean over seeds, then over the {cells} cells that every "
    "init has; band: the middle half of the cells. Loss: running mean over {window} steps."
)


@styled
def draw(part: Part) -> Figure:
    """Two panels: training loss over steps, score on the report half over epochs.

    Raises:
        Lacking: one init mode only, no cell that all of them have, or no loss of a step.
    """
    require_scores(part)
    same, part = twins(part), whole(part)
    trials = shared_cells(part)
    curves = {mode: _losses(part, own) for mode, own in _by_mode(trials)}
    scores = {mode: _scores(part, own) for mode, own in _by_mode(trials)}
    figure = blank(PAGE, 2.5)
    left, right = figure.subplots(1, 2)
    window = min(WINDOW, min(len(curve.columns) for curve in curves.values()))
    _bands(left, {mode: smooth(curve, window) for mode, curve in curves.items()})
    _bands(right, {mode: 100 * table for mode, table in scores.items()}, markers=True)
    left.set(xlabel="step", ylabel="training loss")
    right.set(xlabel="epoch", ylabel=f"{part.metric}, points")
    right.set_xticks(next(iter(scores.values())).columns)
    handles = [key(look, f"init: {mode}", True) for mode, look in zip(curves, SERIES, strict=False)]
    note = _NOTE.format(cells=trials["setting"].nunique(), window=window) + same
    return framed(figure, part.title, note, handles)


def shared_cells(part: Part) -> pd.DataFrame:
    """The trials at the selected rates of the cells whose other knobs every init mode has.

    Args:
        part: from :func:`analysis.figures.settings.whole`.

    Returns:
        Trials with ``init_weights`` and ``setting``, the other knobs' values spelled.
    """
    if MODE not in knobs(part.trials):
        raise Lacking(f"{MODE} has one value in every LoKr trial")
    trials = of_method(part.selected)
    trials = trials[trials["status"] == "ok"]
    others = [knob for knob in knobs(part.trials) if knob != MODE]
    rows = zip(*(trials[knob] for knob in others), strict=True) if others else [()] * len(trials)
    trials = trials.assign(setting=[" ".join(map(spell, row)) for row in rows])
    modes = trials.groupby("setting")[MODE].nunique()
    whole = trials[trials["setting"].map(modes) == trials[MODE].nunique()]
    if whole.empty:
        raise Lacking("no cell differs from another in init_weights alone")
    return whole


def smooth(curves: pd.DataFrame, window: int) -> pd.DataFrame:
    """Running means over the columns, (c, s) to (c, s - window + 1), named by their last step."""
    return curves.T.rolling(window).mean().dropna(how="all").T


def steps(folder: Path, trial: str) -> np.ndarray:
    """(s,) float, a trial's training loss at every step, of all epochs; NaN where it is null.

    Args:
        folder: ``results/<study>``.
        trial: its id.
    """
    losses = [loss for epoch in _history(folder, trial) for loss in epoch.get("losses") or ()]
    return np.array(losses, float)


def _history(folder: Path, trial: str) -> list[dict]:
    return json.loads((folder / f"{trial}.json").read_bytes())["history"]


def _by_mode(trials: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for mode in sorted(trials[MODE].unique(), key=str):
        yield spell(mode), trials[trials[MODE] == mode]


def _losses(part: Part, trials: pd.DataFrame) -> pd.DataFrame:
    """(c, s), a cell's loss at each step, mean over seeds."""
    curves = [steps(part.folder, trial) for trial in trials["equals"]]
    if not all(map(len, curves)):
        raise Lacking("the results hold no loss of each step")
    table = pd.DataFrame(curves, index=trials["setting"])
    return table.groupby(level=0).mean().rename(columns=lambda step: step + 1)


def _scores(part: Part, trials: pd.DataFrame) -> pd.DataFrame:
    """(c, epochs), a cell's score on the report half after each epoch, mean over seeds."""
    rows = [
        {"setting": setting, "epoch": epoch["epoch"], "score": epoch["report"][part.metric]}
        for setting, trial in zip(trials["setting"], trials["equals"], strict=True)
        for epoch in _history(part.folder, trial)
    ]
    return pd.DataFrame(rows).groupby(["setting", "epoch"])["score"].mean().unstack()


def _bands(axes: Axes, tables: Mapping[str, pd.DataFrame], markers: bool = False) -> None:
    """A mean line and the middle half of the rows of each table, over its columns."""
    looks: Iterator[Style] = iter(SERIES)
    for table in tables.values():
        look = next(looks)
        x = table.columns.to_numpy(float)
        low, high = (table.quantile(share) for share in BAND)
        axes.fill_between(x, low, high, color=look.color, alpha=0.18, linewidth=0)
        marker = look.marker if markers else None
        axes.plot(x, table.mean(), color=look.color, linestyle=look.line, marker=marker)
    axes.grid(True)
