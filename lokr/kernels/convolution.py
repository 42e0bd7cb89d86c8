"""ΔW * x of convolutions in Triton, for images that lie channels last.

    h[:, c] = w * x[:, c]        for each of the c channel groups, every lane with its own w

The small convolution w (w2_b, t2 or a full w2) is one operator, :func:`slide`: nothing larger than
x and h is ever written, and only x and w are kept for the backward pass. What follows is a linear
layer over the channels of h, :func:`lokr.kernels.adapted_linear`.

Legend: L lanes; N images of a lane; H, W and H', W' sizes before and after; a, b, c, d, r as in
:mod:`lokr.factors`; s channels of a group of x; q channels of a group of h; P programs that share
out a lane's rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lokr import kernels
from lokr.kernels import tiles
from lokr.kernels.linear import _on
from lokr.kernels.tiles import Tile
from lokr.product import ConvSettings, Factors

Ints = list[int]


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


def delta(x: Tensor, f: Factors, settings: ConvSettings) -> Tensor:
    """ΔW * x of a convolution without groups, as :func:`lokr.product.conv` has it.

    Args:
        x: (L·N, C, *S), already padded where ``settings`` has margins.
        f: the factors, in any floating dtype.
        settings: of the frozen layer.

    Returns:
        (L·N, a·b, *S') in the dtype of x, channels last.
    """
    if x.dim() == 3:  # one line of an image
        return delta(x.unsqueeze(2), _as_images(f), _as_image(settings)).squeeze(2)
    rows = x.permute(0, 2, 3, 1).contiguous()  # (L·N, H, W, C)
    last = next(t for t in (f.w2, f.t2, f.w2_b) if t is not None)
    if _is_pointwise(last, settings):
        y = kernels.adapted_linear(rows, None, None, _as_linear(f))
    else:
        y = _slid(rows, f, settings)
    return y.permute(0, 3, 1, 2)


def _slid(rows: Tensor, f: Factors, settings: ConvSettings) -> Tensor:
    """(L·N, H, W, C) -> (L·N, H', W', a·b)."""
    if f.w2 is not None:
        h = _slide_as(rows, f.w2, settings)
        return kernels.adapted_linear(h, None, None, Factors(f.w1, w2=_identity(f.w2)))
    w2_a, w2_b = f.low
    if f.t2 is None:
        h = _slide_as(rows, w2_b, settings)
    else:
        narrow = slide(rows, w2_b[..., None, None], [1, 1], [0, 0, 0, 0], [1, 1])
        h = _slide_as(narrow, f.t2, settings)
        w2_a = w2_a.mT
    # w2_b has been applied: what is left of it is the identity.
    return kernels.adapted_linear(h, None, None, Factors(f.w1, w2_a=w2_a, w2_b=_identity(w2_a.mT)))


def _slide_as(x: Tensor, weight: Tensor, settings: ConvSettings) -> Tensor:
    padding = _padding(settings, tuple(weight.shape[3:]))
    return slide(x, weight, list(settings.stride), padding, list(settings.dilation))


def _identity(w: Tensor) -> Tensor:
    """One (q, q) a lane, for w (L, q, …)."""
    lanes, q = w.shape[:2]
    return torch.eye(q, device=w.device).expand(lanes, q, q)


def _padding(settings: ConvSettings, kernel: tuple[int, ...]) -> Ints:
    """Rows and columns of zeros: above, below, left, right."""
    if settings.margins is not None or settings.padding == "valid":
        return [0, 0, 0, 0]
    if settings.padding == "same":
        sums = [d * (k - 1) for d, k in zip(settings.dilation, kernel, strict=True)]
        return [part for total in sums for part in (total // 2, total - total // 2)]
    return [int(p) for p in settings.padding for _ in range(2)]


def _is_pointwise(weight: Tensor, settings: ConvSettings) -> bool:
    """Whether nothing slides: a 1x1 convolution of every pixel."""
    kernel = tuple(weight.shape[3:])
    return kernel == (1, 1) and settings.stride == (1, 1) and not any(_padding(settings, kernel))


def _as_linear(f: Factors) -> Factors:
    """The factors of a 1x1 convolution without their kernel."""
    assert f.t2 is None  # a 1x1 kernel has no Tucker form
    return f._replace(
        w2=None if f.w2 is None else f.w2.flatten(2),
        w2_b=None if f.w2_b is None else f.w2_b.flatten(2),
    )


def _as_images(f: Factors) -> Factors:
    """The factors of a one-dimensional convolution, its kernel (1, k)."""
    return Factors(f.w1, *(t.unsqueeze(3) if t is not None and t.dim() == 4 else t for t in f[1:]))


def _as_image(s: ConvSettings) -> ConvSettings:
    """Settings of a one-dimensional convolution for one line of an image."""
    padding = s.padding if isinstance(s.padding, str) else (0, *s.padding)
    return replace(s, stride=(1, *s.stride), padding=padding, dilation=(1, *s.dilation))


def slide(x: Tensor, weight: Tensor, stride: Ints, padding: Ints, dilation: Ints) -> Tensor:
    """The lanes' own small convolution of every channel group.

    Args:
        x: (L·N, H, W, c·s), contiguous, lane-major.
        weight: (L, q, s, kh, kw), in any floating dtype.
        stride, dilation: of both axes.
        padding: with zeros, above, below, left and right.

    Returns:
        (L·N, H', W', c·q) in the dtype of x. Gradients of x and of the weight, each in its dtype;
        none of second order.
    """
    h: Tensor = _forward(x, weight, stride, padding, dilation)
    return h


@torch.library.custom_op("lokr::slide", mutates_args=())
def _forward(x: Tensor, weight: Tensor, stride: Ints, padding: Ints, dilation: Ints) -> Tensor:
    t = _taps(x, weight, stride, padding, dilation)
    h = x.new_empty(_shape(t))
    _gather_product(t, x, weight.permute(0, 3, 4, 2, 1), h, adjoint=False)
    return h


@_forward.register_fake
def _(x: Tensor, weight: Tensor, stride: Ints, padding: Ints, dilation: Ints) -> Tensor:
    return x.new_empty(_shape(_taps(x, weight, stride, padding, dilation)))


@torch.library.custom_op("lokr::slide_backward", mutates_args=())
def _backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
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
    stride: Ints,
    padding: Ints,
    dilation: Ints,
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


def _taps(x: Tensor, weight: Tensor, stride: Ints, padding: Ints, dilation: Ints) -> Taps:
    lanes, q, s, *kernel = weight.shape
    around = (padding[0] + padding[1], padding[2] + padding[3])
    spread = zip(x.shape[1:3], kernel, stride, around, dilation, strict=True)
    out = [(size + p - d * (k - 1) - 1) // step + 1 for size, k, step, p, d in spread]
    return Taps(
        *(lanes, x.shape[0] // lanes, *x.shape[1:3], *out, x.shape[3] // s, s, q),
        *(tuple(pair) for pair in (kernel, stride, padding[::2], dilation)),
    )


def _shape(t: Taps) -> tuple[int, int, int, int]:
    return t.lanes * t.images, t.out_height, t.out_width, t.c * t.q
