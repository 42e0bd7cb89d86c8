"""A first look at the knobs: minutes on two cores, no download.

MiniLM's layers are 384 wide, so with the most even split w2 is (24, 24) and a rank from 12 on is a
full factor: r = 16 and r = 32 are one cell, which the listing says.
"""

from __future__ import annotations

from experiments.study import Study, grid

SHARED = {
    "task": "sentences/entailment",
    "train_size": 1024,
    "epochs": 4,
    "batch_size": 32,
    "max_length": 32,
}
SEEDS = (0, 1)
RATES = (3e-3, 1e-2)


def study() -> Study:
    """LoKr's rank, split and init, against LoRA, a head alone and all weights."""
    trials = []
    # alpha = r keeps the scale at 1: at one scale a rate means the same for every rank.
    for r in (4, 16, 32):
        lokr = {**SHARED, "method": "lokr", "r": r, "alpha": r}
        trials += grid(
            lokr,
            decompose_factor=(-1, 4),
            init_weights=(True, "lycoris"),
            learning_rate=RATES,
            seed=SEEDS,
        )
    trials += grid(
        {**SHARED, "method": "lora", "r": 8, "alpha": 8}, learning_rate=(3e-3,), seed=SEEDS
    )
    trials += grid({**SHARED, "method": "head"}, learning_rate=(1e-2,), seed=SEEDS)
    trials += grid({**SHARED, "method": "full"}, learning_rate=(1e-4,), seed=SEEDS)
    return Study(
        name="quickstart",
        description="rank, split and init of LoKr against LoRA, a head alone and all weights",
        trials=tuple(trials),
        scientific=("method", "r", "alpha", "decompose_factor", "init_weights"),
    )
