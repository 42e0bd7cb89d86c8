"""The diffusion process: corrupting, the loss, and sampling.

    x_t = a_t x_0 + b_t n,   v = a_t n - b_t x_0,   a_t² + b_t² = 1

with the squared-cosine schedule (Nichol & Dhariwal 2021, arXiv 2102.09672) of 1000 steps and
prediction of v (Salimans & Ho 2022, arXiv 2202.00512). Samples are drawn by DDIM (Song et al. 2020,
arXiv 2010.02502, eta = 0) with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598). In
diffusers' words: ``DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction",
timestep_spacing="trailing", clip_sample=True)``, stepped with ``use_clipped_model_output=True``:
x_0 is held to [-1, 1], and the noise of the next step is what that x_0 leaves. Trailing, because
leading steps would start at a timestep that still holds some signal, from noise that holds none.

Legend: L lanes; B rows a lane; M = L·B rows, lane-major.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from experiments.tasks.emoji.unet import LATENT, predict

STEPS = 1000
LARGEST_BETA = 0.999
GUIDANCE = 3.0
SAMPLING_STEPS = 25
_OFFSET = 0.008


def corrupt(x0: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """x_t and its v, both like ``x0``.

    Args:
        x0: (M, 12, 32, 32).
        t: (M,) int64, 0 to 999, on the same device.
        noise: like ``x0``, standard normal.
    """
    a, b = schedule(x0.device)[:, t, None, None, None]  # (M, 1, 1, 1) each
    return a * x0 + b * noise, a * noise - b * x0


def row_losses(
    model: Any, x0: Tensor, t: Tensor, noise: Tensor, states: Tensor, pooled: Tensor
) -> Tensor:
    """Mean squared error of v, a number a row: (M,) fp32."""
    x, v = corrupt(x0, t, noise)
    error = predict(model, x, t, states, pooled).float() - v.float()
    return error.square().flatten(1).mean(1)


def spread_timesteps(rows: int, generator: torch.Generator | None = None) -> Tensor:
    """``rows`` timesteps, one from each of ``rows`` equal stretches of 0 to 999: (rows,) int64.

    Each is uniform by itself, and together they cover the schedule more evenly than independent
    draws, so that a batch's mean loss varies less (Kingma et al. 2021, arXiv 2107.00630).

    Args:
        generator: draws the place within each stretch, on its device; without one it is the middle,
            on the CPU.
    """
    if generator is None:
        places = torch.full((rows,), 0.5)
    else:
        places = torch.rand(rows, generator=generator, device=generator.device)
    return spread(places)


def spread(places: Tensor) -> Tensor:
    """Timesteps from places within equal stretches of 0 to 999, int64, like ``places``.

    Args:
        places: (…, rows) in [0, 1): row i falls into the i-th of ``rows`` stretches.
    """
    rows = places.shape[-1]
    t = (torch.arange(rows, device=places.device) + places) * (STEPS / max(1, rows))
    return t.long().clamp(max=STEPS - 1)  # rounding may reach 1000


@torch.no_grad()
def sample(
    model: Any,
    states: Tensor,
    pooled: Tensor,
    seed: int = 0,
    steps: int = SAMPLING_STEPS,
    guidance: float = GUIDANCE,
    noise: Tensor | None = None,
    lanes: int = 1,
) -> Tensor:
    """Draw pictures, as latents (M, 12, 32, 32) fp32.

    Nothing waits for the device, if ``noise`` is on it.

    Args:
        model: see :func:`~experiments.tasks.emoji.unet.predict`. It sees 2·M rows, each row without
            its caption before the same row with it, so that lanes stay in order; with
            ``guidance=1`` it sees M rows.
        states, pooled: (M, T, W) and (M, W), lane-major.
        seed: of the initial noise, see :func:`initial_noise`; row i of every lane has the same.
        steps: a divisor of 1000.
        guidance: 1 is the model's own answer to the caption.
        noise: (M, 12, 32, 32), in place of ``seed`` and ``lanes``.
        lanes: L.

    Raises:
        ValueError: ``steps`` is no divisor of 1000.
    """
    if noise is None:
        noise = initial_noise(len(states) // lanes, seed).repeat(lanes, 1, 1, 1)
    x = noise.to(states.device, torch.float32)
    times = sampling_timesteps(steps)
    signals = [*signal_table()[times].tolist(), 1.0]
    for t, (now, before) in zip(times, pairwise(signals), strict=True):
        v = _guided(model, x, t, states, pooled, guidance)
        x = ddim(x, v, now, before)
    return x


def initial_noise(rows: int, seed: int) -> Tensor:
    """(rows, 12, 32, 32) fp32, drawn on the CPU: the same for every device.

    Row i does not depend on how many rows there are.
    """
    return torch.randn(rows, *LATENT, generator=torch.Generator().manual_seed(seed))


def sampling_timesteps(steps: int) -> list[int]:
    """From 999 down, evenly.

    Raises:
        ValueError: ``steps`` is no divisor of 1000.
    """
    if steps < 1 or STEPS % steps:
        raise ValueError(f"steps={steps}: a divisor of {STEPS} is needed")
    return list(range(STEPS - 1, -1, -STEPS // steps))


def ddim(x: Tensor, v: Tensor, now: float, before: float) -> Tensor:
    """One step of DDIM, from a signal of ``now`` (a_t) to ``before``, which is larger."""
    spread = math.sqrt(1 - now**2)
    x0 = (now * x - spread * v).clamp(-1, 1)
    noise = (x - now * x0) / spread
    return before * x0 + math.sqrt(1 - before**2) * noise


def _guided(
    model: Any, x: Tensor, t: int, states: Tensor, pooled: Tensor, guidance: float
) -> Tensor:
    """v away from the answer to no caption, (M, 12, 32, 32) fp32."""
    if guidance == 1:
        times = torch.full((len(x),), t, device=x.device)
        return predict(model, x, times, states, pooled).float()
    times = torch.full((2 * len(x),), t, device=x.device)
    states, pooled = (_pairs(torch.zeros_like(told), told) for told in (states, pooled))
    both = predict(model, _pairs(x, x), times, states, pooled).float()
    without, told = both.unflatten(0, (-1, 2)).unbind(1)  # (M, …) each
    return without + guidance * (told - without)


def _pairs(one: Tensor, other: Tensor) -> Tensor:
    """Rows (M, …) and (M, …) in turn, (2·M, …)."""
    return torch.stack([one, other], dim=1).flatten(0, 1)


@lru_cache
def signal_table() -> Tensor:
    """a_t of every timestep, (1000,) fp64 on the CPU.

    a_t² is the running product of 1 - beta, each beta at most ``LARGEST_BETA``.
    """
    with torch.inference_mode(False):
        times = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
        kept = ((times + _OFFSET) / (1 + _OFFSET) * math.pi / 2).cos().square()
        betas = (1 - kept[1:] / kept[:-1]).clamp(max=LARGEST_BETA)
        return (1 - betas).cumprod(0).sqrt()


@lru_cache
def schedule(device: torch.device) -> Tensor:
    """a_t and b_t of every timestep, (2, 1000) fp32.

    They are copied to the device once: call it before a graph is captured.
    """
    with torch.inference_mode(False):
        a = signal_table()
        return torch.stack([a, (1 - a.square()).sqrt()]).to(device, torch.float32)
