"""The Triton programs of a group norm, with or without SiLU behind it, channels last.

    mean and 1/deviation    moments, then gather
    y = f(weight·(x - mean)/deviation + bias), f being SiLU or nothing: apply
    gradient of x           sums, then gather_sums, then apply_backward

A picture's rows are its pixels, (P, C); a program reads whole rows, so that channels are read as
they lie. Means and squares are merged exactly (Chan, Golub and LeVeque 1979): no difference of
large numbers.

Legend: N pictures; P pixels of one; C channels; G groups of c channels each; R rows of a tile;
K tiles of a program; Q programs of a picture (Q·K·R = P); W, GW, CW powers of two that hold C, G
and c.
"""

# Triton's language is dynamic: names of dimensions are its arguments, upper case its constants.
# ruff: noqa: N803
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _rows(K: tl.constexpr, R: tl.constexpr, tile):
    """Which rows of (N·P, C) a program's tile has; grid (Q, N)."""
    first = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    return (first.to(tl.int64) * K + tile) * R + tl.arange(0, R)


@triton.jit
def _load(x, rows, columns, C: tl.constexpr):
    """A tile (R, W) in fp32, zero beyond the channels."""
    at = rows[:, None] * C + columns[None, :]
    return tl.load(x + at, mask=(columns < C)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _channel(values, which, columns, C: tl.constexpr):
    """A number for each channel of the program's picture, from (N, 2, C)."""
    at = (tl.program_id(1) * 2 + which) * C + columns
    return tl.load(values + at, mask=columns < C, other=0.0)


@triton.jit
def _normal(x, stats, weight, bias, rows, columns, C: tl.constexpr):
    """The normalized tile, before and after weight and bias."""
    center, scale = _channel(stats, 0, columns, C), _channel(stats, 1, columns, C)
    normal = (_load(x, rows, columns, C) - center[None, :]) * scale[None, :]
    w = tl.load(weight + columns, mask=columns < C, other=0.0).to(tl.float32)
    b = tl.load(bias + columns, mask=columns < C, other=0.0).to(tl.float32)
    return normal, normal * w[None, :] + b[None, :]


@triton.jit
def _store(y, values, rows, columns, C: tl.constexpr):
    """A tile (R, W) in the dtype of y."""
    at = rows[:, None] * C + columns[None, :]
    tl.store(y + at, values.to(y.dtype.element_ty), mask=(columns < C)[None, :])


@triton.jit
def _leave(out, first, second, columns, C: tl.constexpr):
    """A program's two numbers for each channel, (N, Q, 2, C)."""
    at = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * 2 * C + columns
    tl.store(out + at, first, mask=columns < C)
    tl.store(out + at + C, second, mask=columns < C)


@triton.jit
def moments(
    x, out, C: tl.constexpr, K: tl.constexpr, R: tl.constexpr, W: tl.constexpr
):  # fmt: skip
    """Mean, and squares about it, of each channel in a program's rows: (N, Q, 2, C)."""
    columns = tl.arange(0, W)
    mean, squares = tl.zeros((W,), tl.float32), tl.zeros((W,), tl.float32)
    for tile in range(K):
        t = _load(x, _rows(K, R, tile), columns, C)
        own = tl.sum(t, 0) / R
        off = t - own[None, :]
        apart = own - mean
        mean += apart / (tile + 1)
        squares += tl.sum(off * off, 0) + apart * apart * (R * tile / (tile + 1))
    _leave(out, mean, squares, columns, C)


@triton.jit
def _group(c: tl.constexpr, G: tl.constexpr, GW: tl.constexpr, CW: tl.constexpr):
    """Where a group's channels are, (GW, CW), and which exist."""
    group, channel = tl.arange(0, GW)[:, None], tl.arange(0, CW)[None, :]
    return group * c + channel, (group < G) & (channel < c)


@triton.jit
def _spread(out, first, second, at, ok, C: tl.constexpr):
    """Two numbers of each group, (GW, 1), once for each of its channels: (N, 2, C)."""
    out += tl.program_id(0) * 2 * C
    tl.store(out + at, tl.broadcast_to(first, at.shape), mask=ok)
    tl.store(out + C + at, tl.broadcast_to(second, at.shape), mask=ok)


@triton.jit
def gather(
    parts, stats, eps, Q, C: tl.constexpr, c: tl.constexpr, ROWS: tl.constexpr,
    G: tl.constexpr, GW: tl.constexpr, CW: tl.constexpr,
):  # fmt: skip
    """Mean and 1/deviation of each group, once for each of its channels: (N, 2, C).

    One program: a picture. parts (N, Q, 2, C), each of ROWS rows.
    """
    at, ok = _group(c, G, GW, CW)
    parts += tl.program_id(0) * Q * 2 * C
    total = tl.zeros((GW, CW), tl.float32)
    for part in range(Q):
        total += tl.load(parts + part * 2 * C + at, mask=ok, other=0.0)
    mean = (tl.sum(total, 1) / (Q * c))[:, None]
    squares = tl.zeros((GW, CW), tl.float32)
    for part in range(Q):
        own = tl.load(parts + part * 2 * C + at, mask=ok, other=0.0)
        apart = tl.where(ok, own - mean, 0.0)
        squares += tl.load(parts + (part * 2 + 1) * C + at, mask=ok, other=0.0)
        squares += ROWS * apart * apart
    variance = (tl.sum(squares, 1) / (Q * ROWS * c))[:, None]
    _spread(stats, mean, 1 / tl.sqrt(variance + eps), at, ok, C)


@triton.jit
def apply(
    x, stats, weight, bias, y, C: tl.constexpr, SILU: tl.constexpr, K: tl.constexpr,
    R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """y (N·P, C) in its dtype."""
    columns = tl.arange(0, W)
    for tile in range(K):
        rows = _rows(K, R, tile)
        _, z = _normal(x, stats, weight, bias, rows, columns, C)
        if SILU:
            z *= tl.sigmoid(z)
        _store(y, z, rows, columns, C)


@triton.jit
def _through_silu(g, z, SILU: tl.constexpr):
    """The gradient before f."""
    if SILU:
        s = tl.sigmoid(z)
        g *= s * (1 + z * (1 - s))
    return g


@triton.jit
def sums(
    gy, x, stats, weight, bias, out, C: tl.constexpr, SILU: tl.constexpr, K: tl.constexpr,
    R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Sums of g and g·normal of each channel in a program's rows: (N, Q, 2, C)."""
    columns = tl.arange(0, W)
    level, slope = tl.zeros((W,), tl.float32), tl.zeros((W,), tl.float32)
    for tile in range(K):
        rows = _rows(K, R, tile)
        normal, z = _normal(x, stats, weight, bias, rows, columns, C)
        g = _through_silu(_load(gy, rows, columns, C), z, SILU)
        level += tl.sum(g, 0)
        slope += tl.sum(g * normal, 0)
    _leave(out, level, slope, columns, C)


@triton.jit
def gather_sums(
    parts, weight, means, Q, C: tl.constexpr, c: tl.constexpr, ROWS: tl.constexpr,
    G: tl.constexpr, GW: tl.constexpr, CW: tl.constexpr,
):  # fmt: skip
    """Means over each group of w·g and w·g·normal, once for each of its channels: (N, 2, C).

    w is the norm's weight, parts as ``sums`` leaves them.
    """
    at, ok = _group(c, G, GW, CW)
    w = tl.load(weight + at, mask=ok, other=0.0).to(tl.float32)
    parts += tl.program_id(0) * Q * 2 * C
    level, slope = tl.zeros((GW, CW), tl.float32), tl.zeros((GW, CW), tl.float32)
    for part in range(Q):
        level += tl.load(parts + part * 2 * C + at, mask=ok, other=0.0)
        slope += tl.load(parts + (part * 2 + 1) * C + at, mask=ok, other=0.0)
    count = Q * ROWS * c
    level = (tl.sum(level * w, 1) / count)[:, None]
    slope = (tl.sum(slope * w, 1) / count)[:, None]
    _spread(means, level, slope, at, ok, C)


@triton.jit
def apply_backward(
    gy, x, stats, means, weight, bias, gx, C: tl.constexpr, SILU: tl.constexpr, K: tl.constexpr,
    R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """gx (N·P, C) in its dtype."""
    columns = tl.arange(0, W)
    for tile in range(K):
        rows = _rows(K, R, tile)
        normal, z = _normal(x, stats, weight, bias, rows, columns, C)
        g = _through_silu(_load(gy, rows, columns, C), z, SILU)
        g *= tl.load(weight + columns, mask=columns < C, other=0.0).to(tl.float32)[None, :]
        g -= _channel(means, 0, columns, C)[None, :]
        g -= normal * _channel(means, 1, columns, C)[None, :]
        g *= _channel(stats, 1, columns, C)[None, :]
        _store(gx, g, rows, columns, C)
