"""The command line's side of Weights & Biases: two options, and ``python -m experiments log``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from experiments.command import StudyName, err, explained
from experiments.errors import BenchError
from experiments.store import Result, Store
from experiments.study import Study
from experiments.tracking.record import name_of, record
from experiments.tracking.session import PROJECT, Mode, Session
from experiments.tracking.tracker import Tracker, first_line

Wandb = Annotated[
    Mode,
    typer.Option(
        "--wandb",
        envvar="WANDB_MODE",
        help="Log every trial to Weights & Biases: `offline` into files, with neither account nor "
        "network; `online` with the account of `wandb login`.",
    ),
]
WandbProject = Annotated[
    str,
    typer.Option(envvar="WANDB_PROJECT", help="W&B's project; the entity is $WANDB_ENTITY."),
]


@contextmanager
def tracked(
    session: Session | None, study: Study, store: Store, out: Console
) -> Iterator[list[Tracker]]:
    """The listeners that log a run: one, or none. At the end all is logged, and it is said where.

    Args:
        session: where runs go; None: nowhere.
        study: whose trials run.
        store: where their results are.
        out: where to say it.
    """
    if session is None:
        yield []
        return
    tracker = Tracker(session, study.label, store.folder(study.name))
    try:
        yield [tracker]
    finally:
        # Also after Ctrl-C: what is in line is on disk already and takes a moment.
        tracker.close()
        _tell(out, session, study.name, tracker.logged, tracker.lost)


def opened(mode: Mode, project: str, *, sweep: bool = False) -> Session | None:
    """Where runs go, ready to be logged to; None if nowhere.

    Raises:
        BenchError: as :class:`Session`.
    """
    return None if mode is Mode.DISABLED else Session(mode, project, sweep=sweep)


def log(
    study: StudyName,
    results: Annotated[
        Path, typer.Option(help="Folder of the results: RESULTS/STUDY/ID.json.")
    ] = Path("results"),
    wandb: Wandb = Mode.OFFLINE,
    wandb_project: WandbProject = PROJECT,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first LIMIT results, by id.")
    ] = None,
) -> None:
    """Log the results that a study has to Weights & Biases, as `run --wandb` does.

    Nothing is trained. A result that was logged before replaces its run. Exit status: 0 if all were
    logged, else 1.
    """
    with explained():
        from experiments import studies

        session = opened(wandb, wandb_project)
        if session is None:
            raise BenchError("--wandb disabled: expected offline or online, to log anything")
        chosen, store = studies.load(study), Store(results)
        found = list(store.load(chosen.name).values())[:limit]
        if not found:
            raise BenchError(f"no results in {store.folder(chosen.name)}")
        _log_all(session, chosen, store, found)
        _tell(Console(), session, chosen.name, len(found), 0)


def _log_all(session: Session, study: Study, store: Store, found: list[Result]) -> None:
    folder = store.folder(study.name)
    for done, result in enumerate(track(found, "logging", console=err, transient=True)):
        name = name_of(study.label([result.trial]), result.trial)
        try:
            session.log(record(result, name, folder))
        except Exception as error:  # of many kinds
            raise BenchError(
                f"W&B failed at {result.id}, {done} of {len(found)} results are logged: "
                f"{first_line(error)}"
            ) from error


def _tell(out: Console, session: Session, study: str, logged: int, lost: int) -> None:
    """Where the runs are, how to upload them, and how to log what was lost."""
    lines = []
    if logged:
        lines.append(f"W&B: {logged} {'run' if logged == 1 else 'runs'} in {session.place}")
    if logged and session.mode is Mode.OFFLINE:
        lines.append(f"Upload: {session.upload}")
    if lost or not logged:
        what = f"{lost} not logged" if lost else "nothing was logged"
        lines.append(f"W&B: {what}; later: python -m experiments log {study}")
    out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
