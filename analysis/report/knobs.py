"""What a part says about each knob of LoKr: every value against the best one, and how sure that is.

How sure is a word with one meaning, see ``LEVELS``. A difference between two values can be one of
the rate grid: where the best rate of many cells is the last one that was tried, they were not tuned
to the end. So it is told again over the pairs in which no cell is at such an edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from analysis.effects import SMALL, differences, estimate, knob_effects, selected
from analysis.load import knobs_of
from analysis.part import Part
from analysis.report import words
from analysis.report.rows import shown
from analysis.statistics.paired import holm

CLEAR, SUGGESTIVE, UNSEEN, UNTOLD = "clear", "suggestive", "not seen", "cannot tell"
LEVELS = {
    CLEAR: "the 95% interval of the difference leaves zero out; an accuracy differs by more than "
    "two standard errors of its dev rows, too; and for a knob, a sign-flip test over the pairs of "
    "cells is below 5% after Holm's correction over all values of all knobs, and the interval "
    "leaves zero out without the cells whose rate is the lowest or the highest that was tried",
    SUGGESTIVE: "the interval leaves zero out, but one of the other conditions does not hold",
    UNSEEN: "the interval holds zero: there is no difference, or one too small for this design",
    UNTOLD: "no two cells differ in that knob alone",
}
ALPHA = 0.05
TEST, RATES, ROWS = "test", "rates", "rows"
"""What a suggestive difference lacks to be clear."""


class Told(NamedTuple):
    """A sentence about a knob.

    Args:
        knob: its name.
        level: how sure, a key of ``LEVELS``.
        good: values that cannot be told from the best, the best first; none where it does not
            matter or cannot be told.
        worse: values that are as surely worse as ``level`` says.
        lacks: of what is suggestive, some of ``TEST``, ``RATES``, ``ROWS``.
        text: the sentence.
        edge: the best is the last of those that were tried, and the knob is a number.
    """

    knob: str
    level: str
    good: tuple[str, ...]
    worse: tuple[str, ...]
    lacks: tuple[str, ...]
    text: str
    edge: bool = False

    @property
    def value(self) -> str | None:
        """What to set it to; None where that does not matter or cannot be told."""
        return words.listed(self.good, "or") if self.good else None


class Contrast(NamedTuple):
    """The best value of a knob minus another.

    Args:
        best, other: values as the page spells them.
        level: how sure that there is a difference.
        lacks: as of :class:`Told`.
        row: of :func:`contrasts`, turned so that the best is the greater.
    """

    best: str
    other: str
    level: str
    lacks: tuple[str, ...]
    row: dict


def knobs(part: Part, effects: pd.DataFrame, least: float) -> Iterator[Told]:
    """A sentence for each knob of LoKr that varies.

    Args:
        part: whose.
        effects: :func:`analysis.effects.knob_effects` of it.
        least: the smallest difference that the dev rows show, a share; 0 where that is not known.
    """
    if effects.empty:
        return
    rows = contrasts(part, effects)
    for knob in knobs_of(part.trials).get(SMALL, []):
        own = rows[rows["knob"] == knob]
        if len(own):
            yield _told(part, knob, own, least)


def contrasts(part: Part, effects: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every two values of every knob of LoKr.

    Returns:
        ``knob``, ``from``, ``to`` (spelled), what :func:`analysis.effects.estimate` gives,
        ``p_holm`` (Holm's correction over all rows, so that the best value may be chosen by them)
        and ``inner_difference``, ``inner_low``, ``inner_high``, ``inner_pairs``: over the pairs in
        which no cell is at an edge of its rates.
    """
    found = knob_effects(part.trials, "score") if effects is None else effects
    names, trials = knobs_of(part.trials)[SMALL], selected(part.trials, "score")
    trials = trials[trials["trial.method"] == SMALL]
    inner = trials[~trials["cell"].isin(at_edges(part))]
    rows = []
    for knob, own in found[found["method"] == SMALL].groupby("knob", sort=False):
        others = [name for name in names if name != knob]
        for pair in combinations([own["from"].iloc[0], *own["to"]], 2):
            every = estimate(differences(trials, "score", knob, pair, others))
            within = estimate(differences(inner, "score", knob, pair, others))
            kept = {f"inner_{n}": within[n] for n in ("difference", "low", "high", "pairs")}
            rows.append({"knob": knob, "from": pair[0], "to": pair[1], **every, **kept})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy(float))) if rows else table


def at_edges(part: Part) -> set[str]:
    """Cells whose selected rate is the lowest or the highest that they were tried with."""
    rates = part.trials.groupby("cell")["trial.learning_rate"].agg(["min", "max"])
    cells = part.cells.set_index("cell").join(rates)
    return {*cells.index[(cells["rate"] == cells["min"]) | (cells["rate"] == cells["max"])]}


def apart(low: float, high: float) -> bool:
    """Whether an interval leaves zero out; one that is missing does not."""
    return low > 0 or high < 0


def _told(part: Part, knob: str, rows: pd.DataFrame, least: float) -> Told:
    tried = list(dict.fromkeys([*rows["from"], *rows["to"]]))
    paired = rows[rows["pairs"] > 0]
    if paired.empty:
        values = words.listed([shown(part, knob, value) for value in tried])
        text = f"{knob} ({values}): it never varied alone, so what it does cannot be told."
        return Told(knob, UNTOLD, (), (), (), text)
    best = _best(paired, tried)
    own = [*_against(part, knob, best, paired, least)]
    level = next(x for x in (CLEAR, SUGGESTIVE, UNSEEN) if x in {one.level for one in own})
    if level == UNSEEN:
        return Told(knob, level, (), (), (), f"{knob}: {_unseen(own[0])}")
    same = [one.other for one in own if one.level == UNSEEN]
    worse = tuple(one.other for one in own if one.level == level)
    lacks = tuple(dict.fromkeys(what for one in own if one.level == level for what in one.lacks))
    edge = _numeric(tried) and best in (tried[0], tried[-1])
    text = f"{knob}: {_seen(part, own, least)}"
    return Told(knob, level, (shown(part, knob, best), *same), worse, lacks, text, edge)


