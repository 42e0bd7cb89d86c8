"""A lane is what its trial would have been alone; what happens in one stays in it."""

from __future__ import annotations

import math

import pytest

from experiments.train import train_pack

KNOBS = {
    "r": [1, 2, 3],
    "alpha": [1.0, 8.0, 32.0],
    "init_weights": [True, False, "lycoris"],
    "rank_dropout": [0.0, 0.3, 0.6],
    "module_dropout": [0.0, 0.3, 0.6],
    "learning_rate": [1e-4, 1e-3, 1e-2],
    "weight_decay": [0.0, 0.1, 1.0],
    "seed": [0, 1, 2],
}


def curve(outcome) -> list[float]:
    return [loss for row in outcome.history for loss in row["losses"]]


@pytest.mark.parametrize("knob", KNOBS)
def test_each_lane_has_the_loss_curve_of_its_trial_alone(knob, trial, glue):
    trials = [trial(**{knob: value}) for value in KNOBS[knob]]
    packed = train_pack(trials, data=glue)
    for one, lane in zip(trials, packed, strict=True):
        (alone,) = train_pack([one], data=glue)
        assert len(curve(alone)) == 24
        assert curve(lane) == pytest.approx(curve(alone), rel=1e-5)
    assert len({tuple(curve(lane)) for lane in packed}) == len(trials), "the knob does something"


def test_everything_may_vary_at_once_and_scores_agree_too(trial, glue):
    trials = [
        trial(r=r, alpha=a, init_weights=i, seed=s, learning_rate=lr, rank_dropout=d)
        for r, a, i, s, lr, d in [
            (1, 4.0, True, 0, 1e-3, 0.0),
            (3, 16.0, "lycoris", 1, 1e-2, 0.5),
            (2, 1.0, False, 2, 3e-3, 0.2),
        ]
    ]
    packed = train_pack(trials, data=glue)
    for one, lane in zip(trials, packed, strict=True):
        (alone,) = train_pack([one], data=glue)
        assert curve(lane) == pytest.approx(curve(alone), rel=1e-5)
        assert lane.parameters == alone.parameters


def test_head_trials_are_lanes_too(trial, glue):
    trials = [trial(method="head", seed=seed) for seed in range(3)]
    packed = train_pack(trials, data=glue)
    for one, lane in zip(trials, packed, strict=True):
        (alone,) = train_pack([one], data=glue)
        assert curve(lane) == pytest.approx(curve(alone), rel=1e-5)


@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_a_diverging_lane_leaves_the_others_bit_for_bit(rate, trial, glue):
    calm = [trial(seed=seed) for seed in (0, 1, 2)]
    wild = [calm[0], trial(seed=1, learning_rate=rate), calm[2]]
    expected = train_pack(calm, data=glue)
    outcomes = train_pack(wild, data=glue)
    assert outcomes[1].status == "diverged"
    assert "loss" in outcomes[1].message
    for lane in (0, 2):
        assert outcomes[lane].status == "ok"
        assert curve(outcomes[lane]) == curve(expected[lane])
        assert outcomes[lane].metrics == expected[lane].metrics


def test_our_lokr_trains_like_pefts(trial, glue):
    for knobs in ({}, {"decompose_both": True, "r": 1}, {"r": 64}, {"init_weights": "lycoris"}):
        (ours,) = train_pack([trial(**knobs)], data=glue)
        (theirs,) = train_pack([trial(method="lokr-peft", **knobs)], data=glue)
        assert curve(ours) == pytest.approx(curve(theirs), rel=1e-4)
        assert ours.parameters == theirs.parameters


@pytest.mark.parametrize("method", ["lora", "full", "lokr-peft"])
def test_other_methods_train_alone(method, trial, glue):
    (outcome,) = train_pack([trial(method=method, learning_rate=1e-3)], data=glue)
    assert outcome.status == "ok"
    assert all(map(math.isfinite, curve(outcome)))
    with pytest.raises(ValueError, match="trains alone"):
        train_pack([trial(method=method, seed=s) for s in (0, 1)], data=glue)


def test_a_trial_repeats_itself(trial, glue):
    first, second = (train_pack([trial()], data=glue)[0] for _ in range(2))
    assert curve(first) == curve(second)
    assert first.metrics == second.metrics


def test_regression_lanes(trial, glue):
    trials = [trial(task="glue/stsb", seed=seed) for seed in (0, 1)]
    packed = train_pack(trials, data=glue)
    (alone,) = train_pack([trials[1]], data=glue)
    assert curve(packed[1]) == pytest.approx(curve(alone), rel=1e-5)
    assert packed[0].metrics["primary"] == "pearson"
