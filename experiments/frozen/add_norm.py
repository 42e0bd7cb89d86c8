"""norm(x + residual), in fp32 and in the dtype of the products, as one operation.

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
        ValueError: a residual that is not fp32.
    """
    if residual.dtype != torch.float32:
        raise ValueError(f"residual: expected torch.float32, got {residual.dtype}")
    kept = torch.is_grad_enabled() and (x.requires_grad or residual.requires_grad)
    y, half = _AddNorm.apply(x, residual, norm.weight, norm.bias, norm.eps, kept)
    return y, half


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
        from experiments.frozen import norm_programs as programs

        x, residual = x.contiguous(), residual.contiguous()
        m, width = x.numel() // x.shape[-1], x.shape[-1]
        y, half = torch.empty_like(residual), torch.empty_like(x)
        total = torch.empty_like(residual) if kept else residual.new_empty(0)
        mean, scale = residual.new_empty(2, m if kept else 0)
        grid, tile = _tiles(m, width)
        if m:
            programs.add_norm[grid](
                *(x, residual, weight, bias, total, y, half, mean, scale, m, eps),
                width=width,
                KEEP=kept,
                **tile,
            )
        ctx.save_for_backward(total, weight, mean, scale)
        ctx.dtype = x.dtype
        ctx.set_materialize_grads(False)
        return y, half

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None, ghalf: Tensor | None) -> tuple[Tensor | None, ...]:
        from experiments.frozen import norm_programs as programs

        total, weight, mean, scale = ctx.saved_tensors
        needs_residual = ctx.needs_input_grad[1]
        gx = torch.empty_like(total, dtype=ctx.dtype)
        gtotal = torch.empty_like(total) if needs_residual else None
        grid, tile = _tiles(len(mean), total.shape[-1])
        if len(mean):
            programs.add_norm_backward[grid](
                *(_or(gy, total), _or(ghalf, gx), total, weight, mean, scale),
                *(_or(gtotal, total), gx, len(mean)),
                width=total.shape[-1],
                FULL=gy is not None,
                HALF=ghalf is not None,
                RESIDUAL=needs_residual,
                **tile,
            )
        return gx, gtotal, None, None, None, None


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """What a program is given where it is told that there is nothing to read or write."""
    return stand_in if tensor is None else tensor.contiguous()


def _tiles(m: int, width: int) -> tuple[tuple[int], dict[str, int]]:
    """The grid, and a program's tile."""
    wide = 1 << (width - 1).bit_length()
    high = max(1, TILE // wide)
    return (-(-m // high),), {"H": high, "W": wide, "num_warps": 8}
