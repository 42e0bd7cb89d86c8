"""What the page's charts and table draw: rows of parts, cells, trials, curves, effects and
comparisons, by column, so that ten thousand trials stay small.

Scores and differences are in points, of 100. A trial names its cell by number and a cell its part:
what the filter lets through is decided for cells, and everything follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import labels
from analysis.effects import SCORES, SMALL
from analysis.importance import Importance
from analysis.load import NUISANCE, spell
from analysis.part import Part
from analysis.report.names import FIXED, names
from analysis.report.words import MINUS, method_name
from analysis.selection import judged
from analysis.statistics.choice import pick
from analysis.statistics.paired import against

POINTS = (*SCORES, "style", "retrieval_top1", "retrieval_top5", "drift")
"""Shares, shown as points of 100."""
DIGITS = 6
"""Significant digits of a number in the page: more than any score has."""
SETTINGS = ("train_size", "epochs", "repeats", "batch_size", "max_length")
"""Numbers of a trial that are no knob, but differ between studies."""
GIB = 2**30
_TRIAL = {
    "id": "id",
    "status": "status",
    "trial.learning_rate": "rate",
    "trial.seed": "seed",
    "score": "score",
    "selection_score": "selection",
    "full_dev_best": "full",
    "selected_epoch": "epoch",
    "similarity": "similarity",
    "frechet": "frechet",
    "vendi": "vendi",
    "style": "style",
    "drift": "drift",
    "parameters.adapter": "adapter",
    "parameters.trainable": "trainable",
    "seconds": "seconds",
    "lanes": "lanes",
    "peak_bytes": "peak_bytes",
    "provenance.commit": "commit",
    "provenance.dirty": "dirty",
    "provenance.gpu": "gpu",
    "provenance.cpu": "cpu",
    "provenance.torch": "torch",
    "provenance.transformers": "transformers",
    "provenance.peft": "peft",
    "provenance.triton": "triton",
    "provenance.compiled": "compiled",
    "provenance.base_sha256": "base_sha256",
    "provenance.data_sha256": "data_sha256",
    "provenance.finished": "finished",
    "message": "message",
}
"""Columns of the table that the page shows of every trial, after part, method and knobs."""


def cell_rows(part: Part, number: int, summary: pd.DataFrame) -> pd.DataFrame:
    """One row a cell.

    Args:
        part: whose.
        number: of the part in the page.
        summary: from :func:`analysis.statistics.cells.summarize`.

    Returns:
        ``part``, ``cell`` (its full name), ``label``, ``method``, the knobs (None where a method
        has but one value), ``trainable``, ``adapter``, ``score``, ``low``, ``high``,
        ``selection``, ``full``, ``rate``, ``seeds``, ``tied``, what was judged, ``series`` (parts
        that differ in training rows alone share it), ``rows`` (NaN where unknown), and ``chosen``
        ("yes" for the cell that one would take of its method).
    """
    table = labels.shortened(part.cells, part.trials)
    intervals = summary.set_index("cell").reindex(table["cell"])
    knobs, name = labels.knobs(table), names(part)
    frame = pd.DataFrame(
        {
            "part": number,
            "cell": table["cell"],
            "label": table["cell"].map(name),
            "method": table["method"],
            **{knob: table[knob].replace("", None).astype(object) for knob in knobs},
            "trainable": table["trainable"],
            "adapter": table["adapter"],
            "score": table["score"],
            "low": intervals["low"].to_numpy(),
            "high": intervals["high"].clip(upper=1).to_numpy(),
            "selection": table["selection_score"],
            "full": table["full_dev_best"],
            "rate": [*map(spell, table["rate"])],
            "seeds": table["seeds"],
            "tied": intervals["tied"].to_numpy(),
            **{name: table[name] for name in judged(part.trials) if not name.endswith("_se")},
            "series": f"{part.study} {part.task} {part.base}",
            "rows": _training_rows(part),
            "chosen": table["cell"].isin([pick(part, method) for method in _scored(part)]),
        }
    )
    return in_points(frame, ("low", "high", "selection", "full"))


def _training_rows(part: Part) -> float:
    """How many: as asked for, or where all of them are, as the trials counted."""
    if part.rows is not None:
        return float(part.rows)
    counted = part.trials.get("provenance.train_rows", pd.Series(dtype=float)).dropna().unique()
    return float(counted[0]) if len(counted) == 1 else math.nan


def trial_rows(part: Part, cells: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: ``cell`` (its number among ``cells``' index), the columns of _TRIAL, and as
    ``own.<knob>`` the knobs that its method has, also those that its cells do not differ in.
    """
    numbers = dict(zip(cells["cell"], cells.index, strict=True))
    known = {name: part.trials[column] for column, name in _TRIAL.items() if column in part.trials}
    frame = pd.DataFrame({"cell": part.trials["cell"].map(numbers), **known})
    frame["rate"] = frame["rate"].map(spell)
    for name in SETTINGS:
        if f"trial.{name}" in part.trials and name not in cells:
            frame[name] = part.trials[f"trial.{name}"].astype(float)
    for knob, texts in _own(part, cells).items():
        frame[f"own.{knob}"] = texts
    if "peak_bytes" in frame:
        frame["peak_gib"] = frame.pop("peak_bytes").astype(float) / GIB
    return in_points(frame, ("selection", "full"))


