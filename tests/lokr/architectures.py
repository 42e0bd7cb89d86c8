"""Real architectures in small: built from configs with random weights, nothing downloaded."""

from __future__ import annotations

import functools
from collections.abc import Callable

import diffusers
import torch
import transformers
from torch import nn

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
WORDS = {"vocab_size": 50, "max_position_embeddings": 40}
# No special tokens: those of the defaults lie outside so small a vocabulary.
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None}


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**TINY, **WORDS))


def bert_classifier() -> nn.Module:
    config = transformers.BertConfig(**TINY, **WORDS, num_labels=3)
    return transformers.BertForSequenceClassification(config)


def roberta_classifier() -> nn.Module:
    config = transformers.RobertaConfig(**TINY, **WORDS, num_labels=3)
    return transformers.RobertaForSequenceClassification(config)


def mpnet() -> nn.Module:
    return transformers.MPNetModel(transformers.MPNetConfig(**TINY, **WORDS))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=40, **NO_TOKENS
    )
    return transformers.GPT2LMHeadModel(config)


def t5() -> nn.Module:
    config = transformers.T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=50
    )
    return transformers.T5ForConditionalGeneration(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(**TINY, image_size=8, patch_size=4, num_labels=3)
    return transformers.ViTForImageClassification(config)


def unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


@functools.cache
def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The model without memory: only its structure is looked at, it is not to be changed."""
    with torch.device("meta"):
        return build()
