"""The expected best of n trials beside all subsets, scipy and a simulation."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics.expected import band, expected_maximum

SCORES = st.lists(st.floats(-10, 10), min_size=1, max_size=12).map(np.array)
PAIRS = st.lists(
    st.tuples(st.integers(0, 3) | st.just(np.nan), st.floats(-10, 10)), min_size=1, max_size=7
)


def kept(drawn: list[tuple[float, float]]) -> float:
    """Report score of the best by selection; the mean of those that tie; NaN if all failed."""
    scored = [(s, r) for s, r in drawn if not np.isnan(s)]
    if not scored:
        return np.nan
    best = max(s for s, _ in scored)
    return float(np.mean([r for s, r in scored if s == best]))


@given(PAIRS)
def test_it_is_the_mean_over_all_subsets(pairs):
    selection, report = map(np.array, zip(*pairs, strict=True))
    curve = expected_maximum(selection, report)
    for n in range(1, len(pairs) + 1):
        every = np.array([kept(subset) for subset in combinations(pairs, n)])
        scored = every[~np.isnan(every)]
        truth = scored.mean() if len(scored) else np.nan
        assert curve[n - 1] == pytest.approx(truth, nan_ok=True)


@given(SCORES)
def test_with_one_score_it_goes_from_the_mean_up_to_the_maximum(scores):
    curve = expected_maximum(scores)
    assert curve[0] == pytest.approx(scores.mean())
    assert curve[-1] == pytest.approx(scores.max())
    assert (np.diff(curve) >= -1e-9).all()


def test_it_is_the_papers_formula():
    scores = np.sort(np.random.default_rng(0).normal(size=9))
    for n in range(1, 10):
        weights = [comb(i - 1, n - 1) / comb(9, n) for i in range(1, 10)]
        assert expected_maximum(scores)[n - 1] == pytest.approx(np.dot(weights, scores))


def test_it_has_no_bias_where_the_plug_in_has():
    """The expected best of 5 of a uniform variable is 5/6; 20 trials are at hand each time."""
    generator = np.random.default_rng(0)
    ours, plugged = [], []
    for _ in range(600):
        scores = np.sort(generator.uniform(size=20))
        ours.append(expected_maximum(scores)[4])
        places = np.arange(21) / 20
        plugged.append(np.diff(places**5) @ scores)  # with replacement, as in Dodge et al. 2019
    error = np.std(ours) / np.sqrt(600)
    assert abs(np.mean(ours) - 5 / 6) < 3.3 * error
    assert abs(np.mean(plugged) - 5 / 6) > 3.3 * error


def test_a_report_that_has_nothing_to_do_with_the_selection_stays_at_its_mean():
    selection, report = np.arange(4.0), np.array([1.0, -1.0, -1.0, 1.0])
    assert expected_maximum(selection, report) == pytest.approx([0, 0, 0.5, 1])
    assert expected_maximum(np.zeros(4), report) == pytest.approx([0, 0, 0, 0])


def test_a_failed_trial_uses_up_the_budget():
    both, one = np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0])
    assert expected_maximum(one) == pytest.approx([1.5, 2.0])
    assert expected_maximum(both) == pytest.approx([1.5, (2 + 1 + 2) / 3, 2.0])


def test_where_all_failed_nothing_is_expected():
    assert np.isnan(expected_maximum(np.full(3, np.nan))).all()
    assert band(np.full(4, np.nan)).drop(columns="trials").isna().all(axis=None)


def test_ten_thousand_trials_keep_their_precision():
    scores = np.random.default_rng(1).permutation(np.arange(10_000.0))
    curve = expected_maximum(scores)
    n = np.array([1, 10, 5_000, 10_000])
    assert curve[n - 1] == pytest.approx(n * 10_001 / (n + 1) - 1)  # of 0 … N-1, exactly


@pytest.mark.parametrize("selection", [np.array([]), np.ones((2, 2))])
def test_what_is_no_list_of_trials_is_an_error(selection):
    with pytest.raises(ValueError, match="no two lists"):
        expected_maximum(selection)
    with pytest.raises(ValueError, match="no two lists"):
        expected_maximum(np.ones(3), selection)


def test_the_band_is_around_the_curve_up_to_half_of_the_trials():
    scores = np.random.default_rng(2).normal(size=40)
    table = band(scores)
    assert table["trials"].tolist() == list(range(1, 41))
    assert table["expected"].tolist() == pytest.approx(expected_maximum(scores))
    there = table[:20]
    assert ((there["low"] < there["expected"]) & (there["expected"] < there["high"])).all()
    assert table[20:][["low", "high"]].isna().all(axis=None)
    assert band(scores).equals(table)


def test_the_band_of_one_trial_is_the_bootstrap_of_the_mean():
    scores = np.random.default_rng(3).normal(size=50)
    row = band(scores, resamples=4000).iloc[0]
    error = scores.std() / np.sqrt(50)
    assert (row["low"], row["high"]) == pytest.approx(
        (scores.mean() - 1.96 * error, scores.mean() + 1.96 * error), abs=0.05
    )
