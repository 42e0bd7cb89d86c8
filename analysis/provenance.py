"""Where results come from, and what is mixed in them: never merged without a word.

Trials are grouped, not averaged away: commit, changed files, hardware and versions may differ
within a study, and then the sentences of :func:`mixed` stand beside its tables. Other data or
another base under the same name is worse: those trials do not answer the same question.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

SHORT = 7
"""Characters of a commit or a fingerprint that people read."""
HARDWARE = "hardware"
STRONG = "NOT COMPARABLE"
"""A sentence about trials that do not answer the same question begins with it."""


class Origin(NamedTuple):
    """A column of a trial's provenance, and what people call it: one, several."""

    column: str
    one: str
    several: str
    short: bool = False


ORIGINS = (
    Origin("provenance.commit", "commit", "commits", short=True),
    Origin(HARDWARE, "kind of hardware", "kinds of hardware"),
    Origin("provenance.torch", "version of torch", "versions of torch"),
    Origin("provenance.transformers", "version of transformers", "versions of transformers"),
    Origin("provenance.peft", "version of peft", "versions of peft"),
    Origin("provenance.triton", "version of triton", "versions of triton"),
    Origin("provenance.compiled", "setting of --compile", "settings of --compile"),
)
QUESTIONS = (
    (["trial.base"], Origin("provenance.base_sha256", "base", "bases", short=True)),
    (
        ["trial.task", "trial.train_size"],
        Origin("provenance.data_sha256", "set of data", "sets of data", short=True),
    ),
)
"""What must be the same in trials whose fields are: (fields, fingerprint)."""
_GROUPS = {
    "commit": "provenance.commit",
    "dirty": "provenance.dirty",
    "device": "provenance.device",
    "gpu": "provenance.gpu",
    "cpu": "provenance.cpu",
    "compiled": "provenance.compiled",
    "torch": "provenance.torch",
    "transformers": "provenance.transformers",
    "peft": "provenance.peft",
    "triton": "provenance.triton",
    "base_sha256": "provenance.base_sha256",
    "data_sha256": "provenance.data_sha256",
}


def groups(trials: pd.DataFrame) -> pd.DataFrame:
    """How many trials of a study have the same origin in everything.

    Args:
        trials: rows of :func:`analysis.load.load` or :func:`analysis.load.load_all`.

    Returns:
        One row an origin, sorted: ``study`` (where the trials have it), ``commit``, ``dirty``,
        ``device``, ``gpu``, ``cpu``, ``compiled``, ``torch``, ``transformers``, ``peft``,
        ``triton``, ``base_sha256``, ``data_sha256`` (None where a result does not say), ``trials``.
    """
    known = trials[["study"]] if "study" in trials else trials[[]]
    known = known.assign(**{name: trials[column] for name, column in _GROUPS.items()})
    known = known.astype(object).where(known.notna(), None)
    names = [*known.columns]
    counted = known.groupby(names, dropna=False, sort=False).size().rename("trials").reset_index()
    counted = counted.astype(object).where(counted.notna(), None)
    return counted.sort_values(names, key=lambda column: column.astype(str), ignore_index=True)


def mixed(trials: pd.DataFrame) -> list[str]:
    """What of these trials' origins is not the same in all of them, the gravest first.

    Args:
        trials: of one part, one study or several.

    Returns:
        Sentences; none if all trials have one origin and a clean tree.
    """
    frame = trials.assign(**{HARDWARE: _hardware(trials)})
    return [*_not_comparable(frame), *_unknown(frame), *_dirty(frame), *_several(frame)]


def hardware(trials: pd.DataFrame) -> str:
    """The GPUs (or processors) that trained these trials, for a caption."""
    return _listed(_hardware(trials))


def commits(trials: pd.DataFrame) -> str:
    """The commits of these trials, shortened, for a caption."""
    return _listed(trials["provenance.commit"].map(_short, na_action="ignore"))


def _hardware(trials: pd.DataFrame) -> pd.Series:
    gpu, cpu = trials["provenance.gpu"].astype(object), trials["provenance.cpu"].astype(object)
    return gpu.where(gpu.notna(), cpu)


def _not_comparable(frame: pd.DataFrame) -> Iterator[str]:
    for fields, origin in QUESTIONS:
        known = [field for field in fields if field in frame]
        for values, group in frame.groupby(known, dropna=False):
            counts = _counts(group.dropna(subset=origin.column), origin)
            if len(counts) > 1:
                yield (
                    f"{STRONG}: {values[0]} has {len(counts)} {origin.several} under one "
                    f"name: {_spelled(counts)}. Their scores answer different questions."
                )


def _unknown(frame: pd.DataFrame) -> Iterator[str]:
    """Fingerprints that some results lack: the others may be of another question."""
    for _, origin in QUESTIONS:
        lacking = int(frame[origin.column].isna().sum())
        if 0 < lacking < len(frame):
            yield f"{lacking} of {len(frame)} trials do not say which {origin.one} they had"


def _dirty(frame: pd.DataFrame) -> Iterator[str]:
    count = int((frame["provenance.dirty"] == True).sum())  # noqa: E712  (None and NaN are unknown)
    if count:
        yield (
            f"{count} of {len(frame)} trials ran from changed files: their commit is not their code"
        )


def _several(frame: pd.DataFrame) -> Iterator[str]:
    for origin in ORIGINS:
        counts = _counts(frame, origin)
        if len(counts) > 1:
            yield f"{len(counts)} {origin.several} in one table: {_spelled(counts)}"


def _counts(frame: pd.DataFrame, origin: Origin) -> pd.Series:
    """Value, spelled -> how many trials have it, most first."""
    values = frame[origin.column]
    spelled = values.map(_short if origin.short else str, na_action="ignore").astype(object)
    counts = spelled.where(spelled.notna(), "unknown").value_counts()
    order = sorted(counts.index, key=lambda name: (-counts[name], name))
    return counts.reindex(order)


def _spelled(counts: pd.Series) -> str:
    return ", ".join(
        f"{name} ({n} {'trial' if n == 1 else 'trials'})" for name, n in counts.items()
    )


def _listed(values: pd.Series) -> str:
    known = sorted({str(value) for value in values.dropna()})
    return ", ".join([*known, *(["unknown"] if values.isna().any() else [])])


def _short(value: str) -> str:
    return value[:SHORT]
