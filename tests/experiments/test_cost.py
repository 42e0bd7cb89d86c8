"""Solo cost: numbers that belong together, a GPU that must be idle, files that stay."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result as Ran
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from experiments import cli, provenance, studies, tasks
from experiments.cost import clock, command, energy, files, kept, measure, nvml, solo, table
from experiments.cost.inference import MERGED, latency, merged_adapter
from experiments.cost.records import KEYS, Records
from experiments.errors import BenchError
from experiments.methods import attach, generator_of
from experiments.store import Store
from experiments.study import Study, grid
from experiments.trial import METHODS, Trial

MakeTrial = Callable[..., Trial]
QUICK = measure.Settings(rounds=2, steps=2, answers=2, energy_seconds=1.0)
HERE = {
    "commit": "c0ffee",
    "dirty": False,
    "versions": {"torch": "2"},
    "threads": 1,
    "gpu": None,
    "cpu": "A Processor",
}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number or null of nested dicts and lists, with its path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, f"{path}.{key}")
    else:
        yield path.removeprefix("."), value


# -- measuring ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_finite_numbers_that_belong_together(
    trial: MakeTrial, glue: str, method: str
):
    measured = measure.measure(trial(method=method), "cpu", glue, QUICK)
    numbers = dict(leaves({k: v for k, v in measured.items() if k != "provenance"}))
    for path, value in numbers.items():
        if isinstance(value, int | float):
            assert math.isfinite(value), path
            # A head alone has no adapter, and all weights have none either.
            assert value > 0 or path == "parameters.adapter", path
    for path, value in numbers.items():
        if path.endswith("p50_ms"):
            assert value <= numbers[path.replace("p50", "p95")], path
    step, batch = measured["step"]["eager"], measured["batch"]
    assert {part["samples"] for part in step["parts"].values()} == {step["samples"]} == {4}
    rows = batch["rows"] * batch["batches"]
    assert step["tokens_per_second"] / step["examples_per_second"] == pytest.approx(
        batch["tokens"] / rows
    )
    assert step["to_frozen"]["q25"] <= step["to_frozen"]["median"] <= step["to_frozen"]["q75"]
    assert (measured["inference"]["single"]["merged"] is None) == (method not in MERGED)
    assert measured["inference"]["single"]["rows"] == 1
    assert measured["inference"]["batch"]["rows"] == batch["rows"] == 4


def test_a_cpu_says_what_it_does_not_measure(trial: MakeTrial, glue: str):
    measured = measure.measure(trial(), "cpu", glue, QUICK)
    assert measured["step"]["captured"] is None
    assert measured["step"]["not_captured"] == "a CPU has no CUDA graphs"
    assert measured["energy"]["joules_per_1000_examples"] is None
    assert measured["energy"]["reason"] == "a CPU's energy is not read"
    assert measured["memory"]["eager"] is measured["memory"]["captured"] is None
    assert measured["provenance"]["gpu_alone"] is None


def test_batches_are_the_first_full_ones_of_the_trial(trial: MakeTrial, glue: str):
    one = trial(batch_size=32, seed=3)  # 48 rows: a full batch and a short one
    task = tasks.load(one, glue)
    batches = solo.first_batches(one, task, "cpu", steps=20)
    order = torch.randperm(48, generator=generator_of(one, "order"))
    assert batches.rows.tolist() == [order[:32].tolist()]
    assert batches.steps[0][0].length == task.train.lengths[order[:32]].max()


def test_a_task_of_less_than_a_batch_is_one_batch(trial: MakeTrial, glue: str):
    one = trial(batch_size=64)
    lonely = solo.Solo(one, tasks.load(one, glue), "cpu", steps=3)
    assert lonely.examples == 48
    assert lonely.tokens == int(lonely.task.train.lengths.sum())


def test_a_turn_leaves_the_batches_at_their_beginning(trial: MakeTrial, glue: str):
    one = trial()
    lonely = solo.Solo(one, tasks.load(one, glue), "cpu", steps=3)
    for turn in (lonely.eager_turn, lonely.captured_turn):
        turn()
        lonely.run(4)()  # as energy is read: round and round


def test_the_frozen_base_is_walked_back_and_stays_as_it_is(trial: MakeTrial, glue: str):
    one = trial(method="head")
    task = tasks.load(one, glue)
    head, base = (make(one, task, "cpu", 2) for make in (solo.Solo, solo.Solo.frozen_base))
    assert base.memory()["kept_for_backward_bytes"] > 10 * head.memory()["kept_for_backward_bytes"]
    base.warm_up()
    pretrained = dict(task.model().named_parameters())
    for name, parameter in base.model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, pretrained[name]), name


def test_measuring_outlasts_the_schedule(
    trial: MakeTrial, glue: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(solo, "STEPS", 12)
    one = solo.Solo(trial(), tasks.load(trial(), glue), "cpu", steps=3)
    for _ in range(4):
        one.warm_up()
        one.run(4)()
        one.captured_turn()
    assert one.step.done <= 12
    assert int(one.step.optimizer.done) == one.step.done


# -- timing -------------------------------------------------------------------------------------


def test_sides_take_turns():
    said: list[str] = []

    def turn(name: str) -> clock.Turn:
        return lambda: said.append(name) or [1.0]

    samples = clock.in_turns([turn("A"), turn("B")], 3)
    assert said == ["A", "B"] * 3
    assert samples == [[[1.0]] * 3] * 2


def test_the_ratio_pairs_equal_work():
    # Every step is twice its partner; the second round is slower throughout, which cancels.
    ours, base = [[2.0, 20.0, 8.0], [4.0, 40.0, 16.0]], [[1.0, 10.0, 4.0], [2.0, 20.0, 8.0]]
    assert clock.ratio(ours, base) == {"median": 2.0, "q25": 2.0, "q75": 2.0, "rounds": 2}
    wide = clock.ratio([[1.0], [2.0], [3.0]], [[1.0], [1.0], [1.0]])
    assert (wide["q25"], wide["median"], wide["q75"]) == (1.5, 2.0, 2.5)


def test_laps_are_one_an_action_in_order():
    done: list[int] = []
    found = clock.laps("cpu", [lambda i=i: done.append(i) for i in range(5)])
    assert done == [0, 1, 2, 3, 4]
    assert len(found) == 5
    assert clock.summary(list(map(float, range(101)))) == {
        "p50_ms": 50.0,
        "p95_ms": 95.0,
        "samples": 101,
    }


def side(milliseconds: float, not_captured: str | None) -> Any:
    """A Solo of one batch whose steps take so long, and half as long from a graph."""
    third = milliseconds / 3
    return SimpleNamespace(
        eager_turn=lambda: [third] * 6,
        captured_turn=lambda: [milliseconds / 2] * 2,
        not_captured=not_captured,
        examples=32,
        tokens=6400,
        batches=[None] * 2,
    )


def test_captured_steps_are_compared_with_captured_ones():
    ours, base = measure._steps(side(3.0, None), side(2.0, None), rounds=2)
    assert ours["captured"]["p50_ms"] == pytest.approx(1.5)
    assert ours["captured"]["to_frozen"]["median"] == pytest.approx(1.5)
    assert ours["captured"]["examples_per_second"] == pytest.approx(64 / 0.003)
    assert ours["captured"]["tokens_per_second"] == pytest.approx(6400 / 0.003)
    assert ours["eager"]["p50_ms"] == pytest.approx(3.0)
    assert ours["eager"]["samples"] == 4
    assert base["captured"]["p50_ms"] == pytest.approx(1.0)
    assert ours["not_captured"] is None


@pytest.mark.parametrize(("ours", "base"), [("why", None), (None, "why")])
def test_steps_that_cannot_be_captured_say_why(ours: str | None, base: str | None):
    found, _ = measure._steps(side(3.0, ours), side(2.0, base), rounds=2)
    assert found["captured"] is None
    assert found["not_captured"] == "why"
    assert found["eager"]["to_frozen"]["median"] == pytest.approx(1.5)


# -- memory -------------------------------------------------------------------------------------


def chain(*frozen: int) -> nn.Sequential:
    """Linear(4, 3), tanh, Linear(3, 2), some of them frozen."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    for place in frozen:
        model[place].requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("frozen", "numbers"),
    [
        ((), 5 * 4 + 5 * 3),  # x, and what tanh gave, which two operations keep
        ((0,), 5 * 3),  # the second layer's input
        ((2,), 5 * 4 + 5 * 3),
        ((0, 2), 0),
    ],
)
def test_bytes_kept_for_backward_equal_the_count_by_hand(frozen: tuple[int, ...], numbers: int):
    model, x = chain(*frozen), torch.randn(5, 4)
    assert kept.bytes_for_backward(model, lambda: model(x).sum()) == 4 * numbers


