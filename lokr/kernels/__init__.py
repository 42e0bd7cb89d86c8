"""Adapted layers in Triton or in PyTorch.

A linear layer is one operator with its adapter (:mod:`lokr.kernels.linear`); a convolution is two
in Triton (:mod:`lokr.kernels.convolution`), and in PyTorch the frozen layer and, apart from it,
:func:`lokr.product.conv`.

Which of the two serves a call is chosen each time, unless the environment variable ``LOKR_KERNEL``
(read once) or :func:`force` says:

    auto     Triton in bf16 or fp16 for factors that its tiles hold, on the GPUs whose tiles were
             measured (Hopper: H100, H200); else PyTorch
    torch    always PyTorch
    triton   Triton, or an error that says what it cannot serve (on a CPU it needs Triton's
             interpreter: TRITON_INTERPRET=1)
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lokr import product
from lokr.kernels import tiles
from lokr.product import ConvSettings, Factors

PATHS = ("auto", "torch", "triton")
HALF = (torch.bfloat16, torch.float16)
MEASURED = 9
"""Compute capability (major) of the GPUs that ``tiles`` was measured on. Others may have less
shared memory than the tiles want."""
_measured_gpus: set[int] = set()
_INSTALLED = importlib.util.find_spec("triton") is not None


def _checked(path: str) -> str:
    if path not in PATHS:
        raise ValueError(f"LOKR_KERNEL={path!r}: expected one of {', '.join(PATHS)}")
    return path


_path = _checked(os.environ.get("LOKR_KERNEL", "auto"))


def path() -> str:
    """The path in force: ``"auto"``, ``"torch"`` or ``"triton"``."""
    return _path


@contextmanager
def force(path: str) -> Iterator[None]:
    """Use one path inside the ``with``.

    Raises:
        ValueError: an unknown path.
    """
    global _path
    before, _path = _path, _checked(path)
    try:
        yield
    finally:
        _path = before


def serves(device: torch.device, dtype: torch.dtype, f: Factors) -> bool:
    """Whether the Triton path takes a product on ``device`` in ``dtype``.

    Raises:
        RuntimeError: the path is forced, and it cannot; says why.
    """
    if _path == "torch":
        return False
    reason = _obstacle(device, dtype, f)
    if _path == "triton" and reason is not None:
        raise RuntimeError(f"LOKR_KERNEL='triton': {reason}")
    return reason is None and _wants_triton(device, dtype)


def chooses_triton(device: torch.device) -> bool:
    """Whether the path in force takes Triton for half precision on a GPU, whatever the program."""
    meet(device)
    return _INSTALLED and device.type == "cuda" and _wants_triton(device, torch.bfloat16)


def _wants_triton(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the path in force asks for Triton, if it can serve."""
    by_itself = dtype in HALF and _is_measured(device)
    return _path == "triton" or (_path == "auto" and by_itself)


def meet(device: torch.device) -> None:
    """Look at the GPUs before a call, or a compiler that cannot ask them, needs to know."""
    if device.type == "cuda" and not _measured_gpus:
        for index in range(torch.cuda.device_count()):
            if torch.cuda.get_device_capability(index)[0] == MEASURED:
                _measured_gpus.add(index)


def _is_measured(device: torch.device) -> bool:
    """Of a GPU without a number, as of ``torch.device("cuda")``, the current one is meant."""
    if device.type != "cuda" or not _measured_gpus:
        return False
    index = torch.cuda.current_device() if device.index is None else device.index
    return index in _measured_gpus


def _obstacle(device: torch.device, dtype: torch.dtype, f: Factors) -> str | None:
    """What keeps Triton from a call; None if nothing does."""
    if not _INSTALLED:
        return "the package triton is not installed"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"Triton has no device {device.type!r}; a CPU needs TRITON_INTERPRET=1"
    if dtype not in (*HALF, torch.float32):
        return f"dtype {dtype}: expected bfloat16, float16 or float32"
    r = 0 if f.w2_b is None else f.w2_b.shape[1]
    _, a, c = f.w1.shape
    if not tiles.fits(a, c, r):
        return (
            f"w1 {a}x{c} and r={r}: a and c may be {tiles.LARGEST} at most, and the larger times r "
            f"{tiles.MIDDLE}; more takes the PyTorch path"
        )
    return None


