"""A frozen linear layer and its adapter as one operator: y = W·x + bias + ΔW·x, with gradients.

The adapter's part is written first, and the frozen product is accumulated onto it inside the matrix
product (``addmm_``), so the two never meet as separate tensors. Work goes part by part, each small
enough that what the adapter read and wrote is still in the GPU's cache when the frozen product
wants it. For the backward pass the input is kept, and u (rank r) where it is not taken anew.

Legend: L lanes; n tokens a lane; a, b, c, d, r as in :mod:`lokr.factors`; P programs that share out
a lane's tokens, each with its own sums of the factors' gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lokr.kernels import programs, tiles
from lokr.kernels.tiles import Dims


def adapted_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
) -> Tensor:
    """W·x + bias + ΔW·x for all lanes.

    Args:
        x: (L·n, c·d), contiguous; fp32, bf16 or fp16.
        weight: (a·b, c·d) in the dtype of x, frozen; None leaves W·x out.
        bias: (a·b,), frozen, or None.
        w1: (L, a, c), fp32, with the lanes' scales.
        w2: (L, b, d), fp32; or None, and then
        w2_a, w2_b: (L, b, r) and (L, r, d), fp32.

    Returns:
        (L·n, a·b) in the dtype of x. Gradients of x, and of the factors in fp32; none of the
        frozen tensors, and none of second order.
    """
    y, _ = _forward(x, weight, bias, w1, w2, w2_a, w2_b)
    return y


# -- forward ----------------------------------------------------------------------------------


@torch.library.custom_op("lokr::adapted_linear", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """y, and u (empty where the backward pass takes it anew)."""
    s = _dims(x, w1, w2, w2_a)
    factors = _Factors(*(t if t is None else t.contiguous() for t in (w1, w2, w2_a, w2_b)))
    y = x.new_empty(s.lanes * s.n, s.a * s.b)
    u = x.new_empty(s.lanes * s.n, s.a * s.r if tiles.keeps_u(s) else 0)
    for part in _parts(s, x):
        rows = part.rows
        _write_delta(part.dims, x[rows], factors.of(part.lanes), bias, y[rows], u[rows])
        if weight is not None:
            y[rows].addmm_(x[rows], weight.t())
    return y, u


@_forward.register_fake
def _(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
) -> tuple[Tensor, Tensor]:
    s = _dims(x, w1, w2, w2_a)
    rows = x.shape[0]
    return x.new_empty(rows, s.a * s.b), x.new_empty(rows, s.a * s.r if tiles.keeps_u(s) else 0)


def _write_delta(
    s: Dims, x: Tensor, f: _Factors, bias: Tensor | None, y: Tensor, u: Tensor
) -> None:
    """y = ΔW·x + bias."""
    if not s.r and not tiles.in_a_tile(s):
        z = _times_w2(s, x, f.full)
        tile = tiles.mix(s, x.dtype)
        grid = (tiles.count(s, tile), -(-s.b // tile["BB"]), s.lanes)
        programs.mix[grid](
            *(z, f.w1, _or(bias, z), y, s.n, s.a, s.b, s.c), BIAS=bias is not None, **tile
        )
        return
    tile = tiles.forward(s, x.dtype)
    programs.forward[(tiles.count(s, tile), s.lanes)](
        *(x, f.w1, _or(f.w2, f.w2_b), _or(f.w2_a, f.w1), _or(bias, x), y, u, s.n, *s[2:]),
        BIAS=bias is not None,
        KEEP_U=u.numel() > 0,
        **tile,
    )


def _times_w2(s: Dims, x: Tensor, w2: Tensor) -> Tensor:
    """z = x·w2ᵀ, (L, n·c, b)."""
    return torch.bmm(x.view(s.lanes, -1, s.d), w2.to(x.dtype).mT)


# -- backward ---------------------------------------------------------------------------------


@torch.library.custom_op("lokr::adapted_linear_backward", mutates_args=())
def _backward(
    gy: Tensor,
    x: Tensor,
    u: Tensor,
    weight: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    needs_x: bool,
) -> list[Tensor]:
    """Gradients of x (empty unless ``needs_x``), w1, and w2 or w2_a and w2_b; factors in fp32."""
    s = _dims(x, w1, w2, w2_a)
    gy = gy.contiguous()
    gx = torch.empty_like(x) if needs_x else x.new_empty(0)
    factors = _Factors(*(t if t is None else t.contiguous() for t in (w1, w2, w2_a, w2_b)))
    gradients = _gradients_of(s)
    sums = []
    for dims, lanes, rows in _parts(s, x):
        into = gx[rows] if needs_x else gx
        sums.append(gradients(dims, gy[rows], x[rows], u[rows], into, factors.of(lanes)))
        if needs_x and weight is not None:
            into.addmm_(gy[rows], weight)
    if not sums:  # no tokens
        return [gx, *(torch.zeros_like(t) for t in factors if t is not None)]
    return [gx, *_joined(s, sums)]


@_backward.register_fake
def _(
    gy: Tensor,
    x: Tensor,
    u: Tensor,
    weight: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    needs_x: bool,
) -> list[Tensor]:
    factors = [t for t in (w1, w2, w2_a, w2_b) if t is not None]
    gx = torch.empty_like(x) if needs_x else x.new_empty(0)
    return [gx, *(torch.empty_like(t, dtype=torch.float32) for t in factors)]


def _gradients_of(s: Dims) -> Any:
    """Which of the four functions below serves a layer of these sizes."""
    if s.r:
        return _low_rank_in_a_tile if tiles.in_a_tile(s) else _low_rank
    return _full_in_a_tile if tiles.in_a_tile(s) else _full


def _low_rank_in_a_tile(
    s: Dims, gy: Tensor, x: Tensor, _u: Tensor, gx: Tensor, f: _Factors
) -> list[Tensor]:
    tile = tiles.backward_low_rank(s, x.dtype)
    p = tiles.programs(s, tile, 1, x.device)
    g_w1, g_w2_a, g_w2_b = (_sums(p, t) for t in (f.w1, f.low[0], f.low[1]))
    programs.backward_low_rank[(p, s.lanes)](
        *(gy, x, f.w1, *f.low, gx, g_w2_a, g_w2_b, g_w1, s.n, s.lanes, *s[2:]),
        NEEDS_X=gx.numel() > 0,
        **tile,
    )
    return [g_w1, g_w2_a, g_w2_b]


def _low_rank(s: Dims, gy: Tensor, x: Tensor, u: Tensor, gx: Tensor, f: _Factors) -> list[Tensor]:
    w2_a, w2_b = f.low
    tile = tiles.backward_out(s, x.dtype)
    b_blocks = -(-s.b // tile["BB"])
    p = tiles.programs(s, tile, b_blocks, x.device)
    kind = x.dtype if b_blocks == 1 else torch.float32
    gu = torch.empty(b_blocks, s.lanes * s.n, s.a * s.r, dtype=kind, device=x.device)
    size = gu.shape[1] * gu.shape[2]
    g_w2_a = _sums(p, w2_a)
    programs.backward_out[(p, b_blocks, s.lanes)](
        gy, u, w2_a, gu, g_w2_a, s.n, s.lanes, size, s.a, s.b, s.r, **tile
    )
    tile = tiles.backward_in(s, x.dtype)
    d_blocks = -(-s.d // tile["BD"])
    p = tiles.programs(s, tile, d_blocks, x.device)
    g_w1, g_w2_b = _sums(p * d_blocks, f.w1), _sums(p, w2_b)
    programs.backward_in[(p, d_blocks, s.lanes)](
        *(gu, x, f.w1, w2_b, gx, g_w2_b, g_w1, s.n, s.lanes, size, s.a, s.c, s.d, s.r),
        BLOCKS=b_blocks,
        NEEDS_X=gx.numel() > 0,
        **tile,
    )
    return [g_w1, g_w2_a, g_w2_b]


def _full_in_a_tile(
    s: Dims, gy: Tensor, x: Tensor, _u: Tensor, gx: Tensor, f: _Factors
) -> list[Tensor]:
    tile = tiles.backward_full(s, x.dtype)
    p = tiles.programs(s, tile, 1, x.device)
    g_w1, g_w2 = _sums(p, f.w1), _sums(p, f.full)
    programs.backward_full[(p, s.lanes)](
        *(gy, x, f.w1, f.full, gx, g_w2, g_w1, s.n, s.lanes, *s[2:6]),
        NEEDS_X=gx.numel() > 0,
        **tile,
    )
    return [g_w1, g_w2]


def _full(s: Dims, gy: Tensor, x: Tensor, _u: Tensor, gx: Tensor, f: _Factors) -> list[Tensor]:
    z = _times_w2(s, x, f.full)
    tile = tiles.mix_backward(s, x.dtype)
    blocks = -(-s.b // tile["BB"])
    p = tiles.programs(s, tile, blocks, x.device)
    g_w1 = _sums(p * blocks, f.w1)
    programs.mix_backward[(p, blocks, s.lanes)](
        gy, z, f.w1, z, g_w1, s.n, s.lanes, s.a, s.b, s.c, **tile
    )  # z is now gz
    if gx.numel():
        torch.bmm(z, f.full.to(x.dtype), out=gx.view(s.lanes, -1, s.d))
    return [g_w1, torch.bmm(z.mT, x.view(s.lanes, -1, s.d)).unsqueeze(0)]


def _sums(p: int, factor: Tensor) -> Tensor:
    """Where ``p`` programs leave their sums of a factor's gradient: (p, L, ...)."""
    return torch.empty(p, *factor.shape, dtype=torch.float32, device=factor.device)


