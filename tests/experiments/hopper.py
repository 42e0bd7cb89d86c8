"""Compiles the programs of frozen norms for an H100 without one: a script, as tests/lokr/hopper.py.

Prints a line of JSON a program: its name, its shared memory in bytes, and whether it reads large
tensors 16 bytes at a time.
"""

from __future__ import annotations

import json
import re
from typing import Any

from experiments.frozen import group_norm, group_programs, norm_programs
from tests.hopper import compile_program

HALF = ("x", "y", "gy", "gx", "half", "ghalf")
SIZES = ((96, 32 * 32), (128, 16 * 16), (224, 32 * 32), (320, 64 * 64))
"""Channels and pixels, of the emoji base and of Stable Diffusion."""
WIDTHS = (384, 768, 1024)


def compiled(program: Any, constants: dict[str, Any], full: tuple[str, ...] = ()) -> dict[str, Any]:
    """What is printed; ``full`` names tensors that are fp32 here and half precision elsewhere."""
    kinds = {name: _kind(name, constants, full) for name in program.arg_names}
    kernel = compile_program(program, kinds, constants)
    wide = re.search(r"ld\.global[.\w:]*v4\.b32", kernel.asm["ptx"]) is not None
    return {"program": program.__name__, "shared": kernel.metadata.shared, "wide": wide}


def _kind(name: str, constants: dict[str, Any], full: tuple[str, ...]) -> str:
    if name in constants:
        return "constexpr"
    if name in ("Q", "m"):
        return "i32"
    if name == "eps":
        return "fp32"
    return "*bf16" if name in HALF and name not in full else "*fp32"


def group_norms(channels: int, pixels: int) -> list[dict[str, Any]]:
    """All programs of a group norm with SiLU."""
    rows, gathered = group_norm.constants(channels, pixels, 32)
    p, silu = group_programs, {**rows, "SILU": True}
    by_rows = [(p.moments, rows), (p.apply, silu), (p.sums, silu), (p.apply_backward, silu)]
    return [compiled(*one) for one in (*by_rows, (p.gather, gathered), (p.gather_sums, gathered))]


def norms(width: int) -> list[dict[str, Any]]:
    """The programs of a sum and its norm, and of a norm alone."""
    tile = {"width": width, "H": 4, "W": 1024, "num_warps": 8}
    flags = {"FULL": True, "HALF": True, "RESIDUAL": True}
    p = norm_programs
    return [
        compiled(p.add_norm, {**tile, "SUM": True, "KEEP": True}, full=("y",)),
        compiled(p.add_norm, {**tile, "SUM": False, "KEEP": True}),
        compiled(p.add_norm_backward, {**tile, **flags}, full=("gy",)),
    ]


if __name__ == "__main__":
    for size in SIZES:
        for one in group_norms(*size):
            print(json.dumps(one))
    for row in WIDTHS:
        for one in norms(row):
            print(json.dumps(one))
