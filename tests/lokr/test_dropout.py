"""``rank_dropout`` drops rows of ΔW, ``module_dropout`` the whole adapter; in training only."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.testing import assert_close

from lokr import LaneNoise, LoKrConfig, LoKrModel
from tests.lokr.peers import Net, adapt, randomize

STEPS = 400


def adapted(layer: nn.Module, **fields) -> LoKrModel:
    torch.manual_seed(0)
    model = adapt(Net(layer), r=2, target_modules=["layer"], **fields)
    randomize(model)
    return model.train()


def delta(model: LoKrModel, x: Tensor) -> Tensor:
    """What the adapter adds."""
    with torch.no_grad():
        return model(x) - model.model.layer.base_layer(x)


def plausible(hits: int, trials: int, chance: float) -> bool:
    return stats.binomtest(hits, trials, chance).pvalue > 0.001


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_rank_dropout_drops_rows_with_its_chance(chance):
    model = adapted(nn.Linear(12, 20), rank_dropout=chance)
    full = delta(model.eval(), x := torch.randn(6, 12))
    model.train()
    dropped = 0
    for _ in range(STEPS // 10):
        out = delta(model, x)
        gone = (out.abs() < 1e-5).all(0)  # (20,)
        assert_close(out[:, ~gone], full[:, ~gone], rtol=1e-4, atol=1e-5)  # unscaled
        dropped += int(gone.sum())
    assert plausible(dropped, STEPS // 10 * 20, chance)


def test_rank_dropout_scale_divides_by_the_share_that_is_left():
    model = adapted(nn.Linear(12, 20), rank_dropout=0.4, rank_dropout_scale=True)
    full = delta(model.eval(), x := torch.randn(6, 12))
    model.train()
    for _ in range(20):
        out = delta(model, x)
        kept = (out.abs() > 1e-5).any(0)
        scale = 20 / kept.sum()
        assert_close(out[:, kept], full[:, kept] * scale, rtol=1e-4, atol=1e-4)


def test_rank_dropout_drops_whole_channels_of_a_convolution():
    model = adapted(nn.Conv2d(12, 20, 3), rank_dropout=0.5)
    out = delta(model, torch.randn(3, 12, 6, 6))
    gone = (out.abs() < 1e-4).all(dim=(0, 2, 3))
    kept = (out.abs() > 1e-4).any(dim=(0, 2, 3))
    assert (gone ^ kept).all()
    assert 2 <= gone.sum() <= 18


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(12, 20), (12,)),
        (nn.Linear(12, 20), (0, 12)),
        (nn.Linear(12, 20), (2, 3, 4, 12)),
        (nn.Conv1d(12, 20, 3), (12, 6)),
        (nn.Conv2d(12, 20, 3), (12, 6, 5)),
        (nn.Conv2d(12, 20, 3), (0, 12, 6, 5)),
    ],
)
def test_dropouts_take_an_input_of_any_dimensions(layer, shape):
    model = adapted(layer, rank_dropout=0.5, module_dropout=0.01)
    x = torch.randn(shape)
    batched = x if len(shape) > layer.weight.dim() - 1 or shape[0] == 0 else x.unsqueeze(0)
    torch.manual_seed(1)
    out = model(x)
    assert out.shape == model.model.layer.base_layer(x).shape
    torch.manual_seed(1)
    assert_close(model(batched).reshape(out.shape), out)


def test_module_dropout_skips_the_adapter_with_its_chance_and_does_not_rescale():
    model = adapted(nn.Linear(12, 20), module_dropout=0.3)
    full = delta(model.eval(), x := torch.randn(2, 12))
    model.train()
    skipped = 0
    for _ in range(STEPS):
        out = delta(model, x)
        if out.abs().max() < 1e-6:
            skipped += 1
        else:
            assert_close(out, full)
    assert plausible(skipped, STEPS, 0.3)


@pytest.mark.parametrize("noise", [None, LaneNoise([0])], ids=["torch", "LaneNoise"])
def test_the_two_dropouts_are_independent(noise):
    model = adapted(nn.Linear(12, 20), rank_dropout=0.5, module_dropout=0.5)
    model.set_noise(noise)
    x = torch.randn(2, 12)
    kept, dropped = 0, 0
    for _ in range(STEPS):
        out = delta(model, x)
        kept += bool(out.abs().max() > 1e-6)
        dropped += bool(out.abs().max() > 1e-6 and out[:, 0].abs().max() < 1e-6)
        if noise is not None:
            noise.advance()
    assert plausible(kept, STEPS, 0.5)
    assert plausible(dropped, kept, 0.5)


def test_no_dropout_in_evaluation():
    layer = nn.Linear(12, 20)
    model = adapted(layer, rank_dropout=0.9, module_dropout=0.9)
    plain = adapted(layer)
    x = torch.randn(2, 12)
    before = torch.get_rng_state()
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropouts_repeat_under_a_seed_of_torch():
    model = adapted(nn.Linear(12, 20), rank_dropout=0.5, module_dropout=0.5)
    x = torch.randn(2, 12)

    def run() -> Tensor:
        torch.manual_seed(4)
        return torch.stack([model(x) for _ in range(5)])

    assert torch.equal(run(), run())


def test_dropouts_from_lane_noise_leave_torch_alone_and_change_by_step():
    model = adapted(nn.Linear(12, 20), rank_dropout=0.5)
    noise = LaneNoise([0])
    model.set_noise(noise)
    x = torch.randn(2, 12)
    before = torch.get_rng_state()
    first = model(x)
    assert torch.equal(model(x), first)
    noise.advance()
    assert not torch.equal(model(x), first)
    assert torch.equal(torch.get_rng_state(), before)
    model.set_noise(None)
    model(x)
    assert not torch.equal(torch.get_rng_state(), before)


def test_each_lane_has_its_own_rates():
    torch.manual_seed(0)
    rates = [0.0, 0.5, 0.9]
    base = Net(nn.Linear(48, 80))
    fields = {"r": 2, "target_modules": ["layer"]}
    pack = adapt(base, [LoKrConfig(rank_dropout=p, **fields) for p in rates])
    randomize(pack)
    noise = LaneNoise([0, 1, 2])
    pack.set_noise(noise)
    x = torch.randn(6, 48)
    full = pack.eval()(x)
    first = pack.train()(x)
    assert_close(first[:2], full[:2], rtol=1e-5, atol=1e-5)
    dropped = [0, 0, 0]
    for _ in range(10):
        out = pack(x)
        assert torch.equal(out[:2], first[:2])  # untouched, bit for bit
        for lane, rows in enumerate((out - base(x)).chunk(3)):
            dropped[lane] += int((rows.abs() < 1e-5).all(0).sum())
        noise.advance()
    assert dropped[0] == 0
    assert all(plausible(dropped[lane], 800, rates[lane]) for lane in (1, 2))


def test_a_dropped_row_gets_no_gradient():
    model = adapted(nn.Linear(12, 20, bias=False), rank_dropout=0.5)
    x = torch.randn(5, 12)
    out = model(x)
    gone = ((out - model.model.layer.base_layer(x)).abs() < 1e-6).all(0)
    assert gone.any()
    (out * gone).sum().backward()
    assert all(not p.grad.any() for p in model.parameters() if p.requires_grad)
