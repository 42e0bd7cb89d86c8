"""Workspaces and a report of Weights & Biases as code, over the runs that ``run --wandb`` logs.

A study is one workspace, and one part of the report: its task has a score of its own, and charts
over several studies would mix them. Every key in a chart is one that ``tracking.record`` logs.

wandb-workspaces is imported where something is built; what needs W&B's server is :func:`save`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from experiments.command import explained
from experiments.errors import BenchError
from experiments.store import PICTURES, Store
from experiments.study import Study
from experiments.sweeps import GOAL
from experiments.tracking.record import EPOCH_LOSS, LOSS, SHOWN
from experiments.tracking.session import PROJECT, load, require_account
from experiments.trial import LOKR_KNOBS

TITLE = "LoKr Bench"
SCORE = "score"
TRAINABLE = "parameters/trainable"
RATE = "learning_rate"
PLACEHOLDER = "ENTITY"
"""What a spec has in the place of the entity until one is known."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """What the charts of a study are made of.

    Args:
        study: its name, and the group of its runs.
        question: its description.
        knobs: the fields of a trial that differ, LoKr's six first, the rate last.
        metrics: what is scored after each epoch.
        pictures: what is shown of each run: samples, truth, ...
    """

    study: str
    question: str
    knobs: tuple[str, ...]
    metrics: tuple[str, ...]
    pictures: tuple[str, ...]


def dashboards(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="STUDY", help="Studies; without: all that have results."),
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Folder of the results: RESULTS/STUDY/ID.json.")
    ] = Path("results"),
    wandb_project: Annotated[
        str, typer.Option(envvar="WANDB_PROJECT", help="Where the runs were logged.")
    ] = PROJECT,
    entity: Annotated[
        str | None,
        typer.Option(envvar="WANDB_ENTITY", help="User or team.", show_default="the account's own"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be saved, as JSON: needs no account."),
    ] = False,
) -> None:
    """Make a workspace for each study and one report in Weights & Biases, and print their URLs.

    The runs come from `run --wandb` or `log`. Every call makes new ones. Saving needs an account
    and W&B's server.
    """
    with explained():
        boards = [board(study, Store(results)) for study in _studies(names, results)]
        load("wandb_workspaces", "dashboards", "wandb,dashboards")
        if dry_run:
            typer.echo(json.dumps(specs(boards, wandb_project, entity), indent=1))
            return
        for url in save(boards, wandb_project, entity):
            typer.echo(url)


def board(study: Study, store: Store) -> Board:
    """What there is to be shown of a study's results.

    Raises:
        BenchError: it has none that was scored.
    """
    found = [result for result in store.load(study.name).values() if result.history]
    if not found:
        raise BenchError(f"no results to show in {store.folder(study.name)}")
    trials = [result.trial for result in found]
    fields = (*LOKR_KNOBS, *(f for f in study.scientific if f not in LOKR_KNOBS), RATE)
    varies = [f for f in fields if len({getattr(trial, f) for trial in trials}) > 1]
    metrics = {name: None for result in found for name in result.history[0]["selection"]}
    return Board(
        study=study.name,
        question=study.description,
        knobs=tuple(varies),
        metrics=tuple(metrics),
        pictures=_kinds(store.folder(study.name) / PICTURES),
    )


def specs(boards: Sequence[Board], project: str, entity: str | None) -> dict[str, Any]:
    """What :func:`save` would send, JSON-ready; ids that the library draws at random are left out.

    Args:
        boards: of the studies.
        project: W&B's.
        entity: W&B's; None: a placeholder.
    """
    owner = entity or PLACEHOLDER
    views = [workspace(one, project, owner)._to_model() for one in boards]
    # Only a run set without an owner is built without asking the server for the project.
    text = report(boards, project, owner, runs_of=("", ""))._to_model()
    models = {"workspaces": views, "report": [text]}
    dumped = {
        kind: [model.model_dump(mode="json", by_alias=True, exclude_none=True) for model in found]
        for kind, found in models.items()
    }
    return {"workspaces": _named(dumped["workspaces"]), "report": _named(dumped["report"])[0]}


def save(boards: Sequence[Board], project: str, entity: str | None) -> list[str]:
    """Save all of it; the URLs.

    Raises:
        BenchError: there is no account, or W&B's server says no.
    """
    require_account("dashboards", "see with --dry-run what would be saved")
    try:
        owner = entity or _account()
        made = [workspace(one, project, owner) for one in boards]
        made.append(report(boards, project, owner, runs_of=(owner, project)))
        return [one.save().url for one in made]
    except Exception as error:  # of many kinds
        raise BenchError(f"W&B: nothing more was saved: {error}") from error


def workspace(board: Board, project: str, entity: str) -> Any:
    """The workspace of one study: a ``wandb_workspaces.workspaces.Workspace``."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    columns = [f"config:{name}" for name in dict.fromkeys(("method", *board.knobs))]
    scores = [f"summary:{name}" for name in (SCORE, GOAL, TRAINABLE, "status")]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{TITLE}: {board.study}",
        sections=[
            ws.Section(name=name, panels=panels, is_open=True)
            for name, panels in sections(board).items()
        ],
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == board.study),
            order=[expr.Ordering(expr.Summary(GOAL), ascending=False)],
            pinned_columns=[*columns, *scores],
        ),
    )


