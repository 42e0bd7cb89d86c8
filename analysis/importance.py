"""How much of a study's differences each knob makes: shares of the variance of its scores.

Two views. ``tuned``: every cell at its selected rate, what matters to who tunes the rate. ``raw``:
all rates, the rate a variable like the others, what matters to who does not.

On a full grid the decomposition is exact (``analysis.variance``). Cells that collapsed into another
one are filled in by ``analysis.collapsed``. Where holes are left it is a random forest's
(``analysis.forest``), and nothing is ranked if that foretells held-out cells badly.

A trial that diverged or failed has no number: its cell is the mean of its other seeds, with the
seeds' common shifts taken out, and a cell without any number is a hole.

Knobs that only ever move together (``alpha = 2 r``) cannot be told apart by any method: they are
one variable, ``r+alpha``. So are knobs of which only some combinations ran, if that leaves a full
grid of at least two variables.

Legend: n variables;  P points;  U units (what ran);  S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from analysis import forest, variance
from analysis.collapsed import completed
from analysis.doubts import doubts
from analysis.load import knobs_of, spell
from analysis.part import Part
from analysis.selection import select_rates
from analysis.statistics.additive import sign
from analysis.statistics.cells import range_of
from analysis.variance import Decomposition, Noise, Share

VIEWS = ("tuned", "raw")
RATE, SEED = "learning_rate", "seed"
MIN_FIT = 0.5
"""Below this cross-validated R² a forest misses more than half of what tells cells apart, and the
order of its shares is that of a model nobody should believe."""
COLUMNS = ("kind", "knobs", "share", "low", "high")


@dataclass(frozen=True, eq=False)
class Importance:
    """What makes the differences between trials of one method.

    Args:
        table: ``kind`` ("main", "pair", "higher" or "noise"), ``knobs`` (tuple of names: one, two,
            or none of "higher" and "noise"), ``share`` of the variance of a trial's score, ``low``
            and ``high`` (95%). Mains by share, then pairs by share; seed is a main: the shift that
            all cells share. Shares sum to 1; those of knobs that do nothing are about 0, of either
            sign. No row if it was refused.
        view: one of ``VIEWS``.
        how: "exact" or "fanova"; None where not even that could be told.
        fit: cross-validated R² of the forest; None on a full grid.
        noise: standard deviation of one trial's score by seed, NaN if refused without it.
        refused: why nothing is ranked, a sentence; else None.
        lost: trials that have no number.
        holes: points of the grid that have no number.
        doubts: why the shares and their intervals may mislead, a sentence each without capital and
            period: cells at the end of the scale, or variances that differ far; see
            :func:`analysis.doubts.doubts`. To be printed wherever the shares are.
    """

    table: pd.DataFrame
    view: str
    how: str | None = None
    fit: float | None = None
    noise: float = math.nan
    refused: str | None = None
    lost: int = 0
    holes: int = 0
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Measured:
    """The trials of a method as points of a grid.

    Args:
        names: of the n variables.
        points: (P, n) int, level of each variable; every point has a number.
        units: (P,) int, what ran there.
        values: (U, S) float, NaN where a trial has no number.
        lost: trials that have no number.
    """

    names: list[str]
    points: np.ndarray
    units: np.ndarray
    values: np.ndarray
    lost: int

    @property
    def holes(self) -> int:
        """Points of the grid of observed levels that have no number."""
        return forest.size(self.points) - len(self.points)


class RefusedError(ValueError):
    """The trials cannot say what matters; the message is a sentence."""


def importance(
    part: Part, metric: str = "score", method: str = "lokr", view: str = "tuned"
) -> Importance:
    """Shares of the variance of one method's trials; the same at every call.

    Args:
        part: what is compared.
        metric: a column of the trials.
        method: whose knobs.
        view: "tuned": cells at their selected rates; "raw": all rates.

    Raises:
        ValueError: ``view`` is neither.
        DamagedError: the study's ``collapsed.jsonl`` is damaged.
    """
    if view not in VIEWS:
        raise ValueError(f"view={view!r}: expected one of {', '.join(VIEWS)}")
    try:
        measured = measure(part, metric, method, view)
        noise = variance.fit_noise(measured.values)
    except (RefusedError, variance.NoNoiseError) as error:
        return Importance(_framed([]), view, refused=str(error))
    common = {
        "view": view,
        "noise": math.sqrt(noise.variance),
        "lost": measured.lost,
        "doubts": doubts(measured.values, _end(part, metric)),
    }
    if measured.holes:
        return _by_forest(measured, noise, {**common, "holes": measured.holes})
    table = _table(measured.names, _exact(measured, noise))
    return Importance(table, how="exact", **common)


def _end(part: Part, metric: str) -> float:
    """The best that the metric can be."""
    low, high = range_of(part, metric)
    return high if sign(metric) > 0 else low


def measure(part: Part, metric: str, method: str, view: str) -> Measured:
    """The trials of a method as points of a grid, collapsed ones filled in.

    Raises:
        RefusedError: no trial of the method has the metric, or nothing varies.
    """
    trials = completed(part).trials
    trials = trials[trials["trial.method"] == method]
    if not (trials["status"].eq("ok") & trials[metric].notna()).any():
        raise RefusedError(f"no trial of {method} has a {metric}")
    names = knobs_of(trials)[method]
    trials = (trials if view == "raw" else select_rates(trials)).reset_index(drop=True)
    if view == "raw" and trials[f"trial.{RATE}"].nunique() > 1:
        names = [*names, RATE]
    if not names:
        raise RefusedError(f"no knob of {method} varies")
    return _measured(trials, metric, names)


def _measured(trials: pd.DataFrame, metric: str, names: Sequence[str]) -> Measured:
    there = trials["status"].eq("ok") & trials[metric].notna()
    codes = pd.DataFrame({name: _levels(trials[f"trial.{name}"]) for name in names})
    groups = _joined(codes.drop_duplicates(), codes[there].drop_duplicates())
    joint = pd.DataFrame({"+".join(group): _joint(codes, group) for group in groups})
    ran = trials.assign(point=_joint(joint, joint.columns), value=trials[metric].where(there))
    wide = ran[there].pivot(index="point", columns="trial.seed", values="value")
    standing = ran.groupby("point")["equals"].agg(lambda ids: tuple(sorted(ids)))
    units, first = _units(standing[wide.index])
    points = joint.set_index(ran["point"])[lambda rows: ~rows.index.duplicated()].loc[wide.index]
    used = points.apply(lambda column: pd.factorize(column, sort=True)[0]).to_numpy()
    lost = int((~there).sum())
    values = wide.to_numpy(float)[first]
    if np.nanmin(values) == np.nanmax(values):
        raise RefusedError(f"every trial has the same {metric}")
    return Measured([*joint.columns], used, units, values, lost)


def _units(standing: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """(P,) which unit a point shows, and the first point of each unit."""
    units, _ = pd.factorize(standing)
    return units, np.unique(units, return_index=True)[1]


def _levels(values: pd.Series) -> np.ndarray:
    """(trials,) int: numbers in their order, then words in theirs."""
    order = sorted({*values}, key=lambda value: (_number(value), spell(value)))
    places = {spell(value): place for place, value in enumerate(order)}
    return values.map(spell).map(places).to_numpy()


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not pd.isna(value) else math.inf


def _joint(codes: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """(trials,) int: one level for each combination that occurs, in order."""
    return codes.groupby([*names], sort=True).ngroup().to_numpy()


def _joined(designed: pd.DataFrame, measured: pd.DataFrame) -> list[list[str]]:
    """The variables, as groups of knobs that are taken for one.

    Args:
        designed: one row a point that ran, with a number or without.
        measured: those with a number.
    """
    names = [*designed.columns]
    sizes = designed.nunique()
    met = {
        pair: len(designed[[*pair]].drop_duplicates()) for pair in combinations(designed.columns, 2)
    }
    aliases = [(i, j) for (i, j), size in met.items() if size == sizes[i] == sizes[j]]
    apart = _grouped(names, aliases)
    if _is_full(measured, apart):
        return apart
    crossed = [(i, j) for (i, j), size in met.items() if size < sizes[i] * sizes[j]]
    joined = _grouped(names, crossed)
    return joined if len(joined) > 1 and _is_full(measured, joined) else apart


def _grouped(names: Sequence[str], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Names that are linked, over others too, are one group."""
    group = {name: [name] for name in names}
    for one, other in links:
        if group[one] is not group[other]:
            merged = [name for name in names if name in group[one] or name in group[other]]
            group |= dict.fromkeys(merged, merged)
    return list({id(names): names for names in group.values()}.values())


