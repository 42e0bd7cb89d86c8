"""Targets that match nothing, or what LoKr cannot adapt: refused, naming what is near."""

from __future__ import annotations

import pytest
from torch import nn

from lokr import LoKrConfig, LoKrModel, count
from lokr.targets import alpha_of, matches, rank_of
from tests.lokr import architectures as arch
from tests.lokr.peers import Convs, Mlp, adapt


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"target_modules": ["upp"]},
            r"target_modules=\('upp',\) matches no module; close names: up",
        ),
        (
            {"target_modules": "downs"},
            "target_modules='downs' matches no module; close names: down",
        ),
        ({"target_modules": ["xyz"]}, "matches no module; close names: up, down, head"),
        ({"target_modules": ["up"], "layers_to_transform": 7}, "in layers_to_transform=7"),
        (
            {"target_modules": ["up"], "exclude_modules": ["up"]},
            r"every target is excluded: blocks\.0\.up, blocks\.1\.up \(exclude_modules=\('up',\)",
        ),
        (
            {"target_modules": ["head"], "modules_to_save": ["head"]},
            r"every target is excluded: head .*modules_to_save=\('head',\)",
        ),
        ({}, r"target_modules=None: no usual targets are known for Mlp \(model_type None\)"),
        (
            {"target_modules": ["up"], "rank_pattern": {"u": 2}},
            r"rank_pattern\['u'\]: matches none of the 2 adapted layers \(blocks\.0\.up",
        ),
        (
            {"target_modules": ["up"], "alpha_pattern": {"down": 2}},
            r"alpha_pattern\['down'\]: matches none of the 2 adapted layers",
        ),
    ],
)
def test_nothing_matches(fields, message):
    base = Mlp()
    with pytest.raises(ValueError, match=message):
        LoKrModel(base, LoKrConfig(**fields))
    assert not any(type(m).__module__.startswith("lokr") for m in base.modules())


def test_a_model_without_any_layer_to_adapt():
    with pytest.raises(ValueError, match="none, the model has no layer that LoKr adapts"):
        count(nn.Sequential(nn.ReLU()), LoKrConfig(target_modules=["x"]))
    with pytest.raises(ValueError, match="target_modules='all-linear' matches no module"):
        count(nn.Sequential(nn.ReLU()), LoKrConfig(target_modules="all-linear"))


@pytest.mark.parametrize(
    ("target", "kind"),
    [("word_embeddings", "Embedding"), ("LayerNorm", "LayerNorm"), ("attention", "BertAttention")],
)
def test_a_module_of_another_kind_is_refused(target, kind):
    with pytest.raises(
        TypeError, match=rf"target '.*{target}' is a {kind}: LoKr adapts Linear, Conv1d"
    ):
        count(arch.on_meta(arch.bert), LoKrConfig(target_modules=["query", target]))


def test_a_conv3d_is_refused():
    model = nn.ModuleDict({"conv": nn.Conv3d(2, 2, 1)})
    with pytest.raises(TypeError, match="'conv' is a Conv3d"):
        count(model, LoKrConfig(target_modules=["conv"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"target_modules": ["up", "downn"]},
            "target_modules: 'downn' matches no module; close names: down",
        ),
        (
            {"target_modules": ["up"], "exclude_modules": ["heads"]},
            "exclude_modules: 'heads' matches no module; close names: head",
        ),
        (
            {"target_modules": ["up"], "exclude_modules": r".*\.7\..*"},
            "exclude_modules: .*no module",
        ),
    ],
)
def test_names_that_match_nothing_beside_others_that_do(fields, message):
    with pytest.warns(UserWarning, match=message):
        LoKrModel(Mlp(), LoKrConfig(r=2, **fields))


def test_a_name_matches_exactly_or_as_a_dotted_suffix_and_an_expression_whole():
    assert matches("a.b.query", ["query"])
    assert matches("a.b.query", ["b.query"])
    assert matches("query", ["query"])
    assert not matches("a.my_query", ["query"])
    assert not matches("a.query.b", ["query"])
    assert matches("a.b.query", r".*\.query")
    assert not matches("a.b.query", "query")


def test_the_first_pattern_that_fits_wins_as_in_peft():
    config = LoKrConfig(
        r=8,
        alpha=8,
        rank_pattern={"0.up": 2, "up": 3, "blocks.1.down": 4},
        alpha_pattern={r"^blocks\.\d\.down": 5},
    )
    assert [rank_of(n, config) for n in ("blocks.0.up", "blocks.1.up", "blocks.0.down", "up")] == [
        2,
        3,
        8,
        3,
    ]
    assert alpha_of("blocks.1.down", config) == 5
    assert alpha_of("model.blocks.1.down", config) == 8
    assert rank_of("blocks.1.down", config) == 4


def test_the_architecture_is_unknown():
    model = arch.on_meta(arch.unet)
    with pytest.raises(
        ValueError, match=r"UNet2DConditionModel .*'all-linear'\. Known: RefinedWeb"
    ):
        count(model, LoKrConfig())


def test_no_target_inside_another_adapter():
    model = adapt(Convs(), r=2, target_modules="all-linear")
    model.add_adapter("other", LoKrConfig(r=1, target_modules=r".*(tall|head|layer).*"))
    assert [name for name, _ in model.adapted_layers("other")] == ["tall", "head"]
