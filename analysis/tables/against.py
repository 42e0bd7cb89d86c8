"""Methods against each other: the cells that one would take, over the seeds that both have."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from analysis.part import Part
from analysis.statistics.choice import pick
from analysis.statistics.paired import against, holm
from analysis.tables import protocol
from analysis.tables.methods import chosen
from analysis.tables.table import Column, Lacking, Row, Table, bounds, points, text


def pairs(part: Part) -> pd.DataFrame:
    """Every method's chosen cell minus every other's.

    Returns:
        One row a pair of methods, the better one first as a rule: ``method``, ``against``,
        ``cell``, ``against_cell``, ``difference``, ``low``, ``high``, ``p``, ``p_holm`` (over these
        pairs), ``seeds``, ``test``, as in :func:`analysis.statistics.paired.against`.
    """
    methods = [str(method) for method in chosen(part)["method"]]
    rows = [_row(part, one, other) for one, other in combinations(methods, 2)]
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(float))) if rows else frame


def table(part: Part) -> Table:
    """One row a pair of methods.

    Raises:
        Lacking: the part has no two methods with scores.
    """
    frame = pairs(part)
    if frame.empty:
        raise Lacking(f"{part.title} has no two methods to compare")
    columns = [
        Column("method", text("method"), number=False),
        Column("against", text("against"), number=False),
        Column("difference", points("difference", 2, "+"), best=[*_clear(frame)]),
        Column("95%", bounds("low", "high", 2, sign="+")),
        Column("p", _chance("p")),
        Column("p, Holm", _chance("p_holm")),
        Column("seeds", text("seeds")),
        Column("test", text("test"), number=False),
    ]
    caption = protocol.joined(
        "Each method's cell with the best selection score, minus the other's; mean over the seeds "
        "that both have, in points. 95%: Student's t, one pair at a time; p: of no difference, "
        "two-sided; Holm: corrected for the pairs of this table. Bold: p by Holm is below 5%.",
        protocol.selection(part),
        "The interval covers other seeds, not other training or dev rows, nor the choice of cell "
        "and rate.",
        protocol.design(part),
    )
    title = f"{part.title}: methods against each other"
    return Table("against", title, frame, columns, caption, protocol.notes(part))


def _row(part: Part, one: str, other: str) -> dict[str, object]:
    rows = against(part, other)
    row = rows[rows["cell"] == pick(part, one)].iloc[0].to_dict()
    names = {"method": one, "against": other, "cell": row["cell"], "against_cell": row["against"]}
    numbers = ("difference", "low", "high", "p", "p_holm", "seeds", "test")
    return names | {name: row[name] for name in numbers}


def _clear(frame: pd.DataFrame) -> pd.Series:
    return frame["p_holm"] < 0.05


def _chance(name: str):
    def spell(row: Row) -> str:
        value = row[name]
        if value != value:
            return ""
        return "<0.001" if value < 0.001 else f"{value:.3f}"

    return spell
