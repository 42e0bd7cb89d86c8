"""What each cell scores, by both protocols."""

from __future__ import annotations

import pandas as pd

from analysis.part import Part
from analysis.statistics.cells import COVERS, summarize
from analysis.tables import protocol
from analysis.tables.identity import identity, named
from analysis.tables.table import Column, Table, bounds, most, points, text, whole


def scored(part: Part) -> pd.DataFrame:
    """:func:`analysis.statistics.cells.summarize` with ``full``, the papers' protocol."""
    full = part.cells.set_index("cell")["full_dev_best"]
    frame = summarize(part)
    return frame.assign(full=frame["cell"].map(full), best=frame["tied"].fillna(False).astype(bool))


def score_columns(frame: pd.DataFrame) -> list[Column]:
    """Mean with interval and IQM; of frames from :func:`scored`."""
    return [
        Column("score", points("mean"), best=[*frame["best"]]),
        Column("95%", bounds("low", "high")),
        Column("IQM", points("iqm")),
        Column("median", points("median")),
        Column("sd", points("sd")),
    ]


def table(part: Part) -> Table:
    """One row a cell, by method and then best first: mean, interval, IQM, both protocols."""
    frame = scored(part).sort_values(["method", "rank", "cell"], ignore_index=True)
    columns = [
        *identity(part),
        Column("trainable", whole("trainable")),
        Column("rate", lambda row: f"{row['rate']:g}"),
        Column("n", text("n")),
        *score_columns(frame),
        Column("full", points("full"), best=most(frame["full"], points("full"))),
    ]
    caption = protocol.joined(
        protocol.selection(part),
        protocol.papers(),
        f"{COVERS}.",
        protocol.design(part),
        protocol.TIES,
        "Of full: the highest as shown.",
        protocol.short_names(part),
    )
    title = f"{part.title}: quality by cell"
    return Table("quality", title, named(part, frame), columns, caption, protocol.notes(part))
