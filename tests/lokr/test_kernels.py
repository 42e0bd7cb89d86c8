"""The Triton programs against float64: on a GPU where there is one, else in Triton's interpreter.

The interpreter has no bf16 products, so bf16 is tested on a GPU only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed: the PyTorch path serves alone")

from lokr.kernels import linear, tiles
from tests.hopper import printed_by

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# Largest relative error (norms) against float64; fp32 products are exact to fp32.
CLOSE = {torch.float32: 3e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if ON_GPU else [])]
Inputs = dict[str, Tensor | None]
TRAINED = ("x", "w1", "w2", "w2_a", "w2_b")


def inputs(
    lanes: int, n: int, a: int, b: int, c: int, d: int, r: int, dtype: torch.dtype, seed: int = 0
) -> Inputs:
    """Random inputs; the factors stay fp32. r = 0 is a full w2."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    return {
        "x": draw(lanes * n, c * d).to(dtype),
        "weight": draw(a * b, c * d).to(dtype),
        "bias": draw(a * b).to(dtype),
        "w1": draw(lanes, a, c),
        "w2": None if r else draw(lanes, b, d),
        "w2_a": draw(lanes, b, r) if r else None,
        "w2_b": draw(lanes, r, d) if r else None,
        "scale": draw(lanes),
    }


def definition(x, weight, bias, w1, w2, w2_a, w2_b, scale) -> Tensor:
    """The frozen layer plus scale·kron(w1, w2) of each lane, spelled out."""
    w2 = w2_a @ w2_b if w2 is None else w2
    w1 = w1 if scale is None else w1 * scale.view(-1, 1, 1)
    rows = x.view(len(w1), -1, x.shape[1])
    parts = [rows[lane] @ torch.kron(w1[lane], w2[lane]).T for lane in range(len(w1))]
    y = torch.cat(parts)
    y = y if weight is None else y + x @ weight.T
    return y if bias is None else y + bias


def outcome(function: Callable[..., Tensor], given: Inputs, gy: Tensor, trained=TRAINED) -> Inputs:
    """The output and the gradient of every trained input."""
    own = {k: None if t is None else t.detach().clone() for k, t in given.items()}
    leaves = {k: own[k].requires_grad_() for k in trained if own[k] is not None}
    y = function(**own)
    y.backward(gy)
    return {"y": y.detach(), **{name: leaf.grad for name, leaf in leaves.items()}}


def check(given: Inputs, trained: tuple[str, ...] = TRAINED) -> Inputs:
    """Ours within tolerance of the definition in float64, gradients included."""
    x, w1 = given["x"], given["w1"]
    wide = given["w2"] if given["w2"] is not None else given["w2_a"]
    gy = torch.randn(
        len(x), w1.shape[1] * wide.shape[1], generator=torch.Generator().manual_seed(9)
    )
    gy = gy.to(x)
    ours = outcome(partial(linear.adapted_linear, fused=True), given, gy, trained)
    exact = {k: None if t is None else t.double() for k, t in given.items()}
    expected = outcome(definition, exact, gy.double(), trained)
    assert ours.keys() == expected.keys()
    for name, want in expected.items():
        got = ours[name]
        assert got.dtype == (x.dtype if name in ("x", "y") else torch.float32)
        error = ((got.double() - want).norm() / want.norm().clamp(min=1e-30)).item()
        assert error <= CLOSE[x.dtype], f"{name}: relative error {error:.2g}"
    return ours


