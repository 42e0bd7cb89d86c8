"""The command line: ``python -m experiments`` and ``run``, ``list``, ``status``, ``cost``, ...

torch and transformers are imported by the commands that need them, so that help comes at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from experiments import collapsed, display, studies
from experiments.bench.cli import app as bench
from experiments.command import Data, Device, DeviceName, Sets, StudyName, folder
from experiments.command import err as _err
from experiments.command import explained as _explained
from experiments.command import place as _place
from experiments.cost.command import cost
from experiments.dashboards import dashboards
from experiments.errors import BenchError
from experiments.listener import Listener, Several
from experiments.overrides import override
from experiments.plan import USEFUL_LANES, Plan, Shard, collapse, plan
from experiments.progress import watch
from experiments.store import Result, Store
from experiments.study import Study
from experiments.sweeps import export_sweep, only
from experiments.tracking.command import Wandb, WandbProject, log, opened, tracked
from experiments.tracking.session import PROJECT, Mode

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Train the trials of a study and keep one result file for each.

A *study* is a list of *trials*. Trials that differ only in numbers train side by side in a *pack*,
as its *lanes*. Trials that are the same function train once. What is finished never runs again.

Start with `list`, then `list quickstart`, then `run quickstart`.""",
)
app.add_typer(bench, name="bench")

Results = Annotated[Path, typer.Option(help="Folder of the results: RESULTS/STUDY/ID.json.")]
Lanes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Widest pack; narrower where less fits into memory.",
        show_default=f"{USEFUL_LANES['cpu']} on a CPU, {USEFUL_LANES['cuda']} on a GPU",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first LIMIT trials of the study.")]


@app.callback()
def _main() -> None:
    """Send warnings to the stream of the progress bar, which steps aside for them."""
    handler = RichHandler(console=_err, show_time=False, show_path=False, rich_tracebacks=True)
    logging.getLogger("experiments").handlers = [handler]


@app.command()
def run(
    study: StudyName,
    results: Results = Path("results"),
    device: DeviceName = Device.AUTO,
    lanes: Lanes = None,
    data: Data = None,
    sets: Sets = None,
    limit: Limit = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Let torch.compile have the base's layers. It takes tens of seconds for each kind "
            "of pack, once; for long runs on a GPU.",
        ),
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Run the I-th of N equal shares of the study, 1/N to N/N: one for each GPU, or "
            "for each job of an array. The shares are fixed, whatever is finished.",
        ),
    ] = "1/1",
    wandb: Wandb = Mode.DISABLED,
    wandb_project: WandbProject = PROJECT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
) -> None:
    """Train what is left of a study.

    Finished trials are left alone, so that running again goes on where the last run stopped,
    however it stopped. Trials that failed run again.

    Exit status: 0 if no trial failed, 1 if one did or nothing could run, 130 after Ctrl-C.
    """
    with _explained():
        part = _shard(shard)
        chosen = _choose(study, sets, limit)
        _check(chosen, data)
        store = Store(results)
        if not dry_run:
            store.prepare(chosen.name)
        place = _place(device)
        out = Console()
        if dry_run:
            _show_plan(out, chosen, store, lanes or USEFUL_LANES[place], data, part)
            return
        session = opened(wandb, wandb_project)
        planned = _plan(chosen, store, lanes or USEFUL_LANES[place], data, part)
        collapsed.record(store, chosen.name, planned.collapsed)
        if planned.packs:
            with tracked(session, chosen, store, out) as trackers:
                code = _train(out, chosen, store, planned, place, data, compiled, trackers)
            raise typer.Exit(code)
        done = f"all {len(planned.finished)} trials of {_of(chosen, part)} are finished"
        out.print(
            f"Nothing to run: {done}.\nResults: {store.folder(chosen.name)}",
            highlight=False,
        )


@app.command("list")
def list_(
    study: Annotated[
        str | None, typer.Argument(help="Name of a study; without: all of them.")
    ] = None,
    results: Results = Path("results"),
    lanes: Lanes = None,
    device: DeviceName = Device.AUTO,
    data: Data = None,
    sets: Sets = None,
    limit: Limit = None,
) -> None:
    """Show the studies, or what one study would run.

    For one study: its cells with their trainable parameters, the cells that collapse and why, and
    the work that is left. Nothing is trained or written.
    """
    with _explained():
        out = Console()
        if study is None:
            display.show_studies(out, map(studies.load, studies.names()))
            return
        chosen = _choose(study, sets, limit)
        _show_plan(out, chosen, Store(results), lanes or USEFUL_LANES[_place(device)], data)


@app.command()
def status(
    study: StudyName,
    results: Results = Path("results"),
    sets: Sets = None,
    limit: Limit = None,
) -> None:
    """Show what of a study is done, diverged, failed and left."""
    with _explained():
        chosen = _choose(study, sets, limit)
        store = Store(results)
        _show_status(Console(), chosen, store, store.load(chosen.name))


@app.command()
def show(
    prefix: Annotated[str, typer.Argument(metavar="ID", help="Id of a result, or how it begins.")],
    results: Results = Path("results"),
) -> None:
    """Show one result in full."""
    with _explained():
        display.show_result(Console(), _only(Store(results).find(prefix), prefix, results))


app.command()(cost)
app.command()(log)
app.command()(export_sweep)
app.command()(dashboards)


