"""``LoKrConfig``: peft's fields and defaults; bad input refused with field, value and range."""

from __future__ import annotations

import dataclasses
import math
import pickle
import warnings

import peft
import pytest

from lokr import LoKrConfig

REFUSED = [
    # field, value, what is allowed
    ("r", 0, "an integer >= 1"),
    ("r", -4, "an integer >= 1"),
    ("r", 2.5, "an integer >= 1"),
    ("r", "8", "an integer >= 1"),
    ("r", True, "an integer >= 1"),
    ("r", None, "an integer >= 1"),
    ("alpha", 0, "a finite number > 0"),
    ("alpha", -1.0, "a finite number > 0"),
    ("alpha", math.inf, "a finite number > 0"),
    ("alpha", math.nan, "a finite number > 0"),
    ("alpha", None, "a finite number > 0"),
    ("alpha", "8", "a finite number > 0"),
    ("rank_dropout", 1, "a number in [0, 1)"),
    ("rank_dropout", -0.1, "a number in [0, 1)"),
    ("rank_dropout", math.nan, "a number in [0, 1)"),
    ("module_dropout", 1.5, "a number in [0, 1)"),
    ("module_dropout", True, "a number in [0, 1)"),
    ("decompose_factor", 0, "-1 or an integer >= 1"),
    ("decompose_factor", -2, "-1 or an integer >= 1"),
    ("decompose_factor", 2.5, "-1 or an integer >= 1"),
    ("use_effective_conv2d", 1, "True or False"),
    ("decompose_both", "yes", "True or False"),
    ("rank_dropout_scale", None, "True or False"),
    ("inference_mode", 0, "True or False"),
    ("lycoris_scale", "True", "True or False"),
    ("init_weights", "foo", "True, False or 'lycoris'"),
    ("init_weights", None, "True, False or 'lycoris'"),
    ("init_weights", 1, "True, False or 'lycoris'"),
    ("task_type", "CLASSIFY", "None or one of SEQ_CLS, SEQ_2_SEQ_LM, CAUSAL_LM"),
    ("peft_type", "LORA", "'LOKR'"),
    ("target_modules", [], "None, names, or an expression"),
    ("target_modules", "", "None, names, or an expression"),
    ("target_modules", 5, "a list of module names"),
    ("target_modules", ["query", 5], "a list of module names"),
    ("exclude_modules", 5, "a list of module names"),
    ("modules_to_save", "classifier", "a list of module names"),
    ("modules_to_save", 5, "a list of module names"),
    ("layers_to_transform", -1, "an integer >= 0 or a list of them"),
    ("layers_to_transform", 1.5, "an integer >= 0 or a list of them"),
    ("layers_to_transform", True, "an integer >= 0 or a list of them"),
    ("layers_to_transform", "2", "an integer >= 0 or a list of them"),
    ("layers_to_transform", [0, "1"], "an integer >= 0 or a list of them"),
    ("layers_to_transform", [], "an integer >= 0 or a list of them"),
    ("rank_pattern", 3, "a mapping"),
    ("rank_pattern", ["query"], "a mapping"),
    ("alpha_pattern", "query", "a mapping"),
]
REFUSED_IN_PATTERNS = [
    ("rank_pattern", {"query": 0}, "rank_pattern['query']=0: expected an integer >= 1"),
    ("rank_pattern", {"query": 2.0}, "rank_pattern['query']=2.0: expected an integer >= 1"),
    ("alpha_pattern", {"query": 0}, "alpha_pattern['query']=0: expected a finite number > 0"),
    ("alpha_pattern", {"q": math.inf}, "alpha_pattern['q']=inf: expected a finite number > 0"),
    ("rank_pattern", {"(": 2}, "rank_pattern['(']='(': not a regular expression"),
    ("alpha_pattern", {"[": 2}, "alpha_pattern['[']='[': not a regular expression"),
    ("target_modules", "(", "target_modules='(': not a regular expression"),
    ("exclude_modules", "*", "exclude_modules='*': not a regular expression"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), REFUSED)
def test_refused_with_field_value_and_range(field, value, allowed):
    with pytest.raises(ValueError, match="expected") as error:
        LoKrConfig(**{field: value})
    message = str(error.value)
    kept = tuple(value) if isinstance(value, list) else value  # lists are kept as tuples
    assert message.startswith((f"{field}={value!r}:", f"{field}={kept!r}:"))
    assert f"expected {allowed}" in message


@pytest.mark.parametrize(("field", "value", "message"), REFUSED_IN_PATTERNS)
def test_refused_entry(field, value, message):
    with pytest.raises(ValueError, match=r"expected|not a regular") as error:
        LoKrConfig(**{field: value})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", -1),
        ("alpha", 0),
        ("decompose_factor", 0),
        ("decompose_factor", -2),
        ("rank_dropout", 2.0),
        ("module_dropout", -1.0),
        ("init_weights", "foo"),
        ("r", 0),
    ],
)
def test_peft_takes_silently_what_we_refuse(field, value):
    assert getattr(peft.LoKrConfig(**{field: value}), field) == value
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        LoKrConfig(**{field: value})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("decompose_factors", "decompose_factor"),
        ("dropout", "rank_dropout"),
        ("init_lora_weights", "init_weights"),
        ("targets", "target_modules"),
        ("R", "r"),
    ],
)
def test_unknown_field_names_the_nearest(name, nearest):
    with pytest.raises(TypeError, match=f"no field '{name}'; did you mean '{nearest}'"):
        LoKrConfig(**{name: 1})


