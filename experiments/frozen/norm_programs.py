"""The Triton programs of a layer norm and of the sum before it, each tensor read and written once.

Legend: M rows (tokens); width of a row; H rows of a program; W a power of two that holds a row.
"""

# Triton's language is dynamic: names of dimensions are its arguments, upper case its constants.
# ruff: noqa: N803
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _place(m, width: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Rows of a program, columns, where its tile lies, and what of the tile exists."""
    rows = tl.program_id(0) * H + tl.arange(0, H)
    columns = tl.arange(0, W)
    at = rows.to(tl.int64)[:, None] * width + columns[None, :]
    return rows, columns, at, (rows < m)[:, None] & (columns < width)[None, :]


@triton.jit(do_not_specialize=["m"])
def add_norm(
    x, residual, weight, bias, total, y, half, mean, scale, m, eps,
    width: tl.constexpr, SUM: tl.constexpr, KEEP: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """norm(x + residual) in fp32 as y and in another dtype as ``half``; without SUM norm(x) there.

    For the backward pass, if KEEP: the sum as ``total`` (M, width), and the mean and 1/deviation of
    each row, (M,).
    """
    rows, columns, at, ok = _place(m, width, H, W)
    inside = columns < width
    t = tl.load(x + at, mask=ok, other=0.0).to(tl.float32)
    if SUM:
        t += tl.load(residual + at, mask=ok, other=0.0)
    center = tl.sum(t, 1) / width
    off = tl.where(ok, t - center[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(off * off, 1) / width + eps)
    w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    out = off * rstd[:, None] * w[None, :] + b[None, :]
    if SUM:
        tl.store(y + at, out, mask=ok)
    tl.store(half + at, out.to(half.dtype.element_ty), mask=ok)
    if KEEP:
        if SUM:
            tl.store(total + at, t, mask=ok)
        tl.store(mean + rows, center, mask=rows < m)
        tl.store(scale + rows, rstd, mask=rows < m)


@triton.jit(do_not_specialize=["m"])
def add_norm_backward(
    gy, ghalf, total, weight, mean, scale, gtotal, gx, m,
    width: tl.constexpr, FULL: tl.constexpr, HALF: tl.constexpr, RESIDUAL: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The gradient of ``total``, in fp32 as ``gtotal`` if RESIDUAL and in the dtype of x as ``gx``.

    gy and ghalf are the gradients of y and of half, missing unless FULL and HALF.
    """
    rows, columns, at, ok = _place(m, width, H, W)
    g = tl.zeros((H, W), tl.float32)
    if FULL:
        g += tl.load(gy + at, mask=ok, other=0.0)
    if HALF:
        g += tl.load(ghalf + at, mask=ok, other=0.0).to(tl.float32)
    center = tl.load(mean + rows, mask=rows < m, other=0.0)[:, None]
    rstd = tl.load(scale + rows, mask=rows < m, other=0.0)[:, None]
    t = tl.load(total + at, mask=ok, other=0.0).to(tl.float32)
    normal = (t - center) * rstd  # where there is nothing, g is zero
    g *= tl.load(weight + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
    level = tl.sum(g, 1)[:, None] / width
    slope = tl.sum(g * normal, 1)[:, None] / width
    g = (g - level - normal * slope) * rstd
    if RESIDUAL:
        tl.store(gtotal + at, g, mask=ok)
    tl.store(gx + at, g.to(gx.dtype.element_ty), mask=ok)
