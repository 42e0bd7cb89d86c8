"""A study as a sweep of Weights & Biases, and the trial that an agent of it is to run.

    study -> export-sweep -> YAML -> wandb sweep -> wandb agent -> agent-trial STUDY --trial=ID

A study is a list of trials, not a grid: cells collapse, and every method has its own rates. A grid
over the knobs would run trials that no study has, and one sweep for each grid-like part would fall
to pieces of a few trials. So the sweep has one parameter, the trial, whose values are the ids: no
trial more or less. All fields of the trial are in the config of its run, for W&B's charts.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.command import Data, Sets, StudyName, explained
from experiments.errors import BenchError
from experiments.overrides import override
from experiments.plan import collapse
from experiments.study import Study
from experiments.tracking.record import name_of
from experiments.trial import Trial

GOAL = "selection_score"
"""What the sweep ranks by. Never the report half: whatever is chosen by it would be reported on it.
"""
_HEAD = """\
# The study {name} as a sweep: {count} trials.
#
#     wandb sweep {file}
#     wandb agent SWEEP_ID      as often and wherever you like, `python` being this project's
#
# The one parameter is the trial: a study is a list, and a grid over its knobs would have trials
# that the study does not. Each run has all fields of its trial in its config. An agent trains one
# trial at a time; without agents, `python -m experiments run {name}` trains them side by side.
"""


def export_sweep(
    study: StudyName,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File to write.", show_default="the terminal"),
    ] = None,
    data: Data = None,
    sets: Sets = None,
) -> None:
    """Write a study as a sweep of Weights & Biases, for `wandb sweep` and `wandb agent`.

    Every run of the sweep is one trial of the study, trained by `agent-trial` and kept as a result
    file as ever. Nothing is trained or sent here, and wandb is not needed.
    """
    with explained():
        from experiments import sizes, studies

        chosen = override(studies.load(study), sets or [])
        trials, _ = collapse(chosen.trials, sizes.layers_of)
        text = spell(definition(chosen, trials, options(data, sets)), chosen, trials, out)
        if out is None:
            typer.echo(text, nl=False)
            return
        _write(out, text)
        typer.echo(f"{len(trials)} trials. Next: wandb sweep {shlex.quote(str(out))}")


def definition(
    study: Study, trials: Sequence[Trial], options: Sequence[str] = ()
) -> dict[str, Any]:
    """The sweep, as ``wandb sweep`` reads it.

    Args:
        study: whose trials they are.
        trials: those that stand for themselves, see :func:`experiments.plan.collapse`.
        options: more of ``agent-trial``.
    """
    entry = ["-m", "experiments", "agent-trial", study.name, *options]
    return {
        "name": study.name,
        "description": study.description,
        "program": "experiments/__main__.py",  # W&B wants one; the command says how it is called
        "method": "grid",
        "metric": {"name": GOAL, "goal": "maximize"},
        "parameters": {"trial": {"values": [trial.id for trial in trials]}},
        "command": ["${env}", "${interpreter}", *entry, "${args}"],
    }


def options(data: Path | None, sets: Sequence[str] | None) -> list[str]:
    """What makes ``agent-trial`` see the same study and data."""
    given = [] if data is None else ["--data", str(data)]
    return [*given, *(word for one in sets or () for word in ("--set", one))]


def spell(sweep: dict[str, Any], study: Study, trials: Sequence[Trial], out: Path | None) -> str:
    """YAML, with what each trial is beside its id."""
    import yaml

    names = {trial.id: name_of(study.label([trial]), trial) for trial in trials}
    file = shlex.quote(str(out)) if out else "FILE"
    head = _HEAD.format(name=study.name, count=len(trials), file=file)
    lines = yaml.safe_dump(sweep, sort_keys=False, width=1000).splitlines()
    return "\n".join([head, *(_noted(line, names) for line in lines), ""])


def only(study: Study, trial_id: str) -> Study:
    """The study with that one trial, which must stand for itself.

    Raises:
        BenchError: it has none of that id.
    """
    from experiments import sizes

    trials, _ = collapse(study.trials, sizes.layers_of)
    found = tuple(trial for trial in trials if trial.id == trial_id)
    if not found:
        raise BenchError(
            f"--trial {trial_id!r}: expected the id of a trial that {study.name} runs, such as "
            f"{trials[0].id}; --set must be that of the sweep"
        )
    return replace(study, trials=found)


def _noted(line: str, names: dict[str, str]) -> str:
    """An id in quotes, since some readers of YAML take digits around an e for a number."""
    trial_id = line.strip(" -'\"")
    return f'    - "{trial_id}"  # {names[trial_id]}' if trial_id in names else line


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text)
    except OSError as error:
        raise BenchError(f"--out {out}: cannot be written: {error.strerror or error}") from error
