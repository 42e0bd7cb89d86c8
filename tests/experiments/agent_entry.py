"""The real command line around a training loop that takes no time; run as its own process."""

from __future__ import annotations

from experiments import cli, sizes, studies, train
from tests.experiments import fakes
from tests.experiments.sweep_study import STUDY

train.train_pack = fakes.Trainer()
studies.names = lambda: [STUDY.name]
studies.load = lambda name: STUDY
sizes.layers_of = fakes.layers_of
sizes.rows_of = fakes.rows_of
cli.app()
