"""What a run promises when packs fail: no trial is lost, none takes another with it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments import memory
from experiments.errors import BenchError
from experiments.executors import InProcess, is_out_of_memory
from experiments.listener import Silent
from experiments.outcome import Outcome
from experiments.plan import Pack, plan
from experiments.store import Result, Store, StoreError
from experiments.trial import Trial
from tests.experiments.fakes import Device, Trainer, layers_of, outcome, rows_of

TRIALS = tuple(Trial(task="glue/rte", seed=seed) for seed in range(8))
CUDA_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Recorder(Silent):
    """Remembers what a listener is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def on_plan(self, packs: Sequence[Pack]) -> None:
        self.events.append(("plan", len(packs)))

    def on_start(self, pack: Pack) -> None:
        self.events.append(("start", pack.lanes))

    def on_step(self, done: int, total: int, loss: float) -> None:
        self.events.append(("step", done))

    def on_pack_end(self, results: Sequence[Result]) -> None:
        self.events.append(("end", len(results)))


def packs_of(trials: Sequence[Trial], lanes: int = 8) -> tuple[Pack, ...]:
    return plan(trials, (), lanes, layers_of=layers_of, rows_of=rows_of).packs


@pytest.fixture(autouse=True, scope="module")
def narrow_probes():
    """Probes of 4 lanes: the packs here are small."""
    with patch.object(memory, "PROBE_LANES", 4):
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    made.prepare("small")
    return made


@pytest.fixture
def execute(store: Store) -> Callable[..., list[Result]]:
    """Run packs with a trainer; results go to ``store``."""

    def run(train_pack, packs=None, listener=None, meter=None) -> list[Result]:
        executor = InProcess(
            train_pack,
            store,
            study="small",
            device="cpu",
            data=None,
            provenance={"commit": "abc", "device": "cpu"},
            listener=listener or Silent(),
            meter=meter,
        )
        return executor.run(packs_of(TRIALS) if packs is None else packs)

    return run


def statuses(store: Store) -> Counter[str]:
    return Counter(result.status for result in store.load("small").values())


def fails_above(lanes: int, error: Exception) -> Trainer:
    def before(trials: Sequence[Trial]) -> None:
        if len(trials) > lanes:
            raise error

    return Trainer(before)


def test_every_trial_has_its_row(execute, store):
    results = execute(Trainer())
    assert {result.id for result in results} == {trial.id for trial in TRIALS}
    assert store.load("small") == {result.id: result for result in results}


def test_a_row_says_where_it_comes_from(execute):
    result = execute(Trainer())[0]
    assert result.cost["lanes"] == 8
    assert result.cost["seconds"] == pytest.approx(result.cost["pack_seconds"] / 8)
    assert result.provenance["commit"] == "abc"
    assert result.provenance["base"] == {"name": "minilm"}
    assert result.provenance["pack"] == [trial.id for trial in TRIALS]
    assert result.provenance["started"] <= result.provenance["finished"]
    assert result.provenance["started"].endswith("+00:00")


def test_a_pack_is_on_disk_before_the_next_one_starts(execute, store):
    seen: list[int] = []
    execute(Trainer(lambda trials: seen.append(len(store.load("small")))), packs_of(TRIALS, 3))
    assert seen == [0, 3, 6]


def test_listeners_are_told_of_starts_steps_and_ends(execute):
    recorder = Recorder()
    execute(Trainer(), packs_of(TRIALS, 4), recorder)
    assert recorder.events == [("start", 4), ("step", 1), ("end", 4)] * 2


def test_out_of_memory_halves_the_pack_and_goes_on(execute, store, caplog):
    trainer = fails_above(2, CUDA_FULL)
    results = execute(trainer)
    assert trainer.sizes == [8, 4, 2, 2, 2, 2]
    assert [result.id for result in results] == [trial.id for trial in TRIALS]
    assert statuses(store) == {"ok": 8}
    assert "8 lanes do not fit into memory: going on with 4" in caplog.text


def test_what_did_not_fit_is_not_tried_again_in_the_same_shape(execute):
    more = [Trial(task="glue/rte", seed=seed) for seed in range(20)]
    other = [Trial(task="glue/cola", seed=seed) for seed in range(3)]
    trainer = fails_above(3, CUDA_FULL)
    execute(trainer, [*packs_of(more, 7), *packs_of(other)])
    assert trainer.sizes == [7, 4, 3, *[2] * 10]  # two are known to fit; the other task is new


def test_a_single_trial_that_does_not_fit_is_a_row(execute, store):
    (result, *_) = execute(fails_above(0, CUDA_FULL))
    assert result.status == "out_of_memory"
    assert result.message.startswith("OutOfMemoryError: CUDA out of memory")
    assert result.metrics is None
    assert result.parameters is None
    assert statuses(store) == {"out_of_memory": 8}


