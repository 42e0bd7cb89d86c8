"""ΔW against LyCORIS's ``get_weight`` in fp32, alpha == r, from the same factors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lokr import LoKrConfig, LoKrModel, factor_spec
from lokr.layers import layer_class
from tests.lokr.peers import KNOBS, LAYERS, Net, adapt, factors, in_lycoris, randomize


def adapted(layer: nn.Module, **fields) -> LoKrModel:
    model = adapt(Net(layer), target_modules=["layer"], **fields)
    randomize(model)
    return model


def same_in_lycoris(model: LoKrModel, r: int, **fields):
    values = {name.rpartition(".")[2]: v for name, v in factors(model).items()}
    return in_lycoris(model.model.layer.base_layer, values, r=r, **fields)


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("layer", LAYERS)
def test_same_delta_weight_exactly(layer, knob):
    fields = {**KNOBS[knob], "alpha": KNOBS[knob]["r"]}
    model = adapted(LAYERS[layer][0](), **fields)
    peer = same_in_lycoris(
        model,
        r=fields["r"],
        use_tucker=fields.get("use_effective_conv2d", False),
        decompose_both=fields.get("decompose_both", False),
        factor=fields.get("decompose_factor", -1),
    )
    expected = peer.get_weight(model.model.layer.weight.shape)
    assert expected.abs().max() > 0
    assert torch.equal(model.get_delta_weight()["layer"], expected)


def test_scale_of_full_factors_by_both_conventions():
    layer = nn.Linear(12, 20)
    ours = adapted(layer, r=64, alpha=16, lycoris_scale=True)
    peer = same_in_lycoris(ours, r=64)
    assert peer.scale == 1
    assert torch.equal(ours.get_delta_weight()["layer"], peer.get_weight((20, 12)))
    as_in_peft = adapted(layer, r=64, alpha=16)
    assert torch.equal(as_in_peft.get_delta_weight()["layer"], peer.get_weight((20, 12)) * 0.25)


def test_get_diff_weight_of_lycoris_applies_the_scale_twice():
    # Why `get_weight` is the oracle, and alpha == r.
    layer = nn.Linear(12, 20)
    ours = adapted(layer, r=2, alpha=4)
    peer = same_in_lycoris(ours, r=2)
    peer.scale = 4 / 2
    expected = ours.get_delta_weight()["layer"]
    assert torch.equal(peer.get_weight((20, 12)), expected)
    assert torch.equal(peer.get_diff_weight(shape=(20, 12))[0], 2 * expected)


def test_an_unsorted_factor_splits_differently_in_lycoris():
    spec = factor_spec(
        layer_class(nn.Linear(12, 20)).shape_of(nn.Linear(12, 20)),
        LoKrConfig(r=1, decompose_factor=20),
        1,
        1,
    )
    assert (spec.a, spec.b) == (20, 1)  # as in peft
    peer = in_lycoris(nn.Linear(12, 20), {}, r=1, factor=20)
    assert peer.lokr_w1.shape[0] == 1
