"""All that one trial costs, measured on one device: the middle of ``results/cost/…/<id>.json``."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments import tasks
from experiments.cost import clock, energy, files, nvml
from experiments.cost.inference import MERGED, latency
from experiments.cost.solo import PARTS, Solo
from experiments.errors import BenchError
from experiments.step import autocast, own_stream
from experiments.tasks.base import Batch, Task
from experiments.trial import Trial

Rounds = Sequence[Sequence[float]]
AnyGpu = nvml.Gpu | nvml.WithoutNvml


@dataclass(frozen=True)
class Settings:
    """How long to measure.

    Args:
        rounds: turns of the trial and of the frozen base, alternating.
        steps: steps of each turn.
        answers: answers timed in each turn of the latency.
        energy_seconds: least window of the energy, on a GPU.
    """

    rounds: int
    steps: int
    answers: int
    energy_seconds: float

    @classmethod
    def of(
        cls, device: str, rounds: int | None, steps: int | None, energy_seconds: float
    ) -> Settings:
        """The device's own numbers where none are given."""
        ours = (10, 20, 25) if device == "cuda" else (4, 3, 5)
        return cls(rounds or ours[0], steps or ours[1], ours[2], energy_seconds)


def measure(trial: Trial, device: str, data: str | None, settings: Settings) -> dict[str, Any]:
    """Measure one trial alone.

    Args:
        trial: what to train; its weights are thrown away.
        device: ``"cpu"`` or ``"cuda"``.
        data: folder of GLUE parquet, None for the hub.
        settings: how long.

    Returns:
        ``settings``, ``parameters``, ``batch``, ``step``, ``frozen``, ``memory``, ``energy``,
        ``files``, ``inference`` and ``provenance``, as ``experiments.cost`` documents them.

    Raises:
        BenchError: the GPU is busy, before or after; task, base or data cannot be had.
    """
    started = _now()
    _release()  # of a trial before that failed, say
    gpu = _gpu(device)
    alone = [_alone(gpu)]
    task = tasks.load(trial, data)
    with own_stream(torch.device(device)):
        measured = _measure(trial, task, device, settings, gpu)
    _release()
    alone.append(_alone(gpu))
    return {
        "settings": asdict(settings),
        **measured,
        "provenance": {
            **task.provenance,
            "gpu_alone": None if gpu is None else alone,
            "started": started,
            "finished": _now(),
        },
    }


def _measure(
    trial: Trial, task: Task, device: str, settings: Settings, gpu: AnyGpu | None
) -> dict[str, Any]:
    base_memory = _base_memory(trial, task, device, settings)
    solo = Solo(trial, task, device, settings.steps)
    memory = solo.memory()  # while nothing else is there
    base = Solo.frozen_base(trial, task, device, settings.steps)
    base.capture()
    try:
        step, base_step = _steps(solo, base, settings.rounds)
        return {
            "parameters": solo.adapted.counts[0],
            "batch": _batch(solo),
            "step": step,
            "frozen": {"step": base_step, "memory": base_memory},
            "memory": memory,
            "energy": _energy(solo, step, settings.energy_seconds, gpu),
            "files": files.sizes(trial, solo.model, task.heads),
            "inference": _inference(solo, task, settings.answers),
        }
    finally:
        solo.close()
        base.close()


def _base_memory(trial: Trial, task: Task, device: str, settings: Settings) -> dict[str, Any]:
    base = Solo.frozen_base(trial, task, device, settings.steps)
    try:
        return base.memory()
    finally:
        base.close()
        del base
        _release()


