"""Where we differ from the peers on purpose: what the peer does, and why ours is right."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.pytorch_utils import Conv1D

from lokr import LoKrConfig, LoKrModel, count
from lokr.checkpoint import read
from tests.lokr import architectures as arch
from tests.lokr.peers import (
    Mlp,
    Net,
    adapt,
    adapt_with_peft,
    factors,
    in_lycoris,
    peers,
    peft_factors,
    quiet_about_rank,
    randomize,
)


def rearranged(delta: Tensor, a: int, c: int) -> Tensor:
    """ΔW (a·b, c·d, *k) as (a·c, b·d·k): of rank 1 exactly for a Kronecker product."""
    b, d = delta.shape[0] // a, delta.shape[1] // c
    blocks = delta.reshape(a, b, c, d, -1).transpose(1, 2)
    return blocks.reshape(a * c, -1).double()


@torch.no_grad()
def randomize_peft(model: nn.Module) -> None:
    for parameter in peft_factors(model).values():
        parameter.normal_()


# -- Conv1d with a full w2 ----------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 3])
def test_conv1d_with_a_full_w2_is_a_kronecker_product_in_lycoris_and_here_but_not_in_peft(kernel):
    torch.manual_seed(0)
    layer = nn.Conv1d(12, 20, kernel)
    ours, theirs = peers(Net(layer), r=64, alpha=64, target_modules=["layer"])
    delta = ours.get_delta_weight()["layer"]
    in_peft = theirs.model.layer.get_delta_weight("default")
    assert in_peft.shape == delta.shape
    assert torch.linalg.matrix_rank(rearranged(in_peft, 4, 3), rtol=1e-5) > 1
    assert torch.linalg.matrix_rank(rearranged(delta, 4, 3), rtol=1e-5) == 1
    values = {name.rpartition(".")[2]: v for name, v in factors(ours).items()}
    assert torch.equal(delta, in_lycoris(layer, values, r=64).get_weight(delta.shape))


@pytest.mark.parametrize("kernel", [1, 3])
def test_conv1d_with_a_full_w2_that_peft_trained_is_refused(kernel, tmp_path):
    base = Net(nn.Conv1d(12, 20, kernel))
    config = peft.LoKrConfig(r=64, target_modules=["layer"])
    peft.get_peft_model(copy.deepcopy(base), config).save_pretrained(tmp_path)
    with (
        quiet_about_rank(),
        pytest.raises(ValueError, match=r"layer \(1\): PEFT trained a Conv1d with a full w2"),
    ):
        LoKrModel.from_pretrained(base, tmp_path)


@pytest.mark.parametrize("kernel", [1, 3])
def test_conv1d_with_a_full_w2_warns_when_saved_and_comes_back(kernel, tmp_path):
    base = Net(nn.Conv1d(12, 20, kernel))
    ours = adapt(base, r=64, target_modules=["layer"])
    randomize(ours)
    with pytest.warns(UserWarning, match="PEFT .* computes another function"):
        ours.save_pretrained(tmp_path)
    with quiet_about_rank():
        again = LoKrModel.from_pretrained(base, tmp_path)
    assert torch.equal(again.get_delta_weight()["layer"], ours.get_delta_weight()["layer"])


# -- padding_mode -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d])
def test_padding_mode_is_that_of_the_frozen_layer_and_peft_ignores_it(conv, mode):
    torch.manual_seed(0)
    layer = conv(12, 20, 3, padding=1, padding_mode=mode)
    ours, theirs = peers(Net(layer), r=2, target_modules=["layer"])
    x = torch.randn(2, 12, *([6] * (layer.weight.dim() - 2)))
    unmerged = {"ours": ours(x), "peft": theirs(x)}
    ours.merge_adapter()
    theirs.merge_adapter()
    assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert_close(unmerged["ours"], ours(x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(unmerged["peft"], theirs(x), rtol=1e-2, atol=1e-2)


def test_padding_mode_is_ignored_by_lycoris_too():
    torch.manual_seed(0)
    layer = nn.Conv2d(12, 20, 3, padding=1, padding_mode="circular")
    ours = adapt(Net(layer), r=2, alpha=2, target_modules=["layer"])
    randomize(ours)
    values = {name.rpartition(".")[2]: v for name, v in factors(ours).items()}
    x = torch.randn(2, 12, 6, 6)
    expected = ours(x)
    frozen = copy.deepcopy(layer)
    frozen.weight.data += ours.get_delta_weight()["layer"].detach()
    assert_close(expected, frozen(x), rtol=1e-5, atol=1e-5)
    in_lycoris(layer, values, r=2).apply_to()
    assert not torch.allclose(layer(x), expected, rtol=1e-2, atol=1e-2)


# -- nn.MultiheadAttention ----------------------------------------------------------------------


class Attention(nn.Module):
    """Self-attention, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.up = nn.Linear(12, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.attention(x, x, x, need_weights=False)[0])


