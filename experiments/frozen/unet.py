"""diffusers' U-Nets on :func:`~.group_norm.group_norm`, their pictures channels last all the way.

diffusers lays a block's input channels first in training, for the sake of DDP, and so does what a
transformer block gives back; a GPU's convolutions, and our adapters on them, want them last.

Legend: N pictures; C channels; H, W height and width; E width of the time's embedding; T = H·W.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.frozen.add_norm import is_frozen, norm_alone
from experiments.frozen.group_norm import group_norm


def fuse_unets(model: nn.Module) -> nn.Module:
    """Let the U-Nets of a model go this way, for work under autocast.

    Blocks stay as they are that drop something out, scale or resize inside, have another
    activation, or whose norms train.
    """
    if "diffusers" not in sys.modules:  # then there is none, and the import takes seconds
        return model
    from diffusers import Transformer2DModel, UNet2DConditionModel
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    for module in model.modules():
        if isinstance(module, ResnetBlock2D) and _is_plain(module):
            module.forward = partial(_block, module)  # type: ignore[method-assign]
        elif isinstance(module, Transformer2DModel) and is_frozen(module.norm):
            module.norm.forward = partial(_norm, module.norm)
            module._get_output_for_continuous_inputs = partial(_out, module)
        elif isinstance(module, BasicTransformerBlock):
            for norm in filter(is_frozen, module.children()):
                norm.forward = partial(_norm_of_tokens, norm)
        elif isinstance(module, UNet2DConditionModel) and _ends_plainly(module):
            module.conv_norm_out.forward = partial(_norm, module.conv_norm_out, silu=True)
            module.conv_act.forward = _as_it_is
    return model


def _is_plain(block: Any) -> bool:
    """Whether :func:`_block` computes what the block does."""
    resizes = block.upsample is not None or block.downsample is not None
    usual = block.time_embedding_norm == "default" and not block.skip_time_act
    usual = usual and isinstance(block.nonlinearity, nn.SiLU) and block.dropout.p == 0
    return usual and not resizes and is_frozen(block.norm1) and is_frozen(block.norm2)


def _ends_plainly(unet: Any) -> bool:
    return is_frozen(unet.conv_norm_out) and isinstance(unet.conv_act, nn.SiLU)


def _norm(norm: nn.GroupNorm, x: Tensor, silu: bool = False) -> Tensor:
    """(N, C, H, W) in the dtype of the products that follow."""
    return group_norm(x, norm, silu, _wanted(x))


def _norm_of_tokens(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """(N, T, C) in the dtype of the products that follow."""
    return norm_alone(x, norm, _wanted(x))


def _wanted(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _block(block: Any, x: Tensor, temb: Tensor | None, *_: Any, **__: Any) -> Tensor:
    """A residual block's forward pass: x (N, C, H, W), temb (N, E)."""
    h = block.conv1(_norm(block.norm1, x, silu=True))
    if block.time_emb_proj is not None:
        h = h + block.time_emb_proj(block.nonlinearity(temb))[:, :, None, None]
    h = block.conv2(_norm(block.norm2, h, silu=True))
    y: Tensor = h + (x if block.conv_shortcut is None else block.conv_shortcut(x))
    return y if block.output_scale_factor == 1 else y / block.output_scale_factor


def _out(
    transformer: Any,
    hidden_states: Tensor,
    residual: Tensor,
    batch_size: int,
    height: int,
    width: int,
    inner_dim: int,
) -> Tensor:
    """A transformer block's end: (N, T, C) back to pictures, onto its input (N, C, H, W)."""
    size = (batch_size, height, width, inner_dim)
    if transformer.use_linear_projection:
        hidden_states = transformer.proj_out(hidden_states)
        y: Tensor = hidden_states.reshape(size).permute(0, 3, 1, 2)
    else:
        y = transformer.proj_out(hidden_states.reshape(size).permute(0, 3, 1, 2))
    return y + residual


def _as_it_is(x: Tensor) -> Tensor:
    """An activation that the norm before it has applied."""
    return x
