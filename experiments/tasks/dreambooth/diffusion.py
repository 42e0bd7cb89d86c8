"""The noise of a pipeline: its schedule, what the U-Net is to predict, and sampling.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e        target: e, or v = sqrt(a_t) e - sqrt(1 - a_t) x_0

a_t is the schedule's cumulative product, from the pipeline's own scheduler config. Sources: Ho et
al. 2020 (arXiv 2006.11239), Salimans and Ho 2022 (v, arXiv 2202.00512), Song et al. 2020 (DDIM,
arXiv 2010.02502), Ho and Salimans 2022 (guidance, arXiv 2207.12598).

Legend: M rows; k, h, w channels, height and width of a latent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from experiments.tasks.dreambooth.resident import Resident

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents (M, k, h, w), times (M,)) -> what the U-Net predicts, (M, k, h, w)."""


class Diffusion:
    """A pipeline's schedule.

    Args:
        config: of its scheduler.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers import DDIMScheduler

        self._config = dict(config)
        # Latents are not pictures: they are never clipped to [-1, 1].
        self._config |= {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
        scheduler = DDIMScheduler.from_config(self._config)
        self.predicts_v = scheduler.config["prediction_type"] == "v_prediction"
        self.times = int(scheduler.config["num_train_timesteps"])
        self.products = Resident(scheduler.alphas_cumprod.float())
        """a, (times,) fp32."""

    def corrupt(self, x: Tensor, times: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents and what is to be predicted of them.

        Args:
            x, noise: (M, k, h, w) fp32.
            times: (M,) int64.
        """
        kept = self.products.on(x.device).index_select(0, times)[:, None, None, None]
        signal, lost = kept.sqrt(), (1 - kept).sqrt()
        target = signal * noise - lost * x if self.predicts_v else noise
        return signal * x + lost * noise, target

    def sample(self, predict: Predict, noise: Tensor, steps: int) -> Tensor:
        """Latents by DDIM from ``noise``, (M, k, h, w) fp32; nothing is read from the device."""
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(self._config)
        scheduler.set_timesteps(steps)
        x = noise * scheduler.init_noise_sigma
        for time in scheduler.timesteps:  # on the CPU, where the scheduler compares them
            times = torch.full((len(x),), int(time), device=x.device)
            x = scheduler.step(predict(x, times).float(), time, x, return_dict=False)[0]
        return x


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance."""
    return unconditional + scale * (conditional - unconditional)