def _own(part: Part, cells: pd.DataFrame) -> dict[str, pd.Series]:
    """Knob -> its value in every trial as the page spells it, None where the method has none."""
    trials = part.trials
    varied = {
        knob: trials["cell"].map(dict(zip(cells["cell"], cells[knob], strict=True)))
        for knob in values(part)
    }
    found = {}
    for knob in dict.fromkeys([*varied, *(knob for fixed in FIXED.values() for knob in fixed)]):
        has = trials["trial.method"].map(lambda method, knob=knob: knob in FIXED.get(method, ()))
        there = trials.get(f"trial.{knob}", pd.Series(index=trials.index, dtype=object))
        fixed = there[has & there.notna()].map(spell).astype(object).reindex(trials.index)
        own = varied.get(knob, fixed).astype(object)
        found[knob] = own.where(own.notna(), fixed)
    return {knob: texts.where(texts.notna(), None) for knob, texts in found.items()}


def curve_rows(part: Part, cells: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """One row a trial at its cell's selected rate and an epoch: ``cell``, ``step``, ``value``.

    Args:
        part: whose.
        cells: its rows.
        epochs: of all studies, of :class:`analysis.load.Results`.
    """
    column = f"report.{part.metric}"
    if column not in epochs:
        return pd.DataFrame(columns=["cell", "step", "value"])
    numbers = dict(zip(cells["cell"], cells.index, strict=True))
    own = part.selected.set_index("id")["cell"].map(numbers)
    mine = (epochs["study"] == part.study) & epochs["id"].isin(own.index)
    found = epochs[mine].dropna(subset=[column])
    return pd.DataFrame(
        {"cell": found["id"].map(own), "step": found["step"], "value": 100 * found[column]}
    )


def cost_rows(part: Part, cells: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and hardware on which one of its trials was measured alone: ``cell``,
    ``hardware``, ``step_ms``, ``peak_gib``, ``joules`` (for 1,000 rows).

    Args:
        part: whose.
        cells: its rows.
        costs: of all studies, from :func:`analysis.cost.load`.
    """
    numbers = dict(zip(cells["cell"], cells.index, strict=True))
    of_trial = part.trials.set_index("id")["cell"].map(numbers)
    own = costs[(costs["study"] == part.study) & costs["id"].isin(of_trial.index)]
    if own.empty:
        return pd.DataFrame()
    return pd.DataFrame(
        {
            "cell": own["id"].map(of_trial),
            "hardware": own["hardware"],
            "step_ms": own["step_p50_ms"],
            "peak_gib": own["peak_bytes"] / GIB,
            "joules": own["joules_per_1000"],
        }
    )


def share_rows(found: Importance | None, number: int) -> pd.DataFrame:
    """One row a knob, a pair of knobs that is sure, and the noise: its share in percent."""
    if found is None or found.table.empty:
        return pd.DataFrame()
    table = found.table
    sure = table["kind"].eq("pair") & (table["low"] > 0)
    table = table[table["kind"].isin(["main", "noise"]) | sure]
    names = [" with ".join(knobs) if knobs else "noise" for knobs in table["knobs"]]
    rows = table.assign(part=number, method=SMALL, change=names, knob=names)
    kept = rows[["part", "method", "change", "knob", "share", "low", "high"]]
    return in_points(kept, ("share", "low", "high"))


def effect_rows(part: Part, number: int, found: pd.DataFrame) -> pd.DataFrame:
    """One row a knob's value after its first, where any pair of cells differs in that alone.

    Args:
        part: whose.
        number: of the part in the page.
        found: its :func:`analysis.effects.knob_effects`.
    """
    if found.empty:
        return found
    found = found[found["pairs"] > 0]
    change = [
        f"{_whose(row['method'])}{row['knob']}: {shown(part, row['knob'], row['from'])} → "
        f"{shown(part, row['knob'], row['to'])}"
        for row in found.to_dict("records")
    ]
    return _differences(found.assign(part=number, change=change), "pairs")


def _whose(method: str) -> str:
    """What tells a knob of another method from ours."""
    return "" if method == SMALL else f"{method_name(method)}, "


def against_rows(part: Part, number: int) -> pd.DataFrame:
    """One row a comparison of two methods' chosen cells, paired by seed."""
    chosen = {method: pick(part, method) for method in _scored(part)}
    rows = [
        _compared(part, method, cell, other)
        for method, cell in chosen.items()
        for other in [*chosen][[*chosen].index(method) + 1 :]
    ]
    if not rows:
        return pd.DataFrame()
    return _differences(pd.DataFrame(rows).assign(part=number), "seeds")


def _scored(part: Part) -> list[str]:
    """The methods with a cell that one would take, ours first."""
    there = part.cells.dropna(subset=["selection_score"])["method"].unique()
    return sorted(there, key=lambda method: (method != SMALL, method))


def _compared(part: Part, method: str, cell: str, other: str) -> dict[str, Any]:
    row = against(part, other).set_index("cell").loc[cell]
    change = f"{method_name(method)} {MINUS} {method_name(other)}"
    return {**row.to_dict(), "method": method, "change": change}


def shown(part: Part, knob: str, value: str) -> str:
    """A knob's value as the page's tables spell it."""
    table = part.cells
    if knob not in table:
        return value
    short = labels.shortened(table, part.trials)[knob]
    return str(dict(zip(table[knob], short, strict=True)).get(value, value))


def values(part: Part) -> dict[str, list[str]]:
    """Knob -> its values in the part, in order, as the page spells them."""
    table = labels.shortened(part.cells, part.trials)
    return {knob: in_order(table[knob]) for knob in labels.knobs(table)}


def in_order(texts: Iterable[object]) -> list[str]:
    """The different texts that are not empty: numbers by size, then words."""
    return sorted({str(text) for text in texts if text not in ("", None)}, key=_order)


def constants(trials: pd.DataFrame) -> list[tuple[str, str]]:
    """The fields that are the same in all of these trials, and their value."""
    fields = [c for c in trials if c.startswith("trial.") and c[6:] not in NUISANCE]
    known = {field[6:]: {spell(value) for value in trials[field]} for field in fields}
    return [(name, *found) for name, found in known.items() if len(found) == 1 and found != {"nan"}]


def in_points(frame: pd.DataFrame, more: Sequence[str] = ()) -> pd.DataFrame:
    """Shares times 100."""
    names = [name for name in frame if name in POINTS or name in more]
    return frame.assign(**{name: 100 * frame[name].astype(float) for name in names})


def columns(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame as the page reads it.

    Returns:
        Name -> a list (numbers, to ``DIGITS`` significant digits, null where missing), or for
        texts ``{"of": the different ones, "at": which one it is}``, -1 where missing.
    """
    return {str(name): _column(frame[name]) for name in frame}


def _differences(found: pd.DataFrame, units: str) -> pd.DataFrame:
    names = ["part", "method", "change", "difference", "low", "high", units]
    kept = found[[*names, "knob"] if "knob" in found else names]
    return in_points(kept, ("difference", "low", "high"))


def _column(values: pd.Series) -> Any:
    if pd.api.types.is_bool_dtype(values):
        values = values.map({True: "yes", False: "no"})
    if pd.api.types.is_numeric_dtype(values):
        return [*map(_number, values.tolist())]
    codes, of = pd.factorize(values.astype(object).map(_text, na_action="ignore"))
    return {"of": [*map(str, of)], "at": codes.tolist()}


def _text(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _number(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded == np.floor(rounded) and abs(rounded) < 2**53 else rounded


def _order(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text
