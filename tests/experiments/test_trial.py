"""A trial is its numbers: they name it, and wrong ones are refused."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.trial import KNOBS_READ, METHODS, PRECISIONS, Trial, spell

TRIALS = st.builds(
    Trial,
    task=st.sampled_from(["glue/rte", "sentences/entailment"]),
    base=st.sampled_from(["minilm", "some/hub-id"]),
    method=st.sampled_from(METHODS),
    r=st.integers(1, 64),
    alpha=st.floats(0.1, 64) | st.integers(1, 64),
    decompose_factor=st.just(-1) | st.integers(1, 64),
    decompose_both=st.booleans(),
    init_weights=st.sampled_from([True, False, "lycoris"]),
    rank_dropout=st.floats(0, 0.9),
    target_modules=st.sampled_from([("query",), ["query", "value"], "all-linear"]),
    learning_rate=st.floats(1e-6, 1e6),
    train_size=st.none() | st.integers(1, 1000),
    precision=st.sampled_from(PRECISIONS),
    seed=st.integers(0, 100),
)


@pytest.mark.parametrize(
    ("fields", "trial_id"),
    [
        ({"task": "glue/rte"}, "fa6445b297a5827c"),
        ({"task": "sentences/entailment", "r": 4, "alpha": 16, "seed": 3}, "4d53257e5dd30cca"),
        ({"task": "glue/cola", "method": "lora", "target_modules": ("query",)}, "e87fee371a4dbf67"),
    ],
)
def test_ids_stay_what_they_were_because_results_on_disk_carry_them(fields, trial_id):
    assert Trial(**fields).id == trial_id


def test_a_field_at_its_default_leaves_the_id_alone():
    assert Trial(task="glue/rte", r=8, seed=0).id == Trial(task="glue/rte").id


@pytest.mark.parametrize(("integer", "real"), [("alpha", 16), ("clip", 2), ("learning_rate", 1)])
def test_equal_numbers_spelled_differently_are_one_trial(integer, real):
    one, other = (Trial(task="glue/rte", **{integer: kind(real)}) for kind in (int, float))
    assert one == other
    assert one.id == other.id


def test_a_list_of_targets_is_the_tuple():
    assert Trial(task="glue/rte", target_modules=["query", "value"]).id == Trial(task="glue/rte").id


@given(TRIALS)
def test_json_keeps_the_trial(trial):
    assert Trial.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial


@given(TRIALS, TRIALS)
def test_ids_are_equal_exactly_for_equal_trials(one, other):
    assert (one.id == other.id) == (one == other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "rte"),
        ("task", None),
        ("base", ""),
        ("method", "dora"),
        ("r", 0),
        ("r", 8.0),
        ("r", True),
        ("alpha", 0),
        ("alpha", float("inf")),
        ("alpha", "8"),
        ("decompose_factor", 0),
        ("decompose_factor", -2),
        ("decompose_both", 1),
        ("init_weights", "foo"),
        ("init_weights", 1),
        ("use_effective_conv2d", "no"),
        ("rank_dropout", 1.0),
        ("module_dropout", -0.1),
        ("rank_dropout_scale", None),
        ("target_modules", ()),
        ("target_modules", ("query", 3)),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1),
        ("clip", 0),
        ("warmup", 1),
        ("epochs", 0),
        ("batch_size", 2.5),
        ("train_size", 0),
        ("max_length", "long"),
        ("precision", "fp8"),
        ("seed", -1),
        ("seed", True),
    ],
)
def test_a_value_out_of_range_is_refused_with_field_value_and_range(field, value):
    with pytest.raises(ValueError, match=r"=.*: expected ") as caught:
        Trial(**{"task": "glue/rte", field: value})
    assert str(caught.value).startswith(f"{field}={value!r}")


def test_every_field_has_a_rule():
    from experiments.trial import _RULES

    assert set(_RULES) == {field.name for field in dataclasses.fields(Trial)}


def test_every_method_says_which_knobs_it_reads():
    assert set(KNOBS_READ) == set(METHODS)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-3, "0.001"), (8.0, "8"), (("query", "value"), "query+value"), (True, "True")],
)
def test_values_are_spelled_for_people(value, text):
    assert spell(value) == text
