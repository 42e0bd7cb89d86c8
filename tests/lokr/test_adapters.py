"""Several adapters on one model: switch, disable, delete, merge, unload."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lokr import LoKrConfig, LoKrModel
from lokr.layers import LoKrLayer
from tests.lokr import architectures as arch
from tests.lokr.peers import Convs, Mlp, Net, adapt, quiet_about_rank, randomize

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
UP = LoKrConfig(r=2, target_modules=["up"])
DOWN = LoKrConfig(r=1, alpha=2, target_modules=["down", "0.up"])


@pytest.fixture
def base() -> nn.Module:
    torch.manual_seed(0)
    return Mlp()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(base: nn.Module) -> LoKrModel:
    """Two adapters, ``a`` active."""
    model = adapt(base, {"a": UP, "b": DOWN})
    randomize(model)
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lokr_" not in n}


def check_base(base: nn.Module, model: LoKrModel) -> None:
    """The frozen weights are those of the base, bit for bit."""
    for name, plain in weights(base).items():
        path, _, kind = name.rpartition(".")
        assert torch.equal(getattr(model.model.get_submodule(path), kind), plain)


def by_hand(base: nn.Module, model: LoKrModel, *names: str) -> nn.Module:
    """The base with the named adapters' ΔW added."""
    plain = copy.deepcopy(base)
    for name in names:
        for path, delta in model.get_delta_weight(name).items():
            plain.get_submodule(path).weight.data += delta.detach()
    return plain


@pytest.mark.parametrize("names", [["a"], ["b"], ["a", "b"], ["b", "a"], []])
def test_the_active_adapters_add_up_and_only_they_train(base, model, x, names):
    model.set_adapter(names)
    assert_close(model(x), by_hand(base, model, *names)(x), **CLOSE)
    for name, parameter in model.named_parameters():
        active = any(f"adapters.{n}." in name for n in names)
        assert parameter.requires_grad == active


def test_the_first_adapter_is_active_and_a_new_one_is_not(model, base, x):
    assert model.active_adapters == ["a"]
    before = model(x)
    with quiet_about_rank():
        model.add_adapter("c", LoKrConfig(r=1, target_modules=["head"], init_weights=False))
    assert torch.equal(model(x), before)
    model.set_adapter("c")
    assert_close(model(x), by_hand(base, model, "c")(x), **CLOSE)


def test_the_base_is_frozen_but_for_nothing(model):
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lokr_" in name for name in trainable)


def test_a_gradient_step_moves_only_the_active_adapter(model, x):
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(x).square().sum().backward()
    optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert all(".adapters.a." in key for key in moved)


def test_inference_mode_trains_nothing(base):
    model = adapt(base, r=2, target_modules=["up"], inference_mode=True)
    assert not any(p.requires_grad for p in model.parameters())


# -- disable ------------------------------------------------------------------------------------


def test_disable_gives_the_base_and_comes_back(base, model, x):
    before = model(x)
    with model.disable_adapter():
        assert torch.equal(model(x), base(x))
    assert torch.equal(model(x), before)


def test_disable_takes_merged_weights_out_and_puts_them_back(base, model, x):
    model.merge_adapter(["a", "b"])
    before = model(x)
    with model.disable_adapter():
        assert torch.equal(model(x), base(x))
        assert model.merged_adapters == []
    assert model.merged_adapters == ["a", "b"]
    assert torch.equal(model(x), before)


def test_disable_comes_back_after_an_exception(model, x):
    before = model(x)
    with pytest.raises(RuntimeError, match="inside"), model.disable_adapter():
        raise RuntimeError("inside")
    assert torch.equal(model(x), before)


def test_disable_inside_disable_stays_disabled(base, model, x):
    with model.disable_adapter():
        with model.disable_adapter():
            pass
        assert torch.equal(model(x), base(x))
    assert not torch.equal(model(x), base(x))


def test_disable_by_hand_outlives_the_context(base, model, x):
    model.disable_adapter_layers()
    with model.disable_adapter():
        pass
    assert torch.equal(model(x), base(x))
    model.enable_adapter_layers()
    assert not torch.equal(model(x), base(x))


def test_disable_uses_the_original_of_a_saved_module(base, x):
    model = adapt(base, r=2, target_modules=["up"], modules_to_save=["head"])
    randomize(model)
    assert not torch.equal(model(x), base(x))
    with model.disable_adapter():
        assert torch.equal(model(x), base(x))


# -- delete -------------------------------------------------------------------------------------


def test_delete_leaves_the_others(base, model, x):
    model.set_adapter(["a", "b"])
    model.delete_adapter("a")
    assert list(model.peft_config) == ["b"]
    assert model.active_adapters == ["b"]
    assert_close(model(x), by_hand(base, model, "b")(x), **CLOSE)
    assert not any(".a." in name for name in model.state_dict())


