"""LoKr's knobs on RTE, GLUE's smallest inference task: made for one GPU.

MiniLM is tuned on NLI pairs among others, so these scores compare cells with each other and not
with papers. ``--set base=roberta-base`` gives the papers' base.
"""

from __future__ import annotations

from experiments.study import Study, grid

SHARED = {
    "task": "glue/rte",
    "base": "minilm",
    "epochs": 6,
    "batch_size": 32,
    "max_length": 128,
    "precision": "bf16",
}
SEEDS = (0, 1)
RATES = (1e-3, 3e-3, 1e-2)


def study() -> Study:
    """LoKr's rank, scale, split and init, against LoRA, a head alone and all weights."""
    trials = []
    for r, alpha in ((4, 4), (8, 8), (8, 32), (64, 64)):
        trials += grid(
            {**SHARED, "method": "lokr", "r": r, "alpha": alpha},
            decompose_factor=(-1, 4),
            init_weights=(True, "lycoris"),
            learning_rate=RATES,
            seed=SEEDS,
        )
    lora = {**SHARED, "method": "lora", "r": 8, "alpha": 8}
    trials += grid(lora, learning_rate=(3e-4, 1e-3, 3e-3), seed=SEEDS)
    trials += grid({**SHARED, "method": "head"}, learning_rate=RATES, seed=SEEDS)
    trials += grid({**SHARED, "method": "full"}, learning_rate=(3e-5, 1e-4, 3e-4), seed=SEEDS)
    return Study(
        name="glue-rte",
        description="rank, scale, split and init of LoKr on GLUE RTE, against the baselines",
        trials=tuple(trials),
        scientific=("method", "r", "alpha", "decompose_factor", "init_weights"),
    )
