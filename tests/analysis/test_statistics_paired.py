"""Paired differences and their tests: Holm by hand, signs beside scipy, known effects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from analysis.part import Part
from analysis.statistics.noise import pooled
from analysis.statistics.paired import UNITS, against, holm, sign_flip
from tests.analysis.synthetic import Design, read, write

RANKS = {"r": {2: -0.05, 4: 0.0, 8: 0.05}}
PROBABILITIES = st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=12).map(np.array)


def contest(folder: Path, **lokr: object) -> Part:
    """Three ranks of lokr against one cell of lora."""
    shared = {"noise": 0.01, "seed_noise": 0.05} | lokr
    lora = {name: value for name, value in shared.items() if name != "failed"}
    designs = (
        Design(effects=RANKS, **shared),
        Design(effects={"r": {8: 0.0}}, trial={"method": "lora"}, **lora),
    )
    (part,) = read(write(folder, *designs))
    return part


def test_holm_by_hand():
    # 0.01·4 = 0.04; 0.02·3 = 0.06; 0.03·2 = 0.06; 0.5·1
    assert holm(np.array([0.5, 0.01, 0.03, 0.02])) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    # the second would be 0.04·1 < 0.06: it may not be more significant than the first
    assert holm(np.array([0.03, 0.04])) == pytest.approx([0.06, 0.06])
    assert holm(np.array([0.4, 0.9])).tolist() == [0.8, 0.9]
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]


@given(PROBABILITIES)
def test_holm_keeps_the_order_and_lowers_nothing(p):
    adjusted = holm(p)
    there = ~np.isnan(p)
    assert (np.isnan(adjusted) == ~there).all()
    assert (adjusted[there] >= p[there]).all()
    assert (adjusted[there] <= 1).all()
    assert (np.diff(adjusted[there][np.argsort(p[there], kind="stable")]) >= 0).all()
    left = there.sum()
    if left:
        assert np.nanmin(adjusted) == pytest.approx(min(1, left * np.nanmin(p)))


@given(arrays(float, st.integers(6, 9), elements=st.integers(-20, 20).map(float)))
def test_sign_flips_are_scipys_permutation_test(changes):
    theirs = stats.permutation_test(
        (changes,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(changes) == pytest.approx(theirs.pvalue)


def test_where_all_units_agree_only_two_of_all_signs_are_as_extreme():
    assert sign_flip(np.arange(1.0, 11.0)) == 2 / 2**10
    assert sign_flip(np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3])) == 2 / 2**6  # rounding
    assert sign_flip(np.zeros(6)) == 1


def test_on_equal_sizes_it_is_wilcoxons_signed_rank_test():
    ranks = np.array([1.0, -2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert sign_flip(ranks) == pytest.approx(stats.wilcoxon(ranks, method="exact").pvalue)


def test_five_units_are_too_few():
    assert UNITS == 6
    assert np.isnan(sign_flip(np.ones(5)))


def test_many_units_are_drawn_and_come_out_the_same_twice():
    generator = np.random.default_rng(0)
    changes = generator.normal(0.4, 1, 40)
    found = sign_flip(changes)
    assert found == sign_flip(changes)
    assert found == pytest.approx(stats.ttest_1samp(changes, 0).pvalue, abs=0.01)
    assert sign_flip(np.ones(40)) == 1 / 10_001


def test_differences_are_free_of_what_a_seed_does_to_all(tmp_path):
    table = against(contest(tmp_path, noise=1e-4), "lora").set_index("cell")
    truth = {"lokr r=8": 0.05, "lokr r=4": 0.0, "lokr r=2": -0.05}
    assert table["difference"].to_dict() == pytest.approx(truth, abs=5e-4)
    assert (table["high"] - table["low"]).max() < 1e-3
    assert list(table.index) == list(truth)
    assert set(table["against"]) == {"lora"}
    assert set(table["method"]) == {"lokr"}


def test_the_test_is_students_t_with_the_pooled_residual(tmp_path):
    part = contest(tmp_path)
    table, noise = against(part, "lora").set_index("cell"), pooled(part)
    error = noise.residual * np.sqrt(2 / 3)
    row = table.loc["lokr r=2"]
    bounds = stats.t.interval(0.95, noise.residual_df, row["difference"], error)
    assert (row["low"], row["high"]) == pytest.approx(bounds)
    t = abs(row["difference"]) / error
    assert row["p"] == pytest.approx(2 * stats.t.sf(t, noise.residual_df))
    assert set(table["test"]) == {"pooled t"}
    assert table["seeds"].tolist() == [3, 3, 3]
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p"].to_numpy()))


def test_two_cells_alone_are_scipys_paired_t_test(tmp_path):
    part = contest(tmp_path)
    keep = part.trials["cell"].isin(["lora", "lokr r=8"])
    two = Part(part.folder, part.task, part.base, None, False, part.trials[keep])
    (row,) = against(two, "lora").to_dict("records")
    values = two.trials.pivot(index="trial.seed", columns="cell", values="score")
    oracle = stats.ttest_rel(values["lokr r=8"], values["lora"])
    interval = oracle.confidence_interval(0.95)
    assert (row["p"], row["low"], row["high"]) == pytest.approx(
        (oracle.pvalue, interval.low, interval.high)
    )


def test_with_six_seeds_the_p_is_that_of_the_signs(tmp_path):
    part = contest(tmp_path, seeds=7)
    table = against(part, "lora").set_index("cell")
    values = part.selected.pivot(index="trial.seed", columns="cell", values="score")
    for cell in table.index:
        assert table.loc[cell, "p"] == sign_flip((values[cell] - values["lora"]).to_numpy())
    assert set(table["test"]) == {"sign-flip"}
    assert table["p"].min() == 2 / 2**7


def test_a_failed_seed_takes_test_and_interval_and_does_not_count_in_holm(tmp_path):
    part = contest(tmp_path, failed=lambda knobs, rate, seed: knobs["r"] == 2 and seed == 0)
    table = against(part, "lora").set_index("cell")
    row = table.loc["lokr r=2"]
    assert row[["low", "high", "p", "p_holm"]].isna().all()
    assert (row["test"], row["seeds"]) == ("none", 2)
    others = table.drop("lokr r=2")
    assert others["p_holm"].tolist() == pytest.approx(holm(others["p"].to_numpy()))


def test_an_odd_cell_is_tested_with_its_own_differences(tmp_path):
    (part,) = read(write(tmp_path, Design(effects={"r": {2**i: 0.0 for i in range(12)}})))
    bad = (part.trials["trial.r"] == 1) & (part.trials["trial.seed"] == 2)
    part.trials.loc[bad, ["score", "selection_score"]] -= 0.3
    table = against(part, "lokr").set_index("cell")
    row, reference = table.loc["lokr r=1"], table["against"].iloc[0]
    values = part.trials.pivot(index="trial.seed", columns="cell", values="score")
    oracle = stats.ttest_rel(values["lokr r=1"], values[reference])
    assert (row["test"], row["p"]) == ("own t", pytest.approx(oracle.pvalue))
    assert set(table["test"].drop("lokr r=1")) == {"pooled t"}


def test_one_seed_gives_differences_and_no_test(tmp_path):
    table = against(contest(tmp_path, seeds=1), "lora")
    assert table["difference"].notna().all()
    assert table[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert set(table["test"]) == {"none"}


def test_runs_without_any_noise_differ_for_certain_or_not_at_all(tmp_path):
    (part,) = read(write(tmp_path, Design(effects=RANKS, noise=0.0)))
    part.trials["score"] = part.trials["score"].round(2)
    table = against(part, "lokr").set_index("cell")
    assert table["p"].tolist() == [0.0, 0.0]
    assert (table["low"] == table["high"]).all()


def test_the_method_itself_may_have_other_cells(tmp_path):
    table = against(contest(tmp_path), "lokr")
    assert set(table["against"]) == {"lokr r=8"}
    assert sorted(table["cell"]) == ["lokr r=2", "lokr r=4", "lora"]


def test_a_method_that_did_not_run_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'full' has no score"):
        against(contest(tmp_path), "full")


def test_an_error_in_the_family_is_as_rare_as_holm_says():
    """Twelve cells that are all alike against one: some p_holm below 5% in at most 5% of cases."""
    generator = np.random.default_rng(5)
    errors = 0
    for _ in range(400):
        values = generator.normal(size=(13, 3))
        left = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
        t = (values[1:] - values[0]).mean(1) / np.sqrt((left**2).sum() / 24 * 2 / 3)
        errors += holm(2 * stats.t.sf(np.abs(t), 24)).min() < 0.05
    assert errors <= stats.binom.ppf(0.9995, 400, 0.05)
