"""Cells, knobs and numbers as people read them, short enough for a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from analysis.load import spell

HEADINGS = {
    "decompose_factor": "factor",
    "decompose_both": "both",
    "init_weights": "init",
    "use_effective_conv2d": "eff",
    "target_modules": "targets",
}
"""Long knobs as a table's narrow columns call them."""


def knobs(table: pd.DataFrame) -> list[str]:
    """The knobs' columns of :func:`analysis.selection.cells`: those between method and adapter."""
    names = list(table.columns)
    return names[names.index("method") + 1 : names.index("adapter")]


def shortened(table: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The cells with their knobs' values spelled shorter: flags as yes and no, and of target
    modules what distinguishes them, see :func:`shared`.

    Args:
        table: from :func:`analysis.selection.cells`.
        frame: the trials that it was made from.
    """
    short = {
        knob: {
            spell(value): text for value, text in _short(frame[f"trial.{knob}"].unique().tolist())
        }
        for knob in knobs(table)
    }
    return table.assign(
        **{knob: [names.get(text, text) for text in table[knob]] for knob, names in short.items()}
    )


def shared(values: Iterable[object]) -> list[str]:
    """The names that are in every one of several tuples, if they are two or more."""
    tuples = [value for value in values if isinstance(value, tuple)]
    if len(set(tuples)) < 2:
        return []
    common = [name for name in tuples[0] if all(name in other for other in tuples)]
    return common if len(common) > 1 else []


def explained(table: pd.DataFrame, frame: pd.DataFrame) -> str:
    """What the short headings and values of the knobs stand for; empty if nothing is short."""
    notes = []
    if "use_effective_conv2d" in knobs(table):
        notes.append("eff: use_effective_conv2d.")
    if "target_modules" in knobs(table) and (common := shared(frame["trial.target_modules"])):
        notes.append(f"targets: ({len(common)}) stands for {', '.join(common)}.")
    return " ".join(notes)


def count(number: float) -> str:
    """1,234,567 as 1.23M, 32,848 as 32.8k, 770 as it is; empty where it is missing."""
    if math.isnan(number):
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:  # what rounds to 1.00
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def whole(number: float) -> str:
    """With commas; empty where it is missing."""
    return "" if math.isnan(number) else f"{number:,.0f}"


def percent(share: float, digits: int = 1) -> str:
    """Without the sign; empty where it is missing."""
    return "" if math.isnan(share) else f"{100 * share:.{digits}f}"


def _short(values: Sequence[object]) -> Iterator[tuple[object, str]]:
    flags = all(isinstance(value, bool) for value in values)
    common = shared(values)
    for value in values:
        if flags:
            yield value, "yes" if value else "no"
        elif common and isinstance(value, tuple):
            yield value, "+".join([f"({len(common)})", *(n for n in value if n not in common)])
        else:
            yield value, spell(value)
