"""Measures the tile sizes of ``lokr.kernels`` on this GPU: where its tables come from.

    python -m experiments.bench.tiles [--paths] [--out tiles.json] [--only 3072]

For each shape every candidate of each program is compiled (in processes, side by side), checked for
speed on rotating buffers larger than the cache, and the best are printed beside the time that the
bytes alone would take.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lokr.kernels import linear, programs, tiles
from lokr.kernels.tiles import Dims, Tile, power

SHAPES = {
    "768x768 f8 r8": Dims(1, 32768, 8, 96, 8, 96, 8),
    "3072x768 f8 r8": Dims(1, 32768, 8, 384, 8, 96, 8),
    "3072x3072 f-1 r8": Dims(1, 4096, 48, 64, 48, 64, 8),
    "3072x3072 f8 r8": Dims(1, 4096, 8, 384, 8, 384, 8),
    "4096x4096 f8 r16": Dims(1, 8192, 8, 512, 8, 512, 16),
    "12288x3072 f8 r8": Dims(1, 4096, 8, 1536, 8, 384, 8),
    "384x384 f-1 r8": Dims(1, 32768, 16, 24, 16, 24, 8),
    "16 lanes 384x384 f-1 r8": Dims(16, 4096, 16, 24, 16, 24, 8),
    "16 lanes 384x384 f8 r8": Dims(16, 4096, 8, 48, 8, 48, 8),
    "768x768 f-1 r8": Dims(1, 4096, 24, 32, 24, 32, 8),
    "3072x768 f-1 r8": Dims(1, 4096, 48, 64, 24, 32, 8),
    "3072x3072 f8 full": Dims(1, 4096, 8, 384, 8, 384, 0),
    "768x768 f-1 full": Dims(1, 4096, 24, 32, 24, 32, 0),
    "16 lanes 384x384 f-1 full": Dims(16, 4096, 16, 24, 16, 24, 0),
}
PER_SM = (1, 2, 4, 1000)
BANDWIDTH = 3.0e12  # bytes a second, a copy on an H100
PROGRAMS = {
    "forward": ("BB", "BD"),
    "backward_low_rank": (),
    "backward_out": ("BB",),
    "backward_in": ("BD",),
    "backward_full": (),
    "mix": ("BB",),
    "mix_backward": ("BD",),
}
"""Program -> those of its tile sizes that are free."""


def candidates(program: str, s: Dims) -> Iterator[Tile]:
    """Tiles worth trying."""
    usual = getattr(tiles, program)(s, torch.bfloat16)
    tall = power(s.a) if program == "backward_out" else max(power(s.a), power(s.c))
    tokens = sorted({max(1, rows // tall) for rows in (32, 64, 128, 256)})
    free = PROGRAMS[program]
    widths = {"BB": s.b, "BD": s.d}
    sizes_of = (64, 128) if program == "forward" else (64, 128, 256)
    choices = [{min(power(widths[name], 16), w) for w in sizes_of} for name in free]
    stages = {"forward": (3, 4), "mix": (1,)}.get(program, (1, 3, 4))
    for bn, warps, depth, *sizes in itertools.product(tokens, (4, 8), stages, *choices):
        tile = {**usual, "BN": bn, **dict(zip(free, sizes, strict=True))}
        width = max(tile.get("BB", 16), tile.get("BD", 16))
        if 1024 <= bn * tall * width <= 32768:
            yield {**tile, "num_warps": warps, "num_stages": depth}


class Buffers:
    """Inputs and outputs of one shape."""

    def __init__(self, s: Dims, dtype: torch.dtype = torch.bfloat16) -> None:
        new = {"device": "cuda", "dtype": dtype}
        rows = s.lanes * s.n
        self.x = torch.randn(rows, s.c * s.d, **new)
        self.gy = torch.randn(rows, s.a * s.b, **new)
        self.y, self.gx = torch.empty_like(self.gy), torch.empty_like(self.x)
        self.u = torch.randn(rows, s.a * max(s.r, 1), **new)
        self.z = torch.randn(rows, s.c * s.b, **new)
        self.gv = torch.randn(rows, s.a * s.d, **new)
        self.w1 = torch.randn(s.lanes, s.a, s.c, device="cuda")
        self.w2 = torch.randn(s.lanes, s.b, s.d, device="cuda")
        self.w2_a = torch.randn(s.lanes, s.b, max(s.r, 1), device="cuda")
        self.w2_b = torch.randn(s.lanes, max(s.r, 1), s.d, device="cuda")
        self.bias = torch.randn(s.a * s.b, **new)


def call(program: str, s: Dims, t: Buffers, tile: Tile, per_sm: int) -> Any:
    """Program, grid, arguments and constants of one launch; all lanes read the same factors."""
    count = tiles.count(s, tile)
    blocks = -(-s.b // tile["BB"]) if program in ("backward_out", "mix") else 1
    blocks = -(-s.d // tile["BD"]) if program in ("backward_in", "mix_backward") else blocks
    if program == "mix":
        args = (t.z, t.w1, t.w1, t.bias, t.y, t.y, s.n, 0, s.a, s.b, s.c)
        flags = {"BIAS": True, "ONTO": False, "SCALED": False}
        return programs.mix, (count, blocks, s.lanes), args, {**flags, **tile}
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    p = max(1, min(count, -(-per_sm * sms // (s.lanes * blocks))))
    if program == "forward":
        right = t.w2_b if s.r else t.w2
        args = (t.x, t.w1, t.w1, right, t.w2_a, t.bias, t.y, t.y, t.u, s.n, 0, 0, 0, *s[2:])
        flags = {"BIAS": True, "ONTO": False, "SCALED": False, "KEEP_U": tiles.keeps_u(s)}
        return programs.forward, (p if tile["LOOP"] else count, s.lanes), args, {**flags, **tile}
    width = blocks * s.a * s.c + s.b * max(s.r, s.d) + s.r * s.d
    sums = linear._sums(p, s, width, t.x)
    sizes = (s.n, s.lanes)
    size = s.lanes * s.n * s.a * s.r
    grid = (p, blocks, s.lanes)
    back = {"NEEDS_X": True, "SCALED": False}
    if program == "backward_out":
        gu = torch.empty(blocks, size, device="cuda")
        gu = gu if blocks > 1 else gu.to(t.x.dtype)
        args = (t.gy, t.u, t.w2_a, gu, sums, *sizes, size, 0, width, 0, s.a, s.b, s.r)
        return programs.backward_out, grid, args, tile
    if program == "backward_in":
        numbers = (size, 0, 0, width, 0, s.a, s.c, s.d, s.r)
        args = (t.u, t.x, t.w1, t.w1, t.w2_b, t.gx, sums, *sizes, *numbers)
        return programs.backward_in, grid, args, {"BLOCKS": 1, **back, **tile}
    if program == "mix_backward":
        args = (t.gv, t.x, t.w1, t.w1, t.gv, t.gx, sums, *sizes, 0, s.a, s.c, s.d)
        return programs.mix_backward, grid, args, {**back, **tile}
    if program == "backward_low_rank":
        args = (t.gy, t.x, t.w1, t.w1, t.w2_a, t.w2_b, t.gx, sums, *sizes, 0, 0, 0, *s[2:])
        return programs.backward_low_rank, (p, s.lanes), args, {**back, **tile}
    args = (t.gy, t.x, t.w1, t.w1, t.w2, t.gx, sums, *sizes, 0, 0, *s[2:6])
    return programs.backward_full, (p, s.lanes), args, {**back, **tile}


def programs_for(s: Dims) -> tuple[str, ...]:
    """Those that a layer of these sizes runs."""
    if s.r:
        apart = () if tiles.in_a_tile(s) else ("backward_out", "backward_in")
        together = ("backward_low_rank",) if max(s.b, s.d) <= 512 else ()
        return ("forward", *together, *apart)
    return ("forward", "backward_full") if tiles.in_a_tile(s) else ("mix", "mix_backward")


def compile_only(job: tuple[str, str]) -> None:
    """Compile every candidate of a program at a shape, into Triton's cache on disk."""
    shape, program = job
    s = SHAPES[shape]
    small = Buffers(s._replace(n=16))
    for tile in candidates(program, s):
        kernel, grid, args, keywords = call(program, s._replace(n=16), small, tile, 4)
        try:
            kernel.warmup(*args, grid=grid, **keywords)
        except Exception:  # too large a tile: timed as such later
            continue