def test_an_adapter_on_out_proj_of_multihead_attention_has_no_effect_in_peft_and_is_refused():
    torch.manual_seed(0)
    base, x = Attention(), torch.randn(2, 5, 12)
    theirs = adapt_with_peft(base, r=1, target_modules=["out_proj"])
    randomize_peft(theirs)
    assert theirs.model.attention.out_proj.get_delta_weight("default").abs().max() > 0.1
    assert_close(theirs(x), base(x))  # silently nothing
    assert not theirs(x).requires_grad
    with pytest.raises(ValueError, match=r"'attention\.out_proj': nn\.MultiheadAttention .*never"):
        adapt(base, r=1, target_modules=["out_proj"])


def test_multihead_attention_itself_is_refused_with_the_reason():
    with pytest.raises(TypeError, match="'attention' is a MultiheadAttention; its projections are"):
        adapt(Attention(), target_modules=["attention"])


def test_all_linear_passes_over_what_multihead_attention_never_calls():
    config = {"r": 1, "target_modules": "all-linear"}
    assert [row.name for row in count(Attention(), LoKrConfig(**config))] == ["up"]
    theirs = adapt_with_peft(Attention(), **config)
    assert "attention.out_proj" in theirs.targeted_module_names


@pytest.fixture
def fast_path_off():
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def encoder_layer() -> nn.Module:
    torch.manual_seed(0)
    return Net(nn.TransformerEncoderLayer(12, 2, 20, dropout=0.0, batch_first=True)).eval()


