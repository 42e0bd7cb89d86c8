"""Pictures to latents and back, by a pipeline's VAE, always in fp32: XL's overflows in fp16.

Legend: N pictures; R side in pixels; k, h, w channels, height and width of a latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PIXELS = 512 * 512
"""Pixels that the VAE sees at a time, or one picture: its layers keep all of them in fp32."""


@dataclass(frozen=True)
class Posterior:
    """What the VAE says of pictures: mean and standard deviation of each latent, scaled as the
    U-Net takes them, (N, k, h, w) fp32 each.
    """

    mean: Tensor
    deviation: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def draw(self, noise: Tensor) -> Tensor:
        """Latents, from standard normal noise of their shape."""
        return self.mean + self.deviation * noise

    def rows(self, which: Tensor | slice) -> Posterior:
        """Those of some pictures."""
        return Posterior(self.mean[which], self.deviation[which])

    def to(self, device: torch.device) -> Posterior:
        """On another device."""
        return Posterior(self.mean.to(device), self.deviation.to(device))


@torch.no_grad()
def encode(vae: Any, pictures: Tensor) -> Posterior:
    """Pictures (N, 3, R, R) uint8 -> latents, where the VAE is."""
    scale, shift = _scale(vae)
    means, deviations = [], []
    with _full_precision(vae):
        for chunk in pictures.split(_at_a_time(pictures.shape[-1])):
            x = chunk.to(vae.device).float() / 127.5 - 1
            found = vae.encode(x).latent_dist
            means.append((found.mean - shift) * scale)
            deviations.append(found.std * scale)
    return Posterior(torch.cat(means), torch.cat(deviations))


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents (N, k, h, w) -> pictures (N, 3, R, R) uint8, where the latents are."""
    scale, shift = _scale(vae)
    side = latents.shape[-1] * 2 ** (len(vae.config.block_out_channels) - 1)
    pictures = []
    with _full_precision(vae):
        for chunk in latents.float().split(_at_a_time(side)):
            x = vae.decode(chunk / scale + shift, return_dict=False)[0]
            pictures.append(((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(pictures)


def _scale(vae: Any) -> tuple[float, float]:
    return vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0


def _at_a_time(side: int) -> int:
    return max(1, PIXELS // side**2)


@contextmanager
def _full_precision(vae: Any) -> Iterator[None]:
    with torch.autocast(vae.device.type, enabled=False):
        yield
