"""The step comparison in small, each contender in a process of its own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from experiments import cli
from experiments.bench import step
from experiments.bench.synthetic import RandomTokens, Size
from experiments.methods import attach
from experiments.train import train_pack

TINY = Size(
    hidden=32,
    layers=2,
    heads=4,
    intermediate=64,
    vocabulary=50,
    rows=4,
    tokens=6,
    lanes=3,
    steps=5,
    precision="fp32",
)


@pytest.mark.parametrize("name", step.names("cpu"))
def test_every_contender_that_a_cpu_has(name):
    row = step.measure(name, TINY, "cpu", threads=1)
    assert row["reason"] is None
    assert len(row["samples"]) == TINY.steps
    assert min(row["samples"]) > 0
    assert row["lanes"] == (3 if name == step.LANES else 1)
    assert row["allocated_bytes"] is None
    json.dumps(row, allow_nan=False)


def test_graphs_are_for_gpus():
    assert step.OURS in step.names("cuda")
    assert step.OURS not in step.names("cpu")
    assert set(step.names("cpu")) < set(step.names("cuda"))


def test_a_contender_that_fails_is_a_row_with_its_reason():
    row = step.in_process(step.EAGER, replace(TINY, precision="fp8"), "cpu")
    assert row["samples"] is None
    assert "ValueError: precision='fp8'" in row["reason"]


def test_the_adapters_are_on_every_linear_layer_of_the_encoder():
    task = RandomTokens(TINY)
    for method, layers in (("lokr", 12), ("lokr-peft", 12), ("lora", 12)):
        model = attach([TINY.trial(method)], task).model
        leaves = ("base_layer.weight",)
        assert sum(name.endswith(leaves) for name, _ in model.named_parameters()) == layers


def test_the_task_of_random_tokens_can_be_trained(monkeypatch):
    task = RandomTokens(TINY, train_size=8)
    monkeypatch.setattr("experiments.tasks.load", lambda trial, data: task)
    trial = replace(TINY.trial("lokr"), learning_rate=1e-2, epochs=6)
    (outcome,) = train_pack([trial])
    assert outcome.status == "ok"
    assert outcome.history[-1]["train_loss"] < outcome.history[0]["train_loss"]
    said = task.dev.tensors["labels"].float()
    assert task.scores(said)["report"]["accuracy"] == 1
    assert task.scores(1 - said)["report"]["accuracy"] == 0
    assert torch.equal(
        task.train.tensors["input_ids"], RandomTokens(TINY, 8).train.tensors["input_ids"]
    )


class NoQuestions(TorchDispatchMode):
    """Refuses what reads a tensor on the host, which a CUDA graph cannot record."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in func.__name__, "the host reads a tensor"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [step.EAGER, step.LANES, step.FLOOR])
def test_a_step_that_is_to_be_captured_asks_nothing(name):
    one = step._BUILD[name](TINY, torch.device("cpu"))
    one()
    with NoQuestions():
        one()


def test_the_command_saves_what_it_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "SMALL", TINY)
    options = ["--device", "cpu", "--only", "ours, eager", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli.app, ["bench", "step", *options])
    assert ran.exit_code == 0, ran.output
    saved = json.loads((tmp_path / "bench" / "step-cpu.json").read_text())
    assert saved["pieces"]["ours, eager"]["size"] == TINY.to_dict()
    assert "One training step (small CPU version)" in (tmp_path / "bench/README.md").read_text()
