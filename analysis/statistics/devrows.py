"""What the dev rows alone let a design tell: an interval over seeds knows nothing of them."""

from __future__ import annotations

import math

import pandas as pd

ERRORS = 2
"""So many standard errors are about the 95% of a normal difference."""


def least(table: pd.DataFrame, one: str, other: str) -> float:
    """The smallest difference of two cells that is more than the chance of which dev rows they are
    scored on: two standard errors of a difference between accuracies on independent rows.

    The cells are scored on the same rows, which takes some of that away; how much, the scores do
    not say, so this is on the safe side.

    Args:
        table: from :func:`analysis.statistics.cells.summarize`.
        one, other: cells.

    Returns:
        A share; 0 where the score is no accuracy and nothing is known of its rows.
    """
    errors = table.set_index("cell")["dev_se"].loc[[one, other]]
    return 0.0 if errors.isna().any() else ERRORS * math.hypot(*errors)
