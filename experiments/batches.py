"""Which rows each step sees, planned on the CPU for a whole pass over a split.

A step is described by its parts' :class:`Shape` alone as far as the device is concerned: steps of
the same shapes are the same operations on other rows, which is what lets them be recorded once and
replayed.

A loss is a mean over rows, so its gradient may be summed up part by part. Where a batch fills the
device many times over, every lane's rows are sorted by length and cut into parts, each padded to
its own longest row only: the same step, with less padding and a part's memory at a time.

Legend: L lanes; B rows a lane; G parts of a step; N rows of a split; S batches of a pass; T tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

BUCKET = 32
"""Lengths are rounded up to a multiple of this on a GPU: few shapes, little padding."""
PART_BUCKET = 16
"""The same where steps are cut into parts: half of a bucket is much of a short part."""
RARE = 8
"""Batches of a run that must share their shapes for these to be worth a recording."""
KINDS = 6
"""Kinds of steps that a run has at most: each is warmed up and recorded before the first step."""
CANDIDATES = 256
"""Kinds that are looked at, the most frequent ones, when those to keep are chosen."""
PART_TOKENS = 8192
"""Tokens of a part, on average and without padding, below which the device might idle."""
MOST_PARTS = 4
"""More parts hardly save padding."""


@dataclass(frozen=True)
class Shape:
    """What a batch, or a part of one, looks like.

    Args:
        rows: B, rows of each lane.
        length: T, tokens that every row is cut or padded to; None where rows are of one size.
    """

    rows: int
    length: int | None


Step = tuple[Shape, ...]
"""The shapes of a step's parts, in order: which kind of step it is."""


@dataclass(frozen=True)
class Pass:
    """One pass over a split.

    Args:
        rows: row numbers, (S, L·B) int64 on the CPU, lane-major; a short batch fills the first
            L·B' places of its line. A lane's rows are those of its first part, then of its second.
        steps: the parts of each batch.
    """

    rows: Tensor
    steps: tuple[Step, ...]

    def __len__(self) -> int:
        return len(self.steps)


def rows_of(step: Step) -> int:
    """B, the rows of each lane in all parts."""
    return sum(part.rows for part in step)


def part_rows(line: Tensor, step: Step, lanes: int, part: int) -> Tensor:
    """Row numbers of one part, lane-major, (L·B_g,), from the batch's line, (at least L·B,)."""
    rows = line[: lanes * rows_of(step)].view(lanes, -1)  # (L, B)
    return rows.split([shape.rows for shape in step], dim=1)[part].flatten()


