"""Measures the tile sizes of ``lokr.kernels`` on this GPU: where its tables come from.

    python -m experiments.bench.tiles [--out tiles.json] [--only 3072]

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
from typing import Any

import torch

from lokr.kernels import linear, programs
from lokr.kernels.linear import Dims, _pow2

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
    "16 lanes 384x384 f-1 full": Dims(16, 4096, 16, 24, 16, 24, 0),
}
PER_SM = (2, 4)
BANDWIDTH = 3.0e12  # bytes a second, a copy on an H100


def candidates(program: str, s: Dims) -> Iterator[dict[str, Any]]:
    """Tiles worth trying."""
    tall = max(_pow2(s.a), _pow2(s.c))
    r = max(16, _pow2(s.r)) if s.r else 0
    b, d = max(16, _pow2(s.b)), max(16, _pow2(s.d))
    a_c = {"A": _pow2(s.a), "C": _pow2(s.c)}
    tokens = sorted({max(1, rows // tall) for rows in (64, 128, 256)})
    if program == "forward":
        axes = itertools.product(
            tokens, {min(b, 32), min(b, 64), min(b, 128)}, {min(d, 32), min(d, 64), min(d, 128)},
            (4, 8), (3,),
        )  # fmt: skip
        for bn, bb, bd, warps, stages in axes:
            q = r or bb
            yield {"BN": bn, **a_c, "Q": q, "BB": bb, "BD": bd, **_launch(warps, stages)}
    elif program == "backward_out":
        tokens = sorted({max(1, rows // _pow2(s.a)) for rows in (32, 64, 128, 256)})
        axes = itertools.product(
            tokens, {min(b, 64), min(b, 128), min(b, 256), min(b, 512)}, (4, 8), (2, 4)
        )
        for bn, bb, warps, stages in axes:
            if bn * a_c["A"] * bb <= 32768:
                yield {"BN": bn, "A": a_c["A"], "R": r, "BB": bb, **_launch(warps, stages)}
    elif program == "backward_in":
        tokens = sorted({max(1, rows // tall) for rows in (32, 64, 128, 256)})
        axes = itertools.product(
            tokens, {min(d, 64), min(d, 128), min(d, 256), min(d, 512)}, (4, 8), (1, 2, 3)
        )
        for bn, bd, warps, stages in axes:
            if bn * a_c["C"] * bd <= 32768:
                yield {"BN": bn, **a_c, "R": r, "BD": bd, **_launch(warps, stages)}
    else:
        whole = max(s.b, s.d) <= linear.WHOLE
        sizes = [(b, d)] if whole else [(64, 32), (64, 64), (128, 32), (128, 64)]
        for bn, (bb, bd), warps, stages in itertools.product(tokens, sizes, (4, 8), (1, 2, 3)):
            tile = {"WHOLE": whole, "BN": bn, **a_c, "BB": bb, "BD": bd}
            yield {**tile, **_launch(warps, stages)}


def _launch(warps: int, stages: int) -> dict[str, int]:
    return {"num_warps": warps, "num_stages": stages}


class Buffers:
    """Inputs and outputs of one shape."""

    def __init__(self, s: Dims) -> None:
        new = {"device": "cuda", "dtype": torch.bfloat16}
        rows = s.lanes * s.n
        self.x = torch.randn(rows, s.c * s.d, **new)
        self.gy = torch.randn(rows, s.a * s.b, **new)
        self.y, self.gx = torch.empty_like(self.gy), torch.empty_like(self.x)
        self.u = torch.randn(rows, s.a * max(s.r, 1), **new)
        self.gz = torch.empty(rows, s.c * s.b, **new)
        self.w1 = torch.randn(s.lanes, s.a, s.c, device="cuda")
        self.w2 = torch.randn(s.lanes, s.b, s.d, device="cuda")
        self.w2_a = torch.randn(s.lanes, s.b, max(s.r, 1), device="cuda")
        self.w2_b = torch.randn(s.lanes, max(s.r, 1), s.d, device="cuda")
        self.bias = torch.randn(s.a * s.b, device="cuda", dtype=torch.bfloat16)


def call(program: str, s: Dims, t: Buffers, tile: dict[str, Any], per_sm: int) -> Any:
    """Grid and arguments of one launch."""
    f32 = {"dtype": torch.float32, "device": "cuda"}
    if program == "forward":
        blocks = 1 if s.r else -(-s.b // tile["Q"])
        grid = (-(-s.n // tile["BN"]), blocks, s.lanes)
        right = t.w2_b if s.r else t.w2
        args = (t.x, t.w1, right, t.w2_a, t.bias, t.y, t.u, s.n, *s[2:])
        return programs.forward, grid, args, {"BIAS": True, **tile}
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    width = {"backward_out": ("BB", s.b), "backward_in": ("BD", s.d), "backward_full": ("BB", s.b)}
    name, size = width[program]
    blocks = -(-size // tile[name])
    p = max(1, min(-(-s.n // tile["BN"]), -(-per_sm * sms // (s.lanes * blocks))))
    g_w1 = torch.empty(p * blocks, s.lanes, s.a, s.c, **f32)
    if program == "backward_out":
        gu = torch.empty(blocks, s.lanes * s.n, s.a * s.r, device="cuda")
        gu = gu if blocks > 1 else gu.to(t.x.dtype)
        out = torch.empty(p, s.lanes, s.b, s.r, **f32)
        args = (t.gy, t.u, t.w2_a, gu, out, s.n, s.lanes, s.a, s.b, s.r)
        return programs.backward_out, (p, blocks, s.lanes), args, tile
    if program == "backward_in":
        out = torch.empty(p, s.lanes, s.r, s.d, **f32)
        args = (t.u, t.x, t.w1, t.w2_b, t.gx, out, g_w1, s.n, s.lanes, s.a, s.c, s.d, s.r)
        flags = {"BLOCKS": 1, "NEEDS_X": True}
        return programs.backward_in, (p, blocks, s.lanes), args, {**flags, **tile}
    g_w2 = torch.empty(p, s.lanes, s.b, s.d, **f32)
    args = (t.gy, t.x, t.w1, t.w2, t.gz, t.gx, g_w2, g_w1, s.n, s.lanes, *s[2:6])
    return programs.backward_full, (p, blocks, s.lanes), args, {"NEEDS_X": True, **tile}


def programs_for(s: Dims) -> tuple[str, ...]:
    return ("forward", "backward_out", "backward_in") if s.r else ("forward", "backward_full")


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


def seconds(program: str, s: Dims, sets: list[Buffers], tile: dict[str, Any], per_sm: int) -> float:
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
    moved = {"forward": x + y, "backward_out": y, "backward_in": 2 * x, "backward_full": 2 * x + y}
    return moved[program] / BANDWIDTH


def main() -> None:
    """Print the best tiles of every program at every shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", help="write all timings here, as JSON")
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    parser.add_argument("--processes", type=int, default=16, help="compilers side by side")
    options = parser.parse_args()
    names = [name for name in SHAPES if options.only in name]
    jobs = [(name, program) for name in names for program in programs_for(SHAPES[name])]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(compile_only, jobs), 1):
            print(f"compiled {done}/{len(jobs)}", end="\r", file=sys.stderr, flush=True)
    results = []
    for name, program in jobs:
        s = SHAPES[name]
        size = s.lanes * s.n * (s.c * s.d + s.a * s.b) * 2
        sets = [Buffers(s) for _ in range(max(2, min(8, int(200e6 // size) + 1)))]
        rows = []
        for tile in candidates(program, s):
            for per_sm in (0,) if program == "forward" else PER_SM:
                try:
                    took = seconds(program, s, sets, tile, per_sm)
                except Exception as error:
                    print(name, program, tile, type(error).__name__, str(error)[:80])
                    continue
                rows.append({"seconds": took, "per_sm": per_sm, **tile})
        rows.sort(key=lambda row: row["seconds"])
        if program == "forward":
            base = [(t, torch.randn(s.a * s.b, s.c * s.d).to(t.x)) for t in sets]
            plain = graph_seconds([partial(torch.mm, t.x, w.t(), out=t.y) for t, w in base])
            onto = graph_seconds([partial(t.y.addmm_, t.x, w.t()) for t, w in base])
            print(f"{name} frozen product {plain * 1e6:.1f} us, accumulated {onto * 1e6:.1f} us")
        print(f"{name} {program}: floor {floor(program, s) * 1e6:.1f} us", flush=True)
        for row in rows[:4] + rows[-1:]:
            rest = {k: v for k, v in row.items() if k not in ("seconds", "A", "C", "R", "WHOLE")}
            print(f"   {row['seconds'] * 1e6:7.1f} us  {rest}", flush=True)
        results.append({"shape": name, "program": program, "rows": rows})
        if options.out:
            with open(options.out, "w") as file:
                json.dump(results, file)


if __name__ == "__main__":
    main()
