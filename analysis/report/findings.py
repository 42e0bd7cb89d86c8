"""What one part says about which LoKr to train, in sentences whose every number is computed.

How sure a sentence is, is a word with one meaning:

clear        the 95% interval leaves zero out, and so does a test over the pairs of cells
suggestive   the interval leaves zero out, but the test does not: few pairs, or many knobs
not seen     the interval holds zero: no difference, or one that is too small for the design
cannot tell  no two cells differ in that knob alone
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from analysis import labels
from analysis.effects import SHARE, SMALL, TINY, best_cells, knob_effects
from analysis.importance import Importance, importance
from analysis.load import knobs_of
from analysis.part import Part
from analysis.report import words
from analysis.report.names import name_of
from analysis.report.rows import shown
from analysis.statistics.cells import COLUMNS, summarize
from analysis.statistics.choice import pick
from analysis.statistics.paired import against

CLEAR, SUGGESTIVE, UNSEEN, UNTOLD = "clear", "suggestive", "not seen", "cannot tell"
LEVELS = {
    CLEAR: "the 95% interval of the difference leaves zero out; for a knob, a sign-flip test over "
    "the pairs of cells is below 5% too, after Holm's correction over all knobs",
    SUGGESTIVE: "the interval leaves zero out, but the test does not: fewer than six pairs, or too "
    "many knobs for this evidence",
    UNSEEN: "the interval holds zero: there is no difference, or one too small for this design",
    UNTOLD: "no two cells differ in that knob alone",
}
ALPHA = 0.05
RIVALS = ("lora", "full", "lokr-peft", "head")


class Told(NamedTuple):
    """A sentence about a knob.

    Args:
        knob: its name.
        level: how sure, a key of ``LEVELS``.
        value: what to set it to; None where that does not matter or cannot be told.
        text: the sentence.
        edge: that value is the last of those that were tried, and the knob is a number.
    """

    knob: str
    level: str
    value: str | None
    text: str
    edge: bool = False


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
    chosen, knobs, shares = pick(part, SMALL), [*_knobs(part, effects)], importance(part)
    return Findings(
        part=part,
        table=table,
        chosen=chosen,
        pick=_picked(part, table, chosen),
        effects=effects,
        importance=shares,
        matters=_matters(shares) if knobs else "",
        together=_together(part, table, chosen, knobs),
        knobs=knobs,
        rivals=[*_rivals(part, chosen)],
    )


def scored(part: Part) -> bool:
    """Whether any trial ended with a score to choose by."""
    return bool(part.cells["selection_score"].notna().any())


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
        f"{labels.whole(row['trainable'])} trainable parameters. {_ties(part, chosen)}"
    )


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


def _together(part: Part, table: pd.DataFrame, chosen: str, knobs: list[Told]) -> str:
    """Knob by knob and cell by cell need not lead to the same place: where the first one leads."""
    wanted = {told.knob: told.value for told in knobs if told.value is not None}
    if not wanted:
        return ""
    short = labels.shortened(part.cells, part.trials)
    fits = (short[[*wanted]] == pd.Series(wanted)).all(axis=1) & (short["method"] == SMALL)
    found = table[table["cell"].isin(short["cell"][fits])].dropna(subset=["selection"])
    values = words.listed([f"{knob}={value}" for knob, value in wanted.items()])
    if found.empty:
        return f"No cell has all of these values together ({values})."
    best = found.loc[found["selection"].idxmax()]
    if best["cell"] == chosen:
        return f"The chosen cell has the best value of every knob ({values})."
    row = against(part, SMALL).set_index("cell").loc[best["cell"]]
    told = "apart from" if _apart(row["low"], row["high"]) else "not told from"
    return (
        f"The best cell with the best value of every knob ({values}) is "
        f"{name_of(part, best['cell'])}: {words.points(best['mean'])} with "
        f"{labels.whole(best['trainable'])} parameters, {told} the chosen one "
        f"({words.change(row['difference'])} points, 95% {words.between(row['low'], row['high'])})."
    )


def _matters(found: Importance) -> str:
    """Which knobs make the differences, those whose share is above zero for sure."""
    if found.refused is not None:
        return f"Which knob matters most is not ranked: {found.refused}."
    sure = certain(found)
    how = "exactly, on a full grid" if found.how == "exact" else f"by fANOVA, R² {found.fit:.2f}"
    if not sure:
        return f"No knob's share of the variance is above zero for sure (told {how})."
    shares = [
        f"{'+'.join(row['knobs'])} {_share(row['share'])}% (95% {_share(row['low'])} to "
        f"{_share(row['high'])})"
        for row in sure
    ]
    rest = found.table[found.table["kind"] == "noise"]["share"].sum()
    return (
        f"What tells LoKr's trials apart, each cell at its selected rate: {words.listed(shares)}; "
        f"noise makes {_share(rest)}% of the variance (told {how})."
    )


def certain(found: Importance) -> list[dict]:
    """The rows of knobs whose share of the variance is above zero for sure, the largest first."""
    table = found.table
    sure = table[(table["kind"] == "main") & (table["low"] > 0)]
    return [row for row in sure.to_dict("records") if row["knobs"] != ("seed",)]


def _share(share: float) -> str:
    return f"{100 * share:.0f}"


def _knobs(part: Part, found: pd.DataFrame) -> Iterator[Told]:
    if found.empty:
        return
    for knob in knobs_of(part.trials).get(SMALL, []):
        rows = found[(found["method"] == SMALL) & (found["knob"] == knob)]
        if len(rows):
            yield _told(part, knob, rows)


def _told(part: Part, knob: str, rows: pd.DataFrame) -> Told:
    """The best value of a knob against its first, or the first against the best of the others."""
    paired = rows[rows["pairs"] > 0]
    first = str(rows["from"].iloc[0])
    if paired.empty:
        values = words.listed([shown(part, knob, v) for v in [first, *rows["to"]]])
        text = f"{knob} ({values}): it never varied alone, so what it does cannot be told."
        return Told(knob, UNTOLD, None, text)
    best = paired.loc[paired["difference"].idxmax()]
    level = _level(best)
    forth = best["difference"] > 0
    old, new = (first, str(best["to"])) if forth else (str(best["to"]), first)
    sentence = _unseen if level == UNSEEN else _seen
    text = f"{knob}: {sentence(part, knob, best, old, new)}"
    tried = [first, *map(str, rows["to"])]
    edge = level != UNSEEN and _numeric(tried) and new in (tried[0], tried[-1])
    return Told(knob, level, None if level == UNSEEN else shown(part, knob, new), text, edge)


def _seen(part: Part, knob: str, row: pd.Series, old: str, new: str) -> str:
    low, high = sorted((abs(row["low"]), abs(row["high"])))
    return (
        f"{shown(part, knob, new)} rather than {shown(part, knob, old)}: "
        f"{words.change(abs(row['difference']))} points (95% {words.between(low, high)}; "
        f"{_support(row)})."
    )


def _unseen(part: Part, knob: str, row: pd.Series, old: str, new: str) -> str:
    sign = 1 if row["difference"] > 0 else -1
    if math.isnan(row["low"]):
        change = words.change(abs(row["difference"]))
        return f"one pair with one seed, {change} points: no interval."
    low, high = sorted((sign * row["low"], sign * row["high"]))
    bound = max(abs(low), abs(high))
    return (
        f"no difference seen, {words.change(abs(row['difference']))} points for "
        f"{shown(part, knob, new)} over {shown(part, knob, old)} (95% {words.between(low, high)}; "
        f"{_support(row)}). On average over these cells, an effect above {words.size(bound)} "
        "points is unlikely."
    )


def _support(row: pd.Series) -> str:
    pairs = words.counted(int(row["pairs"]), "pair of cells", "pairs of cells")
    if row["interval"] == "seeds":
        return f"{pairs}, {words.counted(int(row['seeds']), 'seed')}"
    chance = "" if math.isnan(row["p_holm"]) else f", {words.chance(row['p_holm'])} after Holm"
    return f"{pairs}, {row['same']} {'goes' if row['same'] == 1 else 'go'} this way{chance}"


def _level(row: pd.Series) -> str:
    """How sure that the difference is none of zero."""
    if not _apart(row["low"], row["high"]):
        return UNSEEN
    return CLEAR if row["p_holm"] < ALPHA else SUGGESTIVE


def _apart(low: float, high: float) -> bool:
    """Whether an interval leaves zero out; one that is missing does not."""
    return low > 0 or high < 0


def _numeric(values: list[str]) -> bool:
    return all(value.replace(".", "", 1).lstrip("-").isdigit() for value in values)


def _rivals(part: Part, chosen: str) -> Iterator[Rival]:
    methods = [*part.cells.dropna(subset=["selection_score"])["method"].unique()]
    for method in [*RIVALS, *sorted({*methods} - {*RIVALS, SMALL})]:
        if method in methods:
            yield _rival(part, chosen, method)
    best = best_cells(part.trials)
    if TINY in best.index and best.at[TINY, "cell"] != chosen:
        yield _rival(part, str(best.at[TINY, "cell"]), "lora", TINY)


def _rival(part: Part, cell: str, method: str, name: str | None = None) -> Rival:
    """The cell against the other method's chosen one."""
    row = against(part, method).set_index("cell").loc[cell]
    size = part.cells.set_index("cell")["trainable"]
    ours, theirs = size[cell], size[row["against"]]
    level = CLEAR if _apart(row["low"], row["high"]) else UNSEEN
    bounds = (
        f"95% {words.between(row['low'], row['high'])}"
        if row["low"] == row["low"]
        else "no interval"
    )
    verdict = {CLEAR: "ahead of" if row["difference"] > 0 else "behind"}.get(level, "not told from")
    what = "LoKr" if name is None else f"The best LoKr of at most 1/{SHARE} of LoRA's size"
    text = (
        f"{what} is {verdict} {words.method_name(method)}: "
        f"{words.change(row['difference'])} points ({bounds}, "
        f"{words.counted(int(row['seeds']), 'seed')}), with {labels.whole(ours)} trainable "
        f"parameters against {labels.whole(theirs)}."
    )
    return Rival(name or method, level, row["difference"], row["low"], row["high"], text)
