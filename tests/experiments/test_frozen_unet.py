"""The fused group norm against torch's own in float64, and whole U-Nets."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("triton", reason="Triton is not installed: U-Nets stay diffusers' own")
pytest.importorskip("diffusers", reason="the extra 'diffusion' is not installed")

from experiments.frozen.group_norm import Cut, cut, group_norm
from experiments.frozen.unet import fuse_unets
from experiments.step import lighten
from experiments.tasks.emoji import unet
from tests.hopper import printed_by

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
BLOCKS, TOKENS = 11, 7 * (1 + 3)
"""Norms of the base: a residual block's two are one place, a transformer has one and three more."""
CLOSE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@torch.no_grad()
def error(ours: Tensor, true: Tensor) -> float:
    return ((ours.double() - true).norm() / true.norm().clamp_min(1e-30)).item()


def norm(groups: int, channels: int, generator: torch.Generator) -> nn.GroupNorm:
    made = nn.GroupNorm(groups, channels, device=DEVICE).requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(torch.randn(channels, generator=generator))
    return made


@settings(max_examples=4 if ON_GPU else 25)  # a GPU compiles each
@given(
    n=st.integers(0, 3),
    groups=st.sampled_from([1, 3, 4, 32]),
    each=st.sampled_from([1, 3, 4, 7]),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    silu=st.booleans(),
    dtype=st.sampled_from(list(CLOSE)),
    level=st.sampled_from([0.0, 30.0]),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_output_and_gradient(n, groups, each, size, silu, dtype, level, channels_last, seed):
    assume(n * each * size[0] * size[1] != 1)  # torch refuses it
    generator = torch.Generator().manual_seed(seed)
    shape = (n, groups * each, *size)
    x = (torch.randn(shape, generator=generator) + level).to(DEVICE, dtype)
    gy = torch.randn(shape, generator=generator).to(DEVICE, dtype)
    made = norm(groups, shape[1], generator)
    ours = x.clone().requires_grad_()
    given_x = ours.contiguous(memory_format=torch.channels_last) if channels_last else ours
    y = group_norm(given_x, made, silu, dtype)
    y.backward(gy)
    true = x.double().requires_grad_()
    z = copy.deepcopy(made).double()(true)
    z = F.silu(z) if silu else z
    z.backward(gy.double())
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    # Numbers far from zero lose digits before anyone normalizes them: fp32 has 24 bits.
    slack = 20 if level else 1
    assert error(y, z) <= slack * CLOSE[dtype]
    if each * size[0] * size[1] > 4:  # else a group is nearly constant, its gradient rounding
        assert error(ours.grad, true.grad) <= 5 * slack * CLOSE[dtype]


@given(pixels=st.integers(1, 5000), channels=st.integers(1, 2000))
def test_tiles_share_a_picture_out_evenly(pixels, channels):
    q, k, r = cut(pixels, channels)
    assert q * k * r == pixels
    assert r & (r - 1) == 0
    assert r * channels <= 8192 or r == 1
    assert q <= 32


def test_common_pictures_are_cut_into_long_tiles():
    assert cut(32 * 32, 96) == Cut(16, 1, 64)
    assert cut(8 * 8, 256) == Cut(2, 1, 32)
    assert cut(64 * 64, 320) == Cut(32, 8, 16)


@pytest.mark.skipif(ON_GPU, reason="a GPU compiles them in the tests here")
def test_programs_compile_for_an_h100_and_read_sixteen_bytes_at_a_time():
    lines = printed_by("tests.experiments.hopper")
    assert len(lines) == 4 * 6 + 3 * 3
    for line in lines:
        assert line["shared"] <= 64 * 1024, line
        assert line["wide"] or line["program"].startswith("gather"), line


@pytest.mark.parametrize("silu", [True, False])
def test_every_output_is_written(silu, monkeypatch):
    made = norm(4, 12, torch.Generator().manual_seed(0))
    x = torch.randn(2, 12, 5, 4, device=DEVICE)
    monkeypatch.setattr(torch, "empty_like", lambda t, **kw: torch.full_like(t, torch.nan, **kw))
    monkeypatch.setattr(
        Tensor, "new_empty", lambda t, *size, **kw: t.new_full(size, torch.nan, **kw)
    )
    leaf = x.clone().requires_grad_()
    y = group_norm(leaf, made, silu, torch.float32)
    y.sum().backward()
    assert y.isfinite().all()
    assert leaf.grad.isfinite().all()


@cache
def base(**changes: object) -> nn.Module:
    """A small U-Net with norms that are not all ones and zeros; some weights train."""
    torch.manual_seed(0)
    small = {
        **unet.CONFIG,
        "block_out_channels": [16, 32, 32],
        "norm_num_groups": 8,
        "sample_size": 8,
        "cross_attention_dim": 24,
        "projection_class_embeddings_input_dim": 24,
        **changes,
    }
    model: nn.Module = unet.build(small).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
        if name.endswith(("conv1.weight", "to_q.weight", "time_emb_proj.weight")):
            parameter.requires_grad_(True)
    return model.to(DEVICE)


def results(model: nn.Module, low: bool) -> list[Tensor]:
    """The answer and all gradients."""
    generator = torch.Generator().manual_seed(1)
    x, states, pooled = (
        torch.randn(shape, generator=generator).to(DEVICE)
        for shape in ((2, 12, 8, 8), (2, 5, 24), (2, 24))
    )
    model.to(memory_format=torch.channels_last).train()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=low):
        t = torch.tensor([3, 900], device=DEVICE)
        answer = model(x, t, encoder_hidden_states=states, class_labels=pooled)[0].float()
    answer.square().sum().backward()
    return [answer, *(p.grad for p in model.parameters() if p.grad is not None)]


