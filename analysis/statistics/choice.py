"""Which cell one would take, without a look at the scores that are reported."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from analysis.part import Part
from analysis.selection import ranked


class Worth(NamedTuple):
    """What the choice of a cell comes to with a seed that it was not chosen by.

    Args:
        mean: of ``values``; NaN where there is none.
        runs: how many ``values`` there are.
        lost: choices whose left-out run failed or never ran: they are in no mean.
        values: the left-out runs' scores, in the order of their seeds.
        cells: that were chosen, one a seed; they need not be the same.
    """

    mean: float
    runs: int
    lost: int
    values: tuple[float, ...]
    cells: tuple[str, ...]


def pick(part: Part, method: str | None = None) -> str:
    """The cell that one would take: the best mean selection score, fewest parameters on a tie.

    A cell in which a seed failed at the selected rate, or that has fewer seeds than most of its
    method, is taken only if there is no other: :func:`analysis.selection.ranked`.

    Args:
        method: only its cells; all by default.

    Raises:
        ValueError: no cell of the method has a selection score.
    """
    table = part.ranked
    if method is not None:
        table = table[table["method"] == method]
    if table.empty and method is None:
        raise ValueError(f"no trial in {part.title} has a score")
    if table.empty:
        there = ", ".join(sorted(part.cells["method"].unique()))
        raise ValueError(f"method {method!r} has no score in {part.title}; there are {there}")
    return str(table["cell"].iloc[0])


def worth(part: Part, method: str | None = None, metric: str = "score") -> Worth:
    """The mean of :func:`crossed`, and what it rests on.

    Args:
        part, method, metric: of :func:`crossed`.
    """
    table = crossed(part, method, metric)
    values = table["value"].dropna()
    return Worth(
        mean=float(values.mean()) if len(values) else math.nan,
        runs=len(values),
        lost=len(table) - len(values),
        values=tuple(map(float, values)),
        cells=tuple(table["cell"]),
    )


def crossed(part: Part, method: str | None = None, metric: str = "score") -> pd.DataFrame:
    """What the choice is worth to somebody with other seeds: each seed in turn is left out, cell
    and rate are chosen by the selection scores of the others, and the left-out run is reported.
    It is leave-one-out cross-validation (Stone 1974) of the choice.

    :func:`pick` chooses and reports the same runs, so it is flattered by lucky seeds, the more so
    the more cells it chooses from. The mean of these values is not; it is that of a choice with one
    seed less.

    Args:
        method: only its cells; all by default.
        metric: that is reported, a column of the trials.

    Returns:
        One row a seed, in their order: ``seed``, ``cell`` and ``rate`` (the choice), ``value``
        (NaN where the left-out run failed or is not there). Empty where there is but one seed.
    """
    trials = part.trials
    if method is not None:
        trials = trials[trials["trial.method"] == method]
    seeds = sorted(trials["trial.seed"].unique())
    rows = [_left_out(trials, seed, metric) for seed in seeds] if len(seeds) > 1 else []
    found = [row for row in rows if row is not None]
    return pd.DataFrame(found, columns=["seed", "cell", "rate", "value"])


def _left_out(trials: pd.DataFrame, seed: int, metric: str) -> dict[str, object] | None:
    """The choice without a seed and what that seed makes of it; None if no other has a score."""
    own = trials["trial.seed"] == seed
    table = ranked(trials[~own])
    if table.empty:
        return None
    cell, rate = table.iloc[0][["cell", "rate"]]
    run = trials[own & (trials["cell"] == cell) & (trials["trial.learning_rate"] == rate)]
    values = run[metric].where(run["status"] == "ok")
    value = float(values.iloc[0]) if len(values) else math.nan
    return {"seed": seed, "cell": cell, "rate": rate, "value": value}
