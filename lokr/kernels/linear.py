"""A frozen linear layer and its adapter as one operator: y = W·x + bias + ΔW·x, with gradients.

The adapter's part is written first and the frozen product is accumulated onto it inside the matrix
product (``addmm_``), so the two never meet as separate tensors. For the backward pass the input and
one small middle tensor (u, rank r) are kept.

Legend: L lanes; n tokens a lane; a, b, c, d, r as in :mod:`lokr.factors`; P programs a lane.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lokr.kernels import programs

LARGEST = 128
"""Largest a, c and r that a tile holds whole; beyond, the PyTorch path is used."""
WHOLE = 64
"""Largest b and d up to which a full w2 and its gradient stay in one tile."""


class Dims(NamedTuple):
    """Sizes of one call."""

    lanes: int
    n: int
    a: int
    b: int
    c: int
    d: int
    r: int  # 0 with a full w2


def fits(a: int, b: int, c: int, d: int, r: int) -> bool:
    """Whether the programs' tiles can hold a layer of these sizes (r = 0: full w2)."""
    return max(a, c, r) <= LARGEST and min(a, b, c, d) >= 1


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
        w1: (L, a, c), any floating dtype, with the lanes' scales.
        w2: (L, b, d); or None, and then
        w2_a, w2_b: (L, b, r) and (L, r, d).

    Returns:
        (L·n, a·b) in the dtype of x.
    """
    y, _ = _forward(x, weight, bias, w1, w2, w2_a, w2_b)
    return y


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
    s = _dims(x, w1, w2, w2_a)
    y = x.new_empty(s.lanes * s.n, s.a * s.b)
    u = x.new_empty(s.lanes * s.n, s.a * s.r)
    right = (w2 if w2_b is None else w2_b).contiguous()
    tile = forward_tile(s, x.dtype)
    blocks = 1 if s.r else -(-s.b // tile["Q"])
    if s.n:
        programs.forward[(-(-s.n // tile["BN"]), blocks, s.lanes)](
            *(x, w1.contiguous(), right, right if w2_a is None else w2_a.contiguous()),
            *(x if bias is None else bias, y, u, s.n, *s[2:]),
            BIAS=bias is not None,
            **tile,
        )
    if weight is not None:
        y.addmm_(x, weight.t())
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
    b, r = (w2.shape[1], 0) if w2 is not None else w2_a.shape[1:]  # type: ignore[union-attr]
    rows, a = x.shape[0], w1.shape[1]
    return x.new_empty(rows, a * b), x.new_empty(rows, a * r)


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
    gy, w1 = gy.contiguous(), w1.contiguous()
    gx = torch.empty_like(x) if needs_x else x.new_empty(0)
    if w2 is not None:
        factors = _full_gradients(s, gy, x, gx, w1, w2.contiguous())
    else:
        assert w2_a is not None
        assert w2_b is not None
        factors = _low_rank_gradients(s, gy, x, u, gx, w1, w2_a.contiguous(), w2_b.contiguous())
    if needs_x and weight is not None:
        gx.addmm_(gy, weight)
    return [gx, *factors]


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


def _low_rank_gradients(
    s: Dims, gy: Tensor, x: Tensor, u: Tensor, gx: Tensor, w1: Tensor, w2_a: Tensor, w2_b: Tensor
) -> list[Tensor]:
    out, into = backward_tiles(s, x.dtype)
    b_blocks, d_blocks = -(-s.b // out["BB"]), -(-s.d // into["BD"])
    p_out, p_in = programs_of(s, out["BN"], b_blocks), programs_of(s, into["BN"], d_blocks)
    new = x.new_empty if b_blocks == 1 else x.float().new_empty
    gu = new(b_blocks, s.lanes * s.n, s.a * s.r)
    f32 = {"dtype": torch.float32, "device": x.device}
    g_w2_a = torch.empty(p_out, s.lanes, s.b, s.r, **f32)
    programs.backward_out[(p_out, b_blocks, s.lanes)](
        gy, u, w2_a, gu, g_w2_a, s.n, s.lanes, s.a, s.b, s.r, **out
    )
    g_w2_b = torch.empty(p_in, s.lanes, s.r, s.d, **f32)
    g_w1 = torch.empty(p_in * d_blocks, s.lanes, s.a, s.c, **f32)
    programs.backward_in[(p_in, d_blocks, s.lanes)](
        *(gu, x, w1, w2_b, gx, g_w2_b, g_w1, s.n, s.lanes, s.a, s.c, s.d, s.r),
        BLOCKS=b_blocks,
        NEEDS_X=gx.numel() > 0,
        **into,
    )
    return [g_w1.sum(0), g_w2_a.sum(0), g_w2_b.sum(0)]


def _full_gradients(
    s: Dims, gy: Tensor, x: Tensor, gx: Tensor, w1: Tensor, w2: Tensor
) -> list[Tensor]:
    tile = full_tile(s, x.dtype)
    blocks = -(-s.b // tile["BB"])
    p = programs_of(s, tile["BN"], blocks)
    f32 = {"dtype": torch.float32, "device": x.device}
    g_w1 = torch.empty(p * blocks, s.lanes, s.a, s.c, **f32)
    g_w2 = torch.empty(p if tile["WHOLE"] else 0, s.lanes, s.b, s.d, **f32)
    gz = x.new_empty(0 if tile["WHOLE"] else s.lanes * s.n, s.c * s.b)
    programs.backward_full[(p, blocks, s.lanes)](
        *(gy, x, w1, w2, gz, gx, g_w2, g_w1, s.n, s.lanes, *s[2:6]),
        NEEDS_X=gx.numel() > 0,
        **tile,
    )
    if tile["WHOLE"]:
        return [g_w1.sum(0), g_w2.sum(0)]
    rows = gz.view(s.lanes, -1, s.b)  # (L, n·c, b)
    if gx.numel():
        torch.bmm(rows, w2.to(x.dtype), out=gx.view(s.lanes, -1, s.d))
    return [g_w1.sum(0), torch.bmm(rows.mT, x.view(s.lanes, -1, s.d)).float()]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, _, w1, w2, w2_a, w2_b = inputs
    ctx.save_for_backward(x, output[1], weight, w1, w2, w2_a, w2_b)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gy: Tensor | None, _gu: Any) -> tuple[Tensor | None, ...]:
    x, u, weight, w1, w2, w2_a, w2_b = ctx.saved_tensors
    if gy is None:
        return (None,) * 7
    needs_x = ctx.needs_input_grad[0]
    gx, *factors = _backward(gy, x, u, weight, w1, w2, w2_a, w2_b, needs_x)
    given = iter(factors)
    grads = [None if t is None else next(given).to(t.dtype) for t in (w1, w2, w2_a, w2_b)]
    return (gx if needs_x else None, None, None, *grads)


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _dims(x: Tensor, w1: Tensor, w2: Tensor | None, w2_a: Tensor | None) -> Dims:
    lanes, a, c = w1.shape
    b, r = (w2.shape[1], 0) if w2 is not None else w2_a.shape[1:]  # type: ignore[union-attr]
    return Dims(lanes, x.shape[0] // lanes, a, b, c, x.shape[1] // c, r)


# -- tiles: measured on an H100, see LOG.md ---------------------------------------------------


def forward_tile(s: Dims, dtype: torch.dtype) -> dict[str, int]:
    """Tile sizes of ``programs.forward``."""
    tall = max(_pow2(s.a), _pow2(s.c))
    rows = 128 if dtype.itemsize == 2 else 64
    q = max(16, _pow2(s.r)) if s.r else min(64, max(16, _pow2(s.b)))
    return {
        "BN": max(1, rows // tall),
        "A": _pow2(s.a),
        "C": _pow2(s.c),
        "Q": q,
        "BB": min(64, max(16, _pow2(s.b))),
        "BD": min(64, max(16, _pow2(s.d))),
        "num_warps": 4,
        "num_stages": 3,
    }


def backward_tiles(s: Dims, dtype: torch.dtype) -> tuple[dict[str, int], dict[str, int]]:
    """Tile sizes of ``programs.backward_out`` and ``programs.backward_in``."""
    area = 16384 if dtype.itemsize == 2 else 8192
    r = max(16, _pow2(s.r))
    bb = min(512 if r <= 16 else 128, max(16, _pow2(s.b)))
    bd = min(512 if r <= 16 else 128, max(16, _pow2(s.d)))
    out_rows = min(256, max(16, area // bb))
    in_rows = min(256, max(16, area // bd))
    out = {
        "BN": max(1, out_rows // _pow2(s.a)),
        "A": _pow2(s.a),
        "R": r,
        "BB": bb,
        "num_warps": 4,
        "num_stages": 3,
    }
    into = {
        "BN": max(1, in_rows // max(_pow2(s.a), _pow2(s.c))),
        "A": _pow2(s.a),
        "C": _pow2(s.c),
        "R": r,
        "BD": bd,
        "num_warps": 4,
        "num_stages": 2,
    }
    return out, into


def full_tile(s: Dims, dtype: torch.dtype) -> dict[str, int]:
    """Tile sizes of ``programs.backward_full``."""
    whole = max(s.b, s.d) <= WHOLE
    rows = 128 if dtype.itemsize == 2 else 64
    return {
        "WHOLE": whole,
        "BN": max(1, rows // max(_pow2(s.a), _pow2(s.c))),
        "A": _pow2(s.a),
        "C": _pow2(s.c),
        "BB": max(16, _pow2(s.b)) if whole else 64,
        "BD": max(16, _pow2(s.d)) if whole else 64,
        "num_warps": 4 if whole else 8,
        "num_stages": 2,
    }


def programs_of(s: Dims, tokens: int, blocks: int) -> int:
    """P: how many programs share out a lane's tokens, ``tokens`` at a time."""
    wanted = -(-4 * _multiprocessors() // (s.lanes * blocks))
    return max(1, min(-(-s.n // tokens), wanted))


@cache
def _multiprocessors() -> int:
    if not torch.cuda.is_available():
        return 1  # Triton's interpreter
    return torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count


def _pow2(size: int) -> int:
    return 1 << (size - 1).bit_length()
