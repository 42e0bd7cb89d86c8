"""Adapted convolutions in Triton, for images that lie channels last.

    h[:, c] = w * x[:, c]        for each of the c channel groups, every lane with its own w

The small convolution w (w2_b, t2 or a full w2) is one operator with the frozen one, :func:`slide`:
nothing larger than x, h and y is ever written, and only x and the weights are kept for the backward
pass. What follows is a linear layer over the channels of h, :func:`lokr.kernels.adapted_linear`,
which adds its product onto the frozen output.

On an H100 in bf16 (``python -m experiments.bench.convs``) forward and backward pass were never
slower than with the lanes as groups of one convolution (:func:`lokr.product.conv`), the frozen
layer included: of a U-Net's 3x3 convolutions with 96 to 256 channels, channels last, 1.8 to 3.1
times faster with 32 lanes x 16 images and 1.6 to 2.2 times with one lane; in NCHW, which is copied,
1.2 times; level from 640 channels on. Each lane's own small convolution, the same over volumes of
depth c, and each lane's own ΔW were several times slower for packs, and slower for one lane. So
Triton serves every convolution without groups where it serves linear layers.

Legend: L lanes; N images of a lane; H, W and H', W' sizes before and after; a, b, c, d, r as in
:mod:`lokr.factors`; s channels of a group of x; q channels of a group of h; P programs that share
out a lane's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lokr import kernels
from lokr.kernels import tiles
from lokr.kernels.eager import eager, is_traced, own_view
from lokr.kernels.launch import launch
from lokr.kernels.tiles import Tile
from lokr.product import ConvSettings, Factors

Ints = list[int]


class Slides(NamedTuple):
    """How a convolution of images slides; zeros above, below, left and right."""

    stride: Ints
    padding: Ints
    dilation: Ints


STAY = Slides([1, 1], [0, 0, 0, 0], [1, 1])
"""Of a 1x1 convolution."""


class Frozen(NamedTuple):
    """A frozen convolution of the same x: its weight, without bias, and how it slides."""

    weight: Tensor
    slides: Slides

    @property
    def numbers(self) -> Ints:
        """``slides`` as an operator takes it: stride, padding and dilation of both axes."""
        stride, padding, dilation = self.slides
        return [*stride, *padding[::2], *dilation]


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


def adapted(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, f: Factors, settings: ConvSettings
) -> Tensor:
    """W * x + bias + ΔW * x of a convolution without groups; without a weight, ΔW * x alone.

    Args:
        x: (L·N, C, *S), already padded where ``settings`` has margins.
        weight, bias: of the frozen layer, in the dtype of x; only with two spatial axes and a
            padding that is the same on both sides.
        f: the factors, in any floating dtype.
        settings: of the frozen layer.

    Returns:
        (L·N, a·b, *S') in the dtype of x, channels last.
    """
    if x.dim() == 3:  # one line of an image
        assert weight is None
        one = adapted(x.unsqueeze(2), None, bias, _as_images(f), _as_image(settings))
        return one.squeeze(2)
    rows = channels_last(x)
    if _is_pointwise(_last(f), settings):
        matrix = None if weight is None else weight.flatten(1)
        y = kernels.adapted_linear(rows, matrix, bias, _as_linear(f))
    else:
        y = _slid(rows, weight, bias, f, settings)
    return y.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) as contiguous (N, H, W, C); no copy of what lies so already."""
    rows = x.permute(0, 2, 3, 1)
    if not x.is_contiguous() or rows.is_contiguous():
        return rows.contiguous()
    n, c, h, w = x.shape
    return own_view(_transposed(x.view(n, c, h * w)), [n, h, w, c])


def channels_first(y: Tensor) -> Tensor:
    """(N, C, H, W), contiguous, of what :func:`adapted` returns."""
    if y.is_contiguous():
        return y
    n, c, h, w = y.shape
    return own_view(_transposed(y.permute(0, 2, 3, 1).reshape(n, h * w, c)), [n, c, h, w])


@torch.library.custom_op("lokr::transpose", mutates_args=())
def _transposed(x: Tensor) -> Tensor:
    """(N, p, q), contiguous -> (N, q, p), contiguous; slow in PyTorch."""
    from lokr.kernels import conv_programs

    n, p, q = x.shape
    y = x.new_empty(n, q, p)
    if x.numel():
        tile = tiles.TRANSPOSE
        grid = (n * -(-p // tile["B"]), -(-q // tile["B"]))
        launch(conv_programs.transpose, grid, x, y, p, q, **tile)
    return y


@_transposed.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1])


def _transposed_back(ctx: Any, g: Tensor) -> Tensor:
    back = g.mT
    return back if back.is_contiguous() else _transposed(g.contiguous())


_transposed.register_autograd(_transposed_back)


def is_even(f: Factors, settings: ConvSettings) -> bool:
    """Whether zeros, if any, lie on both sides alike: the frozen layer joins only then."""
    padding = _padding(settings, tuple(_last(f).shape[3:]))
    return padding[::2] == padding[1::2]


def _last(f: Factors) -> Tensor:
    """The factor that holds the kernel."""
    return next(t for t in (f.w2, f.t2, f.w2_b) if t is not None)


def _slid(
    rows: Tensor, weight: Tensor | None, bias: Tensor | None, f: Factors, settings: ConvSettings
) -> Tensor:
    """(L·N, H, W, C) -> (L·N, H', W', a·b)."""
    own = _slides(_last(f), settings)
    frozen = None if weight is None else Frozen(weight, own)
    if f.w2 is not None:
        h, y = slide(rows, f.w2, own, frozen)
        after = Factors(f.w1, w2=_identity(f.w2), scale=f.scale)
    elif f.t2 is None:
        w2_a, w2_b = f.low
        h, y = slide(rows, w2_b, own, frozen)
        after = Factors(f.w1, w2_a=w2_a, w2_b=_identity(w2_b), scale=f.scale)
    else:
        w2_a, w2_b = f.low
        narrow, y = slide(rows, w2_b[..., None, None], STAY, frozen)
        h, _ = slide(narrow, f.t2, own, None)
        after = Factors(f.w1, w2_a=w2_a.mT, w2_b=_identity(f.t2), scale=f.scale)
    # What slid is applied already: only an identity is left of it.
    return kernels.adapted_linear(h, None, bias, after, None if frozen is None else y)


def _slides(weight: Tensor, settings: ConvSettings) -> Slides:
    """How the small convolution slides: as the frozen one."""
    padding = _padding(settings, tuple(weight.shape[3:]))
    return Slides(list(settings.stride), padding, list(settings.dilation))


def _identity(w: Tensor) -> Tensor:
    """One (q, q) a lane, for w (L, q, …)."""
    lanes, q = w.shape[:2]
    return torch.eye(q, device=w.device).expand(lanes, q, q).contiguous()


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


def slide(
    x: Tensor, weight: Tensor, slides: Slides, frozen: Frozen | None
) -> tuple[Tensor, Tensor]:
    """The lanes' own small convolution of every channel group, and the frozen convolution.

    They are one operator so that the backward pass adds one gradient of x onto the other where it
    is written, and x is kept once.

    Args:
        x: (L·N, H, W, c·s), contiguous, lane-major.
        weight: (L, q, s, kh, kw), in any floating dtype.
        slides: how it slides.
        frozen: the frozen convolution, in the dtype of x, not trained; or None.

    Returns:
        (L·N, H', W', c·q) in the dtype of x, and the frozen convolution's output, channels last too
        (empty without one). Gradients of x and of the weight, each in its dtype; none of second
        order.
    """
    given = (None, []) if frozen is None else (frozen.weight, frozen.numbers)
    call = _forward if is_traced() else _direct
    h, y = call(x, weight, *slides, *given)
    return h, y


def _compute(
    x: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    frozen: Tensor | None,
    numbers: Ints,
) -> tuple[Tensor, Tensor]:
    t = _taps(x, weight, stride, padding, dilation)
    h = x.new_empty(_shape(t))
    _gather_product(t, x, weight.permute(0, 3, 4, 2, 1), h, adjoint=False)
    if frozen is None:
        return h, x.new_empty(0)
    image = x.permute(0, 3, 1, 2)
    y = F.conv2d(image, frozen, None, numbers[:2], numbers[2:4], numbers[4:])
    return h, y.permute(0, 2, 3, 1).contiguous()


_forward = torch.library.custom_op("lokr::slide", _compute, mutates_args=())


@_forward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    frozen: Tensor | None,
    numbers: Ints,
) -> tuple[Tensor, Tensor]:
    h = x.new_empty(_shape(_taps(x, weight, stride, padding, dilation)))
    if frozen is None:
        return h, x.new_empty(0)
    size = _sizes(x, frozen.shape[2:], numbers[:2], numbers[2:4], numbers[4:])
    return h, x.new_empty(x.shape[0], *size, frozen.shape[0])


