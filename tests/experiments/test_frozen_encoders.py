"""The fused sums and norms of encoders against torch's own in float64, and whole encoders."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("triton", reason="Triton is not installed: encoders stay transformers' own")

from experiments import bases
from experiments.frozen import post_norm
from experiments.frozen.add_norm import add_norm, norm_alone
from experiments.frozen.mpnet import fuse_attention
from experiments.step import lighten
from tests.experiments.small_bases import SMALL, classifier

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
CLOSE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def norm(width: int, generator: torch.Generator) -> nn.LayerNorm:
    made = nn.LayerNorm(width, eps=1e-5, device=DEVICE).requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(torch.randn(width, generator=generator))
    return made


def in_double(made: nn.LayerNorm) -> nn.LayerNorm:
    return copy.deepcopy(made).double()


@torch.no_grad()
def error(ours: Tensor, true: Tensor) -> float:
    return ((ours.double() - true).norm() / true.norm().clamp_min(1e-30)).item()


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 9),
    width=st.sampled_from([1, 2, 31, 48, 64, 384, 768]),
    dtype=st.sampled_from(list(CLOSE)),
    level=st.sampled_from([0.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_sum_norm_and_gradients(rows, width, dtype, level, seed):
    generator = torch.Generator().manual_seed(seed)
    x, residual, gy, ghalf = (
        torch.randn(rows, 2, width, generator=generator).to(DEVICE) for _ in range(4)
    )
    x, ghalf, residual = x.to(dtype), ghalf.to(dtype), residual + level
    made = norm(width, generator)
    ours = [t.clone().requires_grad_() for t in (x, residual)]
    true = [t.double().requires_grad_() for t in (x, residual)]
    y, half = add_norm(*ours, made)
    torch.autograd.backward([y, half], [gy, ghalf])
    expected = in_double(made)(true[0] + true[1])
    expected.backward(gy.double() + ghalf.double())
    assert (y.dtype, half.dtype) == (torch.float32, dtype)
    # Rows far from zero lose as many digits as torch's fp32 sum does.
    lost = 20 if level else 1
    assert error(y, expected) < lost * CLOSE[torch.float32]
    assert error(half, expected) < lost * CLOSE[dtype]
    if width > 2:  # else the sums' gradient is rounding and no more
        assert error(ours[0].grad, true[0].grad) < lost * CLOSE[dtype]
        assert error(ours[1].grad, true[1].grad) < 5 * lost * CLOSE[torch.float32]


@pytest.mark.parametrize("read", ["y", "half"])
@pytest.mark.parametrize("needed", ["x", "residual"])
def test_what_is_not_read_or_not_needed(read, needed):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(6, 40, generator=generator).to(DEVICE) for name in ("x", "residual")
    }
    made = norm(40, generator)
    ours = {name: t.clone().requires_grad_(name == needed) for name, t in tensors.items()}
    both = dict(zip(("y", "half"), add_norm(ours["x"], ours["residual"], made), strict=True))
    both[read].square().sum().backward()
    true = {name: t.double().requires_grad_() for name, t in tensors.items()}
    in_double(made)(true["x"] + true["residual"]).square().sum().backward()
    for name, t in ours.items():
        assert (t.grad is None) == (name != needed)
    assert error(ours[needed].grad, true[needed].grad) < 1e-5


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(0, 9),
    width=st.sampled_from([3, 48, 128, 384]),
    given_dtype=st.sampled_from(list(CLOSE)),
    dtype=st.sampled_from(list(CLOSE)),
    seed=st.integers(0, 99),
)
def test_a_norm_alone(rows, width, given_dtype, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    x, gy = (torch.randn(rows, 2, width, generator=generator).to(DEVICE) for _ in range(2))
    made = norm(width, generator)
    ours = x.to(given_dtype).requires_grad_()
    y = norm_alone(ours, made, dtype)
    y.backward(gy.to(dtype))
    true = ours.detach().double().requires_grad_()
    expected = in_double(made)(true)
    expected.backward(gy.to(dtype).double())
    assert (y.dtype, ours.grad.dtype) == (dtype, given_dtype)
    assert error(y, expected) < CLOSE[dtype]
    assert error(ours.grad, true.grad) < 5 * CLOSE[given_dtype]


def test_no_rows_and_no_history():
    made = norm(16, torch.Generator().manual_seed(0))
    x = torch.randn(0, 16, device=DEVICE, requires_grad=True)
    y, _ = add_norm(x, torch.randn(0, 16, device=DEVICE), made)
    y.sum().backward()
    assert x.grad.shape == (0, 16)
    with torch.no_grad():
        y, half = add_norm(torch.ones(2, 16, device=DEVICE), torch.ones(2, 16, device=DEVICE), made)
    assert not y.requires_grad
    assert not half.requires_grad


def test_what_the_programs_would_misread_is_refused():
    made = norm(16, torch.Generator().manual_seed(0))
    x, full = (
        torch.ones(2, 16, device=DEVICE, dtype=torch.float16),
        torch.ones(2, 16, device=DEVICE),
    )
    with pytest.raises(ValueError, match="residual: expected torch"):
        add_norm(x, x, made)
    with pytest.raises(ValueError, match=r"residual: expected \(2, 16\) as x, got \(1, 16\)"):
        add_norm(x, full[:1], made)
    with pytest.raises(ValueError, match="x: expected 16 wide, got 8"):
        norm_alone(full[:, :8], made, torch.float16)
    with pytest.raises(ValueError, match="expected a frozen one"):
        norm_alone(full, made.requires_grad_(True), torch.float16)


def encoder(kind: str) -> nn.Module:
    model = classifier(kind).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name:  # not all ones and zeros
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
        if "dense.weight" in name or "value.weight" in name or name.endswith("v.weight"):
            parameter.requires_grad_(True)
    return (fuse_attention(model) if kind == "mpnet" else model).to(DEVICE)


def results(model: nn.Module, precision: torch.dtype | None) -> list[Tensor]:
    """Logits and gradients on a padded batch."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (3, 16), generator=generator).to(DEVICE)
    mask = (torch.arange(16) < torch.tensor([[16], [4], [11]])).long().to(DEVICE)
    model.zero_grad()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=precision is not None):
        logits = model(input_ids=ids, attention_mask=bases.additive_mask(mask)).logits.float()
    logits.square().sum().backward()
    return [logits, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("kind", [*post_norm.BERT, "mpnet"])
def test_encoders_are_as_near_the_truth_as_under_autocast_alone(kind):
    plain = encoder(kind)
    fused = post_norm.fuse_encoders(copy.deepcopy(plain))
    truth = results(copy.deepcopy(plain), None)
    theirs, ours = results(plain, torch.bfloat16), results(fused, torch.bfloat16)
    assert len(truth) >= 8
    changed = any(not torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert changed, "the fused way was not taken"
    for right, other, mine in zip(truth, theirs, ours, strict=True):
        assert error(mine, right.double()) < 1.5 * error(other, right.double()) + 0.01


def forwards(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("bert", {"hidden_dropout_prob": 0.1}),
        ("bert", {"is_decoder": True, "add_cross_attention": True}),
        ("distilbert", {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 48}),
    ],
)
def test_others_stay_transformers_own(kind, changes):
    from transformers import AutoConfig, AutoModel

    model = AutoModel.from_config(AutoConfig.for_model(kind, **{**SMALL, **changes}))
    model.requires_grad_(False)  # so that training norms are not the reason
    assert forwards(post_norm.fuse_encoders(model)) == []


def test_norms_that_train_stay_torch_s():
    model = encoder("bert").requires_grad_(True)
    assert forwards(post_norm.fuse_encoders(model)) == []
    assert forwards(post_norm.fuse_encoders(model.requires_grad_(False))) == ["bert.encoder"]


@pytest.mark.parametrize("kind", ["hook", "checkpoint", "no bias", "wrapped"])
def test_layers_that_somebody_watches_or_changed_stay(kind):
    model = encoder("bert").requires_grad_(False)
    layer = model.bert.encoder.layer[1]
    if kind == "hook":
        layer.register_forward_hook(lambda *_: None)
    elif kind == "checkpoint":
        layer.gradient_checkpointing = True
    elif kind == "no bias":
        layer.output.LayerNorm = nn.LayerNorm(32, bias=False).requires_grad_(False)
    else:
        layer.attention.output.LayerNorm = nn.Sequential(layer.attention.output.LayerNorm)
    assert forwards(post_norm.fuse_encoders(model)) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fuse", [True, False])
def test_only_bf16_on_a_gpu_is_fused(precision, fuse):
    fused = forwards(lighten(encoder("mpnet"), precision, fuse))
    wanted = ON_GPU and fuse and precision == "bf16"
    assert fused == (["mpnet.encoder"] if wanted else [])


def test_mpnet_s_bias_suits_fused_attention():
    """Torch's attention kernels take a mask that is dense in its last axis, and else none runs."""
    model = encoder("mpnet")
    x = torch.zeros(3, 16, 32, device=DEVICE)
    mask = bases.additive_mask(torch.ones(3, 16, dtype=torch.int64, device=DEVICE))
    for given_mask in (mask, None):
        assert model.mpnet.encoder.bias_of(x, given_mask).is_contiguous()
