"""Which layers are adapted: the same as in peft, on real architectures."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LOKR_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from torch import nn

from lokr import LoKrConfig, count
from lokr.targets import ARCHITECTURE_TARGETS, alpha_of, rank_of
from tests.lokr import architectures as arch
from tests.lokr.peers import adapt

LISTS = {
    arch.bert: ["query", "layer.1.output.dense"],
    arch.roberta_classifier: ["value", "intermediate.dense"],
    arch.t5: ["q", "wo"],
    arch.vit: ["v_proj", "projection"],
    arch.unet: ["to_q", "conv1", "ff.net.0.proj"],
}
SELECTIONS: list[tuple[Callable[[], nn.Module], dict[str, Any]]] = [
    *((build, {"target_modules": names}) for build, names in LISTS.items()),
    *((build, {"target_modules": "all-linear"}) for build in LISTS),
    *((build, {"target_modules": None}) for build in (arch.bert, arch.roberta_classifier, arch.t5)),
    (arch.bert, {"target_modules": "ALL-Linear", "task_type": "SEQ_CLS"}),
    (arch.bert_classifier, {"target_modules": "all-linear", "task_type": "SEQ_CLS"}),
    (arch.roberta_classifier, {"target_modules": "all-linear", "modules_to_save": ["classifier"]}),
    (arch.bert_classifier, {"target_modules": ["dense"], "modules_to_save": ["pooler"]}),
    (arch.bert, {"target_modules": r".*layer\.1\..*(query|key)"}),
    (arch.t5, {"target_modules": r"decoder.*(SelfAttention|EncDecAttention)\.(q|v)"}),
    (arch.unet, {"target_modules": r"(down|up)_blocks.*(conv1|conv2|to_k|proj_in)"}),
    (
        arch.bert,
        {"target_modules": ["query", "value"], "exclude_modules": ["layer.0.attention.self.value"]},
    ),
    (arch.bert, {"target_modules": ["query", "value"], "exclude_modules": r".*\.1\..*"}),
    (arch.t5, {"target_modules": "all-linear", "exclude_modules": ["wi", "wo"]}),
    (arch.bert, {"target_modules": ["query"], "layers_to_transform": 1}),
    (arch.bert, {"target_modules": ["query"], "layers_to_transform": [0, 7]}),
    (
        arch.bert,
        {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "layer"},
    ),
    # The first number counts: T5's `block.1.layer.0` is layer 1.
    (arch.t5, {"target_modules": ["q", "wo"], "layers_to_transform": [1]}),
    (arch.t5, {"target_modules": ["q"], "layers_to_transform": [1], "layers_pattern": ["layer"]}),
    (
        arch.t5,
        {"target_modules": ["q"], "layers_to_transform": [1], "layers_pattern": ["h", "block"]},
    ),
    (
        arch.vit,
        {"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
    ),
    (
        arch.unet,
        {"target_modules": ["to_q"], "layers_to_transform": [0], "layers_pattern": "down_blocks"},
    ),
    # A layer given by its whole name is meant, whatever its index.
    (
        arch.bert,
        {"target_modules": ["encoder.layer.0.output.dense", "query"], "layers_to_transform": 1},
    ),
]


def selected(build: Callable[[], nn.Module], **fields: Any) -> list[str]:
    return [row.name for row in count(arch.on_meta(build), LoKrConfig(**fields))]


@pytest.mark.parametrize(("build", "fields"), SELECTIONS)
def test_selects_what_peft_selects(build, fields):
    model = copy.deepcopy(arch.on_meta(build))
    theirs = peft.LoKrModel(model, peft.LoKrConfig(**fields), "default")
    assert theirs.targeted_module_names
    assert selected(build, **fields) == theirs.targeted_module_names


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": None},
        {"target_modules": ["c_attn", "mlp.c_proj"]},
        {"target_modules": r".*\.1\..*c_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": ["c_attn"], "layers_to_transform": [1], "layers_pattern": "h"},
    ],
)
def test_selects_on_gpt2_what_lora_of_peft_selects(fields):
    # peft's LoKr cannot adapt transformers' Conv1D; its LoRA can, by the same rules of selection.
    model = copy.deepcopy(arch.on_meta(arch.gpt2))
    theirs = peft.LoraModel(model, peft.LoraConfig(fan_in_fan_out=True, **fields), "default")
    assert selected(arch.gpt2, **fields) == theirs.targeted_module_names


PATTERNS = ["up", "0.up", "^up", "^blocks.0.up", r"blocks\.\d\.down", "u|down", "p", ".*", "blocks"]


@pytest.mark.parametrize("name", ["up", "my_up", "blocks.0.up", "x.blocks.1.down", "blocks.up.q"])
@pytest.mark.parametrize("first", PATTERNS)
@pytest.mark.parametrize("second", PATTERNS)
def test_a_pattern_fits_where_it_fits_in_peft(first, second, name):
    pattern = {first: 2, second: 3}
    expected = pattern.get(get_pattern_key(pattern, name), 8)
    assert rank_of(name, LoKrConfig(r=8, rank_pattern=pattern)) == expected
    assert alpha_of(name, LoKrConfig(alpha=8, alpha_pattern=pattern)) == expected


def test_the_table_of_architectures_contains_that_of_peft():
    theirs = {
        name: targets if isinstance(targets, str) else tuple(targets)
        for name, targets in TRANSFORMERS_MODELS_TO_LOKR_TARGET_MODULES_MAPPING.items()
    }
    assert theirs.items() <= ARCHITECTURE_TARGETS.items()


@pytest.mark.parametrize(
    ("build", "names"),
    [(arch.vit, {"q_proj", "v_proj"}), (arch.mpnet, {"q", "v"})],
)
def test_two_architectures_that_peft_does_not_know(build, names):
    with pytest.raises(ValueError, match="Please specify `target_modules`"):
        peft.LoKrModel(copy.deepcopy(arch.on_meta(build)), peft.LoKrConfig(), "default")
    found = selected(build)
    assert {name.rpartition(".")[2] for name in found} == names
    assert len(found) == 4


def test_all_linear_under_another_adapter():
    fields = {"target_modules": "all-linear", "task_type": "SEQ_CLS", "r": 1}
    ours = adapt(arch.on_meta(arch.bert_classifier), r=1, target_modules=["query"])
    ours.add_adapter("second", LoKrConfig(**fields))
    found = [name for name, _ in ours.adapted_layers("second")]
    assert found == selected(arch.bert_classifier, **fields)


def test_all_linear_spares_a_classification_head_of_several_layers():
    # Bare, peft spares a head that is itself a linear layer only; `get_peft_model` saves the head
    # instead, and so does not adapt it. We spare it in both.
    fields = {"target_modules": "all-linear", "task_type": "SEQ_CLS"}
    model = arch.on_meta(arch.roberta_classifier)
    bare = peft.LoKrModel(copy.deepcopy(model), peft.LoKrConfig(**fields), "default")
    assert "classifier.dense" in bare.targeted_module_names
    with torch.device("meta"):
        whole = peft.get_peft_model(copy.deepcopy(model), peft.LoKrConfig(**fields))
    assert selected(arch.roberta_classifier, **fields) == whole.base_model.targeted_module_names