def _best(paired: pd.DataFrame, tried: list[str]) -> str:
    """The value that beats most others, the first by the sum of its differences."""
    wins = dict.fromkeys(tried, (0, 0.0))
    for row in paired.to_dict("records"):
        sign = 1 if row["difference"] > 0 else -1
        for value, turn in ((row["to"], 1), (row["from"], -1)):
            count, total = wins[value]
            wins[value] = count + turn * sign, total + turn * row["difference"]
    met = [value for value in tried if value in {*paired["from"], *paired["to"]}]
    return max(met, key=wins.__getitem__)


def _against(
    part: Part, knob: str, best: str, paired: pd.DataFrame, least: float
) -> Iterator[Contrast]:
    """The best against each other value that it meets, the largest difference first."""
    rows = [_turned(row, best) for row in paired.to_dict("records") if best in _ends(row)]
    for row in sorted(rows, key=lambda row: -row["difference"]):
        (other,) = [value for value in _ends(row) if value != best]
        level, lacks = _level(row, least)
        yield Contrast(shown(part, knob, best), shown(part, knob, other), level, lacks, row)


def _ends(row: dict) -> tuple[str, str]:
    return row["from"], row["to"]


def _turned(row: dict, best: str) -> dict:
    """The row with the best value's difference to the other."""
    if row["to"] == best:
        return row
    turned = {}
    for name in ("", "inner_"):
        turned[f"{name}difference"] = -row[f"{name}difference"]
        turned[f"{name}low"], turned[f"{name}high"] = -row[f"{name}high"], -row[f"{name}low"]
    return row | turned


def _level(row: dict, least: float) -> tuple[str, tuple[str, ...]]:
    """How sure that the difference is not zero, and what is lacking."""
    if not apart(row["low"], row["high"]):
        return UNSEEN, ()
    there = {
        TEST: row["p_holm"] < ALPHA,
        RATES: row["inner_low"] > 0,
        ROWS: row["difference"] > least,
    }
    lacks = tuple(what for what, fine in there.items() if not fine)
    return (SUGGESTIVE if lacks else CLEAR), lacks


def _seen(part: Part, own: list[Contrast], least: float) -> str:
    """What is worse, and what is as good."""
    if len(own) == 1:
        (one,) = own
        return f"{one.best} rather than {one.other}: {_size(one)}.{_doubts(part, one, least)}"
    worse = [one for one in own if one.level != UNSEEN]
    clauses = [
        f"{one.other} is {'' if one.level == CLEAR else 'perhaps '}worse than {one.best}: "
        f"{_size(one)}.{_doubts(part, one, least)}"
        for one in worse
    ]
    same = [
        f"{one.other} is not told from {one.best}: {_size(one)}."
        for one in own
        if one.level == UNSEEN
    ]
    return " ".join([*clauses, *same])


def _size(one: Contrast) -> str:
    row = one.row
    bounds = (
        "no interval"
        if math.isnan(row["low"])
        else f"95% {words.between(row['low'], row['high'])}; {_support(row)}"
    )
    return f"{words.change(row['difference'])} points ({bounds})"


def _doubts(part: Part, one: Contrast, least: float) -> str:
    """Why it is not clear, where the support does not say so."""
    row, texts = one.row, []
    if RATES in one.lacks and not row["inner_pairs"]:
        texts.append("In every pair a cell is at an edge of its rates.")
    elif RATES in one.lacks:
        bounds = (
            "no interval"
            if math.isnan(row["inner_low"])
            else f"95% {words.between(row['inner_low'], row['inner_high'])}"
        )
        texts.append(
            "Without cells at an edge of their rates: "
            f"{words.change(row['inner_difference'])} ({bounds}; "
            f"{words.counted(int(row['inner_pairs']), 'pair')})."
        )
    if ROWS in one.lacks:
        texts.append(few_rows(part, least))
    return "".join(f" {text}" for text in texts)


def few_rows(part: Part, least: float) -> str:
    """That the dev rows do not show a difference."""
    rows = int(part.trials["provenance.dev_rows"].dropna().min())
    return f"Half of {rows:,} dev rows shows differences from {words.size(least, 1)} points."


def _unseen(one: Contrast) -> str:
    row = one.row
    if math.isnan(row["low"]):
        return f"one pair with one seed, {words.change(row['difference'])} points: no interval."
    bound = max(abs(row["low"]), abs(row["high"]))
    return (
        f"no difference seen, {words.change(row['difference'])} points for {one.best} over "
        f"{one.other} (95% {words.between(row['low'], row['high'])}; {_support(row)}). On average "
        f"over these cells, an effect above {words.size(bound)} points is unlikely."
    )


def _support(row: dict) -> str:
    pairs = words.counted(int(row["pairs"]), "pair of cells", "pairs of cells")
    if row["interval"] == "seeds":
        return f"{pairs}, {words.counted(int(row['seeds']), 'seed')}"
    chance = "" if math.isnan(row["p_holm"]) else f", {words.chance(row['p_holm'])} after Holm"
    return f"{pairs}, {row['same']} {'goes' if row['same'] == 1 else 'go'} this way{chance}"


def _numeric(values: list[str]) -> bool:
    """Whether all are numbers; a factor of -1 is none, it stands for "as square as possible"."""
    return all(value.replace(".", "", 1).isdigit() for value in values)
