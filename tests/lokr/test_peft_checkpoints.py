"""Checkpoints in both directions between `lokr` and peft: the same outputs, the same files."""

from __future__ import annotations

import copy
import json
from typing import Any

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from lokr import LoKrConfig, LoKrModel, checkpoint
from tests.lokr import architectures as arch
from tests.lokr.peers import (
    Convs,
    Mlp,
    Net,
    adapt,
    factors,
    peft_factors,
    quiet_about_rank,
    randomize,
)

IMAGES = (2, 4, 8, 8)
EVERY_CONV = ["pointwise", "square", "tall", "grouped", "line", "head"]
# id -> (model, shape of an input, fields)
MODELS: dict[str, tuple[type[nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "linear": (Mlp, (5, 12), {"r": 2, "alpha": 3, "target_modules": ["up", "down"]}),
    "linear-both": (
        Mlp,
        (5, 12),
        {"r": 1, "decompose_both": True, "target_modules": "all-linear", "init_weights": "lycoris"},
    ),
    "patterns": (
        Mlp,
        (5, 12),
        {
            "r": 2,
            "target_modules": r"blocks.*",
            "exclude_modules": ["blocks", "0", "1"],
            "rank_pattern": {"0.up": 1, r"blocks\.1\..*": 64},
            "alpha_pattern": {"^blocks.0.up": 5, "down": 0.5},
        },
    ),
    "saved-module": (
        Mlp,
        (5, 12),
        {"r": 2, "target_modules": ["up"], "modules_to_save": ["head"]},
    ),
    "layers": (
        Mlp,
        (5, 12),
        {"r": 2, "target_modules": ["up"], "layers_to_transform": 1, "layers_pattern": ["blocks"]},
    ),
    "conv": (Convs, IMAGES, {"r": 2, "alpha": 3, "target_modules": EVERY_CONV}),
    "conv-tucker": (
        Convs,
        IMAGES,
        {"r": 2, "target_modules": EVERY_CONV, "use_effective_conv2d": True},
    ),
    "conv-full": (Convs, IMAGES, {"r": 64, "alpha": 9, "target_modules": EVERY_CONV[:4]}),
    "conv-saved": (
        Convs,
        IMAGES,
        {
            "r": 2,
            "target_modules": ["square", "line"],
            "modules_to_save": ["head", "tall"],
            "rank_pattern": {"line": 1},
        },
    ),
}
every_model = pytest.mark.parametrize("case", MODELS)


def setup(case: str) -> tuple[nn.Module, torch.Tensor, dict[str, Any]]:
    torch.manual_seed(0)
    build, shape, fields = MODELS[case]
    return build(), torch.randn(shape), fields


@torch.no_grad()
def randomize_peft(model: nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) / 2)


def saved_by_ours(case: str, folder: Any) -> tuple[nn.Module, torch.Tensor, LoKrModel]:
    base, x, fields = setup(case)
    ours = adapt(base, **fields)
    randomize(ours)
    ours.save_pretrained(folder)
    return base, x, ours


def saved_by_peft(case: str, folder: Any) -> tuple[nn.Module, torch.Tensor, peft.PeftModel]:
    base, x, fields = setup(case)
    theirs = peft.get_peft_model(copy.deepcopy(base), peft.LoKrConfig(**fields))
    randomize_peft(theirs)
    theirs.save_pretrained(folder)
    return base, x, theirs


@every_model
def test_ours_loads_in_peft(case, tmp_path):
    base, x, ours = saved_by_ours(case, tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert not torch.allclose(ours(x), base(x))
    assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)
    for name, values in peft_factors(theirs.base_model.model).items():
        assert torch.equal(values.view_as(factors(ours)[name]), factors(ours)[name])


@every_model
def test_that_of_peft_loads_in_ours(case, tmp_path):
    base, x, theirs = saved_by_peft(case, tmp_path)
    with quiet_about_rank():
        ours = LoKrModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert not torch.allclose(ours(x), base(x))
    assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@every_model
def test_same_keys_and_shapes_in_both_files(case, tmp_path):
    saved_by_ours(case, tmp_path / "ours")
    saved_by_peft(case, tmp_path / "theirs")
    files = [load_file(tmp_path / who / "adapter_model.safetensors") for who in ("ours", "theirs")]
    ours, theirs = ({key: value.shape for key, value in file.items()} for file in files)
    assert ours == theirs


@every_model
def test_same_config_in_both_files(case, tmp_path):
    saved_by_ours(case, tmp_path / "ours")
    saved_by_peft(case, tmp_path / "theirs")
    ours, theirs = (
        json.loads((tmp_path / who / "adapter_config.json").read_text())
        for who in ("ours", "theirs")
    )
    assert list(ours) == sorted(ours)
    assert ours.keys() <= theirs.keys()
    assert not any(theirs[key] for key in theirs.keys() - ours.keys())
    for config in (ours, theirs):
        for key in ("target_modules", "exclude_modules"):  # sets in peft
            if isinstance(config[key], list):
                config[key] = sorted(config[key])
    assert ours == {key: theirs[key] for key in ours}


@every_model
def test_ours_loads_in_ours(case, tmp_path):
    base, x, ours = saved_by_ours(case, tmp_path)
    with quiet_about_rank():
        again = LoKrModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(again(x), ours(x))
    again.save_pretrained(tmp_path / "again")
    first, second = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("", "again")
    )
    assert_close(first, second, rtol=0, atol=0)
    first, second = ((tmp_path / n / "adapter_config.json").read_text() for n in ("", "again"))
    assert first == second


