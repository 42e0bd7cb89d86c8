"""A study: a list of trials, and what its knobs are for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from experiments.trial import ADAPTER_KNOBS, KNOBS_READ, NUISANCE, Trial, spell

_FIELDS = tuple(f.name for f in fields(Trial))


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to compare.

    A *cell* is what the study compares: the trials that agree in all scientific fields. Every other
    field either belongs to the tuning (nuisance) or has one value throughout (fixed).

    Args:
        name: as on the command line; also the folder of its results.
        description: one line: the question.
        trials: in the order of the report.
        scientific: fields whose effect is the question.
        nuisance: fields tuned or repeated within a cell.

    Raises:
        ValueError: no trials, an unknown field, a field in both roles, or a field that varies and
            has no role.
    """

    name: str
    description: str
    trials: tuple[Trial, ...]
    scientific: tuple[str, ...]
    nuisance: tuple[str, ...] = NUISANCE

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"name={self.name!r}: expected lower-case words joined by '-'")
        if not self.trials:
            raise ValueError(f"study {self.name!r} has no trials")
        for field in (*self.scientific, *self.nuisance):
            if field not in _FIELDS:
                raise ValueError(f"study {self.name!r}: Trial has no field {field!r}")
        if both := set(self.scientific) & set(self.nuisance):
            raise ValueError(f"study {self.name!r}: {sorted(both)} are scientific and nuisance")
        if loose := [f for f in self.fixed if len({getattr(t, f) for t in self.trials}) > 1]:
            raise ValueError(
                f"study {self.name!r}: {', '.join(loose)} varies, so it must be named scientific "
                "or nuisance"
            )

    @property
    def fixed(self) -> tuple[str, ...]:
        """The fields with one value throughout."""
        return tuple(f for f in _FIELDS if f not in (*self.scientific, *self.nuisance))

    def cells(self, trials: Sequence[Trial]) -> dict[str, list[Trial]]:
        """Label -> trials of each cell, in order."""
        cells: dict[str, list[Trial]] = {}
        for trial in trials:
            cells.setdefault(self.label([trial]), []).append(trial)
        return cells

    def label(self, trials: Sequence[Trial]) -> str:
        """Method and scientific fields for people: ``lokr r=4,8 init_weights=True``.

        Fields that the method does not read are left out; several trials share one method.
        """
        method = trials[0].method
        words: list[str] = [method]
        for field in self.scientific:
            if field == "method" or (field in ADAPTER_KNOBS and field not in KNOBS_READ[method]):
                continue
            values = dict.fromkeys(spell(getattr(trial, field)) for trial in trials)
            words.append(f"{field}={','.join(values)}")
        return " ".join(words)


def grid(base: Mapping[str, Any], **axes: Sequence[Any]) -> list[Trial]:
    """One trial for every combination of the axes on top of ``base``; the last axis varies fastest.

    ``grid({"task": "glue/rte"}, r=(4, 8), seed=(0, 1))`` has four trials.
    """
    names = tuple(axes)
    return [
        Trial(**{**base, **dict(zip(names, values, strict=True))})
        for values in itertools.product(*axes.values())
    ]
