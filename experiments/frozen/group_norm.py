"""A frozen group norm, and SiLU behind it if wanted, in the dtype of the products that follow.

Under autocast torch casts to fp32, lays the pictures' channels first (its GPU program knows no
other way), normalizes, and leaves SiLU, the cast and the way back to others: some 40 bytes a
number. Here it is read twice and written once. The numbers are those of autocast.

Legend: N pictures; C channels; H, W height and width; P = H·W pixels; G groups; Q, K, R how a
picture is cut, see :mod:`~experiments.frozen.group_programs`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lokr.kernels.launch import launch
from lokr.kernels.tiles import power

ROWS = 64
"""R, at most: rows of a tile."""
NUMBERS = 8192
"""Of a tile, at most."""
PROGRAMS = 32
"""Q, at most: what a picture's parts are gathered from, one after the other."""


def group_norm(x: Tensor, norm: nn.GroupNorm, silu: bool, dtype: torch.dtype) -> Tensor:
    """silu(norm(x)), or norm(x).

    Args:
        x: (N, C, H, W) in any floating dtype.
        norm: with weight and bias, frozen.
        silu: whether SiLU follows.
        dtype: of the result.

    Returns:
        (N, C, H, W), channels last, with a gradient of first order for x alone.
    """
    y: Tensor = _GroupNorm.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu, dtype)
    return y


class Cut(NamedTuple):
    """How a picture is cut: Q programs of K tiles of R rows."""

    q: int
    k: int
    r: int


def cut(pixels: int, channels: int) -> Cut:
    """Tiles of equal size, so that none has to be masked: R divides P, K the number of tiles."""
    most = max(1, min(ROWS, NUMBERS // power(channels)))
    r = next(r for r in (1 << e for e in range(most.bit_length() - 1, -1, -1)) if pixels % r == 0)
    tiles = pixels // r
    k = next(k for k in range(1, tiles + 1) if tiles % k == 0 and tiles // k <= PROGRAMS)
    return Cut(tiles // k, k, r)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        silu: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        from experiments.frozen import group_programs as programs

        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.empty_like(x, dtype=dtype)
        n, c = x.shape[:2]
        stats = x.new_empty(n, 2, c, dtype=torch.float32)
        ctx.groups, ctx.silu = groups, silu
        ctx.save_for_backward(x, stats, weight, bias)
        if x.numel():
            own, rows, gathered, parts = _launch(x, groups)
            launch(programs.moments, own, x, parts, **rows)
            launch(programs.gather, (n,), parts, stats, eps, own[0], **gathered)
            launch(programs.apply, own, x, stats, weight, bias, y, SILU=silu, **rows)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        from experiments.frozen import group_programs as programs

        x, stats, weight, bias = ctx.saved_tensors
        gy = gy.contiguous(memory_format=torch.channels_last)
        gx, means = torch.empty_like(x), torch.empty_like(stats)
        if x.numel():
            own, rows, gathered, parts = _launch(x, ctx.groups)
            rows["SILU"] = ctx.silu
            launch(programs.sums, own, gy, x, stats, weight, bias, parts, **rows)
            launch(programs.gather_sums, (len(x),), parts, weight, means, own[0], **gathered)
            launch(programs.apply_backward, own, gy, x, stats, means, weight, bias, gx, **rows)
        return gx, None, None, None, None, None, None


def constants(channels: int, pixels: int, groups: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the programs that read a picture's rows, and of those that gather what they leave."""
    _, k, r = cut(pixels, channels)
    c = channels // groups
    rows = {"C": channels, "K": k, "R": r, "W": power(channels), "num_warps": 4}
    gathered = {"C": channels, "c": c, "ROWS": k * r, "G": groups}
    gathered |= {"GW": power(groups), "CW": power(c), "num_warps": 1}
    return rows, gathered


def _launch(
    x: Tensor, groups: int
) -> tuple[tuple[int, int], dict[str, Any], dict[str, Any], Tensor]:
    """The grid of programs that read rows, :func:`constants`, and where those leave what the
    others gather: (N, Q, 2, C) fp32.
    """
    n, channels, height, width = x.shape
    rows, gathered = constants(channels, height * width, groups)
    q = height * width // gathered["ROWS"]
    parts = x.new_empty(n, q, 2, channels, dtype=torch.float32)
    return (q, n), rows, gathered, parts
