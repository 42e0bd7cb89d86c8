"""Plans and results as text for people: what ``list``, ``status`` and ``show`` print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.outcome import STATUSES
from experiments.plan import Collapsed, Plan
from experiments.store import FINISHED, Result, flat
from experiments.study import Study
from experiments.trial import Trial, spell


def show_studies(console: Console, studies: Iterable[Study]) -> None:
    """Name, size and question of each study."""
    table = _table("study", "trials", "question", numbers=("trials",))
    for study in studies:
        table.add_row(study.name, str(len(study.trials)), study.description)
    console.print(table)


def show_cells(
    console: Console, study: Study, trials: Sequence[Trial], parameters_of: Callable[[Trial], int]
) -> None:
    """The cells of the trials that are not collapsed."""
    numbers = ("trials", "trainable parameters")
    table = _table("cell", *numbers, numbers=numbers)
    for label, members in study.cells(trials).items():
        table.add_row(label, str(len(members)), f"{parameters_of(members[0]):,}")
    console.print(table)


def show_collapsed(console: Console, study: Study, collapsed: Sequence[Collapsed]) -> None:
    """The cells that do not run because another is the same function."""
    rows = Counter(
        (study.label([c.trial]), study.label([c.representative]), c.reason) for c in collapsed
    )
    table = _table("collapsed cell", "is the cell", "trials", "because", numbers=("trials",))
    for (label, representative, reason), count in rows.items():
        table.add_row(label, representative, str(count), reason)
    console.print(table)


def work(plan: Plan) -> str:
    """What is left to do, in one line."""
    return (
        f"{len(plan.remaining)} to run in {len(plan.packs)} packs: "
        f"{plan.steps:,} steps, {plan.row_passes:,} rows through the base"
    )


def show_status(
    console: Console, study: Study, trials: Sequence[Trial], results: Mapping[str, Result]
) -> None:
    """How many of the trials are where, and every one that is not ok."""
    rows = [results[trial.id] for trial in trials if trial.id in results]
    counts = Counter(result.status for result in rows)
    table = _table("status", "trials", "", numbers=("trials",))
    for status in STATUSES:
        again = "runs again" if counts[status] and status not in FINISHED else ""
        table.add_row(status, str(counts[status]), again)
    table.add_row("not run yet", str(len(trials) - len(rows)))
    console.print(table)
    if failed := [result for result in rows if result.status != "ok"]:
        console.print()
        show_failed(console, study, failed)


def show_failed(console: Console, study: Study, results: Sequence[Result]) -> None:
    """Id, cell and message of each trial that is not ok."""
    table = _table("id", "status", "trial", "message")
    for result in results:
        trial = result.trial
        name = f"{study.label([trial])} lr={trial.learning_rate:g} seed={trial.seed}"
        table.add_row(result.id, result.status, name, result.message or "")
    console.print(table)


def show_result(console: Console, result: Result) -> None:
    """One result in full, the loss of every step aside."""
    head = {"id": result.id, "study": result.study, "status": result.status}
    if result.message:
        head["message"] = result.message
    _print_pairs(console, head)
    trial = {name: spell(getattr(result.trial, name)) for name in result.trial.to_dict()}
    for title, values in (
        ("trial", trial),
        ("metrics", result.metrics),
        ("parameters", result.parameters),
        ("cost", result.cost),
    ):
        console.print(f"\n[bold]{title}[/]")
        _print_pairs(console, values or {"": "none"})
    console.print("\n[bold]history[/]")
    console.print(_history(result.history))
    console.print("\n[bold]provenance[/]")
    _print_pairs(console, flat(result.provenance, "."))


def _history(history: Sequence[Mapping[str, Any]]) -> Table:
    """One row an epoch; a column for each metric of each reading of the dev set."""
    readings = [k for k, v in history[0].items() if isinstance(v, dict)] if history else []
    scores = [(reading, metric) for reading in readings for metric in history[0][reading]]
    names = ["epoch", "step", "train_loss", *(f"{r} {m}" for r, m in scores)]
    table = _table(*names, numbers=names)
    for row in history:
        values = [row[name] for name in names[:3]] + [row[r][m] for r, m in scores]
        table.add_row(*map(_cell, values))
    return table


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else _spell_null(value)


def _spell_null(value: object) -> str:
    return "none" if value is None else str(value)


def _print_pairs(console: Console, values: Mapping[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        is_count = isinstance(value, int) and not isinstance(value, bool)
        table.add_row(key, f"{value:,}" if is_count else _spell_null(value))
    console.print(table)


def _table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return table
