"""Counting without building: golden counts, and agreement with what is built."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from lokr import LoKrConfig, count, table
from tests.lokr import architectures as arch
from tests.lokr.peers import CASES, KNOBS, LAYERS, Convs, Mlp, Net, adapt, factors

RANKS = (1, 2, 4, 8, 16, 32, 64)
# RoBERTa-base, query and value of 12 layers: decompose_factor -> (parameters by rank, first rank
# at which w2 is full).
GOLDEN = {
    -1: ((15_360, 16_896, 19_968, 26_112, 38_400, 38_400, 38_400), 16),
    2: ((18_528, 36_960, 73_824, 147_552, 295_008, 589_920, 1_179_744), None),
    4: ((9_600, 18_816, 37_248, 74_112, 147_840, 295_296, 590_208), None),
    8: ((6_144, 10_752, 19_968, 38_400, 75_264, 148_992, 222_720), 64),
    16: ((8_448, 10_752, 15_360, 24_576, 43_008, 61_440, 61_440), 32),
    32: ((25_728, 26_880, 29_184, 33_792, 38_400, 38_400, 38_400), 16),
}
BOTH = {1: 2_688, 2: 5_376, 4: 10_752, 8: 21_504}


@pytest.fixture(scope="module")
def roberta_base() -> torch.nn.Module:
    config = transformers.RobertaConfig(num_hidden_layers=12, hidden_size=768)
    with torch.device("meta"):
        return transformers.RobertaModel(config)


def total(rows) -> int:
    return sum(row.parameters for row in rows)


@pytest.mark.parametrize("column", range(len(RANKS)))
@pytest.mark.parametrize("factor", GOLDEN)
def test_golden_counts_of_roberta_base(roberta_base, factor, column):
    numbers, full_from = GOLDEN[factor]
    r = RANKS[column]
    config = LoKrConfig(r=r, decompose_factor=factor, target_modules=["query", "value"])
    rows = count(roberta_base, config)
    assert len(rows) == 24
    assert total(rows) == numbers[column]
    full = full_from is not None and r >= full_from
    assert all(("lokr_w2" in row.shapes) == full for row in rows)
    assert all(row.scale == 8 / r for row in rows)


@pytest.mark.parametrize(("r", "parameters"), BOTH.items())
def test_golden_counts_of_decompose_both(roberta_base, r, parameters):
    config = LoKrConfig(r=r, decompose_both=True)  # targets by architecture: query and value
    assert total(count(roberta_base, config)) == parameters


@pytest.mark.parametrize("r", [12, 16, 64])
def test_decompose_both_is_inert_at_large_ranks(roberta_base, r):
    counts = [total(count(roberta_base, LoKrConfig(r=r, decompose_both=b))) for b in (True, False)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(("layer", "knob"), CASES)
def test_the_count_is_what_is_built(layer, knob):
    net = Net(LAYERS[layer][0]())
    (row,) = count(net, config := LoKrConfig(target_modules=["layer"], **KNOBS[knob]))
    built = adapt(net, config)
    shapes = {name.rpartition(".")[2]: tuple(v.shape) for name, v in factors(built).items()}
    assert row.shapes == shapes
    assert row.parameters == sum(p.numel() for p in built.parameters() if p.requires_grad)
    assert row.structure == built.model.layer.adapter("default").specs[0].structure


def test_counting_changes_nothing_and_sees_through_an_adapter():
    model, config = Mlp(), LoKrConfig(r=2, target_modules=["up"])
    state = list(model.state_dict())
    rows = count(model, config)
    assert list(model.state_dict()) == state
    adapted = adapt(model, r=1, target_modules=["up", "head"])
    assert count(adapted.model, config) == rows


def test_a_model_on_the_meta_device_is_adapted_there():
    model = adapt(copy.deepcopy(arch.on_meta(arch.unet)), r=1, target_modules=["to_q", "conv1"])
    assert all(p.is_meta for p in model.parameters())
    rows = count(arch.on_meta(arch.unet), LoKrConfig(r=1, target_modules=["to_q", "conv1"]))
    assert model.get_nb_trainable_parameters()[0] == total(rows)


def test_equal_structures_are_equal_modules(roberta_base):
    def structures(**fields):
        config = LoKrConfig(target_modules=["query"], **fields)
        return {row.structure for row in count(roberta_base, config)}

    assert structures(r=16) == structures(r=64)  # the rank is ignored there
    assert structures(r=4) == structures(r=8)  # lanes of one pack
    assert structures(r=8) != structures(r=16)
    assert structures(r=16) == structures(r=16, decompose_both=True)


def test_patterns_count():
    config = LoKrConfig(
        r=1, alpha=2, target_modules=["up"], rank_pattern={"0.up": 2}, alpha_pattern={"1.up": 6}
    )
    first, second = count(Mlp(), config)
    assert (first.name, first.spec.r, first.scale) == ("blocks.0.up", 2, 1)
    assert (second.name, second.spec.r, second.scale) == ("blocks.1.up", 1, 6)


def test_a_config_that_fits_nothing_is_refused_as_when_adapting():
    with pytest.raises(ValueError, match="matches no module"):
        count(Mlp(), LoKrConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match="matches none of the 2"):
        count(Mlp(), LoKrConfig(target_modules=["up"], rank_pattern={"query": 2}))


def test_the_table():
    config = LoKrConfig(r=2, alpha=1, target_modules=["square", "head"], use_effective_conv2d=True)
    assert table(count(Convs(), config)) == "\n".join(
        [
            "layer   parameters  scale  tensors",
            "square          66    0.5  w1 (4, 3)  w2_a (2, 5)  w2_b (2, 4)  t2 (2, 2, 3, 3)",
            "head            15    0.5  w1 (1, 3)  w2 (3, 4)",
            "sum             81",
        ]
    )
