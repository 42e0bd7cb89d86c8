"""The Triton programs: ΔW·x and its gradients for a linear layer, each big tensor read once.

    h = x·w2_bᵀ   u = w1·h   Δy = u·w2_aᵀ                        (low-rank w2)
    z = x·w2ᵀ     Δy = w1·z                                       (full w2)
    v = w1·x      Δy = v·w2ᵀ                                      (the same, as its gradients go)

A token of x is a (c, d) matrix and a token of y an (a, b) matrix, so a tile of tokens is loaded as
(tokens·c, d) rows: contiguous in memory, and the left operand of a matrix product. ``_mix`` applies
w1 in registers. Products run in the dtype of x and accumulate in fp32.

Tiles are taken from the last to the first: the matrix product that follows begins with the first,
and finds it in the cache.

Legend: n tokens of a lane; a, b, c, d, r as in :mod:`lokr.factors`; q stands for r or a block of b;
P programs a lane that share its tokens out, each keeping its own sums of the factors' gradients
(added up afterwards in a fixed order: the same result every time); step_1, step_2, step_a, step_b
from a lane's w1, w2, w2_a, w2_b to the next lane's, each of them dense. Triton compiles for steps
that are multiples of 16, as for pointers: else factors are read number by number.
Upper-case names are tile sizes, powers of two; tiles reach over the edges and are masked.
"""

# Triton's language is dynamic: names of dimensions are its arguments, upper case its constants.
# ruff: noqa: N803, N806
# mypy: ignore-errors

import triton
import triton.language as tl

UNROLLED = tl.constexpr(4)
"""Up to so many blocks a loop is unrolled, so that loads of the next tile can start early."""
PRECISION = tl.constexpr("ieee")
"""fp32 inputs are multiplied as fp32, never as tf32 (torch's own default)."""


@triton.jit
def _widen(t, ROWS: tl.constexpr, K: tl.constexpr, WIDE: tl.constexpr):
    """(ROWS, K) with zeros between its columns: (ROWS, WIDE), column k at k·WIDE/K.

    Tensor cores sum over 16 entries or more; c and a are often 8 or fewer.
    """
    if K == WIDE:
        return t
    STEP: tl.constexpr = WIDE // K
    first = tl.arange(0, STEP) == 0
    t = tl.where(first[None, None, :], tl.reshape(t, (ROWS, K, 1)), 0.0).to(t.dtype)
    return tl.reshape(t, (ROWS, WIDE))


@triton.jit
def _by_column(t, BN: tl.constexpr, K: tl.constexpr, Q: tl.constexpr):
    """(BN·K, Q) -> (BN·Q, K): the axis that w1 sums over goes last."""
    t = tl.permute(tl.reshape(t, (BN, K, Q)), (0, 2, 1))
    return tl.reshape(t, (BN * Q, K))


@triton.jit
def _mix(t, w, BN: tl.constexpr, K: tl.constexpr, M: tl.constexpr, Q: tl.constexpr):
    """w over the K axis of t (BN·K, Q): (BN·M, Q) fp32. ``w`` (WIDE, M) is from ``_load_w1``."""
    WIDE: tl.constexpr = 16 if K < 16 else K
    t = _widen(_by_column(t, BN, K, Q), BN * Q, K, WIDE)
    m = tl.dot(t, w, input_precision=PRECISION)  # (BN·Q, M)
    m = tl.permute(tl.reshape(m, (BN, Q, M)), (0, 2, 1))
    return tl.reshape(m, (BN * M, Q))


