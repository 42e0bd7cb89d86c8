"""Every figure of every part to its file, with what could not be drawn and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from analysis.figures import ACROSS, FIGURES
from analysis.figures.style import Lacking, save
from analysis.load import load, studies
from analysis.part import Part, parts
from analysis.terminal.say import say, warn


class Job(NamedTuple):
    """A figure to draw.

    Args:
        name: of the figure.
        what: the part's slug, or "all studies".
        stem: its path without a suffix.
        draw: gives the figure.
    """

    name: str
    what: str
    stem: Path
    draw: Callable[[], Figure]


def draw_all(root: Path, names: Sequence[str] = (), console: Console | None = None) -> list[Path]:
    """Draw the figures of all studies, or of those named, and say where they are.

    Args:
        root: the folder that holds ``<study>/<id>.json``.
        names: of studies; empty for all, and then those across studies too.
        console: where to print, the terminal by default.

    Returns:
        The files: ``<root>/<study>/figures/<part>-<name>.{png,pdf}`` and
        ``<root>/figures/<name>.{png,pdf}``.

    Raises:
        FileNotFoundError: a named study, or all of ``root``, holds no result.
        DamagedError: a study's ``collapsed.jsonl`` is damaged.
    """
    console = console or Console()
    found = _parts(root, names or studies(root), console)
    if not found:
        raise FileNotFoundError(f"{root} holds no results; run a study first")
    jobs = [*_jobs(found), *([] if names else _across(root, found))]
    written, lacking = _drawn(jobs, console)
    for line in _grouped(lacking):
        warn(console, f"none    {line}")
    for folder in sorted({path.parent for path in written}):
        count = sum(path.parent == folder for path in written) // 2
        say(console, f"figures {folder} ({count}, each as png and pdf)")
    return written


def _parts(root: Path, names: Sequence[str], console: Console) -> list[Part]:
    found: list[Part] = []
    for name in names:
        frame = load(root / name)
        for file, why in frame.attrs["unread"].items():
            warn(console, f"{root / name / file} holds no result and was left out: {why}")
        found += parts(frame, root / name)
    return found


def _jobs(found: Sequence[Part]) -> Iterator[Job]:
    for part in found:
        for name, draw in FIGURES.items():
            stem = part.folder / "figures" / f"{part.slug}-{name}"
            yield Job(name, f"{part.study}/{part.slug}", stem, lambda d=draw, p=part: d(p))


def _across(root: Path, found: Sequence[Part]) -> Iterator[Job]:
    for name, draw in ACROSS.items():
        stem = root / "figures" / name
        yield Job(name, "all studies", stem, lambda d=draw: d(root, found))


def _drawn(jobs: Sequence[Job], console: Console) -> tuple[list[Path], dict[tuple[str, str], list]]:
    """Files, and (figure, reason) -> what has no data for it; files of another time are removed."""
    written: list[Path] = []
    lacking: dict[tuple[str, str], list[str]] = {}
    live = console.is_terminal
    begun: set[str] = set()
    with Progress(console=console, transient=True, disable=not live) as progress:
        for job in progress.track(jobs, description="figures"):
            if not live and job.what not in begun:  # a log shows that work goes on
                say(console, f"drawing {job.what}")
                begun.add(job.what)
            try:
                written += save(job.draw(), job.stem)
            except Lacking as reason:
                lacking.setdefault((job.name, str(reason)), []).append(job.what)
                _remove(job.stem)
    return written, lacking


def _remove(stem: Path) -> None:
    """What an earlier run drew from other results is no figure of these."""
    for suffix in ("png", "pdf"):
        stem.with_name(f"{stem.name}.{suffix}").unlink(missing_ok=True)


def _grouped(lacking: dict[tuple[str, str], list[str]]) -> Iterator[str]:
    """One line a figure and reason, with the part or how many there are."""
    for (name, reason), which in lacking.items():
        where = which[0] if len(which) == 1 else f"{len(which)} parts"
        yield f"{name} ({where}): {reason}"
