"""A pipeline's step replayed from CUDA graphs against the same step launched bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

from experiments import tasks
from experiments.methods import attach
from experiments.step import PackStep, own_stream
from experiments.tasks.dreambooth.task import load
from experiments.train import dev_pass, train_pack, training_passes
from experiments.trial import Trial
from tests.experiments import tiny_pipelines as tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:.*the rank saves nothing"),
]
CUDA = torch.device("cuda")
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
TEXT = {"text_r": 2, "text_alpha": 2.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    tiny.photos(root / "dog", 6)
    return root


@pytest.fixture(params=["sd", "xl"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(getattr(tiny, request.param)(tmp_path / "pipeline"))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOKR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOKR_DINO", "none")
    monkeypatch.setenv("LOKR_CLIP", "none")
    monkeypatch.setattr("experiments.tasks.dreambooth.prior.TRAINED", 3)
    tasks._load.cache_clear()


def make(base: str, **fields: object) -> Trial:
    small = {
        "task": "dreambooth/dog",
        "base": base,
        "target_modules": ("to_q", "to_k", "conv1"),
        "r": 2,
        "alpha": 2,
        "learning_rate": 1e-2,
        "batch_size": 2,
        "repeats": 3,
        "samples": 2,
        "drift_rows": 2,
    }
    return Trial(**{**small, **fields})


def trained(trials: list[Trial], folder: Path, capture: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of every step (steps, L) and what was said of the dev rows after the last (L, N)."""
    task = load(trials[0], str(folder))
    with own_stream(CUDA):
        task.settle(CUDA, trials[0].precision)
        adapted = attach(trials, task)
        adapted.model.to(CUDA)
        step = PackStep(task, adapted, trials, CUDA, capture=capture)
        epochs, dev = training_passes(trials, task, CUDA), dev_pass(len(trials), task, CUDA)
        step.train_feed.load(epochs[0])
        step.dev_feed.load(dev)
        step.prepare((kind for epoch in epochs for kind in epoch.steps), dev.steps)
        assert step.recorder.active == capture
        for epoch in epochs:
            step.train_feed.load(epoch)
            for kind in epoch.steps:
                step.train(kind)
            step.evaluate(dev)
        found = step.losses.cpu(), step.predictions.cpu()
        step.close()
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {**TEXT, "prior_weight": 0.5},
        {"gradient_checkpointing": True, "rank_dropout": 0.3, **TEXT},
    ],
)
def test_recorded_steps_are_the_steps(base, folder, precision, fields):
    trials = [make(base, seed=seed, precision=precision, **fields) for seed in (0, 1)]
    recorded, launched = (trained(trials, folder, capture) for capture in (True, False))
    for ours, theirs in zip(recorded, launched, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[precision], atol=1e-3)


def test_a_pack_trains_and_draws_on_a_gpu(base, folder):
    outcomes = train_pack(
        [make(base, seed=seed, precision="bf16") for seed in (0, 1)],
        device="cuda",
        data=str(folder),
    )
    for outcome in outcomes:
        assert outcome.status == "ok"
        assert "samples.webp" in outcome.pictures
