"""What is compared with each other: the trials of a study that share task, base and training rows.

Everything that an answer is made of - a table, a figure, a test - is a function of a part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.load import Results, cell_names
from analysis.selection import cells, ranked, select_rates

FIELDS = ("task", "base", "train_size")
"""Two trials that differ in one of these answer different questions."""


@dataclass(frozen=True, eq=False)
class Part:
    """Trials of one study, task, base and number of training rows.

    Args:
        folder: ``results/<study>``.
        task: such as ``glue/rte``.
        base: as the trials name it.
        rows: training rows (pictures), None for all of them.
        sizes: whether the study has several numbers of rows.
        trials: rows of :func:`analysis.load.load`; ``cell`` distinguishes them within the part.
    """

    folder: Path
    task: str
    base: str
    rows: int | None
    sizes: bool
    trials: pd.DataFrame

    @property
    def study(self) -> str:
        """The study's name."""
        return self.folder.name

    @property
    def title(self) -> str:
        """For people: task, base and, where the study has several numbers of rows, this one."""
        rows = f", {'all' if self.rows is None else self.rows} rows" if self.sizes else ""
        return f"{self.task} on {Path(self.base).name}{rows}"

    @property
    def slug(self) -> str:
        """For file names: ``glue-rte-minilm``, unique within the study."""
        rows = f"-{'all' if self.rows is None else self.rows}" if self.sizes else ""
        name = f"{self.task.replace('/', '-')}-{Path(self.base).name}{rows}"
        return re.sub(r"[^\w.-]+", "_", name)  # a task of a user's may be named anything

    @property
    def metric(self) -> str:
        """Name of the score; "score" where no trial has one."""
        primary = self.trials["primary"].dropna()
        return str(primary.iloc[0]) if len(primary) else "score"

    @property
    def pictures(self) -> Path:
        """Where the study's samples are."""
        return self.folder / "pictures"

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a cell, best first: :func:`analysis.selection.cells`."""
        return cells(self.trials)

    @cached_property
    def selected(self) -> pd.DataFrame:
        """Every cell's trials at its selected rate: :func:`analysis.selection.select_rates`."""
        return select_rates(self.trials)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The cells in the order that one would take them in: :func:`analysis.selection.ranked`."""
        return ranked(self.trials)


def parts(trials: pd.DataFrame, folder: Path) -> Iterator[Part]:
    """The parts of one study, in the order of their names.

    Args:
        trials: from :func:`analysis.load.load`.
        folder: ``results/<study>``.
    """
    if "trial.train_size" not in trials:
        trials = trials.assign(**{"trial.train_size": None})
    sizes = trials["trial.train_size"].nunique(dropna=False) > 1
    by_fields = trials.groupby([f"trial.{field}" for field in FIELDS], dropna=False)
    for (task, base, rows), group in by_fields:
        count = None if pd.isna(rows) else int(rows)
        own = group.assign(cell=cell_names(group))
        yield Part(folder, str(task), str(base), count, sizes, own)


def all_parts(results: Results, root: Path) -> Iterator[Part]:
    """The parts of several studies, by study.

    Args:
        results: from :func:`analysis.load.load_all`.
        root: the folder of all results.
    """
    for study, trials in results.trials.groupby("study"):
        yield from parts(trials, root / str(study))
