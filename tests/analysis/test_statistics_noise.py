"""The noise of a part: two variances from few seeds, what sticks out, what could be seen."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from analysis.statistics.additive import failures, fit, sign, wide
from analysis.statistics.noise import detectable, dev_se, odd_cells, pooled
from tests.analysis.synthetic import make

TABLES = arrays(float, (5, 3), elements=st.floats(-10, 10))
RANKS = {"r": {2: 0.0, 4: 0.01, 8: 0.02, 16: 0.03}}


def by_regression(values: np.ndarray) -> tuple[float, int]:
    """Residual sum of squares and degrees of freedom of cells and seeds as dummies."""
    cells, seeds = np.nonzero(~np.isnan(values))
    x = np.hstack([np.eye(values.shape[0])[cells], np.eye(values.shape[1])[seeds]])
    y = values[cells, seeds]
    solution, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    return float(((y - x @ solution) ** 2).sum()), len(y) - int(rank)


@given(TABLES)
def test_the_two_variances_are_those_of_a_two_way_layout(values):
    found = fit(values)
    assert found.sd == pytest.approx(math.sqrt(values.var(axis=1, ddof=1).mean()))
    left = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    assert found.residual == pytest.approx(math.sqrt((left**2).sum() / 8), abs=1e-7)
    assert found.residual_df == 8


@given(TABLES, st.sets(st.integers(0, 14), min_size=1, max_size=9))
def test_with_holes_it_is_the_regression_on_cells_and_seeds(values, holes):
    values = values.copy()
    values.flat[list(holes)] = np.nan
    squares, df = by_regression(values)
    found = fit(values)
    assert found.residual_df == df
    if df:
        assert found.residual == pytest.approx(math.sqrt(squares / df), abs=1e-6)
    else:
        assert math.isnan(found.residual)


@given(TABLES, arrays(float, 3, elements=st.floats(-10, 10)))
def test_a_shift_of_all_cells_by_seed_leaves_the_residual(values, shifts):
    assert fit(values + shifts).residual == pytest.approx(fit(values).residual, abs=1e-7)


def test_degrees_of_freedom_are_many_where_seeds_do_nothing_and_few_where_they_do_all():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(200, 3))
    assert 350 < fit(values).df <= 400
    assert fit(values + 1000 * np.arange(3.0)).df == pytest.approx(2, abs=0.01)


def test_one_seed_says_nothing_and_no_variance_is_none():
    found = fit(np.ones((4, 1)))
    assert math.isnan(found.sd)
    assert math.isnan(found.residual)
    assert fit(np.ones((4, 3)))[:3] == (0.0, 8.0, 0.0)


def test_a_part_of_known_noise(tmp_path):
    effects = {"r": {2**i: 0.01 * i for i in range(30)}}
    (part,) = make(tmp_path, effects=effects, noise=0.003, seed_noise=0.0, seeds=3, seed=5)
    noise = pooled(part)
    low, high = stats.chi2.ppf([0.0005, 0.9995], noise.residual_df)
    assert noise.residual_df == 58
    assert low < noise.residual_df * (noise.residual / 0.003) ** 2 < high
    assert noise.odd == ()
    assert (noise.cells, noise.seeds) == (30, 3)


def test_a_seed_that_shifts_all_cells_is_in_the_sd_and_not_in_the_residual(tmp_path):
    (part,) = make(tmp_path, effects=RANKS, noise=0.001, seed_noise=0.1)
    noise = pooled(part)
    assert noise.residual < 0.003
    assert noise.sd > 0.02
    assert noise.df < 3


def test_a_cell_with_a_failed_seed_is_not_in_the_pool(tmp_path):
    def failed(knobs: dict, rate: float, seed: int) -> bool:
        return knobs["r"] == 16 and seed == 1

    (part,) = make(tmp_path, effects=RANKS, failed=failed)
    assert pooled(part).cells == 3
    assert failures(part).to_dict() == {"lokr r=2": 0, "lokr r=4": 0, "lokr r=8": 0, "lokr r=16": 1}
    assert wide(part).loc["lokr r=16"].isna().tolist() == [False, True, False]


def collapsing(tmp_path, cells: int):
    """Many quiet cells, and one that some seeds destroy."""
    (part,) = make(tmp_path, effects={"r": {2**i: 0.0 for i in range(cells)}}, noise=0.002)
    bad = (part.trials["trial.r"] == 1) & (part.trials["trial.seed"] == 2)
    part.trials.loc[bad, ["score", "selection_score"]] -= 0.3
    return part


def test_a_cell_that_collapses_with_a_seed_leaves_the_pool_and_is_named(tmp_path):
    noise = pooled(collapsing(tmp_path, 12))
    assert noise.odd == ("lokr r=1",)
    assert noise.sd < 0.004
    assert noise.cells == 11


def test_quiet_cells_are_rarely_called_odd():
    generator = np.random.default_rng(1)
    named = [bool(odd_cells(pd.DataFrame(generator.normal(size=(12, 3))))) for _ in range(400)]
    assert sum(named) <= stats.binom.ppf(0.999, 400, 0.01)


def test_an_unknown_metric_is_named(tmp_path):
    (part,) = make(tmp_path, effects=RANKS)
    with pytest.raises(ValueError, match="'beauty'"):
        pooled(part, "beauty")


def test_of_distances_and_drift_less_is_better():
    assert [sign(name) for name in ("score", "frechet", "drift", "vendi")] == [1, -1, -1, 1]


@pytest.mark.parametrize(("df", "seeds"), [(1, 2), (4, 2), (22, 3), (200, 5)])
def test_the_detectable_difference_has_the_power_it_says(df, seeds):
    shift = detectable(0.01, df, seeds) / (0.01 * math.sqrt(2 / seeds))
    generator = np.random.default_rng(0)
    t = (generator.normal(shift, 1, 40_000)) / np.sqrt(generator.chisquare(df, 40_000) / df)
    seen = (np.abs(t) > stats.t.ppf(0.975, df)).sum()
    assert stats.binom.ppf(0.0005, 40_000, 0.8) <= seen <= stats.binom.ppf(0.9995, 40_000, 0.8)


def test_without_noise_known_nothing_is_detectable():
    assert math.isnan(detectable(math.nan, 0, 3))
    assert math.isnan(detectable(0.01, 0, 3))
    assert math.isnan(detectable(0.01, 5, 0))


def test_many_seeds_and_degrees_of_freedom_are_the_textbooks_normal_case():
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert detectable(1.0, 100_000, 8) == pytest.approx(z * math.sqrt(2 / 8), rel=1e-3)


def test_the_dev_sets_standard_error_is_that_of_a_share():
    assert dev_se(0.5, 139) == pytest.approx(0.0424, abs=1e-4)
    assert dev_se(1.0, 200) == 0
    for accuracy, rows in ((1.2, 10), (0.5, 0)):
        with pytest.raises(ValueError, match="no share of rows"):
            dev_se(accuracy, rows)
