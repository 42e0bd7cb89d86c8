"""Adapters of convolutions, by each path, against ΔW in float64; gradients of every input.

The Triton programs run on a GPU where there is one, else in Triton's interpreter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="Triton is not installed: the PyTorch path serves alone")

from lokr import LoKrConfig, kernels, product
from lokr.kernels import tiles
from lokr.product import ConvSettings, Factors
from tests.lokr.peers import Net, adapt, randomize

# torch says so of the frozen convolution itself.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
PATHS = ("torch", "triton")
# Largest relative error (norms) against float64; cuDNN's fast algorithms round more often.
CLOSE = {torch.float32: 3e-5 if ON_GPU else 3e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
PLAIN = ConvSettings((1, 1), (1, 1), (1, 1), 1, "zeros", None)
# kind, kernel, a, b, c, d, r
SIZES = {
    "low": ("low", (3, 3), 2, 5, 3, 4, 2),
    "low-wide": ("low", (3, 3), 2, 70, 1, 80, 3),  # more channels than a tile
    "low-8": ("low", (3, 3), 4, 24, 4, 24, 8),
    "rank-20": ("low", (2, 3), 1, 50, 2, 45, 20),
    "tucker": ("tucker", (3, 2), 3, 4, 2, 6, 2),
    "full": ("full", (3, 3), 2, 5, 3, 4, 0),
    "full-wide": ("full", (1, 3), 2, 70, 2, 66, 0),
    "pointwise": ("low", (1, 1), 3, 5, 2, 6, 2),
    "pointwise-full": ("full", (1, 1), 3, 5, 2, 6, 0),
    "line": ("low", (3,), 2, 5, 3, 4, 2),
    "line-tucker": ("tucker", (3,), 2, 5, 3, 6, 2),
    "line-full": ("full", (2,), 2, 5, 3, 4, 0),
}


@pytest.fixture(autouse=True, scope="module")
def _gpu() -> None:
    """Give autograd's thread its CUDA context: cuBLAS, called first in it, would warn of none."""
    if ON_GPU:
        torch.ones(1, device=DEVICE, requires_grad=True).square().backward()


