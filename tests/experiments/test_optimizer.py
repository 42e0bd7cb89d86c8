"""The lane optimizer against torch.optim.AdamW with clip_grad_norm_, lane by lane."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from experiments.optimizer import ALIGNED, LaneAdamW, LaneParameters, schedule, share_of_peak

SHAPES = [(3, 2), (4,), (2, 2, 2)]


def lane_copies(parameters: list[nn.Parameter], lane: int) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach()[lane].clone()) for p in parameters]


@settings(max_examples=25)
@given(
    rates=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=4),
    decay=st.floats(0.0, 1.0),
    clip=st.floats(1e-3, 1e3),
    seed=st.integers(0, 999),
)
def test_equals_torch_lane_by_lane(rates, decay, clip, seed):
    torch.manual_seed(seed)
    lanes, steps = len(rates), 5
    stacked = [nn.Parameter(torch.randn(lanes, *shape)) for shape in SHAPES]
    apart = [lane_copies(stacked, lane) for lane in range(lanes)]
    shares = schedule(steps, warmup=0.4)
    ours = LaneAdamW(
        LaneParameters(stacked, lanes, stacked=True), rates, [decay] * lanes, [clip] * lanes, shares
    )
    theirs = [
        torch.optim.AdamW(own, lr=rate, weight_decay=decay)
        for own, rate in zip(apart, rates, strict=True)
    ]
    for share in shares:
        gradients = [torch.randn(lanes, *shape) for shape in SHAPES]
        for parameter, gradient in zip(stacked, gradients, strict=True):
            parameter.grad = gradient.clone()
        ours.step()
        for lane, (own, optimizer) in enumerate(zip(apart, theirs, strict=True)):
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.grad = gradient[lane].clone()
            nn.utils.clip_grad_norm_(own, clip)
            optimizer.param_groups[0]["lr"] = rates[lane] * share
            optimizer.step()
    for lane, own in enumerate(apart):
        for parameter, mine in zip(own, stacked, strict=True):
            torch.testing.assert_close(
                mine.detach()[lane], parameter.detach(), rtol=2e-5, atol=1e-6
            )


def test_a_plain_model_is_one_lane():
    plain = nn.Linear(3, 2)
    before = {n: p.detach().clone() for n, p in plain.named_parameters()}
    parameters = LaneParameters(list(plain.parameters()), lanes=1, stacked=False)
    assert parameters.values.shape == (1, 2 * ALIGNED)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, before[name])
    with pytest.raises(ValueError, match="no lane axis"):
        LaneParameters(list(plain.parameters()), lanes=2, stacked=False)


def test_tensors_are_views_that_begin_where_programs_read_fastest():
    stacked = [nn.Parameter(torch.randn(3, *shape)) for shape in [(5, 7), (16,), (1,), (2, 24)]]
    before = [p.detach().clone() for p in stacked]
    parameters = LaneParameters(stacked, 3, stacked=True)
    for tensor, values in zip(stacked, before, strict=True):
        assert torch.equal(tensor, values)
        assert tensor.data_ptr() % (4 * ALIGNED) == parameters.values.data_ptr() % (4 * ALIGNED)
        assert tensor.stride(0) == parameters.values.shape[1]
        assert tensor.stride(0) % ALIGNED == 0
    assert parameters.values.square().sum() == pytest.approx(
        sum(values.square().sum().item() for values in before), rel=1e-6
    )  # nothing but zeros between them


def test_zero_gradients_leave_zeros():
    padded = nn.Parameter(torch.zeros(2, 3))
    optimizer = LaneAdamW(LaneParameters([padded], 2, True), [1.0] * 2, [0.1] * 2, [1.0] * 2, [1.0])
    optimizer.step()
    assert torch.equal(padded.detach(), torch.zeros(2, 3))


def test_a_lane_of_nans_stays_alone():
    stacked = nn.Parameter(torch.ones(2, 3))
    optimizer = LaneAdamW(
        LaneParameters([stacked], 2, True), [0.1] * 2, [0.0] * 2, [1.0] * 2, [1.0]
    )
    stacked.grad = torch.tensor([[float("nan")] * 3, [1.0] * 3])
    optimizer.step()
    assert stacked.detach()[0].isnan().all()
    assert stacked.detach()[1].isfinite().all()


def test_a_tensor_that_the_loss_does_not_reach_has_zero_gradients():
    reached, missed = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 4))
    parameters = LaneParameters([reached, missed], 2, True)
    for _ in range(2):
        (2 * reached).sum().backward()
        gradients = parameters.take_gradients()
        row = torch.zeros(2 * ALIGNED)
        row[:3] = 2.0
        assert torch.equal(gradients, row.expand(2, -1))
        assert reached.grad is None


def test_after_the_last_step_of_the_schedule_there_is_none():
    weight = nn.Parameter(torch.ones(1, 2))
    optimizer = LaneAdamW(LaneParameters([weight], 1, True), [0.1], [0.0], [1.0], [1.0])
    optimizer.step()
    assert optimizer.done.tolist() == [1]
    with pytest.raises(IndexError):
        optimizer.step()


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.99))
def test_schedule_rises_to_one_and_falls(steps, warmup):
    shares = schedule(steps, warmup)
    assert shares == [share_of_peak(step, steps, warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    assert max(shares) == pytest.approx(1.0)
    top = shares.index(max(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)
