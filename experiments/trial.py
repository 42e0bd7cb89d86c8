"""A trial: every number that can change a result, and nothing else.

    study() -> [Trial] -> plan -> [Pack] -> train -> results/<study>/<id>.json

The id of a trial is a hash of its canonical JSON, so the same numbers are the same trial on every
machine and in every study.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

Method = Literal["lokr", "lokr-peft", "lora", "head", "full"]
METHODS: tuple[str, ...] = ("lokr", "lokr-peft", "lora", "head", "full")
PRECISIONS: tuple[str, ...] = ("fp32", "bf16")
LOKR_KNOBS = (
    "r",
    "alpha",
    "decompose_factor",
    "decompose_both",
    "init_weights",
    "use_effective_conv2d",
)
LOKR_DROPOUTS = ("rank_dropout", "module_dropout", "rank_dropout_scale")
# What an adapter may read; the other fields are read by every method.
ADAPTER_KNOBS = (*LOKR_KNOBS, *LOKR_DROPOUTS, "target_modules")
KNOBS_READ: dict[str, tuple[str, ...]] = {
    "lokr": ADAPTER_KNOBS,
    "lokr-peft": ADAPTER_KNOBS,
    "lora": ("r", "alpha", "target_modules"),
    "head": (),
    "full": (),
}
# The rate is tuned per cell and the seed is repeated: neither names a cell.
NUISANCE = ("learning_rate", "seed")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run.

    Args:
        task: task family and name, such as ``"sentences/entailment"`` or ``"glue/rte"``.
        base: ``"minilm"`` (packaged), a hub id, or a path of a pretrained model.
        method: ``lokr`` (ours), ``lokr-peft`` and ``lora`` (through peft), ``head`` (frozen base),
            ``full`` (all weights).
        r, alpha, decompose_factor, decompose_both, init_weights, use_effective_conv2d,
        rank_dropout, module_dropout, rank_dropout_scale, target_modules: as in ``LoKrConfig``.
            ``r``, ``alpha`` and ``target_modules`` are read by ``lora`` too.
        learning_rate: peak rate of AdamW, reached after ``warmup`` and brought linearly to 0.
        weight_decay: AdamW's decoupled decay.
        clip: largest gradient norm of the trial's parameters.
        warmup: share of the steps in which the rate rises.
        epochs: passes over the training rows; the dev set is scored after each.
        batch_size: rows a step.
        train_size: training rows used, ``None`` for all; pictures, where the task has pictures.
        repeats: how often an epoch shows each training row (kohya's ``num_repeats``).
        max_length: longest input, in tokens.
        precision: ``fp32``, or ``bf16`` for autocast.
        samples: pictures drawn after the last step, where the task draws any.
        drift_rows: pictures of the base's own styles on which forgetting is measured, where the
            task measures any; 0: it is not measured, and those pictures are not needed.
        text_r, text_alpha: rank and alpha of the adapter on a pipeline's text encoder, whose other
            knobs are the U-Net's; ``None`` and ``None``: the text encoder stays frozen.
        prior_weight: weight of the loss on the base's own pictures of the class (DreamBooth's prior
            preservation); 0: none.
        resolution: side of a pipeline's pictures in pixels; ``None``: the pipeline's own.
        gradient_checkpointing: compute activations again in the backward pass.
        seed: seeds the head, the adapter's init, the dropouts, the data order, and the noise and
            times of diffusion.

    Raises:
        ValueError: a field is out of range; names the field, the value and what is allowed.
    """

    task: str
    base: str = "minilm"
    method: Method = "lokr"
    r: int = 8
    alpha: float = 8.0
    decompose_factor: int = -1
    decompose_both: bool = False
    init_weights: bool | Literal["lycoris"] = True
    use_effective_conv2d: bool = False
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    rank_dropout_scale: bool = False
    target_modules: str | tuple[str, ...] = ("query", "value")
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup: float = 0.06
    epochs: int = 3
    batch_size: int = 32
    train_size: int | None = None
    max_length: int = 128
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    repeats: int = 1
    samples: int = 64
    drift_rows: int = 128
    text_r: int | None = None
    text_alpha: float | None = None
    prior_weight: float = 0.0
    resolution: int | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        self._normalize()
        for f in fields(self):
            allows, allowed = _RULES[f.name]
            if not allows(getattr(self, f.name)):
                raise ValueError(f"{f.name}={getattr(self, f.name)!r}: expected {allowed}")
        if (self.text_r is None) != (self.text_alpha is None):
            raise ValueError(
                f"text_r={self.text_r!r}, text_alpha={self.text_alpha!r}: expected both or neither"
            )

    def _normalize(self) -> None:
        """Spell equal numbers equally (16 and 16.0), so that they hash to one id."""
        for f in fields(self):
            value = getattr(self, f.name)
            if "float" in f.type and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, f.name, float(value))
            if isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))

    @property
    def id(self) -> str:
        """16 hex digits of SHA-256 over the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    def canonical_json(self) -> str:
        """Sorted JSON of the fields that differ from their defaults.

        Leaving defaults out lets a later version add a field without orphaning every result on
        disk. The price: a default must never change its meaning (a test pins known ids).
        """
        changed = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }
        return json.dumps(changed, sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready (tuples as lists)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Trial:
        """The inverse of :meth:`to_dict`."""
        fields_: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fields_)


def spell(value: object) -> str:
    """A field's value for people: 0.001 for 1e-3, query+value for a tuple of names."""
    if isinstance(value, tuple):
        return "+".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_int(value) and value >= 1


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_finite(value) and value > 0


