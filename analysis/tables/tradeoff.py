"""Cost against quality: what a point more takes in parameters, time, memory and energy."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.part import Part
from analysis.statistics.cells import COVERS
from analysis.tables import cost, protocol
from analysis.tables.identity import identity, named
from analysis.tables.quality import scored
from analysis.tables.table import (
    Column,
    Lacking,
    Row,
    Table,
    bounds,
    points,
    significant,
    whole,
)

COSTS = {"trainable": "parameters", "step_p50_ms": "time", "peak_bytes": "memory"}
"""What is paid -> what the front of cells that nothing beats in it and in score is called."""


def fronts(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``front_<name>`` for each of ``COSTS``: no cell costs less and scores as much,
    or costs as much and scores more.

    Args:
        frame: ``mean`` (score) and the columns of ``COSTS``, NaN where missing.
    """
    flags = {f"front_{name}": _front(frame[paid], frame["mean"]) for paid, name in COSTS.items()}
    return frame.assign(**flags)


def table(part: Part) -> Table:
    """One row a cell that is on a front or tied with the best, and each method's best."""
    frame, lacking = _joined(part)
    frame = fronts(frame)
    flags = [f"front_{name}" for name in COSTS.values()]
    first = ~frame.duplicated("method")
    frame = frame[frame[flags].any(axis=1) | first].reset_index(drop=True)
    columns = [
        *identity(part),
        Column("score", points("mean"), best=[*frame["best"]]),
        Column("95%", bounds("low", "high")),
        Column("trainable", whole("trainable"), best=[*frame["front_parameters"]]),
        Column("step, ms", significant("step_p50_ms"), best=[*frame["front_time"]]),
        Column("peak, MiB", significant("peak_bytes", 3, 2**-20), best=[*frame["front_memory"]]),
        Column("J/1000", significant("joules_per_1000")),
        Column("fronts", _fronts, number=False),
    ]
    caption = protocol.joined(
        "Cells on a front (none costs less and scores as much), and each method's best. Fronts by "
        "mean scores: a neighbor within the interval may be as good. Bold in a cost: on that "
        "front. step, peak and J/1000: of one trial alone, see the table of cost.",
        lacking,
        protocol.selection(part),
        f"{COVERS}.",
        protocol.design(part),
        protocol.TIES.replace("Bold:", "Bold score:"),
        protocol.short_names(part),
    )
    title = f"{part.title}: cost against quality"
    return Table("tradeoff", title, named(part, frame), columns, caption, protocol.notes(part))


def _joined(part: Part) -> tuple[pd.DataFrame, str]:
    """Scores and costs, and what is lacking: several kinds of hardware are never mixed, the one
    that measured the most cells is taken.
    """
    names = ["step_p50_ms", "peak_bytes", "joules_per_1000"]
    frame = scored(part)
    try:
        found = cost.measured(part)
    except Lacking as error:
        return frame.assign(**dict.fromkeys(names, np.nan)), f"{error}."
    counts = (
        found["hardware"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    )
    own = found[found["hardware"] == counts.index[0]].drop_duplicates("cell")
    return frame.merge(own[["cell", *names]], on="cell", how="left"), f"Costs on {counts.index[0]}."


def _front(costs: pd.Series, scores: pd.Series) -> list[bool]:
    known = [(c, s) for c, s in zip(costs, scores, strict=True) if c == c and s == s]
    return [
        bool(c == c and s == s and not any(_beats(other, (c, s)) for other in known))
        for c, s in zip(costs, scores, strict=True)
    ]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]


def _fronts(row: Row) -> str:
    return ", ".join(name for name in COSTS.values() if row[f"front_{name}"])
