"""Laws of ΔW, for random shapes and knobs, in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lokr import LoKrModel
from lokr.layers import Adapter
from tests.lokr.peers import Net, adapt, randomize

# torch says so of the frozen convolution itself.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

EXACT = {"rtol": 1e-10, "atol": 1e-10}
KNOBS = st.fixed_dictionaries(
    {
        "r": st.integers(1, 6),
        "alpha": st.sampled_from([0.5, 1, 3]),
        "decompose_factor": st.sampled_from([-1, 1, 2, 3, 6]),
        "decompose_both": st.booleans(),
        "use_effective_conv2d": st.booleans(),
    }
)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A Conv1d or Conv2d of any settings, and the sizes of an image that it accepts."""
    axes = draw(st.integers(1, 2))

    def per_axis(numbers: st.SearchStrategy[int]) -> tuple[int, ...]:
        return draw(st.tuples(*[numbers] * axes))

    groups = draw(st.sampled_from([1, 1, 2, 3, 4]))
    kernel = per_axis(st.integers(1, 3))
    dilation = per_axis(st.integers(1, 2))
    same = draw(st.booleans())
    size = per_axis(st.integers(5, 7))
    settings: dict[str, Any] = {
        "groups": groups,
        "dilation": dilation,
        "stride": 1 if same else per_axis(st.integers(1, 3)),
        "padding": "same" if same else per_axis(st.integers(0, 2)),
        "padding_mode": draw(
            st.sampled_from(["zeros", "zeros", "circular", "reflect", "replicate"])
        ),
    }
    build = nn.Conv1d if axes == 1 else nn.Conv2d
    in_channels = groups * draw(st.integers(1, 8))
    out_channels = groups * draw(st.integers(1, 8))
    return build(in_channels, out_channels, kernel, **settings).double(), size


def wrapped(layer: nn.Module, **knobs: Any) -> LoKrModel:
    model = adapt(Net(layer), target_modules=["layer"], **knobs).double()
    randomize(model)
    return model


def materialized(model: LoKrModel, x: Tensor) -> Tensor:
    """The frozen layer with ΔW added to its weight."""
    layer = copy.deepcopy(model.model.layer.base_layer)
    with torch.no_grad():
        layer.weight += model.get_delta_weight()["layer"]
    return layer(x)


def factors_of(adapter: Adapter) -> tuple[Tensor, Tensor]:
    """w1 (a, c) and w2 (b, d·k), put together from whatever they are stored as."""
    t, spec = adapter.lane(), adapter.specs[0]
    w1 = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_w2" in t:
        return w1, t["lokr_w2"].flatten(1)
    if "lokr_t2" in t:
        core = t["lokr_t2"].flatten(2)  # (r, r, k)
        w2 = (t["lokr_w2_a"].mT @ core.permute(2, 0, 1) @ t["lokr_w2_b"]).permute(1, 2, 0)
        return w1, w2.reshape(spec.b, -1)
    return w1, t["lokr_w2_a"] @ t["lokr_w2_b"]


LAYERS = st.one_of(
    st.builds(nn.Linear, st.integers(1, 30), st.integers(1, 30)), convolutions().map(lambda c: c[0])
)


@given(LAYERS, KNOBS)
def test_the_rank_of_delta_weight_is_the_product_of_the_ranks(layer, knobs):
    model = wrapped(layer, **knobs)
    delta = model.get_delta_weight()["layer"].flatten(1)
    w1, w2 = factors_of(model.model.layer.adapter("default"))
    ranks = [torch.linalg.matrix_rank(w, rtol=1e-9) for w in (w1, w2)]
    assert torch.linalg.matrix_rank(delta, rtol=1e-9) == ranks[0] * ranks[1]


@given(LAYERS, KNOBS)
def test_the_rearranged_delta_weight_is_an_outer_product(layer, knobs):
    model = wrapped(layer, **knobs)
    adapter = model.model.layer.adapter("default")
    spec = adapter.specs[0]
    delta = model.get_delta_weight()["layer"]
    blocks = delta.reshape(spec.a, spec.b, spec.c, -1).transpose(1, 2)  # (a, c, b, d·k)
    w1, w2 = factors_of(adapter)
    expected = spec.scale * torch.outer(w1.flatten(), w2.flatten())
    assert_close(blocks.reshape(expected.shape), expected, **EXACT)
    assert torch.linalg.matrix_rank(expected, rtol=1e-9) == 1


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.integers(0, 3), max_size=3),
    st.booleans(),
    KNOBS,
)
@example(12, 20, [], True, {"r": 2})
@example(12, 20, [0], True, {"r": 64})
@example(12, 20, [0, 3], True, {"r": 2})
def test_a_linear_product_without_delta_weight(in_, out, batch, bias, knobs):
    model = wrapped(nn.Linear(in_, out, bias=bias).double(), **knobs)
    x = torch.randn(*batch, in_, dtype=torch.float64)
    expected = materialized(model, x)
    assert model(x).shape == expected.shape
    assert_close(model(x), expected, **EXACT)


