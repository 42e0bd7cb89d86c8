"""Steps replayed from CUDA graphs against the same steps launched one by one.

A tiny BERT or MPNet of random weights, and token rows made up on the spot: no files, no tokenizer.
"""

from __future__ import annotations

import gc
import logging
from functools import lru_cache

import pytest
import torch

from experiments import bases, batches, tasks, train
from experiments.batches import Shape
from experiments.methods import attach
from experiments.step import PackStep, own_stream
from experiments.tasks.base import Split
from experiments.tasks.text import TextData, TextTask, halves
from experiments.trial import Trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
ROWS = {"train": 44, "dev": 40}
LONGEST = 100
VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
}
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}


class Tiny(TextTask):
    """A text task whose rows never were text."""

    def __init__(self, kind: str) -> None:
        rows = {
            split: [{"text": str(i), "label": i % 2} for i in range(size)]
            for split, size in ROWS.items()
        }
        self._data = TextData(
            **rows, columns=("text",), metrics=("accuracy",), labels=2, source="made up"
        )
        self._model = _base(kind)
        self._additive = bases.takes_additive_mask(self._model)
        self.heads = bases.heads_of(self._model)
        self.train, self.dev = (_split(size, seed) for seed, size in enumerate(ROWS.values()))
        self._halves = halves(self._data)
        self.primary, self.train_size = "accuracy", ROWS["train"]
        self.provenance = {}


class Fails(Tiny):
    """A task whose loss does something that no recording allows."""

    def __init__(self, what) -> None:
        super().__init__("bert")
        self.what = what

    def loss(self, model, batch, lanes, draws=None):
        losses = super().loss(model, batch, lanes)
        if torch.cuda.is_current_stream_capturing():
            self.what(losses)
        return losses


def _base(kind: str) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES)
    model = AutoModelForSequenceClassification.from_config(config)
    if kind == "mpnet":
        from experiments.frozen.mpnet import fuse_attention

        fuse_attention(model)
    return model


def _split(size: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, LONGEST + 1, (size,), generator=generator)
    lengths[0] = LONGEST
    mask = (torch.arange(LONGEST) < lengths.unsqueeze(1)).long()
    ids = torch.randint(5, VOCABULARY, (size, LONGEST), generator=generator) * mask + (1 - mask)
    labels = torch.arange(size) % 2
    return Split({"input_ids": ids, "attention_mask": mask, "labels": labels}, lengths)


@lru_cache
def task_of(kind: str) -> Tiny:
    return Tiny(kind)


