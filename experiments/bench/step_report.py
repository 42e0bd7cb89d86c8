"""The step comparison as tables: a function of ``step.json`` alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.record import Record
from experiments.bench.sheets import NONE, Sheet, Target, judged, median, number, ratio

# Names of the contenders, see ``experiments.bench.step`` (which needs torch).
LORA, PEFT, OURS, EAGER = "PEFT LoRA", "PEFT LoKr", "ours", "ours, eager"
FLOOR, FLOOR_CAPTURED = "frozen base, eager", "frozen base, captured"
PEFT_CAPTURED = "PEFT LoKr, our step captured"
COMPILED = "ours, base compiled"
GIB = 2**30
OVER_PEFT = Target("at least", 5.0)
MEMORY = Target("at most", 1.0)


def sheets(record: Record) -> list[Sheet]:
    """Times and memory of each contender, and their ratios; sizes apart, should they differ."""
    found: list[Sheet] = []
    for pieces in _by_size(record.pieces):
        found += [_times(pieces), _ratios(pieces, record.small)]
    return found


def _by_size(pieces: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for name, piece in pieces.items():
        for group in groups:
            if next(iter(group.values()))["size"] == piece["size"]:
                group[name] = piece
                break
        else:
            groups.append({name: piece})
    return groups


def failures(record: Record) -> list[str]:
    """What of ours did not run, one line each."""
    return [
        f"{name}: {piece['reason']}"
        for name, piece in record.pieces.items()
        if name.startswith("ours") and piece["samples"] is None
    ]


def _times(pieces: Mapping[str, Any]) -> Sheet:
    columns = ["", "ms a step", "p95", "ms a trial's step", "GiB allocated", "GiB reserved"]
    rows = [[_label(name, piece), *_cells(piece)] for name, piece in pieces.items()]
    notes = [f"{name}: {piece['reason']}." for name, piece in pieces.items() if piece["reason"]]
    return Sheet(_title(pieces), columns, rows, notes)


def _title(pieces: Mapping[str, Any]) -> str:
    size = next(iter(pieces.values()))["size"]
    return (
        f"A base of {size['layers']} layers of {size['hidden']}, {size['rows']} rows of "
        f"{size['tokens']} tokens, r=8 on every linear layer, {size['precision']}"
    )


def _label(name: str, piece: Mapping[str, Any]) -> str:
    return name if piece["lanes"] == 1 else f"{name} ({piece['lanes']} trials)"


def _cells(piece: Mapping[str, Any]) -> list[str]:
    middle = median(piece["samples"])
    memory = (piece["allocated_bytes"], piece["reserved_bytes"])
    return [
        number(middle),
        number(_p95(piece["samples"])),
        number(ratio(middle, piece["lanes"])),
        *(NONE if size is None else f"{size / GIB:.2f}" for size in memory),
    ]


def _p95(samples: Sequence[float] | None) -> float | None:
    if not samples or len(samples) < 2:
        return None
    return statistics.quantiles(samples, n=20, method="inclusive")[-1]


def _ratios(pieces: Mapping[str, Any], small: bool) -> Sheet:
    time = {name: median(piece["samples"]) for name, piece in pieces.items()}
    memory = {name: piece["allocated_bytes"] for name, piece in pieces.items()}
    ours = OURS if OURS in pieces else EAGER  # no graphs on a CPU
    floor = FLOOR_CAPTURED if FLOOR_CAPTURED in pieces else FLOOR
    compared = [
        (f"step: {PEFT} / {ours}", time, PEFT, ours, OVER_PEFT),
        (f"step: {LORA} / {ours}", time, LORA, ours, None),
        (f"step: {PEFT_CAPTURED} / {ours}", time, PEFT_CAPTURED, ours, None),
        (f"step: {ours} / {floor}", time, ours, floor, None),
        (f"memory: {ours} / {LORA}, allocated", memory, ours, LORA, MEMORY),
    ]
    if COMPILED in pieces:
        compared += [
            (f"step: {PEFT} / {COMPILED}", time, PEFT, COMPILED, OVER_PEFT),
            (f"memory: {COMPILED} / {LORA}, allocated", memory, COMPILED, LORA, MEMORY),
        ]
    rows = [
        [label, judged(ratio(values.get(top), values.get(bottom)), None if small else target)]
        for label, values, top, bottom, target in compared
    ]
    return Sheet("Ratios and their targets", ["", "ratio"], rows)