def test_fields_are_keyword_only_and_frozen():
    with pytest.raises(TypeError):
        LoKrConfig(8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoKrConfig().r = 4


def test_fields_and_defaults_are_those_of_peft():
    ours = LoKrConfig().to_dict()
    theirs = peft.LoKrConfig().to_dict()
    assert ours.keys() <= theirs.keys()
    # What newer versions of peft add, all of it off by default.
    added = theirs.keys() - ours.keys()
    assert not any(theirs[name] for name in added)
    different = {name for name in ours if ours[name] != theirs[name]}
    assert different == {"peft_version"}  # peft fills it in at once, we when saving


def test_the_23_fields_of_peft_0_18():
    assert set(LoKrConfig().to_dict()) == {
        "alpha",
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "decompose_both",
        "decompose_factor",
        "exclude_modules",
        "inference_mode",
        "init_weights",
        "layers_pattern",
        "layers_to_transform",
        "module_dropout",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "r",
        "rank_dropout",
        "rank_dropout_scale",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_effective_conv2d",
    }


def test_lora_alpha_is_alpha_with_a_warning():
    with pytest.warns(UserWarning, match="lora_alpha=32 is read as alpha=32") as caught:
        config = LoKrConfig(lora_alpha=32)
    assert config.alpha == 32
    assert caught[0].filename == __file__  # points at the caller
    with pytest.raises(TypeError, match="lora_alpha"):
        peft.LoKrConfig(lora_alpha=32)


def test_lora_alpha_beside_alpha():
    with pytest.raises(ValueError, match="alpha=8 and lora_alpha=32 contradict each other"):
        LoKrConfig(alpha=8, lora_alpha=32)
    with pytest.warns(UserWarning, match="read as alpha"):
        assert LoKrConfig(alpha=32, lora_alpha=32).alpha == 32


def test_lora_alpha_is_checked_as_alpha():
    with (
        pytest.warns(UserWarning, match="read as alpha"),
        pytest.raises(ValueError, match="alpha=-1: expected"),
    ):
        LoKrConfig(lora_alpha=-1)


def test_layers_to_transform_needs_targets_by_name():
    with pytest.raises(ValueError, match=r"layers_to_transform=0 with target_modules='.*q'"):
        LoKrConfig(target_modules=".*q", layers_to_transform=0)
    assert LoKrConfig(target_modules="all-linear", layers_to_transform=[0]).layers_to_transform == (
        0,
    )


def test_layers_pattern_needs_layers_to_transform_as_in_peft():
    with pytest.raises(ValueError, match="layers_pattern='h' has no effect without"):
        LoKrConfig(target_modules=["q"], layers_pattern="h")
    with pytest.raises(ValueError, match="layers_pattern"):
        peft.LoKrConfig(target_modules=["q"], layers_pattern="h")


def test_collections_are_normalized():
    config = LoKrConfig(target_modules={"v", "q"}, modules_to_save=["head"], rank_pattern=None)
    assert config.target_modules == ("q", "v")
    assert config.modules_to_save == ("head",)
    assert config.rank_pattern == {}
    assert LoKrConfig(target_modules=["v", "q"]).target_modules == ("v", "q")


def test_enums_of_peft_are_strings():
    config = LoKrConfig(task_type=peft.TaskType.SEQ_CLS, peft_type=peft.PeftType.LOKR)
    assert (type(config.task_type), config.task_type) == (str, "SEQ_CLS")
    assert (type(config.peft_type), config.peft_type) == (str, "LOKR")


def test_every_task_type_of_peft_is_known():
    for task in peft.TaskType:
        assert LoKrConfig(task_type=task.value).task_type == task.value


@pytest.mark.parametrize("empty", [None, False, 0, [], {}, ""])
def test_an_empty_field_of_a_newer_peft_is_passed_over(empty):
    assert LoKrConfig.from_dict({"r": 4, "new_field": empty}) == LoKrConfig(r=4)


def test_a_set_field_of_a_newer_peft_is_refused():
    with pytest.raises(TypeError, match="no field 'new_field'"):
        LoKrConfig.from_dict({"r": 4, "new_field": 3})


@pytest.mark.parametrize(
    "empty",
    [
        {"exclude_modules": []},
        {"layers_to_transform": []},
        {"layers_pattern": []},
        {"layers_pattern": ""},
        {"modules_to_save": []},
    ],
)
def test_what_peft_writes_empty_reads_as_unset(empty):
    assert LoKrConfig.from_dict({"r": 4, **empty}) == LoKrConfig(r=4)


def test_lora_alpha_in_a_json_is_not_lost_as_in_peft():
    with pytest.warns(UserWarning, match="Unexpected keyword arguments"):
        theirs = peft.LoKrConfig.from_peft_type(
            peft_type="LOKR", lora_alpha=32, task_type=None, base_model_name_or_path=None
        )
    assert theirs.alpha == 8
    with pytest.warns(UserWarning, match="read as alpha"):
        assert LoKrConfig.from_dict({"lora_alpha": 32}).alpha == 32


def test_to_dict_and_back():
    config = LoKrConfig(
        r=4,
        alpha=2.5,
        target_modules=["q", "v"],
        layers_to_transform=[0, 1],
        layers_pattern=["h"],
        rank_pattern={"q": 2},
        alpha_pattern={"v": 1.5},
        init_weights="lycoris",
        task_type="SEQ_CLS",
    )
    assert LoKrConfig.from_dict(config.to_dict()) == config


def test_replace_and_pickle():
    config = LoKrConfig(r=4, target_modules=["q"], rank_pattern={"q": 2})
    assert dataclasses.replace(config, r=2) == LoKrConfig(
        r=2, target_modules=["q"], rank_pattern={"q": 2}
    )
    with pytest.raises(ValueError, match="r=0: expected"):
        dataclasses.replace(config, r=0)
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_sound_config_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoKrConfig(r=10**6, alpha=1e-3, decompose_factor=1, rank_dropout=0.999, module_dropout=0)
