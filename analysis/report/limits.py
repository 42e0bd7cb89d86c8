"""What a part cannot say: its noise, its grid's edges, what failed, is missing or is mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from analysis.part import Part
from analysis.provenance import mixed
from analysis.report import words
from analysis.report.findings import Findings, scored
from analysis.statistics.noise import pooled

CEILING = 0.99
"""A score beyond which a task cannot tell cells apart."""


def limits(found: Findings) -> list[str]:
    """Sentences, the most important first."""
    part = found.part
    makers = (_noise, _mixed, _failures, _missing, _rates, _ceiling, _optimism)
    if not scored(part):
        makers = (_mixed, _failures, _missing)
    return [*(text for make in makers for text in make(part)), *_edges(found)]


def _noise(part: Part) -> Iterator[str]:
    noise = pooled(part)
    if math.isnan(noise.sd):
        yield "No cell has two seeds: how much runs vary is not known, no difference is certain."
        return
    sees = (
        "which differences it can see is not known"
        if math.isnan(noise.detectable)
        else f"two single cells must truly differ by {words.size(noise.detectable)} points for "
        f"this design ({words.counted(noise.seeds, 'seed')}) to see it four times in five"
    )
    yield (
        f"Runs of one cell vary by {words.size(noise.sd)} points (standard deviation over seeds, "
        f"pooled over {words.counted(noise.cells, 'cell')}); {sees}."
    )
    if noise.odd:
        what = words.counted(len(noise.odd), "cell varies", "cells vary")
        yield f"{what} far more than the others, outside of that pool."


def _mixed(part: Part) -> Iterator[str]:
    for sentence in mixed(part.trials):
        yield f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}."


def _failures(part: Part) -> Iterator[str]:
    counts = part.trials["status"].value_counts().sort_index().drop("ok", errors="ignore")
    if len(counts):
        what = words.listed([f"{n:,} ended {status}" for status, n in counts.items()])
        yield f"Of {len(part.trials):,} trials, {what}: no score comes from those."


def _missing(part: Part) -> Iterator[str]:
    """Runs that a cell lacks of the rates and seeds that others of its method have."""
    lacking = 0
    for _, group in part.trials.groupby("trial.method"):
        rates, seeds = group["trial.learning_rate"].nunique(), group["trial.seed"].nunique()
        lacking += rates * seeds * group["cell"].nunique() - len(group)
    if lacking:
        yield (
            f"{words.counted(lacking, 'run is', 'runs are')} missing of the rates and seeds that "
            "other cells of the same method have: not finished, or left out."
        )


def _rates(part: Part) -> Iterator[str]:
    rates = part.trials.groupby("cell")["trial.learning_rate"].agg(["min", "max", "nunique"])
    cells = part.cells.set_index("cell").join(rates)
    alone = int((cells["nunique"] == 1).sum())
    if alone:
        yield f"{words.counted(alone, 'cell')} ran at one rate: it was not tuned."
    two = int((cells["nunique"] == 2).sum())
    if two:
        yield f"{words.counted(two, 'cell')} ran at two rates: either choice is an edge."
    tuned = cells[cells["nunique"] > 2]
    for end, word in (("max", "highest"), ("min", "lowest")):
        at = tuned[tuned["rate"] == tuned[end]]
        if len(at):
            yield (
                f"{len(at):,} of {words.counted(len(tuned), 'cell')} with three rates or more did "
                f"best at the {word} rate that was tried ({_by_method(at)}): a {word[:-3]}er one "
                "may be better still."
            )


def _by_method(cells: pd.DataFrame) -> str:
    counts = cells["method"].value_counts().sort_index()
    return ", ".join(f"{words.method_name(str(m))} {n:,}" for m, n in counts.items())


def _ceiling(part: Part) -> Iterator[str]:
    top = int((part.cells["score"] >= CEILING).sum())
    if top > 1:
        yield (
            f"{words.counted(top, 'cell')} score {words.points(CEILING, 0)} or more of 100: the "
            "task is too easy to tell those apart."
        )


def _optimism(part: Part) -> Iterator[str]:
    gaps = (part.cells["full_dev_best"] - part.cells["score"]).dropna()
    if len(gaps):
        yield (
            "The papers' protocol (best rate and epoch on the data that is reported) minus the "
            f"score here is {words.change(gaps.mean())} points on average over cells, and "
            f"{words.change(gaps.max())} at most."
        )


def _edges(found: Findings) -> Iterator[str]:
    edges = [f"{told.knob} = {told.value}" for told in found.knobs if told.edge]
    if edges:
        values = "value is" if len(edges) == 1 else "values are"
        yield f"The best {values} at the edge of what was tried ({', '.join(edges)}): go beyond."
