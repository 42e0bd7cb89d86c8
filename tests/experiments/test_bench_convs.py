"""The ways to compute a convolution's adapters: all give the same, and the table is printed."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from experiments.bench import convs
from experiments.bench.convs import Layer

TINY = {"into": 12, "out": 16, "size": 4, "images": 2}
RANKS = {"plain": (1, False), "effective": (1, True), "full": (64, False)}


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("kind", convs.KINDS)
def test_every_way_gives_the_same(kind, channels_last, monkeypatch):
    monkeypatch.setattr(convs, "KINDS", RANKS)
    layer = Layer(lanes=2, kind=kind, channels_last=channels_last, **TINY)
    ways = ("pytorch", "fused")
    passes = [convs._call(layer, "cpu", torch.float32, way, 0)() for way in ways]
    assert_close(*passes, rtol=1e-4, atol=1e-4)


def test_a_table_on_a_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(convs, "UNET", ((12, 16, 4),))
    monkeypatch.setattr(convs, "KINDS", RANKS)
    monkeypatch.setattr(convs, "ways_on", lambda device: ["frozen", "pytorch"])
    convs.main(["--json", str(tmp_path / "convs.json")])
    (row,) = json.loads((tmp_path / "convs.json").read_text())
    assert row["name"] == "12x16 4x4 4x8 plain f=4 NHWC"
    assert set(row["milliseconds"]) == {"frozen", "pytorch"}
    assert all(ms > 0 for ms in row["milliseconds"].values())
    assert "12x16 4x4 4x8 plain" in capsys.readouterr().out


def test_what_cannot_run_is_said(monkeypatch, capsys):
    def fails(*_: object) -> torch.Tensor:
        raise RuntimeError("no such program\nmore")

    monkeypatch.setitem(convs.WAYS, "fused", fails)
    row = convs.measure(Layer(lanes=1, **TINY), "cpu", ["fused"])
    assert row["reasons"] == {"fused": "no such program"}
    convs.show(row, ["fused"])
    assert "fused: no such program" in capsys.readouterr().out


@pytest.mark.parametrize("program", convs.PROGRAMS)
def test_any_tile_gives_the_same(program, monkeypatch):
    monkeypatch.setattr(convs, "KINDS", RANKS)
    layer = Layer(lanes=2, **TINY)
    usual = convs._usual_tile(program, layer)
    other = convs.tile_choices(program)[0]
    assert usual != other
    results = []
    for tile in (usual, other):
        launch = convs._launch(program, layer, tile, 0, "cpu")
        written = launch()
        results.append(launch.args[3] if written is None else written)
    assert_close(*results, rtol=1e-5, atol=1e-5)
