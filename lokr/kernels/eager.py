"""A custom operator without its dispatcher, for calls that nothing traces.

``torch.library.custom_op`` makes an operator one node of a compiled graph, and costs tens of
microseconds of Python a call: more than a small layer. Where nothing traces, the same two functions
are called directly, as one ``torch.autograd.Function``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

Outputs = Callable[..., tuple[Tensor, ...]]
Gradients = Callable[..., tuple[Tensor | None, ...]]
R = TypeVar("R")


def eager(forward: Outputs, setup: Callable[..., None], backward: Gradients) -> Outputs:
    """The operator as a function, with gradients of first order.

    Args:
        forward: what the operator computes; tensors that no gradient reaches come last.
        setup: its ``setup_context``, given (context, inputs, outputs).
        backward: (context, one gradient an output) -> one gradient an input or None.

    Returns:
        A function of forward's arguments that gives forward's outputs.
    """

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
            outputs = _as_given(forward, *inputs)
            setup(ctx, inputs, outputs)
            return outputs

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
            return _as_given(backward, ctx, *gradients)

    return Direct.apply


def own_view(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A view that may be changed in place, of what nobody else has: neither an ordinary view nor
    what an operator returns may, and ReLU(inplace=True) may come next.
    """
    out: Tensor = torch.ops.aten._unsafe_view(x, shape)
    return out


def is_traced() -> bool:
    """Whether someone looks at the operators of a call: a compiler, or a dispatch mode (fake
    tensors, selective checkpointing, counters).
    """
    return torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


def _as_given(call: Callable[..., R], *args: Any) -> R:
    """An operator's insides are multiplied in the dtypes that they have, under autocast too.

    ``torch.autocast(enabled=False)`` says the same, and takes longer.
    """
    kinds = [kind for kind in ("cuda", "cpu") if torch.is_autocast_enabled(kind)]
    if not kinds:
        return call(*args)
    for kind in kinds:
        torch.set_autocast_enabled(kind, False)
    try:
        return call(*args)
    finally:
        for kind in kinds:
            torch.set_autocast_enabled(kind, True)
