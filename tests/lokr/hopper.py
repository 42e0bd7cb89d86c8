"""Compiles the Triton programs for an H100, without one: a script, since the suite interprets them.

Prints a line of JSON a program: its name, sizes and shared memory in bytes.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from lokr.kernels import conv_programs, programs, tiles
from lokr.kernels.tiles import Dims
from tests.hopper import compile_program

HALF = ["x", "y", "u", "bias", "onto", "gy", "gx", "z", "v", "gv", "g", "source", "weight", "out"]
COUNTS = ("n", "lanes", "size", "images", "height", "width", "out_height", "out_width")
PIECES = ("parts", "head", "rest", "blocks")
STEPS = ("step_1", "step_2", "step_a", "step_b")
# What the tables of tiles.py depend on: few and many factors, small and large r, full w2.
SIZES = (
    Dims(1, 64, 2, 384, 2, 384, 64),
    Dims(1, 64, 64, 304, 64, 304, 32),
    Dims(1, 64, 128, 112, 128, 112, 16),
    Dims(1, 64, 64, 112, 64, 112, 32),
    Dims(1, 64, 128, 64, 128, 64, 0),
    Dims(1, 64, 1, 304, 1, 304, 0),
    Dims(1, 64, 64, 304, 64, 304, 0),
    Dims(1, 64, 8, 512, 8, 512, 16),
    Dims(1, 64, 128, 256, 64, 64, 8),
    Dims(1, 64, 72, 256, 72, 256, 16),
    Dims(1, 64, 8, 2368, 8, 448, 64),
    Dims(1, 64, 8, 1024, 8, 1024, 128),
    Dims(1, 64, 8, 1024, 8, 1024, 256),
    Dims(1, 64, 1, 112, 8, 112, 32),
    Dims(1, 64, 8, 64, 1, 64, 0),
)
# Of convolutions: c, channels of a group before, and after.
SLIDES = ((8, 160, 8), (4, 24, 8), (4, 70, 70))


def shared_memory(program: Any, s: Dims, tile: dict[str, int], **constants: Any) -> int:
    """Bytes of shared memory that the compiled program takes."""
    return _shared_memory(program, {**s._asdict(), **constants, **tile}, s, tile)


def _shared_memory(program: Any, given: dict[str, Any], s: Dims | None, tile: tiles.Tile) -> int:
    kinds = {name: _type(name, given, s, tile) for name in program.arg_names}
    return int(compile_program(program, kinds, {**given, **tile}).metadata.shared)


def _type(name: str, given: dict[str, Any], s: Dims | None, tile: dict[str, int]) -> str:
    if name in COUNTS + PIECES + STEPS:
        return "i32"
    if name in given:
        return "constexpr"
    if name in ("p", "q"):
        return "i32"
    if name == "gu":
        assert s is not None
        return "*bf16" if tiles.b_blocks(s, torch.bfloat16) == 1 else "*fp32"
    return "*bf16" if name in HALF else "*fp32"


def all_programs(s: Dims) -> dict[str, int]:
    """Shared memory of every program that a layer of these sizes runs, in bf16."""
    half = torch.bfloat16
    added = {"BIAS": True, "ONTO": True, "SCALED": True}
    into, grads = {**added, "KEEP_U": tiles.keeps_u(s)}, {"NEEDS_X": True, "SCALED": True}
    if tiles.in_a_tile(s):
        back = ("backward_low_rank" if s.r else "backward_full", grads)
        wanted = [("forward", into), back]
    elif s.r:
        place = {"SUMS": 1, "AT": 0}
        wanted = [("forward", into), ("backward_out", place)]
        wanted.append(("backward_in", {**place, **grads, "BLOCKS": tiles.b_blocks(s, half)}))
    else:
        wanted = [("mix", added), ("mix_backward", grads)]
    taken = {
        name: shared_memory(getattr(programs, name), s, getattr(tiles, name)(s, half), **constants)
        for name, constants in wanted
    }
    if not tiles.in_a_tile(s):
        taken["add_up"] = shared_memory(programs.add_up, s, tiles.add_up(264))
    return taken


def slide_programs(c: int, s: int, q: int) -> dict[str, int]:
    """Shared memory of the programs of a 3x3 convolution with stride 2, in bf16."""
    half = torch.bfloat16
    settings = {"KH": 3, "KW": 3, "SY": 2, "SX": 2, "PY": 1, "PX": 1, "DY": 1, "DX": 1}
    forward, back = tiles.slide(9 * s, q, half), tiles.slide(9 * q, s, half)
    weight = tiles.slide_weight(s, 9 * q, half)
    wanted = {
        "slide": (conv_programs.slide, {"s": s, "q": q, "ADJOINT": False, "ADD": False}, forward),
        "adjoint": (conv_programs.slide, {"s": q, "q": s, "ADJOINT": True, "ADD": True}, back),
        "slide_weight": (conv_programs.slide_weight, {"s": s, "q": q}, weight),
        "transpose": (conv_programs.transpose, {}, tiles.TRANSPOSE),
    }
    return {
        name: _shared_memory(program, {"c": c, **settings, **own, **tile}, None, tile)
        for name, (program, own, tile) in wanted.items()
    }


if __name__ == "__main__":
    for sizes in SIZES:
        assert tiles.fits(sizes.a, sizes.c, sizes.r), sizes
        print(json.dumps({"sizes": sizes, "shared": all_programs(sizes)}))
    for one in SLIDES:
        print(json.dumps({"sizes": one, "shared": slide_programs(*one)}))
