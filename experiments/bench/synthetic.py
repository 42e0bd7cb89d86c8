"""A task of random tokens on a RoBERTa with random weights: for its speed, not for its scores.

Legend: L lanes; B rows a lane; N rows of a split; T tokens.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import bases
from experiments.tasks.base import READINGS, Batch, Scores, Split, Task
from experiments.trial import Trial
from lokr import LaneNoise

ENCODER_LINEARS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
"""All linear layers of the encoder: six a layer."""


@dataclass(frozen=True)
class Size:
    """How large base and batch are; the defaults are roberta-base's.

    Args:
        hidden, layers, heads, intermediate, vocabulary: of the base.
        rows: B.
        tokens: T.
        lanes: L of the packed contender.
        steps: steps that are timed.
        precision: as in ``Trial``.
    """

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    vocabulary: int = 50265
    rows: int = 32
    tokens: int = 128
    lanes: int = 8
    steps: int = 100
    precision: str = "bf16"

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)

    def trial(self, method: str, seed: int = 0) -> Trial:
        """A trial of this size: r = 8, the most even split, every linear layer of the encoder."""
        return Trial(
            task="bench/tokens",
            base="random",
            method=method,  # type: ignore[arg-type]
            r=8,
            alpha=8,
            target_modules=ENCODER_LINEARS,
            learning_rate=1e-4,
            batch_size=self.rows,
            max_length=self.tokens,
            precision=self.precision,  # type: ignore[arg-type]
            seed=seed,
        )


class RandomTokens(Task):
    """The ``Task`` of :mod:`experiments.tasks.base`, on a base of this size.

    Every row is full. On a GPU the base is given a mask all the same, as the real tasks give it:
    without one transformers makes one of its own inside a recording, and of a kind that torch's
    fused attention does not take.
    """

    primary = "accuracy"
    heads = ("classifier",)
    task_type = "SEQ_CLS"

    def __init__(self, size: Size, train_size: int = 512) -> None:
        self.size = size
        self.train_size = train_size
        self.train = self._split(train_size, seed=0)
        self.dev = self._split(size.rows, seed=1)
        self.provenance: dict[str, Any] = {"base": {"name": "random"}, "data": {"source": "random"}}

    def model(self) -> nn.Module:
        """A fresh copy of the base with its head."""
        return copy.deepcopy(self._model)

    @cached_property
    def _model(self) -> nn.Module:
        from transformers import RobertaConfig, RobertaForSequenceClassification

        size = self.size
        config = RobertaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=size.intermediate,
            max_position_embeddings=size.tokens + 2,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = RobertaForSequenceClassification(config)
        return model

    def _split(self, rows: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        shape = (rows, self.size.tokens)
        tokens = torch.randint(5, self.size.vocabulary, shape, generator=generator)
        labels = torch.randint(2, (rows,), generator=generator)
        return Split({"input_ids": tokens, "labels": labels})

    def reset_heads(self, model: nn.Module, seed: int) -> None:
        """Draw the head anew."""
        generator = torch.Generator().manual_seed(seed)
        for module in model.get_submodule("classifier").modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)

    def loss(
        self, model: nn.Module, batch: Batch, lanes: int, draws: LaneNoise | None = None
    ) -> Tensor:
        """Cross-entropy, the mean of each lane, (L,)."""
        losses = F.cross_entropy(self._logits(model, batch), batch["labels"], reduction="none")
        return losses.view(lanes, -1).mean(1)

    def predict(self, model: nn.Module, batch: Batch, lanes: int) -> Tensor:
        """The class of each row, (L, B)."""
        return self._logits(model, batch).argmax(-1).float().view(lanes, -1)

    def scores(self, predictions: Tensor) -> Scores:
        """Accuracy; the three readings are one here."""
        right = (predictions == self.dev.tensors["labels"]).float().mean().item()
        return {reading: {"accuracy": right} for reading in READINGS}

    @staticmethod
    def _logits(model: nn.Module, batch: Batch) -> Tensor:
        ids = batch["input_ids"]
        mask = bases.additive_mask(torch.ones_like(ids)) if ids.is_cuda else None
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits.float()
        return logits
