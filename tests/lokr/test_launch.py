"""Programs compiled ahead of their first launch."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: the PyTorch path serves alone")

from lokr import kernels
from lokr.kernels import linear
from lokr.kernels.launch import rehearsal
from tests.hopper import printed_by

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")


def layer() -> list[torch.Tensor]:
    """Output and gradients of a layer."""
    generator = torch.Generator().manual_seed(0)
    x, weight, w1, w2_a, w2_b = (
        torch.randn(shape, generator=generator).to(DEVICE)
        for shape in ((64, 96), (96, 96), (2, 4, 4), (2, 24, 2), (2, 2, 24))
    )
    factors = [t.requires_grad_() for t in (w1, w2_a, w2_b)]
    x, weight = x.bfloat16().requires_grad_(), weight.bfloat16()
    y = linear.adapted_linear(x, weight, None, factors[0], None, *factors[1:], fused=True)
    y.float().square().sum().backward()
    return [y.detach(), x.grad, *(t.grad for t in factors)]


def test_a_rehearsal_compiles_in_threads_and_runs_nothing():
    (line,) = printed_by("tests.lokr.rehearse")
    assert line["in"] == {"compiled": 8, "ran": 0}  # each once, though two threads asked
    assert line["after"] == {"compiled": 0, "ran": 9}  # two layers share one
    assert line["threads"]


@pytest.mark.skipif(ON_GPU, reason="for where Triton is interpreted")
def test_where_nothing_is_compiled_a_rehearsal_runs_everything():
    expected = layer()
    with rehearsal(DEVICE) as worthwhile, kernels.force("triton"):
        rehearsed = layer()
    assert not worthwhile
    assert all(torch.equal(one, other) for one, other in zip(rehearsed, expected, strict=True))


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_after_a_rehearsal_the_numbers_are_right():
    with kernels.force("triton"), rehearsal(DEVICE) as worthwhile:
        layer()
    assert worthwhile
    first, second = layer(), layer()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(t.isfinite().all() for t in first)
