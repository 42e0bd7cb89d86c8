"""Everything that the page shows, collected from results: what each part says, and rows to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis import cost
from analysis.load import Results
from analysis.part import Part, all_parts
from analysis.report import costs, pictures, rows
from analysis.report.findings import Findings, findings, scored
from analysis.report.limits import limits
from analysis.statistics.noise import pooled
from analysis.statistics.normalize import NoScaleError, Scale, scale

Step = Callable[[str], None]


class Seen(NamedTuple):
    """What was found in a part.

    Args:
        findings: its sentences.
        costs: what its methods cost.
        limits: what it cannot say.
        floor: the smallest difference that its design sees.
        scale: its floor and ceiling, or why it has none.
    """

    findings: Findings
    costs: list[str]
    limits: list[str]
    floor: float
    scale: Scale | str

    @property
    def part(self) -> Part:
        """Of what."""
        return self.findings.part


class Collected(NamedTuple):
    """What the page is made of.

    Args:
        root: the folder of all results.
        results: of some of its studies.
        seen: of each part.
        drawn: rows of every kind, see :mod:`analysis.report.rows`; cells are numbered over all
            parts.
        album: the pictures.
        unread: path under ``root`` of a file that holds no result -> why.
    """

    root: Path
    results: Results
    seen: list[Seen]
    drawn: dict[str, pd.DataFrame]
    album: pictures.Album
    unread: dict[str, str]


def collect(root: Path, results: Results, said: Step) -> Collected:
    """Look at every part of the results.

    Args:
        root: the folder of all results.
        results: of some of its studies.
        said: told of each step that takes time, in a few words.
    """
    measured = cost.load(root)
    seen = []
    for part in all_parts(results, root):
        said(part.title)
        seen.append(_seen(part, results, measured))
    said("the page")
    drawn = _drawn(results, seen, measured)
    album = pictures.album([one.part for one in seen], drawn["cells"])
    unread = {**results.unread, **measured.attrs["unread"]}
    own = {str(Path(path).relative_to(root)): why for path, why in sorted(unread.items())}
    return Collected(root, results, seen, drawn, album, own)


def _seen(part: Part, results: Results, measured: pd.DataFrame) -> Seen:
    found, spent = findings(part), costs.sentences(part, measured)
    cannot = limits(found, results)
    if not scored(part):
        return Seen(found, spent, cannot, math.nan, f"{part.title}: no trial has a score")
    try:
        unit: Scale | str = scale(part)
    except NoScaleError as error:
        unit = str(error)
    return Seen(found, spent, cannot, pooled(part).detectable, unit)


def _drawn(
    results: Results, seen: Sequence[Seen], measured: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    cells = _joined([rows.cell_rows(s.part, n, s.findings.table) for n, s in enumerate(seen)])
    own = [(one.part, cells[cells["part"] == number]) for number, one in enumerate(seen)]
    epochs = results.epochs
    return {
        "cells": cells,
        "trials": _joined([rows.trial_rows(part, c) for part, c in own]),
        "curves": _joined([rows.curve_rows(part, c, epochs) for part, c in own]),
        "costs": _joined([rows.cost_rows(part, c, measured) for part, c in own]),
        **_compared(seen),
    }


def _compared(seen: Sequence[Seen]) -> dict[str, pd.DataFrame]:
    """The rows of differences."""
    effects = [rows.effect_rows(s.part, n, s.findings.effects) for n, s in enumerate(seen)]
    shares = [rows.share_rows(s.findings.importance, n) for n, s in enumerate(seen)]
    against = [rows.against_rows(s.part, n) for n, s in enumerate(seen)]
    return {"effects": _joined(effects), "shares": _joined(shares), "against": _joined(against)}


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    there = [frame for frame in frames if len(frame)]
    return pd.concat(there, ignore_index=True) if there else pd.DataFrame()
