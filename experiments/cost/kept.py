"""What a step holds: bytes kept for backward, and the peak of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def bytes_for_backward(model: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that autograd keeps from a forward pass for the backward pass.

    Each storage counts once and in full, however many tensors look into it; parameters and buffers
    are there anyway and count nothing. A weight that autocast casts for this pass does count.

    Args:
        model: owns the parameters and buffers.
        forward: the pass; its result keeps the graph alive while we count.
    """
    own = {_address(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Held until the end, so that no address is given out twice.
        kept[_address(tensor)] = tensor.detach()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(
        tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own
    )


def peak(action: Callable[[], Any]) -> dict[str, int]:
    """The highest memory of the GPU while ``action`` runs, all that this process holds included.

    Returns:
        ``allocated_bytes`` of tensors, and ``reserved_bytes`` that torch took for them (with what
        is lost between blocks, and the private pools of CUDA graphs).
    """
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    action()
    torch.cuda.synchronize()
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
