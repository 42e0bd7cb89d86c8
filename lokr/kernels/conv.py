"""The small convolution inside an adapted one, in Triton, for images that lie channels last.

    h[:, c] = w * x[:, c]        for each of the c channel groups, every lane with its own w

Nothing larger than x and h is ever written, and only x and w are kept for the backward pass.

Legend: L lanes; N images of a lane; H, W and H', W' sizes before and after; c channel groups;
s channels of a group of x; q channels of a group of h; P programs that share out a lane's rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lokr.kernels import tiles
from lokr.kernels.linear import _on
from lokr.kernels.tiles import Tile

Pair = list[int]


class Taps(NamedTuple):
    """Sizes of one call, and how the taps lie."""

    lanes: int
    images: int
    height: int
    width: int
    out_height: int
    out_width: int
    c: int
    s: int
    q: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def constants(self) -> dict[str, int]:
        """The programs' constants."""
        names = ("KH", "KW", "SY", "SX", "PY", "PX", "DY", "DX")
        values = (*self.kernel, *self.stride, *self.padding, *self.dilation)
        return {"c": self.c, **dict(zip(names, values, strict=True))}


def slide(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """The lanes' own small convolution of every channel group.

    Args:
        x: (L·N, H, W, c·s), contiguous, lane-major.
        weight: (L, q, s, kh, kw), in any floating dtype.
        stride, padding, dilation: of both axes.

    Returns:
        (L·N, H', W', c·q) in the dtype of x. Gradients of x and of the weight, each in its dtype;
        none of second order.
    """
    h: Tensor = _forward(x, weight, stride, padding, dilation)
    return h


@torch.library.custom_op("lokr::slide", mutates_args=())
def _forward(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    t = _taps(x, weight, stride, padding, dilation)
    h = x.new_empty(_shape(t))
    _gather_product(t, x, weight.permute(0, 3, 4, 2, 1), h, adjoint=False)
    return h


@_forward.register_fake
def _(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    return x.new_empty(_shape(_taps(x, weight, stride, padding, dilation)))


@torch.library.custom_op("lokr::slide_backward", mutates_args=())
def _backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    needs_x: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of x (empty unless ``needs_x``) and of the weight, fp32."""
    t = _taps(x, weight, stride, padding, dilation)
    g = g.contiguous()
    gx = torch.empty_like(x) if needs_x else x.new_empty(0)
    if needs_x:
        _gather_product(t, g, weight.permute(0, 3, 4, 1, 2), gx, adjoint=True)
    return gx, _weight_gradient(t, x, g)


@_backward.register_fake
def _(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    needs_x: bool,
) -> tuple[Tensor, Tensor]:
    gx = torch.empty_like(x) if needs_x else x.new_empty(0)
    return gx, torch.empty_like(weight, dtype=torch.float32, memory_format=torch.contiguous_format)


def _gather_product(
    t: Taps, source: Tensor, weight: Tensor, out: Tensor, adjoint: bool, tile: Tile | None = None
) -> None:
    """h from x, or x's gradient from h's, with the weight as (L, kh, kw, channels in, out)."""
    from lokr.kernels import conv_programs

    if not out.numel():
        return
    before, after = (t.height, t.width), (t.out_height, t.out_width)
    into, size = (after, before) if adjoint else (before, after)
    s, q = weight.shape[3:]
    tile = tile or tiles.slide(s, q, source.dtype)
    rows = t.images * size[0] * size[1] * t.c
    grid = (-(-rows // tile["BM"]), -(-q // tile["BQ"]), t.lanes)
    with _on(source.device):
        conv_programs.slide[grid](
            *(source, weight.to(source.dtype).contiguous(), out, t.images, *into, *size),
            **t.constants,
            s=s,
            q=q,
            ADJOINT=adjoint,
            **tile,
        )


def _weight_gradient(t: Taps, x: Tensor, g: Tensor, tile: Tile | None = None) -> Tensor:
    """(L, q, s, kh, kw), fp32."""
    from lokr.kernels import conv_programs

    kh, kw = t.kernel
    if not g.numel():
        return torch.zeros(t.lanes, t.q, t.s, kh, kw, device=x.device)
    tile = tile or tiles.slide_weight(t.s, t.q * kh * kw, x.dtype)
    blocks = -(-t.s // tile["BS"]) * -(-t.q * kh * kw // tile["BK"])
    rows = t.images * t.height * t.width * t.c
    p = tiles.sharers(-(-rows // tile["BM"]), t.lanes, blocks, x.device)
    sums = torch.empty(p, t.lanes, t.s, kh, kw, t.q, dtype=torch.float32, device=x.device)
    with _on(x.device):
        conv_programs.slide_weight[(p, blocks, t.lanes)](
            *(x, g, sums, t.images, *t[:1], *t[2:6]), **t.constants, s=t.s, q=t.q, **tile
        )
    return sums.sum(0).permute(0, 4, 1, 2, 3).contiguous()


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, *ctx.settings = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    needs_x = ctx.needs_input_grad[0]
    gx, g_weight = _backward(g, x, weight, *ctx.settings, needs_x)
    return gx if needs_x else None, g_weight.to(weight.dtype), None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _taps(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Taps:
    lanes, q, s, *kernel = weight.shape
    spread = zip(x.shape[1:3], kernel, stride, padding, dilation, strict=True)
    out = [(size + 2 * p - d * (k - 1) - 1) // step + 1 for size, k, step, p, d in spread]
    return Taps(
        *(lanes, x.shape[0] // lanes, *x.shape[1:3], *out, x.shape[3] // s, s, q),
        *(tuple(pair) for pair in (kernel, stride, padding, dilation)),  # type: ignore[arg-type]
    )


def _shape(t: Taps) -> tuple[int, int, int, int]:
    return t.lanes * t.images, t.out_height, t.out_width, t.c * t.q
