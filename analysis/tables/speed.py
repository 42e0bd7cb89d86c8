"""Ours beside its peers: what a trial of a sweep takes, by way to train it."""

from __future__ import annotations

from pathlib import Path

from analysis import cost
from analysis.provenance import commits
from analysis.tables import protocol
from analysis.tables.table import Column, Lacking, Table, significant, text


def table(root: Path) -> Table:
    """One row a study, base and way, packed first.

    Args:
        root: the folder of all results.

    Raises:
        Lacking: no sweep was timed on a GPU; says how to.
    """
    found = cost.sweeps(root)
    frame = found[~found["small"].astype(bool)] if len(found) else found
    if frame.empty:
        raise Lacking("no sweep was timed; `python -m experiments bench sweep` on a GPU times one")
    order = {way: place for place, way in enumerate(cost.WAYS)}
    frame = frame.assign(order=frame["way"].map(order)).sort_values(
        ["study", "base", "order"], ignore_index=True
    )
    columns = [
        Column("task", text("task"), number=False),
        Column("base", text("base"), number=False),
        Column("trained by", text("label"), number=False),
        Column("s a trial", significant("seconds")),
        Column("times slower", significant("slower")),
        Column("timed", lambda row: f"{row['timed']} of {row['trials']}"),
    ]
    caption = protocol.joined(
        "Seconds a trial of a sweep of LoKr trials. Packed: from the start of the process to the "
        "last result, over all trials; the others: mean of those that were timed, no start-up.",
        f"{', '.join(sorted(frame['hardware'].unique()))}, commit {commits(frame)}.",
    )
    return Table("speed", "Ours beside its peers", frame.drop(columns="order"), columns, caption)
