"""Results on disk: whole or not there, and nothing damaged is believed or lost."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.store import SCHEMA, Result, Store, StoreError
from experiments.trial import Trial
from tests.experiments.fakes import result

TRIAL = Trial(task="glue/rte")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "results")
    made.prepare("small")
    return made


def files(store: Store) -> set[str]:
    return {path.name for path in store.folder("small").iterdir()}


@given(OBJECTS, st.none() | OBJECTS, st.lists(OBJECTS, max_size=2), st.none() | st.text())
def test_a_result_is_its_json(provenance, metrics, history, message):
    written = result(
        TRIAL, provenance=provenance, metrics=metrics, history=history, message=message
    )
    as_json = json.loads(json.dumps(written.to_dict()))
    read = Result.from_dict(as_json)
    assert read.to_dict() == as_json
    assert read.trial == written.trial


def test_written_and_read_back(store):
    written = result(TRIAL)
    path = store.write(written)
    assert path == store.root / "small" / f"{TRIAL.id}.json"
    assert store.load("small") == {TRIAL.id: written}
    values = json.loads(path.read_text())
    assert values["schema"] == SCHEMA
    assert values["id"] == TRIAL.id


def test_what_json_cannot_say_is_null(store):
    metrics = {"score": math.nan, "nested": [{"loss": -math.inf}, 1.0]}
    store.write(result(TRIAL, metrics=metrics))
    read = store.load("small")[TRIAL.id]
    assert read.metrics == {"score": None, "nested": [{"loss": None}, 1.0]}


def test_a_result_replaces_the_one_before(store):
    store.write(result(TRIAL, status="error", message="bug"))
    store.write(result(TRIAL))
    assert store.load("small")[TRIAL.id].status == "ok"
    assert files(store) == {f"{TRIAL.id}.json"}


@pytest.mark.parametrize(
    ("status", "is_finished"),
    [("ok", True), ("diverged", True), ("error", False), ("out_of_memory", False)],
)
def test_what_need_not_run_again(store, status, is_finished):
    store.write(result(TRIAL, status=status))
    assert (TRIAL.id in store.finished("small")) is is_finished


def test_a_study_never_run_has_no_results(tmp_path):
    assert Store(tmp_path).load("small") == {}
    assert Store(tmp_path / "nowhere").find("") == []


def test_results_are_found_by_how_their_id_begins(store):
    trials = [Trial(task="glue/rte", seed=seed) for seed in range(3)]
    for trial in trials:
        store.write(result(trial))
    assert [found.id for found in store.find(trials[1].id[:8])] == [trials[1].id]
    assert len(store.find("")) == 3


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def damage_list(path: Path) -> None:
    path.write_text("[1, 2]")


def damage_numbers(path: Path) -> None:
    """Somebody edits the trial but not the id."""
    values = json.loads(path.read_text())
    values["trial"]["seed"] = 7
    path.write_text(json.dumps(values))


def damage_trial(path: Path) -> None:
    values = json.loads(path.read_text())
    values["trial"]["rank"] = 7
    path.write_text(json.dumps(values))


def damage_type(path: Path) -> None:
    values = json.loads(path.read_text())
    values["trial"] = "gone"
    path.write_text(json.dumps(values))


def damage_status(path: Path) -> None:
    values = json.loads(path.read_text())
    values["status"] = "cancelled"
    path.write_text(json.dumps(values))


def damage_key(path: Path) -> None:
    values = json.loads(path.read_text())
    del values["metrics"]
    path.write_text(json.dumps(values))


def damage_schema(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))


def damage_study(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "study": "other"}))


def damage_name(path: Path) -> None:
    """Somebody's copy under another name."""
    path.rename(path.with_name("copy.json"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_truncated, "Unterminated string"),
        (damage_empty, "Expecting value"),
        (damage_binary, "codec can't decode"),
        (damage_list, "schema='list': expected 1"),
        (damage_numbers, "its trial has the id"),
        (damage_trial, "rank"),
        (damage_type, "trial: "),
        (damage_status, "status='cancelled': expected one of ok, diverged"),
        (damage_key, "no metrics"),
        (damage_schema, "schema=99: expected 1"),
        (damage_study, "it belongs to the study 'other'"),
        (damage_name, f"it holds the result {TRIAL.id}"),
    ],
)
def test_a_damaged_file_is_named_and_set_aside_and_its_trial_runs_again(
    store, caplog, damage, reason
):
    damage(store.write(result(TRIAL)))
    (name,) = files(store)
    content = (store.folder("small") / name).read_bytes()
    assert store.finished("small") == set()
    assert files(store) == {name}, "reading moves nothing"

    with caplog.at_level(logging.WARNING):
        store.prepare("small")
    assert name in caplog.text
    assert reason in caplog.text
    assert files(store) == {f"{name}.damaged"}
    assert (store.folder("small") / f"{name}.damaged").read_bytes() == content


def test_setting_aside_overwrites_nothing(store):
    for _ in range(3):
        damage_truncated(store.write(result(TRIAL)))
        store.prepare("small")
    name = f"{TRIAL.id}.json.damaged"
    assert files(store) == {name, f"{name}.1", f"{name}.2"}


def test_files_that_are_no_json_are_left_alone(store):
    (store.folder("small") / "figure.png").touch()
    store.prepare("small")
    assert files(store) == {"figure.png"}


def test_what_a_killed_run_left_half_written_goes_but_not_what_is_being_written(store):
    abandoned = store.folder("small") / f".{TRIAL.id}.json.0123.tmp"
    live = store.folder("small") / f".{TRIAL.id}.json.4567.tmp"
    for path in (abandoned, live):
        path.write_text("{")
    os.utime(abandoned, (0, 0))
    assert store.load("small") == {}
    store.prepare("small")
    assert files(store) == {live.name}


def test_a_write_that_fails_leaves_the_result_before_it(store, monkeypatch):
    store.write(result(TRIAL))

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=f"cannot write .*{TRIAL.id}.json: No space left"):
        store.write(result(TRIAL, status="error"))
    with pytest.raises(StoreError, match=r"cannot write .*small: No space left on device"):
        store.prepare("small")
    assert files(store) == {f"{TRIAL.id}.json"}
    assert store.load("small")[TRIAL.id].status == "ok"


@pytest.mark.parametrize("in_the_way", ["results", "results/small"])
def test_a_file_in_place_of_the_folder_is_one_clear_error(tmp_path, in_the_way):
    path = tmp_path / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot write .*results/small: (Not a dir|File exists)"):
        Store(tmp_path / "results").prepare("small")


def test_a_folder_that_went_away_is_one_clear_error(store):
    store.folder("small").rmdir()
    with pytest.raises(StoreError, match=r"cannot write .*json: No such file"):
        store.write(result(TRIAL))


def test_a_disk_that_takes_no_more_is_found_before_training(tmp_path):
    """A real refusal by the system: no file of this process may grow past 1 KiB."""
    script = (
        "import resource, sys; from pathlib import Path; from experiments.store import Store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "Store(Path(sys.argv[1])).prepare('small')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "StoreError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert list((tmp_path / "small").iterdir()) == []


def test_the_schema_is_what_its_documentation_lists():
    import experiments.store

    documented = experiments.store.__doc__.split("so is NaN or an infinity:")[1]
    names = [line.split()[0] for line in documented.splitlines() if line[4:5].strip()]
    assert names == list(result(TRIAL).to_dict())


def test_a_result_knows_its_trials_id():
    assert replace(result(TRIAL), trial=Trial(task="glue/cola")).id == Trial(task="glue/cola").id
