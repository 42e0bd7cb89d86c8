"""Honest selection: the rate is chosen on one half of the dev set, the score read off the other.

A mean over fewer seeds is more often the highest by luck. So what lacks seeds, because they failed
or because the sweep was interrupted, competes with what is whole only if nothing is.
"""

from __future__ import annotations

import pandas as pd

from analysis.load import JUDGED, knobs_of, spell


def select_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """For each cell, the trials (one a seed) at the rate with the best mean selection score.

    A rate at which a seed failed, diverged or never ran, though the cell has it at another rate,
    competes with the scores it has only if no rate of the cell is whole. Ties go to the smaller
    rate.
    """
    best = frame["cell"].map(_best_rates(frame).set_index("cell")["rate"])
    place = pd.Series(pd.factorize(frame["cell"])[0], index=frame.index)
    chosen = frame[frame["trial.learning_rate"] == best]
    return chosen.loc[place[chosen.index].sort_values(kind="stable").index]


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells in the order in which one would take them by their selection scores.

    First those that are whole: no seed failed at the selected rate, and there are no fewer than
    most cells of the method have. Then by the mean selection score, and on a tie by the number of
    parameters.

    Returns:
        One row a cell that has a selection score: ``cell``, ``method``, ``rate`` (the selected
        one), ``lame`` (bool, not whole), ``score`` (mean selection score), ``adapter``.
    """
    table = _best_rates(frame).dropna(subset=["score"])
    usual = table.groupby("method")["runs"].transform(lambda runs: runs.mode().max())
    table["lame"] = (table["failed"] > 0) | (table["runs"] < usual)
    order = ["lame", "score", "adapter", "cell"]
    table = table.sort_values(order, ascending=[True, False, True, True], ignore_index=True)
    return table[["cell", "method", "rate", "lame", "score", "adapter"]]


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, best first.

    Returns:
        ``cell``, ``method``, the knobs in which some method's trials differ (empty where a method
        has one value), ``adapter`` and ``trainable`` (parameters), ``rate`` (the selected
        one), ``seeds``, ``score`` and ``spread`` (mean and standard deviation over seeds on the
        report half), ``full_dev_best`` (the papers' protocol), ``seconds`` (mean of a trial),
        ``failed`` (trials of the cell, at any rate, that did not end ``ok``),
        ``selection_score``, and those of ``JUDGED`` that the study has: means over seeds at the
        selected rate.
    """
    knobs = knobs_of(frame)
    whole_cells = dict(iter(frame.groupby("cell", sort=False)))
    rows = []
    for name, group in select_rates(frame).groupby("cell", sort=False):
        everything = whole_cells[name]
        method = str(group["trial.method"].iloc[0])
        rows.append(
            {
                "cell": name,
                "method": method,
                **{knob: spell(group[f"trial.{knob}"].iloc[0]) for knob in knobs[method]},
                "adapter": group["parameters.adapter"].iloc[0],
                "trainable": group["parameters.trainable"].iloc[0],
                "rate": group["trial.learning_rate"].iloc[0],
                "seeds": len(group),
                "score": group["score"].mean(),
                "spread": group["score"].std(ddof=1),
                "full_dev_best": _papers_protocol(everything),
                "seconds": everything["seconds"].mean(),
                "failed": int((everything["status"] != "ok").sum()),
                "selection_score": group["selection_score"].mean(),
                **{metric: group[metric].mean() for metric in judged(frame)},
            }
        )
    names = list(dict.fromkeys(knob for method in knobs.values() for knob in method))
    order = ["cell", "method", *names]
    table = pd.DataFrame(rows).fillna(dict.fromkeys(names, ""))
    table = table[[*order, *(c for c in table.columns if c not in order)]]
    return table.sort_values("score", ascending=False, ignore_index=True)


def judged(frame: pd.DataFrame) -> list[str]:
    """Those of ``JUDGED`` that have a value in the frame."""
    return [name for name in JUDGED if name in frame and frame[name].notna().any()]


def _best_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, at its selected rate: cell, method, rate, runs, failed, score, adapter."""
    keys = {"cell": frame["cell"], "rate": frame["trial.learning_rate"]}
    failed = (frame["status"] != "ok") | frame["selection_score"].isna()
    rates = frame.assign(failed=failed, **keys).groupby([*keys], as_index=False)
    rates = rates.agg(
        method=("trial.method", "first"),
        runs=("trial.seed", "nunique"),
        failed=("failed", "sum"),
        score=("selection_score", "mean"),
        adapter=("parameters.adapter", "first"),
    )
    seeds = rates["cell"].map(frame.groupby("cell")["trial.seed"].nunique())
    rates["lacking"] = rates["failed"] + seeds - rates["runs"]
    order = ["lacking", "score", "rate"]
    return rates.sort_values(order, ascending=[True, False, True]).drop_duplicates("cell")


def _papers_protocol(cell: pd.DataFrame) -> float:
    """Best epoch and best rate, both on the full dev set that is reported; mean over seeds."""
    rates = cell.groupby("trial.learning_rate")["full_dev_best"].agg(["count", "mean"])
    whole = rates["count"] == rates["count"].max()
    return float(rates["mean"][whole].max())
