"""The longest pack comes first, by seconds where they are known; kinds are cut evenly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.plan import Pack, plan
from experiments.schedule import Pace, Schedule
from experiments.trial import Trial
from tests.experiments.fakes import layers_of, outcome, result, rows_of

GPU = {"device": "cuda", "gpu": "H100", "cpu": "EPYC"}


def packs_of(count: int, lanes: int = 8, **fields: object) -> tuple[Pack, ...]:
    trials = [Trial(**{"task": "glue/rte", "seed": seed, **fields}) for seed in range(count)]
    return plan(trials, (), lanes, layers_of=layers_of, rows_of=rows_of).packs


def earlier(trial: Trial, seconds: float, steps: int = 12, **changes: object):
    """A result of an earlier run, one of four lanes."""
    history = [{**outcome(trial).history[0], "step": steps}]
    cost = {"seconds": seconds, "pack_seconds": 4 * seconds, "lanes": 4}
    return result(trial, **{"history": history, "cost": cost, "provenance": GPU, **changes})


def methods(packs) -> list[str]:
    return [pack.trials[0].method for pack in packs]


def test_before_anything_is_measured_rows_decide():
    packs = [*packs_of(1, method="full"), *packs_of(4)]
    assert methods(Schedule(packs, Pace()).packs) == ["lokr", "full"]
    assert Pace().cost(packs[1]) == packs[1].row_passes


def test_seconds_decide_once_a_pack_has_run():
    pace, packs = Pace(), [*packs_of(1, method="full"), *packs_of(4)]
    pace.observe(packs[0], 100)
    pace.observe(packs[1], 10)
    assert pace.cost(packs[0]) == pytest.approx(100)
    assert methods(Schedule(packs, pace).packs) == ["full", "lokr"]


def test_a_pack_is_expected_to_go_as_those_most_like_it():
    pace = Pace()
    (pack,) = packs_of(4)
    pace.observe(pack, 10)
    (other_base,) = packs_of(4, base="mpnet")
    pace.observe(other_base, 70)
    assert pace.cost(pack) == pytest.approx(10)
    (same_method,) = packs_of(4, task="glue/cola")
    assert pace.cost(same_method) == pytest.approx(40)
    (head,) = packs_of(4, method="head")
    assert pace.cost(head) == pytest.approx(40)


def test_earlier_results_on_the_same_device_seed_the_pace():
    pace = Pace()
    (pack,) = packs_of(4)
    pace.learn([earlier(pack.trials[0], seconds=2.5)], GPU)
    assert pace.cost(pack) == pytest.approx(10)
    pace.observe(pack, 6)
    assert pace.cost(pack) == pytest.approx(6), "what this run measured counts more"


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance": {**GPU, "gpu": "A100"}},
        {"provenance": {}},
        {"status": "diverged"},
        {"status": "error", "history": []},
    ],
)
def test_results_of_other_devices_and_failures_teach_nothing(changes):
    pace = Pace()
    (pack,) = packs_of(4)
    pace.learn([earlier(pack.trials[0], seconds=2.5, **changes)], GPU)
    assert pace.cost(pack) == pack.row_passes


def test_packs_are_taken_out_the_longest_first():
    schedule = Schedule([*packs_of(2), *packs_of(3, method="head"), *packs_of(1, epochs=9)], Pace())
    taken = []
    while schedule:
        taken.append(schedule.pop(schedule.longest().key))
    assert [pack.row_passes for pack in taken] == sorted(
        (pack.row_passes for pack in taken), reverse=True
    )
    assert len(taken) == 3


@given(st.integers(1, 40), st.integers(1, 12), st.lists(st.integers(1, 16), max_size=4))
def test_cut_again_and_again_every_trial_stays_once_in_few_even_packs(count, lanes, widths):
    packs = packs_of(count, lanes)
    schedule = Schedule(packs, Pace())
    widest = max(pack.lanes for pack in packs)
    for width in widths:
        schedule.recut(packs[0].key, width)
        sizes = [pack.lanes for pack in schedule.packs]
        allowed = min(width, widest)
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= allowed
        assert len(sizes) == -(-count // allowed)
        assert not schedule.recut(packs[0].key, width), "a second time changes nothing"
    trials = [trial for pack in schedule.packs for trial in pack.trials]
    assert sorted(trial.seed for trial in trials) == list(range(count))


def test_cutting_keeps_neighboring_ranks_together():
    trials = [Trial(task="glue/rte", r=r, seed=seed) for seed in range(2) for r in (2, 8)]
    (pack,) = plan(trials, (), 8, layers_of=layers_of, rows_of=rows_of).packs
    schedule = Schedule([pack], Pace())
    schedule.recut(pack.key, 2)
    assert [{trial.r for trial in part.trials} for part in schedule.packs] == [{2}, {8}]


def test_packs_that_fit_are_left_as_they_are():
    packs = packs_of(10, 4)
    schedule = Schedule(packs, Pace())
    assert not schedule.recut(packs[0].key, 4)
    assert schedule.packs == sorted(packs, key=lambda pack: -pack.lanes)


def test_a_kind_is_never_wider_than_planned_or_than_its_trials():
    packs = packs_of(10, 4)
    schedule = Schedule(packs, Pace())
    key = packs[0].key
    assert schedule.most(key) == 4
    schedule.pop(key)
    schedule.pop(key)
    assert schedule.most(key) == 3
    schedule.recut(key, 99)
    assert [pack.lanes for pack in schedule.packs] == [3]


def test_what_is_put_back_comes_before_its_equals():
    first, second = packs_of(8, 4)
    schedule = Schedule([first, second], Pace())
    schedule.pop(first.key)
    schedule.put_back([first])
    assert schedule.pop(first.key) == first


def test_isolated_trials_are_never_joined_again():
    (pack,) = packs_of(3)
    schedule = Schedule([pack], Pace())
    schedule.put_back(schedule.pop(pack.key).isolated())
    assert [part.lanes for part in schedule.packs] == [1, 1, 1]
    assert {schedule.most(part.key) for part in schedule.packs} == {1}
