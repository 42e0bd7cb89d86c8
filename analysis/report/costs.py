"""What a part's methods cost, from trials that were measured alone, never from a pack."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.part import Part
from analysis.report.names import name_of
from analysis.report.rows import GIB


def sentences(part: Part, costs: pd.DataFrame) -> list[str]:
    """A sentence a measured cell, the fastest first.

    Args:
        part: whose.
        costs: of all studies, from :func:`analysis.cost.load`.
    """
    cells = part.trials.set_index("id")["cell"]
    own = costs[(costs["study"] == part.study) & costs["id"].isin(cells.index)]
    if own.empty:
        return []
    ranked = own.sort_values(["hardware", "step_p50_ms", "id"])
    return [_sentence(part, cells[row["id"]], row) for row in ranked.to_dict("records")]


def _sentence(part: Part, cell: str, row: dict[str, Any]) -> str:
    return f"{name_of(part, cell)}: {', '.join(_numbers(row))}, on {row['hardware']}."


def _numbers(row: dict[str, Any]) -> Iterator[str]:
    """Those that were measured."""
    yield f"{row['step_p50_ms']:.3g} ms a step of {row['rows']:,} rows"
    if not math.isnan(row["to_frozen"]):
        yield f"{row['to_frozen']:.3g} times the frozen base's"
    if not math.isnan(row["peak_bytes"]):
        yield f"{row['peak_bytes'] / GIB:.3g} GiB at its peak"
    if not math.isnan(row["joules_per_1000"]):
        yield f"{row['joules_per_1000']:.3g} J for 1,000 rows"
