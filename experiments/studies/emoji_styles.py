"""Every held-out style, from 8, 32 and 128 pictures: what LoKr, LoRA and all weights make of it.

192 steps of 16, however many pictures there are; made for one GPU.
"""

from __future__ import annotations

from experiments.studies.emoji_knobs import CONVS, LINEARS
from experiments.study import Study, grid
from experiments.tasks.emoji.concepts import HELD_OUT_STYLES
from experiments.trial import NUISANCE, Trial

SHOWN = (8, 32, 128)
ROWS = 1536
"""Rows of an epoch: a multiple of each number of pictures."""
SHARED = {
    "base": "emoji",
    "target_modules": (*LINEARS, *CONVS),
    "epochs": 2,
    "batch_size": 16,
    "precision": "bf16",
    "samples": 32,
}
SEEDS = (0, 1)


def study() -> Study:
    """Five styles, three numbers of pictures, three methods."""
    return Study(
        name="emoji-styles",
        description="every held-out style from 8, 32 and 128 pictures: LoKr, LoRA and all weights",
        trials=tuple(
            trial for style in HELD_OUT_STYLES for shown in SHOWN for trial in _trials(style, shown)
        ),
        scientific=("task", "train_size", "method", "r", "alpha", "decompose_factor"),
        nuisance=(*NUISANCE, "repeats"),
    )


def _trials(style: str, shown: int) -> list[Trial]:
    shared = {
        **SHARED,
        "task": f"emoji/{style}",
        "train_size": shown,
        "repeats": ROWS // shown,
    }
    lokr = {**shared, "method": "lokr", "r": 8, "alpha": 16, "decompose_factor": 4}
    lora = {**shared, "method": "lora", "r": 8, "alpha": 8}
    return [
        *grid(lokr, learning_rate=(1e-3, 3e-3), seed=SEEDS),
        *grid(lora, learning_rate=(5e-4, 1e-3), seed=SEEDS),
        *grid({**shared, "method": "full"}, learning_rate=(1e-5, 3e-5), seed=SEEDS),
    ]