@pytest.fixture(autouse=True)
def _fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN multiplies fp32 as fp32; its default is TF32, with 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def factors(
    kind: str, kernel: tuple[int, ...], a: int, b: int, c: int, d: int, r: int, lanes: int = 1
) -> Factors:
    """Random fp32 factors."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"w1": (a, c)}
    if kind == "low":
        shapes |= {"w2_a": (b, r), "w2_b": (r, d, *kernel)}
    elif kind == "tucker":
        shapes |= {"w2_a": (r, b), "w2_b": (r, d), "t2": (r, r, *kernel)}
    else:
        shapes["w2"] = (b, d, *kernel)
    drawn = {n: torch.randn(lanes, *s, generator=generator) for n, s in shapes.items()}
    return Factors(**{name: t.to(DEVICE) for name, t in drawn.items()})


def images(f: Factors, count: int, size: tuple[int, ...], groups: int = 1) -> Tensor:
    """Random x for so many images a lane."""
    last = next(t for t in (f.w2, f.w2_b) if t is not None)
    channels = f.w1.shape[2] * last.shape[2] * groups
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(len(f.w1) * count, channels, *size, generator=generator)
    return drawn.to(DEVICE)


def definition(x: Tensor, f: Factors, s: ConvSettings) -> Tensor:
    """Each lane's images convolved with its ΔW."""
    if s.margins is not None:
        x = F.pad(x, s.margins, mode=s.mode)
    w2 = product._assembled_w2(f)
    padding = s.padding if s.margins is None else 0
    function = F.conv1d if w2.dim() == 4 else F.conv2d
    rows = x.unflatten(0, (len(w2), len(x) // len(w2)))
    parts = []
    for lane, own in enumerate(w2):
        weight = torch.einsum("ac,bd...->abcd...", f.w1[lane], own).flatten(0, 1).flatten(1, 2)
        parts.append(function(rows[lane], weight, None, s.stride, padding, s.dilation, s.groups))
    return torch.cat(parts)


def outcome(function: Any, x: Tensor, f: Factors, s: ConvSettings) -> dict[str, Tensor]:
    """The output and the gradient of x and of every factor."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    leaves = {
        n: t.detach().clone().requires_grad_() for n, t in f._asdict().items() if t is not None
    }
    y = function(x, Factors(**leaves), s)
    gy = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
    y.backward(gy)
    return {"y": y.detach(), "x": x.grad, **{name: leaf.grad for name, leaf in leaves.items()}}


def check(x: Tensor, f: Factors, s: ConvSettings, path: str = "triton") -> dict[str, Tensor]:
    """Ours within tolerance of the definition in float64, gradients included."""
    with kernels.force(path):
        ours = outcome(kernels.conv_delta, x, f, s)
    expected = outcome(definition, x.double(), f.to(torch.float64), s)
    for name, want in expected.items():
        got = ours[name]
        assert got.shape == want.shape
        assert got.dtype == (x.dtype if name in ("x", "y") else torch.float32)
        error = ((got.double() - want).norm() / want.norm().clamp(min=1e-30)).item()
        assert error <= CLOSE[x.dtype], f"{name}: relative error {error:.2g}"
    return ours


def along(kernel: tuple[int, ...], s: ConvSettings = PLAIN) -> ConvSettings:
    """The settings for as many axes as the kernel has."""
    axes = len(kernel)
    return replace(s, stride=s.stride[:axes], padding=s.padding[:axes], dilation=s.dilation[:axes])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sizes", SIZES)
def test_output_and_gradients(sizes, path):
    kernel = SIZES[sizes][1]
    f = factors(*SIZES[sizes], lanes=2)
    check(images(f, 2, (5, 6)[: len(kernel)]), f, along(kernel), path)


@pytest.mark.parametrize("sizes", ["low", "tucker", "full", "line"])
@pytest.mark.parametrize("dtype", [torch.float16, *([torch.bfloat16] if ON_GPU else [])], ids=str)
def test_half_precision(sizes, dtype):
    f = factors(*SIZES[sizes], lanes=2)
    kernel = SIZES[sizes][1]
    check(images(f, 2, (5, 6)[: len(kernel)]).to(dtype), f, along(kernel))


@st.composite
def calls(draw: st.DrawFn, fewest_axes: int = 1) -> tuple[Tensor, Factors, ConvSettings]:
    """Factors, images that they accept, and how they slide."""
    axes = draw(st.integers(fewest_axes, 2))

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return draw(st.tuples(*[st.integers(low, high)] * axes))

    kernel, dilation, size = per_axis(1, 3), per_axis(1, 2), per_axis(3, 7)
    padding: Any = draw(st.sampled_from(["same", "valid", None])) or per_axis(0, 2)
    stride = (1,) * axes if padding == "same" else per_axis(1, 3)
    assume(all(d * (k - 1) < s for d, k, s in zip(dilation, kernel, size, strict=True)))
    kind = draw(st.sampled_from(["low", "tucker", "full"]))
    numbers = draw(st.tuples(*[st.integers(1, 9)] * 4, st.integers(1, 5)))
    assume(tiles.fits(numbers[0], numbers[2], numbers[4]))
    f = factors(kind, kernel, *numbers, lanes=draw(st.integers(1, 3)))
    x = images(f, draw(st.integers(0, 3)), size)
    if draw(st.booleans()) and axes == 2:
        x = x.contiguous(memory_format=torch.channels_last)
    return x, f, ConvSettings(stride, padding, dilation, 1, "zeros", None)


@settings(max_examples=6 if ON_GPU else 20)  # a GPU compiles each
@given(calls())
def test_any_settings(call):
    check(*call)


@settings(max_examples=40)
@given(calls())
def test_any_settings_in_pytorch(call):
    check(*call, path="torch")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode, path):
    f = factors(*SIZES["low"], lanes=2)
    check(images(f, 2, (5, 6)), f, replace(PLAIN, mode=mode, margins=(1, 2, 2, 1)), path)


@pytest.mark.parametrize("sizes", ["low", "tucker", "full", "line"])
def test_groups(sizes):
    _, kernel, *_ = SIZES[sizes]
    f = factors(*SIZES[sizes], lanes=2)
    x = images(f, 2, (5, 6)[: len(kernel)], groups=2)
    s = replace(along(kernel), groups=2)
    check(x, f, s, "torch")
    with kernels.force("triton"), pytest.raises(RuntimeError, match="groups=2: expected 1"):
        kernels.conv_delta(x, f, s)


@settings(max_examples=6 if ON_GPU else 12)
@given(calls(fewest_axes=2), st.booleans())
def test_together_with_the_frozen_layer(call, has_bias):
    """The sum of both in float64, with its gradients; laid out as x."""
    x, f, s = call
    with kernels.force("triton"):
        if not kernels.joins_conv(x, f, s):
            assert s.padding == "same"  # which may pad unevenly
            return
    generator = torch.Generator().manual_seed(3)
    w2 = product._assembled_w2(f)
    into = f.w1.shape[2] * w2.shape[2]
    shape = (f.w1.shape[1] * w2.shape[1], into, *w2.shape[3:])
    weight = torch.randn(shape, generator=generator).to(DEVICE)
    bias = torch.randn(shape[0], generator=generator).to(DEVICE) if has_bias else None

    def joined(x: Tensor, f: Factors, s: ConvSettings) -> Tensor:
        return kernels.adapted_conv(x, weight.to(x.dtype), bias, f, s)

    def apart(x: Tensor, f: Factors, s: ConvSettings) -> Tensor:
        own = None if bias is None else bias.double()
        base = F.conv2d(x, weight.double(), own, s.stride, s.padding, s.dilation)
        return base + definition(x, f, s)

    with kernels.force("triton"):
        ours = outcome(joined, x, f, s)
    expected = outcome(apart, x.double(), f.to(torch.float64), s)
    for name, want in expected.items():
        error = (ours[name].double() - want).norm() / want.norm().clamp(min=1e-30)
        assert error <= CLOSE[x.dtype], name
    last = x.stride(1) == 1 and not x.is_contiguous()
    order = torch.channels_last if last else torch.contiguous_format
    assert ours["y"].is_contiguous(memory_format=order)


@pytest.mark.parametrize("sizes", ["low", "tucker", "full", "line"])
def test_derivatives_of_the_pytorch_path(sizes):
    """By finite differences."""
    kernel = SIZES[sizes][1]
    f = factors(*SIZES[sizes], lanes=2).to(torch.float64)
    x = images(f, 1, (3, 4)[: len(kernel)]).double().requires_grad_()
    names = [name for name, t in f._asdict().items() if t is not None]

    def function(x: Tensor, *given: Tensor) -> Tensor:
        return product.conv(x, Factors(**dict(zip(names, given, strict=True))), along(kernel))

    given = [getattr(f, name).requires_grad_() for name in names]
    assert torch.autograd.gradcheck(function, (x, *given))


@pytest.mark.parametrize("sizes", ["low", "tucker", "full", "pointwise"])
def test_channels_last_stays_so(sizes):
    f = factors(*SIZES[sizes], lanes=2)
    x = images(f, 2, (5, 6)).contiguous(memory_format=torch.channels_last)
    found = check(x, f, PLAIN)
    assert found["y"].is_contiguous(memory_format=torch.channels_last)
    assert found["x"].is_contiguous(memory_format=torch.channels_last)
    for path in PATHS:
        layer = nn.Conv2d(x.shape[1], 20, 3, padding=1).to(memory_format=torch.channels_last)
        model = adapt(Net(layer), r=1, target_modules=["layer"]).to(DEVICE)
        with kernels.force(path):
            assert model(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sizes", ["low", "tucker", "full"])
def test_a_lane_is_what_it_is_alone(sizes, path):
    f = factors(*SIZES[sizes], lanes=3)
    x = images(f, 2, (5, 6))
    packed = check(x, f, PLAIN, path)
    for lane in range(3):
        own = Factors(*(None if t is None else t[lane : lane + 1] for t in f))
        with kernels.force(path):
            y = kernels.conv_delta(x.unflatten(0, (3, 2))[lane], own, PLAIN)
        loose = {"rtol": 1e-4, "atol": 1e-3} if ON_GPU else {"rtol": 1e-6, "atol": 1e-5}
        assert_close(y, packed["y"].unflatten(0, (3, 2))[lane], **loose)


@pytest.mark.parametrize("sizes", ["low", "tucker", "full"])
def test_what_is_not_finite_stays_in_its_lane(sizes):
    f = factors(*SIZES[sizes], lanes=2)
    x = images(f, 2, (5, 6))
    healthy = check(x, f, PLAIN)
    sick = x.clone()
    sick[2:] = torch.nan
    with kernels.force("triton"):
        found = outcome(kernels.conv_delta, sick, f, PLAIN)
    for name, want in healthy.items():
        half = len(want) // 2
        assert torch.equal(found[name][:half], want[:half])


@pytest.mark.parametrize("sizes", ["low", "tucker", "full", "rank-20"])
def test_the_same_result_twice(sizes):
    f = factors(*SIZES[sizes], lanes=2)
    x = images(f, 2, (5, 6))
    first, second = check(x, f, PLAIN), check(x, f, PLAIN)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("sizes", ["low", "tucker", "full", "full-wide"])
def test_every_output_is_written(sizes, monkeypatch):
    """New memory is poisoned: NaN would reach whatever is not written."""
    f = factors(*SIZES[sizes], lanes=2)
    x = images(f, 2, (5, 6))

    def poisoned(size: tuple, **options: object) -> Tensor:
        shape = size[0] if isinstance(size[0], tuple) else size
        return torch.full(shape, torch.nan, **options)

    monkeypatch.setattr(torch, "empty", lambda *size, **kw: poisoned(size, **kw))
    monkeypatch.setattr(torch, "empty_like", lambda t, **kw: torch.full_like(t, torch.nan, **kw))
    monkeypatch.setattr(
        Tensor, "new_empty", lambda t, *size, **kw: torch.empty(*size).to(t).fill_(torch.nan)
    )
    check(x, f, along(SIZES[sizes][1]))


def test_inputs_and_gradients_of_any_strides():
    f = factors(*SIZES["low"], lanes=2)
    wide = torch.randn(6, 5, 12, 4, device=DEVICE)
    outcomes = []
    for x in (wide.permute(3, 2, 1, 0), wide.permute(3, 2, 1, 0).contiguous()):
        leaf = x.detach().requires_grad_()
        with kernels.force("triton"):
            kernels.conv_delta(leaf, f, PLAIN).mT.sigmoid().sum().backward()
        outcomes.append(leaf.grad)
    assert_close(*outcomes)


def test_images_that_lanes_cannot_share():
    f = factors(*SIZES["low"], lanes=2)
    for path in PATHS:
        with kernels.force(path), pytest.raises(ValueError, match="a multiple of the 2 lanes"):
            kernels.conv_delta(images(f, 2, (5, 6))[:3], f, PLAIN)


def model_of(layer: nn.Module, **fields: Any) -> nn.Module:
    """The layer with two lanes of adapters."""
    torch.manual_seed(0)
    configs = [LoKrConfig(target_modules=["layer"], alpha=alpha, **fields) for alpha in (2, 5)]
    model = adapt(Net(layer), configs).to(DEVICE)
    randomize(model)
    return model


LAYERS = {
    "square": (lambda: nn.Conv2d(12, 20, 3, padding=1), (4, 12, 5, 6)),
    "stride": (lambda: nn.Conv2d(12, 20, 3, stride=2, padding=1), (4, 12, 5, 6)),
    "pointwise": (lambda: nn.Conv2d(12, 20, 1), (4, 12, 5, 6)),
    "same": (lambda: nn.Conv2d(12, 20, (2, 3), padding="same", dilation=2), (4, 12, 5, 6)),
    "reflect": (lambda: nn.Conv2d(12, 20, 3, padding=1, padding_mode="reflect"), (4, 12, 5, 6)),
    "line": (lambda: nn.Conv1d(12, 20, 3, padding=1), (4, 12, 7)),
}


@pytest.mark.parametrize("fields", [{"r": 2}, {"r": 2, "use_effective_conv2d": True}, {"r": 64}])
@pytest.mark.parametrize("layer", LAYERS)
def test_both_paths_of_a_layer_agree(layer, fields):
    build, shape = LAYERS[layer]
    model = model_of(build(), **fields)
    found = []
    for path in PATHS:
        model.zero_grad()
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        x.requires_grad_()
        with kernels.force(path):
            out = model(x)
            out.square().sum().backward()
        grads = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        found.append([out.detach(), x.grad, *grads])
    assert_close(*found, rtol=1e-4, atol=1e-4)


class Copies(TorchDispatchMode):
    """Names of the operators that copy a tensor of so many numbers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket)
        copies = ("aten.clone", "aten._to_copy", "aten.copy_", "lokr.transpose")
        if name in copies and out.numel() >= self.size:
            self.seen.append(name)
        return out


@pytest.mark.parametrize("layer", ["square", "stride", "pointwise"])
def test_channels_last_is_never_copied(layer):
    build, shape = LAYERS[layer]
    model = model_of(build(), r=2)
    x = torch.randn(shape, device=DEVICE)
    found = []
    for order in (torch.channels_last, torch.contiguous_format):
        leaf = x.contiguous(memory_format=order).requires_grad_()
        with kernels.force("triton"), Copies(x.numel()) as copies:
            out = model(leaf)
            torch.autograd.grad(out, leaf, torch.ones_like(out))
        found.append(bool(copies.seen))
    assert found == [False, True]


def test_a_hook_on_the_frozen_layer_is_called():
    model = model_of(nn.Conv2d(12, 20, 3, padding=1), r=2)
    x = torch.randn(4, 12, 5, 6, device=DEVICE)
    with kernels.force("triton"):
        before = model(x)
        model.layer.base_layer.register_forward_hook(lambda module, args, out: out + 1)
        assert_close(model(x), before + 1, rtol=1e-4, atol=1e-4)


def test_the_output_may_be_changed_in_place():
    model = model_of(nn.Conv2d(12, 20, 3, padding=1), r=2)
    found = []
    for inplace in (False, True):
        x = torch.randn(4, 12, 5, 6, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        leaf = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        with kernels.force("triton"):
            nn.ReLU(inplace=inplace)(model(leaf)).sum().backward()
        found.append(leaf.grad)
    assert_close(*found)


def test_the_frozen_layer_says_what_it_does_not_take():
    model = model_of(nn.Conv2d(12, 20, 3, padding=1), r=2)
    with kernels.force("triton"), pytest.raises(RuntimeError, match="to have 12 channels"):
        model(torch.randn(4, 11, 5, 6, device=DEVICE))


def test_one_graph_with_the_operators_in_it():
    torch._dynamo.reset()
    model = model_of(nn.Conv2d(12, 20, 3, padding=1), r=2)
    x = torch.randn(4, 12, 5, 6, device=DEVICE)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = []
    for run in (model, compiled):
        own = x.clone().requires_grad_()
        with kernels.force("triton"):
            out = run(own)
            out.square().sum().backward()
        found.append((out.detach(), own.grad))
    assert_close(*found, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


@pytest.mark.skipif(ON_GPU, reason="on a GPU autocast has a test of its own")
def test_autocast_multiplies_in_its_dtype():
    model = model_of(nn.Conv2d(12, 20, 3, padding=1), r=2)
    x = torch.randn(4, 12, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), model(x), rtol=0.05, atol=0.2)
