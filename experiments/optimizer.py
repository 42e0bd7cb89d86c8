"""AdamW for lanes: every lane has its own rate, decay and gradient norm.

All trainable tensors live in one matrix, one row a lane, so a step is a dozen operations however
many tensors there are, and a lane's norm is the norm of its row.

Legend: L lanes; P trainable numbers of a lane, and the zeros between tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ALIGNED = 16
"""Every tensor begins at a multiple of so many numbers: GPU programs read several at once only from
places that they know to be such."""


class LaneParameters:
    """Trainable tensors re-homed as views of one matrix (L, P).

    Args:
        parameters: with a leading lane axis if ``lanes`` > 1 or ``stacked``.
        lanes: L.
        stacked: whether the tensors have the lane axis (a plain model has none, and is one lane).

    Raises:
        ValueError: several lanes without a lane axis, or tensors of another dtype than fp32.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], lanes: int, stacked: bool) -> None:
        if lanes > 1 and not stacked:
            raise ValueError(f"lanes={lanes}: these parameters have no lane axis")
        wrong = {p.dtype for p in parameters} - {torch.float32}
        if wrong:
            raise ValueError(
                f"trainable parameters are trained in fp32, got {sorted(map(str, wrong))}"
            )
        sizes = [p.numel() // lanes for p in parameters]
        self._gaps = [-size % ALIGNED for size in sizes]
        device = parameters[0].device
        self._tensors = list(parameters)
        self.values = torch.zeros(lanes, sum(sizes) + sum(self._gaps), device=device)
        self._gradients = torch.empty_like(self.values)
        self._gap = torch.zeros(lanes, ALIGNED, device=device)
        self._missing: dict[int, Tensor] = {}
        start = 0
        for parameter, size, gap in zip(parameters, sizes, self._gaps, strict=True):
            rows = self.values[:, start : start + size]
            rows.copy_(parameter.detach().reshape(lanes, -1))
            parameter.data = rows.view(parameter.shape)
            start += size + gap

    def take_gradients(self) -> Tensor:
        """The gradients as a matrix (L, P), taken off the tensors; zeros where there is none.

        The matrix is the same one each time, so a step that is recorded once finds it again.
        """
        lanes = len(self.values)
        found = [self._zeros(p) if p.grad is None else p.grad for p in self._tensors]
        self.drop_gradients()
        rows: list[Tensor] = []
        for gradient, gap in zip(found, self._gaps, strict=True):
            rows.append(gradient.reshape(lanes, -1))
            if gap:
                rows.append(self._gap[:, :gap])
        return torch.cat(rows, dim=1, out=self._gradients)

    def drop_gradients(self) -> None:
        """Forget gradients that no step will use."""
        for parameter in self._tensors:
            parameter.grad = None

    def _zeros(self, parameter: nn.Parameter) -> Tensor:
        """Zeros like a parameter that the loss does not reach, made once."""
        key = id(parameter)
        if key not in self._missing:
            self._missing[key] = torch.zeros_like(parameter)
        return self._missing[key]


class LaneAdamW:
    """AdamW (arXiv 1711.05101) as ``torch.optim.AdamW`` computes it, a row a lane.

    Which step it is, and all that hangs on that, lives beside the parameters: a step reads nothing
    from the host, so it can be recorded once and replayed.

    Args:
        parameters: what is trained.
        learning_rates: peak rate of each lane.
        weight_decays: decoupled decay of each lane.
        clips: largest gradient norm of each lane.
        shares: share of the peak rate at each step to come, see :func:`schedule`.
        betas, eps: as in torch.
    """

    def __init__(
        self,
        parameters: LaneParameters,
        learning_rates: Sequence[float],
        weight_decays: Sequence[float],
        clips: Sequence[float],
        shares: Sequence[float],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = parameters
        device = parameters.values.device
        self.rate, self.decay, self.clip = (
            torch.tensor(numbers, dtype=torch.float32, device=device).unsqueeze(1)
            for numbers in (learning_rates, weight_decays, clips)
        )  # (L, 1)
        self.betas = betas
        self.eps = eps
        self.first = torch.zeros_like(parameters.values)
        self.second = torch.zeros_like(parameters.values)
        self.done = torch.zeros(1, dtype=torch.int64, device=device)
        """Steps taken, (1,)."""
        self.numbers = torch.tensor(
            [
                (share, *(1 - beta**step for beta in betas))  # in double precision, as torch does
                for step, share in enumerate(shares, 1)
            ],
            device=device,
        )
        """(steps, 3): share of the peak rate, and the bias corrections of both moments."""

    @torch.no_grad()
    def step(self) -> None:
        """Clip each lane and update it; uses the gradients up. After the last share: an error."""
        values, gradients = self.parameters.values, self.parameters.take_gradients()
        share, first, second = self.numbers.index_select(0, self.done).unbind(1)  # (1,) each
        beta1, beta2 = self.betas
        norm = gradients.norm(dim=1, keepdim=True)
        gradients.mul_((self.clip / (norm + 1e-6)).clamp(max=1.0))  # torch's clip_grad_norm_
        rate = self.rate * share
        values.mul_(1 - rate * self.decay)
        self.first.lerp_(gradients, 1 - beta1)
        self.second.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        deviation = (self.second / second).sqrt_().add_(self.eps)
        values.sub_((rate / first) * (self.first / deviation))
        self.done += 1


def schedule(steps: int, warmup: float) -> list[float]:
    """:func:`share_of_peak` of every step."""
    return [share_of_peak(step, steps, warmup) for step in range(steps)]


def share_of_peak(step: int, steps: int, warmup: float) -> float:
    """Rate of step 0, 1, … as a share of the peak: linear up over ``warmup``, then linear to 0.

    The first step already moves (transformers' schedule spends it at 0).
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / (steps - rising + 1)
