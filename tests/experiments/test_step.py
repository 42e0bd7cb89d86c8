"""The step against a plain loop with torch's own optimizer; recording and its bookkeeping."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.bert.modeling_bert import BertLayer

from experiments import batches, tasks, train
from experiments.batches import Step
from experiments.graphs import Recorder
from experiments.methods import attach, generator_of
from experiments.optimizer import share_of_peak
from experiments.step import PackStep, unchanged
from experiments.tasks import text

CPU = torch.device("cpu")


class FakeGraph:
    """Remembers the operations and runs them when replayed."""

    made: list[FakeGraph]

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.replays = 0

    def record(self, operations) -> None:
        if self.error:
            raise self.error
        self.operations = operations

    def replay(self) -> None:
        self.replays += 1
        self.operations()


def recorder(error: Exception | None = None) -> tuple[Recorder, list[FakeGraph]]:
    made: list[FakeGraph] = []

    def make() -> FakeGraph:
        made.append(FakeGraph(error))
        return made[-1]

    return Recorder(make), made


def pack_step(trials, glue) -> PackStep:
    task = tasks.load(trials[0], glue)
    return PackStep(task, attach(trials, task), trials, CPU)


def load(step, trials, parts: int = 1) -> tuple[list[Step], batches.Pass]:
    epoch = train.training_passes(trials, step.task, CPU, parts)[0]
    dev = train.dev_pass(len(trials), step.task, CPU)
    step.train_feed.load(epoch)
    step.dev_feed.load(dev)
    return list(epoch.steps), dev


class NoQuestions(TorchDispatchMode):
    """Refuses what asks a tensor for its values, which on a GPU waits for the device."""

    asking = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        indices = args[1] if name.startswith("index") and isinstance(args[1], list) else ()
        masked = any(index is not None and index.dtype == torch.bool for index in indices)
        asks = masked or name.startswith(self.asking)
        assert not asks, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


def plain_losses(trial, glue) -> list[float]:
    """A plain loop over one trial: torch's AdamW, clipping and schedule, cross-entropy."""
    task = tasks.load(trial, glue)
    adapted = attach([trial], task)
    model, parameters = adapted.model.train(), adapted.trainable
    optimizer = torch.optim.AdamW(
        parameters, lr=trial.learning_rate, weight_decay=trial.weight_decay
    )
    steps = trial.epochs * math.ceil(task.train_size / trial.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: share_of_peak(step, steps, trial.warmup)
    )
    order, losses = generator_of(trial, "order"), []
    tensors, lengths = task.train.tensors, task.train.lengths
    for _ in range(trial.epochs):
        for rows in torch.randperm(task.train_size, generator=order).split(trial.batch_size):
            batch = {name: tensor[rows] for name, tensor in tensors.items()}
            labels, longest = batch.pop("labels"), int(lengths[rows].max())
            cut = {name: tensor[:, :longest] for name, tensor in batch.items()}
            loss = nn.functional.cross_entropy(model(**cut).logits, labels)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, trial.clip)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", ["lokr", "head", "lora", "lokr-peft", "full"])
def test_loss_curve_equals_a_plain_loop(method, trial, glue):
    one = trial(method=method, learning_rate=1e-3, weight_decay=0.1, clip=0.5, batch_size=10)
    (outcome,) = train.train_pack([one], data=glue)
    curve = [loss for row in outcome.history for loss in row["losses"]]
    assert curve == pytest.approx(plain_losses(one, glue), rel=1e-5)


def test_predictions_equal_row_by_row(trial, glue):
    trials = [trial(seed=seed, init_weights=False) for seed in range(3)]
    step = pack_step(trials, glue)
    _, dev = load(step, trials)
    step.evaluate(dev)
    for lane, one in enumerate(trials):
        model = attach([one], step.task).model.eval()
        for row in range(len(step.task.dev)):
            batch = step.task.dev.gather(torch.tensor([row]), int(step.task.dev.lengths[row]))
            with torch.no_grad():
                said = step.task.predict(model, batch, 1)
            assert said.item() == step.predictions[lane, row]


def test_replaying_gives_the_same_numbers(trial, glue):
    trials = [trial(seed=seed, rank_dropout=0.3 * seed) for seed in range(2)]
    plain, replayed = pack_step(trials, glue), pack_step(trials, glue)
    replayed.recorder, graphs = recorder()
    for step in (plain, replayed):
        kinds, dev = load(step, trials)
        step.prepare(kinds, dev.steps)
        for kind in kinds:
            step.train(kind)
        step.evaluate(dev)
    assert torch.equal(plain.losses[: len(kinds)], replayed.losses[: len(kinds)])
    assert torch.equal(plain.predictions, replayed.predictions)
    assert sum(graph.replays for graph in graphs) == len(kinds) + len(dev.steps)
    assert len(graphs) == len(set(kinds)) + len(set(dev.steps))
    tokens = [shape.rows * shape.length for _, (shape,) in replayed.recorder.recorded]
    assert tokens[: len(set(kinds))] == sorted(tokens[: len(set(kinds))], reverse=True)
    replayed.close()
    assert replayed.recorder.recorded == ()


