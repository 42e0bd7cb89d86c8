"""A step in parts is the step: the same losses, gradients and weights, and less padding."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from experiments import batches, tasks, train
from experiments.bench import packed_step
from experiments.bench.sweep import Sweep
from experiments.cost import solo
from experiments.methods import attach, generator_of
from experiments.step import PackStep

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def curve(outcome) -> list[float]:
    return [loss for row in outcome.history for loss in row["losses"]]


def trained(trials, glue, parts: int) -> PackStep:
    """A pack after all its steps."""
    task = tasks.load(trials[0], glue)
    step = PackStep(task, attach(trials, task), trials, CPU)
    for epoch in train.training_passes(trials, task, CPU, parts):
        step.train_feed.load(epoch)
        for kind in epoch.steps:
            step.train(kind)
    return step


@pytest.mark.parametrize("parts", [2, 3, 4, 9])
@pytest.mark.parametrize("size", [7, 10, 48])
def test_losses_and_weights_are_those_of_whole_batches(size, parts, trial, glue):
    """48 rows: in batches of 7 the last has 6, of 10 it has 8, and nothing divides by the parts."""
    trials = [trial(seed=seed, batch_size=size) for seed in range(3)]
    whole, cut = (trained(trials, glue, count) for count in (1, parts))
    kinds = train.training_passes(trials, whole.task, CPU, parts)[0].steps
    assert max(map(len, kinds)) > 1
    assert cut.losses.isfinite().all()
    torch.testing.assert_close(cut.losses, whole.losses, rtol=1e-5, atol=1e-7)
    weights = [step.optimizer.parameters.values for step in (cut, whole)]
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["lokr", "head", "lora", "lokr-peft", "full"])
def test_gradients_of_the_parts_add_up(method, trial, glue):
    trials = [trial(method=method, batch_size=10, seed=s) for s in range(2)]
    trials = trials if method in ("lokr", "head") else trials[:1]
    found = []
    for parts in (1, 3):
        task = tasks.load(trials[0], glue)
        step = PackStep(task, attach(trials, task), trials, CPU)
        epoch = train.training_passes(trials, task, CPU, parts)[0]
        step.train_feed.load(epoch)
        for part in range(len(epoch.steps[0])):
            step.backward(step.forward(epoch.steps[0], part))
        found.append(step.optimizer.parameters.take_gradients().clone())
        assert len(epoch.steps[0]) == parts
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("knobs", [{"rank_dropout": 0.3}, {"module_dropout": 0.5}])
def test_all_parts_of_a_step_drop_the_same(knobs, trial, glue):
    trials = [trial(seed=seed, batch_size=10, **knobs) for seed in range(2)]
    whole, cut = (train.train_pack(trials, data=glue, parts=parts) for parts in (1, 3))
    plain = train.train_pack(
        [replace(one, **dict.fromkeys(knobs, 0.0)) for one in trials], data=glue
    )
    for one, other, without in zip(whole, cut, plain, strict=True):
        assert curve(one) == pytest.approx(curve(other), rel=1e-5)
        assert curve(one) != pytest.approx(curve(without), rel=1e-3)


def test_regression(trial, glue):
    trials = [trial(task="glue/stsb", seed=seed, batch_size=10) for seed in range(2)]
    whole, cut = (train.train_pack(trials, data=glue, parts=parts) for parts in (1, 3))
    for one, other in zip(whole, cut, strict=True):
        assert curve(one) == pytest.approx(curve(other), rel=1e-5)


def test_a_lane_in_parts_is_its_trial_alone(trial, glue):
    trials = [trial(seed=seed, batch_size=10, learning_rate=10.0**-seed) for seed in (2, 3)]
    packed = train.train_pack(trials, data=glue, parts=3)
    for one, lane in zip(trials, packed, strict=True):
        (alone,) = train.train_pack([one], data=glue)
        assert curve(lane) == pytest.approx(curve(alone), rel=1e-5)


@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_a_diverging_lane_leaves_the_others_bit_for_bit(rate, trial, glue):
    calm = [trial(seed=seed, batch_size=10) for seed in range(3)]
    wild = [calm[0], replace(calm[1], learning_rate=rate), calm[2]]
    expected, got = (train.train_pack(trials, data=glue, parts=3) for trials in (calm, wild))
    assert got[1].status == "diverged"
    for lane in (0, 2):
        assert curve(got[lane]) == curve(expected[lane])


def test_a_loss_is_the_mean_over_the_rows_of_all_parts(trial, glue):
    trials = [trial(batch_size=11)]
    step = trained(trials, glue, 4)
    task, model = step.task, attach(trials, step.task).model.train()
    epoch = train.training_passes(trials, task, CPU, 1)[0]
    batch = task.train.gather(epoch.rows[0], None)
    labels = batch.pop("labels")
    loss = cross_entropy(model(**batch).logits, labels)
    assert step.losses[0].item() == pytest.approx(loss.item(), rel=1e-5)


def test_a_step_in_parts_is_padded_less(trial, glue):
    trials = [trial(batch_size=12, max_length=64)]
    task = tasks.load(trials[0], glue)

    def tokens(parts: int) -> int:
        epochs = train.training_passes(trials, task, CPU, parts)
        return sum(s.rows * s.length for one in epochs for step in one.steps for s in step)

    assert tokens(4) < tokens(2) < tokens(1)
    assert tokens(4) >= int(task.train.lengths.sum()) * trials[0].epochs


def test_parts_are_chosen_for_a_gpu_that_stays_full(trial, glue, monkeypatch):
    """Planned only: nothing runs on the device."""
    monkeypatch.setattr(batches, "PART_TOKENS", 60)
    trials = [trial(batch_size=8, seed=seed, max_length=64) for seed in range(2)]
    task = tasks.load(trials[0], glue)
    assert {
        len(step) for one in train.training_passes(trials, task, CPU) for step in one.steps
    } == {1}
    cut = train.training_passes(trials, task, GPU)
    assert max(len(step) for one in cut for step in one.steps) > 1
    assert len({step for one in cut for step in one.steps}) <= batches.KINDS
    monkeypatch.undo()
    alone = train.training_passes(trials[:1], task, GPU)
    assert {len(step) for one in alone for step in one.steps} == {1}
    order = batches.epoch_orders(task.train_size, [generator_of(trials[0], "order")])
    assert alone[0].rows.flatten().tolist() == order.flatten().tolist()


def test_masks_that_peft_draws_in_each_pass_keep_the_batch_whole(trial, glue, monkeypatch):
    monkeypatch.setattr(batches, "PART_TOKENS", 60)
    one = trial(method="lokr-peft", batch_size=16, max_length=64)
    task = tasks.load(one, glue)

    def most(single) -> int:
        epochs = train.training_passes([single], task, GPU)
        return max(len(step) for epoch in epochs for step in epoch.steps)

    assert most(one) > 1
    assert most(replace(one, rank_dropout=0.5)) == 1


def test_the_cost_of_a_step_counts_all_its_parts(trial, glue, monkeypatch):
    passes = train.training_passes
    monkeypatch.setattr(solo, "training_passes", lambda *what: passes(*what, parts=3))
    one = trial(batch_size=12)
    alone = solo.Solo(one, tasks.load(one, glue), "cpu", steps=2)
    assert [len(step) for step in alone.batches.steps] == [3, 3]
    assert alone.examples == 12
    assert alone.tokens == int(alone.task.train.lengths[alone.batches.rows].sum())
    assert len(alone.eager_turn()) == 2 * len(solo.PARTS)
    assert len(alone.captured_turn()) == 2
    assert alone.memory()["kept_for_backward_bytes"] > 0
    assert alone.lengths == [step[-1].length for step in alone.batches.steps]


def test_laps_of_parts_add_up():
    assert list(solo._three(iter([1.0, 2.0, 4.0, 8.0, 16.0]), 2)) == [5.0, 10.0, 16.0]


def test_the_floor_takes_the_same_parts(trial, glue, monkeypatch):
    passes, seen = train.training_passes, []
    monkeypatch.setattr(packed_step, "training_passes", lambda *what: passes(*what, parts=3))
    plain = packed_step.floor

    def floor(task, parts, *rest):
        seen.extend(part["input_ids"].shape for part in parts)
        return plain(task, parts, *rest)

    monkeypatch.setattr(packed_step, "floor", floor)
    small = ("precision=fp32", "epochs=1", "train_size=36", "batch_size=12", "max_length=24")
    sweep = Sweep(device="cpu", data=glue, sets=(f"base={trial().base}", *small))
    piece = packed_step.measure(sweep, lanes=2, rounds=1)
    assert [list(shape) for shape in seen] == [
        [2 * rows, length] for rows, length in piece["parts"]
    ]
    assert piece["rows"] == 24
    assert math.isfinite(piece["tokens"])
