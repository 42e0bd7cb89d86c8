"""The columns of the page's table of all trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis import labels
from analysis.report.rows import SETTINGS

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
    """Title, where a value comes from, and how it is shown.

    Args:
        knobs: of all parts.
        trials: the rows.
    """
    front = [_column(name, name, "cell") for name in ("study", "part", "method")]
    middle = [_column(knob, labels.HEADINGS.get(knob, knob), "cell") for knob in knobs]
    there = [name for name in TITLES if name in trials and trials[name].notna().any()]
    return [*front, *middle, *(_column(name, TITLES[name], "trial") for name in there)]


def _column(name: str, title: str, of: str) -> dict[str, Any]:
    digits = DIGITS.get(name)
    return {
        "name": name,
        "title": title,
        "of": of,
        "number": digits is not None or name == "rate",
        "digits": digits,
    }
