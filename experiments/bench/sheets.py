"""Tables for the terminal and the page, and numbers as people read them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

NONE = "-"


@dataclass(frozen=True)
class Sheet:
    """A table of text: the first column names the row, the others hold numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table for a page."""
        head = ["| " + " | ".join(self.columns) + " |"]
        rule = ["| --- |" + " ---: |" * (len(self.columns) - 1)]
        body = ["| " + " | ".join(row) + " |" for row in self.rows]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"### {self.title}\n", *head, *rule, *body, *notes]) + "\n"

    def show(self, console: Console) -> None:
        """The table on a terminal."""
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for number, name in enumerate(self.columns):
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(f"\n{self.title}", style="bold", highlight=False)
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)


@dataclass(frozen=True)
class Target:
    """A bound that the issue sets on a ratio."""

    kind: Literal["at most", "at least"]
    bound: float

    def met(self, ratio: float) -> bool:
        """Whether the ratio keeps the bound."""
        return ratio <= self.bound if self.kind == "at most" else ratio >= self.bound


def judged(ratio: float | None, target: Target | None) -> str:
    """The ratio beside its target and the verdict: ``1.31 (at most 1.25: missed)``."""
    if ratio is None:
        return NONE
    if target is None:
        return f"{ratio:.2f}"
    verdict = "met" if target.met(ratio) else "missed"
    return f"{ratio:.2f} ({target.kind} {target.bound:g}: {verdict})"


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Their ratio; None where one is missing."""
    if numerator is None or not denominator:
        return None
    return numerator / denominator


def median(samples: Sequence[float] | None) -> float | None:
    """The median; None without samples."""
    return statistics.median(samples) if samples else None


def spread(samples: Sequence[float]) -> float:
    """Distance between the quartiles; 0 of a single sample."""
    if len(samples) < 2:
        return 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return high - low


def with_spread(samples: Sequence[float] | None) -> str:
    """Median and distance between the quartiles: ``0.128 ±0.001``."""
    if not samples:
        return NONE
    middle = statistics.median(samples)
    return f"{number(middle)} ±{number(spread(samples), like=middle)}"


def number(value: float | None, like: float | None = None) -> str:
    """Three digits or so; with the decimals that ``like`` would have."""
    if value is None:
        return NONE
    size = abs(value if like is None else like)
    decimals = 3 if size < 1 else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:,.{decimals}f}"


def least(values: Iterable[float | None]) -> float | None:
    """The smallest of those that are there; None if none is."""
    return min((value for value in values if value is not None), default=None)