def trial(**fields) -> Trial:
    small = {"task": "glue/rte", "epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "r": 2}
    return Trial(**{**small, **fields})


@pytest.fixture
def recorded(monkeypatch):
    """The kinds that each pack had recorded when it was closed."""
    kinds, closed = [], set()
    close = PackStep.close

    def remember(step) -> None:
        if step not in closed:  # the end of a pack closes again
            kinds.append(step.recorder.recorded)
        closed.add(step)
        close(step)

    monkeypatch.setattr(PackStep, "close", remember)
    return kinds


@pytest.fixture
def run(monkeypatch):
    """Loss curves of a pack on a task."""

    def curves(trials, task=None, **options) -> list[list[float]]:
        monkeypatch.setattr(tasks, "load", lambda trial, data: task or task_of("bert"))
        outcomes = train.train_pack(trials, device="cuda", **options)
        return [[loss for row in one.history for loss in row["losses"]] for one in outcomes]

    return curves


def assert_close(first, second, tolerance: float) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance * 0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lokr", "head", "lora", "lokr-peft", "full"])
def test_replayed_steps_are_the_steps(method, precision, run, recorded, caplog):
    lanes = 3 if method in ("lokr", "head") else 1
    rate = 2e-4 if method == "full" else 5e-3
    fields = {"method": method, "precision": precision, "learning_rate": rate}
    trials = [trial(seed=seed, **fields) for seed in range(lanes)]
    replayed = run(trials, capture=True)
    launched = run(trials, capture=False)
    assert_close(replayed, launched, TOLERANCE[precision])
    assert len(replayed[0]) == 18
    assert replayed[0][0] != replayed[0][-1]
    assert {kind for kind, _ in recorded[0]} == {"train", "dev"}
    assert len(recorded[0]) > 3
    assert recorded[1] == ()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_capture_is_the_default_on_a_gpu(run, recorded):
    run([trial()])
    assert recorded[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_mpnet_too(precision, run, recorded):
    trials = [trial(target_modules=("q", "v"), precision=precision, seed=s) for s in (0, 1)]
    replayed = run(trials, task_of("mpnet"), capture=True)
    assert_close(replayed, run(trials, task_of("mpnet"), capture=False), TOLERANCE[precision])
    assert recorded[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lokr", "head", "lora", "lokr-peft", "full"])
def test_replayed_parts_are_the_parts(method, precision, run, recorded):
    lanes = 3 if method in ("lokr", "head") else 1
    rate = 2e-4 if method == "full" else 5e-3
    fields = {"method": method, "precision": precision, "learning_rate": rate}
    trials = [trial(seed=seed, **fields) for seed in range(lanes)]
    replayed = run(trials, capture=True, parts=3)
    launched = run(trials, capture=False, parts=3)
    assert_close(replayed, launched, TOLERANCE[precision])
    kinds = [kind for way, kind in recorded[0] if way == "train"]
    assert max(map(len, kinds)) == 3
    assert len(kinds) <= batches.KINDS
    if precision == "fp32":
        assert_close(replayed, run(trials, capture=True, parts=1), 1e-2)


@pytest.mark.parametrize("knob", ["rank_dropout", "module_dropout"])
def test_dropouts_are_drawn_anew_in_every_replay(knob, run):
    trials = [trial(seed=seed, **{knob: 0.5}) for seed in (0, 1)]
    replayed = run(trials, capture=True)
    assert_close(replayed, run(trials, capture=False), TOLERANCE["fp32"])
    assert replayed != run([trial(seed=seed) for seed in (0, 1)], capture=True)


def test_pefts_dropouts_are_not_recorded(run, recorded, caplog):
    run([trial(method="lokr-peft", rank_dropout=0.5)])
    assert recorded == [()]
    assert "peft draws the masks" in caplog.text


@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_a_diverging_lane_leaves_the_others(rate, run):
    calm = [trial(seed=seed) for seed in range(3)]
    wild = [calm[0], trial(seed=1, learning_rate=rate), calm[2]]
    expected, got = run(calm), run(wild)
    assert_close([got[0], got[2]], [expected[0], expected[2]], TOLERANCE["fp32"])
    assert any(not loss < 10 * got[1][0] for loss in got[1]), "NaN is not under it either"


def test_running_out_of_memory_while_recording_leaves_nothing(run):
    expected = run([trial()])
    gc.collect()
    before = torch.cuda.memory_allocated()
    task = Fails(lambda losses: torch.empty(10**13, dtype=torch.uint8, device=losses.device))
    with pytest.raises(torch.OutOfMemoryError):
        run([trial(seed=seed) for seed in range(4)], task)
    del task
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= before + 2**20
    assert_close(run([trial()]), expected, TOLERANCE["fp32"])


def test_a_finished_pack_leaves_nothing(run):
    held = []
    for _ in range(3):
        run([trial()])
        gc.collect()
        torch.cuda.empty_cache()
        held.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert held[2] == held[1]


def test_what_cannot_be_recorded_is_launched_and_said_once(run, recorded, caplog):
    expected = run([trial()], capture=False)
    got = run([trial()], Fails(lambda losses: losses.sum().item()))
    assert_close(got, expected, TOLERANCE["fp32"])
    warnings = [r for r in caplog.records if "no CUDA graph" in r.message]
    assert len(warnings) == 1
    assert recorded[1] == ()
    assert_close(run([trial()]), expected, TOLERANCE["fp32"])
    assert recorded[2], "the next pack is recorded as ever"


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize(("base", "parts"), [("bert", 1), ("mpnet", 1), ("bert", 3)])
def test_no_step_waits_for_the_device(base, parts, capture):
    names = {"bert": ("query", "value"), "mpnet": ("q", "v")}[base]
    trials = [trial(seed=seed, rank_dropout=0.1, target_modules=names) for seed in (0, 1)]
    with own_stream(CUDA):
        task = task_of(base)
        adapted = attach(trials, task)
        adapted.model.to(CUDA)
        step = PackStep(task, adapted, trials, CUDA, capture=capture)
        epochs = train.training_passes(trials, task, CUDA, parts)
        dev = train.dev_pass(len(trials), task, CUDA)
        train._prepare(step, epochs, dev)
        kinds = epochs[0].steps
        step.train(kinds[0])
        step.dev_feed.load(dev)
        step.predict(dev.steps[0])
        torch.cuda.set_sync_debug_mode("error")
        try:
            for kind in kinds[1:]:
                step.train(kind)
            step.evaluate(dev)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert step.losses[: len(kinds)].isfinite().all()
        assert step.predictions.isfinite().all()
        step.close()


def test_replayed_predictions_are_the_predictions():
    trials = [trial(seed=seed, init_weights=False) for seed in range(3)]
    predictions = []
    with own_stream(CUDA):
        for capture in (True, False):
            task = task_of("bert")
            adapted = attach(trials, task)
            adapted.model.to(CUDA)
            step = PackStep(task, adapted, trials, CUDA, capture=capture)
            dev = train.dev_pass(len(trials), task, CUDA)
            train._prepare(step, train.training_passes(trials, task, CUDA), dev)
            step.evaluate(dev)
            predictions.append(step.predictions.cpu())
            step.close()
    assert torch.equal(*predictions)
    assert predictions[0].unique().tolist() == [0.0, 1.0]


def test_padding_does_not_count():
    """A batch cut to its longest row, and the same in the widest bucket."""
    trials = [trial()]
    with own_stream(CUDA):
        task = task_of("bert")
        adapted = attach(trials, task)
        adapted.model.to(CUDA)
        rows = task.train.lengths.argsort()[:8].expand(1, -1)
        losses = []
        for length in (int(task.train.lengths[rows].max()), LONGEST):
            step = PackStep(task, adapted, trials, CUDA, capture=False)
            step.train_feed.load(batches.plan(rows, 8, task.train.lengths))
            losses.append(step.forward((Shape(8, length),)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_looks_come_in_order(run):
    seen = []
    run([trial()], on_step=lambda *look: seen.append(look))
    assert [(done, total) for done, total, _ in seen] == [(1, 18), (10, 18), (18, 18)]
    assert all(0 < loss < 10 for *_, loss in seen)


@pytest.mark.filterwarnings("default")
def test_compiled_layers_train_alike(run, recorded):
    trials = [trial(seed=seed, precision="bf16") for seed in (0, 1)]
    compiled = run(trials, compile=True)
    assert_close(compiled, run(trials), 0.05)
    assert recorded[0]
