"""Bases of every family of text, small enough to test, with random weights."""

from __future__ import annotations

import torch
from torch import nn

SMALL = {
    "vocab_size": 60,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.3,
}


def classifier(kind: str, **changes: object) -> nn.Module:
    """A base of transformers' model type ``kind`` with a head, the same at every call."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **changes})
    return AutoModelForSequenceClassification.from_config(config).train()
