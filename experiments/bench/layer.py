"""One layer with its adapter: forward and backward pass, every contender in turns.

The pass gives the gradients of the input and of the factors. On a GPU in bf16 under autocast,
fp32 factors; on a CPU in fp32. Each LoKr's numbers are checked first, in the same run, against the
definition in fp64.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.bench import contenders
from experiments.bench.contenders import Contender
from experiments.bench.shapes import Case
from experiments.bench.timing import (
    Clock,
    first_line,
    input_sets,
    interleaved,
    precision,
    runner,
)
from lokr import reference

ROUNDS = {"cuda": 25, "cpu": 9}
Tensors = dict[str, Tensor]
Inputs = tuple[Tensor, Tensor]  # x and the gradient of y


def measure(case: Case, device: str, rounds: int | None = None) -> dict[str, Any]:
    """Time all contenders on one case.

    Returns:
        JSON-ready: ``case``, ``dtype``, ``input_sets``, and ``contenders``: name -> ``mode``
        (graph, eager, clock), ``samples`` (ms of one pass), ``errors`` (relative, of ``output``,
        ``input_gradient`` and ``factor_gradients``) and ``reason`` (why it has no samples, or was
        not captured).
    """
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    bytes_a_set = case.tokens * (case.into + case.out) * (case.size or 1) ** 2 * dtype.itemsize
    inputs = [_inputs(case, device, dtype, seed) for seed in range(input_sets(bytes_a_set, device))]
    expected = _expected(case, *inputs[0])
    results: dict[str, dict[str, Any]] = {}
    runners: dict[str, Clock] = {}
    for name in contenders.names(case):
        results[name], ready = _prepare(name, case, device, inputs, expected)
        if ready is not None:
            runners[name] = ready
    samples = interleaved(runners, device, rounds or ROUNDS[device])
    for name, result in results.items():
        result["samples"] = samples.get(name)
    return {
        "case": case.to_dict(),
        "dtype": str(dtype).removeprefix("torch."),
        "input_sets": len(inputs),
        "contenders": results,
    }


def release() -> None:
    """Give back what the last case held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _prepare(
    name: str, case: Case, device: str, inputs: Sequence[Inputs], expected: Tensors
) -> tuple[dict[str, Any], Clock | None]:
    """Build, check and warm up one contender; one that cannot run is a row with its reason."""
    result: dict[str, Any] = {"mode": None, "reason": None, "errors": None}
    try:
        contender = contenders.build(name, case, device, inputs[0][0].dtype)
        if contender.is_lokr:
            result["errors"] = _errors(contender, device, inputs[0], expected)
        calls = [partial(_pass, contender, device, *pair) for pair in inputs]
        ready = runner(calls, device, contender.within)
    except ImportError as error:
        return {**result, "reason": f"not installed: {first_line(error)}"}, None
    except Exception as error:  # a peer, or its compiler, may raise anything
        return {**result, "reason": f"{type(error).__name__}: {first_line(error)}"}, None
    return {**result, "mode": ready.mode, "reason": ready.reason}, ready


def _inputs(case: Case, device: str, dtype: torch.dtype, seed: int) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    x, gy = (
        torch.randn(shape, generator=generator, device=device).to(dtype)
        for shape in (case.input_shape, case.output_shape)
    )
    return x.requires_grad_(), gy


def _pass(
    contender: Contender, device: str, x: Tensor, gy: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """y, and the gradients of x and of the trained parameters."""
    with precision(device):
        y = contender.forward(x)
    return y, torch.autograd.grad(y, [x, *contender.trained.values()], gy)


def _errors(contender: Contender, device: str, pair: Inputs, expected: Tensors) -> dict[str, float]:
    """Relative errors (norm of the difference over norm), the worst factor for the factors."""
    with contender.within():
        y, (gx, *gradients) = _pass(contender, device, *pair)
    factors = [
        _distance(gradient, expected[name])
        for name, gradient in zip(contender.trained, gradients, strict=True)
    ]
    return {
        "output": _distance(y, expected["output"]),
        "input_gradient": _distance(gx, expected["input_gradient"]),
        "factor_gradients": max(factors),
    }


def _distance(actual: Tensor, expected: Tensor) -> float:
    # Ours have a lane axis in front.
    difference = actual.detach().double().reshape(expected.shape) - expected
    return (difference.norm() / expected.norm()).item()


def _expected(case: Case, x: Tensor, gy: Tensor) -> Tensors:
    """Output and gradients by the definition, in fp64: W plus ``torch.kron``."""
    layer = case.base(str(x.device), x.dtype).double()
    factors = {n: t.to(x.device).double().requires_grad_() for n, t in case.factors().items()}
    exact = x.detach().double().requires_grad_()
    weight = layer.weight + reference.delta_weight(factors, case.spec)
    y = torch.func.functional_call(layer, {"weight": weight}, exact)
    gx, *gradients = torch.autograd.grad(y, [exact, *factors.values()], gy.double())
    return {
        "output": y.detach(),
        "input_gradient": gx,
        **dict(zip(factors, gradients, strict=True)),
    }
