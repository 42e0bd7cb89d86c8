"""What is trained on the base: our LoKr, a head alone, all weights, and peft's LoRA and LoKr.

``lokr`` and ``head`` carry a lane axis, so a pack of them is one model; the others train alone.
"""

from __future__ import annotations

import copy
import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from experiments.errors import BenchError
from experiments.plan import LANED
from experiments.tasks.base import Task
from experiments.trial import ADAPTER_KNOBS, Trial
from lokr import LaneNoise, LaneStack, LoKrConfig, LoKrModel
from lokr.layers import Adapter


@dataclass(frozen=True)
class Adapted:
    """A model ready to train.

    Args:
        model: takes lane-major batches.
        stacked: whether its trainable tensors have a lane axis.
        noise: the lanes' dropout masks, of each adapted part, to be advanced once a step; empty if
            nothing is dropped.
        counts: parameters of one lane: ``adapter``, ``head``, ``trainable``, ``base``.
    """

    model: nn.Module
    stacked: bool
    noise: tuple[LaneNoise, ...]
    counts: list[dict[str, int]]

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters to train."""
        return [p for p in self.model.parameters() if p.requires_grad]


def attach(trials: Sequence[Trial], task: Task) -> Adapted:
    """The task's base with the method of ``trials``, one lane each.

    Raises:
        ValueError: the method has no lanes and there are several trials.
        BenchError: the method trains a head, and the task has none.
    """
    method = trials[0].method
    if method not in LANED and len(trials) > 1:
        raise ValueError(f"method {method!r} trains alone, got {len(trials)} lanes")
    check_head(trials[0], task.heads)
    model = task.model()
    base = _count(model.named_parameters(), lambda name: not _in_heads(name, task))
    head = _count(model.named_parameters(), lambda name: _in_heads(name, task))
    adapted, noise = _ATTACH[method](model, trials, task)
    adapter = [_adapter_size(adapted, lane, trial) for lane, trial in enumerate(trials)]
    trained_base = base if method == "full" else 0
    counts = [
        {"adapter": a, "head": head, "trainable": a + head + trained_base, "base": base}
        for a in adapter
    ]
    return Adapted(adapted, method in LANED, noise, counts)


def check_head(trial: Trial, heads: Sequence[str]) -> None:
    """Refuse to train the head of a task that has none.

    Raises:
        BenchError: names the task.
    """
    if trial.method == "head" and not heads:
        raise BenchError(f"method 'head': {trial.task} has no head to train")


def lokr_config(trial: Trial, heads: Sequence[str], task_type: str | None) -> LoKrConfig:
    """The adapter's config of a trial; the heads are trained in full and never adapted."""
    knobs = {name: getattr(trial, name) for name in ADAPTER_KNOBS}
    return LoKrConfig(**knobs, exclude_modules=_excluded(heads), task_type=task_type)


