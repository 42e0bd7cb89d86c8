"""What stands beside every number: how it was chosen, on which rows, with what; what is mixed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis import labels
from analysis.part import Part
from analysis.provenance import commits, hardware, mixed

TIES = (
    "Bold: cannot be told from the best (no other cell beats it in a one-sided test at 5% over the "
    "number of the others)."
)
SHOWN = "Bold: best, and equal to it as shown."


def selection(part: Part) -> str:
    """Where the score is read and how the rate was chosen."""
    return (
        f"score: {part.metric} in points, mean over seeds on the report half of the dev "
        f"set{_rows(part, 'dev')}; rate (of {_rates(part)}) and epoch of each cell are chosen "
        "on the other half."
    )


def papers() -> str:
    """The other protocol."""
    return (
        "full: the papers' protocol, best rate and epoch on the whole dev set that is reported: "
        "it flatters, and is of other rows than score."
    )


def design(part: Part) -> str:
    """Seeds, training rows, hardware, commit."""
    counts = sorted(part.cells["seeds"].unique())
    sentences = [f"Seeds a cell: {' or '.join(map(str, counts))}"]
    if trained := _rows(part, "train"):
        sentences.append(f"training rows{trained.replace(' of', ':', 1)}")
    return (
        f"{', '.join(sentences)}. {hardware(part.trials)}, commit {commits(part.trials)}"
        f"{_failed(part.trials)}."
    )


def short_names(part: Part) -> str:
    """What short headings and values stand for; empty if nothing is short."""
    return labels.explained(part.cells, part.trials)


def notes(part: Part) -> list[str]:
    """What is mixed in the part, see :func:`analysis.provenance.mixed`."""
    return mixed(part.trials)


def unread(measured: pd.DataFrame) -> list[str]:
    """Files that hold no measurement, of a frame of :mod:`analysis.cost`."""
    found = measured.attrs["unread"].items()
    return [
        f"{Path(path).name} holds no measurement and was left out: {why}" for path, why in found
    ]


def joined(*sentences: str) -> str:
    """A caption of those that are not empty."""
    return " ".join(filter(None, sentences))


def _rates(part: Part) -> str:
    """How many were tried in a cell."""
    counts = part.trials.groupby("cell")["trial.learning_rate"].nunique()
    return " or ".join(str(n) for n in sorted(counts.unique()))


def _rows(part: Part, split: str) -> str:
    counts = part.trials[f"provenance.{split}_rows"].dropna().unique()
    return f" of {' or '.join(f'{int(n):,}' for n in sorted(counts))}" if len(counts) else ""


def _failed(trials: pd.DataFrame) -> str:
    failed = int((trials["status"] != "ok").sum())
    return f"; {failed} of {len(trials)} trials failed" if failed else ""
