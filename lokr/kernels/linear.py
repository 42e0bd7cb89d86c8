"""A frozen linear layer and its adapter as one operator: y = W·x + bias + ΔW·x, with gradients.

The adapter's part is written first, and the frozen product is accumulated onto it inside the matrix
product (``addmm_``), so the two never meet as separate tensors. For the backward pass the input is
kept, and u (rank r) where it is not taken anew. ``fused`` says who writes the adapter's part:
Triton, or PyTorch (:mod:`lokr.kernels.plain`).

A layer's output that is already there (a convolution's: ``onto``) is added where the adapter's part
is written.

Each program leaves its own sums of the factors' gradients, added up afterwards in a fixed order:
the same result every time.

What a launch needs beside its tensors is worked out once for each size (``tiles.remembered``): a
small layer is over before Python has thought about it twice.

Legend: L lanes; n tokens a lane; a, b, c, d, r as in :mod:`lokr.factors`; P programs that share out
a lane's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from lokr.kernels import plain, tiles
from lokr.kernels.eager import eager, is_traced, own_view
from lokr.kernels.launch import launch
from lokr.kernels.tiles import Dims, Tile
from lokr.product import Factors

Place = tuple[torch.Size, tuple[int, ...], int]
"""Shape, strides, and the first number."""
Launch = tuple[Any, tuple[int, ...], Tile]
"""A program, its grid and its constants."""


def adapted_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    fused: bool,
    onto: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """W·x + bias + ΔW·x for all lanes, onto another layer's output if there is one.

    Args:
        x: (…, c·d) of L·n tokens, lane-major, contiguous.
        weight: (a·b, c·d) in the dtype of x, frozen; None leaves W·x out.
        bias: (a·b,), frozen, or None.
        w1: (L, a, c); fp32 if ``fused``, else in the dtype of x.
        w2: (L, b, d) in the dtype of w1; or None, and then
        w2_a, w2_b: (L, b, r) and (L, r, d).
        fused: in Triton (x in fp32, bf16 or fp16).
        onto: (…, a·b), contiguous, in the dtype of x: what the product is added to; or None.
        scale: (L,), contiguous, what w1 is multiplied by if ``fused``; None: nothing.

    Returns:
        (…, a·b) in the dtype of x, that may be changed in place. Gradients of x, of the factors
        and of ``onto``, each in its dtype; none of the frozen tensors and of the scale, and none
        of second order.
    """
    assert fused or scale is None, "the PyTorch path takes the scale in w1"
    traced = is_traced()
    call = _forward if traced else _direct
    y: Tensor = call(x, weight, bias, w1, w2, w2_a, w2_b, fused, onto, scale)[0]
    return own_view(y, y.shape) if traced else y


# -- forward ----------------------------------------------------------------------------------


def _compute(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    fused: bool,
    onto: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, and what the backward pass wants of u and h (empty where it takes them anew)."""
    s = _dims(x, w1, w2, w2_a)
    shape = (*x.shape[:-1], s.a * s.b)
    if not fused:
        y, u, h = plain.forward(s, x, w1, w2, w2_a, w2_b)
        y = own_view(y, shape)
        for other in (bias, onto):
            if other is not None:
                y += other
    else:
        y, u, h = x.new_empty(shape), x.new_empty(_kept_of(s)), x.new_empty(0)
        if s.n:
            f = _readable(w1, w2, w2_a, w2_b, scale)
            _write_delta(s, x, f, (bias, onto), y, u)
    if weight is not None:
        _rows(y).addmm_(_rows(x), weight.t())
    return y, u, h


_forward = torch.library.custom_op("lokr::adapted_linear", _compute, mutates_args=())