def adapted_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    f: Factors,
    onto: Tensor | None = None,
) -> Tensor:
    """W·x + bias + ΔW·x of all lanes; without a weight, ΔW·x + bias alone.

    Args:
        x: (L·…, c·d), lane-major, in the dtype of the product.
        weight, bias: of the frozen layer, in that dtype; either may be None.
        f: the factors, in any floating dtype.
        onto: (L·…, a·b) in the dtype of x, that it is added to; or None.

    Returns:
        (L·…, a·b) in the dtype of x.

    Raises:
        ValueError: x has another width, or a first dimension that the lanes cannot share evenly.
    """
    from lokr.kernels import linear

    if x.shape[-1] != _width(f):  # the programs would read past the factors' ends
        raise ValueError(f"x has {x.shape[-1]} features, the layer takes {_width(f)}")
    first, lanes = x.shape[0] if x.dim() > 1 else 1, f.w1.shape[0]
    if first % lanes:  # rows of one item would go to two lanes
        raise ValueError(
            f"x {tuple(x.shape)}: its first dimension, {first}, must be a multiple of the "
            f"{lanes} lanes"
        )
    fused = serves(x.device, x.dtype, f)
    f = f.to(torch.float32) if fused else f.scaled().to(x.dtype)
    below = None if onto is None else onto.contiguous()
    factors = (f.w1, f.w2, f.w2_a, f.w2_b)
    return linear.adapted_linear(x.contiguous(), weight, bias, *factors, fused, below, f.scale)


def adapted_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, f: Factors, settings: ConvSettings
) -> Tensor:
    """W * x + bias + ΔW * x of all lanes, where :func:`joins_conv` says so.

    Args:
        x: (L·N, C, H, W), lane-major, in the dtype of the product.
        weight, bias: of the frozen layer, in that dtype; no bias: None.
        f: the factors, in any floating dtype.
        settings: of the frozen layer.

    Returns:
        (L·N, a·b, H', W') in the dtype of x; channels last if x lies so, else contiguous.

    Raises:
        ValueError: the lanes cannot share the images evenly.
    """
    from lokr.kernels import convolution

    _check_images(x, f)
    y = convolution.adapted(product.padded(x, settings), weight, bias, f, settings)
    channels_last = x.stride(1) == 1 and not x.is_contiguous()
    return y if channels_last else convolution.channels_first(y)


def joins_conv(x: Tensor, f: Factors, settings: ConvSettings) -> bool:
    """Whether the Triton path takes a convolution of x together with the frozen one.

    Raises:
        RuntimeError: as :func:`serves`.
    """
    if x.dim() != 4 or not serves_conv(x.device, x.dtype, f, settings):
        return False
    from lokr.kernels import convolution

    return x.shape[1] == _width(f) and convolution.is_even(f, settings)


def conv_delta(x: Tensor, f: Factors, settings: ConvSettings) -> Tensor:
    """ΔW * x of a convolution, all lanes.

    Args:
        x: (L·N, C, *S), lane-major, one or two spatial axes.
        f: the factors, in any floating dtype.
        settings: of the frozen layer.

    Returns:
        (L·N, a·b, *S') in the dtype of x; channels last if x is.

    Raises:
        ValueError: the lanes cannot share the images evenly.
    """
    _check_images(x, f)
    if not serves_conv(x.device, x.dtype, f, settings):
        return product.conv(x, f, settings)
    from lokr.kernels import convolution

    return convolution.adapted(product.padded(x, settings), None, None, f, settings)


def _check_images(x: Tensor, f: Factors) -> None:
    if x.shape[0] % len(f.w1):
        raise ValueError(
            f"x {tuple(x.shape)}: its first dimension, {x.shape[0]}, must be a multiple of the "
            f"{len(f.w1)} lanes"
        )


def serves_conv(
    device: torch.device, dtype: torch.dtype, f: Factors, settings: ConvSettings
) -> bool:
    """As :func:`serves`, for a convolution: Triton was the fastest at every shape on an H100.

    Raises:
        RuntimeError: the path is forced, and it cannot; says why.
    """
    if _path == "triton" and settings.groups > 1:
        raise RuntimeError(f"LOKR_KERNEL='triton': groups={settings.groups}: expected 1")
    # Tiles of a convolution hold no r beside c: only those of the linear layer behind it do.
    return settings.groups == 1 and serves(device, dtype, f)


def _width(f: Factors) -> int:
    """c·d, the features of x."""
    last = f.w2 if f.w2_b is None else f.w2_b
    assert last is not None
    return f.w1.shape[2] * last.shape[2]
