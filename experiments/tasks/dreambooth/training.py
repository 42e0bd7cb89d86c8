"""One adapter for a subject, trained and saved: ``python -m experiments.tasks.dreambooth``.

    OUT/unet/adapter_config.json, adapter_model.safetensors            and text_encoder/, if trained
    OUT/samples.webp, photos.webp, base.webp, metrics.json

The folders are PEFT's, one a component, as its documentation of LoKr uses them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import tasks
from experiments.errors import BenchError
from experiments.methods import attach
from experiments.step import PackStep, own_stream
from experiments.store import write_then_rename
from experiments.tasks.base import Final
from experiments.tasks.dreambooth.task import DreamBoothTask, load
from experiments.train import Look, dev_pass, training_passes
from experiments.trial import Trial

OnStep = Callable[[int, int, float], None]
METHODS = ("lokr", "lora", "lokr-peft")
"""Those that make an adapter."""


def train(
    trial: Trial,
    data: str,
    out: Path,
    device: str,
    on_step: OnStep = lambda done, total, loss: None,
) -> dict[str, Any]:
    """Train the trial's adapter on a subject and write it to ``out``.

    Args:
        trial: of this family.
        data: folder of photos, see ``photos``.
        out: new or empty.
        device: ``"cpu"`` or ``"cuda"``.
        on_step: told (steps done, steps in all, loss).

    Returns:
        What is in ``metrics.json``: ``loss`` and ``gain`` on all held-out photos after the last
        step, ``drift`` if it is measured, and what the samples are worth.

    Raises:
        BenchError: base or photos do not fit, the folder is not empty or cannot be written, or the
            method makes no adapter.
    """
    _check(trial, out)
    task = load(trial, data)
    model, said, final = _trained(task, trial, torch.device(device), on_step)
    found = {**task.scores(said)["full"], **final.metrics}
    save(model, trial, out)
    _write(task, trial, final, found, out)
    return found


def save(model: nn.Module, trial: Trial, out: Path, lane: int = 0) -> None:
    """Write each part's adapter to a folder of its name, in PEFT's layout."""
    for path in tasks.family(trial).parts(trial):
        part: Any = model.get_submodule(path)
        # Where an adapter is of ours, a lane is one of several; peft knows one only, and would ask
        # the hub whether the vocabulary has grown.
        ours = trial.method == "lokr"
        options = {"lane": lane} if ours else {"save_embedding_layers": False}
        part.save_pretrained(str(out / path), **options)


def _check(trial: Trial, out: Path) -> None:
    if trial.method not in METHODS:
        raise BenchError(f"method {trial.method!r}: expected one of {', '.join(METHODS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BenchError(f"{out} is there and is no empty folder; name a new one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"{out} cannot be made ({error.strerror})") from error


def _trained(
    task: DreamBoothTask, trial: Trial, device: torch.device, on_step: OnStep
) -> tuple[nn.Module, Tensor, Final]:
    """The model, what it says of the dev rows (N,), and what is read off it at the end."""
    with own_stream(device):
        task.settle(device, trial.precision)
        adapted = attach([trial], task)
        adapted.model.to(device)
        step = PackStep(task, adapted, [trial], device)
        try:
            _run(step, task, trial, on_step)
            said = step.predictions[0].cpu()
            (final,) = step.finish([trial])
        finally:
            step.close()
    return adapted.model, said, final


def _run(step: PackStep, task: DreamBoothTask, trial: Trial, on_step: OnStep) -> None:
    """All epochs, and the dev rows at the end."""
    epochs = training_passes([trial], task, step.device)
    dev = dev_pass(1, task, step.device)
    step.train_feed.load(epochs[0])
    step.dev_feed.load(dev)
    step.prepare((kind for epoch in epochs for kind in epoch.steps), dev.steps)
    look = Look(step, on_step)
    for epoch in epochs:
        step.train_feed.load(epoch)
        for kind in epoch.steps:
            step.train(kind)
            look.after(step.done)
    look.finish()
    step.evaluate(dev)


def _write(
    task: DreamBoothTask, trial: Trial, final: Final, found: dict[str, Any], out: Path
) -> None:
    exhibits = {
        name.removeprefix(f"{task.subject.name}-"): content
        for name, content in task.exhibits().items()
    }
    values = {"trial": trial.to_dict(), "metrics": found, "provenance": task.provenance}
    text = json.dumps(values, indent=2, sort_keys=True)
    for name, content in {**exhibits, **final.pictures, "metrics.json": text.encode()}.items():
        try:
            write_then_rename(out / name, content)
        except OSError as error:
            raise BenchError(f"{out / name} cannot be written ({error.strerror})") from error
