"""What a table is, and how its numbers are spelled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

Row = Mapping[str, Any]
Spell = Callable[[Row], str]
"""A row of the frame to the text of one column; empty where a number is missing."""


class Lacking(ValueError):  # noqa: N818 - nobody's error: the results do not hold what is shown
    """The part has no data for this table; the message says what would give it."""


@dataclass(frozen=True)
class Column:
    """What a column is called and how a row is read in it.

    Args:
        heading: short; a unit comes after a comma.
        spell: see :data:`Spell`.
        number: set to the right, else to the left.
        best: for each row, whether it is the best or tied with it; set in bold.
    """

    heading: str
    spell: Spell
    number: bool = True
    best: Sequence[bool] | None = None


@dataclass(frozen=True)
class Table:
    """A table of one part.

    Args:
        name: of its file, after the part's slug.
        title: for people.
        frame: raw numbers in full precision, one row a row of the table; a share is not
            multiplied by 100.
        columns: what of it people read.
        caption: the protocol: how the numbers came about and what they cover.
    """

    name: str
    title: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    caption: str
    notes: Sequence[str] = field(default=())

    def texts(self) -> list[list[str]]:
        """The text of every row and column; empty where a number is missing."""
        rows = self.frame.to_dict("records")
        return [[column.spell(row) for column in self.columns] for row in rows]

    def bold(self) -> list[list[bool]]:
        """For every row and column, whether it is set in bold."""
        nothing = [False] * len(self.frame)
        marks = [nothing if c.best is None else [*map(bool, c.best)] for c in self.columns]
        return [list(row) for row in zip(*marks, strict=True)]


def text(name: str) -> Spell:
    """The value as it is."""
    return lambda row: "" if _missing(row[name]) else str(row[name])


def whole(name: str) -> Spell:
    """With commas: 74,498."""
    return lambda row: "" if _missing(row[name]) else f"{row[name]:,.0f}"


def points(name: str, digits: int = 1, sign: str = "") -> Spell:
    """A share in points of 100: .637 as 63.7."""
    return number(name, digits, 100, sign)


def number(name: str, digits: int, scale: float = 1, sign: str = "") -> Spell:
    """With a fixed number of decimals, after multiplication by ``scale``."""
    return lambda row: "" if _missing(row[name]) else f"{scale * row[name]:{sign},.{digits}f}"


def significant(name: str, digits: int = 3, scale: float = 1) -> Spell:
    """With so many significant digits: 0.250, 15.0, 1,240."""
    return lambda row: "" if _missing(row[name]) else spelled(scale * row[name], digits)


def spelled(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, never in powers of ten."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{value:,.{max(decimals, 0)}f}"


def bounds(low: str, high: str, digits: int = 1, scale: float = 100, sign: str = "") -> Spell:
    """An interval: 61.9 to 65.5."""
    first, last = number(low, digits, scale, sign), number(high, digits, scale, sign)
    return lambda row: f"{first(row)} to {last(row)}" if first(row) and last(row) else ""


def least(values: pd.Series, spell: Spell) -> list[bool]:
    """The rows whose number looks like the smallest one: equal to it as it is spelled.

    Args:
        values: float, NaN where missing.
        spell: how the column shows it.
    """
    if values.isna().all():
        return [False] * len(values)
    best = spell({str(values.name): values.min()})
    return [spell({str(values.name): value}) == best for value in values]


def most(values: pd.Series, spell: Spell) -> list[bool]:
    """As :func:`least`, of the largest."""
    if values.isna().all():
        return [False] * len(values)
    best = spell({str(values.name): values.max()})
    return [spell({str(values.name): value}) == best for value in values]


def _missing(value: object) -> bool:
    return (
        value is None
        or value is pd.NA
        or (isinstance(value, float | np.floating) and value != value)
    )
