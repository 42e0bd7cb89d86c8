"""What a trained trial takes on disk: the files themselves, written for a moment and measured."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from experiments.trial import Trial

WEIGHTS = "adapter_model.safetensors"


def sizes(trial: Trial, model: nn.Module, heads: Sequence[str]) -> dict[str, int | None]:
    """Bytes of safetensors.

    Args:
        trial: names the method.
        model: as ``experiments.methods.attach`` gives it.
        heads: names of the task's own modules.

    Returns:
        ``adapter_bytes``: what ``save_pretrained`` writes, ours or peft's; all weights of the base
        where all are trained; null where the head alone is. ``head_bytes``: the task's head; null
        where it has none.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = {name: p for name, p in trained.items() if _in_heads(name, heads)}
    rest = {name: p for name, p in trained.items() if name not in head}
    with tempfile.TemporaryDirectory() as folder:
        return {
            "adapter_bytes": _adapter(trial, model, rest, Path(folder)) if rest else None,
            "head_bytes": _saved(head, Path(folder) / "head.safetensors") if head else None,
        }


def _adapter(trial: Trial, model: Any, rest: dict[str, nn.Parameter], folder: Path) -> int:
    if trial.method == "full":
        return _saved(rest, folder / WEIGHTS)
    # peft would ask the hub whether the vocabulary has grown.
    options = {} if trial.method == "lokr" else {"save_embedding_layers": False}
    model.save_pretrained(str(folder), **options)
    return (folder / WEIGHTS).stat().st_size


def _saved(parameters: dict[str, nn.Parameter], path: Path) -> int:
    save_file({name: p.detach().cpu().clone() for name, p in parameters.items()}, path)
    return path.stat().st_size


def _in_heads(name: str, heads: Sequence[str]) -> bool:
    return any(f".{head}." in f".{name}" for head in heads)
