"""The base of the emoji task on a GPU: its step waits for nothing, sampling can be recorded.

Pictures and captions are made up on the spot: no files, no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.tasks.emoji import diffusion, pretrain, unet
from experiments.tasks.emoji.pretrain import Options, Pictures, Trainer
from experiments.tasks.emoji.text import TOKENS, WIDTH, TextStates

pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # torch's own, while it compiles (diffusers caches a function), and of its debug mode.
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:Dynamo detected a call:UserWarning",
        "ignore:Synchronization debug mode:UserWarning",
    ),
]
CUDA = torch.device("cuda")


def pictures_of(rows: int) -> Pictures:
    """A square whose color the caption tells."""
    generator = torch.Generator().manual_seed(0)
    images = torch.full((rows, 3, 64, 64), 255, dtype=torch.uint8)
    for row in range(rows):
        images[row, row % 3, 16:48, 16:48] = 0
    states = torch.randn(3, TOKENS, WIDTH, generator=generator).half()
    told = TextStates(states, torch.randn(3, WIDTH, generator=generator).half())
    return Pictures(images.to(CUDA), told[torch.arange(rows) % 3].to(CUDA))


def trainer_of(**changed: object) -> Trainer:
    few = {"steps": 60, "batch_size": 32, "every": 20, "compiled": False, "rate": 2e-3}
    options = Options(**{**few, **changed})
    pictures = pictures_of(96)
    held_out = pictures[torch.arange(12, device=CUDA)]
    return Trainer(pretrain.draw(options, CUDA), pictures, held_out, options)


def awake(model: Any) -> Any:
    """The model with its zeros drawn: a fresh one answers zero to everything."""
    for part in model.parameters():
        if not part.any():
            torch.nn.init.normal_(part, std=0.02)
    return model.eval()


@pytest.mark.parametrize("compiled", [False, True])
def test_learns_at_full_size(compiled: bool, tmp_path: Path) -> None:
    trainer = trainer_of(compiled=compiled)
    assert trainer.run() == "finished"
    losses = [point["held_out_loss"] for point in trainer.curve]
    assert losses[-1] < 0.8 * losses[0]
    pretrain.save(trainer, tmp_path, "finished", {})
    kept = trainer.exams["held_out"].loss(unet.load(str(tmp_path)).to(CUDA))
    assert kept == pytest.approx(trainer.best.loss, rel=0.02)  # fp16 weights


def test_compiled_losses_are_the_model_s_own() -> None:
    trainer = trainer_of()
    batch, t = pictures_of(32), diffusion.spread_timesteps(32).to(CUDA)
    noise = torch.randn(32, *unet.LATENT, device=CUDA)
    awake(trainer.model)
    compiled = torch.compile(trainer.model, dynamic=False)
    with pretrain.autocast(CUDA), torch.no_grad():
        own = pretrain.losses_of(trainer.model, batch, t, noise)
        same = pretrain.losses_of(compiled, batch, t, noise)
    torch.testing.assert_close(same, own, rtol=0.03, atol=0.03)


def test_a_step_waits_for_nothing() -> None:
    trainer = trainer_of()
    generator = torch.Generator(CUDA).manual_seed(0)
    rows = pretrain.row_numbers(96, 32, generator)
    for _ in range(2):  # kernels are chosen and constants copied
        trainer._step(trainer.model, next(rows), generator)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer._step(trainer.model, next(rows), generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_sampling_can_be_recorded() -> None:
    model = awake(trainer_of().model)
    told = pictures_of(4).text
    noise = diffusion.initial_noise(4, 0).to(CUDA)

    def draw() -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            return diffusion.sample(model, told.states, told.pooled, steps=4, noise=noise)

    eager = draw()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        draw()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = draw()
    graph.replay()
    torch.testing.assert_close(recorded, eager, rtol=0.02, atol=0.02)


def test_samples_are_those_of_a_cpu() -> None:
    model = awake(trainer_of().model)
    told = pictures_of(3).text
    on_gpu = diffusion.sample(model, told.states, told.pooled, seed=1, steps=4).cpu()
    model, told = model.cpu(), told.to("cpu")
    on_cpu = diffusion.sample(model, told.states, told.pooled, seed=1, steps=4)
    assert (on_gpu - on_cpu).abs().mean() < 0.02  # tf32 convolutions
