"""Each method by the cell that one would take: the short table of a paper."""

from __future__ import annotations

import pandas as pd

from analysis.part import Part
from analysis.statistics.cells import COVERS
from analysis.statistics.choice import pick, worth
from analysis.tables import protocol
from analysis.tables.identity import named
from analysis.tables.quality import score_columns, scored
from analysis.tables.table import Column, Row, Table, points, text, whole


def chosen(part: Part) -> pd.DataFrame:
    """Rows of :func:`analysis.tables.quality.scored`, one a method: the cell with the best
    selection score. ``cells`` counts the method's, ``least`` and ``greatest`` are the
    trainable parameters among them; ``anew`` is the mean of
    :func:`analysis.statistics.choice.crossed`. A method without a score is left out.
    """
    frame = scored(part)
    methods = frame.dropna(subset=["selection"])["method"].unique()
    picked = frame[frame["cell"].isin([pick(part, str(method)) for method in methods])]
    cells = part.cells.groupby("method")["trainable"].agg(cells="size", least="min", greatest="max")
    anew = picked["method"].map(lambda method: worth(part, str(method)).mean)
    return (
        picked.assign(anew=anew)
        .merge(cells, left_on="method", right_index=True)
        .reset_index(drop=True)
    )


def table(part: Part) -> Table:
    """One row a method, best first: its cells, the one that the selection half chooses."""
    frame = chosen(part)
    columns = [
        Column("method", text("method"), number=False),
        Column("cells", text("cells")),
        Column("trainable", _range),
        Column("chosen", whole("trainable")),
        *score_columns(frame),
        Column("anew", points("anew")),
        Column("full", points("full")),
    ]
    caption = protocol.joined(
        "Each method's cell with the best selection score; trainable: parameters (head included), "
        "from the fewest to the most of its cells, chosen: of that cell.",
        protocol.selection(part),
        protocol.papers().replace("full:", "full: that cell by"),
        f"{COVERS}, nor of the cell.",
        "anew: mean score with each seed left out of the choice of cell and rate that it is scored "
        "by.",
        protocol.design(part),
        protocol.TIES,
        _which(frame),
    )
    title = f"{part.title}: methods"
    return Table("methods", title, named(part, frame), columns, caption, protocol.notes(part))


def _range(row: Row) -> str:
    least, greatest = whole("least")(row), whole("greatest")(row)
    return least if least == greatest else f"{least} to {greatest}"


def _which(frame: pd.DataFrame) -> str:
    """The chosen cells that have more to their name than the method."""
    names = [str(cell) for cell in frame["cell"] if " " in str(cell)]
    return f"Chosen: {'; '.join(names)}." if names else ""
