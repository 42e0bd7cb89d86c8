"""Lanes: what lets several trials share one frozen base, each as if it were alone.

``LaneStack`` is a trained module (a task head) with a leading lane axis on every parameter;
``LaneNoise`` gives every lane its own stream of random numbers, for dropout masks and diffusion.

Legend: L lanes; N rows a lane. Rows are lane-major: the first dimension of a batch is L·N.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

_MASK = 0xFFFFFFFF  # 32 bits


class LaneStack(nn.Module):
    """L copies of a module, their parameters stacked: (L, ...) each.

    Every lane sees its own rows of the input and nothing else.

    Args:
        modules: one module a lane, alike but for their numbers.

    Raises:
        ValueError: a module keeps buffers, which lanes could not tell apart.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        first = modules[0]
        if any(True for _ in first.buffers()):
            raise ValueError(
                f"{type(first).__name__} keeps buffers (running statistics, say): it cannot be "
                "trained as a module to save"
            )
        self.lanes = len(modules)
        self.names = [name for name, _ in first.named_parameters()]
        states = [dict(m.named_parameters()) for m in modules]
        self.stacked = nn.ParameterList(
            torch.stack([state[name].detach() for state in states]) for name in self.names
        )
        # A tuple hides the skeleton from parameters(), state_dict() and to().
        self._skeleton = (copy.deepcopy(first).requires_grad_(False).to("meta"),)

    def lane(self, lane: int = 0) -> dict[str, Tensor]:
        """The parameters of one lane, as views."""
        return {name: p[lane] for name, p in zip(self.names, self.stacked, strict=True)}

    def module(self, lane: int = 0) -> nn.Module:
        """An ordinary module with the parameters of one lane, as copies."""
        values = {name: p.detach().clone() for name, p in self.lane(lane).items()}
        module = copy.deepcopy(self._skeleton[0])
        module.load_state_dict(values, assign=True)
        return module.train(self.training).requires_grad_(True)

    def train(self, mode: bool = True) -> LaneStack:
        """Training or evaluation mode, for the hidden skeleton too."""
        self._skeleton[0].train(mode)
        return super().train(mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The module on (L·N, ...); every other argument goes to all lanes alike."""
        skeleton = self._skeleton[0]
        if self.lanes == 1:
            return functional_call(skeleton, self.lane(), (x, *args), kwargs)

        def one(parameters: dict[str, Tensor], rows: Tensor) -> Any:
            return functional_call(skeleton, parameters, (rows, *args), kwargs)

        stacked = dict(zip(self.names, self.stacked, strict=True))
        rows = x.reshape(self.lanes, -1, *x.shape[1:])
        return vmap(one, randomness="different")(stacked, rows).flatten(0, 1)


class LaneNoise(nn.Module):
    """Random numbers that depend on (lane's seed, step, place) and on nothing else.

    A counter-based stream, after the finalizer of MurmurHash3 (public domain, A. Appleby): no
    state but the step, so a lane draws the same numbers in any pack, on any device, in a recomputed
    (checkpointed) or a captured (CUDA graph, ``torch.compile``) forward pass.

    Args:
        seeds: one integer a lane.
    """

    seed: Tensor
    step: Tensor

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("seed", torch.tensor(seeds, dtype=torch.int64), persistent=False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64), persistent=False)

    def advance(self) -> None:
        """Go on to the next training step: every mask is drawn anew."""
        self.step += 1

    def uniform(self, place: int, count: int) -> Tensor:
        """(L, count) fp32 in [0, 1): ``place`` tells apart the draws of one step."""
        word = _hash(self.seed & _MASK) ^ (self.step & _MASK)
        word = _hash(_hash(word) ^ place)
        index = torch.arange(count, device=self.seed.device)
        bits = _hash(word.unsqueeze(1) ^ _hash(index + 0x9E3779B9 & _MASK))
        return (bits >> 8).float() * 2.0**-24  # 24 bits fit a float exactly

    def normal(self, place: int, count: int) -> Tensor:
        """(L, count) fp32 from the standard normal distribution, after Box and Muller (1958).

        The draw at ``place`` is made of that :meth:`uniform` place's numbers: use it for one only.
        """
        half = (count + 1) // 2
        uniform = self.uniform(place, 2 * half)
        radius = (-2 * torch.log1p(-uniform[:, :half])).sqrt()  # 1 - u is never 0
        angle = 2 * math.pi * uniform[:, half:]
        pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return pairs[:, :count]


def _hash(word: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finalizer, in int64 arithmetic."""
    word = word ^ (word >> 16)
    word = (word * 0x85EBCA6B) & _MASK
    word = word ^ (word >> 13)
    word = (word * 0xC2B2AE35) & _MASK
    return word ^ (word >> 16)
