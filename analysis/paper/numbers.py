"""The macros of the paper: every number in its text is computed here from the results.

A macro holds a number, a name or, where what is to be said depends on the numbers, a sentence. The
sentences are those of the report (:mod:`analysis.report`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import cost, labels
from analysis.importance import Importance, importance
from analysis.load import Results
from analysis.part import Part
from analysis.provenance import hardware
from analysis.report import words
from analysis.report.findings import (
    CLEAR,
    SMALL,
    Findings,
    at_ceiling,
    doubted,
    findings,
    name_of,
    shares,
)
from analysis.report.limits import limits, missing
from analysis.statistics.bootstrap import LEVEL
from analysis.statistics.noise import POWER
from analysis.tables.cost import measured
from analysis.tables.overview import RIVALS as MAIN
from analysis.tables.table import Lacking
from analysis.tables.table import spelled as three
from analysis.tables.write import escaped

FIGURES = ("importance", "pareto", "heatmap", "expected", "samples")
"""Names of :data:`analysis.figures.FIGURES` that main.tex has a place for."""
OPTIONAL = ("pareto", "heatmap", "expected", "speed", "samples")
"""What main.tex leaves out if there is no room, the most important first."""
TOP = 3
"""So many knobs are named by their importance."""
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def headline(found: Sequence[Part]) -> Part:
    """The part in which most LoKr cells have a score: the one that tells most about knobs."""
    return max(found, key=lambda part: (_lokr_cells(part), len(part.trials), part.title))


def macros(
    root: Path, found: Sequence[Part], results: Results, lines: pd.DataFrame
) -> dict[str, str]:
    """Name -> LaTeX, escaped.

    Args:
        root: the folder of all results.
        found: the parts of all studies; one at least has a LoKr cell with a score.
        results: that they are parts of.
        lines: :func:`analysis.tables.overview.rows` of the parts.
    """
    told = [findings(part) for part in found if _lokr_cells(part)]
    head = headline(found)
    (first,) = [one for one in told if one.part is head]
    plain = {**_scope(found, results), **_headline(first), **_by_part(lines)}
    plain["Packing"] = _packing(root)
    return {
        **{name: escaped(value) for name, value in plain.items()},
        "Knobs": _items(f"{one.text} {one.level.capitalize()}." for one in first.knobs),
        "Rivals": _items(rival.text for rival in first.rivals),
        "Limits": _items(limits(first, results)),
        "Verdicts": " ".join(escaped(_verdict(told, name)) for name in MAIN),
    }


def _verdict(told: Sequence[Findings], name: str) -> str:
    """LoKr against one method, in how many parts."""
    rivals = [rival for one in told for rival in one.rivals if rival.name == name]
    method = words.method_name(name)
    if not rivals:
        return f"No part has {method} to compare LoKr with."
    clear = [rival.difference for rival in rivals if rival.level == CLEAR]
    ahead = sum(difference > 0 for difference in clear)
    counts = {
        "behind": len(clear) - ahead,
        "ahead": ahead,
        "not clearly apart": len(rivals) - len(clear),
    }
    clauses = [f"{what} in {count:,}" for what, count in counts.items() if count]
    return (
        f"Against {method}, LoKr is {words.listed(clauses)} of "
        f"{words.counted(len(rivals), 'part')}, each on its own, uncorrected."
    )


def spelled(macros: dict[str, str], shown: Sequence[str]) -> str:
    r"""The file: a ``\newcommand`` a macro, in the order given.

    Args:
        macros: from :func:`macros`.
        shown: those of ``OPTIONAL`` that main.tex shows.
    """
    switches = {f"Show{name.title()}": str(int(name in shown)) for name in OPTIONAL}
    lines = [rf"\newcommand{{\{n}}}{{{value}}}" for n, value in {**macros, **switches}.items()]
    return "\n".join(["% Computed from the results: do not edit.", *lines, ""])


def _lokr_cells(part: Part) -> int:
    scored = part.cells.dropna(subset=["selection_score"])
    return int((scored["method"] == SMALL).sum())


def _scope(found: Sequence[Part], results: Results) -> dict[str, str]:
    trials = pd.concat([part.trials for part in found], ignore_index=True)
    failed = int((trials["status"] != "ok").sum())
    lacking = sum(int(missing(part, results.trials).sum()) for part in found)
    return {
        "Trials": labels.whole(len(trials)),
        "Failed": labels.whole(failed),
        "Missing": labels.whole(lacking),
        "Studies": labels.whole(len({part.study for part in found})),
        "Parts": words.counted(len(found), "part"),
        "Tasks": words.listed(sorted({part.task.replace("/", ": ") for part in found})),
        "TaskCount": words.counted(len({part.task for part in found}), "task"),
        "Cells": labels.whole(sum(len(part.cells) for part in found)),
        "Hardware": hardware(trials),
        "Level": f"{100 * LEVEL:.0f}%",
        "Power": f"{100 * POWER:.0f}%",
    }


def _headline(first: Findings) -> dict[str, str]:
    part = first.part
    seeds = sorted(part.cells["seeds"].unique())
    rates = part.trials.groupby("cell")["trial.learning_rate"].nunique()
    return {
        "HeadStudy": part.study,
        "HeadTask": part.title,
        "HeadMetric": part.metric,
        "HeadTrials": labels.whole(len(part.trials)),
        "HeadCells": labels.whole(len(part.cells)),
        "HeadSeeds": " or ".join(map(str, seeds)),
        "HeadRates": labels.whole(rates.max()),
        "Pick": first.pick,
        "Together": first.together,
        "Importance": _importance(part, importance(part)),
        "Cost": _cost(part),
    }


def _by_part(lines: pd.DataFrame) -> dict[str, str]:
    r"""``\<Study><Part>Lokr``, ``Anew``, ``AgainstLora`` and ``AgainstFull`` of every part."""
    macros = {}
    for row in lines.to_dict("records"):
        stem = _letters(f"{row['study']} {row['part']}")
        score = f"{words.points(row['mean'])} ({words.points(row['low'])} to "
        macros[f"{stem}Lokr"] = f"{score}{words.points(row['high'])})"
        macros[f"{stem}Anew"] = words.points(row["anew"])
        for rival in MAIN:
            macros[f"{stem}Against{rival.title()}"] = _difference(row, rival)
    return macros


def _difference(row: Mapping[str, Any], rival: str) -> str:
    if math.isnan(row[f"{rival}_difference"]):
        return "not compared"
    bounds = words.between(row[f"{rival}_low"], row[f"{rival}_high"])
    return f"{words.change(row[f'{rival}_difference'])} ({bounds})"


def _importance(part: Part, found: Importance) -> str:
    if found.refused is not None:
        return f"Which knobs matter most is not ranked: {found.refused}."
    if at_ceiling(part):
        return "Which knobs matter most is not ranked: scores are at the ceiling."
    how = {
        "exact": "an exact decomposition of the grid",
        "fanova": f"a forest with cross-validated R² {found.fit or 0:.2f}",
    }[str(found.how)]
    return (
        f"Of the variance of a tuned trial's score, {shares(found, TOP, labels.HEADINGS)}, "
        f"by {how}.{doubted(found)}"
    )


def _cost(part: Part) -> str:
    """A step of each method, of the measured cell with the best selection score."""
    try:
        found = measured(part)
    except Lacking:
        return (
            "What a step of one trial alone costs was not measured for this study; "
            f"python -m experiments cost {part.study} measures it."
        )
    found = found[found["hardware"] == found["hardware"].mode().min()]
    cells = part.cells[["cell", "method", "selection_score"]]
    best = found.merge(cells, on="cell").sort_values("selection_score", ascending=False)
    rows = best.drop_duplicates("method").sort_values("step_p50_ms").to_dict("records")
    lines = [
        f"{name_of(part, row['cell'])} {three(row['step_p50_ms'])} ms ({three(row['to_frozen'])})"
        for row in rows
    ]
    return (
        f"On {found['hardware'].iloc[0]}, a step of one trial alone (and its ratio to the frozen "
        f"base's) takes {words.listed(lines)}."
    )


def _packing(root: Path) -> str:
    """Seconds of a trial side by side with others, and by what factor other ways are slower."""
    found = cost.sweeps(root)
    found = found[~found["small"].astype(bool)] if len(found) else found
    if found.empty:
        return "No sweep was timed; python -m experiments bench sweep times one."
    seconds = found.loc[found["way"] == cost.PACKED, "seconds"]
    others = [
        f"{_range(found.loc[found['way'] == way, 'slower'])} times as long in {label}"
        for way, label in cost.WAYS.items()
        if way != cost.PACKED and (found["way"] == way).any()
    ]
    return (
        f"Side by side on one GPU a trial of a sweep takes {_range(seconds)} s"
        f"{'; alone, ' if others else ''}{words.listed(others) if others else ''}."
    )


def _range(values: pd.Series) -> str:
    low, high = three(values.min()), three(values.max())
    return low if low == high else f"{low} to {high}"


def _items(sentences: Iterable[str]) -> str:
    return "\n".join(rf"\item {escaped(sentence)}" for sentence in sentences)


def _letters(text: str) -> str:
    """Text as the name of a macro: letters alone, digits as words."""
    spoken = re.sub(r"\d", lambda digit: f" {DIGITS[int(digit.group())]} ", text)
    return "".join(word.title() for word in re.findall(r"[A-Za-z]+", spoken))
