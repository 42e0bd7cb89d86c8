"""The second table of a task that draws: what the samples of each cell are worth, and the two rows
they are read against, the untouched base and the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from rich.console import Console, Group

from analysis import labels
from analysis.selection import judged
from analysis.terminal.layout import Column, fitting, identity


@dataclass(frozen=True)
class Measure:
    """A column.

    Args:
        heading: what it is called where there is little room.
        spell: a value as text.
        meaning: in a few words.
        best: which of ``reference`` is the truth's, None if there is none.
        quality: goes on after the meaning where the ``reference`` that it names is known.
    """

    heading: str
    spell: Callable[[float], str]
    meaning: str
    best: str | None = None
    quality: str = ""


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _cosine(value: float) -> str:
    return _number(value, 3)


def _distance(value: float) -> str:
    return _number(value, 0 if value >= 100 else 1)


def _amount(value: float) -> str:
    return _number(value, 1)


def _share(value: float) -> str:
    return labels.percent(value, 0)


MEASURES = {
    "similarity": Measure(
        "sim",
        _cosine,
        "cosine of features with the true drawing's (truth: itself at 7/8 of its size)",
        "similarity_ceiling",
    ),
    "frechet": Measure(
        "FD",
        _distance,
        "Fréchet distance of features to the true drawings' (truth: of as many others in the "
        "style), lower is better",
        "frechet_other_concepts",
    ),
    "dino": Measure("dino", _cosine, "DINO cosine with the photos", "dino_photos"),
    "clip_i": Measure("clip-i", _cosine, "CLIP cosine with the photos", "clip_i_photos"),
    "clip_t": Measure("clip-t", _cosine, "CLIP cosine with the prompt"),
    "vendi": Measure("vendi", _amount, "effective number of distinct pictures", "vendi_ceiling"),
    "style": Measure(
        "style",
        _share,
        "% that a classifier takes for the style",
        "style_ceiling",
        "; it is right on {style_accuracy:.0%} of true drawings of {styles:.0f} styles and takes "
        "{style_false:.1%} of other styles' for this one",
    ),
    "retrieval_top5": Measure(
        "top5",
        _share,
        "% whose concept's own drawing is among the 5 nearest",
        "retrieval_top5_ceiling",
        " of {gallery:,.0f}",
    ),
    "drift": Measure(
        "drift", labels.percent, "% by which the loss on the base's own pictures rises"
    ),
}
SCORES = {"gain": "gain: % of the base's own loss on what it was not shown that is taken away."}
_AT_START = {"score": 0.0, "drift": 0.0}
"""Of the untouched base, by definition."""


def samples(
    table: pd.DataFrame, frame: pd.DataFrame, metric: str, console: Console
) -> Group | None:
    """One row a cell, in the order of ``table``, then the references; None if nothing was drawn.

    Args:
        table: from :func:`analysis.selection.cells`, its knobs shortened.
        frame: the trials that it was made from.
        metric: name of the score.
        console: where it has to fit.
    """
    found = references(frame)
    names = [name for name in MEASURES if name in judged(frame)]
    if not set(names) - {"drift"}:
        return None
    rows = pd.concat([table, _reference_rows(table, found, names)], ignore_index=True)
    columns = [
        *identity(rows),
        Column(metric, [*map(labels.percent, rows["score"])]),
        *(Column(MEASURES[n].heading, [*map(MEASURES[n].spell, rows[n])]) for n in names),
    ]
    caption = _caption(frame, found, names, metric)
    return fitting("samples", lambda layout: columns, caption, console)


def references(frame: pd.DataFrame) -> dict[str, float]:
    """What samples are read against, of every trial the same but for rounding: the mean."""
    columns = [name for name in frame.columns if name.startswith("reference.")]
    means = frame[columns].mean().dropna()
    return {str(name).removeprefix("reference."): float(value) for name, value in means.items()}


def _reference_rows(
    table: pd.DataFrame, found: Mapping[str, float], names: list[str]
) -> pd.DataFrame:
    blank = dict.fromkeys(labels.knobs(table), "")
    base = {name: found.get(f"{name}_base", math.nan) for name in names}
    truth = {name: found.get(MEASURES[name].best or "", math.nan) for name in names}
    return pd.DataFrame(
        [
            {**blank, "method": "base", **base, **_AT_START},
            {**blank, "method": "truth", "score": math.nan, **truth},
        ]
    )


def _caption(frame: pd.DataFrame, found: Mapping[str, float], names: list[str], metric: str) -> str:
    at_epoch = f"{metric} and drift are" if "drift" in names else f"{metric} is"
    sentences = [
        f"Means over seeds at the selected rate. {at_epoch} read at the selected epoch; samples "
        f"are drawn after the last step{_drawn(frame)}.",
        "base: the untouched one; truth: the real pictures.",
        SCORES.get(metric, ""),
        *(f"{MEASURES[name].heading}: {_meaning(MEASURES[name], found)}." for name in names),
    ]
    return " ".join(filter(None, sentences))


def _drawn(frame: pd.DataFrame) -> str:
    column = "reference.prompts"
    counts = sorted(frame[column].dropna().unique()) if column in frame else []
    return f", {' or '.join(f'{n:.0f}' for n in counts)} a trial" if counts else ""


def _meaning(measure: Measure, found: Mapping[str, float]) -> str:
    try:
        return measure.meaning + measure.quality.format_map(found)
    except KeyError:  # no classifier could be made, say: nothing is said of it
        return measure.meaning
