"""The record of trials that never run because another one is the same function."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments import cli, sizes, studies, train
from experiments.collapsed import NAME, record
from experiments.plan import Collapsed, collapse
from experiments.store import Store, StoreError
from experiments.study import Study, grid
from experiments.trial import Trial
from tests.experiments import fakes

# r = 16 and r = 32 are one cell in these layers.
STUDY = Study(
    name="small",
    description="a study for tests",
    trials=tuple(
        trial
        for r in (4, 16, 32)
        for trial in grid({"task": "glue/rte", "r": r, "alpha": r}, seed=(0, 1))
    ),
    scientific=("r", "alpha"),
)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command line knows one study, trains nothing, and writes here."""
    monkeypatch.setattr(studies, "load", lambda name: STUDY)
    monkeypatch.setattr(sizes, "layers_of", fakes.layers_of)
    monkeypatch.setattr(sizes, "rows_of", fakes.rows_of)
    monkeypatch.setattr(train, "train_pack", fakes.Trainer())
    return tmp_path / "results"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "small").mkdir()
    return Store(tmp_path)


def run(results: Path, *arguments: str) -> None:
    ran = CliRunner().invoke(cli.app, ["run", "small", "--results", str(results), *arguments])
    assert ran.exit_code == 0, ran.output


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def equal() -> tuple[Collapsed, ...]:
    return collapse(STUDY.trials, fakes.layers_of)[1]


def test_a_run_says_which_trial_stands_for_which_and_why(results):
    run(results)
    found = lines(results / "small" / NAME)
    assert len(found) == 2
    for line in found:
        trial = Trial.from_dict(line["trial"])
        stands = next(t for t in STUDY.trials if t.id == line["equals"])
        assert (trial.id, trial.r) == (line["id"], 32)
        assert (stands.r, stands.seed) == (16, trial.seed)
        assert "w2 is full in every layer from r=12" in line["reason"]
        assert (results / "small" / f"{line['equals']}.json").exists()


def test_a_run_with_nothing_left_writes_it_too_and_every_shard_the_same(results):
    run(results)
    path = results / "small" / NAME
    whole = path.read_bytes()
    path.unlink()
    run(results)
    assert path.read_bytes() == whole
    path.unlink()
    run(results, "--shard", "2/2")
    assert path.read_bytes() == whole


def test_a_run_takes_it_for_no_damaged_result_and_a_dry_run_writes_none(results):
    run(results, "--dry-run")
    assert not (results / "small").exists()
    run(results)
    run(results)
    assert [path.name for path in (results / "small").glob("*damaged*")] == []


def test_lines_of_a_larger_run_of_the_folder_stay(results):
    run(results)
    whole = (results / "small" / NAME).read_bytes()
    run(results, "--limit", "5")
    assert (results / "small" / NAME).read_bytes() == whole
    run(results, "--set", "epochs=1")
    assert len(lines(results / "small" / NAME)) == 4


def test_where_nothing_collapses_there_is_no_file(store):
    record(store, "small", ())
    assert not (store.folder("small") / NAME).exists()


def test_a_damaged_file_is_said_and_made_again(store, caplog):
    record(store, "small", equal())
    path = store.folder("small") / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with caplog.at_level(logging.WARNING, "experiments"):
        record(store, "small", equal())
    assert path.read_bytes() == whole
    assert f"{path} was damaged" in caplog.text


def test_it_is_whole_or_not_there(store, monkeypatch):
    def fails(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(StoreError, match=r"collapsed.jsonl: No space left on device"):
        record(store, "small", equal())
    assert [*store.folder("small").iterdir()] == []


def test_the_newest_reason_is_kept(store):
    record(store, "small", equal())
    record(store, "small", [replace(one, reason="said otherwise") for one in equal()])
    assert {line["reason"] for line in lines(store.folder("small") / NAME)} == {"said otherwise"}