def _joined(s: Dims, sums: list[list[Tensor]]) -> list[Tensor]:
    """The gradients of the factors (L, ...) from the sums of every part.

    Parts are stretches of one lane's tokens, whose sums add up, or groups of lanes, which do not.
    """
    if s.lanes == 1:
        both = [t[0] if len(t) == 1 else torch.cat(t) for t in zip(*sums, strict=True)]
        return [t.sum(0, dtype=torch.float32) for t in both]
    groups = [[t.sum(0, dtype=torch.float32) for t in part] for part in sums]
    return [t[0] if len(t) == 1 else torch.cat(t) for t in zip(*groups, strict=True)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, _, w1, w2, w2_a, w2_b = inputs
    ctx.save_for_backward(x, output[1], weight, w1, w2, w2_a, w2_b)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gy: Tensor | None, _gu: Any) -> tuple[Tensor | None, ...]:
    if gy is None:
        return (None,) * 7
    x, u, weight, w1, w2, w2_a, w2_b = ctx.saved_tensors
    needs_x = ctx.needs_input_grad[0]
    gx, *factors = _backward(gy, x, u, weight, w1, w2, w2_a, w2_b, needs_x)
    gradients = iter(factors)
    given = [None if t is None else next(gradients) for t in (w1, w2, w2_a, w2_b)]
    return (gx if needs_x else None, None, None, *given)


