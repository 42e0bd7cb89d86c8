"""What the commands share: options, where to run, and a user's error as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.errors import BenchError

INTERRUPTED = 130  # what a shell expects of a process that Ctrl-C ended


class Device(StrEnum):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


StudyName = Annotated[str, typer.Argument(help="Name of a study; `list` shows them.")]
DeviceName = Annotated[Device, typer.Option(help="`auto` is the GPU if there is one.")]
Data = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        file_okay=False,
        help="Folder of the task's data: for `glue/TASK` parquet in the hub's layout, "
        "`DATA/TASK/{train,validation}-00000-of-00001.parquet`; for `dreambooth/SUBJECT` photos, "
        "`DATA/SUBJECT/*.jpg`.",
        show_default="GLUE from the hub",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set a field in every trial, such as `precision=bf16` or `target_modules=query,key`; "
        "may be repeated. Other numbers are other trials: they get their own results.",
    ),
]

err = Console(stderr=True)


def folder(data: Path | None) -> str | None:
    """``--data`` as tasks and trials take it."""
    return None if data is None else str(data)


@contextmanager
def explained() -> Iterator[None]:
    """One line instead of a traceback for what the user can mend; 130 for Ctrl-C."""
    try:
        yield
    except BenchError as error:
        _say(error)
        raise typer.Exit(1) from None
    except ValueError as error:
        if not str(error).startswith("LOKR_KERNEL="):  # read when lokr is imported
            raise
        _say(error)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(INTERRUPTED) from None


def _say(error: Exception) -> None:
    err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


def place(device: Device) -> Device:
    """Where ``auto`` is, and whether ``cuda`` is there at all.

    Raises:
        BenchError: torch sees no GPU.
    """
    if device is Device.CPU:
        return device
    import torch

    if torch.cuda.is_available():
        return Device.CUDA
    if device is Device.CUDA:
        raise BenchError("--device cuda: torch sees no GPU here; use --device cpu or auto")
    return Device.CPU
