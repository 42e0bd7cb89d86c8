"""The report: one page that answers "which LoKr should you train?", opened from a file, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def build(root: Path, out: Path, names: Sequence[str] = (), console: Console | None = None) -> Path:
    """Write the page of all studies, or of those named.

    Args:
        root: the folder that holds ``<study>/<id>.json``, ``bench`` and ``cost``.
        out: the file to write; the same results give the same bytes.
        names: of studies; empty for all.
        console: where to show how far it is, the terminal by default.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError: a named study, or all of ``root``, holds no result.
        OSError: the file cannot be written; known before anything is read.
        analysis.collapsed.DamagedError: a study's record of its collapsed trials is damaged.
    """
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder: give the name of a file to write")
    out.parent.mkdir(parents=True, exist_ok=True)
    from analysis.load import load_all
    from analysis.report.collect import collect
    from analysis.report.page import page

    spinner = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*spinner, console=console, transient=True) as progress:
        task = progress.add_task("reading results", total=None)
        results = load_all(root, names)
        text = page(collect(root, results, lambda what: progress.update(task, description=what)))
    out.write_text(text, encoding="utf-8", newline="\n")
    return out
