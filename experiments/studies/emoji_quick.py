"""A first look at diffusion: line drawings of OpenMoji, minutes on two cores, no download.

OpenMoji's own package brings the pictures, so nothing is fetched; the base's own styles would have
to be, so forgetting is not measured here (``emoji-knobs`` does).
"""

from __future__ import annotations

from experiments.studies.emoji_knobs import CONVS, LINEARS
from experiments.study import Study, grid

SHARED = {
    "task": "emoji/openmoji-black",
    "base": "emoji",
    "train_size": 32,
    "repeats": 6,
    "epochs": 1,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "samples": 8,
    "drift_rows": 0,
}
SEEDS = (0, 1)


def study() -> Study:
    """LoKr on linear layers alone, and on convolutions too, plain and effective, against LoRA."""
    lokr = {**SHARED, "method": "lokr", "r": 4, "alpha": 8, "decompose_factor": 4}
    everywhere = {**lokr, "target_modules": (*LINEARS, *CONVS)}
    lora = {**everywhere, "method": "lora"}
    trials = [
        *grid({**lokr, "target_modules": LINEARS}, seed=SEEDS),
        *grid(everywhere, use_effective_conv2d=(False, True), seed=SEEDS),
        *grid({**lora, "learning_rate": 3e-3}, seed=SEEDS),
    ]
    return Study(
        name="emoji-quick",
        description="LoKr on attention and on convolutions of a diffusion model, minutes on a CPU",
        trials=tuple(trials),
        scientific=("method", "target_modules", "use_effective_conv2d"),
    )
