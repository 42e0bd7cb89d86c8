"""Samples side by side: the truth, the untouched base, and the best cell of each method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import labels
from analysis.figures.style import PAGE, SMALL, TITLE, Lacking, note, style, styled
from analysis.part import Part
from analysis.selection import select_rates

LABEL = 2.15
"""Inches for the rows' names."""
MARGIN = 0.05
HEAD = 0.3
_WHAT = (
    "Concepts that were never shown in the style, the same in a column. The cell of each method "
    "that is best on the selection half: its selected rate, its middle seed, after the last step."
)


class Wanted(NamedTuple):
    """A row's name and the file that its pictures are in."""

    label: str
    file: Path


class Strip(NamedTuple):
    """A row: its name, and pictures side by side, (h, w, 3) uint8."""

    label: str
    pixels: np.ndarray

    @property
    def shape(self) -> float:
        """Width over height: how many square pictures it is wide."""
        return self.pixels.shape[1] / self.pixels.shape[0]

    def first(self, count: int) -> Strip:
        """Its first pictures, all of them if it has no more."""
        return self._replace(pixels=self.pixels[:, : count * self.pixels.shape[0]])


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
    rows = references(pictures, frame)
    selected = select_rates(frame)
    drew = selected[selected["status"] == "ok"].dropna(subset="score")
    ranked = table[table["cell"].isin(drew["cell"])].sort_values(
        "selection_score", ascending=False, kind="stable"
    )
    for _, cell in ranked.drop_duplicates("method").iterrows():
        trial = middle(drew[drew["cell"] == cell["cell"]])
        label = _label(cell, labels.knobs(table), float(trial["score"]), metric)
        rows.append(Wanted(label, pictures / f"{trial['id']}.samples.webp"))
    return rows


def references(pictures: Path, frame: pd.DataFrame) -> list[Wanted]:
    """What samples are seen against: the drawings themselves, and the base before training."""
    name = str(frame["trial.task"].iloc[0]).partition("/")[2]
    return [
        Wanted("the truth", pictures / f"{name}-truth.webp"),
        Wanted("untouched base", pictures / f"{name}-base.webp"),
    ]


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


@styled
def draw(part: Part) -> Figure:
    """Truth, base and the best cell of each method, where their pictures can be read.

    Raises:
        Lacking: none can be, or the task has no truth to stand beside.
    """
    require(part.pictures)
    table = labels.shortened(part.cells, part.trials)
    strips, lacking = read(wanted(part.pictures, table, part.trials, part.metric))
    if not strips:
        raise Lacking(f"no picture can be read from {part.pictures.name}/")
    missing = f"Cannot be read: {', '.join(lacking)}." if lacking else ""
    notes = f"{labels.explained(table, part.trials)} {missing}".strip()
    return samples(strips, part.title, notes)


def unreadable(part: Part) -> list[str]:
    """Names of the files that :func:`draw` wants and cannot read."""
    table = labels.shortened(part.cells, part.trials)
    return read(wanted(part.pictures, table, part.trials, part.metric))[1]


def require(pictures: Path) -> None:
    """Raise Lacking where nothing was drawn, or what was drawn has no truth."""
    if any(pictures.glob("*-photos.webp")):
        raise Lacking("sheets of many prompts have no truth beside them")
    if not any(pictures.glob("*.webp")):
        raise Lacking("no samples were drawn")


@styled
def samples(strips: Sequence[Strip], title: str, notes: str) -> Figure:
    """One row a strip, all of one height; the same concept stands in the same column.

    Args:
        strips: the rows, at least one.
        title: task and base.
        notes: what short knobs stand for.
    """
    tall = (PAGE - LABEL - MARGIN) / max(strip.shape for strip in strips)  # inches of a row
    text = note(PAGE, f"{_WHAT} {notes}".strip())
    height = HEAD + (tall + MARGIN) * len(strips) + text.height + MARGIN
    figure = Figure(figsize=(PAGE, height))
    figure.text(MARGIN / PAGE, 1 - MARGIN / height, title, va="top", size=TITLE)
    figure.text(MARGIN / PAGE, MARGIN / height, text.lines, va="bottom", size=SMALL)
    for place, strip in enumerate(strips):
        bottom = height - HEAD - tall - (tall + MARGIN) * place
        axes = figure.add_axes(
            (LABEL / PAGE, bottom / height, tall * strip.shape / PAGE, tall / height)
        )
        axes.imshow(strip.pixels, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        at = ((LABEL - MARGIN) / PAGE, (bottom + tall / 2) / height)
        figure.text(*at, strip.label, ha="right", va="center", size=SMALL, linespacing=1.2)
    return figure


def middle(trials: pd.DataFrame) -> pd.Series:
    """The trial whose score is in the middle; of an even number, the lower of the two."""
    ranked = trials.sort_values(["score", "trial.seed"], ignore_index=True)
    return ranked.iloc[(len(ranked) - 1) // 2]


def _label(cell: pd.Series, knobs: Sequence[str], score: float, metric: str) -> str:
    method = style(cell["method"]).label
    values = [f"{labels.HEADINGS.get(k, k)}={cell[k]}" for k in knobs if cell[k] != ""]
    lines = [" ".join(values[i : i + 3]) for i in range(0, len(values), 3)]
    numbers = f"{labels.whole(cell['trainable'])} parameters, {metric} {labels.percent(score)}"
    return "\n".join([method, *lines, numbers])
