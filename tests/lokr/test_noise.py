"""``LaneNoise``: uniform, independent, and a function of (seed, step, place) alone."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lokr import LaneNoise

MASK = 0xFFFFFFFF


def murmur(word: int) -> int:
    """The 32-bit finalizer of MurmurHash3 in plain integers."""
    word ^= word >> 16
    word = word * 0x85EBCA6B & MASK
    word ^= word >> 13
    word = word * 0xC2B2AE35 & MASK
    return word ^ word >> 16


def at(step: int, *seeds: int) -> LaneNoise:
    noise = LaneNoise(seeds)
    for _ in range(step):
        noise.advance()
    return noise


def pvalue(sample: Tensor) -> float:
    return stats.kstest(sample.flatten().numpy(), "uniform").pvalue


@pytest.mark.parametrize("seed", [0, 1, 2**31, -5])
@pytest.mark.parametrize("place", [0, 1, 97])
def test_uniform(seed, place):
    sample = LaneNoise([seed]).uniform(place, 20_000)
    assert sample.shape == (1, 20_000)
    assert sample.dtype == torch.float32
    assert sample.min() >= 0
    assert sample.max() < 1
    assert pvalue(sample) > 0.001


def test_uniform_over_steps_lanes_and_places_at_one_index():
    # What a mask sees: a few rows, over thousands of steps.
    noise = LaneNoise(range(5))
    rows = []
    for _ in range(1_000):
        rows.append(noise.uniform(4, 2))
        noise.advance()
    over_steps = torch.stack(rows)  # (step, lane, index)
    assert pvalue(over_steps) > 0.001
    assert pvalue(over_steps[:, 0, 0]) > 0.001
    assert pvalue(LaneNoise(range(5_000)).uniform(0, 1)) > 0.001
    assert pvalue(torch.cat([LaneNoise([0]).uniform(p, 1) for p in range(2_000)])) > 0.001


@pytest.mark.parametrize("kind", ["lane", "step", "place", "index"])
def test_neighbors_are_independent(kind):
    count = 10_000
    if kind == "lane":
        streams = list(LaneNoise(range(4)).uniform(0, count))
    elif kind == "step":
        streams = [at(step, 0).uniform(0, count)[0] for step in range(4)]
    elif kind == "place":
        streams = [LaneNoise([0]).uniform(place, count)[0] for place in range(4)]
    else:
        long = LaneNoise([0]).uniform(0, count + 3)[0]
        streams = [long[i : i + count] for i in range(4)]
    for first, second in pairwise(streams):
        cells = (first * 8).long() * 8 + (second * 8).long()
        table = torch.bincount(cells, minlength=64).view(8, 8)
        assert stats.chi2_contingency(table.numpy()).pvalue > 0.001


@given(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 60)
)
def test_a_lane_draws_the_same_in_any_pack(seeds, step, place):
    pack = at(step, *seeds).uniform(place, 7)
    for lane, seed in enumerate(seeds):
        assert torch.equal(pack[lane], at(step, seed).uniform(place, 7)[0])


@given(st.integers(0, MASK), st.integers(0, 3), st.integers(0, 1000))
def test_integer_arithmetic_alone_so_every_device_agrees(seed, step, place):
    word = murmur(murmur(murmur(seed) ^ step) ^ place)
    expected = [murmur(word ^ murmur(i + 0x9E3779B9 & MASK)) >> 8 for i in range(5)]
    assert (at(step, seed).uniform(place, 5)[0] * 2**24).tolist() == expected


def test_a_shorter_draw_is_the_beginning_of_a_longer():
    noise = LaneNoise([1])
    assert torch.equal(noise.uniform(0, 5), noise.uniform(0, 9)[:, :5])


def test_nothing_changes_but_by_advance_and_torch_is_left_alone():
    noise = LaneNoise([1, 2])
    before = torch.get_rng_state()
    first = noise.uniform(3, 6)
    assert torch.equal(noise.uniform(3, 6), first)
    noise.advance()
    assert not torch.equal(noise.uniform(3, 6), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_no_part_of_a_state_dict_and_copies():
    noise = at(3, 1, 2)
    assert noise.state_dict() == {}
    assert torch.equal(copy.deepcopy(noise).uniform(0, 4), noise.uniform(0, 4))


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_normal(seed):
    sample = LaneNoise([seed, seed + 1]).normal(3, 20_001)
    assert sample.shape == (2, 20_001)
    assert sample.isfinite().all()
    for lane in sample.double():
        assert stats.kstest(lane.numpy(), "norm").pvalue > 0.001
        halves = lane[:10_000], lane[10_001:]  # the two numbers of each of Box and Muller's pairs
        assert abs(torch.corrcoef(torch.stack(halves))[0, 1]) < 0.04
    assert abs(torch.corrcoef(sample)[0, 1]) < 0.04


def test_normal_depends_on_seed_step_and_place_alone():
    noise = at(2, 5, 7)
    assert torch.equal(noise.normal(1, 6), at(2, 5, 7).normal(1, 6))
    assert torch.equal(noise.normal(1, 6)[1:], at(2, 7).normal(1, 6))
    assert not torch.equal(noise.normal(1, 6), noise.normal(2, 6))
    assert not torch.equal(noise.normal(1, 6), at(3, 5, 7).normal(1, 6))