# lanes, n, a, b, c, d, r: even and odd, wider than a tile, narrower than one, primes, many blocks.
SHAPES = {
    "small": (1, 5, 2, 6, 2, 5, 2),
    "odd": (2, 7, 3, 10, 4, 9, 3),
    "factor-8": (2, 37, 8, 12, 8, 12, 4),
    "even": (1, 9, 16, 24, 16, 24, 8),
    "oblong": (2, 3, 12, 64, 24, 32, 8),
    "prime": (2, 3, 1, 7, 1, 11, 2),
    "blocks": (1, 3, 2, 600, 4, 520, 5),
    "rank-40": (1, 6, 2, 90, 3, 100, 40),
    "rank-32": (1, 7, 2, 128, 3, 128, 32),  # the last that one program holds whole
    "rank-33": (1, 7, 2, 128, 3, 128, 33),
    "largest": (1, 2, 128, 3, 128, 2, 128),  # see tiles.LARGEST
    "full-largest": (1, 2, 128, 3, 128, 2, 0),
    "full-odd": (2, 5, 3, 10, 4, 9, 0),
    "full-64": (2, 2, 6, 64, 3, 64, 0),  # the last that one program holds whole
    "full-65": (2, 2, 6, 65, 3, 64, 0),
    "full-even": (1, 19, 16, 24, 16, 24, 0),
    "full-blocks": (1, 2, 4, 100, 4, 80, 0),
    "long": (1, 5, 4, 256, 4, 512, 3),  # wider tiles both ways, see tiles.forward
    "full-12": (2, 3, 12, 70, 9, 80, 0),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients(shape, dtype):
    check(inputs(*SHAPES[shape], dtype))


sizes = st.integers(1, 20)


@settings(max_examples=4 if ON_GPU else 25)  # a GPU compiles each
@given(
    lanes=st.integers(1, 3),
    n=st.integers(0, 9),
    a=sizes,
    b=sizes,
    c=sizes,
    d=sizes,
    r=st.integers(0, 6),
    dtype=st.sampled_from(DTYPES[:2]),
)
def test_any_shape(lanes, n, a, b, c, d, r, dtype):
    assume(tiles.fits(a, c, r))
    check(inputs(lanes, n, a, b, c, d, r, dtype))


@pytest.mark.parametrize("shape", ["odd", "full-odd"])
def test_without_the_frozen_layer_or_its_bias_or_the_inputs_gradient(shape):
    given = inputs(*SHAPES[shape], torch.float32)
    check({**given, "bias": None})
    check({**given, "weight": None})
    check({**given, "weight": None, "bias": None}, trained=TRAINED[1:])


@pytest.mark.parametrize("shape", ["odd", "blocks", "full-odd", "full-blocks"])
def test_without_a_scale(shape):
    check({**inputs(*SHAPES[shape], torch.float32), "scale": None})


@pytest.mark.parametrize("shape", ["odd", "blocks", "full-even", "full-blocks"])
def test_the_same_result_twice(shape):
    given = inputs(*SHAPES[shape], torch.float32)
    first, second = check(given), check(given)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", ["factor-8", "full-odd"])
def test_a_lane_is_what_it_is_alone(shape):
    lanes, n, *rest = SHAPES[shape]
    given = inputs(lanes, n, *rest, torch.float32)
    packed = check(given)
    for lane in range(lanes):
        alone = {
            name: t
            if t is None or name in ("weight", "bias")
            else (t[lane * n : (lane + 1) * n] if name == "x" else t[lane : lane + 1])
            for name, t in given.items()
        }
        y = linear.adapted_linear(**alone, fused=True)
        torch.testing.assert_close(y, packed["y"][lane * n : (lane + 1) * n], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("shape", ["odd", "oblong", "blocks", "full-odd", "full-65"])
def test_factors_of_a_lane_side_by_side(shape):
    """As an optimizer keeps them: views of one matrix, a row a lane, and nothing is copied out."""
    lanes, *rest = SHAPES[shape]
    given = inputs(max(2, lanes), *rest, torch.float32)
    expected = check(given)
    factors = {name: given[name] for name in TRAINED[1:] if given[name] is not None}
    gap = torch.zeros(len(given["w1"]), 3, device=DEVICE)
    rows = torch.cat([gap, *(t.flatten(1) for t in factors.values())], 1).requires_grad_()
    parts = rows.split([3, *(t[0].numel() for t in factors.values())], 1)[1:]
    views = {n: part.view(t.shape) for (n, t), part in zip(factors.items(), parts, strict=True)}
    gy = torch.randn(expected["y"].shape, generator=torch.Generator().manual_seed(9)).to(DEVICE)
    read = linear._readable(*(views.get(name) for name in TRAINED[1:]), given["scale"])
    assert all(
        t is views[name] for name, t in zip(TRAINED[1:], read, strict=False) if t is not None
    )
    y = linear.adapted_linear(**{**given, **views}, fused=True)
    y.backward(gy)
    assert torch.equal(y, expected["y"])
    gradients = rows.grad.split([part.shape[1] for part in (gap, *parts)], 1)[1:]
    for name, gradient in zip(views, gradients, strict=True):
        assert torch.equal(gradient, expected[name].flatten(1))


@pytest.mark.parametrize("shape", ["odd", "full-even", "full-blocks", "blocks"])
def test_every_output_is_written(shape, monkeypatch):
    """New memory is poisoned: NaN would reach whatever is not written."""
    given = inputs(*SHAPES[shape], torch.float32)

    def poisoned(size: tuple, **options: object) -> Tensor:
        shape = size[0] if isinstance(size[0], tuple) else size
        return torch.full(shape, torch.nan, **options)

    monkeypatch.setattr(torch, "empty", lambda *size, **kw: poisoned(size, **kw))
    monkeypatch.setattr(torch, "empty_like", lambda t, **kw: torch.full_like(t, torch.nan, **kw))
    monkeypatch.setattr(
        Tensor, "new_empty", lambda t, *size, **kw: torch.empty(*size).to(t).fill_(torch.nan)
    )
    check(given)


@pytest.mark.skipif(ON_GPU, reason="a GPU compiles them in the tests above")
def test_programs_compile_for_an_h100_and_fit_its_shared_memory():
    lines = printed_by("tests.lokr.hopper")
    assert len(lines) == 18
    for line in lines:
        assert all(0 < size <= 227 * 1024 for size in line["shared"].values()), line
