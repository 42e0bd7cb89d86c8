"""The definition, spelled as in the papers: slow, plain, the yardstick of everything else.

    ΔW = scale · kron(w1, w2),  w1 = w1_a·w1_b or full,  w2 = w2_a·w2_b, Tucker, or full

Sources: arXiv 2309.14859 (LoKr), arXiv 2108.06098 Proposition 3 (Tucker form of a convolution).
Legend: a, b, c, d, r, k as in :mod:`lokr.factors`; no lane axis here: one lane's tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lokr.factors import FactorSpec


def left_factor(tensors: Mapping[str, Tensor]) -> Tensor:
    """w1, (a, c)."""
    if "lokr_w1" in tensors:
        return tensors["lokr_w1"]
    return tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]


def right_factor(tensors: Mapping[str, Tensor], spec: FactorSpec) -> Tensor:
    """w2, (b, d, *k)."""
    if "lokr_w2" in tensors:
        return tensors["lokr_w2"]
    w2_a, w2_b = tensors["lokr_w2_a"], tensors["lokr_w2_b"]
    if "lokr_t2" in tensors:
        return torch.einsum("ij...,ip,jq->pq...", tensors["lokr_t2"], w2_a, w2_b)
    return (w2_a @ w2_b).reshape(spec.b, spec.d, *spec.kernel)


def delta_weight(tensors: Mapping[str, Tensor], spec: FactorSpec) -> Tensor:
    """ΔW of one lane, (a·b, c·d, *k), in the dtype of the factors.

    The kernel axes of w1 are ones, so that the product is a Kronecker product for every kernel
    (PEFT's Conv1d leaves them out, and its ΔW then has no Kronecker structure).
    """
    w1 = left_factor(tensors)
    ones = (1,) * len(spec.kernel)
    w2 = right_factor(tensors, spec).contiguous()  # torch.kron cannot view every stride
    return torch.kron(w1.reshape(*w1.shape, *ones), w2) * spec.scale
