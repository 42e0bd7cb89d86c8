"""Launches Triton programs, or compiles them ahead of their first launch, many at a time.

Each size of layer has programs of its own. Little of what compiling them takes is Python's, so that
threads share the work.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

import torch

from lokr import kernels

_rehearsal: Context | None = None
"""In which programs are compiled and not run; None: they run."""


def launch(program: Any, grid: tuple[int, ...], /, *args: Any, **constants: Any) -> None:
    """Run a program of ``triton.jit`` where its tensors are, or compile it in a :func:`rehearsal`.

    Args:
        program: what runs.
        grid: number of programs along up to three axes.
        args: its arguments, a tensor first.
        constants: its constants, ``num_warps`` and ``num_stages``.
    """
    device = args[0].device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):  # Triton's is the current one
            launch(program, grid, *args, **constants)
    elif _rehearsal is None:
        program[grid](*args, **constants)
    else:  # a copy: autograd calls from a thread of its own, and a context serves one at a time
        _rehearsal.copy().run(program.warmup, *args, grid=grid, **constants)


def rehearse(device: torch.device, *jobs: Callable[[], object]) -> None:
    """Have the programs that these jobs launch compiled side by side, if it is worthwhile.

    See :func:`rehearsal`: nothing that the jobs compute is of use.
    """
    with rehearsal(device) as worthwhile:
        for job in jobs if worthwhile else ():
            job()


@contextmanager
def rehearsal(device: torch.device) -> Iterator[bool]:
    """Compile what is launched inside, on all cores, and run none of it; at the end all is ready.

    What the programs would have written stays as the memory happened to be, and so does all that
    is computed from it: whoever rehearses throws the results away. It holds for the whole process:
    no other thread may need results meanwhile.

    Args:
        device: where the launches would go.

    Yields:
        Whether anything is compiled: False where Triton is not chosen, or too old to compile in
        threads; then launches run as ever.
    """
    global _rehearsal
    mode = _mode() if kernels.chooses_triton(device) else None
    if mode is None:
        yield False
        return
    with ThreadPoolExecutor() as threads:
        entered, context = mode(threads), copy_context()
        context.run(entered.__enter__)
        _rehearsal = context
        try:
            yield True
        finally:
            _rehearsal = None
            context.run(entered.__exit__, None, None, None)  # waits, and says what went wrong


def _mode() -> Any:
    """Triton's mode of compiling in threads; None where there is none."""
    return getattr(importlib.import_module("triton"), "AsyncCompileMode", None)
