"""The command line as a user meets it, its faults included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import Result as Ran
from typer.testing import CliRunner

from experiments import cli, sizes, studies, train
from experiments.store import Store
from experiments.study import Study, grid
from experiments.trial import Trial
from tests.experiments import fakes

ROOT = Path(__file__).parents[2]
# Eight trials: r = 16 and r = 32 are one cell here, so six of them run.
SMALL = Study(
    name="small",
    description="a study for tests",
    trials=tuple(
        trial
        for r in (4, 16, 32)
        for trial in grid({"task": "glue/rte", "r": r, "alpha": r}, seed=(0, 1))
    )
    + tuple(grid({"task": "glue/rte", "method": "head"}, seed=(0, 1))),
    scientific=("method", "r", "alpha"),
)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> fakes.Trainer:
    """The command line knows one study, and trains nothing."""
    trainer = fakes.Trainer()
    monkeypatch.setattr(studies, "names", lambda: ["small"])
    monkeypatch.setattr(studies, "load", lambda name: SMALL)
    monkeypatch.setattr(sizes, "layers_of", fakes.layers_of)
    monkeypatch.setattr(sizes, "rows_of", fakes.rows_of)
    monkeypatch.setattr(sizes, "parameters_of", fakes.parameters_of)
    monkeypatch.setattr(train, "train_pack", trainer)
    monkeypatch.setenv("COLUMNS", "200")
    return trainer


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Ran]:
    """Call the command line with results under a folder of the test's own."""

    def invoke(command: str, *arguments: str) -> Ran:
        results = ["--results", str(tmp_path / "results")]
        return CliRunner().invoke(cli.app, [command, *arguments, *results])

    return invoke


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def raising(error: BaseException) -> Callable[[Sequence[Trial]], None]:
    def before(trials: Sequence[Trial]) -> None:
        raise error

    return before


def test_help_says_where_to_start():
    ran = CliRunner().invoke(cli.app, ["--help"])
    assert ran.exit_code == 0
    for word in ("run", "list", "status", "show", "quickstart"):
        assert word in ran.stdout


@pytest.mark.parametrize("command", ["run", "list", "status", "show"])
def test_every_command_has_help(command):
    ran = CliRunner().invoke(cli.app, [command, "--help"])
    assert ran.exit_code == 0
    assert "--results" in ran.stdout


def test_an_unknown_kernel_path_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "list", "quickstart"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "LOKR_KERNEL": "foo"},
    )
    assert done.returncode == 1
    expected = "error: LOKR_KERNEL='foo': expected one of auto, torch, triton"
    assert done.stderr.strip() == expected


def test_help_imports_no_torch():
    script = "import sys, experiments.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_run_trains_every_cell_once_and_a_second_run_trains_nothing(trainer, call, store):
    ran = call("run", "small")
    assert ran.exit_code == 0, ran.stderr
    assert trainer.sizes == [2, 2, 2]
    assert len(store.load("small")) == 6
    assert "6 to run in 3 packs" in ran.stdout
    assert "2 more are collapsed" in ran.stdout

    again = call("run", "small")
    assert again.exit_code == 0
    assert len(trainer.packs) == 3
    assert "Nothing to run: all 6 trials of small are finished." in again.stdout


def test_without_a_terminal_a_finished_pack_is_a_line(trainer, call):
    lines = call("run", "small").stdout.splitlines()
    assert lines[1].startswith("[2/6] lokr r=4 alpha=4 | 2 lanes | ")
    assert "2 ok, accuracy 0.500 to 0.600 | about " in lines[1]
    assert lines[3].startswith("[6/6] head | 2 lanes | ")
    assert "left" not in lines[3]


def test_results_carry_their_provenance(trainer, call, store):
    call("run", "small", "--device", "cpu", "--lanes", "3")
    for result in store.load("small").values():
        assert result.provenance["device"] == "cpu"
        assert result.provenance["versions"]["torch"]
        assert result.cost["lanes"] <= 3


def test_a_failed_trial_is_exit_1_and_runs_again(trainer, call, store):
    trainer.before = raising(ValueError("bug"))
    ran = call("run", "small")
    assert ran.exit_code == 1
    assert "ValueError: bug" in ran.stdout, "the table of trials that are not ok"
    assert "Traceback" in ran.stderr
    assert {result.status for result in store.load("small").values()} == {"error"}

    trainer.before = lambda trials: None
    assert call("run", "small").exit_code == 0
    assert {result.status for result in store.load("small").values()} == {"ok"}


def test_a_trial_that_does_not_fit_is_a_row_and_no_failure(trainer, call):
    trainer.before = raising(MemoryError("full"))
    ran = call("run", "small")
    assert ran.exit_code == 0
    assert "out_of_memory       6  runs again" in ran.stdout


def test_interrupted_is_exit_130_with_a_summary(trainer, call):
    def interrupt_the_second(trials: Sequence[Trial]) -> None:
        if len(trainer.packs) == 2:
            raise KeyboardInterrupt

    trainer.before = interrupt_the_second
    ran = call("run", "small")
    assert ran.exit_code == 130
    assert "interrupted" in ran.stderr
    assert "not run yet         4" in ran.stdout


