"""The peers as oracles: the same adapter in `lokr`, in peft and in LyCORIS, with the same factors.

Also the small models that most tests adapt. Nothing here asserts.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import peft
import torch
from lycoris.modules.lokr import LokrModule
from peft.tuners.lokr.layer import LoKrLayer as PeftLayer
from torch import Tensor, nn

import lokr

IDLE_RANK = ".*the rank saves nothing"

# Name -> (layer, shape of an input). Every kind of layer that peft adapts, in small.
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 20), (3, 5, 12)),
    "linear-prime": (lambda: nn.Linear(7, 12, bias=False), (3, 7)),
    "conv2d": (lambda: nn.Conv2d(12, 20, 3, stride=2, padding=1), (2, 12, 7, 6)),
    "conv2d-1x1": (lambda: nn.Conv2d(12, 20, 1), (2, 12, 4, 4)),
    "conv2d-3x1": (lambda: nn.Conv2d(12, 20, (3, 1), padding=(1, 0)), (2, 12, 4, 4)),
    "conv2d-same": (lambda: nn.Conv2d(12, 20, 3, padding="same", dilation=2), (2, 12, 6, 6)),
    "conv2d-groups": (lambda: nn.Conv2d(12, 20, 3, groups=2), (2, 12, 5, 5)),
    "conv2d-depthwise": (lambda: nn.Conv2d(12, 12, 3, groups=12), (2, 12, 5, 5)),
    "conv1d": (lambda: nn.Conv1d(12, 20, 3, stride=2, padding=2, dilation=2), (2, 12, 9)),
    "conv1d-1": (lambda: nn.Conv1d(12, 20, 1), (2, 12, 9)),
    "conv1d-groups": (lambda: nn.Conv1d(12, 20, 4, groups=4), (2, 12, 9)),
}
# Name -> fields of the config. 12 and 20 split into (3, 4) and (4, 5): r=2 is still low-rank.
KNOBS: dict[str, dict[str, Any]] = {
    "low-rank": {"r": 2, "alpha": 3},
    "full": {"r": 64, "alpha": 16},
    "both": {"r": 1, "alpha": 3, "decompose_both": True},
    "tucker": {"r": 2, "alpha": 1, "use_effective_conv2d": True},
    "factor-2": {"r": 2, "alpha": 2, "decompose_factor": 2, "decompose_both": True},
}
# peft's Conv1d with a full w2 is another function: see test_differences.py.
CASES = [
    (layer, knob) for layer in LAYERS for knob in KNOBS if (layer[:6], knob) != ("conv1d", "full")
]


class Net(nn.Module):
    """One layer under the name ``layer``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Mlp(nn.Module):
    """Two blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(12, 20), "down": nn.Linear(20, 12)}) for _ in range(2)
        )
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block["down"](torch.tanh(block["up"](x)))
        return self.head(x)


class Convs(nn.Module):
    """Convolutions of every kind that a checkpoint can hold, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(4, 12, 1)
        self.square = nn.Conv2d(12, 20, 3, stride=2, padding=1)
        self.tall = nn.Conv2d(20, 12, (3, 1), padding="same", dilation=(2, 1))
        self.grouped = nn.Conv2d(12, 20, 3, groups=2, padding=1)
        self.line = nn.Conv1d(20, 12, 3, padding=1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.tall(self.square(self.pointwise(x))).tanh()).tanh()
        return self.head(self.line(x.flatten(2)).mean(2))


@contextmanager
def quiet_about_rank() -> Iterator[None]:
    """Layers this small often get full factors; only some tests are about the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=IDLE_RANK)
        yield


def adapt(model: nn.Module, *args: Any, **fields: Any) -> lokr.LoKrModel:
    """A copy of ``model`` with our adapter: fields of one config, or what ``LoKrModel`` takes."""
    with quiet_about_rank():
        config = args if args else (lokr.LoKrConfig(**fields),)
        return lokr.LoKrModel(copy.deepcopy(model), *config)


def adapt_with_peft(model: nn.Module, **fields: Any) -> peft.LoKrModel:
    """A copy of ``model`` with peft's adapter."""
    return peft.LoKrModel(copy.deepcopy(model), peft.LoKrConfig(**fields), "default")


def peers(model: nn.Module, **fields: Any) -> tuple[lokr.LoKrModel, peft.LoKrModel]:
    """The same adapter twice, ours and peft's, with the same random factors, none zero."""
    ours, theirs = adapt(model, **fields), adapt_with_peft(model, **fields)
    randomize(ours)
    copy_to_peft(ours, theirs)
    return ours, theirs


def peer_layers(layer: str, knob: str) -> tuple[lokr.LoKrModel, peft.LoKrModel, Tensor]:
    """:func:`peers` around one layer of ``LAYERS``, and an input."""
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    ours, theirs = peers(Net(make()), target_modules=["layer"], **KNOBS[knob])
    return ours, theirs, torch.randn(shape)


@torch.no_grad()
def randomize(model: nn.Module, seed: int = 1) -> None:
    """Draw every factor anew, padding left out; the trained copies of other modules too."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, lokr.layers.Adapter):
            for lane in range(module.lanes):
                for values in module.lane(lane).values():
                    values.copy_(torch.randn(values.shape, generator=generator) / 2)
        elif isinstance(module, lokr.LaneStack):
            for values in module.stacked:
                values.add_(torch.randn(values.shape, generator=generator) / 2)


def factors(model: lokr.LoKrModel, name: str = "default", lane: int = 0) -> dict[str, Tensor]:
    """Path of every factor -> its values."""
    return {
        f"{path}.{tensor}": values
        for path, layer in model.adapted_layers(name)
        for tensor, values in layer.adapter(name).lane(lane).items()
    }


def peft_factors(model: nn.Module, name: str = "default") -> dict[str, nn.Parameter]:
    """Path of every factor -> peft's parameter."""
    return {
        f"{path}.{tensor}": getattr(layer, tensor)[name]
        for path, layer in model.named_modules()
        if isinstance(layer, PeftLayer)
        for tensor in layer.adapter_layer_names
        if name in getattr(layer, tensor)
    }


@torch.no_grad()
def copy_to_peft(ours: lokr.LoKrModel, theirs: peft.LoKrModel) -> None:
    """Our factors into peft's parameters."""
    values = factors(ours)
    for path, parameter in peft_factors(theirs.model).items():
        parameter.copy_(values[path].view_as(parameter))  # a Conv1d's t2 has one axis more there


@torch.no_grad()
def in_lycoris(layer: nn.Module, values: dict[str, Tensor], **fields: Any) -> LokrModule:
    """LyCORIS's module on ``layer`` with the given factors; alpha == r."""
    r = fields.pop("r")
    module = LokrModule("peer", layer, lora_dim=r, alpha=r, **fields)
    for name, value in values.items():
        getattr(module, name).copy_(value)
    return module
