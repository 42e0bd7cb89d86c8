"""What is kept on the CPU and sent to each device once, on first use."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import torch


class Movable(Protocol):
    """Tensors, and dataclasses of tensors."""

    def to(self, device: torch.device) -> Any: ...


T = TypeVar("T", bound=Movable)


class Resident(Generic[T]):
    """A value and its copies.

    Args:
        value: on the CPU, or moved there.
    """

    def __init__(self, value: T) -> None:
        home = torch.device("cpu")
        self._copies: dict[torch.device, T] = {home: value.to(home)}

    def on(self, device: torch.device) -> T:
        """The value on a device; a recording must not be the first to ask."""
        if device not in self._copies:
            self._copies[device] = self._copies[torch.device("cpu")].to(device)
        return self._copies[device]
