"""Which cell one would take, without a look at the scores that are reported."""

from __future__ import annotations

import pandas as pd

from analysis.part import Part
from analysis.statistics.additive import failures


def pick(part: Part, method: str | None = None) -> str:
    """The cell that one would take: the best mean selection score, fewest parameters on a tie.

    A cell in which a seed failed at the selected rate is taken only if there is no other.

    Args:
        method: only its cells; all by default.

    Raises:
        ValueError: no cell of the method has a selection score.
    """
    table = part.cells.dropna(subset=["selection_score"])
    if method is not None:
        table = table[table["method"] == method]
    if table.empty and method is None:
        raise ValueError(f"no trial in {part.title} has a score")
    if table.empty:
        there = ", ".join(sorted(part.cells["method"].unique()))
        raise ValueError(f"method {method!r} has no score in {part.title}; there are {there}")
    lame = failures(part).reindex(table["cell"]).to_numpy() > 0
    ranked = table.assign(lame=lame).sort_values(
        ["lame", "selection_score", "adapter", "cell"], ascending=[True, False, True, True]
    )
    return str(ranked["cell"].iloc[0])


def crossed(part: Part, method: str | None = None, metric: str = "score") -> pd.DataFrame:
    """What the choice is worth to somebody with other seeds: each seed in turn is left out, cell
    and rate are chosen by the selection scores of the others, and the left-out run is reported.

    :func:`pick` chooses and reports the same runs, so it is flattered by lucky seeds, the more so
    the more cells it chooses from. The mean of these values is not; it is that of a choice with one
    seed less.

    Args:
        method: only its cells; all by default.
        metric: that is reported, a column of the trials.

    Returns:
        One row a seed, in their order: ``seed``, ``cell`` and ``rate`` (the choice), ``value``
        (NaN where the left-out run failed or is not there). Empty where there is but one seed.
    """
    trials = part.trials
    if method is not None:
        trials = trials[trials["trial.method"] == method]
    seeds = sorted(trials["trial.seed"].unique())
    rows = [_left_out(trials, seed, metric) for seed in seeds] if len(seeds) > 1 else []
    found = [row for row in rows if row is not None]
    return pd.DataFrame(found, columns=["seed", "cell", "rate", "value"])


def _left_out(trials: pd.DataFrame, seed: int, metric: str) -> dict[str, object] | None:
    """The choice without a seed and what that seed makes of it; None if no other has a score."""
    own = trials["trial.seed"] == seed
    others = trials[~own]
    failed = (others["status"] != "ok") | others["selection_score"].isna()
    scores = others.assign(failed=failed).groupby(["cell", "trial.learning_rate"], as_index=False)
    scores = scores.agg(failed=("failed", "sum"), score=("selection_score", "mean"))
    scores = scores.dropna(subset=["score"]).sort_values(
        ["failed", "score", "trial.learning_rate", "cell"], ascending=[True, False, True, True]
    )
    if scores.empty:
        return None
    cell, rate = scores.iloc[0][["cell", "trial.learning_rate"]]
    run = trials[own & (trials["cell"] == cell) & (trials["trial.learning_rate"] == rate)]
    values = run[metric].where(run["status"] == "ok")
    value = float(values.iloc[0]) if len(values) else float("nan")
    return {"seed": seed, "cell": cell, "rate": rate, "value": value}
