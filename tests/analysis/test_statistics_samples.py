"""Centers, bootstrap, probability of improvement and profiles beside scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from analysis.statistics.bootstrap import NOTHING, Interval, drawn, stratified, tails
from analysis.statistics.center import iqm
from analysis.statistics.improvement import probability_of_improvement
from analysis.statistics.profiles import score_profile

NUMBERS = st.floats(-100, 100)
SAMPLES = st.lists(NUMBERS, min_size=1, max_size=30).map(np.array)


def mean(strata: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(strata, axis=-1).mean(-1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(SAMPLES)
def test_iqm_is_scipys_trimmed_mean_and_lies_between_the_quartiles(values):
    found = float(iqm(values))
    assert found == stats.trim_mean(values, 0.25)
    low, high = np.quantile(values, [0.25, 0.75])
    assert low - 1e-9 <= found <= high + 1e-9


def test_iqm_of_eight_leaves_two_at_either_end():
    assert iqm(np.array([900, 1, 2, 3, 4, 5, -70, 6.0])) == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_iqm_of_three_is_their_mean_and_works_along_the_last_axis():
    assert iqm(np.array([[0.0, 1.0, 8.0], [3.0, 3.0, 3.0]])).tolist() == [3.0, 3.0]


def test_iqm_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no value"):
        iqm(np.array([]))


def test_one_stratum_is_scipys_percentile_bootstrap():
    values = rng().normal(size=25)
    ours = stratified([values], mean)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=1
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_no_value_leaves_its_stratum():
    strata = [np.array([0.0, 0.0, 0.0]), np.array([10.0, 10.0])]
    assert stratified(strata, mean) == (4.0, 4.0)


def test_the_bootstrap_is_the_same_at_every_call_and_another_with_another_seed():
    strata = [rng(1).normal(size=5), rng(2).normal(size=7)]
    assert stratified(strata, mean) == stratified(strata, mean)
    assert stratified(strata, mean) != stratified(strata, mean, seed=1)


def test_many_values_are_drawn_in_portions_of_the_right_total():
    values = drawn([rng().normal(size=90_000)], mean, resamples=7)
    assert values.shape == (7,)
    assert len(set(values)) == 7


@given(arrays(float, 6, elements=NUMBERS), st.floats(-50, 50), st.floats(0.01, 50))
def test_an_interval_moves_and_scales_with_the_values(values, shift, scale):
    there = stratified([values], mean, resamples=200)
    moved = stratified([scale * values + shift], mean, resamples=200)
    assert moved == pytest.approx([scale * bound + shift for bound in there], abs=1e-6)


def test_a_wider_level_holds_the_narrower():
    values = [rng().normal(size=20)]
    wide, narrow = stratified(values, mean, level=0.99), stratified(values, mean, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_single_run_a_stratum_has_no_interval():
    assert np.isnan(stratified([np.ones(1), np.ones(1)], mean)).all()
    assert np.isnan(NOTHING).all()


@pytest.mark.parametrize("strata", [[], [np.array([])], [np.ones(3), np.array([])]])
def test_an_empty_stratum_is_an_error(strata):
    with pytest.raises(ValueError, match="every stratum needs a value"):
        stratified(strata, mean)


def test_a_missing_value_is_an_error():
    with pytest.raises(ValueError, match="missing"):
        stratified([np.array([1.0, np.nan])], mean)


def test_the_bootstrap_over_tasks_holds_the_truth_about_as_often_as_it_says():
    generator = rng(3)
    held = 0
    for _ in range(200):
        strata = [generator.normal(task, 1, 15) for task in range(4)]
        bounds = stratified(strata, mean, resamples=1000)
        held += bounds.low <= 1.5 <= bounds.high
    assert stats.binom.ppf(0.0005, 200, 0.95) <= held <= stats.binom.ppf(0.9995, 200, 0.95)


@given(SAMPLES, SAMPLES)
def test_improvement_on_one_task_is_mann_and_whitneys_u(x, y):
    p, bounds = probability_of_improvement([x], [y], resamples=50)
    u = stats.mannwhitneyu(x, y, method="asymptotic").statistic if np.ptp([*x, *y]) else None
    assert p == pytest.approx(0.5 if u is None else u / (len(x) * len(y)))
    reverse, _ = probability_of_improvement([y], [x], resamples=50)
    assert p + reverse == pytest.approx(1)
    assert np.isnan(bounds.low) == (max(len(x), len(y)) < 2)


def test_improvement_is_the_mean_over_tasks_with_ties_by_halves():
    x = [np.array([1.0, 2.0]), np.array([0.0])]
    y = [np.array([1.0, 1.0]), np.array([5.0, 6.0])]
    p, bounds = probability_of_improvement(x, y)
    assert p == pytest.approx((0.75 + 0.0) / 2)
    assert bounds == (0.25, 0.5)


def test_improvement_without_a_rival_is_an_error():
    with pytest.raises(ValueError, match="1 tasks of one method and 2 of the other"):
        probability_of_improvement([np.ones(2)], [np.ones(2), np.ones(2)])
    with pytest.raises(ValueError, match="missing"):
        probability_of_improvement([np.array([np.nan, 1])], [np.ones(2)])


def test_a_profile_by_hand():
    table = score_profile([np.array([0.2, 0.8]), np.array([0.5])], np.array([0.1, 0.5, 0.9]))
    assert table["threshold"].tolist() == [0.1, 0.5, 0.9]
    assert table["share"].tolist() == [1.0, 0.25, 0.0]  # a score at the threshold is not above it
    assert table["low"].tolist() == [1.0, 0.0, 0.0]
    assert table["high"].tolist() == [1.0, 0.5, 0.0]


@given(st.lists(arrays(float, 5, elements=NUMBERS), min_size=1, max_size=4))
def test_a_profile_falls_and_its_mean_is_the_share(scores):
    table = score_profile(scores, np.linspace(-101, 101, 9), resamples=40)
    assert (table["share"].diff().dropna() <= 1e-12).all()
    assert table["share"].iloc[[0, -1]].tolist() == [1.0, 0.0]
    assert (table["low"] <= table["high"]).all()


def test_a_profile_of_single_runs_has_no_band():
    table = score_profile([np.ones(1), np.zeros(1)], np.array([0.5]))
    assert table["share"].tolist() == [0.5]
    assert table[["low", "high"]].isna().all(axis=None)


def test_tails_and_intervals_are_named():
    assert tails(0.9) == pytest.approx((0.05, 0.95))
    assert Interval(1, 2).low == 1