def _steps(solo: Solo, base: Solo, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trial's steps and the frozen base's: eager ones in turns, then captured ones in turns."""
    sides = (solo, base)
    laps = clock.in_turns([side.eager_turn for side in sides], rounds)
    eager = [_whole(side) for side in laps]
    captured: list[Rounds | None] = [None, None]
    if solo.not_captured is None and base.not_captured is None:
        captured = [*clock.in_turns([side.captured_turn for side in sides], rounds)]
    ours, theirs = (
        {
            "eager": {**_speed(whole, side), "parts": _parts(parts)},
            "captured": None if graph is None else _speed(graph, side),
            "not_captured": solo.not_captured or base.not_captured,
        }
        for side, parts, whole, graph in zip(sides, laps, eager, captured, strict=True)
    )
    ours["eager"]["to_frozen"] = clock.ratio(*eager)
    if captured[0] is not None and captured[1] is not None:
        ours["captured"]["to_frozen"] = clock.ratio(captured[0], captured[1])
    return ours, theirs


def _whole(laps: Rounds) -> Rounds:
    """Steps from their parts, which follow each other without a gap."""
    return [np.reshape(turn, (-1, len(PARTS))).sum(1).tolist() for turn in laps]


def _parts(laps: Rounds) -> dict[str, Any]:
    by_part = np.reshape(laps, (-1, len(PARTS))).T
    return {name: clock.summary(ms.tolist()) for name, ms in zip(PARTS, by_part, strict=True)}


def _speed(turns: Rounds, side: Solo) -> dict[str, Any]:
    """Percentiles of a step, and rates over whole turns: batches differ in length."""
    seconds = float(np.median(np.sum(turns, axis=1))) / 1000
    examples = side.examples * len(side.batches)
    return {
        **clock.summary(np.ravel(turns).tolist()),
        "examples_per_second": examples / seconds,
        "tokens_per_second": None if side.tokens is None else side.tokens / seconds,
    }


def _batch(solo: Solo) -> dict[str, Any]:
    """What a step sees; ``lengths`` are what each batch is cut or padded to."""
    return {
        "rows": solo.examples,
        "batches": len(solo.batches),
        "lengths": solo.lengths,
        "tokens": solo.tokens,
    }


def _energy(solo: Solo, step: dict[str, Any], seconds: float, gpu: AnyGpu | None) -> dict[str, Any]:
    if gpu is None:
        return energy.unknown("a CPU's energy is not read")
    try:
        gpu.millijoules()
    except BenchError as error:
        return energy.unknown(str(error))
    milliseconds = (step["captured"] or step["eager"])["p50_ms"]
    readings = energy.watch(gpu.millijoules, solo.run, milliseconds / 1000, seconds)
    return energy.per_examples(readings, solo.examples)


def _inference(solo: Solo, task: Task, calls: int) -> dict[str, Any]:
    """One dev row of the middle length, and as many as a training batch has."""
    solo.model.eval()
    size = min(solo.examples, len(task.dev))
    found = {"single": _middle(task), "batch": torch.arange(size)}
    merges = solo.trial.method in MERGED
    return {
        name: {
            "rows": len(rows),
            **latency(solo.device, solo.model, _answer(solo, task, rows), calls, merges),
        }
        for name, rows in found.items()
    }


def _middle(task: Task) -> Tensor:
    lengths = task.dev.lengths
    order = torch.arange(len(task.dev)) if lengths is None else lengths.argsort(stable=True)
    return order[len(order) // 2].view(1)


def _answer(solo: Solo, task: Task, rows: Tensor) -> Callable[[], Tensor]:
    """Predictions of dev rows that are on the device already, cut to the longest of them."""
    lengths, device = task.dev.lengths, torch.device(solo.device)
    longest = None if lengths is None else int(lengths[rows].max())
    batch: Batch = task.dev.gather(rows.to(device), longest)

    def answer() -> Tensor:
        with autocast(device, solo.trial.precision):
            return task.predict(solo.model, batch, 1)

    return answer


def _gpu(device: str) -> AnyGpu | None:
    """The GPU, with a context of ours on it; None on a CPU."""
    if device == "cpu":
        return None
    torch.zeros(1, device=device)
    return nvml.find(device)


def _alone(gpu: AnyGpu | None) -> dict[str, Any] | None:
    if gpu is None:
        return None
    torch.cuda.synchronize()
    return nvml.check_alone(gpu, torch.cuda.memory_reserved())


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
