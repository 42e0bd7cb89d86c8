"""Samples side by side: the truth, the untouched base, and the best cell of each method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import labels
from analysis.figures.pareto import STYLES
from analysis.selection import select_rates

INCH = 0.8
"""Height of a row."""
LABEL = 2.5
"""Inches for the rows' names."""
TITLE = 0.4
NOTES = 0.25
MARGIN = 0.1


class Wanted(NamedTuple):
    """A row's name and the file that its pictures are in."""

    label: str
    file: Path


class Strip(NamedTuple):
    """A row: its name, and pictures side by side, (h, w, 3) uint8."""

    label: str
    pixels: np.ndarray


def wanted(pictures: Path, table: pd.DataFrame, frame: pd.DataFrame, metric: str) -> list[Wanted]:
    """The rows of a task's figure.

    A method's cell is the one that is best on the selection half, and its trial the one whose score
    is in the middle of its seeds (of an even number, the lower of the two).

    Args:
        pictures: ``results/<study>/pictures``.
        table: from :func:`analysis.selection.cells`, its knobs shortened.
        frame: the trials that it was made from, all of one task.
        metric: name of the score.
    """
    style = str(frame["trial.task"].iloc[0]).partition("/")[2]
    rows = [
        Wanted("the truth", pictures / f"{style}-truth.webp"),
        Wanted("untouched base", pictures / f"{style}-base.webp"),
    ]
    selected = select_rates(frame)
    drew = selected[selected["status"] == "ok"].dropna(subset="score")
    ranked = table[table["cell"].isin(drew["cell"])].sort_values(
        "selection_score", ascending=False, kind="stable"
    )
    for _, cell in ranked.drop_duplicates("method").iterrows():
        trial = _middle(drew[drew["cell"] == cell["cell"]])
        label = _label(cell, labels.knobs(table), float(trial["score"]), metric)
        rows.append(Wanted(label, pictures / f"{trial['id']}.samples.webp"))
    return rows


def read(rows: Sequence[Wanted]) -> tuple[list[Strip], list[str]]:
    """The rows whose pictures can be read, and the names of the files that cannot."""
    from PIL import Image

    strips, lacking = [], []
    for label, file in rows:
        try:
            with Image.open(file) as image:
                strips.append(Strip(label, np.asarray(image.convert("RGB"))))
        except OSError:  # also what is no picture
            lacking.append(file.name)
    return strips, lacking


def samples(strips: Sequence[Strip], title: str, notes: str) -> Figure:
    """One row a strip, all of one height; the same concept stands in the same column.

    Args:
        strips: the rows, at least one.
        title: task and base.
        notes: what short knobs stand for.
    """
    width = LABEL + INCH * max(map(_shape, strips)) + MARGIN
    height = TITLE + (INCH + MARGIN) * len(strips) + NOTES
    figure = Figure(figsize=(width, height))
    what = "concepts that were never shown; the best cell of each method, its middle seed"
    figure.text(0.5, 1 - TITLE / 2 / height, f"{title}: {what}", ha="center", va="center", size=8)
    figure.text(0.5, NOTES / 2 / height, notes, ha="center", va="center", size=6)
    for place, strip in enumerate(strips):
        bottom = height - TITLE - INCH - (INCH + MARGIN) * place
        axes = figure.add_axes(
            (LABEL / width, bottom / height, INCH * _shape(strip) / width, INCH / height)
        )
        axes.imshow(strip.pixels, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        at = ((LABEL - MARGIN) / width, (bottom + INCH / 2) / height)
        figure.text(*at, strip.label, ha="right", va="center", size=7, linespacing=1.3)
    return figure


def _shape(strip: Strip) -> float:
    """Width over height."""
    return strip.pixels.shape[1] / strip.pixels.shape[0]


def _middle(trials: pd.DataFrame) -> pd.Series:
    ranked = trials.sort_values(["score", "trial.seed"], ignore_index=True)
    return ranked.iloc[(len(ranked) - 1) // 2]


def _label(cell: pd.Series, knobs: Sequence[str], score: float, metric: str) -> str:
    method = STYLES[str(cell["method"])][2]
    values = [f"{labels.HEADINGS.get(k, k)}={cell[k]}" for k in knobs if cell[k] != ""]
    lines = [" ".join(values[i : i + 3]) for i in range(0, len(values), 3)]
    numbers = f"{labels.whole(cell['trainable'])} parameters, {metric} {labels.percent(score)}"
    return "\n".join([method, *lines, numbers])
