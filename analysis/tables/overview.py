"""LoKr against LoRA and all weights, a row a part: the one table over all studies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.part import Part
from analysis.provenance import STRONG, commits, hardware, mixed
from analysis.statistics.choice import pick, worth
from analysis.statistics.devrows import least
from analysis.statistics.noise import pooled
from analysis.statistics.paired import against
from analysis.tables import protocol
from analysis.tables.quality import scored
from analysis.tables.table import (
    Column,
    Lacking,
    Spell,
    Table,
    bounds,
    number,
    points,
    text,
    whole,
)

METHOD = "lokr"
RIVALS = ("lora", "full")


def rows(parts: Sequence[Part]) -> pd.DataFrame:
    """The chosen LoKr cell of each part, and its paired differences to the rivals' chosen cells.

    Returns:
        ``study``, ``part``, ``metric``, ``cell``, ``seeds``, ``trainable``, ``mean``, ``low``,
        ``high``, ``anew`` (the mean of :func:`analysis.statistics.choice.crossed`), ``best`` (tied
        with the part's best); for each of ``RIVALS`` ``<rival>_difference`` (LoKr minus it),
        ``_low``, ``_high``, ``_trainable`` and ``_least`` (the smallest difference that the dev
        rows show), NaN where it did not run; ``detectable``, see
        :class:`analysis.statistics.noise.Noise`. No row where no LoKr cell has a score.
    """
    return pd.DataFrame([_row(part) for part in parts if METHOD in _methods(part)])


def table(parts: Sequence[Part]) -> Table:
    """One row a part.

    Raises:
        Lacking: no part has a LoKr cell with a score.
    """
    frame = rows(parts)
    if frame.empty:
        raise Lacking(f"no {METHOD} cell has a score in any study")
    columns = [
        Column("task, base", text("part"), number=False),
        Column("seeds", text("seeds")),
        Column("parameters", whole("trainable")),
        Column("score", points("mean"), best=[*frame["best"]]),
        Column("95%", bounds("low", "high")),
        Column("anew", points("anew")),
        *(column for rival in RIVALS for column in _against(frame, rival)),
        Column("sees", points("detectable")),
    ]
    trials = pd.concat([part.trials for part in parts], ignore_index=True)
    caption = protocol.joined(
        "The LoKr cell with the best selection score, its trainable parameters and its score in "
        "points (accuracy or gain) on the half of the dev set that chose nothing; minus LoRA and "
        "minus full: paired differences over common seeds to those methods' chosen cells. "
        "Intervals cover other seeds, not other rows, nor the choice of this cell. anew: its score "
        "with each seed left out of the choice that it is scored by. sees: the smallest true "
        "difference that the design shows with 80% power. Bold: score tied with the best cell; "
        "difference whose interval leaves out zero, of an accuracy one of more than two standard "
        "errors of its dev rows too. Each part on its own, uncorrected.",
        f"{hardware(trials)}, commits {commits(trials)}.",
    )
    notes = [*_notes(parts)]
    return Table("overview", "LoKr against LoRA and all weights", frame, columns, caption, notes)


def _notes(parts: Sequence[Part]) -> Iterator[str]:
    """What cannot be compared, in full; that something is mixed, once."""
    found = [(part, mixed(part.trials)) for part in parts]
    for part, sentences in found:
        strong = [text for text in sentences if text.startswith(STRONG)]
        yield from (f"{part.title}: {text}" for text in strong)
    if count := sum(bool(sentences) for _, sentences in found):
        yield (
            f"In {count} of {len(parts)} parts trials have several origins; the tables of each "
            "part name them."
        )


def _methods(part: Part) -> set[str]:
    return {*part.cells.dropna(subset=["selection_score"])["method"]}


def _row(part: Part) -> dict[str, object]:
    cell, table = pick(part, METHOD), scored(part)
    chosen = table.set_index("cell").loc[cell]
    return {
        "study": part.study,
        "part": part.title,
        "metric": part.metric,
        "cell": cell,
        "seeds": chosen["n"],
        **{name: chosen[name] for name in ("trainable", "mean", "low", "high", "best")},
        "anew": worth(part, METHOD).mean,
        **{n: v for rival in RIVALS for n, v in _rival(part, table, cell, rival).items()},
        "detectable": pooled(part).detectable,
    }


def _rival(part: Part, table: pd.DataFrame, cell: str, rival: str) -> dict[str, object]:
    """NaN where the rival did not run."""
    names = ("difference", "low", "high", "trainable", "least")
    found = dict.fromkeys(names, float("nan"))
    if rival in _methods(part):
        row = against(part, rival).set_index("cell").loc[cell]
        sizes = part.cells.set_index("cell")["trainable"]
        found = {n: row[n] for n in names[:3]} | {
            "trainable": sizes[row["against"]],
            "least": least(table, cell, row["against"]),
        }
    return {f"{rival}_{name}": value for name, value in found.items()}


def _against(frame: pd.DataFrame, rival: str) -> list[Column]:
    low, high = frame[f"{rival}_low"], frame[f"{rival}_high"]
    clear = ((low > 0) | (high < 0)) & (
        frame[f"{rival}_difference"].abs() > frame[f"{rival}_least"]
    )
    return [
        Column(f"minus {rival}", _signed(f"{rival}_difference"), best=[*clear]),
        Column("95%", bounds(f"{rival}_low", f"{rival}_high", sign="+")),
    ]


def _signed(name: str) -> Spell:
    return number(name, 1, 100, "+")
