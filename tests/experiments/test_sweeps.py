"""A study as a sweep of W&B, and what an agent of that sweep calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import Result as Ran
from typer.testing import CliRunner

from experiments import cli, sizes, studies, train
from experiments.plan import collapse
from experiments.store import Store
from tests.experiments import fakes
from tests.experiments.sweep_study import STUDY
from tests.experiments.tracked import runs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRIALS, COLLAPSED = collapse(STUDY.trials, fakes.layers_of)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    monkeypatch.setattr(studies, "load", lambda name: STUDY)
    monkeypatch.setattr(sizes, "layers_of", fakes.layers_of)
    monkeypatch.setattr(sizes, "rows_of", fakes.rows_of)
    monkeypatch.setattr(train, "train_pack", fakes.Trainer())
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.app, arguments)


def test_the_sweep_has_every_trial_that_the_study_runs_and_no_other(call):
    sweep = yaml.safe_load(call("export-sweep", "holes").stdout)
    assert COLLAPSED, "else this shows nothing"
    assert sweep["parameters"] == {"trial": {"values": [trial.id for trial in TRIALS]}}


@pytest.mark.parametrize("name", ["quickstart", "sentences", "emoji-knobs"])
def test_the_sweep_of_a_study_is_what_wandb_expects(name):
    schema = json.loads((HERE / "sweep_schema.json").read_text())
    ran = CliRunner().invoke(cli.app, ["export-sweep", name])
    assert ran.exit_code == 0, ran.stderr
    sweep = yaml.safe_load(ran.stdout)
    jsonschema.Draft7Validator(schema).validate(sweep)
    assert sweep["method"] == "grid"
    ids = sweep["parameters"]["trial"]["values"]
    assert len(set(ids)) == len(ids)
    assert all(isinstance(trial_id, str) for trial_id in ids)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({**sweep, "metric": {"goal": "most"}})


def test_it_ranks_by_the_selection_half(call):
    sweep = yaml.safe_load(call("export-sweep", "holes").stdout)
    assert sweep["metric"] == {"name": "selection_score", "goal": "maximize"}


def test_people_read_what_each_id_is_and_numbers_stay_words(call):
    text = call("export-sweep", "holes").stdout
    assert f'    - "{TRIALS[0].id}"  # lokr r=4 alpha=8 lr=0.001 seed=0\n' in text


def test_a_file_is_written_the_same_twice_and_says_what_next(call, tmp_path):
    ran = call("export-sweep", "holes", "--out", "sweep.yaml")
    assert ran.stdout == f"{len(TRIALS)} trials. Next: wandb sweep sweep.yaml\n"
    first = (tmp_path / "sweep.yaml").read_bytes()
    call("export-sweep", "holes", "--out", "sweep.yaml")
    assert (tmp_path / "sweep.yaml").read_bytes() == first


def test_a_file_that_cannot_be_written_is_one_line(call):
    ran = call("export-sweep", "holes", "--out", "nowhere/sweep.yaml")
    assert ran.exit_code == 1
    assert (
        ran.stderr
        == "error: --out nowhere/sweep.yaml: cannot be written: No such file or directory\n"
    )


def test_set_reaches_the_ids_and_the_agents(call):
    sweep = yaml.safe_load(call("export-sweep", "holes", "--set", "epochs=1").stdout)
    assert set(sweep["parameters"]["trial"]["values"]).isdisjoint(trial.id for trial in TRIALS)
    assert sweep["command"][-3:] == ["--set", "epochs=1", "${args}"]


def test_without_a_sweep_the_entry_trains_that_trial_alone(call):
    ran = call("agent-trial", "holes", f"--trial={TRIALS[-1].id}", "--wandb", "disabled")
    assert ran.exit_code == 0, ran.stderr
    assert train.train_pack.packs == [(TRIALS[-1],)]
    assert list(Store(Path("results")).load("holes")) == [TRIALS[-1].id]


@pytest.mark.parametrize("trial_id", ["zzz", COLLAPSED[0].trial.id])
def test_a_trial_that_the_study_does_not_run_is_one_line(trial_id, call):
    ran = call("agent-trial", "holes", f"--trial={trial_id}", "--wandb", "disabled")
    assert ran.exit_code == 1
    assert f"--trial '{trial_id}': expected the id of a trial that holes runs" in ran.stderr
    assert train.train_pack.packs == []


def test_a_finished_trial_is_logged_and_not_trained(call):
    pytest.importorskip("wandb")
    call("agent-trial", "holes", f"--trial={TRIALS[0].id}", "--wandb", "disabled")
    ran = call("agent-trial", "holes", f"--trial={TRIALS[0].id}", "--wandb", "offline")
    assert ran.exit_code == 0, ran.stderr
    assert "W&B: 1 run in wandb" in ran.stdout
    assert len(train.train_pack.packs) == 1


def test_wandbs_agent_trains_the_trials_and_logs_them_to_the_runs_of_the_sweep(call, tmp_path):
    pytest.importorskip("wandb")
    call("export-sweep", "holes", "--out", "sweep.yaml")
    command = [sys.executable, str(HERE / "agent.py"), "sweep.yaml", str(HERE / "agent_entry.py")]
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # for ${interpreter}
    environment = {"PATH": paths, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    done = subprocess.run(
        [*command, "2"], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    results = Store(tmp_path / "results").load("holes")
    assert {result.trial for result in results.values()} == {*TRIALS[:2]}
    found = runs(tmp_path / "wandb")
    assert set(found) == {"run0", "run1"}
    for trial, run in zip(TRIALS, found.values(), strict=False):
        assert run.head["sweep_id"] == "sweep1"
        assert (run.config["trial"], run.config["seed"]) == (trial.id, trial.seed)
        assert run.summary["selection_score"] == 0.5 + trial.seed / 10