def fused_of(model: nn.Module) -> int:
    return sum("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("linear", [False, True])
def test_u_nets_are_as_near_the_truth_as_under_autocast_alone(linear):
    plain = base(use_linear_projection=linear)
    fused = fuse_unets(copy.deepcopy(plain))
    assert fused_of(fused) == BLOCKS + TOKENS + 2  # and the end: a norm and SiLU
    truth = results(copy.deepcopy(plain), low=False)
    theirs, ours = results(copy.deepcopy(plain), low=True), results(fused, low=True)
    assert len(truth) > 20
    for right, other, mine in zip(truth, theirs, ours, strict=True):
        assert error(mine, right.double()) < 1.5 * error(other, right.double()) + 0.01


def test_without_autocast_the_numbers_stay(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # a GPU's convolutions, in fp32
    fused = fuse_unets(copy.deepcopy(base()))
    theirs, ours = results(copy.deepcopy(base()), low=False), results(fused, low=False)
    for other, mine in zip(theirs, ours, strict=True):
        assert error(mine, other.double()) < 1e-4


def test_recomputed_passes_give_the_same_numbers():
    fused = fuse_unets(copy.deepcopy(base()))
    kept = results(copy.deepcopy(fused), low=True)
    again = fuse_unets(copy.deepcopy(base()))
    again.enable_gradient_checkpointing()
    for first, second in zip(kept, results(again, low=True), strict=True):
        assert torch.equal(first, second)


def test_pictures_stay_channels_last_through_a_block():
    fused = fuse_unets(copy.deepcopy(base()))
    block, transformer = fused.down_blocks[1].resnets[0], fused.down_blocks[1].attentions[0]
    x = torch.randn(2, 16, 8, 8, device=DEVICE).to(memory_format=torch.channels_last)
    fused.to(memory_format=torch.channels_last).train()
    y = block(x, torch.randn(2, 64, device=DEVICE))
    states = torch.randn(2, 5, 24, device=DEVICE)
    z = transformer(y, encoder_hidden_states=states, return_dict=False)[0]
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert z.is_contiguous(memory_format=torch.channels_last)


def test_what_trains_or_drops_out_stays_diffusers_own():
    assert fused_of(fuse_unets(copy.deepcopy(base()).requires_grad_(True))) == 0
    assert fused_of(fuse_unets(copy.deepcopy(base(dropout=0.1)))) == TOKENS + 2
    assert fused_of(fuse_unets(copy.deepcopy(base(act_fn="gelu")))) == TOKENS
    shifted = copy.deepcopy(base(resnet_time_scale_shift="scale_shift"))
    assert fused_of(fuse_unets(shifted)) == TOKENS + 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_bf16_on_a_gpu_is_fused(precision):
    fused = fused_of(lighten(copy.deepcopy(base()), precision))
    assert fused == (BLOCKS + TOKENS + 2 if ON_GPU and precision == "bf16" else 0)
