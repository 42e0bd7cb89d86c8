"""What one part says about which LoKr to train, in sentences whose every number is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from analysis import labels
from analysis.effects import SHARE, SMALL, TINY, best_cells, knob_effects
from analysis.importance import Importance, importance
from analysis.part import Part
from analysis.report import words
from analysis.report.knobs import (
    ALPHA,
    CLEAR,
    SUGGESTIVE,
    UNSEEN,
    Told,
    apart,
    few_rows,
    knobs,
)
from analysis.report.names import name_of
from analysis.shares import grouped
from analysis.statistics.cells import COLUMNS, summarize
from analysis.statistics.choice import pick, worth
from analysis.statistics.devrows import least
from analysis.statistics.paired import against

CEILING = 0.99
"""A score beyond which a task cannot tell cells apart."""
RIVALS = ("lora", "full", "lokr-peft", "head")


class Rival(NamedTuple):
    """The chosen LoKr cell against another method's.

    Args:
        name: of the comparison: the other method, or ``lokr (small)`` against LoRA.
        level: how sure that there is a difference.
        difference, low, high: LoKr minus the other, shares.
        text: the sentence.
    """

    name: str
    level: str
    difference: float
    low: float
    high: float
    text: str


class Findings(NamedTuple):
    """What a part says.

    Args:
        part: of what.
        table: :func:`analysis.statistics.cells.summarize` of it.
        chosen: what LoKr cell one would take; None where no LoKr ran.
        pick: a sentence about it.
        effects: :func:`analysis.effects.knob_effects` of it.
        importance: of LoKr's knobs; None where no LoKr cell has a score.
        matters: a sentence about that.
        together: a sentence about the best value of every knob, all in one cell.
        knobs: a sentence for each knob of LoKr that varies.
        rivals: LoKr against each other method.
    """

    part: Part
    table: pd.DataFrame
    chosen: str | None
    pick: str
    effects: pd.DataFrame
    importance: Importance | None
    matters: str
    together: str
    knobs: list[Told]
    rivals: list[Rival]


def findings(part: Part) -> Findings:
    """Everything that the page says about a part."""
    if not scored(part):
        return _nothing(part, pd.DataFrame(columns=[*COLUMNS]), pd.DataFrame())
    table, effects = summarize(part), knob_effects(part.trials, "score")
    if table.loc[table["method"] == SMALL, "selection"].isna().all():
        return _nothing(part, table, effects)
    chosen, ranked = pick(part, SMALL), importance(part)
    told = [*knobs(part, effects, _least_of_any(table))]
    return Findings(
        part=part,
        table=table,
        chosen=chosen,
        pick=_picked(part, table, chosen),
        effects=effects,
        importance=ranked,
        matters=_matters(part, ranked) if told else "",
        together=_together(part, table, chosen, told),
        knobs=told,
        rivals=[*_rivals(part, table, chosen)],
    )


def scored(part: Part) -> bool:
    """Whether any trial ended with a score to choose by."""
    return bool(part.cells["selection_score"].notna().any())


def at_ceiling(part: Part) -> int:
    """How many cells score so high that the task cannot tell them apart; one alone is no sign."""
    top = int((part.cells["score"] >= CEILING).sum())
    return top if top > 1 else 0


def _least_of_any(table: pd.DataFrame) -> float:
    """The smallest difference that the dev rows show of any two LoKr cells."""
    errors = table[table["method"] == SMALL].set_index("cell")["dev_se"].dropna()
    return 0.0 if errors.empty else least(table, errors.idxmax(), errors.idxmax())


def _nothing(part: Part, table: pd.DataFrame, effects: pd.DataFrame) -> Findings:
    """What a part without a LoKr that has a score says."""
    text = f"No {words.method_name(SMALL)} cell has a score."
    return Findings(part, table, None, text, effects, None, "", "", [], [])


def _picked(part: Part, table: pd.DataFrame, chosen: str) -> str:
    row = table.set_index("cell").loc[chosen]
    bounds = (
        "no interval"
        if math.isnan(row["low"])
        else f"95% {words.points(row['low'])} to {words.points(min(row['high'], 1))}"
    )
    return (
        f"{name_of(part, chosen)} at rate {row['rate']:g}: {part.metric} "
        f"{words.points(row['mean'])} ({bounds}, {words.counted(int(row['n']), 'seed')}) with "
        f"{labels.whole(row['trainable'])} trainable parameters. {_uncovered(part, row)} "
        f"{_worth(part)} {_ties(part, chosen)}"
    )


def _uncovered(part: Part, row: pd.Series) -> str:
    """What the interval knows nothing of."""
    if math.isnan(row["low"]):
        return "How much its runs vary is not known."
    if row["mean"] >= CEILING and at_ceiling(part):
        return "At the ceiling runs hardly vary: the interval of pooled runs does not hold there."
    several = (part.cells["method"] == SMALL).sum() > 1
    return (
        "The interval covers neither other rows nor the choice of "
        f"{'this cell' if several else 'its rate'}."
    )


def _worth(part: Part) -> str:
    """The score of a choice by other seeds."""
    found = worth(part, SMALL)
    if not found.runs:
        return "What a choice without the seed that is scored comes to cannot be told."
    lost = f", {words.counted(found.lost, 'run')} lost" if found.lost else ""
    return f"Chosen without the seed that is scored, it comes to {words.points(found.mean)}{lost}."


def _ties(part: Part, chosen: str) -> str:
    """How many of LoKr's other cells cannot be told from the chosen one."""
    others = against(part, SMALL)
    others = others[others["method"] == SMALL]
    if others.empty:
        return "No other LoKr cell ran."
    told = others[(others["p_holm"] < ALPHA)]
    better, worse = (told["difference"] > 0).sum(), (told["difference"] < 0).sum()
    same = len(others) - len(told)
    ahead = f", and {words.counted(int(better), 'is', 'are')} better" if better else ""
    return (
        f"Of the {words.counted(len(others), 'other LoKr cell')}, {same:,} cannot be told from it, "
        f"{worse:,} {'is' if worse == 1 else 'are'} worse{ahead} (paired t, Holm's 5%)."
    )


