"""The factors as products take them, w1 over one axis, and ΔW * x of convolutions without ΔW.

    y[n, a, b] = scale · Σ_c w1[a, c] · Σ_d w2[b, d] · x[n, c, d]

A low-rank w2 = w2_a·w2_b goes first w2_b, then w1 *at rank r*, then w2_a: 2·N·r·(in + a·c + out)
operations, the cost of LoRA plus a little (LyCORIS applies w1 last and pays N·out·c for it).
Linear layers, and which way serves a convolution, are in :mod:`lokr.kernels`.

Legend: L lanes; N rows a lane (batch·tokens, or images); a, b, c, d, r, k as in
:mod:`lokr.factors`; C channels of x (c·d a group); g groups; S spatial sizes, one a kernel axis.
Rows are lane-major: the first dimension of x is L·N. Factors are cast to the dtype of x, so bf16
activations are multiplied in bf16 (accumulated in fp32 by the hardware), as under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm, prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NARROW = 24
"""Below this width, one product over transposed rows beats many products of a single row each."""


class Factors(NamedTuple):
    """The tensors of one layer, each with a leading lane axis; absent ones are None.

    ``w1`` is (L, a, c). ``w2`` is (L, b, d, *k); or ``w2_a`` (L, b, r) with ``w2_b``
    (L, r, d, *k); or, with ``t2`` (L, r, r, *k), ``w2_a`` (L, r, b) and ``w2_b`` (L, r, d).
    ``scale`` (L,), in fp32 or better and without a gradient, is what w1 has yet to be multiplied
    by; None: nothing.
    """

    w1: Tensor
    w2: Tensor | None = None
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None
    t2: Tensor | None = None
    scale: Tensor | None = None

    @property
    def full(self) -> Tensor:
        """w2, where it is full."""
        assert self.w2 is not None
        return self.w2

    @property
    def low(self) -> tuple[Tensor, Tensor]:
        """w2_a and w2_b, where w2 is low-rank."""
        assert self.w2_a is not None
        assert self.w2_b is not None
        return self.w2_a, self.w2_b

    def scaled(self) -> Factors:
        """The same with the scale in w1."""
        if self.scale is None:
            return self
        scale = self.scale.to(torch.promote_types(self.w1.dtype, torch.float32))
        w1 = (self.w1 * scale.view(-1, 1, 1)).to(self.w1.dtype)
        return self._replace(w1=w1, scale=None)

    def to(self, dtype: torch.dtype) -> Factors:
        """Every factor in ``dtype``."""
        if all(t is None or t.dtype == dtype for t in self[:-1]):
            return self
        others = (None if t is None else t.to(dtype) for t in self[1:-1])
        return Factors(self.w1.to(dtype), *others)._replace(scale=self.scale)


@dataclass(frozen=True)
class ConvSettings:
    """How a convolution slides: the frozen layer's own settings.

    ``margins`` is the padding of a ``padding_mode`` other than ``"zeros"``, in the order of
    ``F.pad``; None lets the convolution pad with zeros itself.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    mode: str
    margins: tuple[int, ...] | None


def mix(h: Tensor, w1: Tensor) -> Tensor:
    """w1 over the c axis: (L, N·c, q) -> (L, N·a, q), q being r, b or d."""
    lanes, _, c = w1.shape
    columns = h.view(lanes, -1, c, h.shape[-1])  # (L, N, c, q)
    if h.shape[-1] < NARROW:
        return torch.einsum("lac,lncq->lnaq", w1, columns).flatten(1, 2)
    return (w1.unsqueeze(1) @ columns).flatten(1, 2)


