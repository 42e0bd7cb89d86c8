"""Result files to frames and to Parquet; files that are no result are named and harm no other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis import export
from analysis.__main__ import app
from analysis.load import load, load_all
from analysis.part import parts
from tests.analysis.synthetic import Design, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two studies with different fields; in one a trial diverged."""
    text = Design(
        effects={"r": {2: 0.0, 8: 0.1}, "init_weights": {True: 0.0, "lycoris": 0.1}},
        failed=lambda knobs, rate, seed: knobs["r"] == 8 and seed == 1,
    )
    drawn = Design(
        effects={"target_modules": {"all-linear": 0.0}},
        primary="gain",
        trial={"task": "emoji/openmoji", "base": "emoji", "train_size": 32, "samples": 8},
    )
    write(tmp_path / "drawn", drawn)
    write(tmp_path / "text", text)
    for other in ("bench", "cost"):
        (tmp_path / other).mkdir()
        (tmp_path / other / "layer.json").write_text('{"schema": 1}')
    return tmp_path


def one_result() -> dict:
    (result,) = Design(effects={}, seeds=1).results(np.random.default_rng(0))
    return result


BROKEN = {
    "array": ("[]", "holds a list"),
    "binary": (b"\xff\xfe\x00", "not valid JSON"),
    "cut": ('{"schema": 1,', "not valid JSON"),
    "deep": ("[" * 100_000, "not valid JSON"),
    "fields": (json.dumps({"schema": 1, "id": "fields"}), "no field status, trial"),
    "misnamed": (json.dumps(one_result()), "is not its name"),
    "newer": (json.dumps({"schema": 2}), "schema 2, expected 1"),
    "seedless": (
        json.dumps(one_result() | {"id": "seedless", "trial": {"task": "t", "base": "b"}}),
        "no field trial.method, trial.learning_rate, trial.seed",
    ),
    "text": (
        json.dumps(one_result() | {"id": "text", "metrics": {"score": "high"}}),
        "score is 'high', not a number",
    ),
    "trialless": (json.dumps(one_result() | {"id": "trialless", "trial": None}), "TypeError"),
    "unhashable": (
        json.dumps(
            one_result() | {"id": "unhashable", "trial": one_result()["trial"] | {"r": {"a": 1}}}
        ),
        "trial.r is {'a': 1}, not a value",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_result_is_named_with_the_reason_and_the_others_are_read(root, name):
    content, reason = BROKEN[name]
    file = root / "text" / f"{name}.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    results = load_all(root)
    assert list(results.unread) == [str(file)]
    assert reason in results.unread[str(file)]
    assert len(results.trials) == 15


def test_a_folder_in_the_place_of_a_file_is_named(root):
    (root / "text" / "folder.json").mkdir()
    assert "cannot be read" in load_all(root).unread[str(root / "text" / "folder.json")]


def test_a_study_of_foreign_files_alone_says_what_is_wrong_with_the_first(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"run the study first; a\.json: schema None"):
        load(tmp_path)


def test_speed_and_cost_are_no_studies(root):
    assert list(load_all(root).trials["study"].unique()) == ["drawn", "text"]


def test_what_is_missing_is_missing_in_one_way(root):
    trials = load_all(root).trials
    failed = trials[trials["status"] == "diverged"]
    assert len(failed) == 2
    assert failed["score"].isna().all()
    assert set(failed["message"]) == {"the loss is not finite"}
    for column in (name for name in trials if trials[name].dtype == object):
        missing = trials[column][trials[column].isna()]
        assert all(value is None for value in missing), column


def test_a_field_that_only_another_study_has_distinguishes_no_cell(root):
    trials = load_all(root).trials
    text = trials[trials["study"] == "text"]
    (part,) = parts(text, root / "text")
    assert set(part.cells["cell"]) == {
        f"lokr r={r} init_weights={init}" for r in (2, 8) for init in (True, "lycoris")
    }


def test_epochs_are_those_of_the_histories(root):
    results = load_all(root)
    ok = results.trials[results.trials["status"] == "ok"]
    last = results.epochs[results.epochs["epoch"] == 2].set_index("id")
    scores = last["report.accuracy"].fillna(last["report.gain"])
    pd.testing.assert_series_equal(
        scores.loc[ok["id"]], ok.set_index("id")["score"], check_names=False
    )


def test_parquet_gives_back_the_same_frames(root):
    results = load_all(root)
    written = export.export(root, root)
    pd.testing.assert_frame_equal(export.read(written.trials), results.trials)
    pd.testing.assert_frame_equal(export.read(written.epochs), results.epochs)


def test_parquet_of_trials_that_all_failed(tmp_path):
    write(tmp_path / "lost", Design(effects={"r": {2: 0.0}}, failed=lambda *_: True))
    results = load_all(tmp_path)
    written = export.export(tmp_path, tmp_path / "out")
    pd.testing.assert_frame_equal(export.read(written.trials), results.trials)
    pd.testing.assert_frame_equal(export.read(written.epochs), results.epochs)


def test_parquet_has_the_same_bytes_twice_and_says_its_schema(root):
    from pyarrow import parquet

    first = [path.read_bytes() for path in export.export(root, root)[:2]]
    assert [path.read_bytes() for path in export.export(root, root)[:2]] == first
    metadata = parquet.read_schema(root / export.TRIALS).metadata
    about = json.loads(metadata[export.KEY])
    assert set(metadata) == {export.KEY}
    assert about["schema"] == 1
    assert about["json"] == ["trial.init_weights", "trial.target_modules"]


def test_a_foreign_parquet_is_one_line(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(export.ParquetError, match="schema None, expected 1"):
        export.read(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no parquet at all")
    with pytest.raises(export.ParquetError, match="is no Parquet file"):
        export.read(tmp_path / "text.parquet")


def test_the_command_says_what_it_wrote_and_what_it_left_out(root):
    (root / "text" / "notes.json").write_text("{}")
    ran = CliRunner().invoke(app, ["export", "--results", str(root), "--out", str(root / "out")])
    assert ran.exit_code == 0
    assert str(root / "out" / "trials.parquet") in ran.output
    assert "notes.json holds no result and was left out: schema None" in ran.output


def test_the_command_has_one_line_for_a_folder_without_results(tmp_path):
    ran = CliRunner().invoke(app, ["export", "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert ran.output.count("\n") == 1


def test_the_command_has_one_line_for_a_place_that_cannot_be_written_to(root):
    blocked = root / "file"
    blocked.write_text("")
    ran = CliRunner().invoke(app, ["export", "--results", str(root), "--out", str(blocked)])
    assert ran.exit_code == 1
    assert f"cannot write to {blocked}" in ran.output
    assert ran.output.count("\n") == 1
