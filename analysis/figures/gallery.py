"""Samples of every cell: the truth and the untouched base, then all cells, best first."""

from __future__ import annotations

import math
from collections.abc import Iterator

from matplotlib.figure import Figure

from analysis import labels
from analysis.figures import rows
from analysis.figures.samples import Strip, Wanted, middle, read, references, require
from analysis.figures.style import PAGE, SMALL, TITLE, Lacking, note, styled
from analysis.part import Part

BESIDE = 3
"""Cells in a row of the page."""
SHOWN = 6
"""Pictures of a cell."""
MOST = 54
"""Blocks on a page."""
MARGIN = 0.06
HEAD, NAME = 0.3, 0.135
_NOTE = (
    "Concepts that were never shown in the style, the same in a place. Every cell at its selected "
    "rate, its middle seed, after the last step; behind the name that trial's {metric} in "
    "points on the report half; order: selection half. {short} Flags that are off are left out. "
    "{left}{lacking}"
)


@styled
def draw(part: Part) -> Figure:
    """A block a cell, ``BESIDE`` of them in a row.

    Raises:
        Lacking: no picture can be read, or the task has no truth to stand beside.
    """
    require(part.pictures)
    every = list(wanted(part))
    strips, lacking = read(every[:MOST])
    if not strips:
        raise Lacking(f"no picture can be read from {part.pictures.name}/")
    missing = f"Cannot be read: {', '.join(lacking)}." if lacking else ""
    left = f"Cells that have no room here: {len(every) - MOST}. " if len(every) > MOST else ""
    short = rows.explained(part)
    words = _NOTE.format(metric=part.metric, short=short, left=left, lacking=missing)
    return _page(strips, part.title, " ".join(words.split()))


def wanted(part: Part) -> Iterator[Wanted]:
    """Truth and base, then a trial of each cell: the one in the middle of its seeds."""
    yield from references(part.pictures, part.trials)
    names = rows.compact(part)
    drew = part.selected[part.selected["status"] == "ok"].dropna(subset="score")
    ranked = part.cells.sort_values("selection_score", ascending=False, kind="stable")
    for cell in ranked["cell"]:
        own = drew[drew["cell"] == cell]
        if len(own):
            trial = middle(own)
            label = f"{names[cell]}, {labels.percent(float(trial['score']))}"
            yield Wanted(label, part.pictures / f"{trial['id']}.samples.webp")


def _page(strips: list[Strip], title: str, words: str) -> Figure:
    wide = (PAGE - MARGIN) / BESIDE - MARGIN  # inches of a block
    tall = wide / max(min(SHOWN, strip.shape) for strip in strips)
    text = note(PAGE, words)
    down = math.ceil(len(strips) / BESIDE)
    height = HEAD + down * (NAME + tall + MARGIN) + text.height + 2 * MARGIN
    figure = Figure(figsize=(PAGE, height))
    figure.text(MARGIN / PAGE, 1 - MARGIN / height, title, va="top", size=TITLE)
    figure.text(MARGIN / PAGE, MARGIN / height, text.lines, va="bottom", size=SMALL)
    for place, strip in enumerate(strips):
        row, column = divmod(place, BESIDE)
        left = MARGIN + column * (wide + MARGIN)
        top = height - HEAD - row * (NAME + tall + MARGIN)
        shown = strip.first(SHOWN)
        figure.text(left / PAGE, top / height, strip.label, va="top", size=SMALL)
        axes = figure.add_axes(
            (
                left / PAGE,
                (top - NAME - tall) / height,
                tall * shown.shape / PAGE,
                tall / height,
            )
        )
        axes.imshow(shown.pixels, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
    return figure
