"""How many parameters each cell trains."""

from __future__ import annotations

from analysis.part import Part
from analysis.tables import protocol
from analysis.tables.identity import identity, named, natural
from analysis.tables.table import Column, Table, number, whole


def table(part: Part) -> Table:
    """One row a cell, fewest first: adapter, head and trainable parameters, and their share."""
    counts = part.trials.groupby("cell")[
        [f"parameters.{name}" for name in ("adapter", "head", "trainable", "base")]
    ].first()
    frame = counts.rename(columns=lambda name: name.removeprefix("parameters.")).reset_index()
    frame["share"] = frame["trainable"] / frame["base"]
    frame = frame.sort_values("cell", key=lambda names: names.map(natural))
    frame = frame.sort_values("trainable", kind="stable", ignore_index=True)
    caption = protocol.joined(
        "Parameters that each cell trains; share: trainable, in % of the base's "
        f"{_base(frame['base'].max())}.",
        protocol.short_names(part),
    )
    columns = [
        *identity(part),
        Column("adapter", whole("adapter")),
        Column("head", whole("head")),
        Column("trainable", whole("trainable")),
        Column("share, %", number("share", 3, 100)),
    ]
    title = f"{part.title}: parameters"
    return Table("parameters", title, named(part, frame), columns, caption, protocol.notes(part))


def _base(count: float) -> str:
    return "parameters" if count != count else f"{count:,.0f} parameters"
