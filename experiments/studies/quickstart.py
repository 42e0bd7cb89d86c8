"""A first look at the knobs: minutes on two cores, no download.

MiniLM's layers are 384 wide, so with the most even split w2 is (24, 24) and a rank from 12 on is a
full factor: r = 16 and r = 32 are one cell, which the listing says.
"""

from __future__ import annotations

from experiments.study import Study, grid

SHARED = {
    "task": "sentences/acceptability",
    "train_size": 1120,
    "epochs": 3,
    "batch_size": 16,
    "max_length": 32,
}
SEEDS = (0, 1)
RATES = (5e-3, 1e-2)


def study() -> Study:
    """LoKr's rank and split, against LoRA and a head alone."""
    trials = []
    # alpha = 2r keeps the scale: at one scale a rate means the same for every rank.
    for r, factor in ((4, -1), (16, -1), (32, -1), (4, 4)):
        lokr = {**SHARED, "method": "lokr", "r": r, "alpha": 2 * r, "decompose_factor": factor}
        trials += grid(lokr, learning_rate=RATES, seed=SEEDS)
    lora = {**SHARED, "method": "lora", "r": 8, "alpha": 16, "learning_rate": 2e-3}
    trials += grid(lora, seed=SEEDS)
    trials += grid({**SHARED, "method": "head", "learning_rate": 1e-2}, seed=SEEDS)
    return Study(
        name="quickstart",
        description="rank and split of LoKr against LoRA and a head alone, in minutes on a CPU",
        trials=tuple(trials),
        scientific=("method", "r", "alpha", "decompose_factor"),
    )
