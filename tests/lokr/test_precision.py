"""Dtypes of base and factors, autocast, recomputed forward passes."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lokr import LaneNoise, LoKrConfig, LoKrModel
from tests.lokr import architectures as arch
from tests.lokr.peers import LAYERS, Mlp, Net, adapt, adapt_with_peft, copy_to_peft, randomize


@pytest.mark.parametrize("knob", [{"r": 2}, {"r": 64}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer", LAYERS)
def test_fp32_factors_on_a_base_of_any_dtype(layer, dtype, knob):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    exact = adapt(Net(make()), target_modules=["layer"], **knob)
    randomize(exact)
    model = copy.deepcopy(exact)
    model.model.layer.base_layer.to(dtype)
    x = torch.randn(shape)
    out = model(x.to(dtype))
    assert out.dtype == dtype
    eps = torch.finfo(dtype).eps
    expected = exact(x).detach()
    assert_close(out.float(), expected, rtol=16 * eps, atol=16 * eps * float(expected.abs().max()))
    out.sum().backward()
    factors = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in factors)


def test_factors_are_fp32_whatever_the_base_as_in_peft():
    base = Mlp().to(torch.bfloat16)
    ours = adapt(base, r=2, target_modules=["up"])
    assert {p.dtype for p in ours.parameters() if p.requires_grad} == {torch.float32}
    theirs = peft.get_peft_model(base, peft.LoKrConfig(r=2, target_modules=["up"]))
    assert {p.dtype for p in theirs.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("layer", ["linear", "conv2d", "conv2d-groups", "conv1d"])
def test_autocast(layer):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    model = adapt(Net(make()), r=2, target_modules=["layer"])
    randomize(model)
    x = torch.randn(shape, requires_grad=True)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frozen = model.model.layer.base_layer(x)
        out = model(x)
    assert out.dtype == frozen.dtype == torch.bfloat16  # the adapter changes no dtype
    assert_close(out.float(), expected, rtol=0.1, atol=0.1 * float(expected.detach().abs().max()))
    out.float().square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


def test_the_scale_stays_exact_when_the_model_changes_dtype():
    # 1/3 in bf16 is off by 0.2 %.
    fields = {"target_modules": ["up"], "rank_dropout": 0.1}
    model = adapt(Mlp(), [LoKrConfig(r=3, alpha=1, **fields), LoKrConfig(r=3, alpha=2, **fields)])
    model.to(torch.bfloat16)
    adapter = model.model.blocks[0]["up"].adapter("default")
    assert adapter.lokr_w1.dtype == torch.bfloat16
    assert torch.equal(adapter.scale, torch.tensor([1 / 3, 2 / 3]))
    assert torch.equal(adapter.rank_drop, torch.tensor([0.1, 0.1]))


def test_a_pack_in_bf16_equals_its_lanes_alone_in_bf16():
    torch.manual_seed(0)
    base = Net(nn.Linear(48, 80))
    fields = {"target_modules": ["layer"], "init_weights": False}
    configs = [LoKrConfig(r=3, alpha=1, **fields), LoKrConfig(r=3, alpha=2, **fields)]

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    pack = LoKrModel(copy.deepcopy(base), configs, generator=[seeded(0), seeded(1)])
    pack.to(torch.bfloat16)
    x = torch.randn(4, 48, dtype=torch.bfloat16)
    for lane, config in enumerate(configs):
        alone = LoKrModel(copy.deepcopy(base), config, generator=seeded(lane)).to(torch.bfloat16)
        rows = x[2 * lane :][:2]
        assert_close(pack(x)[2 * lane :][:2], alone(rows), rtol=1e-2, atol=1e-2)


def test_delta_weight_of_bf16_factors_has_the_exact_scale():
    model = adapt(Net(nn.Linear(12, 20)), r=2, alpha=1, target_modules=["layer"])
    randomize(model)
    model.to(torch.bfloat16)
    values = {n: v.float() for n, v in model.model.layer.adapter("default").lane().items()}
    w2 = values["lokr_w2_a"] @ values["lokr_w2_b"]
    exact = torch.kron(values["lokr_w1"], w2) / 2
    assert_close(model.get_delta_weight()["layer"].float(), exact, rtol=0.02, atol=1e-3)


def test_bf16_forward_is_as_close_to_fp32_as_that_of_peft():
    # peft multiplies by ΔW in fp32, we by the factors in bf16: no worse at the precision of bf16.
    torch.manual_seed(0)
    base = Net(nn.Linear(96, 96))
    exact = adapt(base, r=4, target_modules=["layer"])
    randomize(exact)
    x = torch.randn(64, 96)
    expected = exact(x)
    base = base.to(torch.bfloat16)
    ours = adapt(base, r=4, target_modules=["layer"])
    ours.load_state_dict(exact.state_dict())
    theirs = adapt_with_peft(base, r=4, target_modules=["layer"])
    copy_to_peft(ours, theirs)

    def error(model: nn.Module) -> Tensor:
        return (model(x.to(torch.bfloat16)).float() - expected).norm()

    assert error(ours) < 2 * error(theirs)


# -- recomputed forward passes ------------------------------------------------------------------


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("noise", [None, LaneNoise([5])], ids=["torch", "LaneNoise"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_recomputes_the_same_masks(reentrant, noise):
    torch.manual_seed(0)
    model = adapt(Mlp(), r=2, target_modules=["up", "down"], rank_dropout=0.5, module_dropout=0.5)
    randomize(model)
    model.train().set_noise(noise)
    x = torch.randn(4, 12, requires_grad=True)

    def run(recompute: bool) -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        torch.manual_seed(1)
        out = checkpoint(model, x, use_reentrant=reentrant) if recompute else model(x)
        out.square().sum().backward()
        return out, gradients(model)

    assert_close(run(True), run(False))
    assert any(g.any() for g in gradients(model).values())


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_gradient_checkpointing_of_transformers():
    torch.manual_seed(0)
    model = adapt(
        arch.bert_classifier(), r=1, target_modules=["query", "dense"], rank_dropout=0.5
    ).train()
    randomize(model)
    ids = torch.randint(0, 50, (2, 7))
    calls = []
    model.model.bert.encoder.layer[0].attention.self.query.register_forward_hook(
        lambda *_: calls.append(1)
    )

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        calls.clear()
        torch.manual_seed(1)
        loss = model(ids, labels=torch.tensor([0, 1])).loss
        loss.backward()
        return loss, gradients(model)

    plain = run()
    assert len(calls) == 1
    model.gradient_checkpointing_enable()
    assert_close(run(), plain)
    assert len(calls) == 2


def test_scales_follow_factors_that_are_loaded_onto_a_meta_model():
    fields = {"r": 2, "alpha": 7, "target_modules": ["layer"]}
    real = adapt(Net(nn.Linear(12, 20)), **fields)
    randomize(real)
    with torch.device("meta"):
        loaded = adapt(Net(nn.Linear(12, 20)), **fields)
    loaded.load_state_dict(real.state_dict(), assign=True)
    x = torch.randn(3, 12)
    assert torch.equal(loaded(x), real(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_scales_keep_their_digits_when_all_buffers_are_cast(dtype):
    """As FSDP's mixed precision does."""
    model = adapt(Net(nn.Linear(12, 20)), r=3, alpha=7, target_modules=["layer"])
    randomize(model)
    x = torch.randn(3, 12)
    before = model(x)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(dtype)
    assert torch.equal(model(x), before)