@app.command()
def agent_trial(
    study: StudyName,
    trial: Annotated[str, typer.Option(metavar="ID", help="Id of the trial, in full.")],
    results: Results = Path("results"),
    device: DeviceName = Device.AUTO,
    data: Data = None,
    sets: Sets = None,
    wandb: Wandb = Mode.ONLINE,
    wandb_project: WandbProject = PROJECT,
) -> None:
    """Train one trial of a study, as an agent of a sweep of Weights & Biases calls it.

    The trial trains alone, its result file is the same as ever, and its run is the sweep's. A trial
    that is finished is only logged. `export-sweep` writes the sweep.
    """
    with _explained():
        chosen = only(_choose(study, sets, None), trial)
        _check(chosen, data)
        store = Store(results)
        store.prepare(chosen.name)
        place, out = _place(device), Console()
        session = opened(wandb, wandb_project, sweep="WANDB_SWEEP_ID" in os.environ)
        planned = _plan(chosen, store, 1, data)
        with tracked(session, chosen, store, out) as trackers:
            if planned.packs:
                code = _train(out, chosen, store, planned, place, data, False, trackers)
                raise typer.Exit(code)
            for tracker in trackers:
                tracker.on_pack_end([store.load(chosen.name)[trial]])


def _choose(name: str, sets: list[str] | None, limit: int | None) -> Study:
    study = override(studies.load(name), sets or [])
    return replace(study, trials=study.trials[:limit])


def _check(study: Study, data: Path | None) -> None:
    """What is known to be wrong with tasks and data before anything is loaded."""
    from experiments import tasks

    for trial in {trial.task: trial for trial in study.trials}.values():
        tasks.family(trial).check(trial, folder(data))


def _of(study: Study, shard: Shard) -> str:
    number, count = shard
    return study.name if count == 1 else f"shard {number}/{count} of {study.name}"


def _shard(text: str) -> Shard:
    """``"2/4"`` -> (2, 4)."""
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise BenchError(f"--shard {text!r}: expected I/N with I from 1 to N, such as 1/2")


def _plan(study: Study, store: Store, lanes: int, data: Path | None, shard: Shard = (1, 1)) -> Plan:
    from experiments import sizes

    return plan(
        study.trials,
        store.finished(study.name),
        lanes,
        layers_of=sizes.layers_of,
        rows_of=partial(sizes.rows_of, data=folder(data)),
        shard=shard,
    )


def _show_plan(
    out: Console,
    study: Study,
    store: Store,
    lanes: int,
    data: Path | None,
    shard: Shard = (1, 1),
) -> None:
    from experiments import sizes

    distinct, equal = collapse(study.trials, sizes.layers_of)
    out.print(f"{study.name}: {study.description}\n", highlight=False)
    display.show_cells(out, study, distinct, sizes.parameters_of)
    if equal:
        out.print()
        display.show_collapsed(out, study, equal)
    try:
        planned = _plan(study, store, lanes, data, shard)
        left = f"{display.work(planned)}{_spell_widths(planned)}"
    except BenchError as error:  # the data may be out of reach where the plan is read
        left = f"how much is to run is unknown: {error}"
    out.print(
        f"\n{len(study.trials)} trials, {len(equal)} of them collapsed; {left}",
        highlight=False,
    )


def _spell_widths(planned: Plan) -> str:
    """How wide the packs are, as far as that is known before any memory is measured."""
    if not planned.packs:
        return ""
    packs = ", ".join(
        f"{count} of {lanes} {'lane' if lanes == 1 else 'lanes'}"
        for lanes, count in planned.widths.items()
    )
    return f"\npacks: {packs}; a run makes them narrower where memory is short"


def _show_status(out: Console, study: Study, store: Store, done: dict[str, Result]) -> None:
    from experiments import sizes

    distinct, equal = collapse(study.trials, sizes.layers_of)
    display.show_status(out, study, distinct, done)
    if equal:
        out.print(f"\n{len(equal)} more are collapsed: each equals one of these trials.")
    out.print(f"\nResults: {store.folder(study.name)}", highlight=False, soft_wrap=True)


def _train(
    out: Console,
    study: Study,
    store: Store,
    planned: Plan,
    place: Device,
    data: Path | None,
    compiled: bool,
    trackers: Sequence[Listener] = (),
) -> int:
    """Run the packs; the exit status."""
    from experiments import provenance
    from experiments.executors import InProcess
    from experiments.schedule import Pace
    from experiments.train import train_pack

    source = {**provenance.collect(place), "compiled": compiled}
    pace = Pace()
    pace.learn(store.load(study.name).values(), source)
    out.print(f"{study.name}: {display.work(planned)}, on {place}", highlight=False)
    listener, on_screen = watch(planned.packs, study.label, out, _err)
    executor = InProcess(
        partial(train_pack, compile=True) if compiled else train_pack,
        store,
        study=study.name,
        device=place,
        data=folder(data),
        provenance=source,
        listener=Several([listener, *trackers]),
        pace=pace,
    )
    try:
        with on_screen:
            results = executor.run(planned.packs)
    finally:
        # Also after Ctrl-C or a full disk: what is done is on disk, so say so.
        if done := store.load(study.name):
            _show_status(out, study, store, done)
    return 1 if any(result.status == "error" for result in results) else 0


def _only(found: list[Result], prefix: str, root: Path) -> Result:
    if not found:
        raise BenchError(f"no result under {root} has an id that starts with {prefix!r}")
    if len(found) > 1:
        listed = ", ".join(f"{result.study}/{result.id}" for result in found)
        raise BenchError(f"{prefix!r} starts several ids: {listed}")
    return found[0]
