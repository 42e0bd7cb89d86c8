"""Honest selection: the rate is chosen on one half of the dev set, the score read off the other."""

from __future__ import annotations

import pandas as pd

from analysis.load import JUDGED, knobs_of, spell


def select_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """For each cell, the trials (one a seed) at the rate with the best mean selection score.

    A rate at which a seed failed or diverged competes with the scores it has only if no rate of
    the cell is whole. Ties go to the smaller rate.
    """
    whole = frame.assign(failed=(frame["status"] != "ok") | frame["selection_score"].isna())
    best = whole["cell"].map(_best_rates(whole))
    place = pd.Series(pd.factorize(frame["cell"])[0], index=frame.index)
    chosen = whole[whole["trial.learning_rate"] == best].drop(columns="failed")
    return chosen.loc[place[chosen.index].sort_values(kind="stable").index]


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


def _best_rates(whole: pd.DataFrame) -> pd.Series:
    """Cell -> its rate."""
    rates = whole.groupby(["cell", "trial.learning_rate"]).agg(
        failed=("failed", "sum"), score=("selection_score", "mean")
    )
    ranked = rates.reset_index().sort_values(
        ["failed", "score", "trial.learning_rate"], ascending=[True, False, True]
    )
    return ranked.drop_duplicates("cell").set_index("cell")["trial.learning_rate"]


def _papers_protocol(cell: pd.DataFrame) -> float:
    """Best epoch and best rate, both on the full dev set that is reported; mean over seeds."""
    return float(cell.groupby("trial.learning_rate")["full_dev_best"].mean().max())
