"""The sweep comparison in small: a tiny base, real data files, every part a CPU has."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from experiments import cli, sizes, studies
from experiments.bench import sweep, trainer
from experiments.bench.sweep import Sweep
from experiments.errors import BenchError
from experiments.plan import collapse
from experiments.trial import Trial


@pytest.fixture
def what(base, glue):
    """Two trials of the study on a tiny base."""
    sets = (
        f"base={base}",
        "precision=fp32",
        "epochs=1",
        "train_size=16",
        "max_length=16",
        "batch_size=8",
    )
    return Sweep(device="cpu", data=glue, sets=sets, limit=2, sample=1)


def test_the_study_is_64_functions_on_both_bases():
    study = studies.load("bench-sweep")
    assert len(study.trials) == len({trial.id for trial in study.trials}) == 64
    distinct, collapsed = collapse(study.trials, sizes.layers_of)
    assert len(distinct) == 64
    assert not collapsed
    assert {trial.decompose_factor for trial in study.trials} == {-1, 8}


def test_the_diffusion_study_is_64_functions_and_small_on_a_cpu():
    study = studies.load("bench-emoji")
    distinct, collapsed = collapse(study.trials, sizes.layers_of)
    assert len(distinct) == 64
    assert not collapsed
    small = Sweep(device="cpu", name="bench-emoji").small().study
    assert len(small.trials) == 4
    assert {(t.task, t.train_size, t.precision) for t in small.trials} == {
        ("emoji/openmoji", 8, "fp32")
    }


def test_the_trainer_is_for_text():
    (trial, *_) = studies.load("bench-emoji").trials
    with pytest.raises(BenchError, match="trainer: transformers' Trainer is for text"):
        next(sweep.one_by_one("trainer", Sweep(device="cpu", name="bench-emoji", limit=1)))
    assert trial.method == "lokr"


def test_a_sample_takes_both_splits_in_turn_and_is_always_the_same():
    trials = studies.load("bench-sweep").trials
    drawn = sweep.sample(trials, 4)
    assert [trial.decompose_factor for trial in drawn] == [-1, 8, -1, 8]
    assert len(set(drawn)) == 4
    assert drawn == sweep.sample(trials, 4)
    assert sweep.sample(trials, 3) == drawn[:3]
    assert sweep.sample(trials, None) == list(trials)
    assert sweep.sample(trials, 64) == list(trials)


def test_a_sample_goes_on_with_the_larger_split_when_the_other_is_used_up():
    ours = studies.load(sweep.TEXT).trials
    few = [one for one in ours if one.decompose_factor == -1][:1]
    many = [one for one in ours if one.decompose_factor == 8][:6]
    drawn = sweep.sample([*few, *many], 5)
    assert [one.decompose_factor for one in drawn] == [-1, 8, 8, 8, 8]
    assert len(set(drawn)) == 5


def test_trials_that_differ_only_in_their_method_are_a_pair(trial):
    ours, theirs = trial(), trial(method="lokr-peft")
    assert sweep.pair_key(ours) == sweep.pair_key(theirs) == ours.id
    assert sweep.pair_key(trial(seed=1)) != sweep.pair_key(ours)


def test_the_trainer_trains_the_trial(trial, glue):
    one = trial(learning_rate=2e-2, epochs=3)
    history = trainer.train(one, "cpu", glue)
    assert len(history) == 3
    for scores in history:
        assert set(scores) == {"selection", "report", "full"}
        assert 0 <= scores["full"]["accuracy"] <= 1


def test_the_trainer_has_our_head_factors_and_data(trial, glue, monkeypatch):
    one = trial()
    seen = {}

    def look(model, trial, task, device, folder, score):
        seen.update(model=model, task=task)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_trainer", look)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(one, "cpu", glue)
    rows = trainer.Rows(seen["task"].train)
    assert len(rows) == 48
    assert {len(row["input_ids"]) for row in rows} == set(seen["task"].train.lengths.tolist())
    assert all(set(row["attention_mask"]) == {1} for row in rows)
    trained = [n for n, p in seen["model"].named_parameters() if p.requires_grad]
    assert any("lokr_w1" in name for name in trained)
    assert any("classifier" in name for name in trained)


def test_the_trainer_has_the_base_as_transformers_published_it():
    from transformers import MPNetConfig, MPNetForSequenceClassification
    from transformers.models.mpnet import modeling_mpnet as original

    from experiments.frozen.mpnet import fuse_attention

    config = MPNetConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model = MPNetForSequenceClassification(config)
    classes = [type(module) for module in model.modules()]
    assert original.MPNetSelfAttention in classes
    fuse_attention(model)
    assert [type(module) for module in model.modules()] != classes
    published = trainer.as_published(model)
    assert [type(module) for module in published.modules()] == classes
    assert published(torch.tensor([[5, 6]])).logits.shape == (1, 2)


def test_the_trainers_numbers_are_the_trials(tmp_path):
    numbers = {"learning_rate": 2e-3, "epochs": 4, "batch_size": 7, "clip": 0.5, "warmup": 0.2}
    one = Trial(task="glue/rte", precision="fp32", **numbers)
    arguments = trainer._arguments(one, 50, "cpu", str(tmp_path))
    assert arguments.learning_rate == 2e-3
    assert arguments.num_train_epochs == 4
    assert arguments.per_device_train_batch_size == 7
    assert arguments.max_grad_norm == 0.5
    assert arguments.get_warmup_steps(50) == 10
    assert not arguments.bf16


def test_every_part_from_end_to_end(what, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "SMALL", {sweep.TEXT: ()})
    options = [word for assignment in what.sets for word in ("--set", assignment)]
    options += ["--data", what.data, "--limit", "2", "--trials", "1"]
    command = ["bench", "sweep", "--device", "cpu", "--results", str(tmp_path), *options]
    ran = CliRunner().invoke(cli.app, command)
    assert ran.exit_code == 0, ran.output
    pieces = json.loads((tmp_path / "bench" / "sweep-cpu.json").read_text())["pieces"]
    by_part = {piece["part"]: piece for piece in pieces.values()}
    assert set(by_part) == {"packed", "trainer", "unpacked", "floor"}
    assert len(by_part["packed"]["trials"]) == 2
    assert by_part["packed"]["wall_seconds"] >= by_part["packed"]["first_result_seconds"] > 0
    assert by_part["floor"]["lanes"] == 2
    assert by_part["floor"]["rows"] == 16
    for part in ("trainer", "unpacked"):
        (timed,) = by_part[part]["trials"]
        assert timed["seconds"] > 0
        assert 0 <= timed["report_score"] <= 1
    assert by_part["unpacked"]["trials"][0]["pair"] in {
        trial["pair"] for trial in by_part["packed"]["trials"]
    }
    text = (tmp_path / "bench" / "README.md").read_text()
    assert "PEFT LoKr in transformers' Trainer | 1 of 2, extrapolated |" in text


def test_a_run_that_fails_is_one_line(what):
    with pytest.raises(BenchError, match="experiments run bench-sweep` ended with status"):
        sweep.packed(replace(what, sets=("base=/nowhere/at/all",), data=what.data))


def test_what_is_done_stays_after_ctrl_c(what, tmp_path, monkeypatch):
    calls = []

    def train(trial, sweep_):
        calls.append(trial)
        if len(calls) == 3:  # a warm-up, a trial, and then
            raise KeyboardInterrupt
        return [{"full": {"accuracy": 0.5}, "report": {"accuracy": 0.5}}], "ok"

    monkeypatch.setitem(sweep._RUNS, "trainer", train)
    monkeypatch.setattr(sweep, "SMALL", {sweep.TEXT: ()})
    options = [word for assignment in what.sets for word in ("--set", assignment)]
    command = ["bench", "sweep", "trainer", "--device", "cpu", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli.app, [*command, *options, "--limit", "4", "--data", what.data])
    assert ran.exit_code == 130
    (piece,) = json.loads((tmp_path / "bench" / "sweep-cpu.json").read_text())["pieces"].values()
    assert len(piece["trials"]) == 1
    assert "1 of 4, extrapolated" in (tmp_path / "bench" / "README.md").read_text()


def test_a_part_that_needs_a_gpu_says_so(tmp_path):
    command = ["bench", "sweep", "captured", "--device", "cpu", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli.app, command)
    assert ran.exit_code == 1
    assert "captured: needs a GPU" in ran.output


def test_the_command_that_is_timed(what):
    words = sweep._command(replace(what, lanes=8), "out")
    assert words[1:5] == ["-m", "experiments", "run", "bench-sweep"]
    for pair in (["--lanes", "8"], ["--limit", "2"], ["--device", "cpu"], ["--set", "epochs=1"]):
        assert " ".join(pair) in " ".join(words)


def test_a_profile_names_what_takes_longest(what, monkeypatch):
    monkeypatch.setattr(sweep, "SMALL", {sweep.TEXT: ()})
    options = [word for assignment in what.sets for word in ("--set", assignment)]
    command = ["bench", "profile", "--device", "cpu", "--lanes", "2", "--most", "3", *options]
    ran = CliRunner().invoke(cli.app, [*command, "--data", what.data], env={"COLUMNS": "120"})
    assert ran.exit_code == 0, ran.output
    lines = ran.output.strip().splitlines()
    (head,) = (n for n, line in enumerate(lines) if line.startswith("A step of 2 lanes of glue/"))
    names, times = zip(*(line.split()[:2] for line in lines[head + 2 : head + 6]), strict=True)
    assert names[-1] == "all"
    longest = [float(ms) for ms in times[:-1]]
    assert longest == sorted(longest, reverse=True)
    assert 0 < sum(longest) <= float(times[-1])
