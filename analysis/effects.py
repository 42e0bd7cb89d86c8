"""What each knob of a study does, and how each method's best cell stands to the others': paired
differences of one metric, every cell at its selected rate.

Pairs that differ in one knob alone stand in for a model of the whole grid: nothing has to be
additive, and a cell that collapsed into another just makes no pair. The interval of a knob's effect
is Student's t over the cell pairs' means, over the seeds of the pair where there is but one. It
tells how the effect varies between the cells of this grid. The seeds, the training rows and the dev
rows are the same in every pair, so it does not tell how it would vary with other data. Where a knob
does nothing, it leaves zero out one time in twenty from two pairs on
(``tests/analysis/test_effects.py``); a bootstrap of two pairs does every other time. With six cell
pairs or more a knob's effect has a p value too, from the exact test that turns the pairs' signs.

Two methods' cells are compared by :mod:`analysis.statistics.paired`, as everywhere: Student's t
with the noise of all cells, since two or three seeds tell next to nothing about that of two.

n: units of an interval (cell pairs, or the seeds of the only one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.load import knobs_of, spell
from analysis.selection import cells, judged, ranked, select_rates
from analysis.statistics import paired
from analysis.statistics.additive import by_seed, failed
from analysis.statistics.bootstrap import NOTHING, Interval, tails
from analysis.statistics.paired import FLIP, NONE, UNITS, holm, sign_flip

SCORES = ("score", "selection_score", "full_dev_best")
SMALL, LARGE, SHARE = "lokr", "lora", 20
"""TINY is the best cell of SMALL with at most 1/SHARE of the adapter parameters of LARGE's best."""
TINY = f"{SMALL} (small)"


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
        ``from`` and ``to`` (spelled), then what :func:`estimate` gives, and ``p_holm`` (Holm's
        correction over all rows).
    """
    trials = selected(frame, metric)
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
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy())) if len(table) else table


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
        ``difference`` (mean of the cell pairs' means), ``low``, ``high`` (95%, Student's t) and
        ``interval`` ("pairs" or "seeds", over what; missing where there are not two), ``pairs``
        (of cells), ``seeds``, ``trials`` (pairs of them), ``same`` (cell pairs whose mean has the
        sign of ``difference``), ``p`` and ``test`` ("sign-flip" over the means of the cell pairs;
        "none", and p is missing, where there are fewer than six).
    """
    if changes.empty:
        nothing = dict.fromkeys(("difference", "low", "high", "p"), math.nan)
        counts = dict.fromkeys(("pairs", "seeds", "trials", "same"), 0)
        return {**nothing, **counts, "interval": None, "test": NONE}
    means = changes.groupby(level="pair").mean()
    alone = len(means) == 1
    low, high = _interval(changes if alone else means)
    return {
        "difference": means.mean(),
        "low": low,
        "high": high,
        "interval": None if math.isnan(low) else "seeds" if alone else "pairs",
        "pairs": len(means),
        "seeds": changes.index.get_level_values("trial.seed").nunique(),
        "trials": len(changes),
        "same": _same(means, means.mean()),
        "p": sign_flip(means.to_numpy()),
        "test": FLIP if len(means) >= UNITS else NONE,
    }


def best_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Each method's best cell by selection score, by a name: the method's, or ``lokr (small)``.

    A cell that is not whole is taken only if its method has no other:
    :func:`analysis.selection.ranked`.

    Args:
        frame: trials of one task and base.

    Returns:
        Rows of :func:`analysis.selection.cells`, indexed by name; "lokr (small)" is missing where
        no cell is small enough, a method where none of its trials has a selection score.
    """
    order = ranked(frame)["cell"]
    table = cells(frame).set_index("cell").loc[order].reset_index()
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
        ``against_cell``, what :func:`compared` gives, and from
        :func:`analysis.statistics.paired.compared` ``low`` and ``high`` (95%, one at a time),
        ``interval`` ("pooled t"; "own t" where one of the two cells varies far more than the
        others; missing, as the bounds, where a seed of either failed or none is shared), ``p`` and
        ``test``.
    """
    names = best_cells(frame)["cell"]
    trials = select_rates(frame)
    values, lost = by_seed(trials, metric), failed(trials, metric)
    tested = {name: paired.compared(values, lost, cell) for name, cell in names.items()}
    return pd.DataFrame(
        {
            "kind": "small" if one == TINY else "best",
            "method": one,
            "against": other,
            "cell": names[one],
            "against_cell": names[other],
            **compared(values.loc[names[one]], values.loc[names[other]]),
            **tested[other].loc[names[one], ["low", "high", "interval", "p", "test"]],
        }
        for one, other in _rivals([*names.index])
    )


def compared(ours: pd.Series, theirs: pd.Series) -> dict[str, object]:
    """Mean difference over the seeds of both, and what those seeds alone say of it.

    Args:
        ours, theirs: the metric, indexed by seed; NaN where a trial has none.

    Returns:
        ``difference``, ``pairs`` (of cells), ``seeds``, ``trials`` (pairs of them), ``same``
        (seeds whose difference has its sign), ``own_low`` and ``own_high`` (95%, Student's t over
        their own seeds), ``against_se`` (theirs' standard error); numbers that need two seeds are
        missing where there is one.
    """
    changes = (ours - theirs).dropna()
    low, high = _interval(changes)
    return {
        "difference": changes.mean(),
        "pairs": int(len(changes) > 0),
        "seeds": len(changes),
        "trials": len(changes),
        "same": _same(changes, changes.mean()),
        "own_low": low,
        "own_high": high,
        "against_se": theirs.sem(),
    }


def selected(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The trials at their cells' selected rates that ended well and have the metric."""
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


def _interval(changes: pd.Series) -> Interval:
    """Student's t of the mean; NaN where there are not two."""
    if len(changes) < 2:
        return NOTHING
    half = stats.t.ppf(tails()[1], len(changes) - 1) * changes.sem()
    return Interval(changes.mean() - half, changes.mean() + half)


def _same(changes: pd.Series, mean: float) -> int:
    return int((np.sign(changes) == np.sign(mean)).sum())


def _rivals(names: list[str]) -> list[tuple[str, str]]:
    pairs = combinations([name for name in names if name != TINY], 2)
    return [*pairs, *((name, LARGE) for name in names if name == TINY)]
