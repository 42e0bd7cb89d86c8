"""How the programs of :mod:`lokr.kernels.programs` cut their work, as measured on an H100.

``python -m experiments.bench.tiles`` measures the candidates. Every function here gives a program's
tile sizes (its upper-case constants) and Triton's ``num_warps`` and ``num_stages``.

Legend: as in :mod:`lokr.kernels.linear`.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import torch

LARGEST = 128
"""Largest a and c that a tile holds whole; beyond, the PyTorch path serves."""
MIDDLE = 2048
"""Largest product of a or c with r, both as powers of two: what a token has between its factors.
More does not fit the shared memory of an H100 beside the tiles, or not its registers."""
IN_A_TILE = {"low": 128, "full": 64}
"""Largest b and d of a w2, low-rank or full, that a tile holds whole."""
LOPSIDED = 128
"""Largest number of rows of the longer one of a and c where the shorter one needs 16."""
SHARED = 227 * 1024
"""Bytes of shared memory that a program can have on an H100."""
TOKEN = 8192
"""Largest tile of one token for which both x and the output's gradient are loaded ahead."""

Tile = dict[str, int]

remembered = lru_cache(maxsize=4096)
"""What a launch needs to know is worked out once for each size: a small layer's is short. Not for
what a compiler asks, whose sizes are symbols."""


class Dims(NamedTuple):
    """Sizes of one call; r = 0 with a full w2."""

    lanes: int
    n: int
    a: int
    b: int
    c: int
    d: int
    r: int


def fits(a: int, c: int, r: int) -> bool:
    """Whether the programs serve factors of these sizes (r = 0: full w2)."""
    if max(a, c) > LARGEST or power(max(a, c)) * power(r or 1, 16) > MIDDLE:
        return False
    needed = _needed(a, c)
    return needed == 1 or needed * power(max(a, c)) <= LOPSIDED


def in_a_tile(s: Dims) -> bool:
    """Whether a tile holds w2 whole, so that one program takes all gradients."""
    widest = max(s.b, s.d)
    token = power(max(s.a, s.c)) * power(widest, 16)
    return widest <= IN_A_TILE["low" if s.r else "full"] and s.r <= 32 and token <= TOKEN


def keeps_u(s: Dims) -> bool:
    """Whether the forward pass keeps u for the backward pass."""
    return s.r > 0 and not in_a_tile(s)


