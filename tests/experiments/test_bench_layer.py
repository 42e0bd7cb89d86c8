"""The layer comparison in small: every contender computes LoKr, and the tables say what is so."""

from __future__ import annotations

import json
import os
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

from experiments import cli
from experiments.bench import contenders, layer, layer_report, shapes
from experiments.bench.record import Record
from experiments.bench.shapes import Case
from experiments.bench.timing import Clock, environment
from lokr import kernels

CASES = {
    "low-rank": Case(out=48, into=32, tokens=12, factor=4, r=2),
    "even split": Case(out=48, into=32, tokens=12, factor=-1, r=2),
    "full": Case(out=48, into=32, tokens=12, factor=4, r=None),
    "convolution": Case(kind="conv2d", out=48, into=32, tokens=2, size=5, factor=4, r=2),
    "effective": Case(
        kind="conv2d", out=48, into=32, tokens=2, size=5, factor=4, r=2, effective=True
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_contender_runs_and_every_lokr_is_exact(name):
    case = CASES[name]
    measured = layer.measure(case, "cpu", rounds=2)
    found = measured["contenders"]
    assert tuple(found) == contenders.names(case)
    assert (contenders.LORA in found) == (case.r is not None)
    for who, result in found.items():
        assert result["reason"] is None, (who, result["reason"])
        assert result["mode"] == "clock"
        assert len(result["samples"]) == 2
        assert min(result["samples"]) > 0
        if who in (contenders.FROZEN, contenders.LORA):
            assert result["errors"] is None
        else:
            assert 0 < max(result["errors"].values()) < 1e-5
    json.dumps(measured, allow_nan=False)


def test_the_case_gives_the_factors_it_names():
    assert not CASES["full"].spec.w2_low_rank
    assert CASES["low-rank"].spec.w2_low_rank
    assert CASES["effective"].spec.effective
    assert all(case.spec.scale == 1 for case in CASES.values())
    assert {(c.spec.a, c.spec.c) for c in shapes.LINEAR if c.factor == 8} == {(8, 8)}


def test_a_wrong_product_is_caught(monkeypatch):
    doubled = contenders._with_ours

    def wrong(case, base, path):
        contender = doubled(case, base, path)
        return contenders.Contender(lambda x: 2 * contender.forward(x), contender.trained)

    monkeypatch.setattr(contenders, "_with_ours", wrong)
    case = CASES["low-rank"]
    measured = layer.measure(case, "cpu", rounds=1)
    assert measured["contenders"]["ours"]["errors"]["output"] == pytest.approx(1, rel=1e-3)
    record = Record("layer", True, "cpu", [], {case.name: {"run": 0, **measured}})
    assert "relative error" in layer_report.failures(record)[0]


def test_a_peer_that_is_not_installed_is_a_reason(monkeypatch):
    def missing(case, base, device):
        raise ImportError("No module named 'lycoris'")

    monkeypatch.setitem(contenders._BUILD, contenders.LYCORIS, missing)
    measured = layer.measure(CASES["low-rank"], "cpu", rounds=1)
    result = measured["contenders"][contenders.LYCORIS]
    assert result["samples"] is None
    assert result["reason"] == "not installed: No module named 'lycoris'"


def test_a_contender_that_fails_takes_no_other_with_it(monkeypatch):
    def failing(case, base, device):
        raise KeyError("bug")

    monkeypatch.setitem(contenders._BUILD, contenders.OURS, failing)
    case = CASES["low-rank"]
    measured = layer.measure(case, "cpu", rounds=1)
    assert measured["contenders"][contenders.FROZEN]["samples"]
    record = Record("layer", True, "cpu", [], {case.name: {"run": 0, **measured}})
    assert layer_report.failures(record) == [f"{case.name}: KeyError: 'bug'"]


def test_a_contender_runs_in_its_own_context(monkeypatch):
    monkeypatch.setenv("LYCORIS_KERNEL_BACKEND", "before")
    seen = []
    look = partial(environment, {"LYCORIS_KERNEL_BACKEND": "triton", "NEVER_SET": "1"})
    clock = Clock([lambda: seen.append(os.environ["LYCORIS_KERNEL_BACKEND"])], look)
    clock.run(1)
    assert set(seen) == {"triton"}
    assert os.environ["LYCORIS_KERNEL_BACKEND"] == "before"
    assert "NEVER_SET" not in os.environ


def test_our_paths_are_forced():
    seen = {}
    for name in (contenders.OURS, contenders.OURS_TORCH):
        contender = contenders.build(name, CASES["low-rank"], "cpu", torch.float32)
        with contender.within():
            seen[name] = kernels.path()
    assert seen == {contenders.OURS: "auto", contenders.OURS_TORCH: "torch"}


def test_the_command_saves_shows_and_writes_the_page(tmp_path, monkeypatch):
    case = CASES["low-rank"]
    monkeypatch.setattr(shapes, "ON_A_CPU", (case,))
    arguments = ["bench", "layer", "--device", "cpu", "--rounds", "2", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli.app, arguments)
    assert ran.exit_code == 0, ran.output
    assert "small version" in ran.output
    assert "ours / frozen" in ran.output
    saved = json.loads((tmp_path / "bench" / "layer-cpu.json").read_text())
    assert list(saved["pieces"]) == [case.name]
    assert saved["runs"][0]["versions"]["lycoris-lora"]
    text = (tmp_path / "bench" / "README.md").read_text()
    assert "One layer (small CPU version)" in text
    assert case.name in text


def test_a_layer_that_is_not_there_is_one_line(tmp_path):
    arguments = ["bench", "layer", "--device", "cpu", "--only", "7x7", "--results", str(tmp_path)]
    ran = CliRunner().invoke(cli.app, arguments)
    assert ran.exit_code == 1
    assert "--only '7x7': no layer has this in its name; there are: 768x768" in ran.output
    assert not any(tmp_path.iterdir())  # nothing was measured, so no page is written
