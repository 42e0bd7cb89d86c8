"""The layers of an encoder that normalizes after each sum, on :func:`~.add_norm.add_norm`.

What runs from layer to layer goes on twice: in fp32 as the residual of the next sum, and in the
dtype of the products as what attention and the feed-forward part read.

Legend: M rows; T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)

from experiments.frozen.add_norm import add_norm, is_frozen

Attend = Callable[[Any, Tensor], Tensor]
"""A layer's attention without its sum and norm: (layer, (M, T, width)) -> (M, T, width)."""
BERT = ("bert", "camembert", "electra", "roberta", "xlm-roberta")
"""Model types whose layers have BERT's parts, by BERT's names."""
MPNET = "mpnet"


def through(layers: Iterable[Any], x: Tensor, attend: Attend) -> Tensor:
    """x (M, T, width) through the layers; the last one's output, fp32."""
    residual, half = x.float(), x.to(torch.get_autocast_dtype(x.device.type))
    for layer in layers:
        first, second = _norms(layer)
        residual, half = add_norm(attend(layer, half), residual, first)
        residual, half = add_norm(layer.output.dense(layer.intermediate(half)), residual, second)
    return residual


def fuse_encoders(model: nn.Module) -> nn.Module:
    """Let the encoders of a model go this way: for work under autocast, and for models that are
    asked for no more than their last hidden states.

    Those stay as they are that have other layers, that drop something out, whose norms train, or
    whose layers are watched by hooks or checkpointed.
    """
    for module in model.modules():
        kind = getattr(getattr(module, "config", None), "model_type", None)
        layers = getattr(module, "layer", None)
        if kind not in (*BERT, MPNET) or not isinstance(layers, nn.ModuleList):
            continue
        if all(map(_is_plain, layers)):
            module.forward = partial(_mpnet if kind == MPNET else _bert, module)
    return model


def _is_plain(layer: nn.Module) -> bool:
    """Whether :func:`through` computes what the layer does."""
    drops = any(isinstance(part, nn.Dropout) and part.p > 0 for part in layer.modules())
    watched = any(m._forward_hooks or m._forward_pre_hooks for m in (layer, *_norms(layer)))
    asked = ("add_cross_attention", "gradient_checkpointing")
    others = any(getattr(layer, name, False) for name in asked)
    return all(map(is_frozen, _norms(layer))) and not (drops or watched or others)


def _norms(layer: Any) -> tuple[nn.LayerNorm, nn.LayerNorm]:
    """After attention, and after the feed-forward part."""
    attention = layer.attention
    return getattr(attention, "output", attention).LayerNorm, layer.output.LayerNorm


def _bert(
    encoder: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> BaseModelOutputWithPastAndCrossAttentions:
    def attend(layer: Any, x: Tensor) -> Tensor:
        attended = layer.attention.self(x, attention_mask=attention_mask)[0]
        y: Tensor = layer.attention.output.dense(attended)
        return y

    last = through(encoder.layer, hidden_states, attend)
    return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=last)


def _mpnet(
    encoder: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> BaseModelOutput:
    bias = encoder.bias_of(hidden_states, attention_mask)

    def attend(layer: Any, x: Tensor) -> Tensor:
        y: Tensor = layer.attention.attn(x, position_bias=bias)[0]
        return y

    return BaseModelOutput(last_hidden_state=through(encoder.layer, hidden_states, attend))
