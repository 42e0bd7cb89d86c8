"""Ours beside its peers: what a trial of a sweep takes, by way to train it."""

from __future__ import annotations

from pathlib import Path

from analysis import cost
from analysis.provenance import commits
from analysis.tables import protocol
from analysis.tables.table import Column, Lacking, Table, significant

SHORT = {
    cost.PACKED: "ours, packed",
    "captured": "PEFT, graph",
    "unpacked": "PEFT, Python",
    "trainer": "PEFT, Trainer",
}
"""The ways of :data:`analysis.cost.WAYS` in a narrow column."""


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
        Column("task, base", lambda row: f"{row['task']}, {row['base']}", number=False),
        Column("trained by", lambda row: SHORT[row["way"]], number=False),
        Column("s a trial", significant("seconds")),
        Column("slower", significant("slower")),
        Column("timed", lambda row: f"{row['timed']} of {row['trials']}"),
    ]
    caption = protocol.joined(
        "Seconds a trial of a sweep of LoKr trials, and how many times slower than packed. Packed: "
        "from the start of the process to the last result, over all trials; PEFT: mean of those "
        "that were timed, without start-up, in our loop (steps replayed from a CUDA graph, or "
        "launched from Python) or in transformers' Trainer.",
        f"{', '.join(sorted(frame['hardware'].unique()))}, commit {commits(frame)}.",
    )
    frame = frame.drop(columns="order")
    title, notes = "Ours beside its peers", protocol.unread(found)
    return Table("speed", title, frame, columns, caption, notes)
