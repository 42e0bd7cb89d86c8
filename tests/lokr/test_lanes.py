"""A lane of a pack is what its adapter alone would have been."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lokr import LaneNoise, LaneStack, LoKrConfig, LoKrModel
from lokr.layers import Adapter
from tests.lokr.peers import Mlp, Net, adapt, quiet_about_rank, randomize

EXACT = {"rtol": 1e-10, "atol": 1e-10}
# 48 and 80 split into (6, 8) and (8, 10): ranks of 1 to 3 leave every factor low-rank.
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(48, 80), (3, 2, 48)),
    "conv2d": (lambda: nn.Conv2d(48, 80, 3, stride=2, padding=1), (2, 48, 4, 5)),
    "conv2d-1x1": (lambda: nn.Conv2d(48, 80, 1), (2, 48, 2, 2)),
    "conv2d-circular": (
        lambda: nn.Conv2d(48, 80, 3, padding=1, padding_mode="circular"),
        (1, 48, 3, 3),
    ),
    "conv2d-groups": (lambda: nn.Conv2d(96, 80, 3, groups=2), (2, 96, 4, 4)),
    "conv1d": (lambda: nn.Conv1d(48, 80, 3, dilation=2, padding="same"), (2, 48, 6)),
}
STRUCTURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "both": {"decompose_both": True},
    "tucker": {"use_effective_conv2d": True},
    "factor": {"decompose_factor": 6, "rank_dropout_scale": True},
}


def numbers(low_rank: bool) -> st.SearchStrategy[dict[str, Any]]:
    """What may differ by lane."""
    return st.fixed_dictionaries(
        {
            "r": st.sampled_from([1, 2, 3] if low_rank else [16, 32]),
            "alpha": st.sampled_from([1.5, 3, 12]),  # scales that fp32 holds exactly
            "init_weights": st.sampled_from([True, "lycoris", False]),
            "rank_dropout": st.sampled_from([0.0, 0.3]),
            "module_dropout": st.sampled_from([0.0, 0.5]),
        }
    )


PACKS = st.booleans().flatmap(lambda low: st.lists(numbers(low), min_size=2, max_size=3))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(base: nn.Module, configs: list[LoKrConfig], seeds: list[int]) -> LoKrModel:
    """A pack in training, each lane with its own seed for init and dropouts."""
    with quiet_about_rank():
        model = LoKrModel(copy.deepcopy(base), configs, generator=[seeded(s) for s in seeds])
    model.set_noise(LaneNoise(seeds))
    return model.double().train()


def check_lanes(base: nn.Module, x: Tensor, configs: list[LoKrConfig]) -> None:
    """Forward, gradients of factors and of the input: pack against each lane alone."""
    seeds = list(range(len(configs)))
    pack = build(base, configs, seeds)
    adapters = [m for m in pack.modules() if isinstance(m, Adapter)]
    rows = torch.cat([x + lane for lane in seeds]).requires_grad_()
    output = pack(rows)
    output.square().sum().backward()
    for lane, config in enumerate(configs):
        alone = build(base, [config], [lane])
        own = (x + lane).requires_grad_()
        expected = alone(own)
        assert_close(output.chunk(len(configs))[lane], expected, **EXACT)
        expected.square().sum().backward()
        assert_close(rows.grad.chunk(len(configs))[lane], own.grad, **EXACT)
        for ours, theirs in zip(
            adapters, (m for m in alone.modules() if isinstance(m, Adapter)), strict=True
        ):
            for name, values in theirs.lane(0).items():
                assert torch.equal(ours.lane(lane)[name], values)
                gradient = ours.get_parameter(name).grad[lane]
                gradient = gradient[tuple(slice(size) for size in values.shape)]
                assert_close(gradient, theirs.get_parameter(name).grad[0], **EXACT)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=6)
@given(lanes=PACKS)
def test_a_lane_computes_what_its_adapter_alone_computes(layer, structure, lanes):
    make, shape = LAYERS[layer]
    torch.manual_seed(0)
    base, x = Net(make()), torch.randn(shape, dtype=torch.float64)
    configs = [
        LoKrConfig(target_modules=["layer"], **STRUCTURES[structure], **lane) for lane in lanes
    ]
    check_lanes(base.double(), x, configs)


@settings(max_examples=10)
@given(lanes=st.lists(numbers(low_rank=True).filter(lambda n: n["r"] < 3), min_size=2, max_size=3))
def test_a_lane_of_a_model_of_several_layers(lanes):
    torch.manual_seed(0)
    configs = [LoKrConfig(target_modules=["up", "down"], **lane) for lane in lanes]
    check_lanes(Mlp().double(), torch.randn(4, 12, dtype=torch.float64), configs)


def test_the_layers_of_a_lane_have_masks_of_their_own():
    torch.manual_seed(0)
    model = build(Mlp(), [LoKrConfig(r=2, target_modules=["up"], rank_dropout=0.5)], [0])
    masks = [m._row_mask(20) for m in model.modules() if isinstance(m, Adapter)]
    assert len(masks) == 2
    assert not torch.equal(*masks)


def test_patterns_may_differ_by_lane():
    torch.manual_seed(0)
    x = torch.randn(4, 12, dtype=torch.float64)
    configs = [
        LoKrConfig(r=1, target_modules=["up"], rank_pattern={"0.up": 2}, init_weights=False),
        LoKrConfig(r=2, target_modules=["up"], alpha_pattern={"1.up": 6}, init_weights=False),
    ]
    check_lanes(Mlp().double(), x, configs)


def padding(adapter: Adapter) -> dict[str, Tensor]:
    """Name -> True where an entry pads a lane of a smaller rank."""
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in adapter.named_parameters()}
    for lane, spec in enumerate(adapter.specs):
        for name, shape in spec.shapes.items():
            masks[name][lane][tuple(slice(size) for size in shape)] = False
    return masks


@pytest.mark.parametrize("fields", [{}, {"use_effective_conv2d": True}, {"decompose_both": True}])
def test_padded_ranks_stay_zero_under_adamw(fields):
    torch.manual_seed(0)
    base = Net(nn.Conv2d(48, 80, 3))  # (6, 8) and (8, 10)
    ranks = [1, 3, 2]
    configs = [
        LoKrConfig(r=r, target_modules=["layer"], init_weights=False, rank_dropout=0.2, **fields)
        for r in ranks
    ]
    pack = adapt(base, configs)
    adapter = pack.model.layer.adapter("default")
    masks = padding(adapter)
    assert any(mask.any() for mask in masks.values())
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1, weight_decay=0.1)
    start = {name: p.clone() for name, p in adapter.named_parameters()}
    for _ in range(5):
        optimizer.zero_grad()
        pack(torch.randn(6, 48, 4, 4)).square().mean().backward()
        optimizer.step()
        for name, parameter in adapter.named_parameters():
            assert not parameter[masks[name]].any()
            assert not parameter.grad[masks[name]].any()
    for name, parameter in adapter.named_parameters():
        assert (parameter != start[name])[~masks[name]].all()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"r": 2}, {"r": 64}, "differ in the structure of their factors"),
        ({}, {"decompose_factor": 2}, "lane 1: decompose_factor=2 differs from lane 0's -1; lanes"),
        ({}, {"rank_dropout_scale": True}, "lane 1: rank_dropout_scale=True differs"),
        ({}, {"modules_to_save": ["head"]}, "lane 1: modules_to_save="),
    ],
)
def test_lanes_that_cannot_share_a_pack_are_refused(first, second, message):
    configs = [LoKrConfig(**{"r": 2, "target_modules": ["up"], **f}) for f in (first, second)]
    with pytest.raises(ValueError, match=message):
        adapt(Mlp(), configs)


def test_a_pack_of_no_lanes_is_refused():
    with pytest.raises(ValueError, match="at least one lane"):
        LoKrModel(Mlp(), [])
    with pytest.raises(ValueError, match="at least one adapter"):
        LoKrModel(Mlp(), {})


def test_generators_are_one_or_one_a_lane():
    configs = [LoKrConfig(r=2, target_modules=["up"])] * 2
    with pytest.raises(ValueError, match=r"expected one, or 2 \(one a lane\), got 3"):
        LoKrModel(Mlp(), configs, generator=[seeded(0)] * 3)


def test_a_generator_makes_the_init_repeatable_and_leaves_torch_alone():
    base, config = Mlp(), LoKrConfig(r=2, target_modules=["up"])
    before = torch.get_rng_state()
    models = [LoKrModel(copy.deepcopy(base), config, generator=seeded(7)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)


def test_a_second_adapter_must_have_as_many_lanes():
    model = adapt(Mlp(), [LoKrConfig(r=2, target_modules=["up"])] * 2)
    with pytest.raises(ValueError, match="adapter 'b' has 1 lanes, the others 2"):
        model.add_adapter("b", LoKrConfig(r=2, target_modules=["up"]))


def test_several_lanes_cannot_merge():
    model = adapt(Mlp(), [LoKrConfig(r=2, target_modules=["up"])] * 2)
    randomize(model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match="has 2 lanes: one weight cannot hold them all"):
        model.merge_adapter()
    assert model.merged_adapters == []
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_delta_weight_of_each_lane():
    model = adapt(Mlp(), [LoKrConfig(r=r, target_modules=["up"]) for r in (1, 2)])
    randomize(model)
    first, second = (model.get_delta_weight(lane=lane)["blocks.0.up"] for lane in (0, 1))
    assert first.shape == second.shape == (20, 12)
    assert not torch.equal(first, second)
    assert torch.linalg.matrix_rank(first) < torch.linalg.matrix_rank(second)


# -- LaneStack ----------------------------------------------------------------------------------


def head() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 2))


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_stack_computes_what_its_modules_compute(lanes):
    torch.manual_seed(0)
    modules = [head().double() for _ in range(lanes)]
    stack = LaneStack(modules)
    x = torch.randn(lanes * 4, 5, 6, dtype=torch.float64)
    output = stack(x)
    output.square().sum().backward()
    for lane, (module, rows) in enumerate(zip(modules, x.chunk(lanes), strict=True)):
        expected = module(rows)
        assert_close(output.chunk(lanes)[lane], expected, **EXACT)
        expected.square().sum().backward()
        gradients = {name: p.grad[lane] for name, p in zip(stack.names, stack.stacked, strict=True)}
        for name, parameter in module.named_parameters():
            assert_close(gradients[name], parameter.grad, **EXACT)


def test_a_stack_gives_its_lanes_back_as_modules():
    torch.manual_seed(0)
    modules = [head() for _ in range(2)]
    stack = LaneStack(modules)
    x = torch.randn(3, 6)
    copies = [stack.module(lane) for lane in (0, 1)]
    for module, again in zip(modules, copies, strict=True):
        assert torch.equal(again(x), module(x))
        assert all(p.requires_grad and not p.is_meta for p in again.parameters())
    with torch.no_grad():
        copies[0][0].weight.zero_()
    assert torch.equal(stack.module(0)(x), modules[0](x))


def test_a_stack_trains_and_evaluates():
    stack = LaneStack([nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)) for _ in range(2)])
    x = torch.randn(8, 6)
    assert not torch.equal(stack.train()(x), stack(x))
    assert torch.equal(stack.eval()(x), stack(x))
    alike = LaneStack([nn.Dropout(0.5), nn.Dropout(0.5)])
    first, second = alike(torch.ones(8, 6)).chunk(2)
    assert not torch.equal(first, second)  # a mask for each lane
    assert not stack.module().training


def test_a_stack_moves_and_casts_and_keeps_its_skeleton_off_the_books():
    stack = LaneStack([head() for _ in range(2)])
    assert len(list(stack.parameters())) == 6
    assert set(stack.state_dict()) == {f"stacked.{i}" for i in range(6)}
    assert stack.to(torch.bfloat16)(torch.randn(4, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
    again = copy.deepcopy(stack)
    x = torch.randn(4, 6, dtype=torch.bfloat16)
    assert torch.equal(again(x), stack(x))


def test_a_stack_of_modules_with_buffers_is_refused():
    with pytest.raises(ValueError, match="BatchNorm1d keeps buffers"):
        LaneStack([nn.BatchNorm1d(3)])


def test_the_saved_module_of_a_pack_has_a_lane_for_each_trial():
    torch.manual_seed(0)
    base = Mlp().double()
    fields = {"target_modules": ["up"], "modules_to_save": ["head"]}
    pack = adapt(base, [LoKrConfig(r=r, **fields) for r in (1, 2)]).double()
    x = torch.randn(6, 12, dtype=torch.float64)
    assert_close(pack(x), base(x))  # both lanes start as the base's head
    randomize(pack)
    output = pack(x)
    output[:3].sum().backward()
    stack = dict(pack.saved_modules("default"))["head"]
    assert stack.stacked[0].grad[0].any()
    assert not stack.stacked[0].grad[1].any()
    first, second = (
        pack.model.head.stack("default").lane(0),
        pack.model.head.stack("default").lane(1),
    )
    assert not torch.equal(first["weight"], second["weight"])
