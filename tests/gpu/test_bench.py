"""The comparisons in small, where graphs are captured."""

from __future__ import annotations

import pytest
import torch

from experiments.bench import contenders, layer, step
from experiments.bench.shapes import Case
from experiments.bench.synthetic import Size
from experiments.bench.timing import Eager, Graph, runner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CASES = {
    "low-rank": Case(out=384, into=768, tokens=512, factor=8),
    "full": Case(out=384, into=768, tokens=512, factor=8, r=None),
    "convolution": Case(kind="conv2d", out=64, into=64, tokens=2, size=16, factor=8, r=2),
}
TINY = Size(
    hidden=64, layers=2, heads=4, intermediate=128, vocabulary=50, rows=4, tokens=16, steps=5
)


@pytest.mark.parametrize("name", CASES)
def test_ours_is_captured_and_exact(name):
    found = layer.measure(CASES[name], "cuda", rounds=3)["contenders"]
    for who in (contenders.FROZEN, contenders.OURS):
        assert found[who]["mode"] == "graph", found[who]["reason"]
        assert min(found[who]["samples"]) > 0
    assert max(found[contenders.OURS]["errors"].values()) < 0.02


@pytest.mark.parametrize("name", step.names("cuda"))
def test_every_contender_steps(name):
    row = step.measure(name, TINY, "cuda", threads=1)
    assert len(row["samples"]) == TINY.steps
    assert row["reserved_bytes"] >= row["allocated_bytes"] > 0


def test_what_cannot_be_captured_is_timed_as_it_runs():
    x = torch.ones(4, device="cuda")
    assert isinstance(runner([lambda: x + 1], "cuda"), Graph)
    asking = runner([lambda: (x + 1).sum().item()], "cuda")
    assert isinstance(asking, Eager)
    assert asking.reason.startswith("not captured: ")
    assert asking.milliseconds(3) > 0
