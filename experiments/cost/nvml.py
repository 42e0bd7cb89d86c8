"""A GPU as its driver sees it, through NVML: who else uses it, and its energy counter.

The package is nvidia-ml-py (``import pynvml``), imported only when asked for. It sees what torch
cannot: other processes. In a container process ids may be hidden or be the host's, so three
signs are read, and any of them is enough: processes, memory, and work while we do none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.errors import BenchError

OTHERS_BYTES = 3 << 29
"""Memory in use beyond what torch holds here: our own context and libraries take up to 1 GiB."""
IDLE_PERCENT = 5
"""Utilization of an idle GPU; what a display or a monitor may take."""
SETTLE_SECONDS = 1.0
"""NVML averages utilization over up to a second: our own last work must fade first."""
LOOKS, PAUSE_SECONDS = 10, 0.1
"""The idle window: so many looks, so far apart."""


class Gpu:
    """One GPU.

    Args:
        nvml: the module ``pynvml``.
        handle: of the device.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def millijoules(self) -> int:
        """Energy used since the driver was loaded.

        Raises:
            BenchError: this GPU has no counter.
        """
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise BenchError(f"this GPU gives no energy counter: {error}") from error

    def utilization(self) -> int | None:
        """Percent of the last moment in which a kernel ran; None where it is not given (MIG)."""
        try:
            return int(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        except self._nvml.NVMLError:
            return None

    def processes(self) -> list[int] | None:
        """Ids of the processes that hold a compute context; None where they are not given."""
        try:
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        return [process.pid for process in found]

    def used_bytes(self) -> int | None:
        """Memory in use by all processes, the driver's own reserve left out where it is told."""
        try:
            return int(self._memory().used)
        except self._nvml.NVMLError:
            return None

    def _memory(self) -> Any:
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        if version is None:  # an old pynvml, whose figure includes the reserve
            return self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        return self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=version)


def find(device: str) -> Gpu | WithoutNvml:
    """The GPU that torch calls ``device``."""
    try:
        import pynvml
    except ImportError:
        return WithoutNvml(device, "it needs the package nvidia-ml-py, which is not installed")
    import torch

    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    try:
        pynvml.nvmlInit()
        # By UUID: NVML's numbers do not follow CUDA_VISIBLE_DEVICES.
        return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except pynvml.NVMLError as error:
        return WithoutNvml(device, f"NVML does not give this GPU: {error}")


class WithoutNvml:
    """The little that torch says of a GPU's other users.

    Args:
        device: as torch names it.
        reason: why NVML does not say more.
    """

    def __init__(self, device: str, reason: str) -> None:
        self._device = device
        self._reason = reason

    def millijoules(self) -> int:
        """Not known.

        Raises:
            BenchError: says why.
        """
        raise BenchError(self._reason)

    def utilization(self) -> None:
        """Not known."""

    def processes(self) -> None:
        """Not known."""

    def used_bytes(self) -> int:
        """Memory in use by all processes."""
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        return total - free


def check_alone(
    gpu: Gpu | WithoutNvml, held_bytes: int, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Refuse a GPU that somebody else uses; takes two seconds, in which this process must be idle.

    Args:
        gpu: the device; this process has a context there.
        held_bytes: what torch has reserved there for this process.
        sleep: waits so many seconds.

    Returns:
        What was seen: ``other_processes``, ``other_bytes`` (our own context is among them) and
        ``idle_utilization`` (percent, the highest); null where NVML does not give it.

    Raises:
        BenchError: the GPU is busy, or none of the three can be seen.
    """
    sleep(SETTLE_SECONDS)
    looks = [_look(gpu, sleep) for _ in range(LOOKS)]
    used = gpu.used_bytes()
    seen = {
        "other_processes": _others(gpu.processes()),
        "other_bytes": None if used is None else max(0, used - held_bytes),
        "idle_utilization": max((look for look in looks if look is not None), default=None),
    }
    if all(value is None for value in seen.values()):
        raise BenchError("nothing says whether this GPU is used alone: cost is not measured on it")
    if signs := _signs(seen):
        raise BenchError(
            f"the GPU is busy ({', '.join(signs)}): cost is measured on a GPU used alone; "
            "wait for the others, or choose another with CUDA_VISIBLE_DEVICES"
        )
    return seen


def _look(gpu: Gpu | WithoutNvml, sleep: Callable[[float], None]) -> int | None:
    sleep(PAUSE_SECONDS)
    return gpu.utilization()


def _others(pids: Sequence[int] | None) -> int | None:
    """How many processes are not ours: one is, since we hold a context, whatever its number."""
    return None if pids is None else max(0, len(set(pids)) - 1)


def _signs(seen: dict[str, Any]) -> list[str]:
    """What tells of others, for people."""
    processes, others, busy = seen.values()
    signs = []
    if processes:
        signs.append(f"{processes} other process{'es' if processes > 1 else ''}")
    if others is not None and others > OTHERS_BYTES:
        signs.append(f"{others / 2**30:.1f} GiB held by others")
    if busy is not None and busy > IDLE_PERCENT:
        signs.append(f"{busy}% utilized while this process does nothing")
    return signs
