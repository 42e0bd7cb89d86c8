"""Wraps one frozen layer: Linear, Conv1d, Conv2d, and transformers' Conv1D (GPT-2).

LoKrLayer                     stands where the frozen layer stood
  base_layer                  the frozen layer
  adapters[name]: Adapter     the factors of one named adapter, all its lanes
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lokr import kernels, product, reference
from lokr.config import LoKrConfig
from lokr.factors import FactorSpec, LayerShape, factor_spec
from lokr.lanes import LaneNoise

Generators = Sequence[torch.Generator | None]

# What init_weights sets to zero, so that ΔW = 0 before training (PEFT, lokr/layer.py).
_ZERO_AT_INIT: dict[bool | str, tuple[str, ...]] = {
    True: ("lokr_w1", "lokr_w1_a"),
    "lycoris": ("lokr_w2", "lokr_w2_b"),
    False: (),
}


class Adapter(nn.Module):
    """The factors of one adapter on one layer, a leading lane axis L on each.

    Parameters ``lokr_w1`` … ``lokr_t2`` are those of :attr:`FactorSpec.shapes`, (L, ...), fp32. A
    lane of a smaller rank than its neighbors is padded with zeros; a padded entry multiplies only
    zeros, so its gradient is zero and it stays zero.

    Args:
        specs: the factors of each lane, equal but for rank and scale.
        configs: the config of each lane.
        place: number of the layer in its model, to tell apart the layers' dropout masks.
    """

    scale: Tensor
    rank_drop: Tensor
    module_drop: Tensor

    def __init__(
        self, specs: Sequence[FactorSpec], configs: Sequence[LoKrConfig], place: int
    ) -> None:
        super().__init__()
        if len({spec.structure for spec in specs}) > 1:
            raise ValueError(
                "lanes differ in the structure of their factors: lanes may differ in rank only "
                f"where the same factors are low-rank in all of them; got {list(specs)}"
            )
        self.specs = tuple(specs)
        self.place = place
        self.noise: tuple[LaneNoise, ...] = ()  # in a tuple: not a submodule of every layer
        self.rank_dropout = tuple(config.rank_dropout for config in configs)
        self.module_dropout = tuple(config.module_dropout for config in configs)
        self.rank_dropout_scale = configs[0].rank_dropout_scale
        widest = max(specs, key=lambda spec: spec.r)
        self._names = tuple(widest.shapes)
        self._scales = any(spec.scale != 1 for spec in specs)
        for name, shape in widest.shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(self.lanes, *shape)))
        self._place_constants()

    @property
    def lanes(self) -> int:
        """L."""
        return len(self.specs)

    def _place_constants(self, factor: Tensor | None = None) -> None:
        """Scales and dropout rates beside the factors: in fp32 or, as those are, in fp64."""
        factor = next(self.parameters()) if factor is None else factor
        device, dtype = factor.device, _at_least_fp32(factor.dtype)
        kernels.meet(device)
        constants = {
            "scale": [spec.scale for spec in self.specs],
            "rank_drop": self.rank_dropout,
            "module_drop": self.module_dropout,
        }
        for name, values in constants.items():
            tensor = torch.tensor(values, dtype=dtype, device=device)
            self.register_buffer(name, tensor, persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Adapter:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._place_constants()
        return self

    @torch.no_grad()
    def reset(self, init_weights: Sequence[bool | str], generators: Generators) -> None:
        """Draw the factors: U(±1/√fan_in) of each lane's own shapes, or zero.

        Drawn on the CPU in PEFT's order, so that a seed gives PEFT's numbers on every device.
        """
        for lane, (spec, init) in enumerate(zip(self.specs, init_weights, strict=True)):
            for name, shape in spec.shapes.items():
                values = torch.zeros(shape, dtype=torch.float32)
                if name not in _ZERO_AT_INIT[init]:
                    nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generators[lane])
                self.set_lane(lane, name, values)

    @torch.no_grad()
    def set_lane(self, lane: int, name: str, values: Tensor) -> None:
        """Write one lane's tensor, unpadded, and zero its padding."""
        target = self.get_parameter(name)[lane]
        target.zero_()
        target[tuple(slice(size) for size in values.shape)] = values.to(target)

    def lane(self, lane: int = 0) -> dict[str, Tensor]:
        """One lane's tensors without lane axis and padding, as views."""
        return {
            name: self.get_parameter(name)[lane][tuple(slice(size) for size in shape)]
            for name, shape in self.specs[lane].shapes.items()
        }

    def delta_weight(self, lane: int = 0) -> Tensor:
        """ΔW of one lane, (out, in, *k), in the dtype of the factors."""
        return reference.delta_weight(self.lane(lane), self.specs[lane])

    def factors(self) -> product.Factors:
        """The tensors as :mod:`lokr.product` takes them."""
        # By name: replicas (DataParallel) and shards (FSDP) have tensors, and no parameters.
        t: dict[str, Tensor] = {name: getattr(self, name) for name in self._names}
        w1 = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
        scale = self.scale
        if scale.device != w1.device or scale.dtype != _at_least_fp32(w1.dtype):
            # Whoever loads onto a meta model, or casts all buffers (FSDP), passes by ``_apply``.
            self._place_constants(w1)
            scale = self.scale
        w2_b = t.get("lokr_w2_b")
        kernel = self.specs[0].kernel
        if w2_b is not None and kernel and "lokr_t2" not in t:
            w2_b = w2_b.view(*w2_b.shape[:2], self.specs[0].d, *kernel)
        return product.Factors(
            w1=w1,
            w2=t.get("lokr_w2"),
            w2_a=t.get("lokr_w2_a"),
            w2_b=w2_b,
            t2=t.get("lokr_t2"),
            scale=scale if self._scales else None,
        )

    def drop(self, delta: Tensor, channel_axis: int) -> Tensor:
        """Both dropouts, in training: on delta (L·…) with the output channels at an axis."""
        if not self.training:
            return delta
        if any(self.rank_dropout):
            delta = _scale_lanes(delta, self._row_mask(delta.shape[channel_axis]), channel_axis)
        if any(self.module_dropout):
            delta = _scale_lanes(delta, self._kept(), channel_axis)
        return delta

    def keep(self, factors: product.Factors) -> product.Factors:
        """Module dropout in the scale, for a product that :meth:`drop` never sees."""
        if self.training and any(self.module_dropout):
            kept = self._kept().flatten()
            return factors._replace(scale=kept if factors.scale is None else factors.scale * kept)
        return factors

    @property
    def drops_rows(self) -> bool:
        """Whether rows of ΔW are dropped now."""
        return self.training and any(self.rank_dropout)

    def _kept(self) -> Tensor:
        """(L, 1): 0 for a lane whose adapter is skipped in this forward pass."""
        kept = self._uniform(2 * self.place + 1, 1) >= self.module_drop.unsqueeze(1)
        return kept.float()

    def _row_mask(self, out: int) -> Tensor:
        """(L, out): 0 for a dropped row of ΔW. One mask a forward pass, as in PEFT."""
        uniform = self._uniform(2 * self.place, out)
        mask = (uniform >= self.rank_drop.unsqueeze(1)).float()
        if self.rank_dropout_scale:
            mean = mask.mean(1, keepdim=True)
            mask = mask / torch.where(mean > 0, mean, 1.0)  # all dropped: zero, where PEFT has NaN
        return mask

    def _uniform(self, place: int, count: int) -> Tensor:
        if self.noise:
            return self.noise[0].uniform(place, count)
        return torch.rand(self.lanes, count, device=self.rank_drop.device)

    def extra_repr(self) -> str:
        spec = self.specs[0]
        return f"lanes={self.lanes}, r={[s.r for s in self.specs]}, structure={spec.structure}"


