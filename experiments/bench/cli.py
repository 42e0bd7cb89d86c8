"""``python -m experiments bench``: the comparisons, each by itself or all in a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from experiments.bench import DIFFUSION, TEXT
from experiments.bench import page as pages
from experiments.bench.record import Record, Recorder, provenance
from experiments.command import Data, Device, DeviceName, Sets, explained, folder, place

if TYPE_CHECKING:
    from experiments.bench.sweep import Sweep

CPU_THREADS = 2


class Part(StrEnum):
    """A part of the sweep comparison."""

    PACKED = "packed"
    TRAINER = "trainer"
    UNPACKED = "unpacked"
    CAPTURED = "captured"
    FLOOR = "floor"


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Compare this LoKr with PEFT, LyCORIS and the frozen base.

`layer`, `step` and `sweep` measure one comparison each, save it piece by piece in RESULTS/bench,
and bring the page RESULTS/bench/README.md up to date. `all` does the three in a row. A piece that
is measured again replaces itself alone, so a comparison may be measured in several runs on the same
GPU. On a CPU each is a small version, in a file of its own. `profile` explains a step.""",
)

Results = Annotated[Path, typer.Option(help="Folder of the results: RESULTS/bench/.")]
Only = Annotated[str, typer.Option(help="Only the rows whose name has this in it.")]
Rounds = Annotated[
    int | None,
    typer.Option(min=1, help="Samples of each contender.", show_default="25, on a CPU 9"),
]
Lanes = Annotated[
    int | None, typer.Option(min=1, help="Widest pack.", show_default="what `run` chooses")
]
Trials = Annotated[
    int, typer.Option(min=1, help="Trials that `trainer` and `unpacked` train, a random sample.")
]
CapturedTrials = Annotated[
    int | None, typer.Option(min=1, help="Trials that `captured` trains.", show_default="all")
]


class SweepStudy(StrEnum):
    """A study that is timed."""

    TEXT = TEXT
    DIFFUSION = DIFFUSION


SweepName = Annotated[SweepStudy, typer.Option("--study", help="Text, or diffusion.")]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Only the first trials of the study.", show_default="all, on a CPU 4"),
]


@app.command()
def layer(
    device: DeviceName = Device.AUTO,
    results: Results = Path("results"),
    only: Only = "",
    rounds: Rounds = None,
) -> None:
    """Time forward and backward of one layer: frozen, PEFT, LyCORIS, ours.

    Every LoKr's output and gradients are checked first. Exit status 1 if one of ours did not run,
    or is not exact.
    """
    with explained():
        raise typer.Exit(_layer(device, results, only, rounds))


@app.command()
def step(
    device: DeviceName = Device.AUTO, results: Results = Path("results"), only: Only = ""
) -> None:
    """Time one training step of one trial, and its peak memory, at the size of RoBERTa-base.

    Each contender runs in a process of its own. Exit status 1 if one of ours did not run.
    """
    with explained():
        raise typer.Exit(_step(device, results, only))


@app.command()
def sweep(
    parts: Annotated[
        list[Part] | None, typer.Argument(help="Parts to measure.", show_default="all")
    ] = None,
    device: DeviceName = Device.AUTO,
    results: Results = Path("results"),
    data: Data = None,
    sets: Sets = None,
    lanes: Lanes = None,
    trials: Trials = 3,
    captured_trials: CapturedTrials = None,
    limit: Limit = None,
    name: SweepName = SweepStudy.TEXT,
) -> None:
    """Time a study of 64 LoKr trials from start to last result.

    `packed`: as `experiments run` trains it, into an empty folder. `trainer`: a sample of the
    trials one after another, PEFT's LoKr in transformers' Trainer, for text alone. `unpacked` and
    `captured`: PEFT's LoKr in our own loop, without and with a CUDA graph. `floor`: the packed step
    beside the frozen base's forward and backward pass. Another base: `--set base=FOLDER`.
    """
    with explained():
        from experiments.bench.sweep import Sweep

        what = Sweep(
            device=place(device),
            data=folder(data),
            sets=tuple(sets or ()),
            limit=limit,
            lanes=lanes,
            sample=trials,
            captured=captured_trials,
            name=name,
        )
        _sweep(results, what, parts)


