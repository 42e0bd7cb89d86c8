"""The memory model keeps its bounds; what the GPU's counters say is asked of the right counter."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments import memory
from experiments.memory import (
    REGROWN,
    SHARE,
    CudaMeter,
    MemoryModel,
    Unmeasured,
    meter_of,
    probe,
)
from experiments.trial import Trial
from tests.experiments.fakes import Trainer

LANES = st.integers(1, 64)
BYTES = st.integers(1, 10**12)
PEAKS = st.dictionaries(LANES, BYTES, min_size=1, max_size=5)
TRIALS = [Trial(task="glue/rte", seed=seed) for seed in range(3)]


def model_of(peaks: dict[int, int]) -> MemoryModel:
    model = MemoryModel()
    for lanes, peak in peaks.items():
        model.observe("key", lanes, peak)
    return model


@given(PEAKS, BYTES, LANES)
def test_never_more_lanes_than_fit_by_the_model(peaks, budget, most):
    model = model_of(peaks)
    lanes = model.lanes("key", budget, most)
    assert 1 <= lanes <= most
    assert lanes == 1 or model.bytes("key", lanes) <= budget
    wider = range(lanes + 1, most + 1)
    assert all(model.bytes("key", n) > budget for n in wider), "and as many as fit"


@given(PEAKS)
def test_a_pack_that_was_seen_is_expected_to_need_what_it_needed(peaks):
    model = model_of(peaks)
    for lanes, peak in peaks.items():
        assert model.bytes("key", lanes) == pytest.approx(peak)


@given(PEAKS, LANES)
def test_more_lanes_need_no_more_than_their_multiple_of_the_widest_pack(peaks, lanes):
    widest = max(peaks)
    assume(lanes >= widest)
    assert model_of(peaks).bytes("key", lanes) <= peaks[widest] * lanes / widest * (1 + 1e-9)


@given(
    st.integers(1, 100),
    st.integers(1, 10**10),
    st.lists(LANES, min_size=2, max_size=5, unique=True),
    LANES,
)
def test_peaks_on_a_line_give_the_line(base, per_lane, seen, lanes):
    def line(n: int) -> int:
        return (base + n) * per_lane

    model = model_of({n: line(n) for n in seen})
    assert model.bytes("key", lanes) == pytest.approx(line(lanes))


def test_a_single_peak_is_all_the_lanes_doing_above_and_all_fixed_below():
    model = model_of({4: 400})
    assert [model.bytes("key", lanes) for lanes in (1, 4, 6)] == [400, 400, 600]


def test_a_peak_that_does_not_grow_promises_nothing_for_wider_packs():
    model = model_of({1: 200, 4: 200})  # the dev set's batch, say
    assert model.bytes("key", 8) == 400


def test_the_highest_peak_of_equal_packs_counts():
    model = model_of({2: 300})
    model.observe("key", 2, 200)
    assert model.bytes("key", 2) == 300


def test_nothing_is_expected_of_an_unknown_kind():
    model = model_of({4: 400})
    assert model.bytes("other", 4) is None
    assert model.lanes("other", 100, 16) == 16


def test_an_unknown_budget_bars_nothing():
    assert model_of({4: 400}).lanes("key", None, 16) == 16


@given(PEAKS, LANES, BYTES, LANES)
def test_after_a_failure_the_next_is_half_as_wide_or_less(peaks, failed, budget, most):
    model = model_of(peaks)
    model.fail("key", failed, budget)
    assert model.lanes("key", budget, most) <= -(-failed // 2)


@given(st.integers(2, 64), BYTES, LANES, BYTES)
def test_what_failed_is_not_tried_again_in_the_same_memory(failed, budget, seen, peak):
    model = MemoryModel()
    model.fail("key", failed, budget)
    model.observe("key", seen, peak)
    assert model.lanes("key", budget, 64) < failed


def test_a_pack_that_fits_is_evidence_for_wider_ones():
    model = MemoryModel()
    model.fail("key", 32, 1000)
    assert model.lanes("key", 1000, 32) == 16
    model.observe("key", 16, 600)
    assert model.lanes("key", 1000, 32) == 26  # 37.5 a lane


def test_what_failed_comes_back_when_there_is_clearly_more_memory():
    model = MemoryModel()
    model.fail("key", 8, 1000)
    model.observe("key", 4, 400)
    assert model.lanes("key", 1001, 8) == 7
    assert model.lanes("key", int(1000 * REGROWN), 8) == 8


def test_without_a_known_budget_a_failure_stands():
    model = MemoryModel()
    model.fail("key", 8, None)
    assert model.lanes("key", None, 64) == 4
    model.observe("key", 4, 1)
    assert model.lanes("key", None, 64) == 7


class Allocator:
    """``torch.cuda`` of a device on which another process holds 40 of 100 bytes."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.reserved = 20
        self.peak = 55

    def init(self) -> None:
        self.calls.append("init")

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return 100 - 40 - self.reserved, 100

    def memory_reserved(self, device: torch.device) -> int:
        return self.reserved

    def max_memory_reserved(self, device: torch.device) -> int:
        return self.peak

    def synchronize(self, device: torch.device) -> None:
        self.calls.append("synchronize")

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.calls.append("reset")

    def is_available(self) -> bool:
        return True

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    allocator = Allocator()
    monkeypatch.setattr(torch, "cuda", allocator)
    return allocator