_forward.register_autograd(_differentiate, setup_context=_setup_context)


# -- sizes ------------------------------------------------------------------------------------


class _Factors(NamedTuple):
    """The factors, contiguous, with their lane axis; absent ones are None."""

    w1: Tensor
    w2: Tensor | None
    w2_a: Tensor | None
    w2_b: Tensor | None

    @property
    def full(self) -> Tensor:
        """w2."""
        assert self.w2 is not None
        return self.w2

    @property
    def low(self) -> tuple[Tensor, Tensor]:
        """w2_a and w2_b."""
        assert self.w2_a is not None
        assert self.w2_b is not None
        return self.w2_a, self.w2_b

    def of(self, lanes: slice) -> _Factors:
        """Those of some lanes."""
        return _Factors(*(t if t is None else t[lanes] for t in self))


class _Part(NamedTuple):
    """A stretch of rows, the lanes they belong to, and the sizes of the two."""

    dims: Dims
    lanes: slice
    rows: slice


def _parts(s: Dims, x: Tensor) -> list[_Part]:
    """Groups of lanes or, of a single lane, stretches of tokens; none if there are no tokens."""
    if not s.n:
        return []
    pieces = tiles.pieces(s, x.dtype)
    size = s.lanes if s.lanes > 1 else s.n
    step = -(-size // pieces)
    parts = []
    for start in range(0, size, step):
        end = min(start + step, size)
        if s.lanes > 1:
            dims = s._replace(lanes=end - start)
            parts.append(_Part(dims, slice(start, end), slice(start * s.n, end * s.n)))
        else:
            dims = s._replace(n=end - start)
            parts.append(_Part(dims, slice(0, 1), slice(start, end)))
    return parts


def _dims(x: Tensor, w1: Tensor, w2: Tensor | None, w2_a: Tensor | None) -> Dims:
    lanes, a, c = w1.shape
    b, r = (w2.shape[1], 0) if w2 is not None else w2_a.shape[1:]  # type: ignore[union-attr]
    return Dims(lanes, x.shape[0] // lanes, a, b, c, x.shape[1] // c, r)


def _or(tensor: Tensor | None, other: Tensor | None) -> Tensor | None:
    """A program takes a pointer even where it reads nothing."""
    return other if tensor is None else tensor