@app.command()
def profile(
    device: DeviceName = Device.AUTO,
    data: Data = None,
    sets: Sets = None,
    lanes: Annotated[int, typer.Option(min=1, help="Trials side by side.")] = 32,
    name: SweepName = SweepStudy.TEXT,
    most: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 30,
) -> None:
    """Show where the time of a packed step goes, kernel by kernel. Saves nothing."""
    with explained():
        from experiments.bench import profile as profiles
        from experiments.bench.sweep import Sweep

        what = Sweep(device=place(device), data=folder(data), sets=tuple(sets or ()), name=name)
        chosen = what.small() if what.device == Device.CPU else what
        profiles.sheet(chosen, lanes, most).show(Console())


@app.command("all")
def all_(
    device: DeviceName = Device.AUTO,
    results: Results = Path("results"),
    data: Data = None,
    sets: Sets = None,
) -> None:
    """Measure the three comparisons, one after the other, the sweep on text and on diffusion."""
    with explained():
        from experiments.bench.sweep import Sweep

        failed = [_layer(device, results, "", None), _step(device, results, "")]
        text = Sweep(device=place(device), data=folder(data), sets=tuple(sets or ()))
        _sweep(results, text, None)
        _sweep(results, Sweep(device=place(device), name=SweepStudy.DIFFUSION), None)
        raise typer.Exit(max(failed))


@app.command()
def page(results: Results = Path("results")) -> None:
    """Write RESULTS/bench/README.md anew from the measurements beside it."""
    with explained():
        Console().print(f"Page: {pages.refresh(results)}", highlight=False, soft_wrap=True)


def _layer(device: Device, results: Path, only: str, rounds: int | None) -> int:
    """The exit status."""
    with _recorded("layer", device, results) as recorder:
        from experiments.bench import runs

        return _said(runs.layer(recorder, only, rounds))


def _step(device: Device, results: Path, only: str) -> int:
    """The exit status."""
    with _recorded("step", device, results) as recorder:
        from experiments.bench import runs

        return _said(runs.step(recorder, only))


def _sweep(results: Path, what: Sweep, parts: Sequence[Part] | None) -> None:
    with _recorded("sweep", Device(what.device), results) as recorder:
        from experiments.bench import runs

        runs.sweep(recorder, what, parts)


@contextmanager
def _recorded(comparison: str, device: Device, results: Path) -> Iterator[Recorder]:
    """Where pieces go; at the end, also after Ctrl-C, they are shown and are on the page.

    A run that measures nothing leaves the page as it is.
    """
    import torch

    where = place(device)
    if where is Device.CPU:
        torch.set_num_threads(CPU_THREADS)
    recorder = Recorder(results, comparison, provenance(where))
    console = Console()
    small = f", small version, {torch.get_num_threads()} threads" if recorder.record.small else ""
    console.print(f"{comparison}: on {recorder.record.hardware}{small}", highlight=False)
    try:
        yield recorder
    finally:
        if recorder.saved:
            _show(recorder.record, results, console)


def _show(record: Record, results: Path, console: Console) -> None:
    """The tables of a comparison, and the page with all of them."""
    for sheet in pages.sheets(record):
        sheet.show(console)
    console.print(f"\nPage: {pages.refresh(results)}", highlight=False, soft_wrap=True)


def _said(failures: Sequence[str]) -> int:
    """Print what failed; the exit status."""
    for line in failures:
        Console(stderr=True).print(f"ours failed: {line}", highlight=False, soft_wrap=True)
    return 1 if failures else 0
