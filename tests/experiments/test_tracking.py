"""What is logged of a result, that nothing is lost by logging, and the files that wandb writes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result as Ran
from typer.testing import CliRunner

from experiments import cli, sizes, studies, train
from experiments.listener import Several, Silent
from experiments.store import Store
from experiments.study import Study, grid
from experiments.tracking.record import NAME, name_of, pictures, record
from experiments.tracking.tracker import Tracker
from experiments.trial import Trial
from tests.experiments import fakes
from tests.experiments.tracked import runs

TRIAL = Trial(task="emoji/openmoji", target_modules=("to_q", "to_k"), r=4)
STUDY = Study(
    name="small",
    description="a study for tests",
    trials=tuple(grid({"task": "glue/rte"}, r=(4, 8), seed=(0, 1))),
    scientific=("r",),
)


def epoch(number: int, losses: list[float], score: float) -> dict[str, object]:
    readings = {half: {"accuracy": score} for half in ("selection", "report", "full")}
    mean = sum(losses) / len(losses)
    step = number * len(losses)
    return {"epoch": number, "step": step, "train_loss": mean, "losses": losses, **readings}


HISTORY = [epoch(1, [0.9, 0.8], 0.5), epoch(2, [0.7, 0.6], 0.75)]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """The command line with one study, in an empty folder; nothing is trained."""
    monkeypatch.setattr(studies, "names", lambda: ["small"])
    monkeypatch.setattr(studies, "load", lambda name: STUDY)
    monkeypatch.setattr(sizes, "layers_of", fakes.layers_of)
    monkeypatch.setattr(sizes, "rows_of", fakes.rows_of)
    monkeypatch.setattr(train, "train_pack", fakes.Trainer())
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def invoke(command: str, *arguments: str) -> Ran:
        return CliRunner().invoke(cli.app, [command, *arguments])

    return invoke


def test_the_config_gives_the_trial_back(tmp_path):
    config = record(fakes.result(TRIAL), "a", tmp_path).config
    assert Trial.from_dict({name: config[name] for name in TRIAL.to_dict()}) == TRIAL
    assert (config["trial"], config["study"]) == (TRIAL.id, "small")


def test_every_step_is_a_row_and_the_last_of_an_epoch_has_its_scores(tmp_path):
    rows = dict(record(fakes.result(TRIAL, history=HISTORY), "a", tmp_path).history)
    assert {step: row["train/loss"] for step, row in rows.items()} == {
        1: 0.9,
        2: 0.8,
        3: 0.7,
        4: 0.6,
    }
    assert {s: row["selection/accuracy"] for s, row in rows.items() if "epoch" in row} == {
        2: 0.5,
        4: 0.75,
    }
    assert rows[4]["train/epoch_loss"] == pytest.approx(0.65)


def test_what_is_missing_is_no_point_of_a_curve_and_null_in_the_summary(tmp_path):
    history = [epoch(1, [0.9, float("nan")], float("nan"))]
    history[0]["losses"][0] = None  # as a file has it
    metrics = {"primary": "accuracy", "score": float("nan")}
    one = record(fakes.result(TRIAL, history=history, metrics=metrics), "a", tmp_path)
    assert one.history == ((1, {}), (2, {"epoch": 1}))
    assert one.summary["score"] is None


def test_metrics_parameters_and_cost_are_the_summary(tmp_path):
    metrics = {"primary": "gain", "score": 0.5, "reference": {"vendi_ceiling": 9.0}}
    summary = record(fakes.result(TRIAL, metrics=metrics), "a", tmp_path).summary
    assert summary["score"] == 0.5
    assert summary["reference/vendi_ceiling"] == 9.0
    assert summary["parameters/trainable"] == 12
    assert summary["cost/seconds"] == 1.0
    assert summary["status"] == "ok"


@pytest.mark.parametrize(
    ("status", "code"), [("ok", 0), ("diverged", 0), ("error", 1), ("out_of_memory", 1)]
)
def test_a_trial_that_runs_again_is_a_failed_run(status, code, tmp_path):
    one = record(fakes.result(TRIAL, status=status, metrics=None, history=[]), "a", tmp_path)
    assert (one.exit_code, one.tags, one.history) == (code, (status,), ())


def test_two_studies_do_not_share_the_run_of_a_trial(tmp_path):
    ids = {record(fakes.result(TRIAL, study), "a", tmp_path).id for study in ("one", "two")}
    assert ids == {f"one-{TRIAL.id}", f"two-{TRIAL.id}"}


def test_a_long_name_keeps_rate_and_seed():
    name = name_of("x" * 200, TRIAL)
    assert len(name) == NAME
    assert name.endswith("x lr=0.001 seed=0")


def test_pictures_are_the_trials_own_and_those_of_its_task(tmp_path):
    for name in (
        f"{TRIAL.id}.samples.webp",
        "openmoji-truth.webp",
        "openmoji-base.webp",
        "openmoji-black-base.webp",
        "0123456789abcdef.samples.webp",
    ):
        (tmp_path / name).touch()
    found = {key: path.name for key, path in pictures(TRIAL, tmp_path).items()}
    assert found == {
        "samples": f"{TRIAL.id}.samples.webp",
        "truth": "openmoji-truth.webp",
        "base": "openmoji-base.webp",
    }
    black = Trial(task="emoji/openmoji-black")
    assert pictures(black, tmp_path) == {}, "it drew nothing"


class Memory:
    """A session that keeps names, or fails from a call on."""

    def __init__(self, fails_from: int | None = None) -> None:
        self.names: list[str] = []
        self.calls = 0
        self.fails_from = fails_from

    def log(self, record: object) -> None:
        self.calls += 1
        if self.fails_from is not None and self.calls >= self.fails_from:
            raise ConnectionError("the server is gone\nand more")
        self.names.append(record.name)


def test_every_lane_of_a_pack_is_logged(tmp_path):
    session = Memory()
    tracker = Tracker(session, STUDY.label, tmp_path)
    tracker.on_pack_end([fakes.result(trial) for trial in STUDY.trials])
    tracker.close()
    assert session.names == [f"lokr r={r} lr=0.001 seed={seed}" for r in (4, 8) for seed in (0, 1)]
    assert (tracker.logged, tracker.lost) == (4, 0)


def test_a_failure_is_one_warning_and_no_further_try(tmp_path, caplog):
    session = Memory(fails_from=2)
    tracker = Tracker(session, STUDY.label, tmp_path)
    with caplog.at_level(logging.WARNING):
        tracker.on_pack_end([fakes.result(trial) for trial in STUDY.trials])
        tracker.close()
    assert (tracker.logged, tracker.lost, session.calls) == (1, 3, 2)
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert warning == "W&B failed, nothing more is logged: ConnectionError: the server is gone"


class Ears(Silent):
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_plan(self, packs):
        self.heard.append(packs)

    def on_start(self, pack):
        self.heard.append(pack)

    def on_step(self, done, total, loss):
        self.heard.append((done, total, loss))

    def on_pack_end(self, results):
        self.heard.append(results)


def test_several_listeners_hear_the_same():
    one, two = Ears(), Ears()
    both = Several([one, two])
    both.on_plan("packs")
    both.on_start("pack")
    both.on_step(1, 2, 0.5)
    both.on_pack_end("results")
    assert one.heard == two.heard == ["packs", "pack", (1, 2, 0.5), "results"]


def test_without_wandb_a_run_that_asks_for_it_is_one_line_before_training(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    ran = call("run", "small", "--wandb", "offline")
    assert ran.exit_code == 1
    assert ran.stderr.startswith("error: --wandb offline needs a package that is not installed: ")
    assert ran.stderr.endswith('pip install "lokr-bench[wandb]"\n')
    assert ran.stderr.count("\n") == 1
    assert train.train_pack.packs == []


def test_a_run_that_does_not_ask_for_wandb_does_not_need_it(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    ran = call("run", "small")
    assert ran.exit_code == 0
    assert "W&B" not in ran.output


@pytest.mark.parametrize("mode", ["dryrun", "Online"])
def test_a_mode_that_is_none_is_a_usage_error(mode, call, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert call("run", "small").exit_code == 2


def test_to_log_nothing_is_an_error(call):
    ran = call("log", "small", "--wandb", "disabled")
    assert ran.exit_code == 1
    assert "--wandb disabled: expected offline or online" in ran.stderr


def test_a_run_leaves_one_offline_run_a_trial(call, tmp_path):
    pytest.importorskip("wandb")
    ran = call("run", "small", "--wandb", "offline", "--wandb-project", "mine")
    assert ran.exit_code == 0, ran.stderr
    assert "W&B: 4 runs in wandb\nUpload: wandb sync wandb/offline-run-*-small-*" in ran.stdout
    found = runs(tmp_path / "wandb")
    assert set(found) == {f"small-{trial.id}" for trial in STUDY.trials}
    for trial in STUDY.trials:
        run = found[f"small-{trial.id}"]
        assert Trial.from_dict({name: run.config[name] for name in trial.to_dict()}) == trial
        assert run.config["provenance"]["device"] == "cpu"
        assert run.head["project"] == "mine"
        assert (run.head["run_group"], run.head["job_type"]) == ("small", "lokr")
        assert run.curve("train/loss") == {1: 0.7}
        assert run.curve("selection/accuracy") == {1: 0.5 + trial.seed / 10}
        assert run.summary["score"] == 0.5 + trial.seed / 10
        assert run.summary["parameters/trainable"] == 12
        assert run.whole["state"] == "finished"


def test_finished_results_are_logged_later_with_their_pictures(call, tmp_path):
    pytest.importorskip("wandb")
    from PIL import Image

    store = Store(tmp_path / "results")
    store.prepare("small")
    store.write(fakes.result(TRIAL, history=HISTORY))
    store.write(
        fakes.result(STUDY.trials[0], status="error", message="bug", metrics=None, history=[])
    )
    folder = store.folder("small") / "pictures"
    folder.mkdir()
    for name in (f"{TRIAL.id}.samples", "openmoji-truth"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.webp")
    ran = call("log", "small")
    assert ran.exit_code == 0, ran.stderr
    assert "W&B: 2 runs in wandb" in ran.stdout

    found = runs(tmp_path / "wandb")
    run = found[f"small-{TRIAL.id}"]
    assert run.curve("train/loss") == {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6}
    assert run.curve("epoch") == {2: 1, 4: 2}
    for key in ("pictures/samples", "pictures/truth"):
        assert (run.folder / "files" / run.summary[key]["path"]).is_file()
    failed = found[f"small-{STUDY.trials[0].id}"]
    assert failed.whole["state"] == "failed"
    assert failed.summary["message"] == "bug"


def test_a_picture_that_cannot_be_read_names_its_trial(call, tmp_path):
    pytest.importorskip("wandb")
    store = Store(tmp_path / "results")
    store.prepare("small")
    store.write(fakes.result(TRIAL))
    store.write_pictures("small", {f"{TRIAL.id}.samples.webp": b"no picture"})
    ran = call("log", "small")
    assert ran.exit_code == 1
    assert f"W&B failed at {TRIAL.id}, 0 of 1 results are logged: " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_nothing_of_the_machine_or_its_user_is_in_the_files(call, tmp_path):
    pytest.importorskip("wandb")
    import getpass
    import socket

    call("run", "small", "--wandb", "offline", "--limit", "1")
    (run,) = runs(tmp_path / "wandb").values()
    (log,) = run.folder.glob("*.wandb")
    content = log.read_bytes()
    for private in (f'"{socket.gethostname()}"', str(tmp_path), str(Path(cli.__file__).parent)):
        assert private.encode() not in content
    assert not {"host", "email", "username"} & set(run.head)
    assert getpass.getuser() not in str(run.head)
    assert run.of("environment") == []
    assert not list((run.folder / "files").rglob("*")), "no requirements, code, diff or console"


def test_a_broken_wandb_loses_no_trial(call, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def init(**_: object) -> None:
        raise wandb.errors.CommError("unreachable")

    monkeypatch.setattr(wandb, "init", init)
    ran = call("run", "small", "--wandb", "offline")
    assert ran.exit_code == 0
    assert len(Store(tmp_path / "results").finished("small")) == 4
    assert ran.stderr.count("W&B failed") == 1
    assert "W&B: 4 not logged; later: python -m experiments log small" in ran.stdout


def test_online_without_an_account_is_one_line_before_training(call, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    ran = call("run", "small", "--wandb", "online")
    assert ran.exit_code == 1
    assert "--wandb online: no account is set up here; run `wandb login`" in ran.stderr
    assert train.train_pack.packs == []


def test_online_while_the_environment_says_offline_is_one_line(call, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ran = call("run", "small", "--wandb", "online")
    assert ran.exit_code == 1
    assert "--wandb online: $WANDB_MODE is 'offline'; unset it" in ran.stderr


def test_the_environment_alone_turns_it_on(call, monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "W&B: 1 run in wandb" in call("run", "small", "--limit", "1").stdout
