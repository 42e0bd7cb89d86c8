"""MPNet (arXiv 2004.09297) with fused attention: transformers' own runs it piece by piece.

    softmax(q kᵀ / √d + position bias + padding) v

The bias is one for all layers, so padding is added to it once a forward pass and the sum goes to
torch's fused attention as its mask. Which bias belongs to which distance is looked up in a table
made in advance: transformers works it out anew each time, in some versions on the CPU, where a
CUDA graph cannot follow.

Legend: M rows; T tokens; H heads; D greatest distance of two tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.mpnet import modeling_mpnet as original


class SelfAttention(original.MPNetSelfAttention):
    """transformers' parameters, torch's fused attention."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        """(M, T, width) -> (M, T, width); weights, if asked for, come from transformers."""
        if output_attentions:
            return super().forward(hidden_states, attention_mask, position_bias, True, **kwargs)
        rows, tokens, _ = hidden_states.shape
        q, k, v = (
            layer(hidden_states).view(rows, tokens, self.num_attention_heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )  # (M, H, T, d)
        dropped = self.dropout.p if self.training else 0.0
        mask = _sum(position_bias, attention_mask)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropped)
        return (self.o(attended.transpose(1, 2).reshape(rows, tokens, -1)),)


class Encoder(original.MPNetEncoder):
    """transformers' encoder with the biases from a table, added up once."""

    buckets: Tensor

    def tabulate(self) -> None:
        """Make the table: the bucket of each distance from -D to D, (2·D + 1,)."""
        farthest = self.config.max_position_embeddings
        distances = torch.arange(-farthest, farthest + 1)
        self.register_buffer("buckets", self.relative_position_bucket(distances), persistent=False)

    def compute_position_bias(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(1, H, T, T): the bias from each token to each other one."""
        position = torch.arange(x.shape[1], device=x.device)
        distance = position - position.unsqueeze(1) + len(self.buckets) // 2  # (T, T), from 0
        bias = self.relative_attention_bias(self.buckets[distance])  # (T, T, H)
        # Dense in its last axis, or torch's attention goes piece by piece, in fp32.
        return bias.permute(2, 0, 1).contiguous().unsqueeze(0)

    def bias_of(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """What all layers add to their scores: position and padding, (1 or M, H, T, T)."""
        kind = x.device.type
        bias = self.compute_position_bias(x)
        if torch.is_autocast_enabled(kind):  # once, not in every layer
            bias = bias.to(torch.get_autocast_dtype(kind))
        return bias if attention_mask is None else bias + attention_mask

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As in transformers; all hidden states or attentions, if asked for, come from there."""
        if output_attentions or output_hidden_states:
            wanted = (output_attentions, output_hidden_states, return_dict)
            return super().forward(hidden_states, attention_mask, *wanted, **kwargs)
        bias = self.bias_of(hidden_states, attention_mask)
        for layer in self.layer:
            hidden_states = layer(hidden_states, position_bias=bias, **kwargs)[0]
        return BaseModelOutput(last_hidden_state=hidden_states) if return_dict else (hidden_states,)


def fuse_attention(model: nn.Module) -> nn.Module:
    """Let an MPNet compute its attention as here; its parameters stay as they are."""
    for module in model.modules():
        if type(module) is original.MPNetSelfAttention:
            module.__class__ = SelfAttention
        elif type(module) is original.MPNetEncoder:
            module.__class__ = Encoder
            module.tabulate()
    return model


def _sum(bias: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Both are added to the scores; either may be missing."""
    return mask if bias is None else bias if mask is None else bias + mask
