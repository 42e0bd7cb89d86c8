"""Emoji of many designers: customize a small text-to-image base to a style that it never saw.

    sources, concepts, render, table    which pictures there are: pinned downloads, names, pixels
    text, unet, diffusion               captions, the base, noise and sampling
    pretrain, card                      how the base was made, `make emoji-base`, and what it can do
    rows, task, sampling                a trial's pictures, its losses, and its samples
    features, metrics                   what samples are worth

``task="emoji/<style>"``, a style of ``concepts.HELD_OUT_STYLES``: ``train_size`` pictures of it
are shown, and what is measured is how well the adapted base draws the concepts that were not.
"""

from __future__ import annotations

from torch import nn

from experiments.tasks.base import Family, Task
from experiments.trial import Trial


def _load(trial: Trial, data: str | None) -> Task:
    from experiments.tasks.emoji.task import EmojiTask

    return EmojiTask(trial, data)


def _skeleton(trial: Trial) -> nn.Module:
    from experiments.tasks.emoji import rows, unet

    rows.styles_of(trial.task.partition("/")[2], trial.drift_rows)  # an unknown style ends here
    return unet.skeleton(trial.base)


FAMILY = Family(_load, _skeleton)
