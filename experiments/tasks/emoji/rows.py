"""Which pictures a trial is shown, and on which it is measured.

    shown    the first k of the style's training concepts, in an order that is fixed: 8 are among 32
    unseen   concepts that no held-out style ever shows; halves select and report
    own      pictures of the base's own styles, on which forgetting is measured

A dev row is a picture with a time and noise of its own, the same in every trial on every machine:
differences between trials are then far smaller than the spread of the loss over rows.

Legend: k pictures shown; N rows; C unseen concepts; D draws of time and noise a concept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.errors import BenchError
from experiments.tasks.base import Split
from experiments.tasks.emoji import text
from experiments.tasks.emoji.concepts import HELD_OUT_STYLES, TRAINING_STYLES
from experiments.tasks.emoji.diffusion import spread
from experiments.tasks.emoji.table import Table
from experiments.tasks.emoji.unet import LATENT

UNSEEN = 128
"""C, at most: unseen concepts on which a trial is measured, half of them to select."""
DRAWS = 4
"""D."""
MOST_SHOWN = 128
"""Pictures shown where the trial does not say."""


@dataclass(frozen=True)
class Rows:
    """Row numbers of the table.

    Args:
        shown: (k,).
        selection, report: unseen concepts of the style, (C/2,) each.
        own: of the base's own styles; (0,) if forgetting is not measured.
    """

    shown: Tensor
    selection: Tensor
    report: Tensor
    own: Tensor

    @property
    def unseen(self) -> Tensor:
        """(C,): those that select, then those that are reported."""
        return torch.cat([self.selection, self.report])


def styles_of(style: str, drift_rows: int) -> list[str]:
    """The styles whose pictures are needed.

    Raises:
        BenchError: the style is no held-out one.
    """
    if style not in HELD_OUT_STYLES:
        raise BenchError(
            f"task 'emoji/{style}': expected one of the styles that the base never saw, "
            f"{', '.join(HELD_OUT_STYLES)}"
        )
    return [style, *(TRAINING_STYLES if drift_rows else ())]


def choose(table: Table, style: str, shown: int | None, own: int) -> Rows:
    """The pictures of a trial.

    Args:
        table: has the style, and the base's own if ``own`` > 0.
        style: the one to customize to.
        shown: k; None for MOST_SHOWN.
        own: pictures of the base's own styles.

    Raises:
        BenchError: there are fewer.
    """
    k = shown or MOST_SHOWN
    training = _hashed(table, table.where(style=style, test=False))
    unseen = _hashed(table, table.where(style=style, test=True))[:UNSEEN]
    ours = torch.cat([table.where(style=one) for one in TRAINING_STYLES]) if own else unseen[:0]
    _check("train_size", k, len(training), f"pictures of {style}")
    _check("drift_rows", own, len(ours), "pictures of the base's own styles")
    return Rows(training[:k], unseen[::2], unseen[1::2], _hashed(table, ours)[:own])


def train_split(table: Table, rows: Rows) -> Split:
    """``images`` (k, 3, 64, 64) uint8, ``states`` and ``pooled`` of their captions."""
    return Split(_pictures(table, rows.shown))


def dev_split(table: Table, rows: Rows) -> Split:
    """Unseen concepts D times each, draw by draw, then the own pictures once; with ``times`` (N,)
    int64 and ``noise`` (N, *LATENT) fp32.
    """
    pictures = torch.cat([rows.unseen.repeat(DRAWS), rows.own])
    generator = torch.Generator().manual_seed(0)
    times = [_times(len(rows.unseen), DRAWS, generator), _times(len(rows.own), 1, generator)]
    noise = torch.randn(len(pictures), *LATENT, generator=generator)
    return Split({**_pictures(table, pictures), "times": torch.cat(times), "noise": noise})


def readings(rows: Rows) -> dict[str, Tensor]:
    """Rows of the dev split in each reading, and under ``own`` those of the base's own styles."""
    count, first = len(rows.unseen), len(rows.selection)
    place = torch.arange(DRAWS * count)
    selects = place % count < first
    own = torch.arange(len(place), len(place) + len(rows.own))
    return {"selection": place[selects], "report": place[~selects], "full": place, "own": own}


def _times(rows: int, draws: int, generator: torch.Generator) -> Tensor:
    """(draws·rows,) int64 timesteps, each row's draws in equal shares of that range."""
    places = torch.rand(draws, rows, generator=generator)
    if draws == 1:  # then the rows share the range
        return spread(places).flatten()
    return spread(places.T).T.flatten()


def _pictures(table: Table, rows: Tensor) -> dict[str, Tensor]:
    encoded = text.encode([table.captions[row] for row in rows.tolist()])
    return {
        "images": table.images[rows],
        "states": encoded.states.float(),
        "pooled": encoded.pooled.float(),
    }


def _hashed(table: Table, rows: Tensor) -> Tensor:
    """The rows in the order of a hash of concept and style: the same whatever else is loaded."""
    keys = {row: f"{table.concepts[row]}\0{table.styles[row]}".encode() for row in rows.tolist()}
    order = sorted(keys, key=lambda row: hashlib.sha256(keys[row]).digest())
    return torch.tensor(order, dtype=torch.int64)


def _check(field: str, wanted: int, there: int, what: str) -> None:
    if wanted > there:
        raise BenchError(f"{field}={wanted}: there are {there} {what}")
