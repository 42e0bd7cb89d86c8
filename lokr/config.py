"""``LoKrConfig``: every knob of LoKr, checked when it is built.

Names, defaults and meaning are those of PEFT 0.18 (``peft/tuners/lokr/config.py``); what PEFT takes
silently and later gets wrong is refused here, with the field, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

TASK_TYPES = (
    "SEQ_CLS",
    "SEQ_2_SEQ_LM",
    "CAUSAL_LM",
    "TOKEN_CLS",
    "QUESTION_ANS",
    "FEATURE_EXTRACTION",
)
ALL_LINEAR = "all-linear"
LANE_FIELDS = (
    "r",
    "alpha",
    "rank_pattern",
    "alpha_pattern",
    "init_weights",
    "rank_dropout",
    "module_dropout",
)
"""Fields in which the lanes of one pack may differ."""


def _explain_unknown_fields(cls: type) -> type:
    """Wrap the generated ``__init__``: accept ``lora_alpha``, name the nearest valid field."""
    generated: Callable[..., None] = cls.__init__  # type: ignore[misc]

    @functools.wraps(generated)
    def __init__(self: Any, **kwargs: Any) -> None:  # noqa: N807
        _accept_lora_alpha(kwargs)
        names = [f.name for f in dataclasses.fields(cls)]
        for name in kwargs:
            if name not in names:
                close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.0)[0]
                raise TypeError(
                    f"LoKrConfig has no field {name!r}; did you mean {close!r}? "
                    f"Fields: {', '.join(names)}"
                )
        generated(self, **kwargs)

    cls.__init__ = __init__  # type: ignore[misc,unused-ignore]
    return cls


def _accept_lora_alpha(kwargs: dict[str, Any]) -> None:
    """``lora_alpha`` stands in PEFT's own LoKr example; PEFT rejects it, we read it as alpha."""
    if "lora_alpha" not in kwargs:
        return
    lora_alpha = kwargs.pop("lora_alpha")
    if "alpha" in kwargs and kwargs["alpha"] != lora_alpha:
        raise ValueError(
            f"alpha={kwargs['alpha']!r} and lora_alpha={lora_alpha!r} contradict each other: "
            "LoKr has one alpha, give one of them"
        )
    kwargs["alpha"] = lora_alpha
    warnings.warn(
        f"lora_alpha={lora_alpha!r} is read as alpha={lora_alpha!r}; LoKr calls this field alpha",
        UserWarning,
        stacklevel=3,  # whoever builds the config
    )