def _is_share(value: Any) -> bool:
    return _is_finite(value) and 0 <= value < 1


def _is_task(value: object) -> bool:
    family, _, name = value.partition("/") if isinstance(value, str) else ("", "", "")
    return bool(family and name)


def _is_names(value: object) -> bool:
    names = (value,) if isinstance(value, str) else value
    return isinstance(names, tuple) and names != () and all(isinstance(n, str) and n for n in names)


_Rule = tuple[Callable[[Any], bool], str]
_COUNT: _Rule = (_is_count, "an integer >= 1")
_POSITIVE: _Rule = (_is_positive, "a finite number > 0")
_SHARE: _Rule = (_is_share, "a number in [0, 1)")
_NATURAL: _Rule = (lambda v: _is_int(v) and v >= 0, "an integer >= 0")
_NOT_NEGATIVE: _Rule = (lambda v: _is_finite(v) and v >= 0, "a finite number >= 0")
_BOOL: _Rule = (_is_bool, "true or false")
# One rule a field: which values it allows, and how an error says so.
_RULES: dict[str, _Rule] = {
    "task": (_is_task, "family/name"),
    "base": (lambda v: isinstance(v, str) and v != "", "minilm, a hub id or a path"),
    "method": (lambda v: v in METHODS, f"one of {', '.join(METHODS)}"),
    "r": _COUNT,
    "alpha": _POSITIVE,
    "decompose_factor": (lambda v: v == -1 or _is_count(v), "-1 or an integer >= 1"),
    "decompose_both": _BOOL,
    "init_weights": (lambda v: _is_bool(v) or v == "lycoris", "true, false or lycoris"),
    "use_effective_conv2d": _BOOL,
    "rank_dropout": _SHARE,
    "module_dropout": _SHARE,
    "rank_dropout_scale": _BOOL,
    "target_modules": (_is_names, "module names or a regular expression"),
    "learning_rate": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "clip": _POSITIVE,
    "warmup": _SHARE,
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "train_size": (lambda v: v is None or _is_count(v), "an integer >= 1, or none for all rows"),
    "max_length": _COUNT,
    "precision": (lambda v: v in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "seed": _NATURAL,
    "repeats": _COUNT,
    "samples": _NATURAL,
    "drift_rows": _NATURAL,
    "text_r": (lambda v: v is None or _is_count(v), "an integer >= 1, or none"),
    "text_alpha": (lambda v: v is None or _is_positive(v), "a finite number > 0, or none"),
    "prior_weight": _NOT_NEGATIVE,
    "resolution": (lambda v: v is None or _is_count(v), "an integer >= 1, or none"),
    "gradient_checkpointing": _BOOL,
}