def seconds(program: str, s: Dims, sets: list[Buffers], tile: Tile, per_sm: int) -> float:
    """Median seconds of a launch, over rotating buffers."""
    calls = [call(program, s, t, tile, per_sm) for t in sets]
    return graph_seconds([partial(kernel[grid], *args, **kw) for kernel, grid, args, kw in calls])


def graph_seconds(calls: list[Callable[[], Any]]) -> float:
    """Median seconds of a call when all of them are replayed in one graph."""
    for one in calls:
        one()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for one in calls:
            one()
    times = []
    for _ in range(7):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000 / len(calls))
    return sorted(times)[len(times) // 2]


def floor(program: str, s: Dims) -> float:
    """Seconds that the bytes of a program take."""
    x, y = s.lanes * s.n * s.c * s.d * 2, s.lanes * s.n * s.a * s.b * 2
    u, z = s.lanes * s.n * s.a * s.r * 2, s.lanes * s.n * s.c * s.b * 2
    v = s.lanes * s.n * s.a * s.d * 2
    moved = {
        "forward": x + y + (u if tiles.keeps_u(s) else 0),
        "backward_low_rank": 2 * x + y,
        "backward_out": y + 2 * u,
        "backward_in": 2 * x + u,
        "backward_full": 2 * x + y,
        "mix": z + y,
        "mix_backward": 2 * (v + x),
    }
    return moved[program] / BANDWIDTH


def layers(names: list[str]) -> None:
    """Forward and backward of whole layers, frozen and adapted."""
    for name in names:
        s = SHAPES[name]
        size = s.lanes * s.n * (s.c * s.d + s.a * s.b) * 2
        count = max(2, min(6, int(200e6 // size) + 1))
        weight = torch.randn(s.a * s.b, s.c * s.d, device="cuda", dtype=torch.bfloat16)
        sets = [Buffers(s) for _ in range(count)]
        frozen = [partial(_frozen, t, weight) for t in sets]
        row = [f"{name:28s} frozen {graph_seconds(frozen) * 1e6:6.1f} us"]
        adapted = [partial(_adapted, s, t, weight) for t in sets]
        row.append(f"with the adapter {graph_seconds(adapted) * 1e6:6.1f} us")
        print("  ".join(row), flush=True)


def paths() -> None:
    """Triton against PyTorch at few and many tokens: where ``kernels.serves`` draws its line."""
    for name in ("384x384 f-1 r8", "768x768 f-1 r8", "3072x3072 f8 r8", "768x768 f-1 full"):
        for n, dtype in itertools.product((64, 512, 4096), (torch.bfloat16, torch.float32)):
            s = SHAPES[name]._replace(n=n)
            t = Buffers(s, dtype)
            weight = torch.randn(s.a * s.b, s.c * s.d, device="cuda", dtype=dtype)
            took = [
                graph_seconds([partial(_adapted, s, t, weight, fused)] * 8) * 1e6
                for fused in (True, False)
            ]
            kind = str(dtype).removeprefix("torch.")
            print(
                f"{name:18s} n={n:<5d} {kind:9s} Triton {took[0]:7.1f}  PyTorch {took[1]:7.1f} us"
            )


def _frozen(t: Buffers, weight: torch.Tensor) -> None:
    torch.mm(t.x, weight.t())
    torch.mm(t.gy, weight)


def _adapted(s: Dims, t: Buffers, weight: torch.Tensor, fused: bool = True) -> None:
    dtype = torch.float32 if fused else t.x.dtype
    given = (t.w1, None, t.w2_a, t.w2_b) if s.r else (t.w1, t.w2, None, None)
    factors = [None if f is None else f.to(dtype) for f in given]
    _, u, h = linear._forward(t.x, weight, t.bias, *factors, fused, None, None)
    linear._backward(t.gy, t.x, u, h, weight, *factors, True, fused, None)


def measure(name: str, program: str) -> list[dict[str, Any]]:
    """Seconds of every candidate of a program at a shape, the fastest first."""
    s = SHAPES[name]
    size = s.lanes * s.n * (s.c * s.d + s.a * s.b) * 2
    sets = [Buffers(s) for _ in range(max(2, min(8, int(200e6 // size) + 1)))]
    rows = []
    for tile in candidates(program, s):
        for per_sm in (0,) if program == "mix" else PER_SM:
            try:
                took = seconds(program, s, sets, tile, per_sm)
            except Exception as error:  # a tile too large for the GPU
                print(f"{name} {program} {list(tile.values())}: {type(error).__name__}")
            else:
                rows.append({"seconds": took, "per_sm": per_sm, **tile})
    return sorted(rows, key=lambda row: row["seconds"])


def show(name: str, program: str, rows: list[dict[str, Any]]) -> None:
    """The best four and the worst, beside the floor."""
    print(f"{name} {program}: floor {floor(program, SHAPES[name]) * 1e6:.1f} us")
    for row in rows[:4] + rows[-1:]:
        rest = {k: v for k, v in row.items() if k not in ("seconds", "A", "C", "R")}
        print(f"   {row['seconds'] * 1e6:7.1f} us  {rest}", flush=True)


def search(only: str, wanted: list[str], processes: int, out: str | None) -> None:
    """Measure programs at shapes, compiled side by side first."""
    names = [name for name in SHAPES if only in name]
    layers(names)
    jobs = [(n, p) for n in names for p in programs_for(SHAPES[n]) if p in wanted]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(compile_only, jobs), 1):
            print(f"compiled {done}/{len(jobs)}", end="\r", file=sys.stderr, flush=True)
    results = []
    for name, program in jobs:
        rows = measure(name, program)
        show(name, program, rows)
        results.append({"shape": name, "program": program, "rows": rows})
        if out is not None:
            Path(out).write_text(json.dumps(results))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", help="write all timings here, as JSON")
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="programs to measure")
    parser.add_argument("--processes", type=int, default=16, help="compilers side by side")
    parser.add_argument("--paths", action="store_true", help="only Triton against PyTorch")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: there is no GPU here, and nothing to measure without one")
    if options.paths:
        paths()
    else:
        search(options.only, options.programs.split(","), options.processes, options.out)


if __name__ == "__main__":
    main()
