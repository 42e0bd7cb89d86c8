"""Which layers of a model a config adapts, by PEFT's rules (``peft/tuners/tuners_utils.py``)."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from lokr.config import ALL_LINEAR, LoKrConfig
from lokr.factors import FactorSpec, factor_spec
from lokr.layers import LoKrLayer, is_transposed_linear, layer_class

T = TypeVar("T")

# Architecture (transformers' `model_type`) -> usual targets: those that PEFT chooses, and two more
# (mpnet, vit) by the same habit of query and value.
ARCHITECTURE_TARGETS: dict[str, tuple[str, ...] | str] = {
    "bart": ("q_proj", "v_proj"),
    "bert": ("query", "value"),
    "blip-2": ("q", "v", "q_proj", "v_proj"),
    "bloom": ("query_key_value",),
    "btlm": ("c_proj", "c_attn"),
    "chatglm": ("query_key_value",),
    "codegen": ("qkv_proj",),
    "deberta": ("in_proj",),
    "deberta-v2": ("query_proj", "value_proj"),
    "electra": ("query", "value"),
    "falcon": ("query_key_value",),
    "gemma": ("q_proj", "v_proj"),
    "gemma2": ("q_proj", "v_proj"),
    "gemma3_text": ("q_proj", "v_proj"),
    "gemma4": r".*language_model\..*\.(q_proj|v_proj)",
    "gpt2": ("c_attn",),
    "gpt_bigcode": ("c_attn",),
    "gpt_neo": ("q_proj", "v_proj"),
    "gpt_neox": ("query_key_value",),
    "gptj": ("q_proj", "v_proj"),
    "layoutlm": ("query", "value"),
    "llama": ("q_proj", "v_proj"),
    "llama4": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "mixtral": ("q_proj", "v_proj"),
    "mpnet": ("q", "v"),
    "mpt": ("Wqkv",),
    "mt5": ("q", "v"),
    "nemotron_h": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "opt": ("q_proj", "v_proj"),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("q_proj", "v_proj"),
    "RefinedWeb": ("query_key_value",),
    "RefinedWebModel": ("query_key_value",),
    "roberta": ("query", "value"),
    "rwkv": ("key", "value", "receptance", "output"),
    "rwkv7": ("r_proj", "k_proj", "v_proj", "o_proj", "key", "value"),
    "stablelm": ("q_proj", "v_proj"),
    "t5": ("q", "v"),
    "vit": ("query", "value", "q_proj", "v_proj"),  # before and since transformers 5
    "xlm-roberta": ("query", "value"),
}
# Names under which classifiers keep their head; "all-linear" leaves it alone (PEFT's list).
HEAD_NAMES = ("score", "classifier")


@dataclass(frozen=True)
class Target:
    """A layer to adapt."""

    name: str
    layer: nn.Module

    @property
    def frozen(self) -> nn.Module:
        """The frozen layer itself, under an adapter of another name too."""
        return self.layer.base_layer if isinstance(self.layer, LoKrLayer) else self.layer

    @property
    def wrapper(self) -> type[LoKrLayer]:
        """The class that wraps it."""
        wrapper = layer_class(self.frozen)
        assert wrapper is not None
        return wrapper

    def spec(self, config: LoKrConfig) -> FactorSpec:
        """The factors that ``config`` gives this layer, its patterns applied."""
        r, alpha = rank_of(self.name, config), alpha_of(self.name, config)
        return factor_spec(self.wrapper.shape_of(self.frozen), config, r, alpha)


def select_targets(model: nn.Module, config: LoKrConfig) -> list[Target]:
    """The layers of ``model`` that ``config`` adapts, in the model's order.

    Raises:
        ValueError: nothing matches, an architecture is unknown, or a match lies inside
            ``nn.MultiheadAttention`` or ``nn.TransformerEncoderLayer``, which would not call it.
        TypeError: a match is a module that LoKr cannot adapt.
    """
    modules = _visible_modules(model)
    expression = _targets(model, modules, config)
    matched = {n: m for n, m in modules.items() if _is_target(n, expression, config)}
    excluded = [n for n in matched if _is_excluded(n, config)]
    targets = {n: m for n, m in matched.items() if n not in excluded}
    if not targets:
        raise ValueError(_nothing_matches(modules, expression, config, excluded))
    for name, module in targets.items():
        _check_layer(name, module, modules)
    _warn_of_idle_names(modules, config, expression)
    return [Target(name, module) for name, module in targets.items()]


def check_patterns(names: Iterable[str], config: LoKrConfig) -> None:
    """Raise ValueError for an entry of a rank or alpha pattern that fits no target."""
    names = list(names)
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, field):
            if not any(_pattern_fits(pattern, name) for name in names):
                raise ValueError(
                    f"{field}[{pattern!r}]: matches none of the {len(names)} adapted layers "
                    f"({_some(_closest(pattern, names) or names)})"
                )


def rank_of(name: str, config: LoKrConfig) -> int:
    """The rank of layer ``name``: the first entry of ``rank_pattern`` that fits, else ``r``."""
    return _by_pattern(name, config.rank_pattern, config.r)


def alpha_of(name: str, config: LoKrConfig) -> float:
    """The alpha of layer ``name``: the first ``alpha_pattern`` that fits, else ``alpha``."""
    return _by_pattern(name, config.alpha_pattern, config.alpha)


def matches(name: str, names: Sequence[str] | str) -> bool:
    """PEFT's rule: a string is an expression for the whole name, else exact or dotted suffix."""
    if isinstance(names, str):
        return re.fullmatch(names, name) is not None
    return any(name == n or name.endswith(f".{n}") for n in names)


