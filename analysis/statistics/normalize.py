"""Scores of different tasks on one scale: 0 for a base that learned nothing, 1 for all weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.part import Part
from analysis.statistics.choice import pick
from analysis.statistics.paired import against

CEILINGS = ("full", "lora")
"""What stands for 1, the first that the part has."""
FLOOR = "head"
"""What stands for 0 where the score of the untouched base is not 0 by its definition."""
ZERO = ("gain",)
"""Scores of which the untouched base has 0 by their definition."""


class NoScaleError(ValueError):
    """The part's scores cannot be normalized; the message says why in one sentence."""


class Scale(NamedTuple):
    """What is 0 and what is 1.

    Args:
        low, high: in the unit of the score, low < high.
        how: a sentence that is printed beside every normalized number.
    """

    low: float
    high: float
    how: str

    def of(self, values: np.ndarray) -> np.ndarray:
        """Scores on this scale; below 0 and above 1 happen.

        Args:
            values: (...) float, scores of the part.
        """
        return (np.asarray(values, dtype=float) - self.low) / (self.high - self.low)


def scale(part: Part) -> Scale:
    """The scale of a part's scores.

    1 is the mean report score of the cell of ``full`` (else ``lora``) that is best by selection
    score; 0 is the untouched base for a gain, else the cell of ``head``. Both are estimates from a
    few seeds; an interval of normalized scores does not cover that.

    Raises:
        NoScaleError: no method stands for either end, or the two ends cannot be told apart (95%
            interval of their paired difference), so that every other score would be a ratio of
            noise.
    """
    present = part.cells.dropna(subset=["selection_score"])["method"].unique()
    top = next((method for method in CEILINGS if method in present), None)
    if top is None:
        raise NoScaleError(f"{part.title}: neither {' nor '.join(CEILINGS)} ran, nothing is 1")
    high = _score(part, top)
    if part.metric in ZERO:
        return _checked(part, 0.0, high, f"0 is the untouched base, 1 the best cell of {top}")
    if FLOOR not in present:
        raise NoScaleError(f"{part.title}: {FLOOR} did not run, nothing is 0")
    _require_apart(part, top)
    how = f"0 is the frozen base with a trained head ({FLOOR}), 1 the best cell of {top}"
    return _checked(part, _score(part, FLOOR), high, how)


def normalized(part: Part, values: np.ndarray) -> np.ndarray:
    """Scores of a part on its :func:`scale`.

    Args:
        values: (...) float, scores of the part.

    Raises:
        NoScaleError: see :func:`scale`.
    """
    return scale(part).of(values)


def _score(part: Part, method: str) -> float:
    return float(part.cells.set_index("cell").at[pick(part, method), "score"])


def _require_apart(part: Part, top: str) -> None:
    rows = against(part, FLOOR).set_index("cell")
    low = rows.at[pick(part, top), "low"]
    if np.isnan(low) or low <= 0:
        raise NoScaleError(f"{part.title}: {top} cannot be told from {FLOOR}, there is no scale")


def _checked(part: Part, low: float, high: float, how: str) -> Scale:
    if not high > low:
        raise NoScaleError(f"{part.title}: 1 would be at {high:.4g}, not above 0 at {low:.4g}")
    return Scale(low, high, how)
