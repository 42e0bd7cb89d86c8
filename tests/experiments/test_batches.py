"""The plan of a pass: every row once a lane, batches cut to their longest row."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments import batches
from experiments.batches import Shape, Step


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
    for line, step, part in zip(planned.rows, planned.steps, parts, strict=True):
        assert step == (Shape(part.shape[1], int(lengths[part].max())),)
        assert torch.equal(line[: part.numel()].view(lanes, -1), part)


def test_lanes_draw_their_epochs_from_their_own_generators():
    pair, alone = generators(2), generators(2)[1]
    for _ in range(3):
        orders = batches.epoch_orders(10, pair)
        assert torch.equal(orders[1], torch.randperm(10, generator=alone))


def test_an_epoch_shows_each_row_as_often_as_it_repeats():
    orders = batches.epoch_orders(5, generators(2), repeats=3)
    assert orders.shape == (2, 15)
    for lane in orders:
        assert lane.bincount().tolist() == [3] * 5
    assert not torch.equal(orders[0], orders[1])


@given(tokens=st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_buckets_hold_their_rows_and_are_few(tokens):
    lengths = torch.tensor(tokens)
    orders = torch.arange(len(tokens)).expand(2, -1)
    planned = batches.plan(orders, 4, lengths, bucket=32, width=max(tokens))
    exact = batches.plan(orders, 4, lengths)
    for (rounded,), (longest,) in zip(planned.steps, exact.steps, strict=True):
        assert longest.length <= rounded.length <= max(tokens)
        assert rounded.length % 32 == 0 or rounded.length == max(tokens)
        assert rounded.length - longest.length < 32


def test_rows_of_one_size_have_no_length():
    planned = batches.plan(torch.arange(5).expand(1, -1), 2)
    assert planned.steps == ((Shape(2, None),), (Shape(2, None),), (Shape(1, None),))


def test_the_dev_set_goes_by_length():
    order = batches.by_length(3, torch.tensor([5, 2, 5]), lanes=2)
    assert order.tolist() == [[1, 0, 2]] * 2
    assert batches.by_length(3, None, lanes=1).tolist() == [[0, 1, 2]]


def whole(rows: int, *lengths: int | None) -> batches.Pass:
    """Steps of one part."""
    steps = tuple((Shape(rows, length),) for length in lengths)
    return batches.Pass(torch.zeros(len(steps), rows), steps)


def lengths_of(passes) -> list[int]:
    return [step[0].length for one in passes for step in one.steps]


def test_a_rare_length_is_raised_to_the_next():
    passes = [whole(4, 32, 64, 64)] * 2
    assert lengths_of(batches.merged(passes, rare=3)) == [64] * 6
    assert lengths_of(batches.merged(passes, rare=2)) == [32, 64, 64] * 2
    assert lengths_of(batches.merged([whole(4, 32, 64, 96)], rare=2)) == [64, 64, 96]
    assert lengths_of(batches.merged([whole(4, 32, 64, 96)], rare=3)) == [96] * 3


def test_the_lengths_that_spare_most_are_kept():
    one = whole(4, *[16] * 20, *[32] * 3, *[48] * 10, 112)
    assert lengths_of(batches.merged([one], rare=2, most=2)) == [48] * 33 + [112]
    assert lengths_of(batches.merged([one], rare=2, most=3)) == [16] * 20 + [48] * 13 + [112]


def test_parts_are_raised_to_what_covers_them_all():
    def step(*lengths: int) -> Step:
        return tuple(Shape(2, length) for length in lengths)

    often, crossing, beyond, top = step(16, 32), step(32, 16), step(16, 48), step(32, 48)
    one = batches.Pass(torch.zeros(8, 4), (often,) * 6 + (crossing, beyond))
    (found,) = batches.merged([one], rare=3)
    assert found.steps == (often,) * 6 + (top, top)


def test_short_batches_are_of_one_kind():
    short = [(Shape(1, length),) for length in (32, 64) * 8]
    passes = [replace(whole(4, 32, 64), steps=(*whole(4, 32, 64).steps, one)) for one in short]
    found = batches.merged(passes, rare=2)
    assert {one.steps[-1] for one in found} == {(Shape(1, 64),)}
    assert {step for one in found for step in one.steps[:2]} == {(Shape(4, 32),), (Shape(4, 64),)}


def test_merging_leaves_rows_of_one_size():
    one = batches.plan(torch.arange(5).expand(1, -1), 2)
    assert batches.merged([one])[0].steps == one.steps


def test_parts_of_one_length_are_joined():
    step = (Shape(3, 32), Shape(3, 48), Shape(4, 48))
    one = batches.Pass(torch.zeros(2, 10), (step, step[1:]))
    assert batches.joined(one).steps == ((Shape(3, 32), Shape(7, 48)), (Shape(7, 48),))
    assert batches.joined(whole(2, None, 8)).steps == whole(2, None, 8).steps


def test_parts_keep_the_device_full():
    lengths = torch.tensor([32, 96])  # 64 on average
    assert batches.parts_of(32, lengths) == 1
    assert batches.parts_of(255, lengths) == 1
    assert batches.parts_of(256, lengths) == 2
    assert batches.parts_of(10**6, lengths) == batches.MOST_PARTS
    assert batches.parts_of(10**6, None) == 1


@given(
    lanes=st.integers(1, 3),
    size=st.integers(1, 60),
    batch=st.integers(1, 17),
    parts=st.integers(1, 5),
    bucket=st.sampled_from([1, 16]),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_hold_every_row_of_the_step(lanes, size, batch, parts, bucket, epochs, seed):
    lengths = torch.randint(1, 200, (size,), generator=torch.Generator().manual_seed(seed))
    width = int(lengths.max())
    drawn = generators(lanes)
    orders = [batches.epoch_orders(size, drawn) for _ in range(epochs)]
    exact = [batches.plan(order, batch, lengths, bucket, width, parts) for order in orders]
    passes = [batches.joined(one) for one in batches.merged(exact, rare=2)]
    assert len({step for one in passes for step in one.steps}) <= batches.KINDS
    for order, one in zip(orders, passes, strict=True):
        expected = order.split(batch, dim=1)
        for line, step, rows in zip(one.rows, one.steps, expected, strict=True):
            assert batches.rows_of(step) == rows.shape[1]
            assert len(step) <= parts
            found = [
                batches.part_rows(line, step, lanes, part).view(lanes, -1)
                for part in range(len(step))
            ]
            assert torch.equal(torch.cat(found, 1).sort(1).values, rows.sort(1).values)
            for shape, part in zip(step, found, strict=True):
                assert part.shape[1] == shape.rows
                assert lengths[part].max() <= shape.length <= width


@given(batch=st.integers(2, 12), parts=st.integers(2, 4))
def test_parts_are_equal_and_sorted_by_length(batch, parts):
    lengths = torch.arange(batch).flip(0) + 1
    one = batches.plan(torch.arange(batch).expand(2, -1), batch, lengths, parts=parts)
    (step,) = one.steps
    ends = [shape.length for shape in step]
    assert ends == sorted(ends)
    assert ends[-1] == batch
    rows = [shape.rows for shape in step]
    assert len(rows) == min(parts, batch)
    assert sum(rows) == batch
    assert rows[-1] == min(rows) >= max(rows) - 1
    assert one.rows[0, :batch].tolist() == list(range(batch))[::-1]


def test_one_part_leaves_the_order():
    orders = torch.tensor([[3, 0, 2, 1]])
    assert torch.equal(batches.plan(orders, 4, torch.tensor([4, 3, 2, 1])).rows, orders)


def test_a_short_batch_has_its_share_of_the_parts():
    def rows(size: int) -> list[list[int]]:
        orders = torch.arange(size).expand(1, -1)
        planned = batches.plan(orders, 12, torch.arange(size) + 1, parts=4)
        return [[shape.rows for shape in step] for step in planned.steps]

    assert rows(12 + 11) == [[3, 3, 3, 3], [3, 3, 3, 2]]
    assert rows(12 + 3) == [[3, 3, 3, 3], [3]]
    assert rows(12 + 4) == [[3, 3, 3, 3], [2, 2]]