def test_a_bad_trial_takes_no_other_with_it(execute, store, caplog):
    bad = TRIALS[3]

    def before(trials: Sequence[Trial]) -> None:
        if bad in trials:
            raise KeyError("lost")

    trainer = Trainer(before)
    execute(trainer, packs_of(TRIALS, 4))
    assert trainer.sizes == [4, 4, 1, 1, 1, 1]
    assert statuses(store) == {"ok": 7, "error": 1}
    assert store.load("small")[bad.id].message == "KeyError: 'lost'"
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None, "the traceback is shown"
    assert bad.id in record.getMessage()


@given(
    bad=st.sets(st.sampled_from(TRIALS)),
    room=st.integers(1, 8),
    lanes=st.integers(1, 8),
)
def test_every_trial_ends_with_one_row_whatever_fails(tmp_path_factory, bad, room, lanes):
    def before(trials: Sequence[Trial]) -> None:
        if len(trials) > room:
            raise CUDA_FULL
        if not bad.isdisjoint(trials):
            raise ValueError("bad")

    store = Store(tmp_path_factory.mktemp("results"))
    store.prepare("small")
    executor = InProcess(
        Trainer(before),
        store,
        study="small",
        device="cpu",
        data=None,
        provenance={},
        listener=Silent(),
    )
    with patch.object(memory, "release"):  # slow, and not the subject
        results = executor.run(packs_of(TRIALS, lanes))
    assert sorted(r.id for r in results) == sorted(t.id for t in TRIALS)
    assert {r.trial for r in results if r.status == "error"} == bad
    assert {r.trial for r in results if r.status == "ok"} == set(TRIALS) - bad
    assert len(store.load("small")) == 8


def many(count: int, **fields: object) -> list[Trial]:
    return [Trial(**{"task": "glue/rte", "seed": seed, **fields}) for seed in range(count)]


def run_on(device: Device, packs: Sequence[Pack], store: Store, **options: object) -> list[Result]:
    """Run packs on a simulated device."""
    settings = {"study": "small", "device": "cuda", "data": None, "provenance": {}}
    made = {"listener": Silent(), "meter": device, **settings, **options}
    with patch.object(memory, "release"):  # slow, and nothing is held
        return InProcess(device.trainer, store, **made).run(packs)


def test_packs_are_as_wide_as_the_measured_memory_allows(store):
    device = Device(size=100, fixed=20, per_lane=7)
    results = run_on(device, packs_of(many(40), 32), store)
    assert len(results) == 40
    assert device.trainer.sizes == [4, 1, *[10] * 4], "11 fit: two probes, then even packs"
    assert device.started == 6


def test_one_probe_settles_it_where_memory_is_ample(store):
    device = Device(size=1000, fixed=20, per_lane=7)
    run_on(device, packs_of(many(40), 32), store)
    assert device.trainer.sizes == [4, 20, 20]


def test_few_lanes_are_not_probed(store):
    device = Device(size=3, per_lane=1)
    run_on(device, packs_of(many(4)), store)
    assert device.trainer.sizes == [4, 2, 2]


def test_kin_of_a_measured_kind_is_not_probed_where_there_is_room_to_spare(store):
    packs = packs_of([*many(8, r=4), *many(8, r=4, decompose_factor=4)])
    assert len(packs) == 2
    ample, scarce = Device(size=17), Device(size=15)
    run_on(ample, packs, store)
    assert ample.trainer.sizes == [4, 8, 8]
    run_on(scarce, packs, store)
    assert scarce.trainer.sizes == [4, 8, 4, 8]


def test_the_highest_ranks_are_probed(store):
    device = Device(size=1000)
    run_on(device, packs_of([Trial(task="glue/rte", r=r) for r in (9, 8, 7, 6, 5, 4)]), store)
    assert [trial.r for trial in device.trainer.packs[0]] == [6, 7, 8, 9]


def test_a_probe_that_does_not_fit_is_followed_by_a_narrower_one(store):
    device = Device(size=3, per_lane=1)
    run_on(device, packs_of(many(8)), store)
    assert device.trainer.sizes == [4, 1, *[2, 3, 3][::-1]]


def test_a_fault_in_a_probe_is_left_to_the_pack_and_its_trials(store, caplog):
    device = Device(size=100)
    bad = many(8)[7]

    def before(trials: Sequence[Trial]) -> None:
        if bad in trials:
            raise KeyError("lost")

    device.trainer.before = before
    run_on(device, packs_of(many(8)), store)
    assert device.trainer.sizes == [4, 1, 8, *[1] * 8]
    assert statuses(store) == {"ok": 7, "error": 1}


def test_what_ends_the_run_ends_it_in_a_probe_too(store):
    device = Device(size=100)
    device.trainer.before = lambda trials: (_ for _ in ()).throw(BenchError("no base"))
    with pytest.raises(BenchError, match="no base"):
        run_on(device, packs_of(many(8)), store)