def _together(part: Part, table: pd.DataFrame, chosen: str, told: list[Told]) -> str:
    """Knob by knob and cell by cell need not lead to the same place: where the first one leads."""
    wanted = {one.knob: one.good for one in told if one.good}
    if not wanted:
        return ""
    short = labels.shortened(part.cells, part.trials)
    fits = short["method"] == SMALL
    for knob, good in wanted.items():
        fits &= short[knob].isin(good)
    found = table[table["cell"].isin(short["cell"][fits])].dropna(subset=["selection"])
    values = words.listed([f"{one.knob}={one.value}" for one in told if one.good])
    if found.empty:
        return f"No cell has all of these values together ({values})."
    best = found.loc[found["selection"].idxmax()]
    if best["cell"] == chosen:
        return f"The chosen cell has the better value of each knob that has one ({values})."
    row = against(part, SMALL).set_index("cell").loc[best["cell"]]
    verdict = "apart from" if apart(row["low"], row["high"]) else "not told from"
    return (
        f"The best cell with the better value of each knob that has one ({values}) is "
        f"{name_of(part, best['cell'])}: {words.points(best['mean'])} with "
        f"{labels.whole(best['trainable'])} parameters, {verdict} the chosen one "
        f"({words.change(row['difference'])} points, 95% {words.between(row['low'], row['high'])})."
    )


def _matters(part: Part, found: Importance) -> str:
    """Which knobs make the differences, those whose share is above zero for sure."""
    if found.refused is not None:
        return f"Which knob matters most is not ranked: {found.refused}."
    if top := at_ceiling(part):
        return (
            f"Which knob matters most is not ranked: {top:,} cells score "
            f"{words.points(CEILING, 0)} or more of 100, where a knob cannot show what it does."
        )
    how = "exactly, on a full grid" if found.how == "exact" else f"by fANOVA, R² {found.fit:.2f}"
    if not certain(found):
        return f"No knob's share of the variance is above zero for sure (told {how})."
    return (
        f"What tells LoKr's trials apart, each cell at its selected rate: {shares(found)} of the "
        f"variance (told {how}).{doubted(found)}"
    )


