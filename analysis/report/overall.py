"""What all parts say together: in how many of them something holds, never one number over all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from analysis import cost
from analysis.effects import SMALL, TINY
from analysis.report import words
from analysis.report.findings import Findings, Rival, at_ceiling, certain
from analysis.report.knobs import CLEAR, RATES, ROWS, SUGGESTIVE, TEST, UNSEEN, UNTOLD, Told
from analysis.statistics.choice import worth

MAIN = ("lora", "full")
"""The methods that every overview has a column for."""


WHY = {
    RATES: "but only if cells at an edge of the rate grid count",
    ROWS: "but by less than the dev rows show",
    TEST: "but in too few pairs of cells, or as one of too many knobs",
}
"""Why what looks better is no more than suggestive."""


def short(found: Sequence[Findings]) -> list[str]:
    """The answer in a few sentences."""
    told = _by_knob(found)
    clear = {k: [row for row in rows if row.level == CLEAR] for k, rows in told.items()}
    clear = {knob: rows for knob, rows in clear.items() if rows}
    torn = [knob for knob, rows in clear.items() if not _common(rows)]
    alone = {knob: told[knob] for knob in clear if knob not in torn}
    open_ = {knob: rows for knob, rows in told.items() if knob not in clear}
    return [
        *_set(alone, len(found)),
        *_edges([knob for knob, rows in alone.items() if any(map(_clear_edge, rows))]),
        *_torn(torn),
        *_open({**alone, **open_}),
        *_matter(found),
    ]


def _by_knob(found: Sequence[Findings]) -> dict[str, list[Told]]:
    told: dict[str, list[Told]] = {}
    for row in (row for one in found for row in one.knobs):
        told.setdefault(row.knob, []).append(row)
    return told


def _common(rows: Sequence[Told]) -> list[str]:
    """The values that are good in all of them."""
    return [value for value in rows[0].good if all(value in row.good for row in rows)]


def _clear_edge(row: Told) -> bool:
    return row.edge and row.level == CLEAR


def _set(alone: Mapping[str, Sequence[Told]], parts: int) -> Iterator[str]:
    """What to set, a sentence for the knobs that are clear in as many parts."""
    groups: dict[tuple[int, int], list[str]] = {}
    for knob, rows in alone.items():
        clear = [row for row in rows if row.level == CLEAR]
        varied = sum(row.level != UNTOLD for row in rows)
        worse = dict.fromkeys(value for row in clear for value in row.worse)
        value, other = words.listed(_common(clear), "or"), words.listed([*worse], "or")
        groups.setdefault((len(clear), varied), []).append(f"{knob} = {value} rather than {other}")
    for (clear, varied), values in groups.items():
        where = _where(clear, varied, parts, "each" if len(values) > 1 else "it")
        yield f"Set {words.listed(values)}: clearly better in {where}."
    if not groups:
        yield "No value of any knob is clearly better in one part and worse in none."


def _where(clear: int, varied: int, parts: int, what: str) -> str:
    """In which of the parts that could tell, and of how many in all."""
    if varied == 1:
        return f"the one part of {parts:,} that varied {what} alone"
    count = "both" if clear == varied == 2 else f"{clear:,} of the {varied:,}"
    return f"{count} parts, of {parts:,}, that varied {what} alone, and clearly worse in none"


def _edges(knobs: list[str]) -> Iterator[str]:
    if knobs:
        verb = "is" if len(knobs) == 1 else "are"
        what = f"{words.listed(knobs)} {verb} at the edge of what was tried"
        yield f"Beyond may be better still: {what}."


def _torn(knobs: list[str]) -> Iterator[str]:
    if knobs:
        yield f"No one value is best in all parts: {words.listed(knobs)}."


def _open(told: Mapping[str, Sequence[Told]]) -> Iterator[str]:
    """What is suggestive at best, and beside what is clear where it says otherwise."""
    doubted: dict[str, list[str]] = {}
    others: list[str] = []
    for knob, rows in told.items():
        clear = [row for row in rows if row.level == CLEAR]
        open_ = [row for row in rows if row.level == SUGGESTIVE]
        if clear or (len(open_) > 1 and not _common(open_)):
            others += _disagreeing(knob, clear, open_)
        elif open_:
            value = f"{knob} = {words.listed(_common(open_), 'or')}"
            doubted.setdefault(_why(open_), []).append(value)
    texts = [
        f"{words.listed(v)} look{'s' if len(v) == 1 else ''} better, {why}"
        for why, v in doubted.items()
    ] + others
    if texts:
        yield f"Not settled: {'; '.join(texts)}."


def _disagreeing(knob: str, clear: Sequence[Told], open_: Sequence[Told]) -> Iterator[str]:
    against = [row for row in open_ if not _common([*clear, row])] if clear else [*open_]
    if against:
        values = dict.fromkeys(str(row.value) for row in against)
        counts = [f"{v} {_in(sum(row.value == v for row in against))}" for v in values]
        beside = "other parts say otherwise" if clear else "parts disagree"
        yield f"{knob}, where {beside} ({words.listed(counts)}, not clearly)"


def _in(parts: int) -> str:
    return f"in {words.counted(parts, 'part')}"


def _why(rows: Sequence[Told]) -> str:
    """What all of them lack; the test, which is the last, if they lack nothing together."""
    return WHY[next((what for what in WHY if all(what in row.lacks for row in rows)), TEST)]


def _matter(found: Sequence[Findings]) -> Iterator[str]:
    """The knob with the largest share of the variance in each part, where that is beyond doubt."""
    first: dict[str, list[dict]] = {}
    for one in found:
        ranked = one.importance is not None and not at_ceiling(one.part)
        if ranked and not one.importance.doubts:
            for row in certain(one.importance)[:1]:
                first.setdefault("+".join(row["knobs"]), []).append(row)
    if first:
        most = {name: max(row["share"] for row in rows) for name, rows in first.items()}
        names = sorted(first, key=lambda name: (-len(first[name]), -most[name], name))
        told = words.listed([f"{name} ({_shares(first[name])})" for name in names])
        yield f"What makes the largest difference, where that can be ranked: {told}."


def _shares(rows: Sequence[dict]) -> str:
    """The share in one part with its interval, or from the least to the greatest of several."""
    part = words.counted(len(rows), "part")
    if len(rows) == 1:
        share, low, high = (words.points(rows[0][name], 0) for name in ("share", "low", "high"))
        return f"{share}% of the variance, 95% {low} to {high}, in {part}"
    shares = [row["share"] for row in rows]
    low, high = words.points(min(shares), 0), words.points(max(shares), 0)
    return f"{low if low == high else f'{low} to {high}'}% of the variance in {part}"


def verdicts(found: Sequence[Findings]) -> list[str]:
    """LoKr against each other method over all parts, a sentence each."""
    rivals: dict[str, list[Rival]] = {}
    for rival in (rival for one in found for rival in one.rivals if rival.name != TINY):
        rivals.setdefault(rival.name, []).append(rival)
    return [_verdict(name, rows, found) for name, rows in rivals.items()]


def knobs(found: Sequence[Findings]) -> list[tuple[str, str]]:
    """For each knob of LoKr: its name, and in how many parts which value was better."""
    return [(knob, _knob(rows)) for knob, rows in _by_knob(found).items()]


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
        f"behind in {len(clear) - ahead:,}",
        f"ahead in {ahead:,}",
        f"not clearly apart in {len(rows) - len(clear):,}",
    ]
    return (
        f"LoKr against {words.method_name(name)}, each part on its own, uncorrected: "
        f"{words.listed(counts)} of {words.counted(len(rows), 'part')}. Median difference: "
        f"{words.listed([*_medians(name, found)])}{_fewer(name, found)}."
    )


def _medians(name: str, found: Sequence[Findings]) -> Iterator[str]:
    """Of the parts with a metric; points of one metric are not those of another."""
    by_metric: dict[str, list[float]] = {}
    for one in found:
        own = [rival.difference for rival in one.rivals if rival.name == name]
        by_metric.setdefault(one.part.metric, []).extend(own)
    for metric, values in by_metric.items():
        if values:
            where = words.counted(len(values), "part")
            yield f"{words.change(median(values))} points of {metric} ({where})"


def _fewer(name: str, found: Sequence[Findings]) -> str:
    """How many times fewer parameters LoKr's chosen cell has, in the middle of the parts."""
    ratios = [*_ratios(name, found)]
    if not ratios:
        return ""
    middle = median(ratios)
    if middle < 1:
        return f"; {1 / middle:.3g} times the parameters"
    return f"; {middle:.3g} times fewer parameters"


def _ratios(name: str, found: Iterable[Findings]) -> Iterator[float]:
    for one in found:
        sizes = one.table[one.table["method"] == name].sort_values("selection", ascending=False)
        if len(sizes) and one.chosen is not None:
            ours = one.table.set_index("cell").at[one.chosen, "trainable"]
            yield float(sizes["trainable"].iloc[0]) / float(ours)


def _knob(rows: Sequence[Told]) -> str:
    clauses = []
    for level, word in ((CLEAR, "clearly better"), (SUGGESTIVE, "better, but not clearly,")):
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
        "worth": None if one.chosen is None else worth(one.part, SMALL).mean,
        "low": row.get("low"),
        "high": row.get("high"),
        "trainable": row.get("trainable"),
        "rivals": [rivals.get(name) for name in MAIN],
        "floor": floor,
    }
