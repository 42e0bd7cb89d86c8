"""What is logged of a result; wandb is not needed to know it.

    config     all fields of the trial; trial (its id), study, provenance
    history    one row a step: train/loss; the last of an epoch has epoch, train/epoch_loss and the
               scores of the three readings too, such as selection/accuracy; the last of all has
               pictures/samples, and pictures/base, pictures/truth or what else the trials of the
               task share
    summary    status, message, the metrics under their names in the file (score,
               selection_score, reference/vendi_ceiling, ...), parameters/trainable, cost/seconds

A number that is missing stays out of the history, and is null in the summary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from experiments.store import FINISHED, PICTURES, Result, flat
from experiments.trial import Trial

LOSS = "train/loss"
EPOCH_LOSS = "train/epoch_loss"
READINGS = ("selection", "report", "full")
SHOWN = "pictures/"
NAME = 128
"""Most letters of a run's name."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run.

    Args:
        id: ``<study>-<id of the trial>``: two studies may share a trial, and a run has one group.
        name: for people.
        group: the study.
        job_type: the method.
        tags: the status.
        config: see the legend above.
        history: (step, from 1, and the values of that step), in order.
        pictures: key -> file, shown at the last step.
        summary: see the legend above.
        exit_code: 0 of a trial that need not run again, else 1.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    history: tuple[tuple[int, dict[str, float]], ...]
    pictures: dict[str, Path]
    summary: dict[str, Any]
    exit_code: int


def record(result: Result, name: str, folder: Path) -> Record:
    """The run of a result.

    Args:
        result: of a finished or failed trial.
        name: for people, see :func:`name_of`.
        folder: ``results/<study>``, where its pictures are.
    """
    # Word for word what the file says, enumerations and NaN included.
    values = json.loads(json.dumps(result.to_dict()))
    return Record(
        id=f"{result.study}-{result.id}",
        name=name,
        group=result.study,
        job_type=result.trial.method,
        tags=(result.status,),
        config=_config(values),
        history=tuple(_history(values["history"])),
        pictures={
            SHOWN + end: path for end, path in pictures(result.trial, folder / PICTURES).items()
        },
        summary=_summary(values),
        exit_code=0 if result.status in FINISHED else 1,
    )


def name_of(label: str, trial: Trial) -> str:
    """``lokr r=4 lr=0.001 seed=0``, from the label of its cell, which is cut if W&B has no room."""
    rest = f" lr={trial.learning_rate:g} seed={trial.seed}"
    return label[: NAME - len(rest)] + rest


def pictures(trial: Trial, folder: Path) -> dict[str, Path]:
    """What it is (samples, truth, ...) -> file: the trial's own, and those that its task shares.

    Args:
        trial: whose they are.
        folder: ``results/<study>/pictures``, with ``<id>.samples.webp``, ``<style>-truth.webp``.
    """
    task = trial.task.partition("/")[2]
    own = _ends(folder, f"{trial.id}.")
    # Another task's name may begin with this one's: openmoji and openmoji-black.
    shared = {end: path for end, path in _ends(folder, f"{task}-").items() if "-" not in end}
    return {**shared, **own} if own else {}


def _ends(folder: Path, start: str) -> dict[str, Path]:
    """How the names of the pictures that begin so end -> file."""
    files = sorted(folder.glob(f"{escape(start)}*.webp"))
    return {path.stem.removeprefix(start): path for path in files}


def _config(values: dict[str, Any]) -> dict[str, Any]:
    named = {"trial": values["id"], "study": values["study"], "provenance": values["provenance"]}
    return {**values["trial"], **named}


def _history(epochs: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, float]]]:
    for epoch in epochs:
        losses = epoch["losses"]
        first = epoch["step"] - len(losses) + 1
        for step, loss in enumerate(losses, first):
            scores = _scores(epoch) if step == epoch["step"] else {}
            yield step, _known({LOSS: loss, **scores})


def _scores(epoch: dict[str, Any]) -> dict[str, Any]:
    readings = {name: epoch[name] for name in READINGS if name in epoch}
    return {"epoch": epoch["epoch"], EPOCH_LOSS: epoch["train_loss"], **flat(readings, "/")}


def _known(values: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in values.items() if value is not None}


def _summary(values: dict[str, Any]) -> dict[str, Any]:
    head = {name: values[name] for name in ("status", "message")}
    rest = {name: values[name] or {} for name in ("parameters", "cost")}
    return flat({**head, **(values["metrics"] or {}), **rest}, "/")