def test_the_fast_path_of_transformer_encoder_layer_passes_over_adapters_in_peft(tmp_path):
    base, x = encoder_layer(), torch.randn(2, 5, 12)
    config = {"r": 2, "target_modules": ["linear1", "linear2"]}
    theirs = adapt_with_peft(base, **config)
    randomize_peft(theirs)
    assert_close(theirs(x), base(x))  # in evaluation silently nothing
    assert not torch.allclose(theirs.train()(x), base(x))
    with pytest.raises(ValueError, match=r"'layer\.linear1': in evaluation .*set_fastpath_enabled"):
        adapt(base, **config)
    peft.get_peft_model(copy.deepcopy(base), peft.LoKrConfig(**config)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'layer\.linear1': in evaluation"):
        LoKrModel.from_pretrained(base, tmp_path)


@pytest.mark.usefixtures("fast_path_off")
def test_without_the_fast_path_transformer_encoder_layer_is_adapted():
    base, x = encoder_layer(), torch.randn(2, 5, 12)
    ours, theirs = peers(base, r=2, target_modules=["linear1", "linear2"])
    assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)
    assert_close(ours(x), ours.train()(x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours(x), base(x))


# -- random numbers, compilation ----------------------------------------------------------------


def test_without_dropout_no_random_number_is_drawn_and_peft_draws_one_a_layer():
    x = torch.randn(4, 12)
    ours, theirs = peers(Mlp(), r=2, target_modules=["up", "down"])

    def draws(model: nn.Module) -> bool:
        before = torch.get_rng_state()
        model.train()(x)
        return not torch.equal(torch.get_rng_state(), before)

    assert draws(theirs)
    assert not draws(ours)


def test_training_compiles_to_one_graph_and_breaks_the_graph_in_peft():
    x = torch.randn(4, 12)
    ours, theirs = peers(Mlp(), r=2, target_modules=["up", "down"])
    expected = ours(x)
    torch._dynamo.reset()
    assert_close(torch.compile(ours.train(), fullgraph=True, backend="eager")(x), expected)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Data-dependent branching"):
        torch.compile(theirs.train(), fullgraph=True, backend="eager")(x)


# -- transformers' Conv1D -----------------------------------------------------------------------


def test_conv1d_of_gpt2_works_and_peft_cannot():
    torch.manual_seed(0)
    base = arch.gpt2().eval()
    config = {"r": 1, "target_modules": ["c_attn", "c_fc", "c_proj"]}
    with pytest.raises(TypeError, match=r"Conv1D.* not supported"):
        adapt_with_peft(base, **config)
    ours = adapt(base, **config)
    randomize(ours)
    ids = torch.randint(0, 50, (2, 6))
    logits = ours(ids).logits
    assert not torch.allclose(logits, base(ids).logits)
    for path, delta in ours.get_delta_weight().items():
        assert delta.shape == base.get_submodule(path).weight.shape  # (in, out) there
    ours.merge_adapter()
    assert_close(ours(ids).logits, logits, rtol=1e-4, atol=1e-5)


def test_conv1d_of_gpt2_is_a_linear_layer_whose_weight_lies_the_other_way(tmp_path):
    torch.manual_seed(0)
    base = Net(Conv1D(20, 12))
    ours = adapt(base, r=2, target_modules=["layer"])
    randomize(ours)
    twin = adapt(Net(nn.Linear(12, 20)), r=2, target_modules=["layer"])
    twin.load_state_dict(
        {k: v.mT if k.endswith("weight") else v for k, v in ours.state_dict().items()}
    )
    x = torch.randn(3, 12)
    assert_close(ours(x), twin(x))
    ours.save_pretrained(tmp_path)
    assert torch.equal(LoKrModel.from_pretrained(base, tmp_path)(x), ours(x))


# -- names --------------------------------------------------------------------------------------


class NamedW1(nn.Module):
    """A head whose name is that of a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(12, 20)
        self.w1 = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.w1(self.up(x))


def test_a_module_to_save_named_w1_works_and_peft_trips_over_its_own_names(tmp_path):
    torch.manual_seed(0)
    base, x = NamedW1(), torch.randn(4, 12)
    fields = {"r": 2, "target_modules": ["up"], "modules_to_save": ["w1"]}
    with pytest.raises(TypeError, match=r"modules_to_save cannot be applied to .*ParameterDict"):
        peft.get_peft_model(copy.deepcopy(base), peft.LoKrConfig(**fields))
    ours = adapt(base, **fields)
    randomize(ours)
    ours.save_pretrained(tmp_path)
    assert "w1.weight" in read(tmp_path)[1].tensors
    assert torch.equal(LoKrModel.from_pretrained(base, tmp_path)(x), ours(x))


def test_layers_to_transform_with_an_expression_is_ignored_by_peft_and_refused_here():
    fields = {"target_modules": ".*query", "layers_to_transform": [1]}
    theirs = adapt_with_peft(arch.on_meta(arch.bert), **fields)
    assert any("layer.0" in name for name in theirs.targeted_module_names)
    with pytest.raises(ValueError, match="a regular expression names its layers itself"):
        LoKrConfig(**fields)


def test_layers_to_transform_with_all_linear_is_ignored_by_peft_and_obeyed_here():
    fields = {"target_modules": "all-linear", "layers_to_transform": [1]}
    model = arch.on_meta(arch.bert)
    theirs = adapt_with_peft(model, **fields)
    assert any("layer.0" in name for name in theirs.targeted_module_names)
    ours = [row.name for row in count(model, LoKrConfig(**fields))]
    assert len(ours) == 6
    assert all("layer.1" in name for name in ours)


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_fits_nothing_is_a_warning_in_peft_and_refused_here(field):
    fields = {"r": 2, "target_modules": ["up"], field: {"upp": 1}}
    with pytest.warns(RuntimeWarning, match=f"{field} keys did not match"):
        adapt_with_peft(Mlp(), **fields)
    with pytest.raises(ValueError, match=rf"{field}\['upp'\]: matches none of the 2 .*blocks.0.up"):
        adapt(Mlp(), **fields)


# -- dropouts, merging --------------------------------------------------------------------------


def test_all_rows_dropped_and_rescaled_is_zero_and_not_a_number_in_peft():
    torch.manual_seed(0)
    fields = {
        "r": 1,
        "target_modules": ["layer"],
        "rank_dropout": 0.999,
        "rank_dropout_scale": True,
        "init_weights": False,
    }
    base, x = Net(nn.Linear(6, 4)), torch.randn(3, 6)
    ours, theirs = peers(base, **fields)
    assert theirs.train()(x).isnan().all()
    x.requires_grad_()
    output = ours.train()(x)
    assert torch.equal(output, base(x))
    output.sum().backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters() if p.requires_grad)


def test_merging_in_training_mode_has_no_mask_in_it():
    # peft 0.18 baked one in; 0.21 does not.
    ours = adapt(Mlp(), r=2, target_modules=["up"], rank_dropout=0.9)
    randomize(ours)
    weights = []
    for training in (True, False):
        ours.train(training).merge_adapter()
        weights.append(ours.model.blocks[0]["up"].weight.clone())
        ours.unmerge_adapter()
    assert torch.equal(*weights)
    delta = ours.train().get_delta_weight()["blocks.0.up"]
    assert delta.abs().sum(1).min() > 0


def test_unmerge_restores_a_bf16_weight_and_leaves_rounding_behind_in_peft():
    torch.manual_seed(0)
    base = Mlp().to(torch.bfloat16)
    ours, theirs = peers(base, r=2, target_modules=["up"])
    for model in (ours, theirs):
        model.merge_adapter()
        model.unmerge_adapter()
    weight = base.blocks[0]["up"].weight
    assert not torch.equal(theirs.model.blocks[0]["up"].base_layer.weight, weight)
    assert torch.equal(ours.model.blocks[0]["up"].weight, weight)


def test_a_small_delta_weight_survives_in_bf16_and_most_of_it_is_lost_in_lycoris():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64, bias=False)
    layer.weight.data.fill_(1.0)
    layer.to(torch.bfloat16)
    ours = adapt(Net(layer), r=2, alpha=2, target_modules=["layer"])
    randomize(ours)
    with torch.no_grad():
        ours.model.layer.adapter("default").lokr_w1.mul_(1e-3)
    values = {name.rpartition(".")[2]: v for name, v in factors(ours).items()}
    # One-hot inputs read ΔW back; the frozen output would round it away, so it is left out.
    x = torch.eye(64, dtype=torch.bfloat16)
    wrapper = ours.model.layer
    delta = wrapper.product(x, wrapper.adapter("default").factors()).float().mT
    exact = ours.get_delta_weight()["layer"]
    assert_close(delta, exact, rtol=0.05, atol=1e-6)
    peer = in_lycoris(layer, values, r=2)
    new_weight = layer.weight + peer.get_weight((64, 64)).to(torch.bfloat16)
    lost = ((new_weight - layer.weight) == 0) & (exact != 0)
    assert lost.float().mean() > 0.5


# -- what is materialized -----------------------------------------------------------------------


def largest_saved(model: nn.Module, x: Tensor) -> int:
    """Elements of the largest tensor that the forward pass keeps, weights of the base left out."""
    frozen = {p.data_ptr() for p in model.parameters()}
    sizes = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in frozen:
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x)
    return max(sizes)


@pytest.mark.parametrize("knob", [{"r": 2}, {"r": 64}])
@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Linear(96, 80), (1, 96)), (nn.Conv2d(96, 80, 3), (1, 96, 3, 3))]
)
def test_delta_weight_is_kept_for_the_backward_pass_in_peft_and_never_here(layer, shape, knob):
    ours, theirs = peers(Net(layer), target_modules=["layer"], **knob)
    x = torch.randn(shape, requires_grad=True)
    assert largest_saved(theirs, x) >= layer.weight.numel()
    assert largest_saved(ours, x) < layer.weight.numel() / 2
