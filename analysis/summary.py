"""A study in one table and one figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.figures.pareto import pareto
from analysis.load import load
from analysis.selection import cells

SHORT = {"decompose_factor": "factor", "decompose_both": "both", "init_weights": "init"}
"""Long knobs as a table's narrow columns call them."""


def summarize(folder: Path, console: Console | None = None) -> None:
    """Print the cells of a study and write ``<folder>/figures/<task>.{png,pdf}`` and the table.

    One table and one figure for each task and base in the study.

    Raises:
        FileNotFoundError: the folder holds no results.
    """
    console = console or Console()
    frame = load(folder)
    for name in frame.attrs["unread"]:
        console.print(f"[yellow]{name} holds no result of this schema and was left out[/]")
    for (task, base), group in frame.groupby(["trial.task", "trial.base"]):
        table = cells(group)
        metric = str(group["primary"].dropna().iloc[0]) if group["primary"].notna().any() else ""
        title = f"{task} on {Path(str(base)).name}"
        console.print(_as_rich(table, title, metric))
        stem = folder / "figures" / f"{task.replace('/', '-')}-{Path(str(base)).name}"
        _write(table, pareto(table, title, metric), stem)
        console.print(f"table   {stem}.csv\nfigure  {stem}.png (and .pdf)")
    console.print(f"results {folder}/*.json")


def _write(table: pd.DataFrame, figure, stem: Path) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(stem.with_suffix(".csv"), index=False)
    # No date and no version in the files: the same results give the same bytes.
    figure.savefig(stem.with_suffix(".png"), dpi=160, metadata={"Software": None})
    figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None, "Producer": None})


def _as_rich(table: pd.DataFrame, title: str, metric: str) -> Table:
    """Narrow enough for 80 columns: what is the same in every cell stands in the caption."""
    seeds = ", ".join(str(n) for n in sorted(table["seeds"].unique()))
    shown = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption_justify="left",
        caption=(
            f"score: {metric} on the report half of the dev set, rate and epoch chosen on the "
            f"other half; mean ± standard deviation, seeds a cell: {seeds}. full: the papers' "
            "protocol, best rate and epoch on the whole dev set that it reports. "
            "s: seconds a trial, its share of its pack's."
        ),
    )
    knobs = list(table.columns[table.columns.get_loc("method") + 1 : _first_number(table)])
    for name in ("method", *knobs):
        shown.add_column(SHORT.get(name, name), no_wrap=True)
    failed = ["failed"] if table["failed"].any() else []
    for name in ("trainable", "rate", "score", "full", "s", *failed):
        shown.add_column(name, justify="right", no_wrap=True)
    for _, row in table.iterrows():
        spread = "" if pd.isna(row["spread"]) else f" ± {100 * row['spread']:.1f}"
        shown.add_row(
            *(str(row[name]) for name in ("method", *knobs)),
            "" if pd.isna(row["trainable"]) else f"{int(row['trainable']):,}",
            f"{row['rate']:g}",
            f"{100 * row['score']:.1f}{spread}",
            f"{100 * row['full_dev_best']:.1f}",
            f"{row['seconds']:.1f}",
            *(str(row[name]) for name in failed),
        )
    return shown


def _first_number(table: pd.DataFrame) -> int:
    """Where the knobs' columns end."""
    return int(table.columns.get_loc("adapter"))