@_forward.register_fake
def _(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    fused: bool,
    onto: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    s = _dims(x, w1, w2, w2_a)
    y = x.new_empty(*x.shape[:-1], s.a * s.b)
    if fused:
        return y, x.new_empty(_kept(s)), x.new_empty(0)
    u, h = plain.kept(s, x)
    return y, x.new_empty(u), x.new_empty(h)


def _kept(s: Dims) -> tuple[int, int]:
    """The shape of u that the fused forward pass keeps."""
    return s.lanes * s.n, s.a * s.r if tiles.keeps_u(s) else 0


_kept_of = tiles.remembered(_kept)


def _write_delta(
    s: Dims, x: Tensor, f: Factors, added: tuple[Tensor | None, Tensor | None], y: Tensor, u: Tensor
) -> None:
    """y = ΔW·x + bias + onto, in Triton; ``added`` holds the last two."""
    from lokr.kernels import programs

    bias, onto = added
    others = _or(bias, x), _or(onto, x)
    flags = {"BIAS": bias is not None, "ONTO": onto is not None, "SCALED": f.scale is not None}
    program, grid, constants = _forward_of(s, x.dtype, x.device)
    if program is programs.mix:
        z = _times_w2(s, x, f.full)
        args = (z, *_w1(f), *others, y, s.n, *_steps(f.w1), s.a, s.b, s.c)
    else:
        first = f.full if f.w2_b is None else f.w2_b
        last = f.w1 if f.w2_a is None else f.w2_a
        args = (x, *_w1(f), first, last, *others, y, u, s.n, *_steps(f.w1, first, last), *s[2:])
    launch(program, grid, *args, **flags, **constants)


@tiles.remembered
def _forward_of(s: Dims, dtype: torch.dtype, device: torch.device) -> Launch:
    """The program of the forward pass."""
    from lokr.kernels import programs

    if not s.r and not tiles.in_a_tile(s):
        tile = tiles.mix(s, dtype)
        return programs.mix, (tiles.count(s, tile), -(-s.b // tile["BB"]), s.lanes), tile
    tile = tiles.forward(s, dtype)
    p = tiles.programs(s, tile, 1, device) if tile["LOOP"] else tiles.count(s, tile)
    return programs.forward, (p, s.lanes), {"KEEP_U": tiles.keeps_u(s), **tile}


def _w1(f: Factors) -> tuple[Tensor, Tensor]:
    """w1 and its scale as the programs take them."""
    return f.w1, _or(f.scale, f.w1)


def _times_w2(s: Dims, x: Tensor, w2: Tensor) -> Tensor:
    """z = x·w2ᵀ, (L, n·c, b)."""
    return torch.bmm(x.view(s.lanes, -1, s.d), w2.to(x.dtype).mT)


# -- backward ---------------------------------------------------------------------------------


def _compute_backward(
    gy: Tensor,
    x: Tensor,
    u: Tensor,
    h: Tensor,
    weight: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    needs_x: bool,
    fused: bool,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Gradients of x (empty unless ``needs_x``), and of the factors.

    The factors' lie one after the other, (L·width,), in the order w1, w2, or w1, w2_a, w2_b: each
    is dense, so that nothing has to be copied out.
    """
    s = _dims(x, w1, w2, w2_a)
    gy = gy.contiguous()
    if not fused:
        gx, each = plain.backward(s, gy, x, u, h, w1, w2, w2_a, w2_b, needs_x)
        flat = torch.cat([t.flatten() for t in each])
    elif s.n:
        gx = torch.empty_like(x) if needs_x else x.new_empty(0)
        flat = _gradients_of(s)(s, gy, x, u, gx, _readable(w1, w2, w2_a, w2_b, scale))
    else:
        gx, flat = torch.empty_like(x), w1.new_zeros(s.lanes * _width(s))
    if needs_x and weight is not None:
        _rows(gx).addmm_(_rows(gy), weight)
    return gx, flat


_backward = torch.library.custom_op(
    "lokr::adapted_linear_backward", _compute_backward, mutates_args=()
)


@_backward.register_fake
def _(
    gy: Tensor,
    x: Tensor,
    u: Tensor,
    h: Tensor,
    weight: Tensor | None,
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    needs_x: bool,
    fused: bool,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor]:
    s = _dims(x, w1, w2, w2_a)
    gx = torch.empty_like(x) if needs_x else x.new_empty(0)
    return gx, w1.new_empty(s.lanes * _width(s))


def _gradients_of(s: Dims) -> Any:
    """Which of the four functions below serves a layer of these sizes."""
    if s.r:
        return _low_rank_in_a_tile if tiles.in_a_tile(s) else _low_rank
    return _full_in_a_tile if tiles.in_a_tile(s) else _full


def _low_rank_in_a_tile(
    s: Dims, gy: Tensor, x: Tensor, _u: Tensor, gx: Tensor, f: Factors
) -> Tensor:
    from lokr.kernels import programs

    p, tile = _backward_in_a_tile(tiles.backward_low_rank, s, x.dtype, x.device)
    sums = _sums(p, s, _width(s), x)
    launch(
        programs.backward_low_rank,
        (p, s.lanes),
        *(gy, x, *_w1(f), *f.low, gx, sums, s.n, s.lanes),
        *_steps(f.w1, *f.low),
        *s[2:],
        NEEDS_X=gx.numel() > 0,
        SCALED=f.scale is not None,
        **tile,
    )
    return sums.sum(0)


def _low_rank(s: Dims, gy: Tensor, x: Tensor, u: Tensor, gx: Tensor, f: Factors) -> Tensor:
    from lokr.kernels import programs

    w2_a, w2_b = f.low
    out, into = tiles.backward_out(s, x.dtype), tiles.backward_in(s, x.dtype)
    b_blocks, d_blocks = tiles.b_blocks(s, x.dtype), -(-s.d // into["BD"])
    p = min(tiles.programs(s, t, k, x.device) for t, k in ((out, b_blocks), (into, d_blocks)))
    kind = x.dtype if b_blocks == 1 else torch.float32
    gu = torch.empty(b_blocks, s.lanes * s.n, s.a * s.r, dtype=kind, device=x.device)
    size = gu.shape[1] * gu.shape[2]
    at_a = d_blocks * s.a * s.c
    at_b = at_a + s.b * s.r
    width = at_b + s.r * s.d
    sums = _sums(p, s, width, x)
    launch(
        programs.backward_out,
        (p, b_blocks, s.lanes),
        *(gy, u, w2_a, gu, sums, s.n, s.lanes, size, *_steps(w2_a)),
        *(width, at_a, s.a, s.b, s.r),
        **out,
    )
    launch(
        programs.backward_in,
        (p, d_blocks, s.lanes),
        *(gu, x, *_w1(f), w2_b, gx, sums, s.n, s.lanes, size, *_steps(f.w1, w2_b)),
        *(width, at_b, s.a, s.c, s.d, s.r),
        BLOCKS=b_blocks,
        NEEDS_X=gx.numel() > 0,
        SCALED=f.scale is not None,
        **into,
    )
    flat = torch.empty(s.lanes * _width(s), dtype=torch.float32, device=x.device)
    _add_up(sums, flat, s.lanes * s.a * s.c, d_blocks)
    return flat


def _full_in_a_tile(s: Dims, gy: Tensor, x: Tensor, _u: Tensor, gx: Tensor, f: Factors) -> Tensor:
    from lokr.kernels import programs

    p, tile = _backward_in_a_tile(tiles.backward_full, s, x.dtype, x.device)
    sums = _sums(p, s, _width(s), x)
    launch(
        programs.backward_full,
        (p, s.lanes),
        *(gy, x, *_w1(f), f.full, gx, sums, s.n, s.lanes),
        *_steps(f.w1, f.full),
        *s[2:6],
        NEEDS_X=gx.numel() > 0,
        SCALED=f.scale is not None,
        **tile,
    )
    return sums.sum(0)


@tiles.remembered
def _backward_in_a_tile(
    tile_of: Callable[[Dims, torch.dtype], Tile], s: Dims, dtype: torch.dtype, device: torch.device
) -> tuple[int, Tile]:
    """P, and the constants of the program that takes all gradients."""
    tile = tile_of(s, dtype)
    return tiles.programs(s, tile, 1, device), tile


def _full(s: Dims, gy: Tensor, x: Tensor, _u: Tensor, gx: Tensor, f: Factors) -> Tensor:
    """As of y = v·w2ᵀ with v = w1·x: two products, where those of w1·z with z = x·w2ᵀ are three."""
    from lokr.kernels import programs

    gv = torch.bmm(gy.view(s.lanes, -1, s.b), f.full.to(x.dtype))  # (L, n·a, d)
    tile = tiles.mix_backward(s, x.dtype)
    blocks = -(-s.d // tile["BD"])
    p = tiles.programs(s, tile, blocks, x.device, each=4)
    sums = _sums(p * blocks, s, s.a * s.c, x)
    launch(
        programs.mix_backward,
        (p, blocks, s.lanes),
        *(gv, x, *_w1(f), gv, gx, sums, s.n, s.lanes, *_steps(f.w1), s.a, s.c, s.d),
        NEEDS_X=gx.numel() > 0,
        SCALED=f.scale is not None,
        **tile,
    )  # gv is now v
    flat = torch.empty(s.lanes * _width(s), dtype=torch.float32, device=x.device)
    end = s.lanes * s.a * s.c
    _add_up(sums, flat[:end], end, 1)
    _add_up_pieces(s, gy, gv, flat[end:].view(s.lanes, s.b, s.d))
    return flat


def _add_up_pieces(s: Dims, gy: Tensor, v: Tensor, out: Tensor) -> None:
    """gyᵀ·v of each lane, (L, b, d) fp32: the long sum over tokens in pieces, to fill the GPU."""
    pieces = math.gcd(16, s.n * s.a) if s.lanes < 16 else 1
    parts = torch.bmm(gy.view(s.lanes * pieces, -1, s.b).mT, v.view(s.lanes * pieces, -1, s.d))
    torch.sum(parts.view(s.lanes, pieces, s.b, s.d), 1, dtype=torch.float32, out=out)


def _add_up(sums: Tensor, out: Tensor, head: int, blocks: int) -> None:
    """Write what the programs left, added up, into (head + rest,): of the head each left
    ``blocks`` parts, one after the other.
    """
    from lokr.kernels import programs

    rest = out.numel() - head
    tile = tiles.add_up(len(sums))
    grid = (-(-out.numel() // tile["BJ"]),)
    launch(programs.add_up, grid, sums, out, len(sums), head, rest, blocks, **tile)


def _sums(p: int, s: Dims, width: int, x: Tensor) -> Tensor:
    """Where the programs leave their sums: (P, L·width) fp32."""
    return torch.empty(p, s.lanes * width, dtype=torch.float32, device=x.device)


def _rows(t: Tensor) -> Tensor:
    """(…, width) as a matrix."""
    return t if t.dim() == 2 else t.view(-1, t.shape[-1])


def _width(s: Dims) -> int:
    """Numbers in the factors of a lane."""
    return s.a * s.c + (s.r * (s.b + s.d) if s.r else s.b * s.d)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, _, w1, w2, w2_a, w2_b, ctx.fused, _, scale = inputs
    ctx.save_for_backward(x, *output[1:], weight, w1, w2, w2_a, w2_b, scale)
    ctx.set_materialize_grads(False)


def _places(*shapes: torch.Size) -> list[Place]:
    """Where each factor's gradient lies among all of them."""
    starts = accumulate((shape.numel() for shape in shapes), initial=0)
    return [(s, (s[1] * s[2], s[2], 1), at) for s, at in zip(shapes, starts, strict=False)]


def _differentiate(
    backward: Callable[..., Any],
    places_of: Callable[..., list[Place]],
    ctx: Any,
    gy: Tensor | None,
    *_: Any,
) -> tuple[Tensor | None, ...]:
    if gy is None:
        return (None,) * 10
    x, u, h, weight, w1, w2, w2_a, w2_b, scale = ctx.saved_tensors
    needs_x = ctx.needs_input_grad[0]
    gx, flat = backward(gy, x, u, h, weight, w1, w2, w2_a, w2_b, needs_x, ctx.fused, scale)
    factors = (w1, w2, w2_a, w2_b)
    places = places_of(*(t.shape for t in factors if t is not None))
    parts = (flat.as_strided(*place) for place in places)
    given = [None if t is None else next(parts) for t in factors]
    g_onto = gy if ctx.needs_input_grad[8] else None
    return (gx if needs_x else None, None, None, *given, None, g_onto, None)


_forward.register_autograd(
    partial(_differentiate, _backward, _places), setup_context=_setup_context
)
_direct = eager(
    _compute,
    _setup_context,
    partial(_differentiate, _compute_backward, tiles.remembered(_places)),
)


# -- sizes ------------------------------------------------------------------------------------


def _readable(
    w1: Tensor,
    w2: Tensor | None,
    w2_a: Tensor | None,
    w2_b: Tensor | None,
    scale: Tensor | None,
) -> Factors:
    """The factors as the programs read them: each lane's dense, the lanes at any distance.

    An optimizer may keep all factors of a lane side by side; copying them out each time takes
    longer than reading them.
    """
    each = (t if t is None or _is_dense(t) else t.contiguous() for t in (w1, w2, w2_a, w2_b))
    return Factors(*each)._replace(scale=scale)  # type: ignore[arg-type]


def _is_dense(t: Tensor) -> bool:
    return t.is_contiguous() or t[0].is_contiguous()


def _steps(*factors: Tensor) -> list[int]:
    """From each one's lane to its next lane."""
    return [t.stride(0) for t in factors]


def _dims(x: Tensor, w1: Tensor, w2: Tensor | None, w2_a: Tensor | None) -> Dims:
    lanes, a, c = w1.shape
    b, r = (w2.shape[1], 0) if w2 is not None else w2_a.shape[1:]  # type: ignore[union-attr]
    width = x.shape[-1]
    return Dims(lanes, x.numel() // (width * lanes), a, b, c, width // c, r)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A program takes a pointer even where it reads nothing."""
    return other if tensor is None else tensor
