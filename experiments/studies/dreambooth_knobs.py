"""The knobs of LoKr on a real pipeline and the user's own photos.

    python -m experiments run dreambooth-knobs --data PHOTOS
        --set task=dreambooth/dog2 --set base=FOLDER_OR_HUB_ID

Every cell has its own rate chosen. Nobody has run it on real weights yet: docs/dreambooth.md.
"""

from __future__ import annotations

from experiments.study import Study, grid

# Attention and feed-forward of the U-Net, as in PEFT's documentation of LoKr.
LINEARS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
)
CONVS = ("conv1", "conv2")
SHARED = {
    "task": "dreambooth/dog",
    "base": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "target_modules": (*LINEARS, *CONVS),
    "epochs": 4,
    "repeats": 50,
    "batch_size": 2,
    "precision": "bf16",
    "samples": 25,
    "drift_rows": 16,
}
SEEDS = (0, 1)
RATES = (3e-4, 1e-3, 3e-3)


def study() -> Study:
    """Rank, split and effective convolutions, then init and ``decompose_both``, against LoRA."""
    lokr = {**SHARED, "method": "lokr", "r": 8, "alpha": 8, "decompose_factor": 8}
    trials = [
        *grid(
            {**SHARED, "method": "lokr", "alpha": 8},
            r=(4, 16),
            decompose_factor=(4, -1),
            use_effective_conv2d=(False, True),
            learning_rate=RATES,
            seed=SEEDS,
        ),
        *grid(lokr, init_weights=(True, "lycoris"), learning_rate=RATES, seed=SEEDS),
        *grid({**lokr, "decompose_both": True}, learning_rate=RATES, seed=SEEDS),
        *grid(
            {**SHARED, "method": "lora", "r": 8, "alpha": 8}, learning_rate=RATES[:2], seed=SEEDS
        ),
    ]
    return Study(
        name="dreambooth-knobs",
        description="the knobs of LoKr on Stable Diffusion and photos of one subject",
        trials=tuple(trials),
        scientific=(
            "method",
            "r",
            "decompose_factor",
            "decompose_both",
            "init_weights",
            "use_effective_conv2d",
        ),
    )
