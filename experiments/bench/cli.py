"""``python -m experiments bench``: the comparisons, each by itself or all in a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.bench import page as pages
from experiments.bench.record import Record, Recorder, provenance
from experiments.command import Device, DeviceName, explained, place

CPU_THREADS = 2

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Compare this LoKr with PEFT, LyCORIS and the frozen base.

`layer`, `step` and `sweep` measure one comparison each, save it in RESULTS/bench as they go, and
bring the page RESULTS/bench/README.md up to date. `all` is the three in a row. What one run
measured is kept when another measures the rest on the same GPU. On a CPU each runs a small
version, in a file of its own.""",
)

Results = Annotated[Path, typer.Option(help="Folder of the results: RESULTS/bench/.")]


@app.command()
def layer(
    device: DeviceName = Device.AUTO,
    results: Results = Path("results"),
    only: Annotated[
        str, typer.Option(help="Only layers whose name has this in it, such as `3072x3072`.")
    ] = "",
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Samples of each contender.", show_default="25, on a CPU 9"),
    ] = None,
) -> None:
    """Time forward and backward of one layer: frozen, PEFT, LyCORIS, ours.

    Exit status 1 if one of ours did not run, or is not exact.
    """
    with explained():
        recorder = _recorder("layer", device, results)
        with _shown(recorder, results):
            failed = _layer(recorder, only, rounds)
        raise typer.Exit(1 if failed else 0)


@app.command()
def page(results: Results = Path("results")) -> None:
    """Write RESULTS/bench/README.md anew from the measurements beside it."""
    with explained():
        Console().print(f"Page: {pages.refresh(results)}", highlight=False, soft_wrap=True)


def _recorder(comparison: str, device: Device, results: Path) -> Recorder:
    """Where a comparison's pieces go; says on which machine they are measured."""
    import torch

    where = place(device)
    if where is Device.CPU:
        torch.set_num_threads(CPU_THREADS)
    recorder = Recorder(results, comparison, provenance(where))
    small = f", small version, {torch.get_num_threads()} threads" if recorder.record.small else ""
    Console().print(f"{comparison}: on {recorder.record.hardware}{small}", highlight=False)
    return recorder


def _layer(recorder: Recorder, only: str, rounds: int | None) -> list[str]:
    """Measure the layers, one piece each; what of ours failed."""
    from experiments.bench import layer_report, shapes
    from experiments.bench.layer import measure, release
    from experiments.errors import BenchError

    device = recorder.run["device"]
    chosen = shapes.cases(device, only)
    if not chosen:
        known = ", ".join(case.name for case in shapes.cases(device))
        raise BenchError(f"--only {only!r}: no layer has this in its name; there are {known}")
    failed: list[str] = []
    for number, case in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {case.name}", flush=True)
        measured = measure(case, device, rounds)
        release()
        recorder.put(case.name, measured)
        one = Record("layer", recorder.record.small, None, pieces={case.name: measured})
        failed += layer_report.failures(one)
    for line in failed:
        print(f"ours failed: {line}")
    return failed


@contextmanager
def _shown(recorder: Recorder, results: Path) -> Iterator[None]:
    """Show the comparison and bring the page up to date at the end, also after Ctrl-C."""
    try:
        yield
    finally:
        console = Console()
        for sheet in pages.sheets(recorder.record):
            sheet.show(console)
        path = pages.refresh(results)
        console.print(f"\nPage: {path}", highlight=False, soft_wrap=True)
