"""A study whose grid has a hole: r=16 and r=32 are one cell here."""

from __future__ import annotations

from experiments.study import Study, grid

STUDY = Study(
    name="holes",
    description="a study for tests: no grid",
    trials=(
        *grid({"task": "glue/rte"}, r=(4, 16), seed=(0, 1)),
        *grid({"task": "glue/rte", "r": 32, "alpha": 16.0}, seed=(0, 1)),
        *grid({"task": "glue/rte", "method": "head", "learning_rate": 1e-2}, seed=(0, 1)),
    ),
    scientific=("method", "r", "alpha"),
)
