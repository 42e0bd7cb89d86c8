"""W&B's own agent, with a list in the place of its server: ``agent.py SWEEP ENTRY COUNT``.

It runs the first COUNT values of the sweep, and the script ENTRY instead of ``-m experiments``.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from wandb import wandb_agent
from wandb.apis.public import sweeps as server

SWEEP, ENTRY, COUNT = sys.argv[1:]
config = yaml.safe_load(Path(SWEEP).read_text())
module = config["command"].index("-m")
config["command"][module : module + 2] = [ENTRY]
values = config["parameters"]["trial"]["values"]
waiting = [
    {
        "type": "run",
        "run_id": f"run{n}",
        "program": config["program"],
        "args": {"trial": {"value": v}},
    }
    for n, v in enumerate(values)
]


def heartbeat(api: object, agent_id: str, metrics: object, running: dict) -> list[dict[str, Any]]:
    """The next trial as soon as the last has ended."""
    return [] if running else [waiting.pop(0)]


server._sweep_with_runs = lambda *_, **__: {"config": yaml.safe_dump(config)}
server._register_agent = lambda *_, **__: {"id": "agent"}
server._agent_heartbeat = heartbeat
wandb_agent.wandb.Api = lambda *_, **__: None
wandb_agent.Agent.POLL_INTERVAL = 0.1
os.environ["WANDB_SWEEP_ID"] = "sweep1"
wandb_agent.Agent(None, multiprocessing.Queue(), sweep_id="sweep1", count=int(COUNT)).run()
