"""The diffusion sweep that ``make bench`` times: 64 LoKr trials on linear layers and convolutions.

Made to be timed: no samples are drawn, and no forgetting is measured.
"""

from __future__ import annotations

from experiments.studies.emoji_knobs import CONVS, LINEARS
from experiments.study import Study, grid

SHARED = {
    "task": "emoji/openmoji",
    "base": "emoji",
    "method": "lokr",
    "target_modules": (*LINEARS, *CONVS),
    "train_size": 32,
    "repeats": 50,
    "epochs": 1,
    "batch_size": 16,
    "precision": "bf16",
    "samples": 0,
    "drift_rows": 0,
}


def study() -> Study:
    """Two each of rank, alpha, split, init, rate and seed."""
    trials = grid(
        SHARED,
        r=(2, 4),
        alpha=(4, 8),
        decompose_factor=(4, 8),
        init_weights=(True, "lycoris"),
        learning_rate=(1e-3, 3e-3),
        seed=(0, 1),
    )
    return Study(
        name="bench-emoji",
        description="64 LoKr trials of diffusion customization, to be timed against PEFT's",
        trials=tuple(trials),
        scientific=("r", "alpha", "decompose_factor", "init_weights"),
    )
