"""The sweep that ``make bench`` times: 64 LoKr trials on RTE, every one of them another function.

Made to be timed, not to rank the cells: two seeds and 139 reported rows cannot. ``--set base=...``
gives another base; ``all-linear`` finds the targets by whatever names it gives them.
"""

from __future__ import annotations

from experiments.study import Study, grid

SHARED = {
    "task": "glue/rte",
    "base": "minilm",
    "method": "lokr",
    "target_modules": "all-linear",
    "epochs": 6,
    "batch_size": 32,
    "max_length": 128,
    "precision": "bf16",
}


def study() -> Study:
    """Two each of rank, alpha, split, init, rate and seed."""
    trials = grid(
        SHARED,
        r=(4, 8),
        alpha=(8, 16),
        decompose_factor=(-1, 8),
        init_weights=(True, "lycoris"),
        learning_rate=(1e-3, 3e-3),
        seed=(0, 1),
    )
    return Study(
        name="bench-sweep",
        description="64 LoKr trials on GLUE RTE, to be timed against the same through PEFT",
        trials=tuple(trials),
        scientific=("r", "alpha", "decompose_factor", "init_weights"),
    )