def test_a_view_keeps_its_whole_storage():
    model, x = nn.Linear(4, 3), torch.randn(5, 4)
    assert kept.bytes_for_backward(model, lambda: model(x[:2])) == 4 * x.numel()


# -- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MERGED)
def test_adapter_bytes_are_those_of_the_file(
    trial: MakeTrial, glue: str, tmp_path: Path, method: str
):
    one = trial(method=method)
    task = tasks.load(one, glue)
    model = attach([one], task).model
    found = files.sizes(one, model, task.heads)
    model.save_pretrained(str(tmp_path))
    assert found["adapter_bytes"] == (tmp_path / files.WEIGHTS).stat().st_size


def test_files_of_a_head_and_of_all_weights(trial: MakeTrial, glue: str):
    sizes = {}
    for method in ("head", "full"):
        one = trial(method=method)
        task = tasks.load(one, glue)
        adapted = attach([one], task)
        sizes[method] = files.sizes(one, adapted.model, task.heads), adapted.counts[0]
    (head, counts), (full, all_counts) = sizes.values()
    assert head["adapter_bytes"] is None
    assert 4 * counts["head"] < head["head_bytes"] < 4 * counts["head"] + 1024
    assert full["adapter_bytes"] > 4 * all_counts["base"]


# -- inference ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MERGED)
def test_merged_answers_are_the_adapted_ones_and_nothing_stays(
    trial: MakeTrial, glue: str, method: str
):
    one = trial(method=method)
    task = tasks.load(one, glue)
    model = attach([one], task).model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # an adapter that does something
                parameter.add_(0.1)
    batch = {n: t[:4] for n, t in task.dev.tensors.items() if n != "labels"}
    with torch.no_grad():
        adapted = model(**batch).logits
        plain = task.model().eval()(**batch).logits
        with merged_adapter(model):
            merged = model(**batch).logits
        restored = model(**batch).logits
    assert (adapted - plain).abs().max() > 1e-2
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored, adapted, rtol=1e-5, atol=1e-5)


