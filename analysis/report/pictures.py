"""What trials drew, to stand in the page: beside the truth and the untouched base, for each method
its chosen cell, and for a reader who picks, as many other cells as fit.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.part import Part
from analysis.report import words

BUDGET = 6_000_000
"""Bytes of picture files in a page; a sheet of eight samples has some ten thousand."""
REFERENCES = {"truth": "the truth", "photos": "photos of the subject", "base": "untouched base"}


class Sheet(NamedTuple):
    """A file of samples.

    Args:
        cell: number of the cell in the page.
        method: of the cell.
        trial: id of the one that drew them, the middle one of the cell's seeds by score.
        score: its, a share.
        selection: the cell's mean selection score.
        file: where it is.
    """

    cell: int
    method: str
    trial: str
    score: float
    selection: float
    file: Path


class Album(NamedTuple):
    """The pictures of a page.

    Args:
        images: name -> data URI, each picture once.
        references: for each part, the rows that samples are read against: label, image and kind
            (a name of ``REFERENCES``).
        best: for each part, the sheet of every method's chosen cell: cell, id, score and image.
        sheets: of all cells that fit: cell, id, score and image.
        left_out: how many did not fit.
    """

    images: dict[str, str]
    references: list[list[dict[str, str]]]
    best: list[list[dict[str, Any]]]
    sheets: list[dict[str, Any]]
    left_out: int


def album(parts: Sequence[Part], cells: pd.DataFrame) -> Album:
    """The pictures of all parts; none where nothing was drawn.

    Args:
        parts: in the page's order.
        cells: their rows, numbered by the index.
    """
    made = Album({}, [], [], [], 0)
    found = [[*_sheets(part, cells[cells["part"] == n])] for n, part in enumerate(parts)]
    for part, sheets in zip(parts, found, strict=True):
        made.references.append([*_references(part, made.images)] if sheets else [])
    # What every method comes to goes first, so that only further cells can be too many.
    best = [_best(sheets) for sheets in found]
    made.best.extend([_shown(sheet, made.images) for sheet in sheets] for sheets in best)
    made.sheets.extend(sheet for part in made.best for sheet in part)
    first = {sheet.trial for sheets in best for sheet in sheets}
    rest = [sheet for sheets in found for sheet in sheets if sheet.trial not in first]
    return made._replace(left_out=_fill(made, sorted(rest, key=lambda s: (-s.selection, s.trial))))


def _fill(made: Album, sheets: Sequence[Sheet]) -> int:
    """Add the sheets that fit, the best cells first; how many do not."""
    room = BUDGET - sum(map(len, made.images.values()))
    for place, sheet in enumerate(sheets):
        room -= sheet.file.stat().st_size * 4 // 3
        if room < 0:
            return len(sheets) - place
        made.sheets.append(_shown(sheet, made.images))
    return 0


def _sheets(part: Part, cells: pd.DataFrame) -> Iterator[Sheet]:
    """One of every cell that drew, in the order of the cells."""
    selected = part.selected
    drew = selected[(selected["status"] == "ok") & selected["score"].notna()]
    files = [part.pictures / f"{trial}.samples.webp" for trial in drew["id"]]
    there = pd.Series([file.is_file() for file in files], drew.index, dtype=bool)
    numbers = dict(zip(cells["cell"], cells.index, strict=True))
    for name, trials in drew[there].groupby("cell", sort=False):
        middle = trials.sort_values(["score", "trial.seed"]).iloc[(len(trials) - 1) // 2]
        yield Sheet(
            numbers[name],
            str(middle["trial.method"]),
            str(middle["id"]),
            float(middle["score"]),
            float(trials["selection_score"].mean()),
            part.pictures / f"{middle['id']}.samples.webp",
        )


def _best(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Of each method the one that is best by selection score, best methods first."""
    ranked = sorted(sheets, key=lambda sheet: (-sheet.selection, sheet.cell))
    return [*{sheet.method: sheet for sheet in reversed(ranked)}.values()][::-1]


def _references(part: Part, images: dict[str, str]) -> Iterator[dict[str, str]]:
    style = part.task.partition("/")[2]
    for kind, label in REFERENCES.items():
        file = part.pictures / f"{style}-{kind}.webp"
        if file.is_file():
            yield {"label": label, "image": _kept(file, part, images), "kind": kind}


def _shown(sheet: Sheet, images: dict[str, str]) -> dict[str, Any]:
    image = sheet.file.stem.partition(".")[0]
    images[image] = _uri(sheet.file)
    score = words.points(sheet.score)
    return {"cell": sheet.cell, "id": sheet.trial, "score": score, "image": image}


def _kept(file: Path, part: Part, images: dict[str, str]) -> str:
    name = f"{part.study}/{file.stem}"
    images[name] = _uri(file)
    return name


def _uri(file: Path) -> str:
    return f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"
