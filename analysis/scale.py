"""Effective scale and size: alpha, r and the rate as the numbers they act through.

    ΔW = scale · kron(w1, w2),  scale = alpha / r,  step = rate · scale,  pull = rate · alpha

PEFT multiplies by alpha / r whatever the factors are (also where both are full; LyCORIS then takes
1, but no trial of ours does), and LoRA does so too. All weights and a head have no scale.

Why alpha and the rate are confounded: AdamW divides a gradient by its own size, so scale, which
multiplies every gradient of a factor alike, leaves its updates as they are (up to AdamW's epsilon).
One factor starts at zero. The first update takes each of its entries to ±rate, so ΔW is then
rate · scale · kron(sign, w2): it depends on step alone, exactly. To first order in the rate
that stays so. In second order it does not: the factor that started at random moves by the rate
without the scale, and once it has moved by about its own size the rate counts for itself. A
low-rank factor is then a sum of r products that all move the same way, so ΔW grows with r · step,
which is the pull. (LoRA's authors divide by r to make one rate serve every r: Hu et al. 2021,
section 4.1.) Which of the two it is in a study is a question to its results: ``explained`` compares
and does not assume. With plain gradient descent it would be rate · scale²; weight decay, which
shrinks factors at rate · decay, would break either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.load import knobs_of, spell
from analysis.part import Part

SCALED = ("lokr", "lokr-peft", "lora")
"""Methods whose adapter is multiplied by alpha / r."""
FOLDS = 10
COLUMNS = ("model", "terms", "r2", "adjusted", "held_out")


def effective(trials: pd.DataFrame) -> pd.Series:
    """The scale of each trial, alpha / r; NaN for a method that has none.

    Args:
        trials: from :func:`analysis.load.load`.
    """
    scale = trials["trial.alpha"].astype(float) / trials["trial.r"].astype(float)
    return scale.where(trials["trial.method"].isin(SCALED)).rename("scale")


def variables(trials: pd.DataFrame) -> pd.DataFrame:
    """What alpha, r, the rate and the shapes come to.

    Returns:
        ``scale`` (alpha / r), ``step`` (rate times scale), ``pull`` (rate times alpha) and
        ``parameters`` (of the adapter), all float, on the index of ``trials``. The first three are
        NaN for a method that has no scale.
    """
    scale = effective(trials)
    rate = trials["trial.learning_rate"].astype(float)
    return pd.DataFrame(
        {
            "scale": scale,
            "step": rate * scale,
            "pull": (rate * trials["trial.alpha"].astype(float)).where(scale.notna()),
            "parameters": trials["parameters.adapter"].astype(float),
        }
    )


def explained(part: Part, metric: str = "score", method: str = "lokr") -> pd.DataFrame:
    """How much of the differences between trials at all rates a few numbers explain.

    Linear models of the metric: step, pull and parameters enter as logarithms with their squares
    and product, knobs as categories. Every trial that ran counts once.

    Returns:
        A row a model: ``model`` (for people), ``terms`` (free coefficients, the constant apart),
        ``r2``, ``adjusted`` (for the number of terms) and ``held_out`` (cross-validated by cell,
        all rates and seeds of a cell held out together; NaN with fewer than two cells). No row
        where alpha, r and the rate do not vary freely, so that there is nothing to tell apart.
    """
    trials = part.trials
    there = trials["trial.method"].eq(method) & trials["status"].eq("ok") & trials[metric].notna()
    trials = trials[there]
    if not _can_tell(trials):
        return pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})
    scores = trials[metric].to_numpy(float)
    cells = pd.factorize(trials["cell"])[0]
    rows = [
        {"model": name, **_fitted(columns, scores, cells)}
        for name, columns in _models(trials, method).items()
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _can_tell(trials: pd.DataFrame) -> bool:
    """Whether step, alpha and the rate are three different things here."""
    names = ["trial.alpha", "trial.r", "trial.learning_rate"]
    if trials.empty or effective(trials).isna().any():
        return False
    step = variables(trials)["step"]
    return len(trials[names].drop_duplicates()) > step.nunique() > 2


def _models(trials: pd.DataFrame, method: str) -> Mapping[str, np.ndarray]:
    """Model, for people -> (trials, columns) float."""
    logs = np.log(variables(trials)[["step", "pull", "parameters"]])
    step, pull, size = (logs[name] for name in logs)
    varying = [name for name in knobs_of(trials)[method] if name not in ("alpha", "r")]
    others = _categories(trials, varying)
    knobs = _categories(trials, ["alpha", "r", "learning_rate"])
    pull_and_size = _surface(pull, size)
    return {
        "rate alpha / r": _powers(step),
        "rate alpha": _powers(pull),
        "rate alpha / r, parameters": _surface(step, size),
        "rate alpha, parameters": pull_and_size,
        "rate alpha, parameters, other knobs": np.column_stack([pull_and_size, others]),
        "alpha, rate": _categories(trials, ["alpha", "learning_rate"]),
        "alpha, r, rate": knobs,
        "alpha, r, rate, other knobs": np.column_stack([knobs, others]),
        "alpha x r x rate": _crossed(trials, ["alpha", "r", "learning_rate"]),
    }


def _powers(values: pd.Series) -> np.ndarray:
    """(trials, 2): centered, and squared."""
    centered = (values - values.mean()).to_numpy()
    return np.column_stack([centered, centered**2])


def _surface(one: pd.Series, other: pd.Series) -> np.ndarray:
    """(trials, 5): both with their squares, and their product."""
    product = ((one - one.mean()) * (other - other.mean())).to_numpy()
    return np.column_stack([_powers(one), _powers(other), product])


def _categories(trials: pd.DataFrame, names: list[str]) -> np.ndarray:
    """(trials, levels - 1 of each): one column a value after the first."""
    if not names:
        return np.empty((len(trials), 0))
    spelled = pd.DataFrame({name: trials[f"trial.{name}"].map(spell) for name in names})
    return pd.get_dummies(spelled, drop_first=True, dtype=float).to_numpy()


def _crossed(trials: pd.DataFrame, names: list[str]) -> np.ndarray:
    """One column a combination after the first."""
    spelled = [trials[f"trial.{name}"].map(spell) for name in names]
    combined = pd.Series([" ".join(row) for row in zip(*spelled, strict=True)])
    return pd.get_dummies(combined, drop_first=True, dtype=float).to_numpy()


def _fitted(columns: np.ndarray, scores: np.ndarray, cells: np.ndarray) -> dict[str, float]:
    from sklearn.linear_model import LinearRegression

    terms = int(np.linalg.matrix_rank(columns - columns.mean(0)))
    r2 = float(LinearRegression().fit(columns, scores).score(columns, scores))
    free = len(scores) - terms - 1
    adjusted = 1 - (1 - r2) * (len(scores) - 1) / free if free > 0 else float("nan")
    held_out = _held_out(columns, scores, cells)
    return {"terms": terms, "r2": r2, "adjusted": adjusted, "held_out": held_out}


def _held_out(columns: np.ndarray, scores: np.ndarray, cells: np.ndarray) -> float:
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    folds = min(FOLDS, len(set(cells)))
    if folds < 2:
        return float("nan")
    split = GroupKFold(folds, shuffle=True, random_state=0)
    foretold = cross_val_predict(LinearRegression(), columns, scores, groups=cells, cv=split)
    return float(1 - ((scores - foretold) ** 2).sum() / ((scores - scores.mean()) ** 2).sum())
