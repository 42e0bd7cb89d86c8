"""The columns of the page's table of all trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis import labels
from analysis.report.rows import SETTINGS

KNOB = "own."
"""How the columns of knobs begin."""
FRONT = ("rate", "seed", "score", "selection")
"""What one comes for, after part, method and knobs."""

TITLES = {
    "rate": "rate",
    "seed": "seed",
    "train_size": "training rows",
    "epochs": "epochs",
    "repeats": "repeats",
    "batch_size": "batch",
    "max_length": "tokens at most",
    "status": "status",
    "score": "score",
    "selection": "selection",
    "full": "papers' protocol",
    "epoch": "epoch",
    "similarity": "similarity",
    "frechet": "Fréchet",
    "vendi": "Vendi",
    "style": "style, %",
    "drift": "drift, %",
    "adapter": "adapter",
    "trainable": "trainable",
    "seconds": "s in its pack",
    "lanes": "lanes",
    "peak_gib": "pack's peak, GiB",
    "gpu": "GPU",
    "cpu": "CPU",
    "compiled": "compiled",
    "commit": "commit",
    "dirty": "changed files",
    "torch": "torch",
    "transformers": "transformers",
    "peft": "peft",
    "triton": "triton",
    "base_sha256": "base",
    "data_sha256": "data",
    "finished": "finished",
    "id": "id",
    "message": "message",
}
"""Columns in their order, and their headings; those with no value at all are left out."""
DIGITS = {
    **dict.fromkeys(("score", "selection", "full", "style", "drift", "frechet", "vendi"), 2),
    "similarity": 3,
    "seconds": 2,
    "peak_gib": 1,
    **dict.fromkeys(SETTINGS, 0),
    **dict.fromkeys(("seed", "epoch", "adapter", "trainable", "lanes"), 0),
}
"""Digits after the point; a number that is not here is shown as it is."""


def columns(knobs: Sequence[str], trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Title, where a value comes from, and how it is shown: what one comes for first, what is the
    same in every trial last.

    Args:
        knobs: of all parts.
        trials: the rows.
    """
    front = [_column(name, name, "cell") for name in ("study", "part", "method")]
    names = [*_knobs(knobs, trials), *FRONT, *(name for name in TITLES if name not in FRONT)]
    there = [name for name in names if name in trials and trials[name].notna().any()]
    there.sort(key=lambda name: name not in FRONT and trials[name].nunique(dropna=False) == 1)
    return [*front, *(_column(name, _title(name), "trial", trials[name]) for name in there)]


def _knobs(knobs: Sequence[str], trials: pd.DataFrame) -> list[str]:
    """The columns of knobs: those that vary in a part, then those that none does."""
    own = [name for name in trials if name.startswith(KNOB)]
    return [*dict.fromkeys([*(KNOB + knob for knob in knobs), *own])]


def _title(name: str) -> str:
    knob = name.removeprefix(KNOB)
    return TITLES[name] if name in TITLES else labels.HEADINGS.get(knob, knob)


def _column(name: str, title: str, of: str, values: pd.Series | None = None) -> dict[str, Any]:
    digits = DIGITS.get(name)
    return {
        "name": name,
        "title": title,
        "of": of,
        "number": digits is not None or name == "rate" or (name.startswith(KNOB) and _all(values)),
        "digits": digits,
    }


def _all(texts: pd.Series) -> bool:
    """Whether all texts are numbers."""
    return bool(pd.to_numeric(texts.dropna(), errors="coerce").notna().all())
