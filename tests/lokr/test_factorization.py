"""How a dimension splits, and which factors follow: against peft and LyCORIS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lycoris.functional import factorization as lycoris_factorization
from peft.tuners.lokr.layer import factorization as peft_factorization

from lokr import LayerShape, LoKrConfig, factor_spec, factorization

FACTORS = [-1, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 31, 32, 48, 64, 100, 127, 128, 256, 511, 512, 1000]


@pytest.mark.parametrize("factor", FACTORS)
def test_equals_peft_for_every_dimension_up_to_512(factor):
    dimensions = range(1, 513)
    ours = [factorization(n, factor) for n in dimensions]
    assert ours == [peft_factorization(n, factor) for n in dimensions]


@given(st.integers(1, 4096), st.integers(1, 4096) | st.just(-1))
def test_is_a_split(dimension, factor):
    m, n = factorization(dimension, factor)
    assert m * n == dimension
    assert factor == -1 or m <= factor


@pytest.mark.parametrize(
    ("dimension", "factor", "split"),
    [
        (768, -1, (24, 32)),
        (127, -1, (1, 127)),
        (128, 4, (4, 32)),
        (100, 3, (2, 50)),
        (64, 64, (64, 1)),  # unsorted: peft's rule
    ],
)
def test_known_splits(dimension, factor, split):
    assert factorization(dimension, factor) == split


def test_lycoris_sorts_where_peft_and_we_do_not():
    assert lycoris_factorization(64, 64) == (1, 64)
    assert peft_factorization(64, 64) == factorization(64, 64) == (64, 1)
    assert all(factorization(n) == lycoris_factorization(n) for n in range(1, 513))


@pytest.mark.parametrize("factor", [0, -2])
def test_factor_out_of_range_is_refused_where_peft_gives_a_one_row_split(factor):
    assert peft_factorization(12, factor) == (1, 12)
    with pytest.raises(ValueError, match=rf"factor={factor}: expected -1 or an integer >= 1"):
        factorization(12, factor)


def test_dimension_out_of_range_is_refused():
    with pytest.raises(ValueError, match="dimension=0: expected an integer >= 1"):
        factorization(0)


@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.lists(st.integers(1, 4), max_size=2).map(tuple),
    st.integers(1, 40),
    st.sampled_from([-1, 2, 4]),
    st.booleans(),
    st.booleans(),
)
def test_a_factor_is_low_rank_only_where_that_saves_parameters(
    out, in_, kernel, r, factor, both, effective
):
    config = LoKrConfig(
        r=r, decompose_factor=factor, decompose_both=both, use_effective_conv2d=effective
    )
    spec = factor_spec(LayerShape(out, in_, kernel), config, r, alpha=2 * r)
    (a, b), (c, d) = factorization(out, factor), factorization(in_, factor)
    assert (spec.a, spec.b, spec.c, spec.d) == (a, b, c, d)
    assert spec.w2_low_rank == (r < max(b, d) / 2)
    assert spec.w1_low_rank == (both and r < max(a, c) / 2)
    assert spec.effective == (effective and spec.w2_low_rank and any(k > 1 for k in kernel))
    assert spec.scale == 2
    assert spec.rank_matters == any(name.endswith("_a") for name in spec.shapes)


def test_scale_is_alpha_over_r_and_one_for_full_factors_only_when_asked():
    def scale(**fields):
        config = LoKrConfig(r=16, alpha=4, **fields)
        return factor_spec(LayerShape(12, 12), config, config.r, config.alpha).scale

    assert scale() == 0.25
    assert scale(lycoris_scale=True) == 1.0
    low_rank = LoKrConfig(r=1, alpha=4, lycoris_scale=True)
    assert factor_spec(LayerShape(12, 12), low_rank, 1, 4).scale == 4
