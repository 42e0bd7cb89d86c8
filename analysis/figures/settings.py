"""Means over the other knobs that can be compared: only settings that every square has count.

A *square* is what a figure tells apart (a rank and a factor, say); a *setting* is the values of
all other knobs. A grid has holes, and the mean over what happens to be there compares different
settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis.collapsed import completed
from analysis.figures.style import Lacking
from analysis.labels import HEADINGS
from analysis.load import knobs_of, spell
from analysis.part import Part

METHOD = "lokr"
SCALE = "alpha/r"
WORDS = {**HEADINGS, "learning_rate": "rate", "use_effective_conv2d": "effective conv"}
"""Knobs as axes and legends call them."""
_TWINS = " A cell that is the same function as another has that one's numbers."


class Matched(NamedTuple):
    """Means over the same settings for every square.

    Args:
        means: of the settings, indexed by the squares' knobs.
        over: the knobs that were averaged over.
        settings: those of their combinations that every square has, spelled.
    """

    means: pd.Series
    over: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def words(self) -> str:
        """What was averaged, for the note."""
        if not self.over:
            return "No other knob varies."
        names = ", ".join(word(knob) for knob in self.over)
        if len(self.settings) == 1:
            return f"The one setting of ({names}) that every square has: {self.settings[0]}."
        return f"Mean over the {len(self.settings)} settings of ({names}) that every square has."


def word(knob: str) -> str:
    """Short name of a knob."""
    return WORDS.get(knob, knob)


def knobs(trials: pd.DataFrame, method: str = METHOD) -> list[str]:
    """The knobs that vary in a method's trials."""
    return knobs_of(trials).get(method, [])


def require_scores(part: Part) -> None:
    """Raise Lacking where no trial has both halves' scores."""
    scores = part.trials.loc[part.trials["status"] == "ok", ["selection_score", "score"]]
    if scores.dropna().empty:
        raise Lacking("no trial has a score")


def whole(part: Part) -> Part:
    """The part with the cells that never ran because they are the same function as another."""
    return completed(part)


def twins(part: Part) -> str:
    """A sentence for the note where some of :func:`whole` is not in the part's own trials."""
    return _TWINS if len(whole(part).trials) > len(part.trials) else ""


def of_method(trials: pd.DataFrame, method: str = METHOD) -> pd.DataFrame:
    """A method's trials with its knobs under their own names, and ``alpha/r``.

    Raises:
        Lacking: there is none.
    """
    own = trials[trials["trial.method"] == method]
    if own.empty:
        raise Lacking(f"no trial of the method {method}")
    plain = {knob: own[f"trial.{knob}"] for knob in knobs(trials, method)}
    scale = own["trial.alpha"].astype(float) / own["trial.r"].astype(float)
    return own.assign(**plain, rate=own["trial.learning_rate"], **{SCALE: scale})


def matched(trials: pd.DataFrame, squares: Sequence[str], others: Sequence[str]) -> Matched:
    """Mean score of each square over the settings of the others that every square has.

    Where no setting of alpha is shared, settings of alpha/r are tried in its place.

    Args:
        trials: from :func:`of_method`, that ended well; those of one square and setting are seeds
            (or cells that are the same function) and are averaged first.
        squares: columns that tell the squares apart.
        others: columns of the other knobs.

    Raises:
        Lacking: no setting is shared by all squares.
    """
    choices = [list(others)]
    if "alpha" in others:
        choices.append([SCALE if knob == "alpha" else knob for knob in others])
    tables = [(names, _shared(trials, squares, names)) for names in choices]
    names, table = max(tables, key=lambda found: len(found[1]))
    if table.empty:
        listed = ", ".join(map(word, others))
        raise Lacking(f"no setting of ({listed}) is there for every {' and '.join(squares)}")
    return Matched(table.mean(), tuple(names), tuple(table.index))


def _shared(trials: pd.DataFrame, squares: Sequence[str], others: Sequence[str]) -> pd.DataFrame:
    """Scores, one row a setting that every square has, one column a square."""
    rows = zip(*(trials[name] for name in others), strict=True) if others else [()] * len(trials)
    setting = [", ".join(map(spell, row)) for row in rows]
    means = trials.assign(setting=setting).groupby(["setting", *squares])["score"].mean()
    return means.unstack(list(squares)).dropna()
