"""Shares of a variance as they are printed: none left out, so that they add up to 100%."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.importance import SEED, Importance

OTHER, TOGETHER, NOISE = "other knobs", "knobs together", "noise"


def percents(shares: Sequence[float], digits: int = 0) -> list[float]:
    """Shares in percent, rounded so that their sum is that of all, rounded.

    Those that lose most by rounding down are rounded up (the method of largest remainders), so
    each is less than one unit of the last digit from its share. Negative ones stay negative.

    Args:
        shares: of 1, without NaN.
        digits: after the point.
    """
    units = 100 * np.asarray(shares, dtype=float) * 10**digits
    units = units.round(9)  # 28.999999999999996 is 29
    down = np.floor(units)
    missing = int(round(units.sum()) - down.sum())
    up = np.argsort(down - units, kind="stable")[:missing]
    down[up] += 1
    return [float(value) + 0.0 for value in down / 10**digits]


def grouped(found: Importance, top: int | None = None) -> pd.DataFrame:
    """The shares that a sentence names, and the rest in as few rows as will do.

    Args:
        found: that was not refused.
        top: so many knobs, the largest first; None: those whose share is above 0 for sure.

    Returns:
        One row a part of the whole: ``kind`` ("main"; "rest": the other knobs, each alone;
        "together": what takes two knobs or more; "seed"; "noise"), ``label``, ``knobs`` (tuple, of
        a main alone), ``share``, ``low``, ``high`` (95%, where it is no sum of several) and
        ``percent`` (whole, float). ``share`` adds up to 1 and ``percent`` to 100; either may be
        negative. No row where nothing was ranked.
    """
    table = found.table
    mains = table[(table["kind"] == "main") & (table["knobs"] != (SEED,))]
    kept = (mains["low"] > 0) if top is None else (np.arange(len(mains)) < top)
    seed = table[(table["kind"] == "main") & (table["knobs"] == (SEED,))]
    groups = [
        *(("main", "+".join(row["knobs"].iloc[0]), row) for row in _each(mains[kept])),
        ("rest", OTHER, mains[~kept]),
        ("together", TOGETHER, table[table["kind"].isin(("pair", "higher"))]),
        ("seed", SEED, seed),
        ("noise", NOISE, table[table["kind"] == "noise"]),
    ]
    rows = [_row(kind, label, members) for kind, label, members in groups if len(members)]
    columns = ["kind", "label", "knobs", "share", "low", "high"]
    parts = pd.DataFrame(rows, columns=columns)
    return parts.assign(percent=percents(parts["share"]))


def _each(table: pd.DataFrame) -> list[pd.DataFrame]:
    return [table.iloc[[place]] for place in range(len(table))]


def _row(kind: str, label: str, members: pd.DataFrame) -> dict[str, object]:
    alone = len(members) == 1
    bounds = {name: members[name].iloc[0] if alone else math.nan for name in ("low", "high")}
    knobs = members["knobs"].iloc[0] if kind == "main" else ()
    return {"kind": kind, "label": label, "knobs": knobs, "share": members["share"].sum(), **bounds}
