"""One file a figure; each takes a part, or all of them, and gives a matplotlib figure.

``FIGURES`` are functions of one part, ``ACROSS`` of the folder of all results and all parts. A name
is the end of the file's. A figure for which the results hold no data raises
:class:`analysis.figures.style.Lacking`, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures import (
    curves,
    expected,
    forgetting,
    gallery,
    gaps,
    heatmap,
    importance,
    paired,
    pareto,
    profiles,
    ranking,
    ridge,
    samples,
    sizes,
    sweep_time,
)
from analysis.part import Part

FIGURES: dict[str, Callable[[Part], Figure]] = {
    "pareto": pareto.draw,
    "ranking": ranking.draw,
    "paired": paired.draw,
    "importance": importance.draw,
    "heatmap": heatmap.draw,
    "ridge": ridge.draw,
    "curves": curves.draw,
    "expected": expected.draw,
    "forgetting": forgetting.draw,
    "samples": samples.draw,
    "gallery": gallery.draw,
}
ACROSS: dict[str, Callable[[Path, Sequence[Part]], Figure]] = {
    "gaps": gaps.draw,
    "profiles": profiles.draw,
    "sizes": sizes.draw,
    "sweep-time": sweep_time.draw,
}