def _scale_lanes(delta: Tensor, factor: Tensor, channel_axis: int) -> Tensor:
    """delta (L·N, …) times factor (L, channels or 1), channels at ``channel_axis`` < 0."""
    lanes, channels = factor.shape
    shape = [1] * (delta.dim() + 1)
    shape[0], shape[channel_axis] = lanes, channels
    rows = delta.reshape(lanes, -1, *delta.shape[1:])
    return (rows * factor.view(shape).to(delta.dtype)).reshape(delta.shape)


class LoKrLayer(nn.Module):
    """A frozen layer and its named adapters: base(x) + Σ active adapters.

    Subclasses say how the layer's shape is read, how the product runs, and how ΔW lies in the
    weight.
    """

    channel_axis: int
    """Where the output channels are in the layer's output, from its end: it may lack a batch."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.adapters = nn.ModuleDict()
        self.active_adapters: list[str] = []
        self.merged_adapters: list[str] = []
        self.enabled = True
        self._unmerged_weight: Tensor | None = None

    @staticmethod
    def shape_of(base_layer: Any) -> LayerShape:
        """The shape of the frozen layer."""
        raise NotImplementedError

    def product(self, x: Tensor, factors: product.Factors) -> Tensor:
        """ΔW applied to x, all lanes."""
        raise NotImplementedError

    def in_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW (out, in, *k) as the frozen weight lies."""
        return delta

    @property
    def weight(self) -> Tensor:
        """The frozen weight (some models read its dtype)."""
        return self.base_layer.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base_layer.bias  # type: ignore[return-value]

    def add_adapter(
        self,
        name: str,
        configs: Sequence[LoKrConfig],
        ranks: Sequence[int],
        alphas: Sequence[float],
        place: int,
        generators: Generators,
    ) -> None:
        """Create and draw the factors of adapter ``name``: one config, rank and alpha a lane."""
        shape = self.shape_of(self.base_layer)
        specs = [
            factor_spec(shape, *numbers) for numbers in zip(configs, ranks, alphas, strict=True)
        ]
        adapter = Adapter(specs, configs, place)
        if not next(adapter.parameters()).is_meta:
            adapter.reset([config.init_weights for config in configs], generators)
            adapter.to(self.weight.device)
        self.adapters[name] = adapter.train(self.training)

    def adapter(self, name: str) -> Adapter:
        """The factors of adapter ``name``.

        Raises:
            KeyError: there is none of this name.
        """
        adapter = self.adapters[name]
        assert isinstance(adapter, Adapter)
        return adapter

    def get_delta_weight(self, name: str, lane: int = 0) -> Tensor:
        """ΔW of an adapter in the layout of the frozen weight, in the dtype of the factors."""
        return self.in_weight_layout(self.adapter(name).delta_weight(lane))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The frozen layer's output plus the active adapters', in the frozen output's dtype."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if not self.enabled or self.merged_adapters:
            return result
        for name in self.active_adapters:
            if name in self.adapters:
                adapter = self.adapter(name)
                delta = self.product(x, adapter.factors())
                delta = adapter.drop(delta, self.channel_axis)
                result = result + delta.to(result.dtype)
        return result

    def _lone_adapter(self) -> Adapter | None:
        """The only active adapter, if it can be computed together with the frozen layer."""
        adapters = self.adapters
        names = [name for name in self.active_adapters if name in adapters]
        if not self.enabled or self.merged_adapters or len(names) != 1:
            return None
        adapter = self.adapter(names[0])
        return None if adapter.drops_rows else adapter

    def _joined(self, x: Tensor) -> tuple[Adapter, torch.dtype] | None:
        """The adapter that goes together with the frozen layer, and in which dtype; or None."""
        adapter = self._lone_adapter()
        if adapter is None or not _is_plain(self.base_layer):
            return None
        dtype = _product_dtype(x)
        fits = self.weight.dtype == dtype or _in_autocast(x)  # else the frozen layer says what not
        return (adapter, dtype) if fits else None

    def _frozen(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """The frozen weight and bias in ``dtype``."""
        base: Any = self.base_layer
        weight, bias = base.weight, base.bias
        return weight.to(dtype), None if bias is None else bias.to(dtype)

    @torch.no_grad()
    def merge(self, names: Sequence[str], safe_merge: bool = False) -> None:
        """Add the named adapters' ΔW to the frozen weight, summed in fp32 or better.

        The weight as it was is kept aside until :meth:`unmerge`, which restores it exactly
        (subtracting ΔW again would leave rounding behind, much of it in bf16).

        Raises:
            ValueError: an adapter has several lanes; or ``safe_merge`` and the merged weight is
                not finite (the frozen weight is then untouched).
        """
        names = [n for n in names if n in self.adapters and n not in self.merged_adapters]
        if not names:
            return
        weight = self.weight
        merged = weight.to(_at_least_fp32(weight.dtype))
        for name in names:
            if self.adapter(name).lanes > 1:
                raise ValueError(
                    f"adapter {name!r} has {self.adapter(name).lanes} lanes: one weight cannot "
                    "hold them all; extract a lane first (LoKrModel.save_pretrained(lane=...))"
                )
            merged = merged + self.get_delta_weight(name)
        merged = merged.to(weight.dtype)
        if safe_merge and not torch.isfinite(merged).all():
            raise ValueError(f"merging {', '.join(names)} would give weights that are not finite")
        if self._unmerged_weight is None:
            self._unmerged_weight = weight.data
        self.base_layer.weight.data = merged
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Restore the frozen weight exactly; nothing to do if nothing is merged."""
        if self._unmerged_weight is not None:
            self.base_layer.weight.data = self._unmerged_weight
        self._unmerged_weight = None
        self.merged_adapters.clear()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LoKrLayer:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._unmerged_weight is not None:
            self._unmerged_weight = fn(self._unmerged_weight)
        return self


class Linear(LoKrLayer):
    """``torch.nn.Linear``."""

    channel_axis = -1

    @staticmethod
    def shape_of(base_layer: nn.Linear) -> LayerShape:
        return LayerShape(base_layer.out_features, base_layer.in_features)

    def product(self, x: Tensor, factors: product.Factors) -> Tensor:
        return kernels.adapted_linear(x.to(_product_dtype(x)), None, None, factors)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The frozen layer and the active adapters, as one operator where that is possible."""
        joined = None if args or kwargs else self._joined(x)
        if joined is None:
            return super().forward(x, *args, **kwargs)
        adapter, dtype = joined
        weight, bias = self._frozen(dtype)
        factors = adapter.keep(adapter.factors())
        return kernels.adapted_linear(x.to(dtype), self.as_matrix(weight), bias, factors)

    def as_matrix(self, weight: Tensor) -> Tensor:
        """The frozen weight as (out, in)."""
        return weight


class TransposedLinear(Linear):
    """transformers' ``Conv1D``: a linear layer whose weight lies (in, out)."""

    def as_matrix(self, weight: Tensor) -> Tensor:
        return weight.mT

    @staticmethod
    def shape_of(base_layer: Any) -> LayerShape:
        in_features, out_features = base_layer.weight.shape
        return LayerShape(out_features, in_features)

    def in_weight_layout(self, delta: Tensor) -> Tensor:
        return delta.mT


class Conv(LoKrLayer):
    """``torch.nn.Conv1d`` and ``torch.nn.Conv2d``."""

    def __init__(self, base_layer: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__(base_layer)
        self.channel_axis = -1 - len(base_layer.kernel_size)
        plain = base_layer.padding_mode == "zeros"
        # torch keeps, in F.pad's order, the margins that its own non-zero padding modes use.
        margins = None if plain else tuple(base_layer._reversed_padding_repeated_twice)
        self.settings = product.ConvSettings(
            stride=base_layer.stride,
            padding=base_layer.padding,
            dilation=base_layer.dilation,
            groups=base_layer.groups,
            mode=base_layer.padding_mode,
            margins=margins,
        )

    @staticmethod
    def shape_of(base_layer: nn.Conv1d | nn.Conv2d) -> LayerShape:
        in_channels = base_layer.in_channels // base_layer.groups
        return LayerShape(base_layer.out_channels, in_channels, tuple(base_layer.kernel_size))

    def product(self, x: Tensor, factors: product.Factors) -> Tensor:
        x = x.to(_product_dtype(x))
        if x.dim() == len(self.settings.stride) + 1:  # a single image without a batch axis
            return kernels.conv_delta(x.unsqueeze(0), factors, self.settings).squeeze(0)
        return kernels.conv_delta(x, factors, self.settings)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The frozen layer and the active adapters; in Triton they share x and the sum."""
        joined = None if args or kwargs else self._joined(x)
        if joined is None:
            return super().forward(x, *args, **kwargs)
        adapter, dtype = joined
        x, factors = x.to(dtype), adapter.factors()
        if not kernels.joins_conv(x, factors, self.settings):
            return super().forward(x)
        weight, bias = self._frozen(dtype)
        return kernels.adapted_conv(x, weight, bias, adapter.keep(factors), self.settings)


def _at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of a matrix product of x: autocast's, inside it."""
    if _in_autocast(x) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _in_autocast(x: Tensor) -> bool:
    """Whether autocast is on where x is; on meta, which has none, asking is an error.

    ``torch.amp.is_autocast_available`` tells of any device, but torch 2.11 cannot compile it.
    """
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is its weight and bias and no more: no subclass, no hooks, nothing to train.

    Of a linear layer or a Conv2d.
    """
    plain = type(layer) in (nn.Linear, nn.Conv2d) or _is_conv1d(type(layer))
    # Some libraries replace the method of one layer (accelerate, to bring offloaded weights).
    altered = _is_hooked(layer) or "forward" in vars(layer)
    tensors = [t for t in (layer.weight, layer.bias) if t is not None]
    return plain and not altered and all(_is_frozen(t) for t in tensors)


def _is_hooked(layer: nn.Module) -> bool:
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return any(hooks)


def _is_frozen(tensor: Any) -> bool:
    """Whether it is an ordinary tensor, no quantized or sharded kind, and not trained."""
    return type(tensor) in (nn.Parameter, Tensor) and not tensor.requires_grad


def layer_class(module: nn.Module) -> type[LoKrLayer] | None:
    """The wrapper of a frozen layer's class; None where there is none."""
    if isinstance(module, nn.Linear):
        return Linear
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return Conv
    if is_transposed_linear(module):
        return TransposedLinear
    return None


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether a module is transformers' ``Conv1D``, told without importing transformers."""
    return any(_is_conv1d(cls) for cls in type(module).__mro__)


def _is_conv1d(cls: type) -> bool:
    return cls.__name__ == "Conv1D" and cls.__module__ == "transformers.pytorch_utils"
