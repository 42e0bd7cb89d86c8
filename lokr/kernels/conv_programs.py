"""The Triton programs of a small convolution that all channel groups share: ``convolution.slide``.

    h[o, c, q] = Σ_{k, s} x[o·stride - padding + k·dilation, c, s] · w[k, s, q]

A product of matrices whose left one is never written: row (pixel, c) of x's neighbors is gathered
tap by tap from the cache. The gradient of x is the same product over the taps the other way round
(``ADJOINT``), that of w the sum over pixels of x times the gathered gradient of h. Products run in
the dtype of x and accumulate in fp32.

Legend: c channel groups; s channels of a group of what is gathered; q channels of a group of the
result; k taps, k = ky·KW + kx; rows = images of a lane · pixels · c; P programs a lane that share
its rows out, each keeping its own sum (added up afterwards in a fixed order).
Upper-case names are constants.
"""

# Triton's language is dynamic: names of dimensions are its arguments, upper case its constants.
# ruff: noqa: N803, N806
# mypy: ignore-errors

import triton
import triton.language as tl

from lokr.kernels.programs import PRECISION


@triton.jit
def _gather(
    source, tile, rows, count, k, height, width, out_height, out_width,
    c: tl.constexpr, s: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    DY: tl.constexpr, DX: tl.constexpr, ADJOINT: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Neighbors of ``rows`` in ``source`` (images, height, width, c, s), a column each (tap, s)."""
    pixel = rows // c
    line = pixel // out_width
    y, x = line % out_height, pixel % out_width
    first = tile * BM // c // out_width // out_height
    image = line // out_height - first
    tap = k // s
    ky, kx = tap // KW, tap % KW
    if ADJOINT:
        y_big = y[:, None] + PY - (ky * DY)[None, :]
        x_big = x[:, None] + PX - (kx * DX)[None, :]
        at_y, at_x = y_big // SY, x_big // SX
        ok = (y_big >= 0) & (x_big >= 0)
        if SY > 1:
            ok &= y_big % SY == 0
        if SX > 1:
            ok &= x_big % SX == 0
    else:
        at_y = (y * SY - PY)[:, None] + (ky * DY)[None, :]
        at_x = (x * SX - PX)[:, None] + (kx * DX)[None, :]
        ok = (at_y >= 0) & (at_x >= 0)
    ok &= (at_y < height) & (at_x < width)
    ok &= (rows < count)[:, None] & (k < KH * KW * s)[None, :]
    place = (image[:, None] * height + at_y) * width + at_x
    at = place * (c * s) + (rows % c * s)[:, None] + (k % s)[None, :]
    # Only the offset of the first image needs 64 bits.
    return tl.load(source + first.to(tl.int64) * height * width * (c * s) + at, mask=ok, other=0.0)


@triton.jit(do_not_specialize=["images", "height", "width", "out_height", "out_width"])
def slide(
    source, weight, out, images, height, width, out_height, out_width,
    c: tl.constexpr, s: tl.constexpr, q: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    DY: tl.constexpr, DX: tl.constexpr, ADJOINT: tl.constexpr, ADD: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """out = gathered source · weight; if ADD, that is added to what out holds.

    One program: BM rows of one lane and BQ of the q channels. source (L·images, height, width,
    c·s); weight (L, KH·KW, s, q) in its dtype; out (L·images, out_height, out_width, c·q).
    """
    tile, block, lane = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    count = images * out_height * out_width * c
    rows = tile * BM + tl.arange(0, BM)
    at_q = block * BQ + tl.arange(0, BQ)
    source += lane * images * height * width * (c * s)
    weight += lane * (KH * KW * s * q)
    total = tl.zeros((BM, BQ), tl.float32)
    for start in range(0, KH * KW * s, BK):
        k = start + tl.arange(0, BK)
        t = _gather(
            source, tile, rows, count, k, height, width, out_height, out_width,
            c, s, KH, KW, SY, SX, PY, PX, DY, DX, ADJOINT, BM,
        )  # fmt: skip
        inside = (k < KH * KW * s)[:, None] & (at_q < q)[None, :]
        w = tl.load(weight + k[:, None] * q + at_q[None, :], mask=inside, other=0.0)
        total = tl.dot(t, w, total, input_precision=PRECISION)
    out += (lane * count + tile * BM) * q
    inside = (rows < count)[:, None] & (at_q < q)[None, :]
    at = tl.arange(0, BM)[:, None] * q + at_q[None, :]
    if ADD:
        total += tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["images", "lanes", "height", "width", "out_height", "out_width"])
def slide_weight(
    x, g, sums, images, lanes, height, width, out_height, out_width,
    c: tl.constexpr, s: tl.constexpr, q: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SY: tl.constexpr, SX: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    DY: tl.constexpr, DX: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """Parts of w's gradient: x of each pixel times what the taps gather of g, h's gradient.

    One program: every P-th tile of a lane's rows, BS of the s channels of x, BK of the KH·KW·q
    columns. x (L·images, height, width, c·s); g (L·images, out_height, out_width, c·q);
    sums (P, L, s, KH·KW·q).
    """
    first, block, lane = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    BLOCKS: tl.constexpr = (KH * KW * q + BK - 1) // BK
    k = block % BLOCKS * BK + tl.arange(0, BK)
    at_s = block // BLOCKS * BS + tl.arange(0, BS)
    count = images * height * width * c
    x += lane * count * s
    g += lane * images * out_height * out_width * (c * q)
    total = tl.zeros((BS, BK), tl.float32)
    for tile in range(first, tl.cdiv(count, BM), tl.num_programs(0)):
        rows = tile * BM + tl.arange(0, BM)
        inside = (rows < count)[:, None] & (at_s < s)[None, :]
        here = x + tl.cast(tile, tl.int64) * (BM * s)
        at = tl.arange(0, BM)[:, None] * s + at_s[None, :]
        xt = tl.load(here + at, mask=inside, other=0.0)
        gt = _gather(
            g, tile, rows, count, k, out_height, out_width, height, width,
            c, q, KH, KW, SY, SX, PY, PX, DY, DX, True, BM,
        )  # fmt: skip
        total = tl.dot(tl.trans(xt), gt, total, input_precision=PRECISION)
    inside = (at_s < s)[:, None] & (k < KH * KW * q)[None, :]
    at = at_s[:, None] * (KH * KW * q) + k[None, :]
    tl.store(sums + (first * lanes + lane) * (s * KH * KW * q) + at, total, mask=inside)


@triton.jit
def transpose(x, y, p, q, B: tl.constexpr):
    """y (N, q, p) = x (N, p, q). One program: a tile of one of the N matrices."""
    blocks = tl.cdiv(p, B)
    at_p = tl.program_id(0) % blocks * B + tl.arange(0, B)
    at_q = tl.program_id(1) * B + tl.arange(0, B)
    start = (tl.program_id(0) // blocks).to(tl.int64) * p * q
    inside = (at_p < p)[:, None] & (at_q < q)[None, :]
    t = tl.load(x + start + at_p[:, None] * q + at_q[None, :], mask=inside, other=0.0)
    inside = (at_q < q)[:, None] & (at_p < p)[None, :]
    tl.store(y + start + at_q[:, None] * p + at_p[None, :], tl.trans(t), mask=inside)