def shares(
    found: Importance, top: int | None = None, short: Mapping[str, str] = MappingProxyType({})
) -> str:
    """All of the variance, by what makes it.

    Args:
        found: that was not refused.
        top: so many knobs; None: those that are sure, see :func:`analysis.shares.grouped`.
        short: a knob -> its short name.
    """
    return words.listed([_share(row, short) for row in grouped(found, top).to_dict("records")])


def _share(row: dict, short: Mapping[str, str]) -> str:
    percent = f"{words.points(row['percent'] / 100, 0)}%"
    if row["kind"] != "main":
        return f"{row['label']} {percent}"
    knobs = "+".join(short.get(knob, knob) for knob in row["knobs"])
    low, high = words.points(row["low"], 0), words.points(row["high"], 0)
    return f"{knobs} {percent} (95% {low} to {high})"


def doubted(found: Importance) -> str:
    """Why the shares may mislead, a sentence after a space; nothing where there is no doubt."""
    return f" These shares may mislead: {'; '.join(found.doubts)}." if found.doubts else ""


def certain(found: Importance) -> list[dict]:
    """The rows of knobs whose share of the variance is above zero for sure, the largest first."""
    table = found.table
    sure = table[(table["kind"] == "main") & (table["low"] > 0)]
    return [row for row in sure.to_dict("records") if row["knobs"] != ("seed",)]


def _rivals(part: Part, table: pd.DataFrame, chosen: str) -> Iterator[Rival]:
    methods = [*part.cells.dropna(subset=["selection_score"])["method"].unique()]
    for method in [*RIVALS, *sorted({*methods} - {*RIVALS, SMALL})]:
        if method in methods:
            yield _rival(part, table, chosen, method)
    best = best_cells(part.trials)
    if TINY in best.index and best.at[TINY, "cell"] != chosen:
        yield _rival(part, table, str(best.at[TINY, "cell"]), "lora", TINY)


def _rival(
    part: Part, table: pd.DataFrame, cell: str, method: str, name: str | None = None
) -> Rival:
    """The cell against the other method's chosen one."""
    row = against(part, method).set_index("cell").loc[cell]
    size = part.cells.set_index("cell")["trainable"]
    bound = least(table, cell, row["against"])
    level = difference_level(row["difference"], row["low"], row["high"], bound)
    bounds = (
        f"95% {words.between(row['low'], row['high'])}"
        if row["low"] == row["low"]
        else "no interval"
    )
    what = "LoKr" if name is None else f"The best LoKr of at most 1/{SHARE} of LoRA's size"
    few = f" {few_rows(part, bound)}" if level == SUGGESTIVE else ""
    text = (
        f"{what} is {_verdict(level, row['difference'])} {words.method_name(method)}: "
        f"{words.change(row['difference'])} points ({bounds}, "
        f"{words.counted(int(row['seeds']), 'seed')}), with {labels.whole(size[cell])} trainable "
        f"parameters against {labels.whole(size[row['against']])}.{few}"
    )
    return Rival(name or method, level, row["difference"], row["low"], row["high"], text)


def difference_level(difference: float, low: float, high: float, bound: float) -> str:
    """How sure a difference between two cells is.

    Args:
        difference, low, high: shares.
        bound: the smallest difference that the dev rows show.
    """
    if not apart(low, high):
        return UNSEEN
    return CLEAR if abs(difference) > bound else SUGGESTIVE


def _verdict(level: str, difference: float) -> str:
    if level == UNSEEN:
        return "not told from"
    side = "ahead of" if difference > 0 else "behind"
    return side if level == CLEAR else f"perhaps {side}"