def seed_of(trial: Trial, purpose: str) -> int:
    """A seed of the trial's own for each purpose: equal trials seeds, unrelated streams."""
    digest = hashlib.sha256(f"{trial.seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def generator_of(trial: Trial, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose of one trial."""
    return torch.Generator().manual_seed(seed_of(trial, purpose))


@contextmanager
def quiet_about_rank() -> Iterator[None]:
    """A study says itself where a rank has no effect: the plan collapses such cells."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the rank saves nothing.*")
        yield


def _attach_lokr(
    model: nn.Module, trials: Sequence[Trial], task: Task
) -> tuple[nn.Module, tuple[LaneNoise, ...]]:
    parts = [task.parts(trial) for trial in trials]
    noises: list[LaneNoise] = []
    whole: nn.Module = model
    for path in parts[0]:
        lanes = [part[path] for part in parts]
        adapted, noise = _adapt(model.get_submodule(path), lanes, path, task)
        noises += noise
        if path:
            model.set_submodule(path, adapted)
        else:
            whole = adapted
    _freeze_others(model, parts[0])
    _stack_heads(model, trials, task)
    return whole, tuple(noises)


def _adapt(
    part: nn.Module, trials: Sequence[Trial], path: str, task: Task
) -> tuple[LoKrModel, list[LaneNoise]]:
    """One part with its adapter, and the masks of its dropouts; each part draws its own numbers."""
    purpose = f"/{path}" if path else ""
    generators = [generator_of(trial, f"adapter{purpose}") for trial in trials]
    with quiet_about_rank():
        configs = [lokr_config(trial, task.heads, task.task_type) for trial in trials]
        adapted = LoKrModel(part, configs, generator=generators)
    if not any(trial.rank_dropout or trial.module_dropout for trial in trials):
        return adapted, []
    noise = LaneNoise([seed_of(trial, f"dropout{purpose}") for trial in trials])
    adapted.set_noise(noise)
    return adapted, [noise]


def _freeze_others(model: nn.Module, parts: Collection[str]) -> None:
    """Where only some parts are adapted, freeze the rest."""
    if "" in parts:
        return
    for name, parameter in model.named_parameters():
        if not name.startswith(tuple(f"{path}." for path in parts)):
            parameter.requires_grad_(False)


def _attach_head(
    model: nn.Module, trials: Sequence[Trial], task: Task
) -> tuple[nn.Module, tuple[LaneNoise, ...]]:
    model.requires_grad_(False)
    _stack_heads(model, trials, task)
    return model, ()


def _attach_full(
    model: nn.Module, trials: Sequence[Trial], task: Task
) -> tuple[nn.Module, tuple[LaneNoise, ...]]:
    task.reset_heads(model, seed_of(trials[0], "head"))
    _freeze_others(model, task.parts(trials[0]))
    return model, ()


def _attach_lora(
    model: nn.Module, trials: Sequence[Trial], task: Task
) -> tuple[nn.Module, tuple[LaneNoise, ...]]:
    from peft import LoraConfig

    def config(trial: Trial) -> LoraConfig:
        return LoraConfig(r=trial.r, lora_alpha=trial.alpha, target_modules=_targets(trial))

    return _attach_peft(model, trials, task, config), ()


def _attach_lokr_peft(
    model: nn.Module, trials: Sequence[Trial], task: Task
) -> tuple[nn.Module, tuple[LaneNoise, ...]]:
    from peft import LoKrConfig as PeftLoKrConfig

    def config(trial: Trial) -> PeftLoKrConfig:
        knobs = {name: getattr(trial, name) for name in ADAPTER_KNOBS}
        return PeftLoKrConfig(**{**knobs, "target_modules": _targets(trial)})

    return _attach_peft(model, trials, task, config), ()


def _attach_peft(
    model: nn.Module, trials: Sequence[Trial], task: Task, config_of: Callable[[Trial], Any]
) -> nn.Module:
    """peft's adapter on each part, with the trial's own draws, and the head trained in full."""
    from peft import get_peft_model

    (trial,) = trials
    parts = task.parts(trial)
    task.reset_heads(model, seed_of(trial, "head"))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers by a name that transformers has since deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        torch.manual_seed(seed_of(trial, "adapter"))
        for path, part in parts.items():
            config = config_of(part)
            config.exclude_modules = _excluded(task.heads)
            adapted = get_peft_model(model.get_submodule(path), config)
            if path:
                model.set_submodule(path, adapted)
    for head in task.heads:
        model.get_submodule(head).requires_grad_(True)
    _freeze_others(model, parts)
    return model if "" not in parts else adapted


def _stack_heads(model: nn.Module, trials: Sequence[Trial], task: Task) -> None:
    """Replace each head by a stack of one head a lane, each drawn from its lane's seed."""
    copies: dict[str, list[nn.Module]] = {head: [] for head in task.heads}
    for trial in trials:
        task.reset_heads(model, seed_of(trial, "head"))
        for head in task.heads:
            copies[head].append(copy.deepcopy(model.get_submodule(head)))
    for head, modules in copies.items():
        model.set_submodule(head, LaneStack(modules))


def _excluded(heads: Sequence[str]) -> str | None:
    """The heads as a pattern of modules that no adapter touches."""
    names = "|".join(map(re.escape, heads))
    return rf"(.*\.)?({names})(\..*)?" if heads else None


def _targets(trial: Trial) -> str | list[str]:
    targets = trial.target_modules
    return targets if isinstance(targets, str) else list(targets)


def _in_heads(name: str, task: Task) -> bool:
    return any(name.startswith(f"{head}.") for head in task.heads)


def _count(named: Iterator[tuple[str, nn.Parameter]], wanted: Callable[[str], bool]) -> int:
    return sum(p.numel() for name, p in named if wanted(name))


def _adapter_size(model: nn.Module, lane: int, trial: Trial) -> int:
    """Adapter parameters of one lane, its padding not counted."""
    if trial.method == "lokr":
        adapters = (module for module in model.modules() if isinstance(module, Adapter))
        return sum(adapter.specs[lane].parameters for adapter in adapters)
    return sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n or ".lokr_" in n)


_ATTACH: dict[str, Callable[..., tuple[nn.Module, tuple[LaneNoise, ...]]]] = {
    "lokr": _attach_lokr,
    "head": _attach_head,
    "full": _attach_full,
    "lora": _attach_lora,
    "lokr-peft": _attach_lokr_peft,
}
