"""GLUE's official metrics (gluebenchmark.com), through scikit-learn and scipy.

A score that is not defined (a constant prediction has no correlation) is 0 where GLUE's own code
gives 0, and NaN where predictions are not numbers. Both libraries take a second to import, and most
runs need neither: each metric imports its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float]
"""(predictions (N,), labels (N,)) -> score; classes for classification, numbers for regression."""


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of right classes."""
    return float((predictions == labels).mean())


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1; 0 where it is neither predicted nor present."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0.0))


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation; 0 for a constant prediction."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson correlation."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, labels)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman rank correlation."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, labels)


def _correlation(function: Callable, predictions: np.ndarray, labels: np.ndarray) -> float:
    from scipy.stats import ConstantInputWarning, NearConstantInputWarning

    if not np.isfinite(predictions).all():
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        warnings.simplefilter("ignore", NearConstantInputWarning)
        value = float(function(predictions, labels).statistic)
    return 0.0 if np.isnan(value) else value


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