def test_delete_takes_a_merged_adapter_out_of_the_weights(base, model, x):
    model.merge_adapter(["a", "b"])
    model.delete_adapter("a")
    assert model.merged_adapters == ["b"]
    assert_close(model(x), by_hand(base, model, "b")(x), **CLOSE)
    model.unmerge_adapter()
    check_base(base, model)


def test_delete_the_last_and_add_it_again(base, model, x):
    model.delete_adapter("a")
    model.delete_adapter("b")
    assert torch.equal(model(x), base(x))
    model.add_adapter("a", LoKrConfig(r=1, target_modules=["up"], init_weights=False))
    model.set_adapter("a")
    assert_close(model(x), by_hand(base, model, "a")(x), **CLOSE)


def test_delete_removes_the_trained_copy_of_a_saved_module(base, x):
    model = adapt(base, r=2, target_modules=["up"], modules_to_save=["head"])
    randomize(model)
    model.delete_adapter("default")
    assert torch.equal(model(x), base(x))


# -- merge --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_merge_and_unmerge(base, x, names, dtype):
    base = base.to(dtype)
    model = adapt(base, {"a": UP, "b": DOWN})
    randomize(model)
    model.set_adapter(names)
    x = x.to(dtype)
    frozen, before = weights(model), model(x)
    model.merge_adapter()
    assert model.merged_adapters == names
    loose = {"rtol": 0.05, "atol": 0.3} if dtype != torch.float32 else CLOSE
    assert_close(model(x), before, **loose)
    model.unmerge_adapter()
    assert model.merged_adapters == []
    assert torch.equal(model(x), before)
    for name, values in weights(model).items():
        assert torch.equal(values, frozen[name])


def test_merge_twice_adds_once(model, x):
    model.merge_adapter()
    first = model(x)
    model.merge_adapter()
    assert torch.equal(model(x), first)
    model.merge_adapter(["b"])
    assert model.merged_adapters == ["a", "b"]


def test_merge_one_after_the_other_equals_merge_together(base, model, x):
    other = copy.deepcopy(model)
    model.merge_adapter(["a"])
    model.merge_adapter(["b"])
    other.merge_adapter(["a", "b"])
    assert_close(model(x), other(x), **CLOSE)
    model.unmerge_adapter()
    check_base(base, model)


def test_a_bf16_weight_is_rounded_once_however_many_adapters_are_merged(base, model):
    model.to(torch.bfloat16)
    exact = base.blocks[0]["up"].weight.to(torch.bfloat16).float()
    for name in ("a", "b"):
        exact = exact + model.get_delta_weight(name)["blocks.0.up"].float()
    model.merge_adapter(["a", "b"])
    assert torch.equal(model.model.blocks[0]["up"].weight, exact.to(torch.bfloat16))


def test_unmerge_without_merge_is_nothing(base, model, x):
    before = model(x)
    model.unmerge_adapter()
    assert torch.equal(model(x), before)


def test_switching_takes_merged_weights_out_first(base, model, x):
    # Else the new adapter would silently have no effect.
    model.merge_adapter()
    model.set_adapter("b")
    assert model.merged_adapters == []
    assert_close(model(x), by_hand(base, model, "b")(x), **CLOSE)


def test_merged_weights_follow_a_change_of_dtype(base, model):
    model.merge_adapter()
    model.to(torch.float64)
    model.unmerge_adapter()
    assert model.model.blocks[0]["up"].weight.dtype == torch.float64
    assert torch.equal(model.model.blocks[0]["up"].weight, base.double().blocks[0]["up"].weight)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_safe_merge_refuses_what_is_not_finite_and_touches_nothing(model, value):
    # The last layer is the broken one: those before it are put back.
    with torch.no_grad():
        model.model.blocks[1]["up"].adapter("a").lokr_w1[0, 0, 0] = value
    before = weights(model)
    with pytest.raises(ValueError, match="merging a would give weights that are not finite"):
        model.merge_adapter(safe_merge=True)
    assert model.merged_adapters == []
    for name, values in weights(model).items():
        assert torch.equal(values, before[name])
    with pytest.raises(ValueError, match="not finite"):
        model.merge_and_unload(safe_merge=True)
    assert isinstance(model.model.blocks[0]["up"], LoKrLayer)


def test_safe_merge_that_fails_leaves_merged_what_was(base, model, x):
    with torch.no_grad():
        model.model.blocks[1]["up"].adapter("a").lokr_w1[0, 0, 0] = torch.nan
    model.merge_adapter(["b"])
    before = weights(model)
    with pytest.raises(ValueError, match="not finite"):
        model.merge_adapter(["a"], safe_merge=True)
    assert model.merged_adapters == ["b"]
    for name, values in weights(model).items():
        assert torch.equal(values, before[name])
    model.unmerge_adapter()
    check_base(base, model)


