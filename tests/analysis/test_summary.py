"""Honest selection on results whose answer is known, and the files that a summary writes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.load import load
from analysis.part import parts
from analysis.selection import cells, select_rates
from analysis.terminal.summary import summarize


def result(number: int, score: float, selection: float, status: str = "ok", **trial) -> dict:
    fields = {
        "task": "glue/rte",
        "base": "minilm",
        "method": "lokr",
        "r": 8,
        "learning_rate": 1e-3,
        "seed": 0,
        "target_modules": ["query", "value"],
    }
    return {
        "schema": 1,
        "id": f"{number:016x}",
        "status": status,
        "trial": {**fields, **trial},
        "metrics": {
            "primary": "accuracy",
            "score": score,
            "selection_score": selection,
            "selected_epoch": 1,
            "full_dev_best": max(score, selection),
        },
        "history": [{"epoch": 1, "report": {"accuracy": score}}],
        "parameters": {"adapter": 100, "head": 10, "trainable": 110, "base": 1000},
        "cost": {"seconds": 1.0},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """r=8: the rate 1e-2 selects better, 1e-3 would report better; r=16: one rate diverged."""
    rows = [
        result(1, score=0.9, selection=0.6, learning_rate=1e-3, seed=0),
        result(2, score=0.9, selection=0.6, learning_rate=1e-3, seed=1),
        result(3, score=0.7, selection=0.8, learning_rate=1e-2, seed=0),
        result(4, score=0.8, selection=0.8, learning_rate=1e-2, seed=1),
        result(5, score=0.5, selection=0.5, r=16, learning_rate=1e-3, seed=0),
        result(6, score=0.9, selection=0.9, r=16, learning_rate=1e-2, seed=0, status="diverged"),
        result(7, score=0.6, selection=0.6, method="head", r=4),
    ]
    study = tmp_path / "small"
    study.mkdir()
    for row in rows:
        (study / f"{row['id']}.json").write_text(json.dumps(row))
    return study


def test_the_rate_is_chosen_on_the_selection_half(folder):
    table = cells(load(folder)).set_index("cell")
    assert table.loc["lokr r=8", "rate"] == 1e-2
    assert table.loc["lokr r=8", "score"] == pytest.approx(0.75)
    assert table.loc["lokr r=8", "spread"] == pytest.approx(0.0707, abs=1e-4)
    assert table.loc["lokr r=8", "full_dev_best"] == pytest.approx(0.9)


def test_a_rate_that_diverged_loses_to_a_whole_one(folder):
    table = cells(load(folder)).set_index("cell")
    assert table.loc["lokr r=16", "rate"] == 1e-3
    assert table.loc["lokr r=16", "failed"] == 1


def test_a_rate_that_lacks_a_seed_loses_to_a_whole_one(tmp_path):
    """An interrupted sweep: one lucky seed at 1e-2, the other never ran there."""
    rows = [
        result(1, score=0.6, selection=0.6, learning_rate=1e-3, seed=0),
        result(2, score=0.6, selection=0.6, learning_rate=1e-3, seed=1),
        result(3, score=0.9, selection=0.9, learning_rate=1e-2, seed=0),
    ]
    for row in rows:
        (tmp_path / f"{row['id']}.json").write_text(json.dumps(row))
    (row,) = cells(load(tmp_path)).to_dict("records")
    assert (row["rate"], row["seeds"], row["score"]) == (1e-3, 2, pytest.approx(0.6))
    assert row["full_dev_best"] == pytest.approx(0.6)
    assert select_rates(load(tmp_path))["trial.seed"].tolist() == [0, 1]


def test_cells_are_named_by_what_differs_and_never_by_a_nuisance(folder):
    assert set(load(folder)["cell"]) == {"lokr r=8", "lokr r=16", "head"}
    assert len(select_rates(load(folder))) == 4


def test_summary_prints_every_cell_and_writes_the_same_bytes_twice(folder):
    out = io.StringIO()
    summarize(folder, Console(file=out, width=160))
    text = out.getvalue()
    for expected in ("lokr", "head", "75.0 ± 7.1", "0.01", "glue-rte-minilm-pareto.png"):
        assert expected in text
    files = sorted((folder / "figures").iterdir())
    assert sorted(f.suffix for f in files) == [".csv", ".pdf", ".png"]
    before = [f.read_bytes() for f in files]
    summarize(folder, Console(file=io.StringIO()))
    assert [f.read_bytes() for f in files] == before


def test_a_study_of_text_says_nothing_of_samples_and_ends_with_what_is_next(folder):
    out = io.StringIO()
    summarize(folder, Console(file=out, width=80))
    assert "samples" not in out.getvalue()
    *_, results, following = out.getvalue().splitlines()
    assert results == f"results {folder}/*.json"
    assert "make list" in following


def test_a_study_in_which_every_trial_failed_shows_blanks(tmp_path):
    failed = result(1, score=0.0, selection=0.0, status="error", r=4, seed=1)
    failed |= {"metrics": None, "history": [], "parameters": None}
    (tmp_path / f"{1:016x}.json").write_text(json.dumps(failed))
    out = io.StringIO()
    summarize(tmp_path, Console(file=out, width=80))
    (row,) = [line for line in out.getvalue().splitlines() if line.startswith(" lokr")]
    assert row.split() == ["lokr", "0.001", "1.0", "1"]


def test_foreign_files_are_named(folder):
    (folder / "notes.json").write_text("{}")
    (folder / "cut.json").write_text('{"schema": 1,')
    assert load(folder).attrs["unread"].keys() == {"cut.json", "notes.json"}


def test_a_study_without_results_is_one_line(tmp_path):
    ran = CliRunner().invoke(app, ["summary", "nothing", "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert "run the study first" in ran.output


@pytest.mark.parametrize("command", ["summary", "effects", "figures", "tables"])
def test_a_folder_that_cannot_be_written_is_one_line(folder: Path, command: str):
    (folder / "figures").write_text("in the way")
    (folder / "tables").write_text("in the way")
    ran = CliRunner().invoke(app, [command, folder.name, "--results", str(folder.parent)])
    assert ran.exit_code == 1
    assert len(ran.stderr.splitlines()) == 1
    assert f"{folder}/" in ran.stderr
    assert isinstance(ran.exception, SystemExit)


def test_an_odd_task_gives_a_file_name_that_a_shell_takes(folder: Path):
    (part, *_) = parts(load(folder).assign(**{"trial.task": "glue/<b>x y</b>"}), folder)
    assert part.slug == "glue-_b_x_y_-b_-minilm"
