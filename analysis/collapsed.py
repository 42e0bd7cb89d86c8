"""Trials that never ran because another one is the same function: a grid without those holes.

``results/<study>/collapsed.jsonl`` names them (``id``, ``trial``, ``equals``, ``reason``, one a
line). A collapsed trial has its twin's numbers, to the last bit, so a completed grid shows some
measurements more than once: whoever takes noise from it must count each of them once (``equals``).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.load import cell_names, hashable
from analysis.part import Part

NAME = "collapsed.jsonl"


class DamagedError(ValueError):
    """The file cannot be read; the message is one line for the user."""


def read(folder: Path) -> list[dict]:
    """The lines of a study's file; none where it has no file.

    Args:
        folder: ``results/<study>``.

    Raises:
        DamagedError: it is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return []
    try:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: line[key] for key in ("id", "trial", "equals", "reason")} for line in found]
    except (ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise DamagedError(f"{path} is damaged ({why}); run the study again to write it") from error


def completed(part: Part) -> Part:
    """The part with its collapsed trials, each with the numbers of the trial that stands for it.

    Returns:
        A part whose trials have one more column, ``equals``: the id of the trial that ran (a
        trial's own id, if it ran itself). ``cell`` is named anew, since more knobs may vary.

    Raises:
        DamagedError: the study's file is damaged.
    """
    ran, ids = part.trials.assign(equals=part.trials["id"]), {*part.trials["id"]}
    lines = [x for x in read(part.folder) if x["equals"] in ids and x["id"] not in ids]
    if not lines:
        return replace(part, trials=ran)
    standing = ran[ran["id"].isin([line["equals"] for line in lines])]
    by_id = {str(row["id"]): row for row in standing.to_dict("records")}
    twins = [_twin(line, by_id[line["equals"]]) for line in lines]
    trials = pd.concat([ran, pd.DataFrame(twins, columns=ran.columns)], ignore_index=True)
    return replace(part, trials=trials.assign(cell=cell_names(trials)))


def _twin(line: dict, ran: dict) -> dict:
    """The row of the trial that ran under the other's name and fields.

    A field that an older file of results does not have stays missing: its default is the same.
    """
    fields = {f"trial.{name}": value for name, value in line["trial"].items()}
    known = {
        name: hashable(value)
        for name, value in fields.items()
        if name in ran and not _missing(ran[name])
    }
    return ran | known | {"id": line["id"]}


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and pd.isna(value))
