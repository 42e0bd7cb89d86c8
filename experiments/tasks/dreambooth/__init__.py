"""Stable Diffusion 1.x, 2.x and XL, customized to one subject from a few photos (DreamBooth).

``dreambooth/<subject>``: the subject is a folder of photos in the folder that ``--data`` names; the
base is a hub id or a folder of a pipeline in diffusers' layout.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from experiments.tasks.base import Family, Task
from experiments.trial import Trial

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""The layers of a text encoder that are adapted, as in PEFT's documentation of LoKr."""


def _load(trial: Trial, data: str | None) -> Task:
    from experiments.tasks.dreambooth import task

    return task.load(trial, data)


def _skeleton(trial: Trial) -> nn.Module:
    from experiments.tasks.dreambooth import pipeline

    return pipeline.skeleton(trial.base, trial.text_r is not None)


def _parts(trial: Trial) -> dict[str, Trial]:
    """The U-Net with the trial's knobs; the text encoders with a rank and alpha of their own."""
    if trial.text_r is None or trial.text_alpha is None:
        return {"unet": trial}
    from experiments.tasks.dreambooth import pipeline

    text = replace(trial, r=trial.text_r, alpha=trial.text_alpha, target_modules=TEXT_TARGETS)
    return {"unet": trial, **dict.fromkeys(pipeline.encoders_of(trial.base), text)}


def _check(trial: Trial, data: str | None) -> None:
    from experiments.tasks.dreambooth import photos

    photos.find(data, trial.task.partition("/")[2])


FAMILY = Family(_load, _skeleton, parts=_parts, check=_check)
