"""One layer against peft: tensors, scale, ΔW, forward, gradients, init, merge."""

from __future__ import annotations

from math import prod

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from lokr import LayerShape, LoKrConfig, factor_spec
from tests.lokr.peers import (
    CASES,
    KNOBS,
    LAYERS,
    Net,
    adapt,
    adapt_with_peft,
    factors,
    peer_layers,
    peft_factors,
)

every_case = pytest.mark.parametrize(("layer", "knob"), CASES)
INITS = [True, "lycoris", False]


@every_case
def test_same_tensors_and_scale(layer, knob):
    ours, theirs, _ = peer_layers(layer, knob)
    expected = {name: tuple(p.shape) for name, p in peft_factors(theirs.model).items()}
    if "conv1d" in layer and "layer.lokr_t2" in expected:  # (r, r, k, 1) there
        expected["layer.lokr_t2"] = expected["layer.lokr_t2"][:-1]
    assert {name: tuple(p.shape) for name, p in factors(ours).items()} == expected
    assert (
        ours.model.layer.adapter("default").specs[0].scale == theirs.model.layer.scaling["default"]
    )


@every_case
def test_same_delta_weight_exactly(layer, knob):
    ours, theirs, _ = peer_layers(layer, knob)
    expected = theirs.model.layer.get_delta_weight("default")
    assert expected.abs().max() > 0
    assert torch.equal(ours.get_delta_weight()["layer"], expected)


@every_case
def test_same_forward_and_gradients(layer, knob):
    ours, theirs, x = peer_layers(layer, knob)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    outputs = ours(inputs[0]), theirs(inputs[1])
    assert_close(*outputs, rtol=1e-5, atol=1e-5)
    cotangent = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(cotangent)
    assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-5, atol=1e-4)
    ours_grads = {
        f"layer.{name}": p.grad[0]
        for name, p in ours.model.layer.adapter("default").named_parameters()
    }
    for name, parameter in peft_factors(theirs.model).items():
        expected = parameter.grad.view_as(ours_grads[name])
        assert expected.abs().max() > 0
        assert_close(ours_grads[name], expected, rtol=1e-5, atol=1e-4, msg=lambda m, n=name: n + m)


@every_case
def test_same_merged_weight_exactly(layer, knob):
    ours, theirs, x = peer_layers(layer, knob)
    before = ours(x)
    ours.merge_adapter()
    theirs.merge_adapter()
    assert torch.equal(ours.model.layer.weight, theirs.model.layer.base_layer.weight)
    assert_close(ours(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("init", INITS)
@every_case
def test_a_seed_gives_the_factors_of_peft(layer, knob, init):
    net = Net(LAYERS[layer][0]())
    fields = {**KNOBS[knob], "target_modules": ["layer"], "init_weights": init}
    torch.manual_seed(3)
    theirs = adapt_with_peft(net, **fields)
    after_theirs = torch.get_rng_state()
    torch.manual_seed(3)
    ours = adapt(net, **fields)
    assert torch.equal(torch.get_rng_state(), after_theirs)
    for name, values in factors(ours).items():
        expected = peft_factors(theirs.model)[name]
        assert torch.equal(values, expected.view_as(values))


@pytest.mark.parametrize("init", INITS)
def test_the_zero_factor_makes_delta_weight_zero(init):
    ours = adapt(Net(torch.nn.Linear(12, 20)), r=2, target_modules=["layer"], init_weights=init)
    zero = {name.rpartition(".")[2] for name, values in factors(ours).items() if not values.any()}
    assert zero == {True: {"lokr_w1"}, "lycoris": {"lokr_w2_b"}, False: set()}[init]
    assert ours.get_delta_weight()["layer"].any() == (init is False)


@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        (LayerShape(256, 1024), {"r": 8, "decompose_both": True}),
        (LayerShape(1024, 1024), {"r": 64}),
        (LayerShape(256, 256, (3, 3)), {"r": 6, "decompose_factor": 4}),
        (
            LayerShape(256, 256, (3, 3)),
            {"r": 6, "decompose_factor": 4, "use_effective_conv2d": True},
        ),
        (LayerShape(256, 256, (3, 3)), {"r": 64}),
    ],
)
def test_init_is_uniform_within_one_over_the_root_of_fan_in(shape, fields):
    config = LoKrConfig(init_weights=False, target_modules=["layer"], **fields)
    kernel = shape.kernel
    base = (
        torch.nn.Conv2d(shape.in_features, shape.out_features, kernel)
        if kernel
        else torch.nn.Linear(shape.in_features, shape.out_features)
    )
    torch.manual_seed(0)
    values = factors(adapt(Net(base), config))
    spec = factor_spec(shape, config, config.r, config.alpha)
    assert {name.rpartition(".")[2] for name in values} == set(spec.shapes)
    for tensor, size in spec.shapes.items():
        bound = prod(size[1:]) ** -0.5
        sample = values[f"layer.{tensor}"].detach().flatten().numpy()
        assert stats.kstest(sample, stats.uniform(-bound, 2 * bound).cdf).pvalue > 0.01
