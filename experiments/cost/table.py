"""Measurements as two tables: what training costs, and what keeping and using the result costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

MIB, KIB = 2**20, 2**10
NONE = "-"


def show(console: Console, records: Sequence[dict[str, Any]]) -> None:
    """Print both tables, a row a cell."""
    training = _table("cell", "ms", "p95", "x base", "quartiles", "fwd", "bwd", "opt", "rows/s")
    for record in records:
        training.add_row(record["cell"], *_training(record))
    console.print(training)
    console.print()
    memory = _table(
        "cell", "peak MiB", "kept MiB", "J/1000", "trainable", "KiB", "answer", "merged"
    )
    for record in records:
        memory.add_row(record["cell"], *_keeping(record))
    console.print(memory)
    console.print(f"\n{_legend(records)}", highlight=False)


def _training(record: dict[str, Any]) -> list[str]:
    step = record["step"]
    best = step["captured"] or step["eager"]
    ratio = best["to_frozen"]
    parts = step["eager"]["parts"]
    return [
        _ms(best["p50_ms"]),
        _ms(best["p95_ms"]),
        f"{ratio['median']:.2f}",
        f"{ratio['q25']:.2f}-{ratio['q75']:.2f}",
        *(_ms(parts[name]["p50_ms"]) for name in ("forward", "backward", "optimizer")),
        f"{best['examples_per_second']:,.0f}",
    ]


def _keeping(record: dict[str, Any]) -> list[str]:
    peak = record["memory"]["eager"]
    joules = record["energy"]["joules_per_1000_examples"]
    file = record["files"]["adapter_bytes"] or record["files"]["head_bytes"]
    single = record["inference"]["single"]
    merged = single["merged"]
    return [
        NONE if peak is None else f"{peak['allocated_bytes'] / MIB:,.0f}",
        f"{record['memory']['kept_for_backward_bytes'] / MIB:,.1f}",
        NONE if joules is None else f"{joules:.2f}",
        f"{record['parameters']['trainable']:,}",
        f"{file / KIB:,.1f}",
        _ms(single["adapted"]["p50_ms"]),
        NONE if merged is None else _ms(merged["p50_ms"]),
    ]


def _ms(value: float) -> str:
    """Three digits or so."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _legend(records: Sequence[dict[str, Any]]) -> str:
    """What the columns mean, and what is missing from them."""
    captured = [record["step"]["captured"] is not None for record in records]
    how = "replayed from a CUDA graph" if all(captured) else "launched from Python"
    if any(captured) and not all(captured):
        how = "replayed from a CUDA graph where it could be captured"
    lines = [
        f"ms: a step of one trial alone, {how}",
        "x base: to a step of the frozen base, in turns; quartiles of the rounds",
        "fwd, bwd, opt: ms of an eager step's parts, launches included",
        "kept: for backward; J/1000: joules for 1000 rows; KiB: the adapter's file, or the head's",
        "answer, merged: ms for one row, adapter apart and in the weights",
    ]
    reasons = dict.fromkeys(r["energy"]["reason"] for r in records if r["energy"]["reason"])
    return "\n".join([*lines, *(f"no energy: {reason}" for reason in reasons)])


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(columns[0], overflow="fold")
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table
