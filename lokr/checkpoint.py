"""PEFT's checkpoint layout, read and written.

    adapter_config.json          the config, sorted keys
    adapter_model.safetensors    base_model.model.<layer>.lokr_w1 …  and the modules to save

No adapter name stands in a key, no lane axis in a tensor (one lane is written). Source: PEFT 0.18
to 0.21.2, ``peft/utils/save_and_load.py``. safetensors only: nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lokr.config import ALL_LINEAR, LoKrConfig
from lokr.factors import FactorSpec
from lokr.layers import LoKrLayer, layer_class
from lokr.targets import Target, check_called

if TYPE_CHECKING:
    from lokr.model import LoKrModel

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."
PRODUCER = "lokr-bench"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file: key without ``base_model.model.`` -> tensor; and who wrote it."""

    tensors: dict[str, Tensor]
    ours: bool


def save(model: LoKrModel, folder: str | os.PathLike[str], name: str, lane: int = 0) -> None:
    """Write one lane of adapter ``name`` to ``folder``, created where it is missing.

    Raises:
        ValueError: the lane is out of range.
    """
    lanes = model.lane_configs[name]
    if not 0 <= lane < len(lanes):
        raise ValueError(f"lane={lane!r}: adapter {name!r} has lanes 0 to {len(lanes) - 1}")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{PREFIX}{key}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in _tensors(model, name, lane)
    }
    metadata = {"format": "pt", "producer": PRODUCER}
    save_file(tensors, path / WEIGHTS_NAME, metadata=metadata)
    values = _config_json(model, name, lane)
    (path / CONFIG_NAME).write_text(json.dumps(values, indent=2, sort_keys=True), "utf-8")