@given(convolutions(), st.sampled_from([1, 2, 3]), KNOBS)
@example((nn.Conv2d(12, 12, 3, groups=12).double(), (5, 5)), 2, {"r": 1})
@example((nn.Conv2d(6, 18, 3, groups=3).double(), (5, 5)), 2, {"r": 1, "decompose_factor": 2})
@example((nn.Conv2d(12, 20, 3, padding="same").double(), (5, 5)), 2, {"r": 64})
def test_a_convolution_without_delta_weight(convolution, batch, knobs):
    layer, size = convolution
    span = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    assume(all(d < s for d, s in zip(span, size, strict=True)))
    model = wrapped(layer, **knobs)
    x = torch.randn(batch, layer.in_channels, *size, dtype=torch.float64)
    assert_close(model(x), materialized(model, x), **EXACT)


@given(convolutions(), KNOBS)
def test_a_convolution_of_an_image_without_a_batch_axis(convolution, knobs):
    layer, size = convolution
    model = wrapped(layer, **knobs)
    x = torch.randn(layer.in_channels, *size, dtype=torch.float64)
    expected = materialized(model, x)
    assert model(x).shape == expected.shape
    assert_close(model(x), expected, **EXACT)


@pytest.mark.parametrize("knobs", [{"r": 2}, {"r": 64}, {"r": 2, "use_effective_conv2d": True}])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(12, 20, 3, padding=1),
        nn.Conv2d(12, 20, 3, stride=2),
        nn.Conv2d(12, 20, 1),
        nn.Conv2d(12, 20, 3, groups=4, padding="same"),
        nn.Conv2d(12, 20, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_a_convolution_of_an_empty_batch(layer, knobs):
    model = wrapped(copy.deepcopy(layer).double(), **knobs)
    x = torch.randn(0, 12, *[5] * (layer.weight.dim() - 2), dtype=torch.float64)
    x.requires_grad_()
    output = model(x)
    assert output.shape == materialized(model, x).shape
    output.sum().backward()
    assert all(not p.grad.any() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("shape", [(12,), (0, 12), (3, 12), (2, 3, 12), (2, 0, 12), (2, 3, 2, 12)])
@pytest.mark.parametrize("knobs", [{"r": 2}, {"r": 64}, {"r": 64, "decompose_factor": 4}])
def test_gradients_of_a_linear_product_equal_those_through_delta_weight(shape, knobs):
    torch.manual_seed(0)
    model = wrapped(nn.Linear(12, 20).double(), **knobs)
    adapter = model.model.layer.adapter("default")
    x = torch.randn(shape, dtype=torch.float64)
    inputs = [x, *adapter.parameters()]
    x.requires_grad_()
    cotangent = torch.randn(*shape[:-1], 20, dtype=torch.float64)
    direct = torch.autograd.grad(model(x), inputs, cotangent)
    base = model.model.layer.base_layer
    output = F.linear(x, base.weight + model.get_delta_weight()["layer"], base.bias)
    assert_close(direct, torch.autograd.grad(output, inputs, cotangent), **EXACT)


@pytest.mark.parametrize(
    "x",
    [torch.randn(12, 4).T, torch.randn(1, 12).expand(4, 12), torch.randn(4, 24)[:, ::2]],
    ids=["transposed", "expanded", "strided"],
)
@pytest.mark.parametrize("knobs", [{"r": 2}, {"r": 64}, {"r": 64, "decompose_factor": 1}])
def test_an_input_that_is_not_contiguous(x, knobs):
    assert not x.is_contiguous()
    model = wrapped(nn.Linear(12, 20).double(), **knobs)
    assert_close(model(x.double()), materialized(model, x.double()), **EXACT)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("knobs", [{"r": 2}, {"r": 64}, {"r": 2, "use_effective_conv2d": True}])
def test_an_image_in_channels_last(knobs, groups):
    model = wrapped(nn.Conv2d(12, 20, 3, groups=groups).double(), **knobs)
    x = torch.randn(2, 12, 5, 6, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    assert_close(model(x), materialized(model, x), **EXACT)


@given(
    LAYERS, KNOBS, st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])
)
def test_merge_then_unmerge_restores_the_weight_bit_for_bit(layer, knobs, dtype):
    layer = layer.to(dtype)
    model = adapt(Net(layer), target_modules=["layer"], **knobs)
    randomize(model)
    model.merge_adapter()
    merged = model.model.layer.weight
    exact = layer.weight.double() + model.get_delta_weight()["layer"].double()
    assert merged.dtype == dtype
    assert_close(merged.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    model.unmerge_adapter()
    assert torch.equal(model.model.layer.weight, layer.weight)