def parts_of(rows: int, lengths: Tensor | None) -> int:
    """G, into how many parts a step is best cut: as many as keep the device full.

    Args:
        rows: of all lanes together, L·B.
        lengths: tokens of each row of the split, (N,); None where they are of one size.
    """
    if lengths is None:
        return 1
    tokens = rows * lengths.double().mean().item()
    return max(1, min(MOST_PARTS, int(tokens // PART_TOKENS)))


def plan(
    orders: Tensor,
    batch: int,
    lengths: Tensor | None = None,
    bucket: int = 1,
    width: int = 0,
    parts: int = 1,
) -> Pass:
    """Cut each lane's order of the rows into batches, and each batch into parts by length.

    Args:
        orders: (L, N) int64, each lane's row numbers in its own order.
        batch: B; the last batch may be short.
        lengths: tokens of each row, (N,); a part is cut to the longest of its rows.
        bucket: the cut is rounded up to a multiple of this.
        width: but not over this (with ``bucket`` > 1).
        parts: G, with ``lengths``; a short batch has its share of them, rounded up, so that its
            parts need no more memory. With one part the rows of a batch stay in order, otherwise
            each lane's are sorted by length.
    """
    batch = min(batch, orders.shape[1])
    sizes = [len(part) for part in torch.arange(orders.shape[1]).split(batch)]
    lines = _by_step(orders, batch, 0)  # (S, L, B)
    if lengths is None:
        return Pass(_flat(lines, sizes[-1]), tuple((Shape(size, None),) for size in sizes))
    tokens = _by_step(lengths[orders], batch, torch.iinfo(lengths.dtype).max)
    if parts > 1:
        tokens, places = tokens.sort(dim=2, stable=True)  # what a short batch lacks stays last
        lines = lines.gather(2, places)
    parts = min(parts, batch)
    steps = []
    for some, size in ((tokens[:-1], batch), (tokens[-1:, :, : sizes[-1]], sizes[-1])):
        shares = _shares(size, math.ceil(parts * size / batch))
        for longest in _longest(some, shares):
            cuts = [_round_up(length, bucket, width) for length in longest]
            steps.append(tuple(map(Shape, shares, cuts)))
    return Pass(_flat(lines, sizes[-1]), tuple(steps))


def merged(passes: Sequence[Pass], rare: int = RARE, most: int = KINDS) -> list[Pass]:
    """The same passes with a few kinds of steps: parts are padded more until few kinds are left.

    Every step gets the kind that pads it least among those kept; its parts' rows stay. Kept are,
    of all steps with as many rows, the longest length of each part, and whichever kinds spare the
    most tokens and serve ``rare`` batches or more.

    Args:
        passes: all that a run will see.
        rare: batches that make a kind worth keeping.
        most: kinds kept at most; of short batches one.
    """
    uses = Counter(step for one in passes for step in one.steps)
    if any(shape.length is None for step in uses for shape in step):
        return list(passes)
    groups: dict[tuple[int, ...], Counter[Step]] = {}
    for step, count in uses.items():
        groups.setdefault(tuple(shape.rows for shape in step), Counter())[step] = count
    full = max(groups, key=sum)
    raised: dict[Step, Step] = {}
    for rows, group in groups.items():
        raised |= _raised(group, rare, most - len(groups) + 1 if rows == full else 1)
    return [replace(one, steps=tuple(raised[step] for step in one.steps)) for one in passes]


def joined(one: Pass) -> Pass:
    """The same pass with neighboring parts of one length made one: their cut saves nothing."""
    return replace(one, steps=tuple(map(_join, one.steps)))


def epoch_orders(size: int, generators: Sequence[torch.Generator], repeats: int = 1) -> Tensor:
    """(L, N·repeats): every lane's rows in an order drawn from its own generator."""
    shown = size * repeats
    orders = [torch.randperm(shown, generator=generator) for generator in generators]
    return torch.stack(orders) % size


def by_length(size: int, lengths: Tensor | None, lanes: int) -> Tensor:
    """(L, N): the same order for every lane, short rows first so that little is padded."""
    order = torch.arange(size) if lengths is None else lengths.argsort(stable=True)
    return order.expand(lanes, -1)


def _by_step(numbers: Tensor, batch: int, fill: int) -> Tensor:
    """(L, N) -> (S, L, B), the last batch filled up."""
    lanes, size = numbers.shape
    missing = numbers.new_full((lanes, -size % batch), fill)  # F.pad rounds large integers
    return torch.cat([numbers, missing], dim=1).view(lanes, -1, batch).transpose(0, 1)


def _flat(lines: Tensor, short: int) -> Tensor:
    """(S, L, B) -> (S, L·B), the rows of the last batch, ``short`` a lane, moved together."""
    last = lines[-1, :, :short].flatten()
    flat = lines.flatten(1).contiguous()
    flat[-1, : len(last)] = last
    return flat


def _shares(size: int, parts: int) -> list[int]:
    """Rows of each part: as equal as can be, one more in the first ones, which are short rows."""
    return [math.ceil((size - part) / parts) for part in range(parts)]


def _longest(tokens: Tensor, shares: list[int]) -> list[list[int]]:
    """Tokens of rows (S, L, B) -> those of each part's longest, S lists of G."""
    parts = tokens.split(shares, dim=2)
    return torch.stack([part.amax((1, 2)) for part in parts], dim=1).tolist()


def _round_up(tokens: int, bucket: int, width: int) -> int:
    return tokens if bucket == 1 else min(width, math.ceil(tokens / bucket) * bucket)


def _raised(uses: Mapping[Step, int], rare: int, most: int) -> dict[Step, Step]:
    """Each kind and the one that takes its place; all have the same rows in their parts."""
    steps = sorted(uses, key=lambda step: -uses[step])
    rows = [shape.rows for shape in steps[0]]
    counts = torch.tensor([uses[step] for step in steps])
    cuts = torch.tensor([[shape.length for shape in step] for step in steps])  # (kinds, G)
    kept = _kept(cuts, counts, torch.tensor(rows), rare, most)
    return {
        step: tuple(map(Shape, rows, cut)) for step, cut in zip(steps, kept.tolist(), strict=True)
    }


def _kept(cuts: Tensor, counts: Tensor, rows: Tensor, rare: int, most: int) -> Tensor:
    """The lengths that each kind is raised to, like ``cuts`` (kinds, G), the most frequent first.

    Greedy: one after the other, the kind that spares the most tokens is kept.
    """
    choices = cuts[:CANDIDATES]
    top = cuts.amax(0)
    raised, padded = top.expand_as(cuts).clone(), (top * rows).sum().expand(len(cuts))
    fits = (cuts.unsqueeze(1) <= choices).all(2)  # (kinds, choices)
    cost = (choices * rows).sum(1)  # tokens of a lane
    for _ in range(most - 1):
        spared = (padded.unsqueeze(1) - cost).clamp(min=0) * fits * counts.unsqueeze(1)
        frequent = ((spared > 0) * counts.unsqueeze(1)).sum(0) >= rare
        gain, best = (spared.sum(0) * frequent).max(0)
        if gain == 0:
            break
        takes = spared[:, best] > 0
        raised[takes] = choices[best]
        padded = torch.where(takes, cost[best], padded)
    return raised


def _join(step: Step) -> Step:
    groups = groupby(step, key=lambda shape: shape.length)
    return tuple(Shape(sum(shape.rows for shape in group), length) for length, group in groups)
