"""Where the time of a packed step goes, kernel by kernel: what explains a figure, not a figure.

On a CPU: operator by operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from experiments import tasks
from experiments.bench.packed_step import of_one_split, pack_step
from experiments.bench.sheets import Sheet
from experiments.bench.sweep import Sweep
from experiments.step import own_stream

STEPS = 3
WARM_UP = 3
NAME = 100
"""Letters of a kernel's name that are shown."""


def sheet(sweep: Sweep, lanes: int, most: int) -> Sheet:
    """The kernels that take longest in a step of ``lanes`` trials of one split.

    Args:
        sweep: the study, and where it runs.
        lanes: trials side by side.
        most: rows.
    """
    device = torch.device(sweep.device)
    trials = of_one_split(sweep, lanes)
    on_gpu = device.type == "cuda"
    with own_stream(device):
        task = tasks.load(trials[0], sweep.data)
        train, _, _ = pack_step(task, trials, device, WARM_UP + STEPS)
        for _ in range(WARM_UP):
            train()
        with profile(
            activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
        ) as seen:
            for _ in range(STEPS):
                train()
            if on_gpu:
                torch.cuda.synchronize()
    times, launches = Counter[str](), Counter[str]()
    for name, microseconds in _events(seen, on_gpu):
        times[name] += microseconds / 1000 / STEPS
        launches[name] += 1
    rows = [
        (name[:NAME], f"{ms:.3f}", f"{launches[name] / STEPS:g}")
        for name, ms in times.most_common(most)
    ]
    total = f"{times.total():.2f}", f"{launches.total() / STEPS:g}"
    return Sheet(
        f"A step of {len(trials)} lanes of {trials[0].task} on {sweep.base}",
        ("kernel" if on_gpu else "operator", "ms a step", "launches"),
        [*rows, ("all", *total)],
    )


def _events(seen: profile, on_gpu: bool) -> Iterator[tuple[str, float]]:
    """Name and microseconds of every kernel, or of every operator without those inside it."""
    for event in seen.events():
        if not on_gpu:
            yield event.name, event.self_cpu_time_total
        elif event.device_type == DeviceType.CUDA:
            yield event.name, event.self_device_time_total
