"""What a part cannot say: its noise, its grid's edges, what failed, is missing or is mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from analysis.load import Results
from analysis.part import Part
from analysis.provenance import mixed
from analysis.report import words
from analysis.report.findings import CEILING, Findings, at_ceiling, scored
from analysis.statistics.noise import pooled


def limits(found: Findings, results: Results) -> list[str]:
    """Sentences, the most important first.

    Args:
        found: what the part says.
        results: of its study, or of all: they tell what the part lacks, and every epoch.
    """
    return [*_sentences(found, results)]


def _sentences(found: Findings, results: Results) -> Iterator[str]:
    part, score = found.part, scored(found.part)
    if score:
        yield from _noise(part)
    for make in (_mixed, _failures):
        yield from make(part)
    yield from _missing(part, results.trials)
    if score:
        for make in (_rates, _ceiling):
            yield from make(part)
        yield from _optimism(part, results.epochs)
    yield from _edges(found)


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


def missing(part: Part, trials: pd.DataFrame) -> pd.Series:
    """How many runs a part lacks of each method: every cell should have the seeds of the part and
    the rates of its method in the study, and a method that ran in another part should run here.

    Args:
        trials: of the whole study, or of all.

    Returns:
        int, indexed by method, those that lack none left out.
    """
    study = trials[trials["study"] == part.study]
    seeds, lacking = part.trials["trial.seed"].nunique(), {}
    for method, every in study.groupby("trial.method"):
        own = part.trials[part.trials["trial.method"] == method]
        cells = own["cell"].nunique() or _most_cells(every)
        lacking[method] = cells * every["trial.learning_rate"].nunique() * seeds - len(own)
    counts = pd.Series(lacking, dtype=int)
    return counts[counts > 0]


def _most_cells(trials: pd.DataFrame) -> int:
    """Cells of a method in the part of a study that has most of them."""
    where = ["trial.task", "trial.base", *({"trial.train_size"} & {*trials})]
    return int(trials.groupby(where, dropna=False)["cell"].nunique().max())


def _missing(part: Part, trials: pd.DataFrame) -> Iterator[str]:
    lacking = missing(part, trials)
    if len(lacking):
        whole = int(lacking.sum())
        which = ", ".join(f"{words.method_name(str(m))} {n:,}" for m, n in lacking.items())
        yield (
            f"{words.counted(whole, 'run is', 'runs are')} missing of the seeds of this part and "
            f"the methods and rates of its study ({which}): not finished, or left out."
        )


def _rates(part: Part) -> Iterator[str]:
    rates = part.trials.groupby("cell")["trial.learning_rate"].agg(["min", "max", "nunique"])
    cells = part.cells.set_index("cell").join(rates)
    alone = int((cells["nunique"] == 1).sum())
    if alone:
        yield f"{words.counted(alone, 'cell')} ran at one rate: not tuned."
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
    if top := at_ceiling(part):
        yield (
            f"{top:,} cells score {words.points(CEILING, 0)} or more of 100: the task is too easy "
            "to tell those apart. They hardly vary, so intervals and tests that take all cells to "
            "vary alike are too wide for them and too narrow for the others."
        )


def optimism(part: Part, epochs: pd.DataFrame) -> pd.Series:
    """What the papers' protocol adds to a score, on the same rows: the best rate and epoch by the
    whole dev set, minus the whole dev set at the rate and epoch that one half chose.

    Args:
        epochs: of :class:`analysis.load.Results`.

    Returns:
        float, indexed by cell, NaN where the epoch is not known.
    """
    name = f"full.{part.metric}"
    if name not in epochs:
        return pd.Series(dtype=float)
    own = epochs[epochs["study"] == part.study].set_index(["id", "epoch"])[name]
    chosen = part.selected.dropna(subset=["selected_epoch"])
    keys = pd.MultiIndex.from_frame(chosen[["id", "selected_epoch"]])
    honest = pd.Series(own.reindex(keys).to_numpy(), chosen["cell"]).groupby(level=0).mean()
    return part.cells.set_index("cell")["full_dev_best"] - honest


def _optimism(part: Part, epochs: pd.DataFrame) -> Iterator[str]:
    gaps = optimism(part, epochs).dropna()
    if len(gaps):
        yield (
            "The papers' protocol (best rate and epoch by the rows that are reported) adds "
            f"{words.change(gaps.mean())} points to a cell on average, on the same rows, and "
            f"{words.change(gaps.max())} at most."
        )


def _edges(found: Findings) -> Iterator[str]:
    edges = [f"{told.knob} = {told.good[0]}" for told in found.knobs if told.edge]
    if edges:
        values = "value is" if len(edges) == 1 else "values are"
        yield (
            f"The best {values} at the edge of what was tried ({', '.join(edges)}): beyond may be "
            "better still."
        )
