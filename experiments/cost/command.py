"""``python -m experiments cost STUDY``: what one trial of each cell costs when it trains alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from experiments.command import (
    Data,
    Device,
    DeviceName,
    Sets,
    StudyName,
    err,
    explained,
    folder,
    place,
)
from experiments.cost import energy
from experiments.cost.records import Records
from experiments.errors import BenchError
from experiments.study import Study
from experiments.trial import Trial

Cells = dict[str, Trial]  # label -> its first trial


def cost(
    study: StudyName,
    cells: Annotated[
        str | None,
        typer.Option(
            help="Only the first N cells, or those whose label has this text in it, such as "
            "`lora` or `r=8`.",
            show_default="all",
        ),
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Folder of the results: RESULTS/cost/STUDY/HARDWARE/ID.json.")
    ] = Path("results"),
    device: DeviceName = Device.AUTO,
    data: Data = None,
    sets: Sets = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Turns of the trial and of the frozen base.",
            show_default="10, on a CPU 4",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each turn.", show_default="20, on a CPU 3"),
    ] = None,
    energy_seconds: Annotated[
        float, typer.Option(min=0.1, help="Least window over which energy is read, on a GPU.")
    ] = energy.SECONDS,
    again: Annotated[
        bool, typer.Option("--again", help="Measure also what this code has measured here.")
    ] = False,
) -> None:
    """Measure what one trial of each cell costs when it trains alone.

    Time of a step and of its parts, beside the frozen base in turns; memory; energy; size on disk;
    latency of an answer, with the adapter apart and merged. On a GPU nobody else may use it: a
    busy one is refused. On a CPU there is no energy and no CUDA graph.

    What this commit has measured on this hardware is not measured again. Exit status: 1 if a cell
    could not be measured, 130 after Ctrl-C; what is measured is kept.
    """
    with explained():
        from experiments import provenance, studies
        from experiments.cost.measure import Settings
        from experiments.overrides import override

        chosen = override(studies.load(study), sets or [])
        picked = pick(chosen, cells)
        where = place(device)
        records = Records(results, chosen.name, provenance.collect(where))
        settings = Settings.of(where, rounds, steps, energy_seconds)
        run = _Run(chosen, records, settings, where, folder(data))
        raise typer.Exit(1 if run.all(picked, again) else 0)


def pick(study: Study, cells: str | None) -> Cells:
    """The first trial of each cell that is asked for; cells that are one function stand once.

    Args:
        study: the study.
        cells: how many, or a text in their labels; None for all.

    Raises:
        BenchError: no cell is left.
    """
    from experiments import sizes
    from experiments.plan import collapse

    distinct, _ = collapse(study.trials, sizes.layers_of)
    firsts = {label: members[0] for label, members in study.cells(distinct).items()}
    if cells is None:
        return firsts
    if cells.isdecimal():
        found = dict(list(firsts.items())[: int(cells)])
    else:
        found = {label: trial for label, trial in firsts.items() if cells in label}
    if not found:
        raise BenchError(
            f"--cells {cells!r}: expected how many cells, at least 1, or a text in their labels; "
            f"there are {', '.join(map(repr, firsts))}"
        )
    return found


class _Run:
    """One call of the command."""

    def __init__(
        self, study: Study, records: Records, settings: Any, device: Device, data: str | None
    ) -> None:
        self.study = study
        self.records = records
        self.settings = settings
        self.device = device
        self.data = data
        self.out = Console()

    def all(self, cells: Cells, again: bool) -> list[str]:
        """Measure the cells and show them; the labels of those that could not be measured."""
        there = {} if again else self._there(cells)
        left = {label: trial for label, trial in cells.items() if label not in there}
        self._announce(left, there)
        failed: list[str] = []
        try:
            for number, (label, trial) in enumerate(left.items(), 1):
                self.out.print(f"[{number}/{len(left)}] {label}", markup=False, highlight=False)
                record = self._one(label, trial)
                if record is None:
                    failed.append(label)
                else:
                    there[label] = record
        finally:
            # Also after Ctrl-C: what is done is on disk, so show it.
            self._show([there[label] for label in cells if label in there])
        return failed

    def _there(self, cells: Cells) -> dict[str, dict[str, Any]]:
        found = {label: self.records.current(trial.id) for label, trial in cells.items()}
        return {label: record for label, record in found.items() if record is not None}

    def _announce(self, left: Cells, there: dict[str, Any]) -> None:
        known = f"; {len(there)} measured before, --again measures them anew" if there else ""
        self.out.print(
            f"{self.study.name}: cells to measure on {self.records.hardware}: {len(left)}{known}",
            highlight=False,
        )
        if self.device is Device.CPU and left:
            self.out.print("a CPU: no energy, no CUDA graph, no peak memory", highlight=False)

    def _one(self, label: str, trial: Trial) -> dict[str, Any] | None:
        """Measure one trial and save it; None, and a line that says why, if it cannot run."""
        from experiments.cost.measure import measure

        try:
            measured = measure(trial, self.device, self.data, self.settings)
        except BenchError:
            raise
        except Exception as error:  # one cell must not take the others with it
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
            err.print(f"not measured: {label}: {reason}", markup=False, soft_wrap=True)
            return None
        record = self._record(label, trial, measured)
        self.records.write(record)
        return record

    def _record(self, label: str, trial: Trial, measured: dict[str, Any]) -> dict[str, Any]:
        from experiments.cost.records import SCHEMA

        shared = {
            "schema": SCHEMA,
            "id": trial.id,
            "study": self.study.name,
            "cell": label,
            "trial": trial.to_dict(),
            "hardware": self.records.hardware,
        }
        provenance = {**self.records.provenance, **measured["provenance"]}
        return {**shared, **measured, "provenance": provenance}

    def _show(self, records: Sequence[dict[str, Any]]) -> None:
        from experiments.cost import table

        if not records:
            return
        self.out.print()
        table.show(self.out, records)
        self.out.print(f"\nFiles: {self.records.folder}", highlight=False, soft_wrap=True)
