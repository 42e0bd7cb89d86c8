"""What all parts say together: in how many of them something holds, never one number over all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from analysis import cost
from analysis.effects import TINY
from analysis.report import words
from analysis.report.findings import (
    CLEAR,
    SUGGESTIVE,
    UNSEEN,
    UNTOLD,
    Findings,
    Rival,
    certain,
)

MAIN = ("lora", "full")
"""The methods that every overview has a column for."""


def short(found: Sequence[Findings]) -> list[str]:
    """The answer in two or three sentences."""
    told = [row for one in found for row in one.knobs]
    clear = dict.fromkeys((row.knob, row.value) for row in told if row.level == CLEAR)
    against = {(row.knob, row.value) for row in told if row.level in (CLEAR, SUGGESTIVE)}
    torn = {knob for knob, value in clear if any(k == knob and v != value for k, v in against)}
    alone = [pair for pair in clear if pair[0] not in torn]
    edges = dict.fromkeys(row.knob for row in told if row.edge and (row.knob, row.value) in alone)
    return [*_set(alone), *_edges([*edges]), *_torn(sorted(torn)), *_matter(found)]


def _set(alone: list[tuple[str, str]]) -> Iterator[str]:
    if alone:
        values = words.listed([f"{knob} = {value}" for knob, value in alone])
        yield f"Set {values}: clearly better in a part that tried it, and worse in none."
    else:
        yield "No value of any knob is clearly better in one part and worse in none."


def _edges(knobs: list[str]) -> Iterator[str]:
    if knobs:
        verb = "is" if len(knobs) == 1 else "are"
        what = f"{words.listed(knobs)} {verb} at the edge of what was tried"
        yield f"Beyond may be better still: {what}."


def _torn(knobs: list[str]) -> Iterator[str]:
    if knobs:
        yield f"No one value is best in all parts: {words.listed(knobs)}."


def _matter(found: Sequence[Findings]) -> Iterator[str]:
    """The knob with the largest share of the variance in each part, where it is sure."""
    first: list[str] = []
    for one in found:
        if one.importance is not None:
            first += ["+".join(row["knobs"]) for row in certain(one.importance)[:1]]
    if first:
        names = sorted({*first}, key=lambda name: (-first.count(name), name))
        most = words.listed([f"{n} in {words.counted(first.count(n), 'part')}" for n in names])
        yield f"What makes the largest difference: {most}."


def verdicts(found: Sequence[Findings]) -> list[str]:
    """LoKr against each other method over all parts, a sentence each."""
    rivals: dict[str, list[Rival]] = {}
    for rival in (rival for one in found for rival in one.rivals if rival.name != TINY):
        rivals.setdefault(rival.name, []).append(rival)
    return [_verdict(name, rows, found) for name, rows in rivals.items()]


def knobs(found: Sequence[Findings]) -> list[tuple[str, str]]:
    """For each knob of LoKr: its name, and in how many parts which value was better."""
    told: dict[str, list] = {}
    for one in found:
        for row in one.knobs:
            told.setdefault(row.knob, []).append(row)
    return [(knob, _knob(rows)) for knob, rows in told.items()]


def packing(root: Path) -> list[str]:
    """What trials side by side gain, from ``results/bench``; none where it was not timed."""
    found = cost.sweeps(root)
    if found.empty:
        return []
    return [
        _packed(study, rows.to_dict("records"))
        for study, rows in found[~found["small"]].groupby(["study", "base"], sort=False)
    ]


def table(found: Sequence[Findings], floors: Sequence[float]) -> list[dict[str, Any]]:
    """A line a part: the chosen LoKr cell, its score, its distance to LoRA and all weights.

    Args:
        found: of each part.
        floors: the smallest difference that each part's design sees.
    """
    return [_line(one, floor) for one, floor in zip(found, floors, strict=True)]


def _verdict(name: str, rows: list[Rival], found: Sequence[Findings]) -> str:
    clear = [row for row in rows if row.level == CLEAR]
    ahead = sum(row.difference > 0 for row in clear)
    counts = [
        f"{_in(len(clear) - ahead, 'behind')}",
        f"{_in(ahead, 'ahead')}",
        f"{_in(len(rows) - len(clear), 'not told apart')}",
    ]
    middle = median(row.difference for row in rows)
    return (
        f"LoKr against {words.method_name(name)}: {words.listed(counts)} (median difference "
        f"{words.change(middle)} points{_fewer(name, found)})."
    )


def _in(count: int, what: str) -> str:
    return f"{what} in {words.counted(count, 'part')}"


def _fewer(name: str, found: Sequence[Findings]) -> str:
    """How many times fewer parameters LoKr's chosen cell has, in the middle of the parts."""
    ratios = [*_ratios(name, found)]
    if not ratios:
        return ""
    middle = median(ratios)
    if middle < 1:
        return f", {1 / middle:.3g} times the parameters"
    return f", {middle:.3g} times fewer parameters"


def _ratios(name: str, found: Iterable[Findings]) -> Iterator[float]:
    for one in found:
        sizes = one.table[one.table["method"] == name].sort_values("selection", ascending=False)
        if len(sizes) and one.chosen is not None:
            ours = one.table.set_index("cell").at[one.chosen, "trainable"]
            yield float(sizes["trainable"].iloc[0]) / float(ours)


def _knob(rows: list) -> str:
    clauses = []
    for level, word in ((CLEAR, "clearly better"), (SUGGESTIVE, "better, on little evidence,")):
        for value in dict.fromkeys(row.value for row in rows if row.level == level):
            count = sum(row.value == value and row.level == level for row in rows)
            clauses.append(f"{value} is {word} in {words.counted(count, 'part')}")
    for level, word in ((UNSEEN, "no difference seen"), (UNTOLD, "never varied alone")):
        count = sum(row.level == level for row in rows)
        if count:
            clauses.append(f"{word} in {words.counted(count, 'part')}")
    return f"{'; '.join(clauses)}."


def _packed(study: tuple[str, str], rows: list[dict]) -> str:
    (ours,) = [row for row in rows if row["way"] == cost.PACKED]
    others = [
        f"{row['slower']:.3g} times as long in {row['label']} ({row['timed']:,} timed)"
        for row in rows
        if row["way"] != cost.PACKED
    ]
    beside = f"; {words.listed(others)}" if others else ""
    return (
        f"{ours['trials']:,} trials of {ours['task']} on {study[1]}, side by side on one "
        f"{ours['hardware']}: {ours['seconds']:.3g} s a trial{beside}."
    )


def _line(one: Findings, floor: float) -> dict[str, Any]:
    rivals = {rival.name: rival for rival in one.rivals}
    row = {} if one.chosen is None else one.table.set_index("cell").loc[one.chosen].to_dict()
    return {
        "part": one.part,
        "cell": one.chosen,
        "mean": row.get("mean"),
        "low": row.get("low"),
        "high": row.get("high"),
        "trainable": row.get("trainable"),
        "rivals": [rivals.get(name) for name in MAIN],
        "floor": floor,
    }
