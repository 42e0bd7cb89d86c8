"""A study in one table and one figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.figures.pareto import pareto
from analysis.load import load
from analysis.selection import cells


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
    shown = Table(
        title=title,
        caption=(
            f"score: {metric} on the report half of the dev set, rate and epoch chosen on the "
            "other half; ± one standard deviation over seeds. full dev: the papers' protocol, "
            "best epoch and rate on the set it reports."
        ),
    )
    shown.add_column("cell")
    for name in ("trainable", "rate", "seeds", "score", "full dev", "seconds", "failed"):
        shown.add_column(name, justify="right")
    for row in table.itertuples():
        spread = "" if pd.isna(row.spread) else f" ± {100 * row.spread:.1f}"
        shown.add_row(
            row.cell,
            "" if pd.isna(row.trainable) else f"{int(row.trainable):,}",
            f"{row.rate:g}",
            str(row.seeds),
            f"{100 * row.score:.1f}{spread}",
            f"{100 * row.full_dev_best:.1f}",
            f"{row.seconds:.1f}",
            str(row.failed or ""),
        )
    return shown
