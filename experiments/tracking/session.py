"""Runs of Weights & Biases, online or into files that ``wandb sync`` uploads later.

Here is all that the project knows of wandb. No key is read or written by us: wandb finds the
account by itself where it is online, and needs none where it is not. Nothing that is no result is
recorded: no console, code, git state, machine, host name or load.

wandb has one service process for all runs of this process, so the first run pays for its start and
every other one takes about as long as its rows take to be handed over.
"""

from __future__ import annotations

import importlib
import os
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.errors import BenchError
from experiments.tracking.record import Record

PROJECT = "lokr-bench"


class Mode(StrEnum):
    """Where runs go."""

    DISABLED = "disabled"
    OFFLINE = "offline"
    ONLINE = "online"


class Session:
    """Runs of one project.

    Args:
        mode: online or offline.
        project: name of W&B's project; the entity is wandb's affair (``WANDB_ENTITY``).
        sweep: leave the run's id to the sweep whose agent started this process.

    Raises:
        BenchError: wandb is not installed, or there is no account to go online with.
    """

    def __init__(self, mode: Mode, project: str, *, sweep: bool = False) -> None:
        _no_reports()
        self.mode = mode
        self.project = project
        self.sweep = sweep
        self.place: str | None = None  # folder or address of the runs; None before the first
        self._pattern = "*"
        self._root = os.environ.get("WANDB_DIR") or str(Path.cwd())
        self._wandb = load("wandb", f"--wandb {mode}", "wandb")
        if mode is Mode.ONLINE:
            require_account("--wandb online", "use --wandb offline and upload later")

    def log(self, record: Record) -> None:
        """One whole run; it replaces what is online under its id.

        Raises:
            Exception: whatever wandb raises.
        """
        run = self._wandb.init(
            project=self.project,
            id=None if self.sweep else record.id,
            name=record.name,
            group=record.group,
            job_type=record.job_type,
            tags=record.tags,
            config=record.config,
            mode=self.mode.value,
            dir=self._root,
            reinit="create_new",  # several at once; wandb.run stays nobody's
            settings=self._wandb.Settings(**_PRIVATE),
        )
        try:
            self._fill(run, record)
        except BaseException:
            run.finish(exit_code=1)
            raise
        online = self.mode is Mode.ONLINE
        self.place = run.project_url if online else _spell(Path(run.dir).parents[1])
        self._pattern = "*" if self.sweep else f"*-{record.group}-*"
        run.finish(exit_code=record.exit_code)

    @property
    def upload(self) -> str:
        """The command that uploads what was logged offline; the shell finds the runs."""
        return f"wandb sync {self.place}/offline-run-{self._pattern}"

    def _fill(self, run: Any, record: Record) -> None:
        for step, row in record.history:
            if row:
                run.log(row, step=step)
        images = {
            key: self._wandb.Image(str(path), caption=f"{key}: {record.name}")
            for key, path in record.pictures.items()
        }
        if images:
            run.log(images, step=max((step for step, _ in record.history), default=0))
        run.summary.update(record.summary)


def load(name: str, asked: str, extra: str) -> ModuleType:
    """A package that is imported only when it is asked for.

    Args:
        name: of the module.
        asked: what asks for it.
        extra: the extra of this project that has it.

    Raises:
        BenchError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BenchError(
            f'{asked} needs a package that is not installed: pip install "lokr-bench[{extra}]"'
        ) from None


def require_account(asked: str, instead: str) -> None:
    """Before anything is done, and without asking: a key may be typed into ``wandb login`` only.

    Args:
        asked: what needs the account.
        instead: what can be done without one.

    Raises:
        BenchError: there is none, or the environment says that W&B is not to be online.
    """
    _no_reports()
    wandb = load("wandb", asked, "wandb")
    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        raise BenchError(f"{asked}: $WANDB_MODE is {mode!r}; unset it, or {instead}")
    try:
        known = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        raise BenchError(f"{asked}: {error}") from error
    if not known:
        raise BenchError(f"{asked}: no account is set up here; run `wandb login`, or {instead}")


_PRIVATE = {
    "console": "off",
    "silent": True,
    "host": "",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


def _spell(folder: Path) -> str:
    """As seen from here, if it lies here."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _no_reports() -> None:
    """Keep wandb from reporting its own errors, and from looking its server up for that: it does so
    offline too. A user who wants it sets the variable."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
