"""All six knobs of LoKr on diffusion customization, against LoRA, PEFT's LoKr and all weights.

32 captioned pictures of a style that the base never saw, 200 steps of 16; made for one GPU. Every
cell has its own rate chosen, since alpha, init and the number of factors each want another one.
"""

from __future__ import annotations

from experiments.study import Study, grid
from experiments.trial import Trial

LINEARS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
CONVS = ("conv1", "conv2")
SHARED = {
    "task": "emoji/fluent-emoji-high-contrast",
    "base": "emoji",
    "target_modules": (*LINEARS, *CONVS),
    "train_size": 32,
    "repeats": 50,
    "epochs": 2,
    "batch_size": 16,
    "precision": "bf16",
    "samples": 32,
}
SEEDS = (0, 1, 2)
RATES = (1e-3, 3e-3, 1e-2)


def study() -> Study:
    """A full grid over the six knobs; cells that are the same function collapse."""
    return Study(
        name="emoji-knobs",
        description="all six knobs of LoKr on customizing a diffusion model, against the baselines",
        trials=(*_knobs(), *_baselines()),
        scientific=(
            "method",
            "r",
            "alpha",
            "decompose_factor",
            "decompose_both",
            "init_weights",
            "use_effective_conv2d",
        ),
    )


def _knobs() -> list[Trial]:
    return grid(
        {**SHARED, "method": "lokr"},
        r=(2, 8),
        alpha=(4, 16),
        decompose_factor=(4, -1),
        decompose_both=(False, True),
        init_weights=(True, "lycoris"),
        use_effective_conv2d=(False, True),
        learning_rate=RATES,
        seed=SEEDS,
    )


def _baselines() -> list[Trial]:
    lora = {**SHARED, "method": "lora", "r": 8, "alpha": 8}
    peft = {**SHARED, "method": "lokr-peft", "r": 8, "alpha": 16, "decompose_factor": 4}
    return [
        *grid(lora, learning_rate=(3e-4, 1e-3, 3e-3), seed=SEEDS),
        *grid({**SHARED, "method": "full"}, learning_rate=(3e-5, 1e-4, 3e-4), seed=SEEDS),
        *grid({**peft, "learning_rate": 3e-3}, seed=SEEDS),
    ]
