"""norm(x + residual), in fp32 and in the dtype of the products, or norm(x), as one operation.

Under autocast a layer norm computes and returns fp32, each product that follows casts that again,
and each cast's gradient is cast back: most of what an encoder reads and writes. The numbers are
those of autocast, but for the gradients of the products: these add up in the products' dtype.

Legend: M rows; width of a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lokr.kernels.launch import launch
from lokr.kernels.tiles import power

TILE = 4096
"""Numbers of a program's tile: rows of common widths, a few a program."""


def add_norm(x: Tensor, residual: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The normalized sum of a frozen norm.

    Args:
        x: (…, width) in the dtype of the products.
        residual: (…, width) fp32.
        norm: over the last axis alone, with weight and bias, frozen.

    Returns:
        It in fp32 and in the dtype of x, both (…, width) and with gradients of first order.

    Raises:
        ValueError: a residual of another shape than x or that is not fp32, or a norm that
            :func:`is_frozen` does not take.
    """
    if residual.dtype != torch.float32:
        raise ValueError(f"residual: expected torch.float32, got {residual.dtype}")
    if residual.shape != x.shape:
        raise ValueError(f"residual: expected {tuple(x.shape)} as x, got {tuple(residual.shape)}")
    _check(x, norm)
    kept = torch.is_grad_enabled() and (x.requires_grad or residual.requires_grad)
    y, half = _AddNorm.apply(x, residual, norm.weight, norm.bias, norm.eps, kept)
    return y, half


def is_frozen(norm: nn.Module) -> bool:
    """A group norm, or a layer norm over one axis, with a weight and a bias that do not train."""
    if type(norm) not in (nn.LayerNorm, nn.GroupNorm):
        return False
    if isinstance(norm, nn.LayerNorm) and len(norm.normalized_shape) > 1:
        return False
    return not any(w is None or w.requires_grad for w in (norm.weight, norm.bias))


def _check(x: Tensor, norm: nn.LayerNorm) -> None:
    if not is_frozen(norm):
        raise ValueError(f"norm {norm}: expected a frozen one over one axis, with weight and bias")
    if norm.normalized_shape != x.shape[-1:]:
        raise ValueError(f"x: expected {norm.normalized_shape[0]} wide, got {x.shape[-1]}")


def norm_alone(x: Tensor, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
    """A frozen norm in the dtype of the products that follow.

    Args:
        x: (…, width) in any floating dtype.
        norm: over the last axis alone, with weight and bias, frozen.
        dtype: of the result.

    Returns:
        (…, width), with a gradient of first order.

    Raises:
        ValueError: a norm that :func:`is_frozen` does not take, or of another width.
    """
    _check(x, norm)
    y: Tensor = _Norm.apply(x, norm.weight, norm.bias, norm.eps, dtype)
    return y


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        x = x.contiguous()
        half = torch.empty_like(x, dtype=dtype)
        mean, scale = _launch(x, x, weight, bias, x, x, half, eps, SUM=False, KEEP=True)
        ctx.save_for_backward(x, weight, mean, scale)
        return half

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ghalf: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        gx = torch.empty_like(x)
        _launch_backward(None, ghalf, x, weight, mean, scale, None, gx)
        return gx, None, None, None, None


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        kept: bool,
    ) -> tuple[Tensor, Tensor]:
        x, residual = x.contiguous(), residual.contiguous()
        y, half = torch.empty_like(residual), torch.empty_like(x)
        total = torch.empty_like(residual) if kept else residual.new_empty(0)
        tensors = (x, residual, weight, bias, total, y, half)
        mean, scale = _launch(*tensors, eps, SUM=True, KEEP=kept)
        ctx.save_for_backward(total, weight, mean, scale)
        ctx.dtype = x.dtype
        ctx.set_materialize_grads(False)
        return y, half

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None, ghalf: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight, mean, scale = ctx.saved_tensors
        gx = torch.empty_like(total, dtype=ctx.dtype)
        gtotal = torch.empty_like(total) if ctx.needs_input_grad[1] else None
        _launch_backward(gy, ghalf, total, weight, mean, scale, gtotal, gx)
        return gx, gtotal, None, None, None, None


def _launch(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    total: Tensor,
    y: Tensor,
    half: Tensor,
    eps: float,
    **flags: bool,
) -> Tensor:
    """Mean and 1/deviation of each row, (2, M) fp32; (2, 0) unless they are kept."""
    from experiments.frozen import norm_programs as programs

    m, width = x.numel() // x.shape[-1], x.shape[-1]
    stats = x.new_empty(2, m if flags["KEEP"] else 0, dtype=torch.float32)
    grid, tile = _tiles(m, width)
    if m:
        launch(
            programs.add_norm,
            grid,
            *(x, residual, weight, bias, total, y, half, *stats, m, eps),
            width=width,
            **flags,
            **tile,
        )
    return stats


def _launch_backward(
    gy: Tensor | None,
    ghalf: Tensor | None,
    total: Tensor,
    weight: Tensor,
    mean: Tensor,
    scale: Tensor,
    gtotal: Tensor | None,
    gx: Tensor,
) -> None:
    from experiments.frozen import norm_programs as programs

    grid, tile = _tiles(len(mean), total.shape[-1])
    if len(mean):
        launch(
            programs.add_norm_backward,
            grid,
            *(_or(gy, total), _or(ghalf, gx), total, weight, mean, scale),
            *(_or(gtotal, total), gx, len(mean)),
            width=total.shape[-1],
            FULL=gy is not None,
            HALF=ghalf is not None,
            RESIDUAL=gtotal is not None,
            **tile,
        )


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """What a program is given where it is told that there is nothing to read or write."""
    return stand_in if tensor is None else tensor.contiguous()


def _tiles(m: int, width: int) -> tuple[tuple[int], dict[str, int]]:
    """The grid, and a program's tile."""
    wide = power(width)
    high = max(1, TILE // wide)
    return (-(-m // high),), {"H": high, "W": wide, "num_warps": 8}
