"""Lines between the tables."""

from __future__ import annotations

from rich.console import Console


def say(console: Console, line: str, style: str | None = None) -> None:
    """One line whatever its length, so that a path can be copied."""
    console.print(line, style=style, soft_wrap=True, highlight=False, markup=False)


def warn(console: Console, line: str) -> None:
    """A line that says what is lacking."""
    say(console, line, "yellow")