def test_a_model_that_promised_too_much_is_corrected(store, caplog):
    # Twice as much as a probe of 4 or 1 lets expect, as if wide packs left gaps.
    device = Device(size=100, need=lambda lanes: 5 * lanes if lanes <= 4 else 10 * lanes)
    run_on(device, packs_of(many(64), 32), store)
    assert device.trainer.sizes[:4] == [4, 1, 16, 8], "16 fit by the model, not in fact"
    assert "16 lanes do not fit into memory: going on with 8" in caplog.text
    assert max(device.trainer.sizes[4:]) == 10, "what 8 took shows that 10 fit"
    assert statuses(store) == {"ok": 64}


def test_memory_that_others_take_narrows_the_packs_to_come(store):
    device = Device(size=40)

    def before(trials: Sequence[Trial]) -> None:
        fill(trials)
        if len(device.trainer.packs) == 2:
            device.size = 8

    fill = device.trainer.before
    device.trainer.before = before
    run_on(device, packs_of(many(32), 16), store)
    assert device.trainer.sizes == [4, 16, 8, 8]


def test_results_say_what_their_pack_took(store):
    device = Device(size=100, fixed=20, per_lane=7)
    results = run_on(device, packs_of(many(40), 32), store)
    assert {result.cost["peak_bytes"] for result in results} == {20 + 7 * 10}


def test_what_was_not_measured_is_null(execute, store):
    assert execute(Trainer())[0].cost["peak_bytes"] is None
    device = Device(size=0)
    run_on(device, packs_of(TRIALS, 1), store)
    assert {r.cost["peak_bytes"] for r in store.load("small").values()} == {None}
    assert statuses(store) == {"out_of_memory": 8}


@given(
    count=st.integers(1, 24),
    lanes=st.integers(1, 16),
    size=st.integers(0, 60),
    fixed=st.integers(0, 20),
    per_lane=st.integers(1, 8),
    surprise=st.integers(1, 3),
)
def test_any_memory_gives_every_trial_one_row_and_no_failure_twice(
    tmp_path_factory, count, lanes, size, fixed, per_lane, surprise
):
    def need(lanes: int) -> int:
        return fixed + lanes * per_lane * (1 if lanes <= 4 else surprise)

    device = Device(size, need=need)
    store = Store(tmp_path_factory.mktemp("results"))
    store.prepare("small")
    with patch.object(store, "write"):  # slow, and not the subject
        results = run_on(device, packs_of(many(count), lanes), store)
    assert sorted(r.trial.seed for r in results) == list(range(count))
    fits = need(1) <= size
    assert {r.status for r in results} == ({"ok"} if fits else {"out_of_memory"})
    failed = [n for n in device.trainer.sizes if n > 1 and need(n) > size]
    assert failed == sorted(set(failed), reverse=True), "each failure leads to narrower packs"


def test_listeners_hear_of_every_new_plan(execute):
    recorder = Recorder()
    execute(fails_above(4, CUDA_FULL), listener=recorder)
    assert recorder.events == [
        ("start", 8),
        ("plan", 1),  # it waits again,
        ("plan", 2),  # cut to what is known to fit
        *[("start", 4), ("step", 1), ("end", 4)] * 2,
    ]


def test_a_lane_that_diverged_is_kept_as_it_is(execute, store):
    def train_pack(trials, **_: object) -> list[Outcome]:
        return [outcome(t, status="diverged" if t.seed == 0 else "ok") for t in trials]

    execute(train_pack)
    assert statuses(store) == {"ok": 7, "diverged": 1}


def test_what_is_no_trials_fault_ends_the_run_without_a_row(execute, store):
    with pytest.raises(BenchError, match="no base"):
        execute(fails_above(0, BenchError("no base")))
    assert statuses(store) == {}


def test_interrupted_keeps_what_is_done(execute, store):
    def before(trials: Sequence[Trial]) -> None:
        if TRIALS[-1] in trials:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(Trainer(before), packs_of(TRIALS, 4))
    assert statuses(store) == {"ok": 4}


def test_a_disk_that_fills_up_is_one_clear_error_and_keeps_what_is_done(execute, store):
    writes: list[Result] = []
    write = store.write

    def full_after_four(result: Result) -> Path:
        if len(writes) == 4:
            raise StoreError("cannot write x: No space left on device")
        writes.append(result)
        return write(result)

    store.write = full_after_four
    with pytest.raises(StoreError, match="No space left"):
        execute(Trainer(), packs_of(TRIALS, 4))
    assert statuses(store) == {"ok": 4}


def test_a_loop_that_forgets_a_lane_is_a_bug(execute):
    with pytest.raises(ValueError, match="shorter"):
        execute(lambda trials, **_: [outcome(trials[0])])


def test_memory_that_really_runs_out_is_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (MemoryError(), True),
        (CUDA_FULL, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_memory_counts_as_memory(error, verdict):
    assert is_out_of_memory(error) is verdict