def conv(x: Tensor, factors: Factors, settings: ConvSettings) -> Tensor:
    """ΔW * x of a convolution with one or two spatial dimensions.

    Args:
        x: (L·N, C, *S), lane-major.
        factors: the layer's tensors.
        settings: stride, padding, dilation, groups and padding mode of the frozen layer.

    Returns:
        (L·N, a·b, *S').
    """
    f = factors.scaled().to(x.dtype)
    x = padded(x, settings)
    if settings.groups > 1:
        return _grouped_conv(x, f, settings)
    _, a, c = f.w1.shape
    x = x.reshape(-1, x.shape[1] // c, *x.shape[2:])  # (L·N·c, d, *S)
    if f.w2 is not None:
        y = _mix_channels(_slide(x, f.w2, settings), f.w1)
    elif f.t2 is not None:
        assert f.w2_a is not None
        assert f.w2_b is not None
        h = _slide(_pointwise(x, f.w2_b), f.t2, settings)  # (L·N·c, r, *S')
        y = _pointwise(_mix_channels(h, f.w1), f.w2_a.mT)
    else:
        assert f.w2_a is not None
        assert f.w2_b is not None
        h = _slide(x, f.w2_b, settings)
        y = _pointwise(_mix_channels(h, f.w1), f.w2_a)
    return y.reshape(-1, a * y.shape[1], *y.shape[2:])


def padded(x: Tensor, settings: ConvSettings) -> Tensor:
    """x with the margins that no convolution adds by itself."""
    if settings.margins is None:
        return x
    return F.pad(x, settings.margins, mode=settings.mode)


def _mix_channels(h: Tensor, w1: Tensor) -> Tensor:
    """w1 over the c axis of (L·N·c, q, *S): (L·N·a, q, *S)."""
    lanes, _, c = w1.shape
    columns = h.reshape(lanes, -1, c, prod(h.shape[1:]))  # (L, N, c, q·S)
    mixed = w1.unsqueeze(1) @ columns  # (L, N, a, q·S)
    return mixed.reshape(-1, *h.shape[1:])


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution: (L·M, q, *S) by (L, p, q) -> (L·M, p, *S)."""
    lanes = weight.shape[0]
    y = weight.unsqueeze(1) @ x.reshape(lanes, -1, x.shape[1], prod(x.shape[2:]))
    return y.reshape(-1, weight.shape[1], *x.shape[2:])


def _slide(x: Tensor, weight: Tensor, settings: ConvSettings) -> Tensor:
    """The lane's own small convolution: (L·M, q, *S) by (L, p, q, *k) -> (L·M, p, *S').

    Lanes become groups of one convolution, which wants them beside the channels.
    """
    lanes, p = weight.shape[:2]
    if lanes == 1:
        return _convolve(x, weight[0], settings, groups=1)
    by_lane = x.reshape(lanes, -1, *x.shape[1:]).transpose(0, 1).flatten(1, 2)  # (M, L·q, *S)
    y = _convolve(by_lane, weight.flatten(0, 1), settings, groups=lanes)  # (M, L·p, *S')
    return y.reshape(-1, lanes, p, *y.shape[2:]).transpose(0, 1).flatten(0, 1)


def _convolve(x: Tensor, weight: Tensor, settings: ConvSettings, groups: int) -> Tensor:
    function: Callable[..., Tensor] = F.conv1d if weight.dim() == 3 else F.conv2d
    padding = 0 if settings.margins is not None else settings.padding
    return function(x, weight, None, settings.stride, padding, settings.dilation, groups)


def _grouped_conv(x: Tensor, f: Factors, settings: ConvSettings) -> Tensor:
    """ΔW * x where every output channel sees only its own group of inputs.

    The output falls into lcm(a, g) chunks, each inside one row of w1 and inside one group. So w1
    goes first, once a chunk, and leaves d channels; then chunk j is convolved with its rows of w2:
    one grouped convolution whose weight is w2 repeated a times. ΔW is c times larger.
    """
    lanes, a, c = f.w1.shape
    w2 = _assembled_w2(f)  # (L, b, d, *k)
    d = w2.shape[2]
    chunks = lcm(a, settings.groups)
    chunk = torch.arange(chunks, device=x.device)
    row = chunk // (chunks // a)
    group = chunk // (chunks // settings.groups)
    by_group = x.reshape(lanes, -1, settings.groups, c, d * prod(x.shape[2:]))
    u = torch.einsum("ljc,lnjcs->lnjs", f.w1[:, row], by_group[:, :, group])
    u = u.reshape(lanes, -1, chunks * d, *x.shape[2:])  # (L, N, chunks·d, *S)
    u = u.transpose(0, 1).flatten(1, 2)  # (N, L·chunks·d, *S)
    weight = w2.repeat(1, a, *(1,) * (w2.dim() - 2)).flatten(0, 1)  # (L·a·b, d, *k)
    y = _convolve(u, weight, settings, groups=lanes * chunks)  # (N, L·a·b, *S')
    y = y.reshape(-1, lanes, a * w2.shape[1], *y.shape[2:])
    return y.transpose(0, 1).flatten(0, 1)


def _assembled_w2(f: Factors) -> Tensor:
    """w2 (L, b, d, *k) from its factors; far smaller than ΔW."""
    if f.w2 is not None:
        return f.w2
    assert f.w2_a is not None
    assert f.w2_b is not None
    if f.t2 is not None:
        return torch.einsum("lij...,lip,ljq->lpq...", f.t2, f.w2_a, f.w2_b)
    return (f.w2_a @ f.w2_b.flatten(2)).reshape(*f.w2_a.shape[:2], *f.w2_b.shape[2:])