def test_the_budget_is_a_share_of_what_others_leave_and_torchs_own_counts_as_left(cuda):
    assert CudaMeter("cuda").budget() == int(SHARE * 60)


def test_a_measurement_begins_with_an_empty_cache(cuda):
    meter = CudaMeter("cuda")
    meter.start()
    assert cuda.calls == ["init", "empty_cache", "reset"]
    assert meter.peak() == 55
    assert cuda.calls[3:] == ["synchronize"], "nothing runs when a probe drops its pack"


def test_torch_has_the_counters_that_the_meter_asks():
    for name in vars(Allocator):
        assert name.startswith("_") or callable(getattr(torch.cuda, name))


def test_a_gpu_is_measured_and_a_cpu_is_not(cuda):
    assert isinstance(meter_of("cuda"), CudaMeter)
    meter = meter_of("cpu")
    meter.start()
    assert (meter.budget(), meter.peak()) == (None, None)


def test_a_cpus_meter_and_model_need_no_torch():
    script = (
        "import sys\n"
        "from experiments import memory\n"
        "memory.meter_of('cpu').start()\n"
        "memory.release()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_probe_ends_at_the_first_look_and_gives_the_peak():
    looks: list[object] = []

    def train_pack(trials, *, device, data, on_step):
        try:
            for done in range(1, 9):
                looks.append(done)
                on_step(done, 8, 0.5)
        finally:
            looks.append("dropped")

    def peak() -> int:
        looks.append("peak")
        return 7

    meter = SimpleNamespace(start=lambda: looks.append("start"), peak=peak)
    assert probe(train_pack, TRIALS, meter, device="cpu", data=None) == 7
    assert looks == ["start", 1, "peak", "dropped"]


def test_nothing_in_the_loop_mistakes_the_end_of_a_probe_for_a_failure():
    def train_pack(trials, *, device, data, on_step):
        try:
            on_step(1, 8, 0.5)
        except Exception:
            pytest.fail("a probe's end was taken for a fault")

    probe(train_pack, TRIALS, Unmeasured(), device="cpu", data=None)


def test_what_a_probe_meets_is_raised():
    def before(trials):
        raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        probe(Trainer(before), TRIALS, Unmeasured(), device="cpu", data=None)


def test_a_probe_of_the_real_loop_leaves_it_fit_for_the_pack(trial, glue):
    from experiments.train import train_pack

    trials = [trial(seed=seed, epochs=1) for seed in range(2)]
    (undisturbed, _) = train_pack(trials, data=glue)
    assert memory.probe(train_pack, trials, Unmeasured(), device="cpu", data=glue) is None
    (after, _) = train_pack(trials, data=glue)
    assert after.history == undisturbed.history