def test_limit_takes_the_first_trials_of_the_study(trainer, call, store):
    call("run", "small", "--limit", "1")
    call("run", "small", "--limit", "1")
    assert list(store.load("small")) == [SMALL.trials[0].id]


def test_a_field_set_for_all_is_another_study_beside_it(trainer, call, store):
    call("run", "small")
    ran = call("run", "small", "--set", "epochs=7", "--set", "target_modules=query,key")
    assert ran.exit_code == 0
    found = [result.trial for result in store.load("small").values()]
    assert len(found) == 12
    changed = [trial for trial in found if trial.epochs == 7]
    assert {trial.target_modules for trial in changed} == {("query", "key")}


def test_a_dry_run_shows_the_plan_and_writes_nothing(trainer, call, store):
    ran = call("run", "small", "--dry-run")
    assert ran.exit_code == 0
    assert "6 to run in 3 packs" in ran.stdout
    assert trainer.packs == []
    assert not store.root.exists()


def test_list_shows_every_study(trainer, call):
    ran = call("list")
    assert "small" in ran.stdout
    assert "a study for tests" in ran.stdout


def test_list_shows_cells_collapses_parameters_and_work(trainer, call):
    out = call("list", "small", "--lanes", "2").stdout
    parameters = fakes.parameters_of(SMALL.trials[0])
    assert f"{parameters:,}" in out
    assert "r=32, alpha=32 and r=16, alpha=16 give the same factors" in out
    assert "w2 is full in every layer from r=12" in out
    assert "8 trials, 2 of them collapsed; 6 to run in 3 packs: 36 steps, 2,304 rows" in out
    call("run", "small", "--limit", "2")
    assert "4 to run" in call("list", "small").stdout


def test_list_says_how_wide_the_packs_are(trainer, call):
    out = call("list", "small", "--limit", "3", "--lanes", "2").stdout
    assert "packs: 1 of 2 lanes, 1 of 1 lane; a run makes them narrower" in out
    call("run", "small", "--limit", "3")
    assert "narrower" not in call("list", "small", "--limit", "3").stdout


def test_what_took_longest_in_an_earlier_run_comes_first(trainer, call, store):
    call("run", "small", "--device", "cpu", "--limit", "2")
    here = store.load("small")[SMALL.trials[0].id].provenance
    cost = {"seconds": 1e6, "pack_seconds": 1e6, "lanes": 1, "peak_bytes": None}
    store.write(fakes.result(SMALL.trials[-1], provenance=here, cost=cost))  # a head
    call("run", "small", "--device", "cpu", "--lanes", "1")
    methods = [pack[0].method for pack in trainer.packs[1:]]
    assert methods == ["head", "lokr", "lokr"]


def test_list_works_where_the_data_is_out_of_reach(trainer, call, monkeypatch):
    def rows_of(trial: Trial, data: str | None) -> int:
        raise cli.BenchError("no data here")

    monkeypatch.setattr(sizes, "rows_of", rows_of)
    ran = call("list", "small")
    assert ran.exit_code == 0
    assert "how much is to run is unknown: no data here" in ran.stdout


@pytest.mark.parametrize("flags", [[], ["--compile"]])
def test_compile_reaches_the_training_and_the_provenance(flags, call, trainer, store):
    assert call("run", "small", *flags).exit_code == 0
    assert set(trainer.compiled) == {bool(flags)}
    assert {r.provenance["compiled"] for r in store.load("small").values()} == {bool(flags)}


def test_status_counts_what_is_where(trainer, call, store):
    call("run", "small")
    store.write(fakes.result(SMALL.trials[0], status="diverged", message="the loss is nan"))
    store.write(fakes.result(SMALL.trials[1], status="error", message="KeyError: 'x'"))
    (store.folder("small") / f"{SMALL.trials[2].id}.json").unlink()
    out = call("status", "small").stdout
    assert "ok                  3" in out
    assert "diverged            1" in out
    assert "error               1  runs again" in out
    assert "not run yet         1" in out
    assert f"{SMALL.trials[1].id}  error" in out
    assert "lokr r=4 alpha=4 lr=0.001 seed=1" in out


def test_show_has_all_of_one_result(trainer, call):
    call("run", "small")
    trial = SMALL.trials[0]
    ran = call("show", trial.id[:7])
    assert ran.exit_code == 0
    for text in (trial.id, "glue/rte", "full_dev_best", "adapter", "epoch  step", "versions.torch"):
        assert text in ran.stdout


