"""GLUE's loaders, halves, metrics and heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn_metrics

from experiments import bases, tasks
from experiments.errors import BenchError
from experiments.tasks import glue as glue_tasks
from experiments.tasks.metrics import METRICS
from experiments.tasks.text import halves


def test_nine_tasks_with_the_official_metrics():
    official = {
        "cola": ("matthews_correlation",),
        "sst2": ("accuracy",),
        "mrpc": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("accuracy", "f1"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
    }
    assert {name: task.metrics for name, task in glue_tasks.TASKS.items()} == official


def test_metrics_against_scipy_and_sklearn():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    x, y = rng.normal(size=50), rng.normal(size=50)
    assert METRICS["accuracy"](guesses, labels) == sklearn_metrics.accuracy_score(labels, guesses)
    assert METRICS["f1"](guesses, labels) == sklearn_metrics.f1_score(labels, guesses)
    expected = sklearn_metrics.matthews_corrcoef(labels, guesses)
    assert METRICS["matthews_correlation"](guesses, labels) == expected
    assert METRICS["pearson"](x, y) == pytest.approx(stats.pearsonr(x, y)[0])
    assert METRICS["spearman"](x, y) == pytest.approx(stats.spearmanr(x, y)[0])


def test_undefined_scores():
    labels = np.array([0.0, 1.0, 2.0])
    for name in ("pearson", "spearman", "matthews_correlation"):
        assert METRICS[name](np.ones(3), np.array([0, 1, 1])) == 0.0
    assert np.isnan(METRICS["pearson"](np.array([np.nan, 1.0, 2.0]), labels))


def test_halves_depend_on_the_rows_alone(glue):
    data = glue_tasks.load("rte", glue)
    split = halves(data)
    assert len(split["selection"]) == len(split["report"]) == len(data.dev) // 2
    assert not set(split["selection"]) & set(split["report"])
    assert sorted([*split["selection"], *split["report"]]) == split["full"].tolist()
    turned = type(data)(**{**vars(data), "dev": list(reversed(data.dev))})
    texts = {data.dev[i]["sentence1"] for i in split["selection"]}
    assert texts == {turned.dev[i]["sentence1"] for i in halves(turned)["selection"]}


def test_mnli_scores_its_two_dev_sets_apart(trial, glue):
    task = tasks.load(trial(task="glue/mnli"), glue)
    scores = task.scores(torch.zeros(len(task.dev)))
    assert set(scores["full"]) == {"accuracy", "accuracy_mm"}


def test_a_batch_is_cut_to_what_it_needs(trial, glue):
    train = tasks.load(trial(), glue).train
    rows = torch.tensor([3, 0, 3])
    whole, short = train.gather(rows, train.width), train.gather(rows, 5)
    for name, tensor in train.tensors.items():
        assert torch.equal(whole[name], tensor[rows])
        assert torch.equal(short[name], tensor[rows] if name == "labels" else tensor[rows, :5])
    assert train.lengths.max() == train.width


def test_heads_are_drawn_from_the_seed_alone(trial, glue):
    task = tasks.load(trial(), glue)
    first, second, other = (task.model() for _ in range(3))
    torch.manual_seed(1)
    task.reset_heads(first, 7)
    torch.manual_seed(2)
    task.reset_heads(second, 7)
    task.reset_heads(other, 8)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert task.heads == ("classifier",)


def test_train_size_takes_the_same_rows_for_every_trial(trial, glue):
    small, again = (tasks.load(trial(train_size=10, seed=s), glue) for s in (0, 1))
    assert small.train_size == 10
    assert small.provenance["data"] == again.provenance["data"]


def test_dropouts_of_the_base_are_off(base):
    model = bases.load_model(bases.locate(base), 2)
    assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))


def test_skeleton_has_no_weights(base):
    assert all(p.is_meta for p in bases.skeleton(base).parameters())


def test_provenance_tells_origin_and_content(trial, glue, base):
    provenance = tasks.load(trial(), glue).provenance
    assert provenance["base"]["origin"] == "folder"
    assert len(provenance["base"]["sha256"]) == 16
    assert provenance["data"]["train"] == 48
    assert "/" not in provenance["base"]["name"], "no path of this machine"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"task": "glue/nope"}, "expected one of cola"),
        ({"task": "nope/rte"}, "expected a family of"),
        ({"task": "glue/sst2"}, "has no validation-"),
        ({"train_size": 1000}, "there are 48 training rows"),
        ({"base": "no-such/base"}, "could not be had from the hub"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(fields, match, trial, glue):
    with pytest.raises(BenchError, match=match) as caught:
        tasks.load(trial(**fields), glue)
    assert "\n" not in str(caught.value)
