"""Every table, and the way to write those of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from analysis.load import load
from analysis.part import Part, parts
from analysis.tables import (
    against,
    cost,
    methods,
    parameters,
    quality,
    ranking,
    speed,
    tradeoff,
)
from analysis.tables.table import Lacking, Table
from analysis.tables.write import write

TABLES: dict[str, Callable[[Part], Table]] = {
    "parameters": parameters.table,
    "quality": quality.table,
    "methods": methods.table,
    "ranking": ranking.table,
    "against": against.table,
    "cost": cost.table,
    "tradeoff": tradeoff.table,
}
"""Name -> the table of a part; it raises :class:`analysis.tables.table.Lacking`."""


class Written(NamedTuple):
    """The files of one table, or why there is none, or what could not be read."""

    paths: list[Path]
    lacking: str | None


def write_study(folder: Path) -> Iterator[Written]:
    """Write ``<folder>/tables/<slug>-<name>.{csv,md,tex}`` of every part and table.

    Args:
        folder: ``results/<study>``.

    Raises:
        FileNotFoundError: the folder holds no results.
    """
    trials = load(folder)
    for file, why in trials.attrs["unread"].items():
        yield Written([], f"{folder / file} holds no result and was left out: {why}")
    for part in parts(trials, folder):
        for name, table in TABLES.items():
            try:
                yield Written(write(table(part), folder / "tables" / f"{part.slug}-{name}"), None)
            except Lacking as error:
                yield Written([], str(error))


def write_speed(root: Path) -> Written:
    """Write ``<root>/bench/tables/speed.{csv,md,tex}``: of no study."""
    try:
        return Written(write(speed.table(root), root / "bench" / "tables" / "speed"), None)
    except Lacking as error:
        return Written([], str(error))