def _is_full(measured: pd.DataFrame, groups: Sequence[Sequence[str]]) -> bool:
    levels = [len(measured[[*group]].drop_duplicates()) for group in groups]
    return math.prod(levels) == len(measured)


def _exact(measured: Measured, noise: Noise) -> Decomposition:
    grid = np.empty(measured.points.max(0) + 1, int)
    grid[tuple(measured.points.T)] = measured.units
    return variance.decompose(grid, noise)


def _by_forest(measured: Measured, noise: Noise, common: dict) -> Importance:
    if len(noise.means) < forest.LEAST or forest.size(measured.points) > forest.MOST:
        few = (
            f"the grid has holes: {len(noise.means)} of {forest.size(measured.points):,} cells "
            f"ran; a model of it takes at least {forest.LEAST}, on at most {forest.MOST:,}"
        )
        return Importance(_framed([]), how="fanova", refused=few, **common)
    means = noise.means[measured.units]
    fit = forest.cross_validated(measured.points, measured.units, means)
    if fit < MIN_FIT:
        poor = (
            f"the grid has holes, and a forest foretells held-out cells too badly to rank knobs: "
            f"cross-validated R² {fit:.2f}, less than {MIN_FIT}"
        )
        return Importance(_framed([]), how="fanova", fit=fit, refused=poor, **common)
    found = forest.decompose(measured.points, measured.units, noise)
    return Importance(_table(measured.names, found), how="fanova", fit=fit, **common)


def _table(names: Sequence[str], found: Decomposition) -> pd.DataFrame:
    """Mains with the seed, pairs, what takes three or more, noise."""
    by_size = [(tuple(names[i] for i in subset), share) for subset, share in found.effects.items()]
    mains = [(knobs, share) for knobs, share in by_size if len(knobs) == 1]
    mains.append(((SEED,), found.seed))
    pairs = [(knobs, share) for knobs, share in by_size if len(knobs) == 2]
    rows = [("main", *row) for row in sorted(mains, key=_most)]
    rows += [("pair", *row) for row in sorted(pairs, key=_most)]
    if len(names) > 2:
        rows.append(("higher", (), found.effects[()]))
    return _framed([*rows, ("noise", (), found.noise)])


def _most(row: tuple[tuple[str, ...], Share]) -> float:
    return -row[1].share


def _framed(rows: Sequence[tuple[str, tuple[str, ...], Share]]) -> pd.DataFrame:
    flat = [(kind, knobs, *share) for kind, knobs, share in rows]
    numbers = dict.fromkeys(COLUMNS[2:], float)
    return pd.DataFrame(flat, columns=[*COLUMNS]).astype(numbers)
