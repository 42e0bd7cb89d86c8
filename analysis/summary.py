"""A study in tables and figures: what the cells of each task and base score, and what they draw."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from analysis import judged, labels, tables
from analysis.figures import samples
from analysis.figures.pareto import pareto
from analysis.load import load
from analysis.selection import cells


class Part(NamedTuple):
    """The trials of a study that share a task and a base: what is compared with each other."""

    folder: Path
    task: str
    base: str
    frame: pd.DataFrame

    @property
    def title(self) -> str:
        return f"{self.task} on {self.base}"

    @property
    def metric(self) -> str:
        """Name of the score; "score" where no trial has one."""
        primary = self.frame["primary"].dropna()
        return str(primary.iloc[0]) if len(primary) else "score"

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    def figure(self, name: str = "") -> Path:
        """Where a figure goes, without a suffix."""
        return self.folder / "figures" / f"{self.task.replace('/', '-')}-{self.base}{name}"


def summarize(folder: Path, console: Console | None = None) -> None:
    """Print the cells of a study and write ``<folder>/figures/<task>-<base>.{png,pdf,csv}``.

    One table and one figure for each task and base in the study; where samples were drawn, one more
    table and ``<task>-<base>-samples.{png,pdf}``.

    Raises:
        FileNotFoundError: the folder holds no results.
    """
    console = console or Console()
    frame = load(folder)
    for name in frame.attrs["unread"]:
        _warn(console, f"{name} holds no result of this schema and was left out")
    (folder / "figures").mkdir(exist_ok=True)
    for (task, base), group in frame.groupby(["trial.task", "trial.base"]):
        _summarize_part(Part(folder, str(task), Path(str(base)).name, group), console)
    _say(console, f"results {folder}/*.json")
    _say(console, "next    make list shows the studies; make sweep STUDY=NAME runs another one")


def _summarize_part(part: Part, console: Console) -> None:
    table = cells(part.frame)
    short, notes = labels.shortened(table, part.frame), labels.explained(table, part.frame)
    console.print(tables.scores(short, part.title, part.metric, notes, console))
    drawn = judged.samples(short, part.frame, part.metric, console)
    if drawn is not None:
        console.print(drawn)
    table.to_csv(f"{part.figure()}.csv", index=False)
    _say(console, f"table   {part.figure()}.csv")
    _write(pareto(table, part.title, part.metric), part.figure())
    _say(console, f"figure  {part.figure()}.png (and .pdf)")
    if drawn is not None:
        _show_samples(part, short, notes, console)
    elif part.metric == "gain":
        _say(console, "samples none were drawn (samples=0)")


def _show_samples(part: Part, table: pd.DataFrame, notes: str, console: Console) -> None:
    if any(part.pictures.glob("*-photos.webp")):  # sheets of many prompts have no truth beside them
        _say(console, f"samples {part.pictures}/*.webp")
        return
    strips, lacking = samples.read(samples.wanted(part.pictures, table, part.frame, part.metric))
    if lacking:
        _warn(console, f"no picture can be read from {part.pictures}: {', '.join(lacking)}")
    if strips:
        _write(samples.samples(strips, part.title, notes), part.figure("-samples"))
        _say(console, f"samples {part.figure('-samples')}.png (and .pdf)")


def _write(figure: Figure, stem: Path) -> None:
    # No date and no version in the files: the same results give the same bytes.
    figure.savefig(f"{stem}.png", dpi=160, metadata={"Software": None})
    figure.savefig(f"{stem}.pdf", metadata={"CreationDate": None, "Producer": None})


def _say(console: Console, line: str, style: str | None = None) -> None:
    """One line whatever its length, so that a path can be copied."""
    console.print(line, style=style, soft_wrap=True, highlight=False, markup=False)


def _warn(console: Console, line: str) -> None:
    _say(console, line, "yellow")
