"""Which rows each step sees, planned on the CPU for a whole pass over a split.

A batch is described by its :class:`Shape` alone as far as the device is concerned: steps of one
shape are the same operations on other rows, which is what lets them be recorded once and replayed.

Legend: L lanes; B rows a lane; N rows of a split; S batches of a pass; T tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

BUCKET = 32
"""Lengths are rounded up to a multiple of this on a GPU: few shapes, little padding."""
RARE = 8
"""Batches of a run that must share a shape for it to be worth a recording."""


@dataclass(frozen=True)
class Shape:
    """What a batch looks like.

    Args:
        rows: B, rows of each lane.
        length: T, tokens that every row is cut or padded to; None where rows are of one size.
    """

    rows: int
    length: int | None


@dataclass(frozen=True)
class Pass:
    """One pass over a split.

    Args:
        rows: row numbers, (S, L·B) int64 on the CPU, lane-major; a short batch fills the first
            L·B' places of its line.
        shapes: the shape of each batch.
    """

    rows: Tensor
    shapes: tuple[Shape, ...]

    def __len__(self) -> int:
        return len(self.shapes)


def plan(
    orders: Tensor, batch: int, lengths: Tensor | None = None, bucket: int = 1, width: int = 0
) -> Pass:
    """Cut each lane's order of the rows into batches.

    Args:
        orders: (L, N) int64, each lane's row numbers in its own order.
        batch: B; the last batch may be short.
        lengths: tokens of each row, (N,); a batch is cut to the longest of its rows.
        bucket: the cut is rounded up to a multiple of this.
        width: but not over this (with ``bucket`` > 1).
    """
    sizes = [len(part) for part in torch.arange(orders.shape[1]).split(batch)]
    lines = _by_step(orders, batch)  # (S, L, B)
    last = lines[-1, :, : sizes[-1]].flatten()
    lines = lines.flatten(1).contiguous()
    lines[-1, : len(last)] = last
    if lengths is None:
        return Pass(lines, tuple(Shape(size, None) for size in sizes))
    longest = _by_step(lengths[orders], batch).amax((1, 2)).tolist()
    cuts = [_round_up(tokens, bucket, width) for tokens in longest]
    return Pass(lines, tuple(map(Shape, sizes, cuts)))


def merged(passes: Sequence[Pass], rare: int = RARE) -> list[Pass]:
    """The same passes with lengths that fewer than ``rare`` batches have raised to the next one.

    The longest of all batches with as many rows stays, however rare it is.
    """
    uses = Counter(shape for one in passes for shape in one.shapes)
    raised: dict[Shape, Shape] = {}
    longest_first = sorted(uses, key=lambda shape: (shape.rows, shape.length or 0), reverse=True)
    for longer, shape in zip([None, *longest_first], longest_first, strict=False):
        alone = longer is None or longer.rows != shape.rows
        raised[shape] = shape if alone or uses[shape] >= rare else raised[longer]
    return [replace(one, shapes=tuple(raised[shape] for shape in one.shapes)) for one in passes]


def epoch_orders(size: int, generators: Sequence[torch.Generator]) -> Tensor:
    """(L, N): every lane's rows in an order drawn from its own generator."""
    return torch.stack([torch.randperm(size, generator=generator) for generator in generators])


def by_length(size: int, lengths: Tensor | None, lanes: int) -> Tensor:
    """(L, N): the same order for every lane, short rows first so that little is padded."""
    order = torch.arange(size) if lengths is None else lengths.argsort(stable=True)
    return order.expand(lanes, -1)


def _by_step(numbers: Tensor, batch: int) -> Tensor:
    """(L, N) -> (S, L, B), the last batch filled up with zeros."""
    lanes, size = numbers.shape
    padded = F.pad(numbers, (0, -size % batch))
    return padded.view(lanes, -1, batch).transpose(0, 1)


def _round_up(tokens: int, bucket: int, width: int) -> int:
    return tokens if bucket == 1 else min(width, math.ceil(tokens / bucket) * bucket)