def report(boards: Sequence[Board], project: str, entity: str, *, runs_of: tuple[str, str]) -> Any:
    """The report: a ``wandb_workspaces.reports.v2.Report``.

    Args:
        boards: of the studies.
        project, entity: where it is saved.
        runs_of: entity and project of the runs.
    """
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents(), wr.P(_ABOUT)]
    for one in boards:
        blocks += [wr.H1(one.study), wr.P(one.question), *_grids(one, runs_of)]
    return wr.Report(
        project=project,
        entity=entity,
        title=TITLE,
        description="Which LoKr should you train?",
        blocks=blocks,
        width="fluid",
    )


def sections(board: Board) -> dict[str, list[Any]]:
    """Name -> panels, of those that the study has something for."""
    found = {
        "Scores": _scores(board),
        "Knobs": _knobs(board),
        "Curves": _curves(board),
        "Pictures": _pictures(board),
        "Runs": _runs(),
    }
    return {name: panels for name, panels in found.items() if panels}


_ABOUT = (
    f"A cell is the trials that differ only in learning rate and seed. {GOAL} is measured on one "
    f"half of the dev set and chooses rate and epoch; {SCORE} is read off the other half. Choose "
    "by the one, quote the other."
)


def _wr() -> ModuleType:
    import wandb_workspaces.reports.v2 as wr

    return wr


def _scores(board: Board) -> list[Any]:
    wr = _wr()
    parameters, score = wr.SummaryMetric(TRAINABLE), wr.SummaryMetric(SCORE)
    panels = [
        wr.ScatterPlot(title="score against parameters", x=parameters, y=score, log_x=True),
        wr.ScatterPlot(title="both halves", x=wr.SummaryMetric(GOAL), y=score, regression=True),
        wr.BarPlot(
            title="score by method",
            metrics=[SCORE],
            groupby=wr.Config("method"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        ),
    ]
    if board.pictures and "drift" in board.metrics:
        x, y = wr.SummaryMetric("report/drift"), wr.SummaryMetric("similarity")
        panels.append(wr.ScatterPlot(title="fidelity against drift", x=x, y=y))
    return panels


def _knobs(board: Board) -> list[Any]:
    wr = _wr()
    columns = [
        wr.ParallelCoordinatesPlotColumn(wr.Config(name), display_name=name, log=name == RATE)
        for name in board.knobs
    ]
    goal = wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(GOAL), display_name=GOAL)
    scatters = [
        wr.ScatterPlot(title=name, x=wr.Config(name), y=wr.SummaryMetric(GOAL), log_x=name == RATE)
        for name in board.knobs
    ]
    return [
        wr.ParallelCoordinatesPlot(title="knobs", columns=[*columns, goal]),
        wr.ParameterImportancePlot(with_respect_to=GOAL),
        *scatters,
    ]


def _curves(board: Board) -> list[Any]:
    wr = _wr()
    shared = {
        "groupby": wr.Config("method"),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
    }
    keys = [LOSS, EPOCH_LOSS, *(f"selection/{name}" for name in board.metrics)]
    return [wr.LinePlot(title=key, x="Step", y=[key], **shared) for key in keys]


def _pictures(board: Board) -> list[Any]:
    keys = [SHOWN + kind for kind in board.pictures]
    return [_wr().MediaBrowser(title=key, media_keys=[key], num_columns=4) for key in keys]


def _runs() -> list[Any]:
    return [_wr().RunComparer(diff_only=True)]


def _grids(board: Board, runs_of: tuple[str, str]) -> list[Any]:
    """One grid a section, all over the runs of the study; the run table is under each."""
    from wandb_workspaces import expr

    wr = _wr()
    entity, project = runs_of
    blocks: list[Any] = []
    for name, panels in sections(board).items():
        runs = wr.Runset(
            entity=entity,
            project=project,
            name=board.study,
            filters=expr.And(expr.Metric("Group") == board.study),
            order=[wr.OrderBy(wr.SummaryMetric(GOAL), ascending=False)],
        )
        _lay_out(panels)
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return blocks


def _lay_out(panels: Sequence[Any]) -> None:
    """Two side by side; a grid has 24 columns."""
    layout = _wr().Layout
    for number, panel in enumerate(panels):
        panel.layout = layout(x=12 * (number % 2), y=8 * (number // 2), w=12, h=8)


def _studies(names: Sequence[str] | None, results: Path) -> list[Study]:
    """Those asked for, or all that have a folder of results.

    Raises:
        BenchError: an unknown study, or none has results.
    """
    from experiments import studies

    found = names or [name for name in studies.names() if any((results / name).glob("*.json"))]
    if not found:
        raise BenchError(f"{results} holds no results of a study")
    return [studies.load(name) for name in found]


def _kinds(folder: Path) -> tuple[str, ...]:
    """What is shown of a study's runs: samples, and base, truth or what else its tasks share."""
    stems = sorted(
        {path.stem.replace(".", "-").rpartition("-")[2] for path in folder.glob("*.webp")}
    )
    return tuple(sorted(stems, key=lambda stem: stem != "samples"))


def _account() -> str:
    import wandb

    return wandb.Api().default_entity


def _named(value: Any) -> Any:
    """The same without the ids that the library draws at random."""
    if isinstance(value, dict):
        return {key: _named(v) for key, v in value.items() if key not in ("id", "__id__")}
    return [_named(item) for item in value] if isinstance(value, list) else value
