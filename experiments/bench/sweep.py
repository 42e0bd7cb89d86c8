"""A study from start to last result: packed, and the same trials one after another through PEFT.

    packed     ``python -m experiments run STUDY`` in a process of its own, by the wall clock
    trainer    PEFT's LoKr in transformers' Trainer, a sample of the trials
    unpacked   PEFT's LoKr in our loop, every operation launched from Python, the same sample
    captured   PEFT's LoKr in our loop with its step in a CUDA graph; also gives the paired scores
    floor      a packed step beside the frozen base's forward and backward pass on the same batch

What is packed pays for everything: imports, data, compilation, capture. The others are timed from
an attached base to the last epoch's scores, after a warm-up trial that is not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from experiments import bases, studies
from experiments.bench import DIFFUSION, TEXT, trainer
from experiments.errors import BenchError
from experiments.overrides import override
from experiments.store import Result, Store
from experiments.study import Study
from experiments.train import train_pack
from experiments.trial import Trial

PARTS = ("packed", "trainer", "unpacked", "captured", "floor")
SMALL = {
    TEXT: (
        "task=sentences/acceptability",
        "train_size=128",
        "batch_size=16",
        "max_length=32",
        "epochs=1",
        "precision=fp32",
    ),
    DIFFUSION: ("train_size=8", "repeats=4", "batch_size=8", "epochs=1", "precision=fp32"),
}
SMALL_TRIALS = 4
_ROOT = Path(__file__).parents[2]
Piece = dict[str, Any]
Run = tuple[Sequence[Mapping[str, Any]], str]
"""Scores of each epoch, and the status."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Which sweep, and where.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        data: folder of GLUE parquet, None for the hub.
        sets: ``field=value`` for every trial; the base among them.
        limit: only so many trials; None for all.
        lanes: widest pack; None for what ``run`` chooses.
        sample: trials that run in the Trainer, and in our loop uncaptured.
        captured: trials that run in our loop captured; None for all.
        name: of the study.
    """

    device: str
    data: str | None = None
    sets: tuple[str, ...] = ()
    limit: int | None = None
    lanes: int | None = None
    sample: int = 3
    captured: int | None = None
    name: str = TEXT

    @cached_property
    def study(self) -> Study:
        """The study with these settings."""
        study = override(studies.load(self.name), self.sets)
        return replace(study, trials=study.trials[: self.limit])

    @property
    def base(self) -> str:
        """The base's name, without its folder."""
        return bases.locate(self.study.trials[0].base).name

    def small(self) -> Sweep:
        """The version for a CPU: few and small trials, our own sentences in the place of GLUE's;
        ``sets`` still count.
        """
        sets = (*SMALL[self.name], *self.sets)
        return replace(self, sets=sets, limit=self.limit or SMALL_TRIALS)


def packed(sweep: Sweep) -> Piece:
    """Run the study in a process of its own, into an empty folder.

    Raises:
        BenchError: the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        started = time.time()
        done = subprocess.run(_command(sweep, folder), cwd=_ROOT, env=_environment())
        results = list(store.load(sweep.name).values())
        if done.returncode or not results:
            raise BenchError(f"`experiments run {sweep.name}` ended with status {done.returncode}")
        written = [p.stat().st_mtime for p in store.folder(sweep.name).glob("*.json")]
    return {
        **head(sweep, "packed"),
        "wall_seconds": max(written) - started,
        "first_result_seconds": min(written) - started,
        "lanes": sorted({int(result.cost["lanes"]) for result in results}),
        "trials": [_of_result(result) for result in results],
    }


def one_by_one(part: str, sweep: Sweep) -> Iterator[Piece]:
    """Train trials one after another through PEFT; what is measured so far, after each.

    Args:
        part: ``trainer``, ``unpacked`` or ``captured``.
        sweep: which trials, and where.
    """
    run = _RUNS[part]
    trials = sample(sweep.study.trials, sweep.captured if part == "captured" else sweep.sample)
    clock = time.perf_counter()
    run(trials[0], sweep)
    piece: Piece = {
        **head(sweep, part),
        "warm_up_seconds": time.perf_counter() - clock,
        "trials": [],
    }
    for trial in trials:
        clock = time.perf_counter()
        history, status = run(trial, sweep)
        seconds = time.perf_counter() - clock
        piece["trials"].append({**_scored(trial, history, status), "seconds": seconds})
        yield piece


def sample(trials: Sequence[Trial], count: int | None) -> list[Trial]:
    """So many trials drawn at random, from each split of the layers in turn; all if None."""
    if count is None or count >= len(trials):
        return list(trials)
    drawn = np.random.default_rng(0).permutation(len(trials)).tolist()
    groups: dict[int, list[Trial]] = {}
    for index in drawn:
        groups.setdefault(trials[index].decompose_factor, []).append(trials[index])
    turns = zip_longest(*(groups[factor] for factor in sorted(groups)))
    return [trial for turn in turns for trial in turn if trial is not None][:count]


def pair_key(trial: Trial) -> str:
    """What two trials share that differ in their method alone."""
    return replace(trial, method="lokr").id


def _in_our_loop(trial: Trial, sweep: Sweep, capture: bool) -> Run:
    (outcome,) = train_pack(
        [replace(trial, method="lokr-peft")],
        device=sweep.device,
        data=sweep.data,
        capture=capture,
    )
    return outcome.history, outcome.status


def _in_trainer(trial: Trial, sweep: Sweep) -> Run:
    if sweep.name != TEXT:
        raise BenchError(f"trainer: transformers' Trainer is for text, and {sweep.name} is not")
    return trainer.train(trial, sweep.device, sweep.data), "ok"


def _command(sweep: Sweep, folder: str) -> list[str]:
    words = [sys.executable, "-m", "experiments", "run", sweep.name, "--results", folder]
    options = {
        "--device": sweep.device,
        "--data": sweep.data and str(Path(sweep.data).resolve()),
        "--limit": sweep.limit,
        "--lanes": sweep.lanes,
    }
    for name, value in options.items():
        words += [] if value is None else [name, str(value)]
    return [*words, *(word for assignment in sweep.sets for word in ("--set", assignment))]


def _environment() -> dict[str, str]:
    """This process's, with this checkout first on the path, installed or not."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def head(sweep: Sweep, part: str) -> Piece:
    """What is measured: pieces that agree in all but the part may be compared."""
    study = sweep.study
    shared = ("task", "epochs", "batch_size", "max_length", "precision")
    return {
        "part": part,
        "base": sweep.base,
        "study": sweep.name,
        "study_trials": len(study.trials),
        **{name: getattr(study.trials[0], name) for name in shared},
    }


def _of_result(result: Result) -> Piece:
    return _scored(result.trial, result.history, result.status)


def _scored(trial: Trial, history: Sequence[Mapping[str, Any]], status: str) -> Piece:
    """Which trial, and its last epoch's score on the whole dev set and on the report half."""
    last = history[-1] if history else {}
    scores = {
        f"{reading}_score": next(iter(last[reading].values())) if last else None
        for reading in ("full", "report")
    }
    return {"id": trial.id, "pair": pair_key(trial), "status": status, **scores}


_RUNS: dict[str, Callable[[Trial, Sweep], Run]] = {
    "trainer": _in_trainer,
    "unpacked": partial(_in_our_loop, capture=False),
    "captured": partial(_in_our_loop, capture=True),
}
