"""Where a number comes from: commit, versions and devices.

No host name, no user name, no absolute path: results are made to be published.
"""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "lokr-bench",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "datasets",
    "numpy",
    "scikit-learn",
    "scipy",
    "triton",
)
_HERE = Path(__file__)
_CODE = ("lokr", "experiments", "pyproject.toml")  # what can change a number, tests aside


def collect(device: str) -> dict[str, Any]:
    """The provenance that all trials of one run share.

    Args:
        device: ``"cpu"`` or ``"cuda"``, as torch names it.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"
    return {
        "commit": commit(),
        "dirty": dirty(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "cuda": torch.version.cuda,
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The commit of the checkout that this file belongs to; None outside a checkout."""
    return _git("rev-parse", "HEAD") if _tracked() else None


def dirty() -> bool | None:
    """Whether the code differs from the commit, new files included; None outside a checkout."""
    if not _tracked():
        return None
    changes = _git("status", "--porcelain", "--", *_CODE)
    return None if changes is None else changes != ""


def _tracked() -> bool:
    """An installed copy may lie inside some other repository, whose commit says nothing."""
    return _git("ls-files", "--error-unmatch", f"{_HERE.parent.name}/{_HERE.name}") is not None


def _git(*arguments: str) -> str | None:
    """What git says in the folder above this package; None if it fails or is not installed."""
    command = ["git", "-C", str(_HERE.parent.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    """The processor's name: from Linux's table where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