@pytest.mark.parametrize(
    ("prefix", "message"), [("zz", "no result under"), ("", "starts several ids: small/")]
)
def test_show_needs_one_id(trainer, call, prefix, message):
    call("run", "small")
    ran = call("show", prefix)
    assert ran.exit_code == 1
    assert message in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "rr=4"], "--set: no field 'rr'"),
        (["--set", "epoch=4"], "did you mean 'epochs'?"),
        (["--set", "r"], "--set 'r': expected field=value"),
        (["--set", "r=0"], "--set r=0: expected an integer >= 1"),
        (["--set", "learning_rate=fast"], "learning_rate='fast': expected a finite number > 0"),
    ],
)
def test_a_wrong_setting_is_one_line(trainer, call, arguments, message):
    ran = call("run", "small", *arguments)
    assert ran.exit_code == 1
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--lanes", "0"], ["--limit", "0"], ["--data", "/nowhere"]])
def test_a_wrong_option_is_a_usage_error(trainer, call, arguments):
    assert call("run", "small", *arguments).exit_code == 2


def test_a_results_folder_that_cannot_be_written_is_one_line_before_training(trainer, call, store):
    store.root.write_text("a file is in the way")
    ran = call("run", "small")
    assert ran.exit_code == 1
    assert f"error: cannot write {store.folder('small')}: Not a directory" in ran.stderr
    assert trainer.packs == []


def test_a_gpu_that_is_not_there_is_one_line(trainer, call, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = call("run", "small", "--device", "cuda")
    assert ran.exit_code == 1
    assert "--device cuda: torch sees no GPU here" in ran.stderr


def test_a_truncated_result_is_set_aside_and_its_trial_runs_again(trainer, call, store):
    call("run", "small")
    path = store.folder("small") / f"{SMALL.trials[0].id}.json"
    path.write_bytes(path.read_bytes()[:100])
    ran = call("run", "small")
    assert ran.exit_code == 0
    assert [pack[0].id for pack in trainer.packs[3:]] == [SMALL.trials[0].id]
    assert path.with_name(f"{path.name}.damaged").exists()
    assert f"{path.name}.damaged" in ran.stderr.replace("\n", "")


class SlowRun:
    """``run`` in a process of its own that is slow in its second pack."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "results")
        self.log = folder / "started"

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "tests/experiments/slow_run.py", "run", "slow"]
        options = ["--lanes", "4", "--device", "cpu"]
        return subprocess.Popen(
            [*command, *options, "--results", str(self.store.root)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "STARTED": str(self.log)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def started(self) -> list[list[str]]:
        """Ids of each pack that began."""
        return [line.split() for line in self.log.read_text().splitlines()]

    def wait_until_inside_the_second_pack(self) -> None:
        deadline = time.monotonic() + 60
        while not (self.log.exists() and len(self.started) >= 2):
            assert time.monotonic() < deadline, "the run never came to its second pack"
            time.sleep(0.01)

    def contents(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.store.folder("slow").glob("*.json")}


def test_killed_in_the_middle_of_a_pack_nothing_finished_is_lost_or_repeated(tmp_path):
    slow = SlowRun(tmp_path)
    process = slow.start()
    slow.wait_until_inside_the_second_pack()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = slow.contents()
    first, killed = slow.started
    assert set(kept) == {f"{trial_id}.json" for trial_id in first}

    resumed = slow.start()
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    again = [trial_id for pack in slow.started[2:] for trial_id in pack]
    assert set(first).isdisjoint(again), "nothing finished is repeated"
    assert set(killed) <= set(again), "what was in training runs again"
    after = slow.contents()
    assert {name: after[name] for name in kept} == kept, "nothing finished is touched"
    assert set(after) == {f"{trial_id}.json" for trial_id in [*first, *again]}
    assert all(json.loads(content)["status"] == "ok" for content in after.values())


def test_ctrl_c_exits_130_with_what_is_done_saved(tmp_path):
    slow = SlowRun(tmp_path)
    process = slow.start()
    slow.wait_until_inside_the_second_pack()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "ok                  4" in out
    assert set(slow.contents()) == {f"{trial_id}.json" for trial_id in slow.started[0]}


def test_glue_on_a_tiny_base_from_end_to_end(base, glue, call, store):
    sets = [f"base={base}", "precision=fp32", "epochs=1", "train_size=16", "max_length=16"]
    options = [word for assignment in sets for word in ("--set", assignment)]
    arguments = ("glue-rte", "--data", glue, "--limit", "4", *options)
    ran = call("run", *arguments, "--device", "cpu")
    assert ran.exit_code == 0, ran.stderr
    results = store.load("glue-rte").values()
    assert [result.status for result in results] == ["ok"] * 4
    for result in results:
        assert result.parameters["trainable"] == sizes.parameters_of(result.trial)
        assert result.provenance["data"]["train"] == 16
    assert "Nothing to run" in call("run", *arguments, "--device", "cpu").stdout


def test_a_family_looks_at_task_and_data_before_anything_is_loaded(call, tmp_path):
    ran = call("run", "dreambooth-knobs", "--device", "cpu")
    assert ran.exit_code == 1
    assert "dreambooth: --data is missing" in ran.output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("shard", ["3/2", "0/1", "1", "a/b", "1/0"])
def test_a_shard_that_cannot_be_is_one_line(call, shard):
    ran = call("run", "quickstart", "--shard", shard)
    assert ran.exit_code == 1
    assert f"--shard {shard!r}: expected I/N" in ran.output
