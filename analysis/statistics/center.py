"""The middle of a sample."""

from __future__ import annotations

import numpy as np
from scipy import stats


def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean without the lowest and the highest quarter.

    As in rliable (Agarwal et al. 2021, arXiv 2108.13264), ⌊n/4⌋ values go at either end, so of
    fewer than four values it is the mean.

    Args:
        values: (..., n) float, none missing.
        axis: of the n.

    Returns:
        (...) float.

    Raises:
        ValueError: there is no value.
    """
    values = np.asarray(values, dtype=float)
    if values.shape[axis] == 0:
        raise ValueError("no value to take the middle of")
    return stats.trim_mean(values, 0.25, axis=axis)
