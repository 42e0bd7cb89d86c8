"""What training and using each cell costs, measured alone."""

from __future__ import annotations

import pandas as pd

from analysis import cost
from analysis.part import Part
from analysis.provenance import commits, mixed
from analysis.tables import protocol
from analysis.tables.identity import identity, named
from analysis.tables.table import (
    Column,
    Lacking,
    Row,
    Table,
    least,
    most,
    number,
    significant,
    text,
)

MIB, KIB = 2**20, 2**10


def measured(part: Part) -> pd.DataFrame:
    """The measurements of the part's cells, see :func:`analysis.cost.of_part`, with ``file_bytes``:
    of the adapter, or of the head where there is no adapter.

    Raises:
        Lacking: nothing was measured; says how to.
    """
    found = cost.of_part(part.folder.parent, part)
    if found.empty:
        lines = [
            f"{part.title}: no cost was measured; `python -m experiments cost {part.study}` on an "
            "idle GPU measures it",
            *protocol.unread(found),
        ]
        raise Lacking("; ".join(lines))
    return found.assign(file_bytes=found["adapter_bytes"].fillna(found["head_bytes"]))


def table(part: Part) -> Table:
    """One row a measured cell and kind of hardware, in the order of the part's cells.

    Raises:
        Lacking: see :func:`measured`.
    """
    found = measured(part)
    frame = _ordered(part, found)
    columns = [*identity(part), *_hardware(frame), *_training(frame), *_keeping(frame)]
    title = f"{part.title}: cost"
    notes = [*protocol.notes(part), *mixed(found), *protocol.unread(found)]
    return Table("cost", title, frame, columns, _caption(part, found), notes)


def _ordered(part: Part, found: pd.DataFrame) -> pd.DataFrame:
    numbers = found[["cell", "hardware", "mode", "rows", *cost.MEASURED, "file_bytes"]]
    frame = part.cells[["cell"]].merge(numbers, on="cell", how="inner")
    return named(part, frame)


def _hardware(frame: pd.DataFrame) -> list[Column]:
    several = frame["hardware"].nunique() > 1
    return [Column("hardware", text("hardware"), number=False)] if several else []


def _training(frame: pd.DataFrame) -> list[Column]:
    units = "tokens" if frame["tokens_per_second"].notna().any() else "rows"
    peak, joules = significant("peak_bytes", 3, 1 / MIB), significant("joules_per_1000")
    return [
        _smallest(frame, "step, ms", "step_p50_ms", significant("step_p50_ms")),
        Column("p95", significant("step_p95_ms")),
        Column("x frozen", _ratio),
        _largest(frame, f"{units}/s", f"{units}_per_second", significant(f"{units}_per_second")),
        _smallest(frame, "peak, MiB", "peak_bytes", peak),
        _smallest(frame, "J/1000", "joules_per_1000", joules),
    ]


def _keeping(frame: pd.DataFrame) -> list[Column]:
    size = significant("file_bytes", 3, 1 / KIB)
    return [
        _smallest(frame, "KiB", "file_bytes", size),
        Column("answer, ms", significant("answer_adapted_ms")),
        Column("merged", significant("answer_merged_ms")),
    ]


def _smallest(frame: pd.DataFrame, heading: str, name: str, spell) -> Column:
    return Column(heading, spell, best=_within(frame, name, least, spell))


def _largest(frame: pd.DataFrame, heading: str, name: str, spell) -> Column:
    return Column(heading, spell, best=_within(frame, name, most, spell))


def _within(frame: pd.DataFrame, name: str, best, spell) -> list[bool]:
    """The best on each kind of hardware."""
    marks = pd.Series(False, index=frame.index)
    for _, group in frame.groupby("hardware"):
        marks[group.index] = best(group[name], spell)
    return marks.tolist()


def _ratio(row: Row) -> str:
    middle = number("to_frozen", 2)(row)
    low, high = number("to_frozen_low", 2)(row), number("to_frozen_high", 2)(row)
    return f"{middle} ({low} to {high})" if middle else ""


def _caption(part: Part, found: pd.DataFrame) -> str:
    cells = part.cells["cell"].nunique()
    lacking = cells - found["cell"].nunique()
    return protocol.joined(
        "One trial of each cell alone on idle hardware, its own first batches. step: median of a "
        f"whole step, {_modes(found)}, of {_rows(found)} rows; p95: 95th percentile; x frozen: "
        "ratio to the frozen base's step in turns, median (quartiles of the rounds); peak: memory "
        "allocated in eager steps, weights included; J/1000: joules for 1,000 rows, by the GPU's "
        "counter; KiB: the adapter's file, or the head's; answer, merged: ms for one row, adapter "
        "apart and in the weights.",
        protocol.SHOWN,
        *(f"No energy: {why}." for why in sorted(found["energy_reason"].dropna().unique())),
        f"{', '.join(sorted(found['hardware'].unique()))}, commit {commits(found)}.",
        f"{lacking} of {cells} cells were not measured: `python -m experiments cost {part.study}`."
        if lacking
        else "",
        protocol.short_names(part),
    )


def _modes(found: pd.DataFrame) -> str:
    modes = {*found["mode"]}
    if modes == {"captured"}:
        return "replayed from a CUDA graph as in training"
    if modes == {"eager"}:
        return "launched from Python"
    return "replayed from a CUDA graph where it could be captured"


def _rows(found: pd.DataFrame) -> str:
    return " or ".join(str(n) for n in sorted(found["rows"].unique()))