def read(
    folder: str | os.PathLike[str], is_trainable: bool = False
) -> tuple[LoKrConfig, Checkpoint]:
    """The config and the tensors of a folder.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: the config is not LoKr's.
    """
    path = Path(folder)
    for file in (CONFIG_NAME, WEIGHTS_NAME):
        if not (path / file).is_file():
            raise FileNotFoundError(
                f"{path} has no {file}; expected a folder written by save_pretrained of lokr or "
                "peft (safetensors only: a pickled .bin is not read)"
            )
    values = json.loads((path / CONFIG_NAME).read_text("utf-8"))
    config = LoKrConfig.from_dict({**values, "inference_mode": not is_trainable})
    with safe_open(path / WEIGHTS_NAME, framework="pt") as file:
        ours = (file.metadata() or {}).get("producer") == PRODUCER
        tensors = {key.removeprefix(PREFIX): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return config, Checkpoint(tensors, ours)


def targets_of(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[Target]:
    """The layers that a state dict's keys name, in the model's order.

    Raises:
        ValueError: a layer is missing from the model, is none that LoKr adapts, or would not be
            called.
    """
    wanted = {_layer_of(key) for key in tensors if ".lokr_" in key}
    modules = dict(model.named_modules())
    missing = sorted(wanted - modules.keys())
    if missing or not wanted:
        raise ValueError(
            f"the state dict names layers that {type(model).__name__} does not have: {missing[:8]}"
            if missing
            else "the state dict has no key with '.lokr_'"
        )
    targets = [Target(name, module) for name, module in modules.items() if name in wanted]
    for target in targets:
        check_called(target.name, modules)
        if layer_class(target.frozen) is None:
            kind = type(target.frozen).__name__
            raise ValueError(f"the state dict adapts {target.name!r}, a {kind}: LoKr cannot")
    return targets


@torch.no_grad()
def load(model: LoKrModel, name: str, state: Checkpoint, lane: int = 0) -> None:
    """Copy a checkpoint's tensors into one lane of adapter ``name``.

    Raises:
        ValueError: tensors are missing, left over, or of another shape; or a Conv1d with a full
            w2 was written by PEFT, whose function there is not a Kronecker product.
    """
    _check_tensors(dict(_tensors(model, name, lane)), state.tensors)
    if not state.ours:
        _refuse_foreign_conv1d(model, name)
    for path, layer in model.adapted_layers(name):
        adapter = layer.adapter(name)
        if next(adapter.parameters()).is_meta:
            adapter.to_empty(device=layer.weight.device)
        spec = adapter.specs[lane]
        for tensor in spec.shapes:
            adapter.set_lane(
                lane, tensor, _from_peft(tensor, state.tensors[f"{path}.{tensor}"], spec)
            )
    for path, stack in model.saved_modules(name):
        for key, parameter in stack.lane(lane).items():
            parameter.copy_(state.tensors[f"{path}.{key}"])


def _tensors(model: LoKrModel, name: str, lane: int) -> Iterator[tuple[str, Tensor]]:
    """(key without prefix, view in PEFT's shape) of every tensor of one lane."""
    for path, layer in model.adapted_layers(name):
        adapter = layer.adapter(name)
        for tensor, value in adapter.lane(lane).items():
            yield f"{path}.{tensor}", _to_peft(tensor, value, adapter.specs[lane])
    for path, stack in model.saved_modules(name):
        for key, value in stack.lane(lane).items():
            yield f"{path}.{key}", value


def _to_peft(tensor: str, value: Tensor, spec: FactorSpec) -> Tensor:
    """PEFT keeps the Tucker core of a Conv1d as (r, r, k, 1)."""
    return value.unsqueeze(-1) if tensor == "lokr_t2" and len(spec.kernel) == 1 else value


def _from_peft(tensor: str, value: Tensor, spec: FactorSpec) -> Tensor:
    return value.squeeze(-1) if tensor == "lokr_t2" and len(spec.kernel) == 1 else value


def _layer_of(key: str) -> str:
    return key.rpartition(".lokr_")[0]


def _check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    wrong = [
        f"{key}: {tuple(found[key].shape)} in the file, {tuple(value.shape)} by the config"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    problems = {"missing": missing, "not expected": surplus, "of another shape": wrong}
    said = [
        f"{what}: {', '.join(keys[:4])} ({len(keys)})" for what, keys in problems.items() if keys
    ]
    if said:
        raise ValueError(f"the checkpoint does not fit the model and the config; {'; '.join(said)}")


def _full_conv1d(model: LoKrModel, name: str) -> list[str]:
    """Layers on which PEFT (to 0.21.2 at least) computes something else from the same factors."""
    specs = [(path, layer.adapter(name).specs[0]) for path, layer in model.adapted_layers(name)]
    return [path for path, s in specs if len(s.kernel) == 1 and not s.w2_low_rank]


def _refuse_foreign_conv1d(model: LoKrModel, name: str) -> None:
    layers = _full_conv1d(model, name)
    if layers:
        raise ValueError(
            f"{', '.join(layers[:4])} ({len(layers)}): PEFT trained a Conv1d with a full w2, where "
            "its ΔW is not a Kronecker product of the factors; merge it with PEFT instead"
        )


def _config_json(model: LoKrModel, name: str, lane: int) -> dict[str, Any]:
    """The config as PEFT writes it, with what it fills in when saving."""
    config = model.lane_configs[name][lane]
    base = model.model
    values = config.to_dict() | {"inference_mode": True}
    values["peft_version"] = config.peft_version or _peft_version()
    if config.base_model_name_or_path is None:
        values["base_model_name_or_path"] = getattr(base, "name_or_path", None)
    if config.task_type is None and config.auto_mapping is None:
        kind = type(base)
        values["auto_mapping"] = {
            "base_model_class": kind.__name__,
            "parent_library": kind.__module__,
        }
    layers = list(model.adapted_layers(name))
    if config.target_modules is None or config.target_modules == ALL_LINEAR:
        values["target_modules"] = [path for path, _ in layers]
    if config.lycoris_scale:
        values["alpha_pattern"] = _folded_scales(layers, name, lane) | values["alpha_pattern"]
    _warn_of_conv1d(_full_conv1d(model, name))
    return values


def _folded_scales(
    layers: Sequence[tuple[str, LoKrLayer]], name: str, lane: int
) -> dict[str, float]:
    """LyCORIS's scale of 1 where both factors are full, as PEFT can read it: alpha = r there."""
    specs = [(path, layer.adapter(name).specs[lane]) for path, layer in layers]
    return {f"^{re.escape(path)}": s.r for path, s in specs if not s.rank_matters}


def _warn_of_conv1d(layers: Sequence[str]) -> None:
    if layers:
        warnings.warn(
            f"{', '.join(layers[:4])} ({len(layers)}): PEFT (to 0.21.2 at least) computes another "
            "function from the factors of a Conv1d with a full w2; lokr reads them back unchanged",
            UserWarning,
            stacklevel=5,
        )


def _peft_version() -> str | None:
    """PEFT's version where it is installed; PEFT fills in its own where this is None."""
    try:
        return importlib.metadata.version("peft")
    except importlib.metadata.PackageNotFoundError:
        return None