@pytest.mark.parametrize("build", [arch.bert_classifier, arch.roberta_classifier])
def test_a_classifier_that_peft_trained(build, tmp_path):
    torch.manual_seed(0)
    base = build()
    config = peft.LoKrConfig(task_type="SEQ_CLS", r=1, target_modules=["query", "value"])
    theirs = peft.get_peft_model(copy.deepcopy(base), config).eval()
    randomize_peft(theirs)
    theirs.save_pretrained(tmp_path)
    ours = LoKrModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    ids = torch.randint(5, 50, (2, 7))
    assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours(ids).logits, base.eval()(ids).logits)


@pytest.mark.parametrize("build", [arch.bert_classifier, arch.roberta_classifier])
def test_a_classifier_that_we_trained(build, tmp_path):
    torch.manual_seed(0)
    base = build()
    ours = adapt(base, task_type="SEQ_CLS", r=1, modules_to_save=["classifier"]).eval()
    randomize(ours)
    ours.save_pretrained(tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    assert isinstance(theirs, peft.PeftModelForSequenceClassification)
    ids = torch.randint(5, 50, (2, 7))
    assert_close(theirs(ids).logits, ours(ids).logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours(ids).logits, base.eval()(ids).logits)


def test_the_scale_of_lycoris_is_written_as_alpha_pattern(tmp_path):
    torch.manual_seed(0)
    base, x = Mlp(), torch.randn(5, 12)
    ours = adapt(
        base, r=64, alpha=1, target_modules=["up"], rank_pattern={"0.up": 2}, lycoris_scale=True
    )
    randomize(ours)
    ours.save_pretrained(tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["alpha_pattern"] == {r"^blocks\.1\.up": 64}
    assert "lycoris_scale" not in written


def test_trained_in_ours_goes_on_training_in_peft(tmp_path):
    base, x, ours = saved_by_ours("linear", tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, is_trainable=True)
    for model in (ours, theirs):
        model(x).square().sum().backward()
    adapters = dict(ours.adapted_layers("default"))
    for name, parameter in peft_factors(theirs.base_model.model).items():
        path, _, tensor = name.rpartition(".")
        expected = adapters[path].adapter("default").get_parameter(tensor).grad[0]
        assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-4)


# -- our own rules ------------------------------------------------------------------------------


def test_is_trainable_decides_what_requires_a_gradient(tmp_path):
    base, _, _ = saved_by_ours("saved-module", tmp_path)
    frozen = LoKrModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert frozen.peft_config["default"].inference_mode
    trained = LoKrModel.from_pretrained(copy.deepcopy(base), tmp_path, is_trainable=True)
    names = {n for n, p in trained.named_parameters() if p.requires_grad}
    assert names
    assert all("adapters" in n or "head.copies" in n for n in names)


@every_model
def test_low_cpu_mem_usage_loads_the_same(case, tmp_path):
    base, x, ours = saved_by_ours(case, tmp_path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with quiet_about_rank():
        again = LoKrModel.from_pretrained(copy.deepcopy(base), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert not any(p.is_meta for p in again.parameters())
    assert torch.equal(again(x), ours(x))


def test_low_cpu_mem_usage_leaves_the_factors_on_the_meta_device():
    ours = adapt(Mlp(), LoKrConfig(r=2, target_modules=["up"]), "default", True)
    assert all(p.is_meta for n, p in ours.named_parameters() if "lokr_" in n)


def test_several_adapters_lie_as_in_peft(tmp_path):
    base = Mlp()
    x = torch.randn(4, 12)
    ours = adapt(
        base,
        {
            "default": LoKrConfig(r=2, target_modules=["up"]),
            "other": LoKrConfig(r=1, target_modules=["down"]),
        },
    )
    randomize(ours)
    ours.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "other",
    }
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    theirs.load_adapter(tmp_path / "other", "other")
    again = LoKrModel.from_pretrained(copy.deepcopy(base), tmp_path)
    again.load_adapter(tmp_path / "other", "other")
    outputs = []
    for name in ("default", "other"):
        for model in (ours, theirs, again):
            model.set_adapter(name)
        outputs.append(ours(x))
        assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)
        assert torch.equal(again(x), ours(x))
    assert not torch.allclose(*outputs)


def test_one_adapter_by_name_lies_in_the_folder_itself(tmp_path):
    ours = adapt(
        Mlp(),
        {
            "default": LoKrConfig(r=2, target_modules=["up"]),
            "other": LoKrConfig(r=1, target_modules=["down"]),
        },
    )
    ours.save_pretrained(tmp_path, "other")
    config, state = checkpoint.read(tmp_path)
    assert config.r == 1
    assert all("down" in key for key in state.tensors)


@pytest.mark.parametrize("lane", [0, 1])
def test_a_lane_is_saved_as_an_adapter_of_its_own(lane, tmp_path):
    torch.manual_seed(0)
    base, x = Mlp(), torch.randn(6, 12)
    fields = {"target_modules": ["up"], "modules_to_save": ["head"]}
    pack = adapt(base, [LoKrConfig(r=1, alpha=3, **fields), LoKrConfig(r=2, **fields)])
    randomize(pack)
    pack.save_pretrained(tmp_path, lane=lane)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert_close(theirs(x[3 * lane :][:3]), pack(x)[3 * lane :][:3], rtol=1e-5, atol=1e-5)


def test_a_lane_out_of_range(tmp_path):
    ours = adapt(Mlp(), r=2, target_modules=["up"])
    with pytest.raises(ValueError, match="lane=1: adapter 'default' has lanes 0 to 0"):
        ours.save_pretrained(tmp_path, lane=1)


def test_state_dict_decides_the_layers_and_not_the_targets():
    keys = {"blocks.1.up.lokr_w1": torch.empty(0), "blocks.0.down.lokr_w1": torch.empty(0)}
    config = LoKrConfig(r=2, target_modules=["head"])
    ours = LoKrModel(Mlp(), config, state_dict=keys)
    assert [name for name, _ in ours.adapted_layers("default")] == ["blocks.0.down", "blocks.1.up"]
    same = peft.LoKrConfig(r=2, target_modules=["blocks.0.down", "blocks.1.up"])
    theirs = peft.inject_adapter_in_model(same, Mlp(), state_dict=keys)
    assert {n.rpartition(".")[0] for n in peft_factors(theirs)} == {"blocks.0.down", "blocks.1.up"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["nowhere.lokr_w1"], r"layers that Mlp does not have: \['nowhere'\]"),
        (["blocks.0.up.weight"], "no key with '.lokr_'"),
        (["blocks.lokr_w1"], "adapts 'blocks', a ModuleList: LoKr cannot"),
    ],
)
def test_state_dict_that_names_no_layer(keys, message):
    with pytest.raises(ValueError, match=message):
        LoKrModel(Mlp(), LoKrConfig(), state_dict=dict.fromkeys(keys, torch.empty(0)))


