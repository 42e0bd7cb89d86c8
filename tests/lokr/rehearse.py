"""Rehearses layers for an H100 without one: a script, since the suite interprets Triton.

Prints a line of JSON: programs compiled in the rehearsal, and after it; programs run in it, and
after it; and whether all that were compiled in it came from threads.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import torch
import triton
from triton.compiler import CompiledKernel
from triton.runtime import driver

from lokr import kernels
from lokr.kernels import linear
from lokr.kernels.launch import rehearse
from tests.hopper import H100

CPU = torch.device("cpu")
compiled: list[str] = []
ran: list[Any] = []


class Driver:
    """What a launch asks a GPU's driver."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return H100


def layer(a: int, b: int, r: int) -> None:
    """Forward and backward pass of a square layer; r = 0: with a full w2."""
    x = torch.randn(64, a * b, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(a * b, a * b, dtype=torch.bfloat16)
    shapes = ((a, a), (b, r), (r, b)) if r else ((a, a), (b, b))
    w1, *w2 = (torch.randn(1, *shape, requires_grad=True) for shape in shapes)
    factors = (w1, None, *w2) if r else (w1, *w2, None, None)
    linear.adapted_linear(x, weight, None, *factors, fused=True).sum().backward()


def layers() -> None:
    """One of each kind: a tile holds all of a low-rank w2, a part of one, a part of a full one."""
    layer(4, 24, 2)
    layer(2, 136, 2)
    layer(2, 72, 0)


if __name__ == "__main__":
    driver.set_active(Driver())
    kernels.chooses_triton = lambda device: True
    CompiledKernel.run = property(lambda kernel: lambda *_: ran.append(kernel))
    CompiledKernel.launch_metadata = lambda *_: None
    triton.knobs.compilation.listener = lambda **_: compiled.append(threading.current_thread().name)
    other = threading.Thread(target=layers)  # as autograd's is
    rehearse(CPU, layers, other.start, other.join)
    first = {"compiled": len(compiled), "ran": len(ran)}
    threads = threading.main_thread().name not in compiled and other.name not in compiled
    layers()
    after = {"compiled": len(compiled) - first["compiled"], "ran": len(ran)}
    print(json.dumps({"in": first, "after": after, "threads": threads}))
