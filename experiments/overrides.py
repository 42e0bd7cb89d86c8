"""``--set field=value``: the same study with other numbers, and so with other ids."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

from experiments.errors import BenchError
from experiments.study import Study
from experiments.trial import Trial

_FIELDS = {f.name: f for f in fields(Trial)}
_WORDS = {"true": True, "false": False, "none": None}


def override(study: Study, assignments: Sequence[str]) -> Study:
    """The study with these fields set in every trial; trials that become equal are one.

    Raises:
        BenchError: not ``field=value``, an unknown field, or a value that the field does not allow.
    """
    values = dict(parse(assignment) for assignment in assignments)
    try:
        trials = dict.fromkeys(replace(trial, **values) for trial in study.trials)
    except ValueError as error:
        raise BenchError(f"--set {error}") from error
    return replace(study, trials=tuple(trials))


def parse(assignment: str) -> tuple[str, Any]:
    """``"r=16"`` -> ``("r", 16)``; the value is read as its field's type asks.

    Raises:
        BenchError: not ``field=value``, or an unknown field.
    """
    field, equals, text = assignment.partition("=")
    if not equals:
        raise BenchError(f"--set {assignment!r}: expected field=value, such as epochs=1")
    if field not in _FIELDS:
        close = difflib.get_close_matches(field, _FIELDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise BenchError(f"--set: no field {field!r}{hint} Fields: {', '.join(_FIELDS)}")
    return field, _read(field, text)


def _read(field: str, text: str) -> Any:
    default = _FIELDS[field].default
    if default is MISSING or isinstance(default, str):
        return text
    if field == "target_modules":
        return _read_targets(text)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _read_targets(text: str) -> str | tuple[str, ...]:
    """Names joined by commas, unless it is a regular expression or ``all-linear``."""
    is_expression = text == "all-linear" or re.search(r"[\\*+?|()\[\]{}^$]", text)
    return text if is_expression else tuple(text.split(","))