# -- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(missing, tmp_path):
    base, _, _ = saved_by_ours("linear", tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        LoKrModel.from_pretrained(base, tmp_path)


def rewrite(folder, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


FIRST = "base_model.model.blocks.0.up.lokr_w1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(FIRST), r"missing: blocks\.0\.up\.lokr_w1 \(1\)"),
        (lambda t: t.update({f"{FIRST}_x": t[FIRST].clone()}), r"not expected: .*lokr_w1_x \(1\)"),
        (
            lambda t: t.update({FIRST: torch.zeros(2, 2)}),
            r"lokr_w1: \(2, 2\) in the file, \(4, 3\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, message, tmp_path):
    base, _, _ = saved_by_ours("linear", tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        LoKrModel.from_pretrained(base, tmp_path)


def test_load_adapter_that_fails_leaves_no_adapter_behind(tmp_path):
    _, x, ours = saved_by_ours("linear", tmp_path)
    rewrite(tmp_path, lambda t: t.update({FIRST: torch.zeros(2, 2)}))
    before = ours(x)
    with pytest.raises(ValueError, match="does not fit"):
        ours.load_adapter(tmp_path, "second")
    assert list(ours.peft_config) == ["default"]
    assert torch.equal(ours(x), before)
    assert not any("second" in name for name in ours.state_dict())


def test_a_config_of_another_method_is_refused(tmp_path):
    base = Mlp()
    peft.get_peft_model(
        copy.deepcopy(base), peft.LoHaConfig(target_modules=["up"])
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="peft_type='LOHA': expected 'LOKR'"):
        LoKrModel.from_pretrained(base, tmp_path)


def test_an_existing_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        adapt(Mlp(), r=2, target_modules=["up"]).save_pretrained(tmp_path / "file")


def test_a_checkpoint_is_no_pickle(tmp_path):
    saved_by_ours("linear", tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_a_module_of_the_model_may_have_the_name_of_a_factor(tmp_path):
    class W1(nn.Module):
        def __init__(self):
            super().__init__()
            self.lokr_w1 = Net(nn.Linear(12, 20))

        def forward(self, x):
            return self.lokr_w1(x)

    base, x = W1(), torch.randn(2, 12)
    ours = adapt(base, r=2, target_modules=["layer"])
    randomize(ours)
    ours.save_pretrained(tmp_path)
    assert torch.equal(LoKrModel.from_pretrained(base, tmp_path)(x), ours(x))
