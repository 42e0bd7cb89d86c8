"""W&B's workspaces and report are built, and ask only for what is logged; nothing is saved."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments import cli, studies
from experiments.dashboards import Board, board, sections, specs, workspace
from experiments.store import Store
from experiments.tracking.record import Record, name_of, record

RESULTS = Path(__file__).parents[2] / "results"
# wandb-workspaces' own, when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("wandb_workspaces")


@pytest.fixture(scope="module")
def emoji() -> Board:
    return board(studies.load("emoji-knobs"), Store(RESULTS))


@pytest.fixture(scope="module")
def logged() -> Record:
    """The run of a LoKr trial of emoji-knobs."""
    store = Store(RESULTS)
    found = store.find("0155589e50ad5ad1")[0]
    return record(found, name_of("lokr", found.trial), store.folder("emoji-knobs"))


def strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_a_study_is_shown_by_its_knobs_its_scores_and_its_pictures(emoji):
    assert emoji.knobs == (
        "r",
        "alpha",
        "decompose_factor",
        "decompose_both",
        "init_weights",
        "use_effective_conv2d",
        "method",
        "learning_rate",
    )
    assert emoji.metrics == ("gain", "loss", "drift")
    assert emoji.pictures == ("samples", "base", "truth")


def test_a_study_without_pictures_has_no_place_for_them(library):
    rte = board(studies.load("glue-rte"), Store(RESULTS))
    assert rte.pictures == ()
    assert list(sections(rte)) == ["Scores", "Knobs", "Curves", "Runs"]


def test_every_chart_asks_for_what_is_logged(library, emoji, logged):
    dumped = json.dumps(specs([emoji], "p", "e"))
    config = {*re.findall(r'"config:([a-z0-9_]+)', dumped)}
    summary = {*re.findall(r'"summary:([a-z_/]+)"', dumped)}
    curves = {*re.findall(r'"((?:train|selection|report)/[a-z_]+)"', dumped)}
    history = {key for _, row in logged.history for key in row}
    assert config >= {*emoji.knobs, "method"}
    assert config <= {*logged.config}
    assert summary >= {"score", "selection_score", "parameters/trainable"}
    assert summary <= {*logged.summary} | history
    assert curves >= {"train/loss", "selection/gain", "selection/drift"}
    assert curves <= history
    assert {f"pictures/{kind}" for kind in emoji.pictures} == {*logged.pictures}


def test_all_that_the_issue_names_is_there(library, emoji):
    found = {*strings(specs([emoji], "p", "e")["workspaces"])}
    assert found >= {
        "Scatter Plot",
        "Parallel Coordinates Plot",
        "Parameter Importance",
        "Run History Line Plot",
        "Media Browser",
        "Run Comparer",
        "Bar Chart",
    }


def test_only_the_runs_of_the_study_are_shown(library, emoji):
    spec = specs([emoji], "p", "e")["workspaces"][0]
    (runs,) = spec["spec"]["section"]["runSets"]
    (only,) = runs["filters"]["filters"]
    assert only["key"] == {"section": "run", "name": "group"}
    assert (only["op"], only["value"]) == ("=", "emoji-knobs")
    assert runs["sort"]["keys"][0]["key"]["name"] == "selection_score"


def test_the_library_reads_what_it_wrote(library, emoji):
    import wandb_workspaces.workspaces as ws

    made = workspace(emoji, "p", "e")
    again = ws.Workspace._from_model(made._to_model())
    assert [(s.name, len(s.panels)) for s in again.sections] == [
        (s.name, len(s.panels)) for s in made.sections
    ]
    assert again.runset_settings.filters == made.runset_settings.filters


def test_a_dry_run_prints_the_same_twice_and_needs_no_account(library, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    arguments = ["dashboards", "glue-rte", "--dry-run", "--results", str(RESULTS)]
    ran = CliRunner().invoke(cli.app, arguments)
    assert ran.exit_code == 0, ran.stderr
    spec = json.loads(ran.stdout)
    assert [view["displayName"] for view in spec["workspaces"]] == ["LoKr Bench: glue-rte"]
    assert spec["report"]["project"]["entityName"] == "ENTITY"
    blocks = [block["type"] for block in spec["report"]["spec"]["blocks"]]
    assert blocks.count("panel-grid") == 4, "scores, knobs, curves, runs"
    assert CliRunner().invoke(cli.app, arguments).stdout == ran.stdout


def test_a_study_without_results_is_one_line(tmp_path):
    ran = CliRunner().invoke(cli.app, ["dashboards", "glue-rte", "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert ran.stderr == f"error: no results to show in {tmp_path / 'glue-rte'}\n"


def test_no_results_at_all_is_one_line(tmp_path):
    ran = CliRunner().invoke(cli.app, ["dashboards", "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert ran.stderr == f"error: {tmp_path} holds no results of a study\n"


def test_without_the_package_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    ran = CliRunner().invoke(cli.app, ["dashboards", "glue-rte", "--results", str(RESULTS)])
    assert ran.exit_code == 1
    assert 'pip install "lokr-bench[wandb,dashboards]"' in ran.stderr


def test_saving_without_an_account_is_one_line(library, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    ran = CliRunner().invoke(cli.app, ["dashboards", "glue-rte", "--results", str(RESULTS)])
    assert ran.exit_code == 1
    assert "dashboards: no account is set up here; run `wandb login`" in ran.stderr
