"""The plan of a pass: every row once a lane, batches cut to their longest row."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments import batches
from experiments.batches import Shape


def generators(lanes: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(lane) for lane in range(lanes)]


@given(
    lanes=st.integers(1, 3), size=st.integers(1, 40), batch=st.integers(1, 15), seed=st.integers(0)
)
def test_equals_a_plain_loop(lanes, size, batch, seed):
    lengths = torch.randint(1, 60, (size,), generator=torch.Generator().manual_seed(seed % 2**32))
    orders = batches.epoch_orders(size, generators(lanes))
    planned = batches.plan(orders, batch, lengths)
    parts = orders.split(batch, dim=1)
    assert len(planned) == len(parts)
    for line, shape, part in zip(planned.rows, planned.shapes, parts, strict=True):
        assert shape == Shape(part.shape[1], int(lengths[part].max()))
        assert torch.equal(line[: part.numel()].view(lanes, -1), part)


def test_lanes_draw_their_epochs_from_their_own_generators():
    pair, alone = generators(2), generators(2)[1]
    for _ in range(3):
        orders = batches.epoch_orders(10, pair)
        assert torch.equal(orders[1], torch.randperm(10, generator=alone))


@given(tokens=st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_buckets_hold_their_rows_and_are_few(tokens):
    lengths = torch.tensor(tokens)
    orders = torch.arange(len(tokens)).expand(2, -1)
    planned = batches.plan(orders, 4, lengths, bucket=32, width=max(tokens))
    exact = batches.plan(orders, 4, lengths)
    for rounded, longest in zip(planned.shapes, exact.shapes, strict=True):
        assert longest.length <= rounded.length <= max(tokens)
        assert rounded.length % 32 == 0 or rounded.length == max(tokens)
        assert rounded.length - longest.length < 32


def test_rows_of_one_size_have_no_length():
    planned = batches.plan(torch.arange(5).expand(1, -1), 2)
    assert planned.shapes == (Shape(2, None), Shape(2, None), Shape(1, None))


def test_the_dev_set_goes_by_length():
    order = batches.by_length(3, torch.tensor([5, 2, 5]), lanes=2)
    assert order.tolist() == [[1, 0, 2]] * 2
    assert batches.by_length(3, None, lanes=1).tolist() == [[0, 1, 2]]


def test_a_rare_length_is_raised_to_the_next():
    few, many = Shape(4, 32), Shape(4, 64)
    short = [Shape(3, 32), Shape(3, 96)]
    passes = [batches.Pass(torch.zeros(3, 4), (few, many, many, *short))] * 2
    shapes = [one.shapes for one in batches.merged(passes, rare=3)]
    assert shapes == [(many, many, many, short[1], short[1])] * 2
    assert [one.shapes for one in batches.merged(passes, rare=2)] == [passes[0].shapes] * 2
    chain = [batches.Pass(torch.zeros(3, 4), (Shape(4, 32), Shape(4, 64), Shape(4, 96)))]
    assert batches.merged(chain, rare=2)[0].shapes == (Shape(4, 96),) * 3


def test_merging_leaves_rows_of_one_size():
    one = batches.plan(torch.arange(5).expand(1, -1), 2)
    assert batches.merged([one])[0].shapes == one.shapes
