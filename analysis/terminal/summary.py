"""A study in tables and figures: what the cells of each task and base score, and what they draw."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rich.console import Console

from analysis import labels
from analysis.figures import samples
from analysis.figures.pareto import draw as pareto
from analysis.figures.style import Lacking, save
from analysis.load import load
from analysis.part import Part, parts
from analysis.provenance import mixed
from analysis.terminal import judged, layout
from analysis.terminal.say import say, warn


def summarize(folder: Path, console: Console | None = None) -> None:
    """Print the cells of a study and write ``<folder>/figures/<task>-<base>.csv`` and
    ``<task>-<base>-pareto.{png,pdf}``.

    One table and one figure for each task and base in the study; where samples were drawn, one more
    table and ``<task>-<base>-samples.{png,pdf}``.

    Raises:
        FileNotFoundError: the folder holds no results.
    """
    console = console or Console()
    frame = load(folder)
    for name, why in frame.attrs["unread"].items():
        warn(console, f"{name} holds no result and was left out: {why}")
    (folder / "figures").mkdir(exist_ok=True)
    for part in parts(frame, folder):
        _summarize_part(part, console)
    say(console, f"results {folder}/*.json")
    say(console, "next    make report: what all results say; make list: the other studies")


def _summarize_part(part: Part, console: Console) -> None:
    table = part.cells
    short, notes = labels.shortened(table, part.trials), labels.explained(table, part.trials)
    console.print(layout.scores(short, part.title, part.metric, notes, console))
    for sentence in mixed(part.trials):
        warn(console, f"mixed   {sentence}")
    drawn = judged.samples(short, part.trials, part.metric, console)
    if drawn is not None:
        console.print(drawn)
    table.to_csv(f"{_place(part)}.csv", index=False)
    say(console, f"table   {_place(part)}.csv")
    _draw_front(part, console)
    if drawn is not None:
        _show_samples(part, console)
    elif part.metric == "gain":
        say(console, "samples none were drawn (samples=0)")


def _draw_front(part: Part, console: Console) -> None:
    try:
        save(pareto(part), _place(part, "-pareto"))
    except Lacking as reason:
        warn(console, f"figure  none: {reason}")
    else:
        say(console, f"figure  {_place(part, '-pareto')}.png (and .pdf)")


def _show_samples(part: Part, console: Console) -> None:
    if any(part.pictures.glob("*-photos.webp")):  # sheets of many prompts have no truth beside them
        say(console, f"samples {part.pictures}/*.webp")
        return
    if lacking := samples.unreadable(part):
        warn(console, f"no picture can be read from {part.pictures}: {', '.join(lacking)}")
    with suppress(Lacking):  # then all were named just now
        save(samples.draw(part), _place(part, "-samples"))
        say(console, f"samples {_place(part, '-samples')}.png (and .pdf)")


def _place(part: Part, name: str = "") -> Path:
    """Where a figure goes, without a suffix."""
    return part.folder / "figures" / f"{part.slug}{name}"
