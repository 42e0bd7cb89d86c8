"""Numbers and names as sentences have them. Every number in the page's text goes through here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.effects import TINY
from analysis.figures.style import STYLES

MINUS = "\u2212"


def method_name(method: str) -> str:
    """What people call a method; its own name where we have none."""
    if method == TINY:
        return f"{method_name('lokr')}, small"
    return STYLES[method][2] if method in STYLES else method


def points(share: float, digits: int = 1) -> str:
    """A score: 0.3514 as 35.1; "unknown" where it is missing."""
    return "unknown" if math.isnan(share) else f"{100 * share:.{digits}f}".replace("-", MINUS)


def change(share: float, digits: int = 2) -> str:
    """A difference of scores: 0.0265 as +2.65."""
    if math.isnan(share):
        return "unknown"
    number = round(100 * share, digits)
    return f"{number:{'+' if number else ''}.{digits}f}".replace("-", MINUS if number else "")


def size(share: float, digits: int = 2) -> str:
    """The size of a difference, without its sign."""
    return points(abs(share), digits)


def between(low: float, high: float, digits: int = 2) -> str:
    """An interval of a difference in words."""
    return f"{change(low, digits)} to {change(high, digits)}"


def counted(number: int, one: str, several: str | None = None) -> str:
    """1 cell, 2 cells, 10,000 cells."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    *others, final = words
    return f"{', '.join(others)} {last} {final}" if others else final


def chance(p: float) -> str:
    """A p value: 0.0415 as p = 0.042, and what is smaller than 0.001 as that."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