def test_latency_takes_turns_between_adapted_and_merged():
    model = SimpleNamespace(merged=False)
    model.merge_adapter = lambda: setattr(model, "merged", True)
    model.unmerge_adapter = lambda: setattr(model, "merged", False)
    seen: list[bool] = []

    def predict() -> torch.Tensor:
        assert not torch.is_grad_enabled()
        seen.append(model.merged)
        return torch.zeros(1)

    found = latency("cpu", model, predict, calls=2, merges=True)
    turns = [flag for i, flag in enumerate(seen) if i == 0 or seen[i - 1] != flag]
    assert turns == [False, True] * 4
    assert found["adapted"]["samples"] == found["merged"]["samples"] == 8
    assert not model.merged


# -- the GPU's other users ----------------------------------------------------------------------


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml:
    """pynvml as far as we use it; a value of None is not supported by the device."""

    NVMLError = NVMLError
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(
        self,
        pids: list[int] | None = (1,),  # type: ignore[assignment]
        used: int | None = 1 << 29,
        percent: int | None = 0,
        millijoules: int | None = 0,
    ) -> None:
        self.pids, self.used, self.percent, self.energy = pids, used, percent, millijoules
        self.asked: list[str] = []

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.asked.append(uuid)
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        return self._supported(self.energy)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=self._supported(self.percent))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in self._supported(self.pids)]

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=self._supported(self.used))

    def _supported(self, value: Any) -> Any:
        if value is None:
            raise NVMLError("Not Supported")
        return value