def _compute_backward(
    g: Tensor,
    gy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    frozen: Tensor | None,
    numbers: Ints,
    needs_x: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of x (empty unless ``needs_x``) and of the weight, fp32; gy is the frozen one's."""
    t = _taps(x, weight, stride, padding, dilation)
    g = g.contiguous()
    if not needs_x:
        return x.new_empty(0), _weight_gradient(t, x, g)
    gx = torch.empty_like(x) if frozen is None else _frozen_gradient(gy, x, frozen, numbers)
    add = frozen is not None
    _gather_product(t, g, weight.permute(0, 3, 4, 1, 2), gx, adjoint=True, add=add)
    return gx, _weight_gradient(t, x, g)


_backward = torch.library.custom_op("lokr::slide_backward", _compute_backward, mutates_args=())


@_backward.register_fake
def _(
    g: Tensor,
    gy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    frozen: Tensor | None,
    numbers: Ints,
    needs_x: bool,
) -> tuple[Tensor, Tensor]:
    gx = torch.empty_like(x) if needs_x else x.new_empty(0)
    return gx, torch.empty_like(weight, dtype=torch.float32, memory_format=torch.contiguous_format)


def _frozen_gradient(gy: Tensor, x: Tensor, frozen: Tensor, numbers: Ints) -> Tensor:
    """x's gradient by the frozen convolution, (L·N, H, W, C)."""
    settings = (numbers[:2], numbers[2:4], numbers[4:], False, [0, 0], 1)  # not transposed, 1 group
    gx = torch.ops.aten.convolution_backward(
        *(gy.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), frozen, None, *settings),
        [True, False, False],
    )[0]
    rows: Tensor = gx.permute(0, 2, 3, 1).contiguous()
    return rows


