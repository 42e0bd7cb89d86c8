"""Studies say what they compare; overrides change the trials and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from experiments import sizes, studies
from experiments.errors import BenchError
from experiments.overrides import override, parse
from experiments.plan import collapse
from experiments.study import Study, grid
from experiments.trial import METHODS, Trial

BASE = {"task": "glue/rte"}


def study(**changes: object) -> Study:
    made = {
        "name": "small",
        "description": "for tests",
        "trials": tuple(grid(BASE, r=(4, 8), seed=(0, 1))),
        "scientific": ("r",),
    }
    return Study(**{**made, **changes})


@pytest.mark.parametrize("name", studies.names())
def test_every_study_loads_under_its_name_and_repeats_every_cell_over_the_same_seeds(name):
    loaded = studies.load(name)
    assert loaded.name == name
    assert len(set(loaded.trials)) == len(loaded.trials)
    seeds = [{t.seed for t in cell} for cell in loaded.cells(loaded.trials).values()]
    assert len(seeds[0]) >= 2, "a spread needs two"
    assert all(cell == seeds[0] for cell in seeds), "differences are paired by seed"


def test_quickstart_compares_lokr_with_baselines_and_shows_a_collapse():
    quickstart = studies.load("quickstart")
    distinct, collapsed = collapse(quickstart.trials, sizes.layers_of)
    assert {trial.method for trial in distinct} >= {"lokr", "lora", "head"}
    assert any("w2 is full in every layer" in c.reason for c in collapsed)


def test_an_unknown_study_is_named_with_the_nearest_and_the_known():
    with pytest.raises(BenchError, match=r"unknown study 'quikstart'; did you mean 'quickstart'\?"):
        studies.load("quikstart")
    with pytest.raises(BenchError, match=r"unknown study 'zzz'. Known: .*glue-rte, quickstart"):
        studies.load("zzz")


def test_a_module_must_return_the_study_of_its_name(monkeypatch):
    monkeypatch.setattr("experiments.studies.quickstart.study", study)
    with pytest.raises(ValueError, match="returns the study 'small': expected 'quickstart'"):
        studies.load("quickstart")


def test_a_grid_is_every_combination_in_order():
    trials = grid({**BASE, "alpha": 4}, r=(4, 8), seed=(0, 1))
    assert [(t.r, t.seed, t.alpha) for t in trials] == [(4, 0, 4), (4, 1, 4), (8, 0, 4), (8, 1, 4)]
    assert grid(BASE) == [Trial(**BASE)]


def test_every_field_has_one_role():
    roles = [*study().scientific, *study().nuisance, *study().fixed]
    assert sorted(roles) == sorted(field.name for field in fields(Trial))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../up"}, "name='../up': expected lower-case words"),
        ({"trials": ()}, "study 'small' has no trials"),
        ({"scientific": ("rank",)}, "Trial has no field 'rank'"),
        ({"scientific": ("r", "seed")}, r"\['seed'\] are scientific and nuisance"),
        ({"scientific": ("alpha",)}, "r varies, so it must be named scientific or nuisance"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        study(**changes)


def test_a_label_names_what_the_method_reads():
    made = study(scientific=("method", "r", "init_weights", "target_modules", "epochs"))
    labels = {method: made.label([Trial(method=method, **BASE)]) for method in METHODS}
    assert labels["lokr"] == "lokr r=8 init_weights=True target_modules=query+value epochs=3"
    assert labels["lora"] == "lora r=8 target_modules=query+value epochs=3"
    assert labels["head"] == "head epochs=3"
    assert study().label(study().trials) == "lokr r=4,8"


def test_cells_group_what_agrees_in_the_scientific_fields():
    cells = study().cells(study().trials)
    assert {label: len(trials) for label, trials in cells.items()} == {"lokr r=4": 2, "lokr r=8": 2}


def test_an_override_changes_every_trial_and_its_id():
    changed = override(study(), ["epochs=7", "precision=bf16"])
    assert len(changed.trials) == 4
    assert {(t.epochs, t.precision) for t in changed.trials} == {(7, "bf16")}
    assert {t.id for t in changed.trials}.isdisjoint(t.id for t in study().trials)
    assert override(study(), []) == study()


def test_trials_that_an_override_makes_equal_are_one():
    assert [t.r for t in override(study(), ["seed=5"]).trials] == [4, 8]


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("r=16", 16),
        ("alpha=16", 16),
        ("learning_rate=1e-3", 1e-3),
        ("decompose_both=true", True),
        ("init_weights=lycoris", "lycoris"),
        ("init_weights=False", False),
        ("train_size=none", None),
        ("base=1234", "1234"),
        ("task=glue/cola", "glue/cola"),
        ("target_modules=query", ("query",)),
        ("target_modules=query,key", ("query", "key")),
        ("target_modules=all-linear", "all-linear"),
        (r"target_modules=.*\.(query|key)", r".*\.(query|key)"),
    ],
)
def test_a_value_is_read_as_its_field_asks(assignment, value):
    field, read = parse(assignment)
    assert read == value
    assert type(read) is type(value)
    replace(Trial(**BASE), **{field: read})


def test_sizes_come_from_shapes_alone(base):
    """RoBERTa's golden counts are lokr's; here the head and the other methods join them."""
    make = {"task": "glue/rte", "base": base, "r": 2, "alpha": 2}
    head = 2 * 32 + 2
    # 32 is split 4 x 8: w1 (4, 4), w2_a and w2_b (8, 2), in query and value of two layers
    assert sizes.parameters_of(Trial(**make)) == 4 * (16 + 2 * 16) + head
    assert sizes.parameters_of(Trial(**make, method="lora")) == 4 * 2 * (32 + 32) + head
    assert sizes.parameters_of(Trial(**make, method="head")) == head
    assert sizes.parameters_of(Trial(**make, method="full")) > 30_000


def test_rows_are_the_trials_or_the_tasks(base, glue):
    trial = Trial(task="glue/rte", base=base, max_length=16)
    assert sizes.rows_of(trial, glue) == 48
    assert sizes.rows_of(replace(trial, train_size=7), None) == 7


def test_targets_that_match_nothing_are_one_line(base):
    with pytest.raises(BenchError, match=r"LoKr on base .*matches no module"):
        sizes.layers_of(Trial(task="glue/rte", base=base, target_modules=("quarry",)))
