"""Cells in the order of their scores, and which of them the seeds can tell apart."""

from __future__ import annotations

import math

from analysis.part import Part
from analysis.statistics.cells import COVERS
from analysis.statistics.noise import pooled
from analysis.tables import protocol
from analysis.tables.identity import identity, named
from analysis.tables.quality import scored
from analysis.tables.table import Column, Row, Table, bounds, points, text, whole


def table(part: Part) -> Table:
    """One row a cell, best first: place, score, interval, tied with the best, chosen."""
    frame = scored(part)
    columns = [
        Column("place", _place),
        *identity(part),
        Column("trainable", whole("trainable")),
        Column("score", points("mean"), best=[*frame["best"]]),
        Column("95%", bounds("low", "high")),
        Column("n", text("n")),
        Column("selection", points("selection")),
    ]
    caption = protocol.joined(
        "Place: by score, * tied with the first. The first of many cells is first partly by luck; "
        "+: the cell that the selection half would choose.",
        protocol.selection(part),
        f"{COVERS}.",
        _noise(part),
        protocol.design(part),
        protocol.TIES,
        protocol.short_names(part),
    )
    title = f"{part.title}: ranking"
    return Table("ranking", title, named(part, frame), columns, caption, protocol.notes(part))


def _place(row: Row) -> str:
    rank = text("rank")(row)
    return f"{rank}{'*' * row['best']}{'+' * row['chosen']}"


def _noise(part: Part) -> str:
    """What the design could have seen."""
    noise = pooled(part)
    if math.isnan(noise.detectable):
        return "One seed a cell: what is noise cannot be told."
    return (
        f"Noise: standard deviation of a run {100 * noise.sd:.1f} points; the smallest true "
        f"difference between two cells that {noise.seeds} seeds show with 80% power is "
        f"{100 * noise.detectable:.1f}."
    )