def check(nvml_: FakeNvml, held: int = 0) -> dict[str, Any]:
    return nvml.check_alone(nvml.Gpu(nvml_, "handle"), held, sleep=lambda seconds: None)


def test_a_gpu_used_alone_is_accepted():
    # Our own context is the one process; torch's memory is ours too.
    seen = check(FakeNvml(pids=[123], used=5 << 30, percent=2), held=(5 << 30) - 100)
    assert seen == {"other_processes": 0, "other_bytes": 100, "idle_utilization": 2}


@pytest.mark.parametrize(
    ("fake", "sign"),
    [
        (FakeNvml(pids=[1, 2]), "1 other process"),
        (FakeNvml(pids=[1, 2, 3]), "2 other processes"),
        (FakeNvml(used=8 << 30), "8.0 GiB held by others"),
        (FakeNvml(percent=60), "60% utilized while this process does nothing"),
        # A container that hides processes, or their memory: what is left must do.
        (FakeNvml(pids=None, used=None, percent=60), "60% utilized"),
        (FakeNvml(pids=[], used=3 << 30, percent=None), "3.0 GiB held by others"),
    ],
)
def test_a_busy_gpu_is_refused(fake: FakeNvml, sign: str):
    with pytest.raises(BenchError, match=re.escape(sign)) as raised:
        check(fake)
    assert "\n" not in str(raised.value)


def test_a_gpu_that_shows_nothing_is_refused():
    with pytest.raises(BenchError, match="nothing says whether this GPU is used alone"):
        check(FakeNvml(pids=None, used=None, percent=None))


def test_one_busy_moment_in_the_window_is_enough():
    fake = FakeNvml()
    percents = iter([0, 0, 0, 40, 0, 0, 0, 0, 0, 0])

    def sleep(seconds: float) -> None:
        if seconds == nvml.PAUSE_SECONDS:
            fake.percent = next(percents)

    with pytest.raises(BenchError, match="40% utilized"):
        nvml.check_alone(nvml.Gpu(fake, "handle"), 0, sleep=sleep)


def test_the_gpu_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    properties = SimpleNamespace(uuid="0a-1b")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert isinstance(nvml.find("cuda"), nvml.Gpu)
    assert fake.asked == ["GPU-0a-1b"]


