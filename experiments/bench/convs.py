"""The adapters of a convolution by each of their ways, beside the frozen convolution alone.

    python -m experiments.bench.convs [--lanes 1,32] [--only 96x96] [--json convs.json] [--tiles]

One row a layer: milliseconds of forward and backward pass; gradients of x and of the factors. On a
GPU in bf16 autocast, in CUDA graphs, over inputs larger than the cache. On a CPU in fp32, by the
clock.

Legend: L lanes; N images a lane; a, b, c, d, r, k as in :mod:`lokr.factors`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import multiprocessing
import operator
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.bench.timing import first_line, input_sets, precision, runner
from lokr import LayerShape, LoKrConfig, factor_spec, kernels, product
from lokr.kernels import convolution, tiles
from lokr.product import ConvSettings, Factors

SETTINGS = ConvSettings((1, 1), (1, 1), (1, 1), 1, "zeros", None)
SAMPLES = 3
KINDS = {"plain": (8, False), "effective": (8, True), "full": (64, False)}
"""What w2 is: r, and whether it is low-rank over the kernel too."""
UNET = (
    *((96, 96, 32), (224, 96, 32), (192, 96, 32), (96, 128, 16), (128, 128, 16)),
    *((256, 128, 16), (224, 128, 16), (128, 128, 8), (256, 128, 8)),
)
FEW = ((192, 96, 32), (128, 128, 16), (256, 128, 8))
STABLE_DIFFUSION = ((320, 320, 64), (640, 640, 32), (1280, 1280, 16), (1280, 1280, 8))
Trained = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A 3x3 convolution, padded to keep the size, with its adapters.

    Args:
        into, out: channels.
        size: height and width.
        lanes, images: L and N.
        kind: one of ``KINDS``.
        factor: ``decompose_factor``.
        channels_last: whether x lies so in memory, else (L·N, C, H, W).
    """

    into: int
    out: int
    size: int
    lanes: int
    images: int = 16
    kind: str = "plain"
    factor: int = 4
    channels_last: bool = True

    @property
    def name(self) -> str:
        """Such as ``96x128 16x16 32x16 plain f=4 NHWC``."""
        order = "NHWC" if self.channels_last else "NCHW"
        rows = f"{self.lanes}x{self.images}"
        shape = f"{self.into}x{self.out} {self.size}x{self.size}"
        return f"{shape} {rows} {self.kind} f={self.factor} {order}"

    @property
    def format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def images_of(self, channels: int, device: str, dtype: torch.dtype, seed: int) -> Tensor:
        """Random (L·N, channels, H, W)."""
        generator = torch.Generator(device).manual_seed(seed)
        shape = (self.lanes * self.images, channels, self.size, self.size)
        drawn = torch.randn(shape, generator=generator, device=device, dtype=dtype)
        return drawn.contiguous(memory_format=self.format)

    def weight(self, device: str, dtype: torch.dtype) -> Tensor:
        """The frozen weight."""
        generator = torch.Generator().manual_seed(2)
        weight = torch.randn(self.out, self.into, 3, 3, generator=generator) / self.into**0.5 / 3
        return weight.to(device, dtype).contiguous(memory_format=self.format)

    def factors(self, device: str) -> Factors:
        """Random factors that are trained, fp32."""
        r, effective = KINDS[self.kind]
        config = LoKrConfig(
            r=r, decompose_factor=self.factor, use_effective_conv2d=effective, target_modules=["x"]
        )
        spec = factor_spec(LayerShape(self.out, self.into, (3, 3)), config, r, r)
        generator = torch.Generator().manual_seed(1)
        drawn = {}
        for name, shape in spec.shapes.items():
            if name == "lokr_w2_b" and not effective:
                shape = (shape[0], spec.d, 3, 3)
            values = torch.randn(self.lanes, *shape, generator=generator) / 4
            drawn[name.removeprefix("lokr_")] = values.to(device).requires_grad_()
        return Factors(**drawn)


# -- the ways -----------------------------------------------------------------------------------


def frozen(x: Tensor, weight: Tensor, _f: Factors) -> Tensor:
    """Without adapters."""
    return F.conv2d(x, weight, padding=1)


def pytorch(x: Tensor, weight: Tensor, f: Factors) -> Tensor:
    """Lanes as groups of one small convolution of the channel groups."""
    return F.conv2d(x, weight, padding=1) + product.conv(x, f, SETTINGS)


def fused(x: Tensor, weight: Tensor, f: Factors) -> Tensor:
    """In Triton, added onto the frozen convolution."""
    with kernels.force("triton"):
        return kernels.adapted_conv(x, weight.to(x.dtype), None, f, SETTINGS)


