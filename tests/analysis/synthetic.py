"""Made-up results with known effects: what tables, figures and statistics have to get right.

    y = base + Σ effects[knob][value] + Σ pairs[a, b][x, y] + rates[rate] + u[seed] + e
    score = y + h,  selection_score = y + h'

u ~ N(0, seed_noise²) is shared by all cells, e ~ N(0, noise²) is a trial's own, h and h' ~
N(0, half_noise²) are those of the two halves of the dev set. The same arguments give the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.load import load
from analysis.part import Part, parts

Effects = Mapping[str, Mapping[object, float]]
DEFAULTS = {
    "task": "glue/rte",
    "base": "minilm",
    "method": "lokr",
    "r": 8,
    "alpha": 16.0,
    "decompose_factor": -1,
    "decompose_both": False,
    "init_weights": True,
    "use_effective_conv2d": False,
    "target_modules": ["query", "value"],
    "epochs": 2,
    "train_size": None,
}
PROVENANCE = {
    "commit": "0" * 40,
    "dirty": False,
    "platform": "Linux",
    "versions": {"torch": "2.11.0", "transformers": "5.17.0", "peft": "0.21.0", "triton": "3.6.0"},
    "device": "cuda",
    "gpu": "Made-up GPU",
    "cpu": "Made-up CPU",
    "compiled": False,
    "base": {"name": "minilm", "sha256": "b" * 16},
    "data": {"source": "made up", "train": 100, "dev": 400, "sha256": "d" * 16},
    "finished": "2026-01-01T00:00:00+00:00",
}


@dataclass(frozen=True, kw_only=True)
class Design:
    """A full grid of one method, and what is true of it.

    Args:
        effects: knob -> value -> what it adds to the score; the grid is the product of the values.
        pairs: two knobs -> their two values -> what the two add together; 0 where none is given.
        base: the score where everything adds 0.
        noise, seed_noise, half_noise: standard deviations, see the top of the module.
        seeds: how many, or which.
        rates: learning rate -> what it adds.
        keep: knobs -> whether the cell is in the grid; all are by default.
        failed: knobs, rate and seed -> whether the trial diverged; none does by default.
        adapter: knobs -> parameters of the adapter.
        primary: name of the score.
        trial: fields that all trials share: method, task, base, train_size, ...
        provenance: what differs from ``PROVENANCE``.
    """

    effects: Effects
    pairs: Mapping[tuple[str, str], Mapping[tuple, float]] = field(default_factory=dict)
    base: float = 0.5
    noise: float = 0.005
    seed_noise: float = 0.0
    half_noise: float = 0.0
    seeds: int | Sequence[int] = 3
    rates: Mapping[float, float] = field(default_factory=lambda: {1e-3: 0.0})
    keep: Callable[[dict], bool] = lambda knobs: True
    failed: Callable[[dict, float, int], bool] = lambda knobs, rate, seed: False
    adapter: Callable[[dict], int] = lambda knobs: 1000 * int(knobs.get("r", 8))
    primary: str = "accuracy"
    trial: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)

    def truth(self, knobs: Mapping[str, object]) -> float:
        """Expected score of a cell at a rate that adds 0."""
        mains = sum(values[knobs[knob]] for knob, values in self.effects.items())
        both = sum(v.get((knobs[a], knobs[b]), 0.0) for (a, b), v in self.pairs.items())
        return self.base + mains + both

    def cells(self) -> list[dict]:
        """The knobs of every cell in the grid."""
        grid = product(*self.effects.values())
        cells = [dict(zip(self.effects, values, strict=True)) for values in grid]
        return [knobs for knobs in cells if self.keep(knobs)]

    def results(self, generator: np.random.Generator, luck: int = 0) -> Iterator[dict]:
        """One result a trial, in the schema of ``experiments/store.py``.

        Args:
            generator: of what is a trial's own.
            luck: of what a run's seed does, which is the same in all designs of a task.
        """
        seeds = range(self.seeds) if isinstance(self.seeds, int) else self.seeds
        shared = {seed: self.seed_noise * self._luck(luck, seed) for seed in seeds}
        for knobs, rate, seed in product(self.cells(), self.rates, seeds):
            y = (
                self.truth(knobs)
                + self.rates[rate]
                + shared[seed]
                + generator.normal(0, self.noise)
            )
            halves = y + generator.normal(0, self.half_noise, 2)
            failed = self.failed(knobs, rate, seed)
            trial = {**DEFAULTS, **self.trial, **knobs, "learning_rate": rate, "seed": seed}
            yield self._result(trial, None if failed else halves, self.adapter(knobs))

    def _luck(self, luck: int, seed: int) -> float:
        task = zlib.crc32(str({**DEFAULTS, **self.trial}["task"]).encode())
        return float(np.random.default_rng([luck, task, seed]).normal())

    def _result(self, trial: dict, halves: np.ndarray | None, adapter: int) -> dict:
        body = json.dumps(trial, sort_keys=True).encode()
        return {
            "schema": 1,
            "id": hashlib.sha256(body).hexdigest()[:16],
            "study": "made-up",
            "trial": trial,
            "status": "diverged" if halves is None else "ok",
            "message": "the loss is not finite" if halves is None else None,
            "metrics": None if halves is None else self._metrics(*map(float, halves)),
            "history": [] if halves is None else self._history(*map(float, halves)),
            "parameters": {"adapter": adapter, "head": 770, "trainable": adapter + 770, "base": 1},
            "cost": {"seconds": 1.0, "pack_seconds": 8.0, "lanes": 8, "peak_bytes": None},
            "provenance": {**PROVENANCE, **self.provenance, "pack": []},
        }

    def _metrics(self, report: float, selection: float) -> dict:
        return {
            "primary": self.primary,
            "score": report,
            "selection_score": selection,
            "selected_epoch": 2,
            "full_dev_best": (report + selection) / 2,
            "full_dev_best_epoch": 2,
        }

    def _history(self, report: float, selection: float) -> list[dict]:
        """Two epochs; the first is five points behind."""

        def halves(behind: float) -> dict[str, dict[str, float]]:
            scores = {"selection": selection, "report": report, "full": (selection + report) / 2}
            return {half: {self.primary: score - behind} for half, score in scores.items()}

        return [
            {"epoch": e, "step": 10 * e, "train_loss": 1 / e, "losses": [1 / e], **halves(behind)}
            for e, behind in ((1, 0.05), (2, 0.0))
        ]


def write(folder: Path, *designs: Design, seed: int = 0) -> Path:
    """Result files of one or several designs (methods, tasks) in one study's folder.

    Args:
        folder: made if it is not there.
        seed: of the noise.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for design in designs:
        for result in design.results(generator, seed):
            (folder / f"{result['id']}.json").write_bytes(json.dumps(result).encode())
    return folder


def make(folder: Path, *, effects: Effects, seed: int = 0, **design: object) -> list[Part]:
    """Write one design's files and read them back.

    Args:
        folder: the study's.
        effects, design: of :class:`Design`.
        seed: of the noise.
    """
    write(folder, Design(effects=effects, **design), seed=seed)
    return read(folder)


def read(folder: Path) -> list[Part]:
    """The parts of a folder of results."""
    return list(parts(load(folder), folder))


def redrawn(part: Part, generator: np.random.Generator, noise: float, seed_noise: float) -> Part:
    """The same part with fresh noise on top, without files: for many repeats.

    Args:
        part: best without noise of its own; the halves get the same noise.
        noise: a trial's own, standard deviation.
        seed_noise: shared by all trials of a seed.
    """
    seeds = part.trials["trial.seed"]
    shared = {seed: generator.normal(0, seed_noise) for seed in sorted(seeds.unique())}
    added = seeds.map(shared) + generator.normal(0, noise, len(seeds))
    columns = ("score", "selection_score", "full_dev_best")
    trials: pd.DataFrame = part.trials.assign(**{c: part.trials[c] + added for c in columns})
    return Part(part.folder, part.task, part.base, part.rows, part.sizes, trials)
