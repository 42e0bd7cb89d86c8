"""The columns that name a cell, in the frame and for people."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from analysis import labels
from analysis.part import Part
from analysis.tables.table import Column, Row, Spell, text


def named(part: Part, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``cell``, ``method`` and the knobs in front.

    Args:
        frame: has ``cell``, of ``part.cells``.
    """
    names = ["cell", "method", *labels.knobs(part.cells)]
    numbers = [name for name in frame.columns if name not in names]
    return part.cells[names].merge(frame[["cell", *numbers]], on="cell", how="right")


def identity(part: Part) -> list[Column]:
    """Method and knobs, spelled short; of a frame with ``cell`` and ``method``."""
    short = labels.shortened(part.cells, part.trials).set_index("cell")
    columns = [Column("method", text("method"), number=False)]
    for knob in labels.knobs(part.cells):
        texts = {str(cell): str(value) for cell, value in short[knob].items()}
        columns.append(Column(labels.HEADINGS.get(knob, knob), _of_cell(texts), number=False))
    return columns


def natural(name: str) -> tuple[str | float, ...]:
    """A key by which r=8 comes before r=16."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)  # words and numbers in turns
    return tuple(float(part) if place % 2 else part for place, part in enumerate(parts))


def _of_cell(texts: Mapping[str, str]) -> Spell:
    def spell(row: Row) -> str:
        return texts[row["cell"]]

    return spell