WAYS = {"frozen": frozen, "pytorch": pytorch, "fused": fused}


# -- measuring ----------------------------------------------------------------------------------


def layers(device: str, lanes: Sequence[int]) -> list[Layer]:
    """What is measured, the widest pack first."""
    if device == "cpu":
        pack = [Layer(into=i, out=o, size=s, lanes=4, images=8) for i, o, s in UNET]
        return [one for one in pack if one.lanes in lanes or 32 in lanes]
    chosen = []
    for count in sorted(lanes, reverse=True):
        full = UNET if count > 1 else FEW
        chosen += [Layer(into=i, out=o, size=s, lanes=count) for i, o, s in full]
        for kind in ("effective", "full"):
            chosen += [Layer(into=i, out=o, size=s, lanes=count, kind=kind) for i, o, s in FEW[:2]]
        other = Layer(into=192, out=96, size=32, lanes=count)
        chosen += [replace(other, channels_last=False), replace(other, factor=8)]
    if 1 in lanes:
        sizes = {"lanes": 1, "images": 4, "factor": 8}
        for order in (False, True):
            shapes = STABLE_DIFFUSION if not order else STABLE_DIFFUSION[:2]
            chosen += [
                Layer(into=i, out=o, size=s, channels_last=order, **sizes) for i, o, s in shapes
            ]
        chosen.append(Layer(into=320, out=320, size=64, kind="effective", **sizes))
    return chosen


