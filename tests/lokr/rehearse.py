"""Rehearses a layer for an H100 without one: a script, since the suite interprets Triton.

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
from lokr.kernels.launch import rehearsal
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


def layer() -> None:
    """Forward and backward pass of a layer with a low-rank w2."""
    x = torch.randn(64, 96, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(96, 96, dtype=torch.bfloat16)
    w1, w2_a, w2_b = (
        torch.randn(1, *shape, requires_grad=True) for shape in ((4, 4), (24, 2), (2, 24))
    )
    y = linear.adapted_linear(x, weight, None, w1, None, w2_a, w2_b, fused=True)
    y.sum().backward()


if __name__ == "__main__":
    driver.set_active(Driver())
    kernels.chooses_triton = lambda device: True
    CompiledKernel.run = property(lambda kernel: lambda *_: ran.append(kernel))
    CompiledKernel.launch_metadata = lambda *_: None
    triton.knobs.compilation.listener = lambda **_: compiled.append(threading.current_thread().name)
    with rehearsal(CPU) as worthwhile:
        layer()
        other = threading.Thread(target=layer)  # as autograd's is
        other.start()
        other.join()
    first = {"compiled": len(compiled), "ran": len(ran)}
    threads = threading.main_thread().name not in compiled and other.name not in compiled
    layer()
    after = {"compiled": len(compiled) - first["compiled"], "ran": len(ran)}
    print(json.dumps({"worthwhile": worthwhile, "in": first, "after": after, "threads": threads}))
