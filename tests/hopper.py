"""Compiles Triton programs for an H100 without one, in a process where they are not interpreted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

H100 = GPUTarget("cuda", 90, 32)


def compile_program(program: Any, kinds: dict[str, str], constants: dict[str, Any]) -> Any:
    """The compiled program.

    Args:
        program: of ``triton.jit``.
        kinds: type of every argument, such as ``"*bf16"``; a constant's is ``"constexpr"``.
        constants: values of the constants, ``num_warps`` and maybe ``num_stages``.
    """
    fixed = {name: constants[name] for name, kind in kinds.items() if kind == "constexpr"}
    options = {name: constants[name] for name in ("num_warps", "num_stages") if name in constants}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(program.arg_names)
        if kinds[name].startswith("*") or name.startswith("step_")
    }  # as tensors are, and lanes; without it nothing is loaded ahead, which takes the memory
    return triton.compile(ASTSource(program, kinds, fixed, aligned), target=H100, options=options)


def printed_by(module: str) -> list[dict[str, Any]]:
    """Lines of JSON that a script of the tests prints in a process of its own."""
    root = Path(__file__).parents[1]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=root,
        env={**environment, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