def test_safe_merge_refuses_what_overflows_the_dtype_of_the_base():
    model = adapt(Net(nn.Linear(12, 20)).half(), r=2, target_modules=["layer"])
    randomize(model)
    with torch.no_grad():
        model.model.layer.adapter("default").lokr_w1.mul_(1e6)
    with pytest.raises(ValueError, match="not finite"):
        model.merge_adapter(safe_merge=True)
    assert model.model.layer.weight.isfinite().all()


def test_safe_merge_of_sound_weights_merges(model, x):
    before = model(x)
    model.merge_adapter(safe_merge=True)
    assert model.merged_adapters == ["a"]
    assert_close(model(x), before, **CLOSE)


# -- unload -------------------------------------------------------------------------------------


def modules(model: nn.Module) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules()}


def test_unload_gives_the_model_as_it_was(base, model, x):
    model.merge_adapter()
    plain = model.unload()
    assert modules(plain) == modules(base)
    assert torch.equal(plain(x), base(x))


@pytest.mark.parametrize("names", [None, ["b"], ["a", "b"]])
def test_merge_and_unload_gives_a_plain_model(base, model, x, names):
    expected = by_hand(base, model, *(names or ["a"]))
    plain = model.merge_and_unload(adapter_names=names)
    assert modules(plain) == modules(base)
    assert plain.state_dict().keys() == base.state_dict().keys()
    assert_close(plain(x), expected(x), **CLOSE)


def test_merge_and_unload_keeps_the_trained_module(base, x):
    model = adapt(base, r=2, target_modules=["up"], modules_to_save=["head"])
    randomize(model)
    expected = model(x)
    plain = model.merge_and_unload()
    assert modules(plain) == modules(base)
    assert_close(plain(x), expected, **CLOSE)
    assert not torch.equal(plain.head.weight, base.head.weight)


def test_unload_restores_the_original_of_a_saved_module(base, x):
    model = adapt(base, r=2, target_modules=["up"], modules_to_save=["head"])
    randomize(model)
    assert torch.equal(model.unload()(x), base(x))


def test_merge_and_unload_of_convolutions_and_of_gpt2():
    torch.manual_seed(0)
    for build, names, x in (
        (Convs, ["square", "tall", "grouped", "line", "pointwise"], torch.randn(2, 4, 8, 8)),
        (arch.gpt2, ["c_attn", "c_fc"], torch.randint(0, 50, (2, 5))),
    ):
        base = build().eval()
        model = adapt(base, r=1, target_modules=names)
        randomize(model)
        expected = model(x)
        plain = model.merge_and_unload()
        assert modules(plain) == modules(base)
        got = plain(x)
        both = (got, expected) if isinstance(got, Tensor) else (got.logits, expected.logits)
        assert_close(*both, rtol=1e-4, atol=1e-4)


# -- saved modules ------------------------------------------------------------------------------


def test_two_adapters_with_their_own_heads(base, x):
    fields = {"r": 2, "target_modules": ["up"], "modules_to_save": ["head"]}
    model = adapt(base, {"a": LoKrConfig(**fields), "b": LoKrConfig(**fields)})
    randomize(model)
    first = model(x)
    model.set_adapter("b")
    assert not torch.allclose(model(x), first)
    with pytest.raises(ValueError, match="adapters a, b each have their own 'head'"):
        model.set_adapter(["a", "b"])
    assert model.active_adapters == ["b"]


def test_a_saved_module_that_is_not_there_is_refused(base):
    with pytest.raises(ValueError, match=r"modules_to_save='heads' matches no module; .*head"):
        adapt(base, r=2, target_modules=["up"], modules_to_save=["heads"])
    assert modules(base) == modules(Mlp())


# -- names, copies, counts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.set_adapter("c"),
        lambda m: m.set_adapter(["a", "c"]),
        lambda m: m.delete_adapter("c"),
        lambda m: m.merge_adapter(["c"]),
        lambda m: m.merge_and_unload(adapter_names=["c"]),
        lambda m: m.get_delta_weight("c"),
        lambda m: m.save_pretrained("nowhere", "c"),
    ],
)
def test_an_unknown_adapter_is_named_with_those_there_are(model, call):
    with pytest.raises(ValueError, match="adapter_name='c': no such adapter; there are 'a', 'b'"):
        call(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a", "is an adapter of this name"), ("x.y", "without dots"), ("", "dots")],
)
def test_a_name_that_cannot_be_taken(model, name, message):
    with pytest.raises(ValueError, match=f"adapter_name='{name}': .*{message}"):
        model.add_adapter(name, UP)


