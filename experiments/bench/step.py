"""One training step of one trial: the frozen base alone, PEFT's adapters, ours.

``plain`` is the loop that most people write: autocast, backward, ``torch.optim.AdamW`` (fused on a
GPU), no clipping. ``ours eager`` and ``ours`` are :class:`experiments.step.PackStep`, launched
operation by operation and from a CUDA graph (with ``run --compile``: ``ours, base compiled``); it
clips. The same step serves PEFT's adapters, to
tell what the adapter costs from what the loop costs.

Every contender has a process of its own, so that its peak memory is its own. Legend: L lanes;
B rows a lane; N rows of the data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from experiments import batches
from experiments.bench.floor import Step, floor
from experiments.bench.synthetic import RandomTokens, Size
from experiments.bench.timing import first_line, laps
from experiments.methods import attach
from experiments.step import PackStep, own_stream

WARM_UP = 20
SMALL = Size(
    hidden=256,
    layers=2,
    heads=4,
    intermediate=1024,
    vocabulary=1000,
    rows=16,
    tokens=32,
    lanes=2,
    steps=20,
    precision="fp32",
)
FLOOR, FLOOR_CAPTURED = "frozen base, eager", "frozen base, captured"
LORA, PEFT = "PEFT LoRA", "PEFT LoKr"
LORA_CAPTURED, PEFT_CAPTURED = "PEFT LoRA, our step captured", "PEFT LoKr, our step captured"
EAGER, OURS, LANES = "ours, eager", "ours", "ours, side by side"
COMPILED = "ours, base compiled"


def names(device: str) -> tuple[str, ...]:
    """The contenders of a device, in the order of the table: no graphs on a CPU."""
    captured = (FLOOR_CAPTURED, LORA_CAPTURED, PEFT_CAPTURED, OURS, COMPILED)
    return tuple(n for n in _BUILD if device == "cuda" or n not in captured)


def in_process(name: str, size: Size, device: str) -> dict[str, Any]:
    """:func:`measure` in a fresh process; a contender that fails is a row with its reason."""
    context = get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        future = pool.submit(measure, name, size, device, torch.get_num_threads())
        try:
            return future.result()
        except Exception as error:  # whatever a peer raises, or a process that was killed
            return _row(name, size, reason=f"{type(error).__name__}: {first_line(error)}")


def measure(name: str, size: Size, device: str, threads: int) -> dict[str, Any]:
    """Time one contender.

    Returns:
        JSON-ready: ``size``, ``lanes``, ``samples`` (ms of each step), ``allocated_bytes`` and
        ``reserved_bytes`` (peaks, null on a CPU), ``reason``.
    """
    torch.set_num_threads(threads)
    place = torch.device(device)
    with own_stream(place):
        step = _BUILD[name](size, place)
        for _ in range(WARM_UP):
            step()
        samples = laps(step, size.steps, device)
    peaks = _peaks() if device == "cuda" else {}
    return _row(name, size, samples=samples, **peaks)


def _row(name: str, size: Size, **measured: Any) -> dict[str, Any]:
    empty = {"samples": None, "allocated_bytes": None, "reserved_bytes": None, "reason": None}
    lanes = size.lanes if name == LANES else 1
    return {"size": size.to_dict(), "lanes": lanes, **empty, **measured}


def _peaks() -> dict[str, int]:
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def _floor(size: Size, device: torch.device, captured: bool) -> Step:
    rows = torch.arange(size.rows)
    task = RandomTokens(size)
    batch = task.train.gather(rows.to(device), None)
    return floor(task, [batch], device, size.precision, captured)


def _plain(size: Size, device: torch.device, method: str) -> Step:
    """PEFT in the loop that most people write; the data is on the device already."""
    task = RandomTokens(size)
    model = attach([size.trial(method)], task).model.to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=device.type == "cuda")
    chunks = itertools.cycle(torch.arange(task.train_size, device=device).split(size.rows))

    def step() -> None:
        batch = task.train.gather(next(chunks), None)
        with torch.autocast(device.type, torch.bfloat16, enabled=size.precision == "bf16"):
            loss = task.loss(model, batch, 1)
        loss.sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _pack(
    size: Size,
    device: torch.device,
    method: str,
    lanes: int,
    captured: bool,
    compiled: bool = False,
) -> Step:
    """Our step, with whichever adapter; ``compiled`` is ``run --compile``."""
    task = RandomTokens(size)
    trials = [size.trial(method, seed) for seed in range(lanes)]
    adapted = attach(trials, task)
    adapted.model.to(device)
    steps = WARM_UP + size.steps
    pack = PackStep(task, adapted, trials, device, steps=steps, capture=captured, compile=compiled)
    rows = torch.arange(steps * size.rows) % task.train_size
    order = batches.plan(rows.expand(lanes, -1), size.rows)
    pack.train_feed.load(order)
    pack.prepare(order.steps)
    return partial(pack.train, order.steps[0])


def _side_by_side(size: Size, device: torch.device) -> Step:
    return _pack(size, device, "lokr", size.lanes, captured=device.type == "cuda")


_BUILD: dict[str, Callable[[Size, torch.device], Step]] = {
    FLOOR: partial(_floor, captured=False),
    FLOOR_CAPTURED: partial(_floor, captured=True),
    LORA: partial(_plain, method="lora"),
    PEFT: partial(_plain, method="lokr-peft"),
    LORA_CAPTURED: partial(_pack, method="lora", lanes=1, captured=True),
    PEFT_CAPTURED: partial(_pack, method="lokr-peft", lanes=1, captured=True),
    EAGER: partial(_pack, method="lokr", lanes=1, captured=False),
    OURS: partial(_pack, method="lokr", lanes=1, captured=True),
    COMPILED: partial(_pack, method="lokr", lanes=1, captured=True, compiled=True),
    LANES: _side_by_side,
}