@triton.jit
def _load_w1(
    w1, k: tl.constexpr, m: tl.constexpr, stride_k: tl.constexpr, stride_m: tl.constexpr,
    K: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """w1 of one lane as the right operand (WIDE, M) of ``_mix``: fp32, zero rows between."""
    WIDE: tl.constexpr = 16 if K < 16 else K
    STEP: tl.constexpr = WIDE // K
    wide = tl.arange(0, WIDE)
    at_k = wide // STEP
    at_m = tl.arange(0, M)
    ok = ((wide % STEP == 0) & (at_k < k))[:, None] & (at_m < m)[None, :]
    return tl.load(w1 + at_k[:, None] * stride_k + at_m[None, :] * stride_m, mask=ok, other=0.0)


@triton.jit
def _scaled(w, scale, lane, SCALED: tl.constexpr):
    """w1 of a lane, or its gradient, times the lane's scale if it has one."""
    if SCALED:
        w *= tl.load(scale + lane).to(w.dtype)
    return w


@triton.jit
def _load(
    matrix, rows, columns, stride_row: tl.constexpr, stride_column: tl.constexpr,
    size_rows: tl.constexpr, size_columns: tl.constexpr,
):  # fmt: skip
    """A masked (rows, columns) tile of a small matrix."""
    ok = (rows < size_rows)[:, None] & (columns < size_columns)[None, :]
    at = rows[:, None] * stride_row + columns[None, :] * stride_column
    return tl.load(matrix + at, mask=ok, other=0.0)


@triton.jit
def _start(tile, lane, n, width, BN: tl.constexpr):
    """Where a tile of tokens begins in (L·n, width): an offset that needs 64 bits."""
    return (lane.to(tl.int64) * n + tile * BN) * width


@triton.jit
def _rows(tile, n, k: tl.constexpr, BN: tl.constexpr, K: tl.constexpr):
    """Rows of a tile of tokens in (n·k, …), from the tile's start, and which of them exist."""
    row = tl.arange(0, BN * K)
    if k == K:
        return row, tile * BN + row // K < n
    part = row % K
    return row // K * k + part, (tile * BN + row // K < n) & (part < k)


@triton.jit
def _inside(ok, columns, size: tl.constexpr, WIDTH: tl.constexpr):
    """Mask of a tile: rows that exist, and columns if ``WIDTH`` does not divide their number."""
    if size % WIDTH == 0:
        return tl.broadcast_to(ok[:, None], (ok.shape[0], WIDTH))
    return ok[:, None] & (columns < size)[None, :]


@triton.jit
def _project(
    x, weight, rows, ok, d: tl.constexpr, q: tl.constexpr,
    ROWS: tl.constexpr, Q: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """x·weightᵀ for rows of x (…, d) and a small weight (q, d): (ROWS, Q) fp32."""
    total = tl.zeros((ROWS, Q), tl.float32)
    if d <= UNROLLED * BD:
        for d0 in tl.static_range(0, d, BD):
            total = _project_block(x, weight, rows, ok, d0, d, q, total, Q, BD)
    else:
        for d0 in range(0, d, BD):
            total = _project_block(x, weight, rows, ok, d0, d, q, total, Q, BD)
    return total


@triton.jit
def _project_block(
    x, weight, rows, ok, d0, d: tl.constexpr, q: tl.constexpr, total,
    Q: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    at_d, at_q = d0 + tl.arange(0, BD), tl.arange(0, Q)
    inside = _inside(ok, at_d, d, BD)
    tile = tl.load(x + rows[:, None] * d + at_d[None, :], mask=inside, other=0.0)
    right = _load(weight, at_d, at_q, 1, d, d, q).to(tile.dtype)
    return tl.dot(tile, right, total, input_precision=PRECISION)


@triton.jit(do_not_specialize=["n"])
def forward(
    x, w1, scale, w2, w2_a, bias, onto, y, u, n, step_1, step_2, step_a,
    a: tl.constexpr, b: tl.constexpr, c: tl.constexpr, d: tl.constexpr, r: tl.constexpr,
    BIAS: tl.constexpr, ONTO: tl.constexpr, SCALED: tl.constexpr, KEEP_U: tl.constexpr,
    LOOP: tl.constexpr, BN: tl.constexpr, A: tl.constexpr, C: tl.constexpr, Q: tl.constexpr,
    BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """y = onto + Δy + bias and, if KEEP_U, u.

    One program: a tile of a lane's tokens; every P-th if LOOP.
    ``w2`` is w2_b (L, r, d); or, if r = 0, a full w2 (L, b, d) of at most Q rows.
    x (L·n, c·d), w1 (L, a, c), w2_a (L, b, r), onto and y (L·n, a·b), u (L·n, a·r).
    """
    first, lane = tl.program_id(0), tl.program_id(1)
    own = lane.to(tl.int64)
    mixer = _scaled(_load_w1(w1 + own * step_1, c, a, 1, c, C, A), scale, lane, SCALED)
    mixer = mixer.to(x.dtype.element_ty)  # (c, a)
    w2 += own * step_2
    w2_a += own * step_a
    count = tl.cdiv(n, BN)
    if LOOP:
        for turn in range(first, count, tl.num_programs(0)):
            _forward_tile(
                count - 1 - turn, lane, x, mixer, w2, w2_a, bias, onto, y, u, n, a, b, c, d, r,
                BIAS, ONTO, KEEP_U, BN, A, C, Q, BB, BD,
            )  # fmt: skip
    else:
        _forward_tile(
            count - 1 - first, lane, x, mixer, w2, w2_a, bias, onto, y, u, n, a, b, c, d, r,
            BIAS, ONTO, KEEP_U, BN, A, C, Q, BB, BD,
        )  # fmt: skip


@triton.jit
def _forward_tile(
    tile, lane, x, mixer, w2, w2_a, bias, onto, y, u, n,
    a: tl.constexpr, b: tl.constexpr, c: tl.constexpr, d: tl.constexpr, r: tl.constexpr,
    BIAS: tl.constexpr, ONTO: tl.constexpr, KEEP_U: tl.constexpr, BN: tl.constexpr,
    A: tl.constexpr, C: tl.constexpr, Q: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """``forward`` for one tile, with the factors of its lane."""
    q: tl.constexpr = r if r > 0 else b
    dtype = x.dtype.element_ty
    at_q = tl.arange(0, Q)
    rows, ok = _rows(tile, n, c, BN, C)
    h = _project(x + _start(tile, lane, n, c * d, BN), w2, rows, ok, d, q, BN * C, Q, BD)
    m = _mix(h.to(dtype), mixer, BN, C, A, Q)  # (BN·A, Q)
    rows, ok = _rows(tile, n, a, BN, A)
    y += _start(tile, lane, n, a * b, BN)
    onto += _start(tile, lane, n, a * b, BN)
    if r > 0:
        m = m.to(dtype)
        if KEEP_U:
            at = _start(tile, lane, n, a * r, BN) + rows[:, None] * r + at_q[None, :]
            tl.store(u + at, m, mask=_inside(ok, at_q, r, Q))
        if b <= UNROLLED * BB:
            for b0 in tl.static_range(0, b, BB):
                _expand_block(
                    y, m, w2_a, bias, onto, rows, ok, b0, a, b, r, BIAS, ONTO, BN * A, A, Q, BB
                )
        else:
            for b0 in range(0, b, BB):
                _expand_block(
                    y, m, w2_a, bias, onto, rows, ok, b0, a, b, r, BIAS, ONTO, BN * A, A, Q, BB
                )
    else:
        _store_y(y, m, bias, onto, rows, ok, at_q, a, b, BIAS, ONTO, BN * A, A, Q)


@triton.jit
def _expand_block(
    y, u, w2_a, bias, onto, rows, ok, b0, a: tl.constexpr, b: tl.constexpr, r: tl.constexpr,
    BIAS: tl.constexpr, ONTO: tl.constexpr, ROWS: tl.constexpr, A: tl.constexpr,
    R: tl.constexpr, BB: tl.constexpr,
):  # fmt: skip
    """BB columns of onto + u·w2_aᵀ + bias into y."""
    at_b = b0 + tl.arange(0, BB)
    right = _load(w2_a, tl.arange(0, R), at_b, 1, r, r, b).to(u.dtype)  # (r, b)
    delta = tl.dot(u, right, input_precision=PRECISION)
    _store_y(y, delta, bias, onto, rows, ok, at_b, a, b, BIAS, ONTO, ROWS, A, BB)


@triton.jit
def _store_y(
    y, delta, bias, onto, rows, ok, at_b, a: tl.constexpr, b: tl.constexpr,
    BIAS: tl.constexpr, ONTO: tl.constexpr, ROWS: tl.constexpr, A: tl.constexpr, BB: tl.constexpr,
):  # fmt: skip
    inside = _inside(ok, at_b, b, BB)
    if BIAS:
        each = _load(bias, tl.arange(0, A), at_b, b, 1, a, b).to(tl.float32)  # (A, BB)
        delta = tl.reshape(tl.reshape(delta, (ROWS // A, A, BB)) + each[None], (ROWS, BB))
    at = rows[:, None] * b + at_b[None, :]
    if ONTO:
        delta += tl.load(onto + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, delta.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n", "lanes", "size"])
def backward_out(
    gy, u, w2_a, gu, sums, n, lanes, size, step_a,
    SUMS: tl.constexpr, AT: tl.constexpr, a: tl.constexpr, b: tl.constexpr, r: tl.constexpr,
    BN: tl.constexpr, A: tl.constexpr, R: tl.constexpr, BB: tl.constexpr,
):  # fmt: skip
    """What the output's gradient gives of a low-rank layer: gu = gy·w2_a, and w2_a's gradient.

    One program: every P-th tile of a lane's tokens, and BB of the b columns.
    gy (L·n, a·b); gu (blocks of b, L·n, a·r) to be summed, ``size`` numbers a block;
    w2_a's part (L, b, r) of the sums (P, L·SUMS) begins at L·AT.
    """
    first, block, lane = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at_b = block * BB + tl.arange(0, BB)
    at_r = tl.arange(0, R)
    dtype = gy.dtype.element_ty
    w2_a += lane.to(tl.int64) * step_a
    right = _load(w2_a, at_b, at_r, r, 1, b, r).to(dtype)  # (b, r)
    total = tl.zeros((BB, R), tl.float32)
    gu += block.to(tl.int64) * size
    count = tl.cdiv(n, BN)
    for turn in range(first, count, tl.num_programs(0)):
        tile = count - 1 - turn
        rows, ok = _rows(tile, n, a, BN, A)
        at = rows[:, None] * b + at_b[None, :]
        inside = _inside(ok, at_b, b, BB)
        g = tl.load(gy + _start(tile, lane, n, a * b, BN) + at, mask=inside, other=0.0)
        at = rows[:, None] * r + at_r[None, :]
        narrow = _inside(ok, at_r, r, R)
        start = _start(tile, lane, n, a * r, BN)
        middle = tl.load(u + start + at, mask=narrow, other=0.0)
        gm = tl.dot(g, right, input_precision=PRECISION)
        tl.store(gu + start + at, gm.to(gu.dtype.element_ty), mask=narrow)
        total = tl.dot(tl.trans(g), middle, total, input_precision=PRECISION)
    here = (at_b < b)[:, None] & (at_r < r)[None, :]
    out = sums + first.to(tl.int64) * lanes * SUMS + lanes * AT + lane * b * r
    tl.store(out + at_b[:, None] * r + at_r[None, :], total, mask=here)


@triton.jit(do_not_specialize=["n", "lanes", "size"])
def backward_in(
    gu, x, w1, scale, w2_b, gx, sums, n, lanes, size, step_1, step_b,
    SUMS: tl.constexpr, AT: tl.constexpr,
    a: tl.constexpr, c: tl.constexpr, d: tl.constexpr, r: tl.constexpr,
    BLOCKS: tl.constexpr, NEEDS_X: tl.constexpr, SCALED: tl.constexpr, BN: tl.constexpr,
    A: tl.constexpr, C: tl.constexpr, R: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What gu gives of a low-rank layer: Δgx, and the gradients of w2_b and w1.

    One program: every P-th tile of a lane's tokens, and BD of the d columns. BLOCKS parts of gu,
    ``size`` numbers each, are added. x, gx (L·n, c·d); the sums (P, L·SUMS) begin with w1's
    (blocks of d, L, a, c), and w2_b's (L, r, d) begin at L·AT.
    """
    first, block, lane = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at_d = block * BD + tl.arange(0, BD)
    at_r = tl.arange(0, R)
    dtype = x.dtype.element_ty
    own = lane.to(tl.int64)
    right = _load(w2_b + own * step_b, at_r, at_d, d, 1, r, d).to(dtype)  # (r, d)
    mixer = _scaled(_load_w1(w1 + own * step_1, a, c, c, 1, A, C), scale, lane, SCALED)
    mixer = mixer.to(dtype)  # (a, c)
    total_b = tl.zeros((BD, R), tl.float32)
    WIDE: tl.constexpr = 16 if A < 16 else A
    total_1 = tl.zeros((WIDE, C), tl.float32)
    count = tl.cdiv(n, BN)
    for turn in range(first, count, tl.num_programs(0)):
        tile = count - 1 - turn
        rows, ok = _rows(tile, n, a, BN, A)
        narrow = _inside(ok, at_r, r, R)
        at = rows[:, None] * r + at_r[None, :]
        parts = gu + _start(tile, lane, n, a * r, BN)
        gm = tl.load(parts + at, mask=narrow, other=0.0)
        for part in tl.static_range(1, BLOCKS):
            gm += tl.load(parts + part * size.to(tl.int64) + at, mask=narrow, other=0.0)
        gm = gm.to(dtype)  # (BN·A, R)
        rows, ok = _rows(tile, n, c, BN, C)
        inside = _inside(ok, at_d, d, BD)
        at = rows[:, None] * d + at_d[None, :]
        start = _start(tile, lane, n, c * d, BN)
        xt = tl.load(x + start + at, mask=inside, other=0.0)  # (BN·C, BD)
        gh = _mix(gm, mixer, BN, A, C, R).to(dtype)  # (BN·C, R)
        if NEEDS_X:
            delta = tl.dot(gh, right, input_precision=PRECISION)
            tl.store(gx + start + at, delta.to(dtype), mask=inside)
        total_b = tl.dot(tl.trans(xt), gh, total_b, input_precision=PRECISION)
        h = tl.dot(xt, tl.trans(right), input_precision=PRECISION).to(dtype)  # (BN·C, R)
        total_1 = _add_w1(total_1, gm, h, BN, A, C, R, WIDE)
    here = (at_d < d)[:, None] & (at_r < r)[None, :]
    out = sums + first.to(tl.int64) * lanes * SUMS
    at_b = out + lanes * AT + lane * r * d
    tl.store(at_b + at_r[None, :] * d + at_d[:, None], total_b, mask=here)
    out += (block * lanes + lane) * a * c
    _store_w1(out, _scaled(total_1, scale, lane, SCALED), a, c, WIDE, A, C)


@triton.jit
def _add_w1(
    total, g, h, BN: tl.constexpr, A: tl.constexpr, C: tl.constexpr, Q: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Add a tile's part of w1's gradient, g (BN·A, Q) by h (BN·C, Q), to total (WIDE, C)."""
    left = tl.trans(_widen(_by_column(g, BN, A, Q), BN * Q, A, WIDE))
    return tl.dot(left, _by_column(h, BN, C, Q), total, input_precision=PRECISION)


@triton.jit
def _store_w1(
    out, total, a: tl.constexpr, c: tl.constexpr,
    WIDE: tl.constexpr, A: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Store the rows of total (WIDE, C) that are rows of w1's gradient, see ``_widen``."""
    wide = tl.arange(0, WIDE)
    row = wide // (WIDE // A)
    column = tl.arange(0, C)
    here = ((wide % (WIDE // A) == 0) & (row < a))[:, None] & (column < c)[None, :]
    tl.store(out + row[:, None] * c + column[None, :], total, mask=here)


@triton.jit(do_not_specialize=["n", "lanes"])
def backward_low_rank(
    gy, x, w1, scale, w2_a, w2_b, gx, sums, n, lanes, step_1, step_a, step_b,
    a: tl.constexpr, b: tl.constexpr, c: tl.constexpr, d: tl.constexpr, r: tl.constexpr,
    NEEDS_X: tl.constexpr, SCALED: tl.constexpr, BN: tl.constexpr, A: tl.constexpr,
    C: tl.constexpr, R: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """All gradients of a low-rank layer whose w2 fits a tile (BB >= b and BD >= d).

    h and u are taken from x again, and gu stays in registers. One program: every P-th tile of a
    lane's tokens. gy (L·n, a·b); x, gx (L·n, c·d); sums (P, L·(a·c + b·r + r·d)):
    w1's gradients (L, a, c), then w2_a's, then w2_b's.
    """
    first, lane = tl.program_id(0), tl.program_id(1)
    at_b, at_d, at_r = tl.arange(0, BB), tl.arange(0, BD), tl.arange(0, R)
    dtype = x.dtype.element_ty
    own = lane.to(tl.int64)
    w1 += own * step_1
    left_b = _load(w2_a + own * step_a, at_b, at_r, r, 1, b, r).to(dtype)  # (b, r)
    right_d = _load(w2_b + own * step_b, at_r, at_d, d, 1, r, d).to(dtype)  # (r, d)
    onto_a = _scaled(_load_w1(w1, c, a, 1, c, C, A), scale, lane, SCALED).to(dtype)  # (c, a)
    onto_c = _scaled(_load_w1(w1, a, c, c, 1, A, C), scale, lane, SCALED).to(dtype)  # (a, c)
    total_a = tl.zeros((BB, R), tl.float32)
    total_b = tl.zeros((BD, R), tl.float32)
    WIDE: tl.constexpr = 16 if A < 16 else A
    total_1 = tl.zeros((WIDE, C), tl.float32)
    count = tl.cdiv(n, BN)
    for turn in range(first, count, tl.num_programs(0)):
        tile = count - 1 - turn
        rows, ok = _rows(tile, n, c, BN, C)
        at_x = _start(tile, lane, n, c * d, BN) + rows[:, None] * d + at_d[None, :]
        inside_x = _inside(ok, at_d, d, BD)
        xt = tl.load(x + at_x, mask=inside_x, other=0.0)  # (BN·C, BD)
        rows, ok = _rows(tile, n, a, BN, A)
        at = _start(tile, lane, n, a * b, BN) + rows[:, None] * b + at_b[None, :]
        g = tl.load(gy + at, mask=_inside(ok, at_b, b, BB), other=0.0)  # (BN·A, BB)
        h = tl.dot(xt, tl.trans(right_d), input_precision=PRECISION).to(dtype)  # (BN·C, R)
        u = _mix(h, onto_a, BN, C, A, R).to(dtype)  # (BN·A, R)
        total_a = tl.dot(tl.trans(g), u, total_a, input_precision=PRECISION)
        gu = tl.dot(g, left_b, input_precision=PRECISION).to(dtype)  # (BN·A, R)
        total_1 = _add_w1(total_1, gu, h, BN, A, C, R, WIDE)
        gh = _mix(gu, onto_c, BN, A, C, R).to(dtype)  # (BN·C, R)
        total_b = tl.dot(tl.trans(xt), gh, total_b, input_precision=PRECISION)
        if NEEDS_X:
            delta = tl.dot(gh, right_d, input_precision=PRECISION)
            tl.store(gx + at_x, delta.to(dtype), mask=inside_x)
    out = sums + first.to(tl.int64) * lanes * (a * c + b * r + r * d)
    total_1 = _scaled(total_1, scale, lane, SCALED)
    _store_w1(out + lane * a * c, total_1, a, c, WIDE, A, C)
    out += lanes * a * c
    here = (at_b < b)[:, None] & (at_r < r)[None, :]
    tl.store(out + lane * b * r + at_b[:, None] * r + at_r[None, :], total_a, mask=here)
    out += lanes * b * r
    here = (at_d < d)[:, None] & (at_r < r)[None, :]
    tl.store(out + lane * r * d + at_r[None, :] * d + at_d[:, None], total_b, mask=here)


@triton.jit(do_not_specialize=["n", "lanes"])
def backward_full(
    gy, x, w1, scale, w2, gx, sums, n, lanes, step_1, step_2,
    a: tl.constexpr, b: tl.constexpr, c: tl.constexpr, d: tl.constexpr,
    NEEDS_X: tl.constexpr, SCALED: tl.constexpr, BN: tl.constexpr, A: tl.constexpr,
    C: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """All gradients of a layer whose full w2 fits a tile (BB >= b and BD >= d).

    One program: every P-th tile of a lane's tokens. gy (L·n, a·b); x, gx (L·n, c·d);
    sums (P, L·(a·c + b·d)): w1's gradients (L, a, c), then w2's.
    """
    first, lane = tl.program_id(0), tl.program_id(1)
    at_b, at_d = tl.arange(0, BB), tl.arange(0, BD)
    dtype = x.dtype.element_ty
    own = lane.to(tl.int64)
    mixer = _scaled(_load_w1(w1 + own * step_1, a, c, c, 1, A, C), scale, lane, SCALED)
    mixer = mixer.to(dtype)  # (a, c)
    right = _load(w2 + own * step_2, at_b, at_d, d, 1, b, d).to(dtype)  # (b, d)
    total_2 = tl.zeros((BB, BD), tl.float32)
    WIDE: tl.constexpr = 16 if A < 16 else A
    total_1 = tl.zeros((WIDE, C), tl.float32)
    count = tl.cdiv(n, BN)
    for turn in range(first, count, tl.num_programs(0)):
        tile = count - 1 - turn
        rows, ok = _rows(tile, n, a, BN, A)
        at = _start(tile, lane, n, a * b, BN) + rows[:, None] * b + at_b[None, :]
        g = tl.load(gy + at, mask=_inside(ok, at_b, b, BB), other=0.0)  # (BN·A, BB)
        rows, ok = _rows(tile, n, c, BN, C)
        at = _start(tile, lane, n, c * d, BN) + rows[:, None] * d + at_d[None, :]
        inside = _inside(ok, at_d, d, BD)
        xt = tl.load(x + at, mask=inside, other=0.0)  # (BN·C, BD)
        z = tl.dot(xt, tl.trans(right), input_precision=PRECISION).to(dtype)  # (BN·C, BB)
        gz = _mix(g, mixer, BN, A, C, BB).to(dtype)  # (BN·C, BB)
        if NEEDS_X:
            delta = tl.dot(gz, right, input_precision=PRECISION)
            tl.store(gx + at, delta.to(dtype), mask=inside)
        total_2 = tl.dot(tl.trans(gz), xt, total_2, input_precision=PRECISION)
        total_1 = _add_w1(total_1, g, z, BN, A, C, BB, WIDE)
    out = sums + first.to(tl.int64) * lanes * (a * c + b * d)
    total_1 = _scaled(total_1, scale, lane, SCALED)
    _store_w1(out + lane * a * c, total_1, a, c, WIDE, A, C)
    out += lanes * a * c
    here = (at_b < b)[:, None] & (at_d < d)[None, :]
    tl.store(out + lane * b * d + at_b[:, None] * d + at_d[None, :], total_2, mask=here)


@triton.jit(do_not_specialize=["n"])
def mix(
    z, w1, scale, bias, onto, y, n, step_1, a: tl.constexpr, b: tl.constexpr, c: tl.constexpr,
    BIAS: tl.constexpr, ONTO: tl.constexpr, SCALED: tl.constexpr, BN: tl.constexpr,
    A: tl.constexpr, C: tl.constexpr, BB: tl.constexpr,
):  # fmt: skip
    """y = onto + w1·z + bias, where w2 is too large for a tile and z = x·w2ᵀ an ordinary product.

    One program: BN tokens of one lane, BB of the b columns. z (L·n, c·b), onto and y (L·n, a·b).
    """
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    at_b, lane = tl.program_id(1) * BB + tl.arange(0, BB), tl.program_id(2)
    dtype = z.dtype.element_ty
    rows, ok = _rows(tile, n, c, BN, C)
    at = _start(tile, lane, n, c * b, BN) + rows[:, None] * b + at_b[None, :]
    zt = tl.load(z + at, mask=_inside(ok, at_b, b, BB), other=0.0)
    w1 += lane.to(tl.int64) * step_1
    mixer = _scaled(_load_w1(w1, c, a, 1, c, C, A), scale, lane, SCALED).to(dtype)  # (c, a)
    m = _mix(zt, mixer, BN, C, A, BB)  # (BN·A, BB)
    rows, ok = _rows(tile, n, a, BN, A)
    y += _start(tile, lane, n, a * b, BN)
    onto += _start(tile, lane, n, a * b, BN)
    _store_y(y, m, bias, onto, rows, ok, at_b, a, b, BIAS, ONTO, BN * A, A, BB)


@triton.jit(do_not_specialize=["n", "lanes"])
def mix_backward(
    gv, x, w1, scale, v, gx, sums, n, lanes, step_1,
    a: tl.constexpr, c: tl.constexpr, d: tl.constexpr, NEEDS_X: tl.constexpr,
    SCALED: tl.constexpr, BN: tl.constexpr, A: tl.constexpr, C: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """v = w1·x, gx = w1ᵀ·gv and w1's gradient, where gv = gy·w2 is an ordinary product, as is the
    gradient of w2: gyᵀ·v.

    One program: every P-th tile of a lane's tokens, and BD of the d columns. gv, v (L·n, a·d),
    which may be the same memory; x, gx (L·n, c·d); sums (P, blocks of d, L, a, c).
    """
    first, block, lane = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at_d = block * BD + tl.arange(0, BD)
    dtype = x.dtype.element_ty
    w1 += lane.to(tl.int64) * step_1
    onto_a = _scaled(_load_w1(w1, c, a, 1, c, C, A), scale, lane, SCALED).to(dtype)  # (c, a)
    onto_c = _scaled(_load_w1(w1, a, c, c, 1, A, C), scale, lane, SCALED).to(dtype)  # (a, c)
    WIDE: tl.constexpr = 16 if A < 16 else A
    total = tl.zeros((WIDE, C), tl.float32)
    count = tl.cdiv(n, BN)
    for turn in range(first, count, tl.num_programs(0)):
        tile = count - 1 - turn
        rows, ok = _rows(tile, n, a, BN, A)
        at_v = _start(tile, lane, n, a * d, BN) + rows[:, None] * d + at_d[None, :]
        inside_v = _inside(ok, at_d, d, BD)
        gvt = tl.load(gv + at_v, mask=inside_v, other=0.0)  # (BN·A, BD)
        rows, ok = _rows(tile, n, c, BN, C)
        at = _start(tile, lane, n, c * d, BN) + rows[:, None] * d + at_d[None, :]
        inside = _inside(ok, at_d, d, BD)
        xt = tl.load(x + at, mask=inside, other=0.0)  # (BN·C, BD)
        total = _add_w1(total, gvt, xt, BN, A, C, BD, WIDE)
        tl.store(v + at_v, _mix(xt, onto_a, BN, C, A, BD).to(dtype), mask=inside_v)
        if NEEDS_X:
            tl.store(gx + at, _mix(gvt, onto_c, BN, A, C, BD).to(dtype), mask=inside)
    row = ((first * tl.num_programs(1) + block) * lanes + lane).to(tl.int64)
    _store_w1(sums + row * a * c, _scaled(total, scale, lane, SCALED), a, c, WIDE, A, C)


@triton.jit(do_not_specialize=["parts", "head", "rest", "blocks"])
def add_up(sums, out, parts, head, rest, blocks, BP: tl.constexpr, BJ: tl.constexpr):
    """out (head + rest) = sums (parts, blocks·head + rest) over the parts and, of the head, blocks.

    One program: BJ of the numbers, BP parts at a time.
    """
    start = tl.program_id(0) * BJ
    j = start + tl.arange(0, BJ)
    width = blocks * head + rest
    at = tl.where(j < head, j, (blocks - 1) * head + j)
    total = _over_parts(sums, at, j < head + rest, parts, width, BP, BJ)
    if start < head:
        for block in range(1, blocks):
            total += _over_parts(sums, block * head + j, j < head, parts, width, BP, BJ)
    tl.store(out + j, total, mask=j < head + rest)


@triton.jit
def _over_parts(sums, at, ok, parts, width, BP: tl.constexpr, BJ: tl.constexpr):
    """The sums of columns ``at`` of (parts, width), (BJ,)."""
    total = tl.zeros((BJ,), tl.float32)
    for first in range(0, parts, BP):
        part = first + tl.arange(0, BP)
        here = sums + part.to(tl.int64)[:, None] * width + at[None, :]
        total += tl.sum(tl.load(here, mask=(part < parts)[:, None] & ok[None, :], other=0.0), 0)
    return total
