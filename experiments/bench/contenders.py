"""Who is compared on one layer: the frozen layer, PEFT, LyCORIS, and ours by each of its paths.

Every contender wraps the same frozen layer, and every LoKr has the same factors in fp32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from experiments.bench.shapes import Case
from experiments.bench.timing import Within, environment
from experiments.methods import quiet_about_rank
from lokr import LoKrModel, kernels
from lokr.layers import LoKrLayer

FROZEN, LORA, PEFT = "frozen", "PEFT LoRA", "PEFT LoKr"
LYCORIS, BYPASS = "LyCORIS", "LyCORIS bypass"
OURS_TORCH, OURS = "ours, PyTorch", "ours"


@dataclass(frozen=True)
class Contender:
    """A layer with its adapter.

    Args:
        forward: the adapted layer.
        trained: name of a factor -> its parameter; LoRA's own names.
        within: makes the context that chooses its path while it runs or is captured.
        is_lokr: whether it must give our function.
    """

    forward: Callable[[Tensor], Tensor]
    trained: dict[str, nn.Parameter] = field(default_factory=dict)
    within: Within = nullcontext
    is_lokr: bool = True


class _Net(nn.Module):
    """The layer under a name that adapters can target."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        y: Tensor = self.layer(x)
        return y


def build(name: str, case: Case, device: str, dtype: torch.dtype) -> Contender:
    """The contender of that name on a case.

    Raises:
        ImportError: its library is not installed.
    """
    return _BUILD[name](case, case.base(device, dtype), device)


def names(case: Case) -> tuple[str, ...]:
    """Contenders of a case, in the order of the table; a full w2 has no LoRA of its rank."""
    left_out = {LORA} if case.r is None else set()
    return tuple(name for name in _BUILD if name not in left_out)


def _frozen(case: Case, layer: nn.Module, device: str) -> Contender:
    return Contender(layer, is_lokr=False)


def _peft_lora(case: Case, layer: nn.Module, device: str) -> Contender:
    from peft import LoraConfig

    net = _with_peft(layer, LoraConfig(r=case.rank, lora_alpha=case.rank, target_modules=["layer"]))
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():  # B is zero at the start
            parameter.copy_(torch.randn(parameter.shape) / parameter.shape[1] ** 0.5)
    return Contender(net, trained, is_lokr=False)


def _peft_lokr(case: Case, layer: nn.Module, device: str) -> Contender:
    from peft import LoKrConfig

    knobs = ("r", "alpha", "decompose_factor", "use_effective_conv2d")
    config = LoKrConfig(
        **{knob: getattr(case.config, knob) for knob in knobs}, target_modules=["layer"]
    )
    net = _with_peft(layer, config)
    return Contender(net, _filled(net, case))


def _with_peft(layer: nn.Module, config: object) -> nn.Module:
    """The adapted layer itself, without the model around it."""
    from peft import get_peft_model

    net = _Net(layer)
    with warnings.catch_warnings():
        # peft asks transformers by a name that transformers has since deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        get_peft_model(net, config)  # type: ignore[arg-type]
    return net.layer


def _lycoris(case: Case, layer: nn.Module, device: str) -> Contender:
    return _with_lycoris(case, layer, device, bypass=None, backend="auto")


def _lycoris_bypass(case: Case, layer: nn.Module, device: str) -> Contender:
    backend = "triton" if device == "cuda" else "auto"
    return _with_lycoris(case, layer, device, bypass=True, backend=backend)


def _with_lycoris(
    case: Case, layer: nn.Module, device: str, bypass: bool | None, backend: str
) -> Contender:
    from lycoris.modules.lokr import LokrModule

    module = LokrModule(
        "layer",
        layer,
        lora_dim=1 if case.r is None else case.r,
        alpha=1 if case.r is None else case.r,
        factor=case.factor,
        full_matrix=case.r is None,
        use_tucker=case.effective,
        bypass_mode=bypass,
    ).to(device)
    module.apply_to()  # the layer's forward is now LyCORIS's
    within = partial(environment, {"LYCORIS_KERNEL_BACKEND": backend})
    return Contender(layer, _filled(module, case), within)


def _ours_torch(case: Case, layer: nn.Module, device: str) -> Contender:
    return _with_ours(case, layer, "torch")


def _ours(case: Case, layer: nn.Module, device: str) -> Contender:
    return _with_ours(case, layer, "auto")


def _with_ours(case: Case, layer: nn.Module, path: str) -> Contender:
    net = _Net(layer)
    with quiet_about_rank():
        LoKrModel(net, case.config)
    adapted = net.layer
    assert isinstance(adapted, LoKrLayer)
    adapter = adapted.adapter("default")
    for name, values in case.factors().items():
        adapter.set_lane(0, name, values)
    return Contender(adapted, dict(adapter.named_parameters()), partial(kernels.force, path))


@torch.no_grad()
def _filled(module: nn.Module, case: Case) -> dict[str, nn.Parameter]:
    """A peer's factors by their names, filled with the case's; names may end in an adapter's."""
    values = case.factors()
    found = {
        next(part for part in name.split(".") if part.startswith("lokr_")): parameter
        for name, parameter in module.named_parameters()
        if "lokr_" in name
    }
    if found.keys() != values.keys():
        raise ValueError(f"{case.name}: the peer has {sorted(found)}, we have {sorted(values)}")
    for name, parameter in found.items():
        parameter.copy_(values[name])
    return found


_BUILD: dict[str, Callable[[Case, nn.Module, str], Contender]] = {
    FROZEN: _frozen,
    LORA: _peft_lora,
    PEFT: _peft_lokr,
    LYCORIS: _lycoris,
    BYPASS: _lycoris_bypass,
    OURS_TORCH: _ours_torch,
    OURS: _ours,
}
