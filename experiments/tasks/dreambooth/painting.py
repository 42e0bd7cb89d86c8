"""Pictures drawn by a pipeline's U-Net, adapted or not, for all lanes at once.

Row i of every lane starts from the same noise, drawn on the CPU from the seed i, so that pictures
of different trials, devices and packs can be compared.

Legend: L lanes; n pictures a lane; M rows, lane-major; R side in pixels; k, h, w a latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.tasks.dreambooth import latents
from experiments.tasks.dreambooth.diffusion import Diffusion, guided
from experiments.tasks.dreambooth.pipeline import Pipeline, on_device
from experiments.tasks.dreambooth.text import Condition, Texts

STEPS = 25
"""Of DDIM."""
GUIDANCE = 7.5
ROWS = 32
"""Rows of all lanes that the U-Net sees at a time without training, if of 64 x 64 latents."""
_LATENT = 64 * 64
EMPTY = 0
"""Number of the empty caption among those that pictures are drawn from."""
_NUMBERS = 6  # of XL: height and width of the original, of the cut's corner, and of the target
_CORNER = slice(2, 4)


class Painter:
    """Draws pictures.

    Args:
        pipeline: whose VAE and schedule.
        side: R.
    """

    def __init__(self, pipeline: Pipeline, side: int) -> None:
        self.diffusion = Diffusion(pipeline.layout.scheduler)
        self.side = side
        self._vae = pipeline.vae
        small = side // pipeline.layout.shrink
        self.shape = (pipeline.layout.vae["latent_channels"], small, small)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """What pictures start from, (n, k, h, w) on the CPU."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return torch.stack([torch.randn(self.shape, generator=one) for one in generators])

    def rows_at_a_time(self, lanes: int) -> int:
        """Rows a lane that the U-Net sees at a time: fewer, the larger the pictures."""
        return max(1, ROWS * _LATENT // (self.shape[1] * self.shape[2]) // lanes)

    def draw(
        self, unet: nn.Module, texts: Texts, captions: Tensor, seeds: Sequence[int], lanes: int
    ) -> Tensor:
        """Pictures, (L, n, 3, R, R) uint8 on the CPU.

        Args:
            unet: of L lanes, on its device, in evaluation mode.
            texts: captions, the empty one first.
            captions: number of each picture's caption, (n,) on the CPU.
            seeds: of each picture.
            lanes: L.
        """
        device = next(unet.parameters()).device
        at_a_time = self.rows_at_a_time(2 * lanes)  # with a caption, and without
        drawn = []
        for part in torch.arange(len(seeds)).split(at_a_time):
            noise = self.noise([seeds[i] for i in part.tolist()]).to(device)
            x = self._sample(unet, texts, captions[part].to(device), noise, lanes)
            with on_device(device, self._vae):
                pictures = latents.decode(self._vae, x)
            drawn.append(pictures.view(lanes, len(part), *pictures.shape[1:]).cpu())
        return torch.cat(drawn, dim=1)

    def _sample(
        self, unet: nn.Module, texts: Texts, captions: Tensor, noise: Tensor, lanes: int
    ) -> Tensor:
        """Latents (M, k, h, w) from captions (n,) and noise (n, k, h, w)."""
        pair = torch.cat([torch.full_like(captions, EMPTY), captions])  # (2n,)
        condition = texts.rows(pair.expand(lanes, -1))

        def predict(x: Tensor, times: Tensor) -> Tensor:
            doubled = x.view(lanes, 1, len(noise), *self.shape).expand(-1, 2, -1, -1, -1, -1)
            times = times[:1].expand(2 * len(x))
            said = denoise(unet, doubled.reshape(-1, *self.shape), times, condition, self.side)
            without, with_caption = said.view(lanes, 2, -1, *self.shape).unbind(1)
            return guided(with_caption, without, GUIDANCE).reshape(x.shape)

        return self.diffusion.sample(predict, noise.repeat(lanes, 1, 1, 1), STEPS)


def denoise(unet: Any, x: Tensor, times: Tensor, condition: Condition, side: int) -> Tensor:
    """What a U-Net, adapted or not, predicts of noisy latents, (M, k, h, w).

    Args:
        x: (M, k, h, w).
        times: (M,) int64.
        condition: of M rows.
        side: R, which XL is told.
    """
    added = None
    if condition.pooled is not None:
        sizes = torch.full((len(x), _NUMBERS), float(side), device=x.device)
        sizes[:, _CORNER].zero_()
        added = {"text_embeds": condition.pooled, "time_ids": sizes}
    said: Tensor = unet(
        x, times, encoder_hidden_states=condition.states, added_cond_kwargs=added, return_dict=False
    )[0]
    return said