def _gather_product(
    t: Taps,
    source: Tensor,
    weight: Tensor,
    out: Tensor,
    adjoint: bool,
    add: bool = False,
    tile: Tile | None = None,
) -> None:
    """h from x, or x's gradient from h's, with the weight as (L, kh, kw, channels in, out).

    It is written to ``out``, or added to what is there.
    """
    from lokr.kernels import conv_programs

    if not out.numel():
        return
    before, after = (t.height, t.width), (t.out_height, t.out_width)
    into, size = (after, before) if adjoint else (before, after)
    s, q = weight.shape[3:]
    tile = tile or tiles.slide(t.kernel[0] * t.kernel[1] * s, q, source.dtype)
    rows = t.images * size[0] * size[1] * t.c
    grid = (-(-rows // tile["BM"]), -(-q // tile["BQ"]), t.lanes)
    weight = weight.to(source.dtype, memory_format=torch.contiguous_format).contiguous()
    launch(
        conv_programs.slide,
        grid,
        *(source, weight, out, t.images, *into, *size),
        **t.constants,
        s=s,
        q=q,
        ADJOINT=adjoint,
        ADD=add,
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
    launch(
        conv_programs.slide_weight,
        (p, blocks, t.lanes),
        *(x, g, sums, t.images, *t[:1], *t[2:6]),
        **t.constants,
        s=t.s,
        q=t.q,
        **tile,
    )
    return sums.sum(0).permute(0, 4, 1, 2, 3).contiguous()


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, *ctx.slides, frozen, ctx.numbers = inputs
    ctx.save_for_backward(x, weight, frozen)


def _differentiate(
    backward: Callable[..., Any], ctx: Any, g: Tensor, gy: Tensor
) -> tuple[Tensor | None, ...]:
    x, weight, frozen = ctx.saved_tensors
    needs_x = ctx.needs_input_grad[0]
    gx, g_weight = backward(g, gy, x, weight, *ctx.slides, frozen, ctx.numbers, needs_x)
    return gx if needs_x else None, g_weight.to(weight.dtype), None, None, None, None, None


_forward.register_autograd(partial(_differentiate, _backward), setup_context=_setup_context)
_direct = eager(_compute, _setup_context, partial(_differentiate, _compute_backward))


def _taps(x: Tensor, weight: Tensor, stride: Ints, padding: Ints, dilation: Ints) -> Taps:
    lanes, q, s, *kernel = weight.shape
    around = [padding[0] + padding[1], padding[2] + padding[3]]
    out = _spread(x, kernel, stride, around, dilation)
    return Taps(
        *(lanes, x.shape[0] // lanes, *x.shape[1:3], *out, x.shape[3] // s, s, q),
        *(tuple(pair) for pair in (kernel, stride, padding[::2], dilation)),
    )


def _sizes(x: Tensor, kernel: Sequence[int], stride: Ints, padding: Ints, dilation: Ints) -> Ints:
    """H' and W' with a padding that both sides have."""
    return _spread(x, kernel, stride, [2 * p for p in padding], dilation)


def _spread(x: Tensor, kernel: Sequence[int], stride: Ints, around: Ints, dilation: Ints) -> Ints:
    """H' and W', with so many zeros around both axes."""
    axes = zip(x.shape[1:3], kernel, stride, around, dilation, strict=True)
    return [(size + p - d * (k - 1) - 1) // step + 1 for size, k, step, p, d in axes]


def _shape(t: Taps) -> tuple[int, int, int, int]:
    return t.lanes * t.images, t.out_height, t.out_width, t.c * t.q
