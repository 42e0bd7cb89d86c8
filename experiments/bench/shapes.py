"""The layers that are compared, and their inputs.

Legend: n tokens; r rank; factor is ``decompose_factor``; a, b, c, d as in :mod:`lokr.factors`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lokr import FactorSpec, LayerShape, LoKrConfig, factor_spec


@dataclass(frozen=True, kw_only=True)
class Case:
    """One layer with one adapter.

    Args:
        kind: ``linear`` or ``conv2d`` (3x3, padded to keep the size).
        out, into: output and input features or channels.
        tokens: rows of the input; of a convolution, its images.
        size: height and width of the images; None for a linear layer.
        r: rank; None for a full w2.
        factor: ``decompose_factor``.
        effective: low rank over the kernel too (``use_effective_conv2d``, Tucker).
    """

    kind: Literal["linear", "conv2d"] = "linear"
    out: int
    into: int
    tokens: int
    size: int | None = None
    r: int | None = 8
    factor: int = -1
    effective: bool = False

    @property
    def name(self) -> str:
        """Such as ``768x768 n=32768 r=8 f=8``; also the piece's name on disk."""
        rank = "full w2" if self.r is None else f"r={self.r}"
        kind = "" if self.kind == "linear" else " 3x3"
        rows = f"n={self.tokens}" if self.size is None else f"{self.tokens}x{self.size}x{self.size}"
        tucker = " effective" if self.effective else ""
        return f"{self.out}x{self.into}{kind} {rows} {rank} f={self.factor}{tucker}"

    @property
    def rank(self) -> int:
        """A rank that gives the wanted w2."""
        return max(self.out, self.into) if self.r is None else self.r

    @property
    def config(self) -> LoKrConfig:
        """Our config of the adapter; scale 1, which is the same in every library."""
        return LoKrConfig(
            r=self.rank,
            alpha=self.rank,
            decompose_factor=self.factor,
            use_effective_conv2d=self.effective,
            target_modules=["layer"],
        )

    @property
    def spec(self) -> FactorSpec:
        """Which factors the adapter has."""
        kernel = () if self.kind == "linear" else (3, 3)
        shape = LayerShape(self.out, self.into, kernel)
        return factor_spec(shape, self.config, self.rank, self.rank)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.tokens, self.into, *self._image)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.tokens, self.out, *self._image)

    @property
    def _image(self) -> tuple[int, ...]:
        return () if self.size is None else (self.size, self.size)

    def base(self, device: str, dtype: torch.dtype) -> nn.Module:
        """The frozen layer, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer: nn.Module = (
                nn.Linear(self.into, self.out)
                if self.kind == "linear"
                else nn.Conv2d(self.into, self.out, 3, padding=1)
            )
        return layer.to(device, dtype).requires_grad_(False)

    def factors(self) -> dict[str, Tensor]:
        """Random factors, fp32 on the CPU, the same at every call; ΔW·x is about as large as x."""
        generator = torch.Generator().manual_seed(1)
        summed = {"lokr_w1": 1, "lokr_w2": 1, "lokr_w2_a": 1, "lokr_w2_b": 1, "lokr_t2": 1}
        if self.effective:
            summed["lokr_w2_a"] = 0  # (r, b)
        return {
            name: torch.randn(shape, generator=generator) / shape[summed[name]] ** 0.5
            for name, shape in self.spec.shapes.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


# out x in, tokens, r, factor
LINEAR = (
    Case(out=768, into=768, tokens=32768, factor=8),
    Case(out=3072, into=768, tokens=32768, factor=8),
    Case(out=3072, into=3072, tokens=4096, factor=-1),
    Case(out=3072, into=3072, tokens=4096, factor=8, r=None),
    Case(out=3072, into=3072, tokens=4096, factor=8),
    Case(out=4096, into=4096, tokens=8192, factor=8, r=16),
    Case(out=12288, into=3072, tokens=4096, factor=8),
    Case(out=384, into=384, tokens=32768, factor=-1),
)
_SMALL_IMAGES = {"kind": "conv2d", "tokens": 4, "factor": 8}
CONVOLUTIONS = tuple(
    Case(**_SMALL_IMAGES, out=channels, into=channels, size=size, r=r, effective=effective)
    for channels, size, r in ((320, 64, 8), (640, 32, 8), (640, 32, 16))
    for effective in (False, True)
)
ON_A_CPU = (
    Case(out=768, into=768, tokens=1024, factor=8),
    Case(out=768, into=768, tokens=1024, factor=-1),
    Case(out=3072, into=768, tokens=1024, factor=8),
    Case(out=768, into=768, tokens=1024, factor=8, r=None),
    Case(kind="conv2d", out=64, into=64, tokens=4, size=32, factor=8, r=2),
)


def cases(device: str, only: str = "") -> tuple[Case, ...]:
    """The cases of a device whose name contains ``only``."""
    chosen = ON_A_CPU if device == "cpu" else (*LINEAR, *CONVOLUTIONS)
    return tuple(case for case in chosen if only in case.name)