def test_without_nvml_memory_alone_is_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if not installed
    gpu = nvml.find("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 << 30, 80 << 30))
    with pytest.raises(BenchError, match=r"20\.0 GiB held by others"):
        nvml.check_alone(gpu, 0, sleep=lambda seconds: None)
    with pytest.raises(BenchError, match="nvidia-ml-py, which is not installed"):
        gpu.millijoules()


# -- energy -------------------------------------------------------------------------------------


class Board:
    """A GPU of 300 W whose counter moves every 100 ms, and the clock on the wall."""

    def __init__(self, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self.time = 0.0

    def run(self, steps: int) -> energy.Wait:
        """Steps take their time when they are waited for."""

        def wait() -> None:
            self.time += steps * self.step_seconds

        return wait

    def millijoules(self) -> int:
        return int(self.time * 10 + 1e-6) * 30_000

    def watch(self, seconds: float) -> list[energy.Reading]:
        return energy.watch(
            self.millijoules, self.run, self.step_seconds, seconds, now=lambda: self.time
        )


@pytest.mark.parametrize("step_seconds", [0.0005, 0.002, 0.03])
def test_energy_of_a_thousand_examples(step_seconds: float):
    found = energy.per_examples(Board(step_seconds).watch(5.0), examples=32)
    assert found["joules_per_1000_examples"] == pytest.approx(
        300 * step_seconds / 32 * 1000, rel=0.03
    )
    assert found["watts"] == pytest.approx(300, rel=0.03)
    assert found["resolution_joules"] == pytest.approx(30)
    assert found["updates"] > energy.UPDATES
    assert found["reason"] is None


def test_energy_of_too_short_a_window_is_not_given():
    found = energy.per_examples(Board(0.002).watch(0.5), examples=32)
    assert found["joules_per_1000_examples"] is None
    assert "give a longer --energy-seconds" in found["reason"]
    assert set(found) == set(energy.per_examples(Board(0.002).watch(5.0), 32))


def test_energy_without_a_counter_is_null_and_says_why(trial: MakeTrial, glue: str):
    one = solo.Solo(trial(), tasks.load(trial(), glue), "cpu", steps=1)
    gpu = nvml.Gpu(FakeNvml(millijoules=None), "handle")
    step = {"captured": None, "eager": {"p50_ms": 1.0}}
    found = measure._energy(one, step, 5.0, gpu)
    assert found["watts"] is None
    assert found["reason"] == "this GPU gives no energy counter: Not Supported"


# -- the command --------------------------------------------------------------------------------


@pytest.fixture
def study(base: str, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Four cells on the tiny base, two trials each; with r = 16 the factors are those of r = 8."""
    shared = {"task": "glue/rte", "base": base, "batch_size": 4, "max_length": 24}
    trials = [
        *grid({**shared, "r": 2}, seed=(0, 1)),
        *grid({**shared, "alpha": 8}, r=(8,), seed=(0, 1)),
        *grid({**shared, "alpha": 16}, r=(16,), seed=(0, 1)),
        *grid({**shared, "method": "lora", "r": 2}, seed=(0, 1)),
        *grid({**shared, "method": "head"}, seed=(0, 1)),
    ]
    small = Study(
        name="small",
        description="a study for tests",
        trials=tuple(trials),
        scientific=("method", "r", "alpha"),
    )
    monkeypatch.setattr(studies, "load", lambda name: small)
    monkeypatch.setattr(provenance, "collect", lambda device: {**HERE})
    monkeypatch.setenv("COLUMNS", "200")
    return small


@pytest.fixture
def call(tmp_path: Path, glue: str, study: Study) -> Callable[..., Ran]:
    def invoke(*arguments: str) -> Ran:
        fixed = ["--device", "cpu", "--data", glue, "--results", str(tmp_path)]
        return CliRunner().invoke(cli.app, ["cost", "small", *arguments, *fixed])

    return invoke


class FakeMeasure:
    """A ``measure`` that remembers its trials; ``before`` may raise."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.before: Callable[[Trial], None] = lambda trial: None

    def __call__(self, trial: Trial, device: str, data: str | None, settings: Any) -> dict:
        self.before(trial)
        self.trials.append(trial)
        return {**MEASURED, "provenance": {"started": "then"}}


SUMMARY = {"p50_ms": 2.0, "p95_ms": 3.0, "samples": 4}
SPEED = {**SUMMARY, "examples_per_second": 100.0, "tokens_per_second": 900.0}
RATIO = {"median": 1.5, "q25": 1.25, "q75": 1.75, "rounds": 2}
EAGER = {**SPEED, "parts": dict.fromkeys(solo.PARTS, SUMMARY), "to_frozen": RATIO}
ANSWER = {"rows": 1, "adapted": SUMMARY, "merged": None}
MEASURED: dict[str, Any] = {
    "settings": {},
    "parameters": {"trainable": 1234},
    "batch": {},
    "step": {"eager": EAGER, "captured": None, "not_captured": "a CPU has no CUDA graphs"},
    "frozen": {},
    "memory": {"kept_for_backward_bytes": 1 << 20, "eager": None, "captured": None},
    "energy": energy.unknown("a CPU's energy is not read"),
    "files": {"adapter_bytes": None, "head_bytes": 2048},
    "inference": {"single": ANSWER, "batch": ANSWER},
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> FakeMeasure:
    fake = FakeMeasure()
    monkeypatch.setattr(measure, "measure", fake)
    return fake


def records_under(folder: Path) -> dict[str, dict[str, Any]]:
    paths = (folder / "cost" / "small" / "a-processor").glob("*")
    return {path.stem: json.loads(path.read_text()) for path in paths}


def test_from_end_to_end(call: Callable[..., Ran], tmp_path: Path, study: Study):
    ran = call("--rounds", "2", "--steps", "1")
    assert ran.exit_code == 0, ran.output
    records = records_under(tmp_path)
    first = [study.trials[i].id for i in (0, 2, 6, 8)]  # r=16 is the function that r=8 is
    assert sorted(records) == sorted(first)
    for record in records.values():
        assert tuple(record) == KEYS
        assert Trial.from_dict(record["trial"]).id == record["id"]
        assert record["provenance"]["commit"] == "c0ffee"
        assert record["settings"]["rounds"] == 2
        assert record["cell"] in ran.output
    assert "a CPU: no energy, no CUDA graph" in ran.output


def test_help_names_the_options():
    ran = CliRunner().invoke(cli.app, ["cost", "--help"], env={"COLUMNS": "200"})
    assert ran.exit_code == 0
    for option in ("--cells", "--energy-seconds", "--again", "--rounds", "--steps"):
        assert option in ran.output


def test_the_results_of_trials_are_not_touched(
    call: Callable[..., Ran], measured: FakeMeasure, tmp_path: Path, study: Study
):
    assert call().exit_code == 0
    store = Store(tmp_path)
    assert store.finished("small") == set()
    assert store.find("") == []


def test_what_is_measured_is_not_measured_again(
    call: Callable[..., Ran], measured: FakeMeasure, monkeypatch: pytest.MonkeyPatch
):
    call("--cells", "1")
    ran = call()
    assert len(measured.trials) == 1 + 3
    assert "cells to measure on A Processor: 3; 1 measured before" in ran.output
    again = call()
    assert len(measured.trials) == 4
    assert "lora r=2" in again.output  # still shown
    call("--again")
    assert len(measured.trials) == 8


@pytest.mark.parametrize("changed", [{"commit": "beef"}, {"dirty": True}, {"threads": 2}])
def test_other_code_measures_anew(
    call: Callable[..., Ran],
    measured: FakeMeasure,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
):
    call()
    monkeypatch.setattr(provenance, "collect", lambda device: {**HERE, **changed})
    call()
    assert len(measured.trials) == 8


def test_other_hardware_has_files_of_its_own(
    call: Callable[..., Ran],
    measured: FakeMeasure,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    call()
    monkeypatch.setattr(provenance, "collect", lambda device: {**HERE, "gpu": "NVIDIA H100 80GB"})
    call()
    assert {path.name for path in (tmp_path / "cost" / "small").iterdir()} == {
        "a-processor",
        "nvidia-h100-80gb",
    }


def test_interrupted_keeps_what_is_done(
    call: Callable[..., Ran], measured: FakeMeasure, tmp_path: Path
):
    def stop(trial: Trial) -> None:
        if len(measured.trials) == 2:
            raise KeyboardInterrupt

    measured.before = stop
    ran = call()
    assert ran.exit_code == 130
    assert len(records_under(tmp_path)) == 2
    assert "Files:" in ran.output
    measured.before = lambda trial: None
    call()
    assert len(measured.trials) == 4


def test_a_cell_that_fails_takes_no_other_with_it(
    call: Callable[..., Ran], measured: FakeMeasure, tmp_path: Path
):
    def fail(trial: Trial) -> None:
        if trial.method == "lora":
            raise RuntimeError("CUDA out of memory. Tried to allocate\nmore")

    measured.before = fail
    ran = call()
    assert ran.exit_code == 1
    assert len(records_under(tmp_path)) == 3
    assert "not measured: lora r=2 alpha=8: RuntimeError: CUDA out of memory." in ran.output


def test_a_busy_gpu_ends_the_command(
    call: Callable[..., Ran], measured: FakeMeasure, tmp_path: Path
):
    def refuse(trial: Trial) -> None:
        raise BenchError("the GPU is busy (1 other process)")

    measured.before = refuse
    ran = call()
    assert ran.exit_code == 1
    assert "error: the GPU is busy" in ran.output
    assert records_under(tmp_path) == {}


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (None, ["lokr r=2 alpha=8", "lokr r=8 alpha=8", "lora r=2 alpha=8", "head"]),
        ("2", ["lokr r=2 alpha=8", "lokr r=8 alpha=8"]),
        ("r=2", ["lokr r=2 alpha=8", "lora r=2 alpha=8"]),
    ],
)
def test_cells_are_picked_by_number_or_label(study: Study, cells: str | None, labels: list[str]):
    picked = command.pick(study, cells)
    assert list(picked) == labels
    assert all(trial.seed == 0 for trial in picked.values())


@pytest.mark.parametrize("cells", ["0", "r=99"])
def test_no_cell_is_an_error_that_lists_them(study: Study, cells: str):
    with pytest.raises(BenchError, match=rf"--cells '{cells}': .*'lora r=2 alpha=8', 'head'"):
        command.pick(study, cells)


def test_a_damaged_file_is_named(call: Callable[..., Ran], measured: FakeMeasure, tmp_path: Path):
    call("--cells", "1")
    (path,) = (tmp_path / "cost" / "small" / "a-processor").glob("*.json")
    path.write_text("{")
    ran = call()
    assert ran.exit_code == 1
    assert f"{path.name} is no measurement" in ran.output.replace("\n", "")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, study: Study):
    (tmp_path / "cost").write_text("in the way")
    records = Records(tmp_path, "small", HERE)
    record = {**dict.fromkeys(KEYS), "id": study.trials[0].id}
    with pytest.raises(BenchError, match="cannot write"):
        records.write(record)


def test_the_table_shows_captured_steps_where_there_are_any():
    captured = {**SPEED, "p50_ms": 0.125, "to_frozen": {**RATIO, "median": 1.11}}
    gpu = {
        **MEASURED,
        "cell": "lokr r=4",
        "step": {"eager": EAGER, "captured": captured, "not_captured": None},
        "memory": {
            "kept_for_backward_bytes": 3 << 20,
            "eager": {"allocated_bytes": 77 << 20, "reserved_bytes": 99 << 20},
            "captured": None,
        },
        "energy": {**MEASURED["energy"], "joules_per_1000_examples": 12.345, "reason": None},
        "files": {"adapter_bytes": 10240, "head_bytes": 1},
    }
    console = Console(width=200)
    with console.capture() as said:
        table.show(console, [gpu, {**MEASURED, "cell": "head"}])
    text = said.get()
    for shown in (
        "0.125",
        "1.11",
        "1.25-1.75",
        "77",
        "12.35",
        "10.0",
        "where it could be captured",
    ):
        assert shown in text
    assert "no energy: a CPU's energy is not read" in text


def test_settings_follow_the_device_unless_given():
    assert measure.Settings.of("cuda", None, None, 5.0) == measure.Settings(10, 20, 25, 5.0)
    assert measure.Settings.of("cpu", 3, None, 5.0) == replace(
        measure.Settings.of("cpu", None, None, 5.0), rounds=3
    )