def measure(layer: Layer, device: str, ways: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of a pass by each way, or why there are none.

    Returns:
        The layer's fields, ``name``, ``milliseconds`` and ``reasons``, JSON-ready.
    """
    row: dict[str, Any] = {"name": layer.name, **asdict(layer), "milliseconds": {}, "reasons": {}}
    for way in ways:
        try:
            row["milliseconds"][way] = _milliseconds(layer, device, way)
        except (RuntimeError, NotImplementedError) as error:
            row["reasons"][way] = first_line(error)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    return row


def _milliseconds(layer: Layer, device: str, way: str) -> float:
    """Of one pass, the median of a few samples."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pixels = layer.lanes * layer.images * layer.size**2
    sets = input_sets(pixels * (layer.into + layer.out) * dtype.itemsize, device)
    calls = [_call(layer, device, dtype, way, seed) for seed in range(sets)]
    clock = runner(calls, device, partial(precision, device))
    if clock.reason is not None:
        raise RuntimeError(clock.reason)
    clock.run(1)
    return statistics.median(clock.milliseconds(1) for _ in range(SAMPLES))


def _call(
    layer: Layer, device: str, dtype: torch.dtype, way: str, seed: int
) -> Callable[[], Trained]:
    """A forward and backward pass on inputs of its own."""
    x = layer.images_of(layer.into, device, dtype, seed).requires_grad_()
    gy = layer.images_of(layer.out, device, dtype, seed + 1000)
    weight, factors = layer.weight(device, dtype), layer.factors(device)
    trained = [x, *(t for t in factors if t is not None and way != "frozen")]
    return lambda: torch.autograd.grad(WAYS[way](x, weight, factors), trained, gy)


def compile_only(layer: Layer) -> None:
    """Compile the programs of a layer into Triton's cache on disk."""
    small = replace(layer, lanes=1, images=1)
    with precision("cuda"):
        _call(small, "cuda", torch.bfloat16, "fused", 0)()


def compile_all(chosen: Sequence[Layer], processes: int) -> None:
    """Compile for all layers side by side; a failure is met again, and said, when measuring."""
    distinct = {replace(one, lanes=1, images=1, channels_last=True): None for one in chosen}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        waiting = [pool.apply_async(compile_only, (one,)) for one in distinct]
        for one in waiting:
            one.wait()


# -- tile sizes ---------------------------------------------------------------------------------

PROGRAMS = ("slide", "adjoint", "slide_weight")
TILED = (
    Layer(into=224, out=96, size=32, lanes=32),
    Layer(into=192, out=96, size=32, lanes=32, factor=8),
    Layer(into=128, out=128, size=16, lanes=32),
    Layer(into=320, out=320, size=64, lanes=1, images=4, factor=8),
)


def tile_choices(program: str) -> list[tiles.Tile]:
    """Tiles worth trying for a program."""
    wide = "BS" if program == "slide_weight" else "BQ"
    rows, stages = ((32, 64, 128), (2, 3)) if wide == "BS" else ((64, 128, 256), (1, 3))
    return [
        {"BM": m, "BK": k, wide: 64, "num_stages": n, "num_warps": w}
        for m, k, n, w in itertools.product(rows, (64, 128), stages, (4, 8))
        if m * k <= 16384
    ]


def compile_tiles(job: tuple[str, Layer]) -> None:
    """Compile a program for a layer with every tile, into Triton's cache on disk."""
    program, layer = job
    small = replace(layer, lanes=1, images=1)
    for tile in tile_choices(program):
        try:
            _launch(program, small, tile, 0, "cuda")()
        except Exception:  # too large a tile: met again when timed
            continue


def search_tiles(only: str, processes: int) -> None:
    """Time the programs with every tile, and print the best."""
    jobs = [(p, layer) for layer in TILED if only in layer.name for p in PROGRAMS]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(compile_tiles, jobs, chunksize=1)
    for program, layer in jobs:
        timed = sorted(_tile_timings(program, layer), key=operator.itemgetter(0))
        print(f"{layer.name} {program}", flush=True)
        for milliseconds, tile in (*timed[:5], timed[-1]):
            print(f"   {milliseconds:8.4f} ms  {tile}", flush=True)


def _tile_timings(program: str, layer: Layer) -> Iterator[tuple[float, tiles.Tile]]:
    usual = _usual_tile(program, layer)
    for tile in (usual, *tile_choices(program)):
        try:
            calls = [_launch(program, layer, tile, seed, "cuda") for seed in range(2)]
            clock = runner(calls, "cuda")
            clock.run(1)
            yield statistics.median(clock.milliseconds(1) for _ in range(SAMPLES)), tile
        except Exception as error:  # too large a tile
            print(f"{layer.name} {program} {tile}: {type(error).__name__}", flush=True)


def _usual_tile(program: str, layer: Layer) -> tiles.Tile:
    """The tile that ``lokr`` takes."""
    r, s = layer.factors("cpu").low[1].shape[1:3]
    if program == "slide_weight":
        return tiles.slide_weight(s, 9 * r, torch.bfloat16)
    into, out = (s, r) if program == "slide" else (r, s)
    return tiles.slide(9 * into, out, torch.bfloat16)


def _launch(
    program: str, layer: Layer, tile: tiles.Tile, seed: int, device: str
) -> Callable[[], Any]:
    """A launch of a program for a layer's w2_b, with this tile."""
    weight = layer.factors(device).low[1].detach()
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    x = layer.images_of(layer.into, device, dtype, seed).permute(0, 2, 3, 1)
    t = convolution._taps(x, weight, [1, 1], [1] * 4, [1, 1])
    h = x.new_ones(convolution._shape(t))
    if program == "slide_weight":
        bs = min(tile["BS"], tiles.power(t.s, 16))
        return partial(convolution._weight_gradient, t, x, h, {**tile, "BS": bs})
    adjoint = program == "adjoint"
    order = (0, 3, 4, 1, 2) if adjoint else (0, 3, 4, 2, 1)
    bq = min(tile["BQ"], tiles.power(t.s if adjoint else t.q, 16))
    operands = (h, weight.permute(order), x) if adjoint else (x, weight.permute(order), h)
    chosen = {**tile, "BQ": bq}
    return partial(convolution._gather_product, t, *operands, adjoint, adjoint, tile=chosen)


# -- the command line ---------------------------------------------------------------------------


def show(row: dict[str, Any], ways: Sequence[str]) -> None:
    """A line of the table."""
    numbers = [row["milliseconds"].get(way) for way in ways]
    cells = ["       -" if ms is None else f"{ms:8.3f}" for ms in numbers]
    print(f"{row['name']:42s}", *cells, flush=True)
    for way, reason in row["reasons"].items():
        print(f"    {way}: {reason}", flush=True)


def ways_on(device: str) -> list[str]:
    """Ways that a device has: Triton's needs a GPU, or its interpreter."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return [way for way in WAYS if way != "fused" or device == "cuda" or interpreted]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lanes", default="1,32", help="packs to measure (a CPU has one of 4)")
    parser.add_argument("--only", default="", help="layers whose name contains this")
    parser.add_argument("--tiles", action="store_true", help="only the tile sizes of the programs")
    parser.add_argument("--processes", type=int, default=12, help="compilers side by side")
    parser.add_argument("--json", help="write all timings here")
    options = parser.parse_args(arguments)
    if options.tiles:
        search_tiles(options.only, options.processes)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lanes = [int(count) for count in options.lanes.split(",")]
    chosen = [one for one in layers(device, lanes) if options.only in one.name]
    if device == "cuda":
        compile_all(chosen, options.processes)
    ways = ways_on(device)
    print(f"{'milliseconds of a pass':42s}", *(f"{way:>8s}" for way in ways), flush=True)
    rows = []
    for layer in chosen:
        rows.append(measure(layer, device, ways))
        show(rows[-1], ways)
        if options.json:
            Path(options.json).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
