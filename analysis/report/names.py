"""Cells in a few words: a method and the knobs that tell it from the method's others."""

from __future__ import annotations

from typing import Any

from analysis import labels
from analysis.load import spell
from analysis.part import Part
from analysis.report.words import method_name

FIXED = {
    "lokr": ("r", "alpha", "decompose_factor"),
    "lokr-peft": ("r", "alpha", "decompose_factor"),
    "lora": ("r", "alpha"),
}
"""What is named of a method though all of its cells have the same: there is no LoKr without."""


def names(part: Part) -> dict[str, str]:
    """Cell -> its name, for people."""
    table = labels.shortened(part.cells, part.trials)
    first = part.trials.drop_duplicates("cell").set_index("cell")
    varied = labels.knobs(table)
    return {
        row["cell"]: _name(row, varied, first.loc[row["cell"]].to_dict())
        for row in table.to_dict("records")
    }


def name_of(part: Part, cell: str) -> str:
    """A cell's name."""
    return names(part)[cell]


def _name(cell: dict[str, Any], varied: list[str], trial: dict[str, Any]) -> str:
    method = str(cell["method"])
    known = {knob: spell(trial[f"trial.{knob}"]) for knob in FIXED.get(method, ())}
    known |= {knob: cell[knob] for knob in varied if cell[knob]}
    order = dict.fromkeys([*(knob for knob in varied if knob in known), *known])
    values = [f"{labels.HEADINGS.get(knob, knob)}={known[knob]}" for knob in order]
    return " ".join([method_name(method), *values])
