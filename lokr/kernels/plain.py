"""The adapter's part of :mod:`lokr.kernels.linear` in PyTorch: any device, any dtype, any shape.

    h = x·w2_bᵀ   u = w1·h   Δy = u·w2_aᵀ          (low-rank w2)
    h = x·w2ᵀ     Δy = w1·h                         (full w2)

Written with its gradients, so that nothing is kept but x, h and u, and no tensor of the size of x
or y is added to another.

Legend: L lanes; n tokens a lane; a, b, c, d, r as in :mod:`lokr.factors`; q stands for r or b.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lokr.kernels.tiles import Dims
from lokr.product import NARROW, mix


def forward(
    s: Dims, x: Tensor, w1: Tensor, w2: Tensor | None, w2_a: Tensor | None, w2_b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Δy (L·n, a·b), u (empty with a full w2, whose u is Δy) and h (L, n·c, q)."""
    first = w2 if w2_b is None else w2_b
    assert first is not None
    h = _times(x.view(s.lanes, s.n * s.c, s.d), first.mT)  # (L, n·c, q)
    u = mix(h, w1)  # (L, n·a, q)
    rows = (s.lanes * s.n, s.a * s.b)
    if w2_a is None:
        return u.reshape(rows), x.new_empty(0), h
    return _times(u, w2_a.mT).view(rows), u, h


def backward(
    s: Dims,
    gy: Tensor,
    x: Tensor,
    u: Tensor,
    h: Tensor,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    needs_x: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Δgx (empty unless ``needs_x``), and the gradients of w1 and of w2, or w2_a and w2_b."""
    first = w2 if w2_b is None else w2_b
    assert first is not None
    g = gy.view(s.lanes, s.n * s.a, s.b)  # (L, n·a, b)
    gu = g if w2_a is None else _times(g, w2_a)  # (L, n·a, q)
    gh = mix(gu, w1.mT)  # (L, n·c, q)
    rows = x.view(s.lanes, s.n * s.c, s.d)  # (L, n·c, d)
    outer = [_outer(gu, h, s)]
    if w2_a is not None:
        outer.append(_times(u.mT, g).mT)  # the narrow one first: twice as fast on a CPU
    outer.append(_times(gh.mT, rows))
    gx = _times(gh, first).view(x.shape) if needs_x else x.new_empty(0)
    return gx, outer


def _outer(gu: Tensor, h: Tensor, s: Dims) -> Tensor:
    """w1's gradient: gu (L, n·a, q) and h (L, n·c, q) summed over tokens and q, (L, a, c)."""
    q = h.shape[-1]
    gu, h = gu.view(s.lanes, s.n, s.a, q), h.view(s.lanes, s.n, s.c, q)
    if q < NARROW:
        return torch.einsum("lnaq,lncq->lac", gu, h)
    return (gu @ h.mT).sum(1)


def _times(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of every lane; a CPU is faster at one plain product than at a batch of one."""
    if len(left) == 1:
        return (left[0] @ right[0]).unsqueeze(0)
    return torch.bmm(left, right)