def count(s: Dims, tile: Tile) -> int:
    """Tiles of a lane."""
    return -(-s.n // tile["BN"])


def programs(
    s: Dims, tile: Tile, blocks: int, device: torch.device, each: int | None = None
) -> int:
    """P, where ``blocks`` programs share each tile: ``each`` for each multiprocessor, by default
    two, and four for lanes.
    """
    return sharers(count(s, tile), s.lanes, blocks, device, each)


def sharers(
    count: int, lanes: int, blocks: int, device: torch.device, each: int | None = None
) -> int:
    """P of ``programs``, for so many tiles a lane."""
    wanted = (each or (2 if lanes == 1 else 4)) * _multiprocessors(device)
    return max(1, min(count, -(-wanted // (lanes * blocks))))


@remembered
def forward(s: Dims, dtype: torch.dtype) -> Tile:
    """Of ``programs.forward``."""
    narrow = s.d <= 32
    masked = 64 < s.d <= 128
    q = power(s.r or s.b, 16)
    long = 384 < s.d <= 512 and 0 < s.r <= 16 and min(s.a, s.c) >= 4 and max(s.a, s.c) <= 8
    rows = (256 if s.a > 32 else 128) if narrow else 64 if masked else 256 if long else 128
    return {
        "LOOP": not masked,
        "BN": _tokens(s, dtype, rows),
        "A": power(s.a),
        "C": power(s.c),
        "Q": q,
        "BB": _at_most(64 if long else 128, s.b),
        "BD": 128 if masked or (long and dtype.itemsize == 2) else _at_most(64, s.d),
        "num_warps": 8 if narrow and s.a <= 32 else 4,
        "num_stages": 3 if q < 256 and max(s.a, s.c) <= 64 else 2,  # shared memory
    }


@remembered
def backward_low_rank(s: Dims, dtype: torch.dtype) -> Tile:
    """Of ``programs.backward_low_rank``."""
    return {
        "BN": _tokens(s, dtype, 64),
        "A": power(s.a),
        "C": power(s.c),
        "R": power(s.r, 16),
        "BB": power(s.b, 16),
        "BD": power(s.d, 16),
        "num_warps": 4,
        "num_stages": 3,
    }


@remembered
def backward_out(s: Dims, dtype: torch.dtype) -> Tile:
    """Of ``programs.backward_out``."""
    size, r = dtype.itemsize, power(s.r, 16)
    bn = max(1, 64 // size // power(s.a))
    wide = s.b % 256 == 0 and s.r <= 16 and s.a <= 64 and size == 2
    bb = 256 if wide else _at_most(128, s.b)
    return {
        "BN": bn,
        "A": power(s.a),
        "R": r,
        "BB": bb,
        "num_warps": 4,
        "num_stages": _stages(4, bn * power(s.a) * (bb + r) * size, 32 * 1024),
    }


def b_blocks(s: Dims, dtype: torch.dtype) -> int:
    """Blocks of the b columns in ``programs.backward_out``, each with a gu of its own."""
    return -(-s.b // backward_out(s, dtype)["BB"])


@remembered
def backward_in(s: Dims, dtype: torch.dtype) -> Tile:
    """Of ``programs.backward_in``."""
    long, size, r = s.d > 128, dtype.itemsize, power(s.r, 16)
    bn, bd = _tokens(s, dtype, 32 if long else 64), _at_most(128, s.d)
    parts = b_blocks(s, dtype)
    ahead = power(s.a) * r * (size if parts == 1 else 4 * parts) + power(s.c) * bd * size
    rest = (9 * r * bd // 4 + 2 * power(s.a) * power(s.c)) * size + 1024  # as compiled, or more
    return {
        "BN": bn,
        "A": power(s.a),
        "C": power(s.c),
        "R": r,
        "BD": bd,
        "num_warps": 4,
        "num_stages": _stages(4 if long else 3, bn * ahead, rest),
    }


@remembered
def backward_full(s: Dims, dtype: torch.dtype) -> Tile:
    """Of ``programs.backward_full``."""
    return {
        "BN": _tokens(s, dtype, 128),
        "A": power(s.a),
        "C": power(s.c),
        "BB": power(s.b, 16),
        "BD": power(s.d, 16),
        "num_warps": 4,
        "num_stages": 2,
    }


@remembered
def mix(s: Dims, dtype: torch.dtype) -> Tile:
    """Of ``programs.mix``."""
    return {
        "BN": _tokens(s, dtype, 32),
        "A": power(s.a),
        "C": power(s.c),
        "BB": _at_most(128, s.b),
        "num_warps": 8,
        "num_stages": 1,
    }


@remembered
def mix_backward(s: Dims, dtype: torch.dtype) -> Tile:
    """Of ``programs.mix_backward``.

    One stage: gv may be overwritten, and must not be read ahead.
    """
    short = max(s.a, s.c) <= 8 and min(s.a, s.c) > 1
    return {
        "BN": max(_needed(s.a, s.c), min(4, _tokens(s, dtype, 32 if short else 64))),
        "A": power(s.a),
        "C": power(s.c),
        "BD": _at_most((256 if short else 128) // dtype.itemsize, s.d),
        "num_warps": 4,
        "num_stages": 1,
    }


def add_up(parts: int) -> Tile:
    """Of ``programs.add_up``."""
    bp = _at_most(256, parts)
    return {"BP": bp, "BJ": 4096 // bp, "num_warps": 4, "num_stages": 1}


def slide(columns: int, q: int, dtype: torch.dtype) -> Tile:
    """Of ``conv_programs.slide``, from so many gathered columns (taps x channels) to q.

    One stage: loading gathered columns ahead takes twice as long.
    """
    bk, bq = _at_most(128, columns) if columns <= 128 else 64, _at_most(64, q)
    return {
        "BM": 128,
        "BK": bk if dtype.itemsize == 2 else max(16, bk // 2),
        "BQ": bq,
        "num_warps": 8 if bk == 128 and bq <= 32 else 4,
        "num_stages": 1,
    }


def slide_weight(s: int, columns: int, dtype: torch.dtype) -> Tile:
    """Of ``conv_programs.slide_weight``."""
    bs = _at_most(64, s)
    narrow = bs <= 32
    bm = 128 if narrow else 64
    return {
        "BM": bm if dtype.itemsize == 2 else bm // 2,
        "BK": _at_most(128, columns),
        "BS": bs,
        "num_warps": 4,
        "num_stages": 2 if narrow else 3,
    }


TRANSPOSE: Tile = {"B": 64, "num_warps": 4, "num_stages": 1}
"""Of ``conv_programs.transpose``."""


def _stages(most: int, ahead: int, rest: int) -> int:
    """Stages that fit shared memory: each but one loads so many bytes ahead, beside the rest."""
    return max(1, min(most, 1 + (SHARED - rest) // ahead))


def _tokens(s: Dims, dtype: torch.dtype, rows: int) -> int:
    """BN: tokens whose tile has ``rows`` rows of x or y; fewer in fp32, or where r is large."""
    rows = max(16, rows * 2 // dtype.itemsize * 16 // power(s.r or 1, 16))
    return max(_needed(s.a, s.c), rows // max(power(s.a), power(s.c)))


def _needed(a: int, c: int) -> int:
    """Tokens whose rows of x and of y are 16 each: Triton's products sum over no fewer."""
    return -(-16 // min(power(a), power(c)))


def _at_most(limit: int, size: int) -> int:
    return min(limit, power(size, 16))


def power(size: int, least: int = 1) -> int:
    """The power of two that holds ``size``."""
    return max(least, 1 << (size - 1).bit_length())


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1  # Triton's interpreter
    return torch.cuda.get_device_properties(device).multi_processor_count
