"""Which cell one would take, without a look at the scores that are reported."""

from __future__ import annotations

from analysis.part import Part
from analysis.statistics.additive import failures


def pick(part: Part, method: str | None = None) -> str:
    """The cell that one would take: the best mean selection score, fewest parameters on a tie.

    A cell in which a seed failed at the selected rate is taken only if there is no other.

    Args:
        method: only its cells; all by default.

    Raises:
        ValueError: no cell of the method has a selection score.
    """
    table = part.cells.dropna(subset=["selection_score"])
    if method is not None:
        table = table[table["method"] == method]
    if table.empty:
        there = ", ".join(sorted(part.cells["method"].unique()))
        raise ValueError(f"method {method!r} has no score in {part.title}; there are {there}")
    lame = failures(part).reindex(table["cell"]).to_numpy() > 0
    ranked = table.assign(lame=lame).sort_values(
        ["lame", "selection_score", "adapter", "cell"], ascending=[True, False, True, True]
    )
    return str(ranked["cell"].iloc[0])
