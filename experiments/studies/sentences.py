"""The three tasks of our own grammar, with enough rows and epochs to tell methods apart.

Made for one GPU. It shows how far a frozen encoder with a head stays below adapters, and whether
the attention's query and value are enough.
"""

from __future__ import annotations

from experiments.study import Study, grid
from experiments.tasks.sentences import SENTENCES
from experiments.trial import Trial

SHARED = {"train_size": 4000, "epochs": 5, "batch_size": 32, "max_length": 32, "precision": "bf16"}
SEEDS = (0, 1)


def study() -> Study:
    """LoKr's rank, init and targets, against LoRA, a head alone and all weights."""
    return Study(
        name="sentences",
        description="rank, init and targets of LoKr on acceptability, entailment and paraphrase",
        trials=tuple(trial for name in SENTENCES for trial in _trials(f"sentences/{name}")),
        scientific=("task", "method", "r", "alpha", "init_weights", "target_modules"),
    )


def _trials(task: str) -> list[Trial]:
    shared = {**SHARED, "task": task}
    trials = []
    for r in (4, 16):
        trials += grid(
            {**shared, "method": "lokr", "r": r, "alpha": 2 * r},
            target_modules=(("query", "value"), "all-linear"),
            init_weights=(True, "lycoris"),
            learning_rate=(3e-3, 1e-2),
            seed=SEEDS,
        )
    lora = {**shared, "method": "lora", "r": 8, "alpha": 16, "target_modules": "all-linear"}
    trials += grid({**lora, "learning_rate": 1e-3}, seed=SEEDS)
    trials += grid({**shared, "method": "head"}, learning_rate=(3e-3, 1e-2, 3e-2), seed=SEEDS)
    trials += grid({**shared, "method": "full", "learning_rate": 1e-4}, seed=SEEDS)
    return trials