def test_the_rank_without_effect_is_said_once_with_the_layers(base):
    config = LoKrConfig(r=64, target_modules=["up", "down"], rank_pattern={"0.down": 2})
    with pytest.warns(UserWarning, match="the rank saves nothing") as caught:
        LoKrModel(base, config)
    (warning,) = caught
    assert "2 x *.up (w2 5x4, r=64); 1 x *.down (w2 4x5, r=64)" in str(warning.message)
    assert warning.filename == __file__


def test_deepcopy_is_independent(model, x):
    other = copy.deepcopy(model)
    assert torch.equal(other(x), model(x))
    with torch.no_grad():
        other.model.blocks[0]["up"].adapter("a").lokr_w1.zero_()
    assert not torch.equal(other(x), model(x))
    other.merge_adapter()
    assert model.merged_adapters == []


def test_state_dict_and_back(base, model, x):
    other = adapt(base, {"a": UP, "b": DOWN})
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


def test_it_stands_in_for_the_model_it_wraps():
    model = adapt(arch.on_meta(arch.bert), r=1, target_modules=["query"])
    assert model.config.model_type == "bert"
    assert model.dtype == torch.float32
    with pytest.raises(AttributeError):
        _ = model.nothing_of_this_name


def test_get_delta_weight_is_of_the_active_adapter(model):
    assert list(model.get_delta_weight()) == ["blocks.0.up", "blocks.1.up"]
    assert list(model.get_delta_weight("b")) == ["blocks.0.up", "blocks.0.down", "blocks.1.down"]


def test_trainable_parameters_are_counted(model, base, capsys):
    adapters = sum(p.numel() for n, p in model.named_parameters() if ".a." in n)
    everything = sum(p.numel() for p in model.parameters())
    assert model.get_nb_trainable_parameters() == (adapters, everything)
    model.print_trainable_parameters()
    assert f"trainable: {adapters:,} of {everything:,}" in capsys.readouterr().out


def test_training_mode_reaches_a_new_adapter(base):
    model = adapt(base.eval(), r=2, target_modules=["up"], rank_dropout=0.9)
    randomize(model)
    x = torch.randn(2, 12)
    assert torch.equal(model(x), model(x))
    assert not any(m.training for m in model.model.modules())


# -- what is refused leaves nothing behind ------------------------------------------------------


class Normed(nn.Module):
    """A layer, and another whose running statistics cannot be trained in lanes."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(12, 20)
        self.norm = nn.BatchNorm1d(20)


@pytest.mark.parametrize(
    ("build", "config"),
    [
        (Mlp, LoKrConfig(target_modules=["nothing"])),
        (Mlp, LoKrConfig(target_modules=["up"], rank_pattern={"nothing": 2})),
        (Mlp, [LoKrConfig(r=r, target_modules=["up"]) for r in (2, 64)]),
        (Mlp, [LoKrConfig(r=2, target_modules=["up"], rank_pattern={"1.up": r}) for r in (2, 64)]),
        (Normed, LoKrConfig(r=2, target_modules=["up"], modules_to_save=["norm"])),
    ],
)
def test_a_refused_adapter_leaves_the_model_as_it_was(build, config):
    base = build()
    before = modules(base), list(base.state_dict())
    with pytest.raises(ValueError, match=r"nothing|structure|buffers"):
        LoKrModel(base, config)
    assert (modules(base), list(base.state_dict())) == before
    assert all(p.requires_grad for p in base.parameters())


def test_a_refused_second_adapter_leaves_the_first_as_it_was():
    torch.manual_seed(0)
    model = adapt(Normed(), r=2, target_modules=["up"])
    randomize(model)
    before = modules(model), copy.deepcopy(model.state_dict())
    config = LoKrConfig(r=1, target_modules=["up"], modules_to_save=["norm"])
    with pytest.raises(ValueError, match="keeps buffers"):
        model.add_adapter("second", config)
    assert modules(model) == before[0]
    assert_close(model.state_dict(), before[1], rtol=0, atol=0)
    assert list(model.peft_config) == ["default"]


def test_a_checkpoint_that_does_not_fit_leaves_the_model_as_it_was(base, tmp_path):
    adapt(base, r=2, target_modules=["up"]).save_pretrained(tmp_path)
    config = (tmp_path / "adapter_config.json").read_text().replace('"r": 2', '"r": 1')
    (tmp_path / "adapter_config.json").write_text(config)
    before = modules(base)
    with pytest.raises(ValueError, match="of another shape"):
        LoKrModel.from_pretrained(base, tmp_path)
    assert modules(base) == before


def test_delta_weight_without_an_active_adapter(model):
    model.set_adapter([])
    with pytest.raises(ValueError, match="no such adapter; there are 'a', 'b'"):
        model.get_delta_weight()