def _by_pattern(name: str, patterns: Mapping[str, T], default: T) -> T:
    return next((v for p, v in patterns.items() if _pattern_fits(p, name)), default)


def _pattern_fits(pattern: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def _visible_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module of the model but those inside LoKr's own wrappers, and the root."""
    modules: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not name or name.startswith(inside or ("\0",)):
            continue
        modules[name] = module
        if isinstance(module, LoKrLayer):
            inside = (*inside, f"{name}.")
    return modules


def _targets(
    model: nn.Module, modules: Mapping[str, nn.Module], config: LoKrConfig
) -> Sequence[str] | str:
    """``target_modules``, with None and "all-linear" resolved."""
    targets = config.target_modules
    if targets is None:
        return _architecture_targets(model)
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        return _all_linear(model, modules, config)
    return targets


def _architecture_targets(model: nn.Module) -> Sequence[str] | str:
    architecture = getattr(getattr(model, "config", None), "model_type", None)
    if architecture not in ARCHITECTURE_TARGETS:
        raise ValueError(
            f"target_modules=None: no usual targets are known for {type(model).__name__} "
            f"(model_type {architecture!r}); name them, or use target_modules='all-linear'. "
            f"Known: {', '.join(sorted(ARCHITECTURE_TARGETS))}"
        )
    return ARCHITECTURE_TARGETS[architecture]


def _all_linear(
    model: nn.Module, modules: Mapping[str, nn.Module], config: LoKrConfig
) -> list[str]:
    """Every linear layer but the output embedding, the classifier's head, and dead ends."""
    spared = _output_layers(model, config)
    return [
        name
        for name, module in modules.items()
        if _is_linear(module.base_layer if isinstance(module, LoKrLayer) else module)
        and not any(module is layer for layer in spared)
        and not _attention_owner(name, modules)
    ]


def _is_linear(module: object) -> bool:
    return isinstance(module, nn.Module) and (
        isinstance(module, nn.Linear) or is_transposed_linear(module)
    )


def _output_layers(model: Any, config: LoKrConfig) -> list[nn.Module]:
    getter = getattr(model, "get_output_embeddings", None)
    output = getter() if getter is not None else None
    if output is not None:
        return [output]
    if config.task_type != "SEQ_CLS":
        return []
    heads = [getattr(model, name) for name in HEAD_NAMES if hasattr(model, name)]
    return [layer for head in heads[:1] for layer in head.modules()]


def _is_target(name: str, expression: Sequence[str] | str, config: LoKrConfig) -> bool:
    if not matches(name, expression):
        return False
    # A layer given by its full name is meant, whatever its index (PEFT's rule).
    if isinstance(config.target_modules, tuple) and name in config.target_modules:
        return True
    return config.layers_to_transform is None or _layer_index(name, config) in _indices(config)


def _indices(config: LoKrConfig) -> Sequence[int]:
    layers = config.layers_to_transform
    assert layers is not None
    return (layers,) if isinstance(layers, int) else layers


def _layer_index(name: str, config: LoKrConfig) -> int | None:
    """The first number in a name that stands behind the layer list's name."""
    patterns = config.layers_pattern or r"[^.]*"
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        start = r".*?\." if not config.layers_pattern else r"(?:^|.*?\.)"
        found = re.match(rf"{start}{pattern}\.(\d+)\.", name)
        if found:
            return int(found.group(1))
    return None


def _is_excluded(name: str, config: LoKrConfig) -> bool:
    if config.exclude_modules is not None and matches(name, config.exclude_modules):
        return True
    saved = config.modules_to_save or ()
    return any(re.match(rf"(^|.*\.){module}($|\..*)", name) for module in saved)


def _attention_owner(name: str, modules: Mapping[str, nn.Module]) -> str | None:
    parent = name.rpartition(".")[0]
    return parent if isinstance(modules.get(parent), nn.MultiheadAttention) else None


def _check_layer(name: str, module: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    owner = _attention_owner(name, modules)
    if owner:
        raise ValueError(
            f"target {name!r}: nn.MultiheadAttention ({owner!r}) reads the weight of this layer "
            "and never calls it, so an adapter would have no effect (in PEFT it silently has "
            "none); exclude it with exclude_modules, or use an attention with separate projections"
        )
    check_called(name, modules)
    if isinstance(module, LoKrLayer) or layer_class(module) is not None:
        return
    hint = ""
    if isinstance(module, nn.MultiheadAttention):
        hint = "; its projections are one fused parameter, which no module adapter can reach"
    raise TypeError(
        f"target {name!r} is a {type(module).__name__}{hint}: LoKr adapts Linear, Conv1d, Conv2d "
        "and transformers' Conv1D"
    )


def check_called(name: str, modules: Mapping[str, nn.Module]) -> None:
    """Raise ValueError for a layer that torch's fast path of an encoder layer would pass over."""
    owner = name.rpartition(".")[0]
    encoder_layer = isinstance(modules.get(owner), nn.TransformerEncoderLayer)
    if encoder_layer and torch.backends.mha.get_fastpath_enabled():
        raise ValueError(
            f"target {name!r}: in evaluation nn.TransformerEncoderLayer ({owner!r}) reads the "
            "weight of this layer and does not call it, so an adapter would have no effect there "
            "(in PEFT it silently has none); switch that off first, with "
            "torch.backends.mha.set_fastpath_enabled(False)"
        )


def _nothing_matches(
    modules: Mapping[str, nn.Module],
    expression: Sequence[str] | str,
    config: LoKrConfig,
    excluded: Sequence[str],
) -> str:
    if excluded:
        return (
            f"every target is excluded: {_some(excluded)} (exclude_modules="
            f"{config.exclude_modules!r}, modules_to_save={config.modules_to_save!r})"
        )
    adaptable = [n for n, m in modules.items() if layer_class(m) is not None]
    last = list(dict.fromkeys(n.rpartition(".")[2] for n in adaptable))
    wanted = [expression] if isinstance(expression, str) else expression
    close = [c for w in wanted for c in difflib.get_close_matches(w, last, n=3, cutoff=0.4)]
    layers = config.layers_to_transform
    where = "" if layers is None else f" in layers_to_transform={layers!r}"
    return (
        f"target_modules={config.target_modules!r} matches no module{where}; close names: "
        f"{_some(close or last) if last else 'none, the model has no layer that LoKr adapts'}"
    )


def _warn_of_idle_names(
    modules: Mapping[str, nn.Module], config: LoKrConfig, expression: Sequence[str] | str
) -> None:
    """Say which of the user's names match nothing while others do."""
    named = {"exclude_modules": config.exclude_modules}
    if not isinstance(config.target_modules, str | None):
        named["target_modules"] = expression
    for field, names in named.items():
        entries = () if names is None else (names,) if isinstance(names, str) else names
        as_list = not isinstance(names, str)
        idle = [e for e in entries if not any(matches(n, [e] if as_list else e) for n in modules)]
        if idle:
            last = list(dict.fromkeys(n.rpartition(".")[2] for n in modules))
            close = [c for e in idle for c in _closest(e, last)]
            warnings.warn(
                f"{field}: {', '.join(map(repr, idle))} matches no module"
                + (f"; close names: {_some(close)}" if close else ""),
                UserWarning,
                stacklevel=4,
            )


def _closest(wanted: str, names: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)


def _some(names: Iterable[str], most: int = 8) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
