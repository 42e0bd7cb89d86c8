"""Which tensors a layer gets: pure arithmetic, no torch.

    ΔW = scale · kron(w1, w2),   w1 (a, c),   w2 (b, d, *k),   out = a·b,   in = c·d

Legend: a, b  split of the output dimension;  c, d  split of the input dimension (of one group);
r  rank;  k  kernel size, one number a spatial dimension, none for a linear layer;  L  lanes.

Sources: arXiv 2309.14859 and 2108.06098; the rules are PEFT's (``peft/tuners/lokr/layer.py``).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import isqrt, prod

from lokr.config import LoKrConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerShape:
    """A frozen layer as LoKr sees it: (out, in of one group, *kernel)."""

    out_features: int
    in_features: int
    kernel: Shape = ()


@dataclass(frozen=True)
class FactorSpec:
    """The factors of one layer: their dimensions, which of them are low-rank, and the scale."""

    a: int
    b: int
    c: int
    d: int
    r: int
    kernel: Shape
    w1_low_rank: bool
    w2_low_rank: bool
    effective: bool
    scale: float

    @property
    def shapes(self) -> dict[str, Shape]:
        """Tensor name -> shape without the lane axis, in the order in which they are drawn."""
        a, b, c, d, r, k = self.a, self.b, self.c, self.d, self.r, self.kernel
        w1 = {"lokr_w1_a": (a, r), "lokr_w1_b": (r, c)} if self.w1_low_rank else {"lokr_w1": (a, c)}
        if not self.w2_low_rank:
            return {**w1, "lokr_w2": (b, d, *k)}
        if self.effective:
            return {**w1, "lokr_w2_a": (r, b), "lokr_w2_b": (r, d), "lokr_t2": (r, r, *k)}
        return {**w1, "lokr_w2_a": (b, r), "lokr_w2_b": (r, d * prod(k))}

    @property
    def parameters(self) -> int:
        """Number of trainable adapter parameters of the layer."""
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def rank_matters(self) -> bool:
        """Whether any tensor has a rank axis."""
        return self.w1_low_rank or self.w2_low_rank

    @property
    def structure(self) -> Hashable:
        """What lanes of one pack must share: everything but the rank and the scale."""
        return replace(self, r=0, scale=0.0)


def factorization(dimension: int, factor: int = -1) -> tuple[int, int]:
    """Split ``dimension`` into (m, n) with m·n = dimension, as PEFT does.

    A positive factor that divides the dimension is m itself, even where m > n (PEFT's rule;
    LyCORIS sorts). Otherwise m is the largest divisor with m <= n and m <= factor whose m + n is
    still falling; -1 sets no bound. A prime gives (1, p).

    Raises:
        ValueError: dimension < 1, or factor neither -1 nor >= 1.
    """
    if dimension < 1:
        raise ValueError(f"dimension={dimension!r}: expected an integer >= 1")
    if factor < 1 and factor != -1:
        raise ValueError(f"factor={factor!r}: expected -1 or an integer >= 1")
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    # m + n falls as the divisor m nears the square root, so the last divisor up to the root wins.
    bound = dimension if factor == -1 else factor
    m = max(m for m in range(1, min(bound, isqrt(dimension)) + 1) if dimension % m == 0)
    return m, dimension // m


def factor_spec(shape: LayerShape, config: LoKrConfig, r: int, alpha: float) -> FactorSpec:
    """The factors that ``config`` gives a layer of ``shape`` at rank ``r``.

    A factor is low-rank only where that saves parameters: w2 if r < max(b, d)/2, w1 if
    ``decompose_both`` and r < max(a, c)/2. So a large rank is silently a full factor.
    """
    a, b = factorization(shape.out_features, config.decompose_factor)
    c, d = factorization(shape.in_features, config.decompose_factor)
    w1_low_rank = config.decompose_both and 2 * r < max(a, c)
    w2_low_rank = 2 * r < max(b, d)
    wide = any(size != 1 for size in shape.kernel)
    full = not (w1_low_rank or w2_low_rank)
    return FactorSpec(
        a=a,
        b=b,
        c=c,
        d=d,
        r=r,
        kernel=shape.kernel,
        w1_low_rank=w1_low_rank,
        w2_low_rank=w2_low_rank,
        effective=config.use_effective_conv2d and wide and w2_low_rank,
        scale=1.0 if config.lycoris_scale and full else alpha / r,
    )
