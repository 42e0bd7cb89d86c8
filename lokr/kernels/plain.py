"""The adapter's part of :mod:`lokr.kernels.linear` in PyTorch: any device, any dtype, any shape.

    h = x·w2_bᵀ   u = w1·h   Δy = u·w2_aᵀ          (low-rank w2)
    h = x·w2ᵀ     Δy = w1·h                         (full w2)

Written with its gradients, so that nothing is kept but x, h and u, and no tensor of the size of x
or y is added to another.

On a CPU, h and u of a small rank lie rank first, (L, r, n·c) and (L, r, n·a): then w1 is one
product over their last axis, nothing is permuted, and none of the products is a few numbers wide.
Elsewhere they lie token first, (L, n·c, q) and (L, n·a, q).

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
    """Δy (L·n, a·b), and what :func:`kept` says of u (empty with a full w2: it is Δy) and h."""
    columns = x.view(s.lanes, s.n * s.c, s.d)
    rows = (s.lanes * s.n, s.a * s.b)
    if w2_a is None or w2_b is None:
        assert w2 is not None
        h = _times(columns, w2.mT)
        return mix(h, w1).reshape(rows), x.new_empty(0), h
    if _rank_first(s, x):
        h = _times(w2_b, columns.mT)  # (L, r, n·c)
        u = _times(h.view(s.lanes, -1, s.c), w1.mT).view(s.lanes, s.r, -1)  # (L, r, n·a)
        return _times(u.mT, w2_a.mT).view(rows), u, h
    h = _times(columns, w2_b.mT)  # (L, n·c, r)
    u = mix(h, w1)  # (L, n·a, r)
    return _times(u, w2_a.mT).view(rows), u, h


def kept(s: Dims, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of u and h."""
    if not s.r:
        return (0,), (s.lanes, s.n * s.c, s.b)
    if _rank_first(s, x):
        return (s.lanes, s.r, s.n * s.a), (s.lanes, s.r, s.n * s.c)
    return (s.lanes, s.n * s.a, s.r), (s.lanes, s.n * s.c, s.r)


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
    if w2_a is not None and w2_b is not None and _rank_first(s, x):
        return _backward_rank_first(s, gy, x, u, h, w1, w2_a, w2_b, needs_x)
    first = w2 if w2_b is None else w2_b
    assert first is not None
    g = gy.view(s.lanes, s.n * s.a, s.b)  # (L, n·a, b)
    gu = g if w2_a is None else _times(g, w2_a)  # (L, n·a, q)
    gh = mix(gu, w1.mT)  # (L, n·c, q)
    columns = x.view(s.lanes, s.n * s.c, s.d)  # (L, n·c, d)
    outer = [_outer(gu, h, s)]
    if w2_a is not None:
        outer.append(_times(u.mT, g).mT)  # the narrow one first: twice as fast on a CPU
    outer.append(_times(gh.mT, columns))
    gx = _times(gh, first).view(x.shape) if needs_x else x.new_empty(0)
    return gx, outer


def _backward_rank_first(
    s: Dims,
    gy: Tensor,
    x: Tensor,
    u: Tensor,
    h: Tensor,
    w1: Tensor,
    w2_a: Tensor,
    w2_b: Tensor,
    needs_x: bool,
) -> tuple[Tensor, list[Tensor]]:
    g = gy.view(s.lanes, s.n * s.a, s.b)
    gu = _times(w2_a.mT, g.mT).view(s.lanes, -1, s.a)  # (L, r·n, a)
    gh = _times(gu, w1).view(s.lanes, s.r, -1)  # (L, r, n·c)
    outer = [
        _times(gu.mT, h.view(s.lanes, -1, s.c)),
        _times(u, g).mT,
        _times(gh, x.view(s.lanes, -1, s.d)),
    ]
    gx = _times(gh.mT, w2_b).view(x.shape) if needs_x else x.new_empty(0)
    return gx, outer


def _rank_first(s: Dims, x: Tensor) -> bool:
    """Whether h and u lie rank first: as measured on a CPU (``bench layer``), and only there."""
    return 0 < s.r < NARROW and s.n > 0 and x.device.type == "cpu"


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
