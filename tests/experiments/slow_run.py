"""The real command line around a training loop that is slow once; run as its own process.

Each pack it starts is a line of the file that the variable STARTED names. The second pack takes
long enough to be killed; started again after that, all are quick.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from experiments import cli, sizes, studies, train
from experiments.outcome import Outcome
from experiments.study import Study, grid
from experiments.trial import Trial
from tests.experiments import fakes

STUDY = Study(
    name="slow",
    description="three packs of four lanes",
    trials=tuple(grid({"task": "glue/rte"}, seed=range(12))),
    scientific=("r",),
)


def train_pack(trials: Sequence[Trial], **_: object) -> list[Outcome]:
    """Note the start, and be slow in the second pack ever started."""
    log = Path(os.environ["STARTED"])
    with log.open("a") as file:
        file.write(" ".join(trial.id for trial in trials) + "\n")
    if len(log.read_text().splitlines()) == 2:
        time.sleep(60)
    return [fakes.outcome(trial) for trial in trials]


# A job in the background is started with SIGINT ignored, and hands that on: undo it.
signal.signal(signal.SIGINT, signal.default_int_handler)
train.train_pack = train_pack
studies.names = lambda: ["slow"]
studies.load = lambda name: STUDY
sizes.layers_of = fakes.layers_of
sizes.rows_of = fakes.rows_of
cli.app()