@_explain_unknown_fields
@dataclass(frozen=True, kw_only=True)
class LoKrConfig:
    """Configuration of one LoKr adapter.

    Args:
        r: rank of the low-rank factors, >= 1. A layer whose right factor is so small that rank
            ``r`` saves nothing gets a full factor instead, and r then matters only through the
            scale ``alpha / r``.
        alpha: numerator of the scale, finite and > 0.
        rank_dropout: share of the *rows of ΔW* (output channels) dropped in training, in [0, 1).
        module_dropout: chance that a layer's adapter is skipped in a training step, in [0, 1).
        use_effective_conv2d: Tucker form (Proposition 3 of arXiv 2108.06098) for convolutions
            whose kernel is not 1.
        decompose_both: low rank for the left factor too, where it saves parameters.
        decompose_factor: -1 for the most even split of each dimension, else an integer >= 1.
        rank_dropout_scale: divide the row mask by its mean.
        target_modules: names (matched exactly or as a dotted suffix), a regular expression for
            the whole name, ``"all-linear"``, or None for the usual ones of the architecture.
        exclude_modules: names or a regular expression, taken out of the targets.
        init_weights: True (left factor zero), ``"lycoris"`` (right factor zero), False (nothing
            zero: the adapter changes the model before any training).
        layers_to_transform: layer index or indices; needs targets given by name.
        layers_pattern: name of the layer list, when it cannot be guessed.
        rank_pattern, alpha_pattern: name or regular expression -> rank or alpha of that layer.
        modules_to_save: further modules trained in full and saved with the adapter.
        task_type, inference_mode, base_model_name_or_path, revision, auto_mapping, peft_type,
            peft_version: as in PEFT; written to and read from ``adapter_config.json``.
        lycoris_scale: the other convention of scale (LyCORIS, kohya): 1 where both factors of a
            layer are full. Off, as in PEFT: always ``alpha / r``. Not a field of PEFT: a
            checkpoint carries it as ``alpha_pattern``.

    Raises:
        ValueError: a value is out of range.
        TypeError: an unknown field, with the nearest valid name.
    """

    r: int = 8
    alpha: float = 8
    rank_dropout: float = 0.0
    module_dropout: float = 0.0
    use_effective_conv2d: bool = False
    decompose_both: bool = False
    decompose_factor: int = -1
    rank_dropout_scale: bool = False
    target_modules: Sequence[str] | str | None = None
    exclude_modules: Sequence[str] | str | None = None
    init_weights: bool | Literal["lycoris"] = True
    layers_to_transform: Sequence[int] | int | None = None
    layers_pattern: Sequence[str] | str | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    modules_to_save: Sequence[str] | None = None
    task_type: str | None = None
    inference_mode: bool = False
    base_model_name_or_path: str | None = None
    revision: str | None = None
    auto_mapping: Mapping[str, Any] | None = None
    peft_type: str = "LOKR"
    peft_version: str | None = None
    lycoris_scale: bool = False

    def __post_init__(self) -> None:
        self._normalize()
        self._check_numbers()
        self._check_flags()
        self._check_patterns()
        self._check_names()

    def _normalize(self) -> None:
        """Sequences become tuples (sets sorted), missing patterns empty, enums plain strings."""
        for name in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"):
            _set(self, name, _as_names(name, getattr(self, name)))
        layers: Any = self.layers_to_transform
        if isinstance(layers, Iterable) and not isinstance(layers, str):
            _set(self, "layers_to_transform", tuple(layers))
        for name in ("rank_pattern", "alpha_pattern"):
            value = getattr(self, name)
            ok = value is None or isinstance(value, Mapping)
            _require(ok, name, value, "a mapping from layer names to numbers")
            _set(self, name, dict(value or {}))
        for name in ("task_type", "peft_type"):
            value = getattr(self, name)
            _set(self, name, getattr(value, "value", value))

    def _check_numbers(self) -> None:
        _require(_is_int(self.r) and self.r >= 1, "r", self.r, "an integer >= 1")
        _require(_is_positive(self.alpha), "alpha", self.alpha, "a finite number > 0")
        for name in ("rank_dropout", "module_dropout"):
            value = getattr(self, name)
            _require(_is_number(value) and 0 <= value < 1, name, value, "a number in [0, 1)")
        factor = self.decompose_factor
        ok = _is_int(factor) and (factor == -1 or factor >= 1)
        _require(ok, "decompose_factor", factor, "-1 or an integer >= 1")

    def _check_flags(self) -> None:
        for name in (
            "use_effective_conv2d",
            "decompose_both",
            "rank_dropout_scale",
            "inference_mode",
            "lycoris_scale",
        ):
            value = getattr(self, name)
            _require(isinstance(value, bool), name, value, "True or False")
        known = isinstance(self.init_weights, bool) or self.init_weights == "lycoris"
        _require(known, "init_weights", self.init_weights, "True, False or 'lycoris'")
        ok = self.task_type is None or self.task_type in TASK_TYPES
        _require(ok, "task_type", self.task_type, f"None or one of {', '.join(TASK_TYPES)}")
        _require(self.peft_type == "LOKR", "peft_type", self.peft_type, "'LOKR'")

    def _check_patterns(self) -> None:
        for key, rank in self.rank_pattern.items():
            _check_regex(f"rank_pattern[{key!r}]", key)
            ok = _is_int(rank) and rank >= 1
            _require(ok, f"rank_pattern[{key!r}]", rank, "an integer >= 1")
        for key, alpha in self.alpha_pattern.items():
            _check_regex(f"alpha_pattern[{key!r}]", key)
            _require(_is_positive(alpha), f"alpha_pattern[{key!r}]", alpha, "a finite number > 0")

    def _check_names(self) -> None:
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            _require(value is None or len(value) > 0, name, value, "None, names, or an expression")
            if isinstance(value, str):
                _check_regex(name, value)
        layers = self.layers_to_transform
        indices = layers if isinstance(layers, tuple) else () if layers is None else (layers,)
        ok = all(_is_int(i) and i >= 0 for i in indices) and layers != ()
        _require(ok, "layers_to_transform", layers, "an integer >= 0 or a list of them")
        if self.layers_pattern is not None and layers is None:
            raise ValueError(
                f"layers_pattern={self.layers_pattern!r} has no effect without layers_to_transform"
            )
        targets = self.target_modules
        if layers is not None and isinstance(targets, str) and targets.lower() != ALL_LINEAR:
            raise ValueError(
                f"layers_to_transform={layers!r} with target_modules={targets!r}: a regular "
                "expression names its layers itself; put the indices into it, or give "
                "target_modules as a list of names"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as PEFT writes them to ``adapter_config.json`` (ours left out)."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["lycoris_scale"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoKrConfig:
        """Build from an ``adapter_config.json``.

        An empty list or string is read as unset, as PEFT takes it. A field of a newer PEFT is
        passed over while it is empty (None, False, 0 or no entries), since it then asks for
        nothing; with a value it is refused as unknown.
        """
        known = {f.name for f in dataclasses.fields(cls)} | {"lora_alpha"}
        return cls(**{k: v for k, v in values.items() if v or (k in known and v not in ([], ""))})


def _set(config: LoKrConfig, name: str, value: object) -> None:
    object.__setattr__(config, name, value)


def _as_names(name: str, value: Any) -> tuple[str, ...] | str | None:
    if value is None or (isinstance(value, str) and name != "modules_to_save"):
        return value
    names = value if isinstance(value, Iterable) and not isinstance(value, str) else (None,)
    ok = all(isinstance(n, str) for n in names)
    _require(ok, name, value, "a list of module names")
    return tuple(sorted(names) if isinstance(names, set | frozenset) else names)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _check_regex(name: str, expression: str) -> None:
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"{name}={expression!r}: not a regular expression ({error})") from None


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name}={value!r}: expected {allowed}")
