"""What each command measures: piece by piece, every piece saved as it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from experiments.bench import TEXT, layer_report, packed_step, shapes, step_report
from experiments.bench import layer as one_layer
from experiments.bench import step as one_step
from experiments.bench import sweep as one_sweep
from experiments.bench.record import Record, Recorder
from experiments.bench.sweep import PARTS, Piece, Sweep
from experiments.bench.synthetic import Size
from experiments.errors import BenchError

FLOOR_ROUNDS = {"cuda": 5, "cpu": 1}


def layer(recorder: Recorder, only: str, rounds: int | None) -> list[str]:
    """Measure the layers; what of ours failed, a line each."""
    device = recorder.run["device"]
    cases = {case.name: case for case in shapes.cases(device)}
    chosen = _chosen(cases, only, "layer")
    for progress, name in _counted(chosen):
        print(f"{progress} {name}", flush=True)
        measured = one_layer.measure(cases[name], device, rounds)
        one_layer.release()
        recorder.put(name, measured)
    return layer_report.failures(_only(recorder, chosen))


def step(recorder: Recorder, only: str) -> list[str]:
    """Measure the steps; what of ours failed, a line each."""
    device = recorder.run["device"]
    size = one_step.SMALL if device == "cpu" else Size()
    chosen = _chosen(one_step.names(device), only, "contender")
    for progress, name in _counted(chosen):
        print(f"{progress} {name}", flush=True)
        recorder.put(name, one_step.in_process(name, size, device))
    return step_report.failures(_only(recorder, chosen))


def sweep(recorder: Recorder, what: Sweep, parts: Sequence[str] | None) -> None:
    """Measure the parts of a sweep, all of them if None; on a CPU of the small one.

    Raises:
        BenchError: data or base cannot be had, the packed run failed, or a part needs a GPU.
    """
    if what.device == "cpu":
        what = what.small()
        if parts is not None and "captured" in parts:
            raise BenchError("captured: needs a GPU, and there is none or --device says cpu")
        parts = parts or [part for part in PARTS if part != "captured"]
    if parts is None and what.name != TEXT:  # transformers' Trainer is for text
        parts = [part for part in PARTS if part != "trainer"]
    for part in parts or PARTS:
        one_layer.release()
        for progress, piece in _measured(part, what, _lanes(recorder, what)):
            print(f"{what.base}, {part}: {progress}", flush=True)
            recorder.put(f"{what.base} {part}", piece)


def _measured(part: str, what: Sweep, lanes: int) -> Iterator[tuple[str, Piece]]:
    """A part as it grows, with a word on it."""
    if part == "packed":
        piece = one_sweep.packed(what)
        yield f"{piece['wall_seconds']:.1f} s for {len(piece['trials'])} trials", piece
    elif part == "floor":
        yield "done", packed_step.measure(what, lanes, FLOOR_ROUNDS[what.device])
    else:
        for piece in one_sweep.one_by_one(part, what):
            seconds = piece["trials"][-1]["seconds"]
            yield f"trial {len(piece['trials'])}, {seconds:.2f} s", piece


def _lanes(recorder: Recorder, what: Sweep) -> int:
    """Lanes of the packed step: those of the widest pack of the packed run, if it has run."""
    packed = recorder.record.pieces.get(f"{what.base} packed")
    if packed is not None:
        return max(packed["lanes"])
    return what.lanes or len(what.study.trials) // 2


def _chosen(names: Iterable[str], only: str, what: str) -> list[str]:
    """Names that contain ``only``."""
    known = list(names)
    chosen = [name for name in known if only in name]
    if not chosen:
        there = "; ".join(known)
        raise BenchError(f"--only {only!r}: no {what} has this in its name; there are: {there}")
    return chosen


def _counted(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, name in enumerate(names, 1):
        yield f"[{number}/{len(names)}]", name


def _only(recorder: Recorder, names: Sequence[str]) -> Record:
    """The pieces of this run."""
    record = recorder.record
    pieces = {name: record.pieces[name] for name in names}
    return Record(record.comparison, record.small, record.hardware, record.runs, pieces)