def test_warm_up_changes_nothing(trial, glue):
    trials = [trial(seed=seed, module_dropout=0.3) for seed in range(2)]
    step = pack_step(trials, glue)
    kinds, dev = load(step, trials)
    before = [tensor.clone() for tensor in step.state()]
    with unchanged(step.state()):
        step._train_operations(kinds[0])()
        step.predict(dev.steps[0])
        moved = [
            not torch.equal(old.nan_to_num(-1), new.nan_to_num(-1))
            for old, new in zip(before, step.state(), strict=True)
        ]
    assert all(moved), "state() names what a step changes, and no more"
    for old, new in zip(before, step.state(), strict=True):
        assert torch.equal(old.nan_to_num(-1), new.nan_to_num(-1))


def test_a_model_that_cannot_be_recorded_is_trained_all_the_same(trial, glue, caplog):
    trials = [trial()]
    plain, refused = pack_step(trials, glue), pack_step(trials, glue)
    refused.recorder, graphs = recorder(RuntimeError("operation not permitted\nwhen capturing"))
    with caplog.at_level(logging.WARNING):
        for step in (plain, refused):
            kinds, dev = load(step, trials)
            step.prepare(kinds, dev.steps)
            step.train(kinds[0])
    assert torch.equal(plain.losses[0], refused.losses[0])
    (record,) = caplog.records
    assert record.message.endswith("one by one: operation not permitted")
    assert len(graphs) == 1


def test_running_out_of_memory_while_recording_is_not_hidden(trial, glue):
    trials = [trial()]
    step = pack_step(trials, glue)
    step.recorder, _ = recorder(torch.OutOfMemoryError("CUDA out of memory"))
    kinds, _ = load(step, trials)
    with pytest.raises(torch.OutOfMemoryError):
        step.prepare(kinds)


def test_what_an_interrupted_step_left_is_dropped(trial, glue):
    trials = [trial()]
    plain, interrupted = pack_step(trials, glue), pack_step(trials, glue)
    kinds, _ = load(plain, trials)
    load(interrupted, trials)
    with unchanged(interrupted.state()):
        interrupted.backward(interrupted.forward(kinds[0]))
    for step in (plain, interrupted):
        step.train(kinds[0])
        step.train(kinds[1])
    assert torch.equal(plain.losses[:2], interrupted.losses[:2])


@pytest.mark.parametrize("method", ["lokr", "head", "lora", "full"])
def test_a_step_asks_the_device_nothing(method, trial, glue, monkeypatch):
    dropouts = {"rank_dropout": 0.2, "module_dropout": 0.2} if method == "lokr" else {}
    trials = [trial(method=method, precision="bf16", **dropouts)]
    monkeypatch.setattr(text, "READ_ON_HOST", ())
    step = pack_step(trials, glue)
    kinds, dev = load(step, trials)
    with NoQuestions():
        step.train(kinds[0])
        step.predict(dev.steps[0])
    assert step.losses[0].isfinite().all()


def test_questions_are_noticed():
    with NoQuestions(), pytest.raises(AssertionError, match="_local_scalar_dense waits"):
        torch.ones(1).item()
    with NoQuestions(), pytest.raises(AssertionError, match="index waits"):
        torch.ones(2)[torch.tensor([True, False])]


def test_no_step_after_the_last(trial, glue):
    trials = [trial(epochs=1, batch_size=48)]
    step = pack_step(trials, glue)
    (kind,), _ = load(step, trials)
    step.train(kind)
    with pytest.raises(IndexError, match="all 1 steps are done"):
        step.train(kind)


def test_a_pass_of_another_size_is_refused(trial, glue):
    trials = [trial()]
    step = pack_step(trials, glue)
    load(step, trials)
    with pytest.raises(ValueError, match="row numbers of a pass"):
        step.train_feed.load(batches.plan(torch.arange(8).expand(1, -1), 4))


def test_the_repeated_layers_are_compiled_and_nothing_else(trial, glue, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        nn.Module, "compile", lambda layer, **options: compiled.append((type(layer), options))
    )
    train.train_pack([trial(epochs=1)], data=glue, compile=True)
    assert compiled == [(BertLayer, {"dynamic": False})] * 2
    train.train_pack([trial(epochs=1)], data=glue)
    assert len(compiled) == 2


def test_capture_needs_a_gpu(trial, glue):
    with pytest.raises(ValueError, match="needs a CUDA device, got 'cpu'"):
        train.train_pack([trial()], data=glue, capture=True)


def test_looks_are_few_and_in_order(trial, glue):
    seen = []
    train.train_pack([trial()], data=glue, on_step=lambda *look: seen.append(look))
    assert [(done, total) for done, total, _ in seen] == [(1, 24), (10, 24), (20, 24), (24, 24)]
    assert all(math.isfinite(loss) for *_, loss in seen)
