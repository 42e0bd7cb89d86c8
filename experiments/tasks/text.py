"""Classification and regression of one or two sentences: what GLUE and ``sentences`` share.

Legend: L lanes; B rows a lane; T tokens; N rows of a split.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import bases
from experiments.errors import BenchError
from experiments.tasks.base import READINGS, Batch, Family, Scores, Split, Task
from experiments.tasks.metrics import METRICS
from experiments.trial import Trial
from lokr import LaneNoise

Row = dict[str, Any]
READ_ON_HOST = ("cpu",)
"""Devices on which a base may read its mask on the host: without padding it is faster unmasked."""


@dataclass(frozen=True)
class TextData:
    """A text task's rows and what they mean.

    Args:
        train, dev: rows with the text columns and ``label``; a dev row may name its ``part``.
        columns: one or two names of text columns.
        metrics: names in ``METRICS``, the primary one first.
        labels: number of classes; 1 is regression.
        source: where the rows came from, for the provenance.
        parts: dev-set parts scored apart, with the suffix of their metrics (MNLI's two).
    """

    train: Sequence[Row]
    dev: Sequence[Row]
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: int
    source: str
    parts: dict[str, str] | None = None


def encode(rows: Sequence[Row], data: TextData, tokenizer: Any, max_length: int) -> Split:
    """Rows as padded token tensors (N, T)."""
    texts = [[str(row[column]) for row in rows] for column in data.columns]
    tokens = tokenizer(
        *texts, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
    )
    kind = torch.float32 if data.labels == 1 else torch.int64
    labels = torch.tensor([row["label"] for row in rows], dtype=kind)  # (N,)
    return Split({**tokens, "labels": labels}, lengths=tokens["attention_mask"].sum(1))


TASK_TYPE = "SEQ_CLS"


class TextTask(Task):
    """A text task on a base: the ``Task`` of :mod:`experiments.tasks.base`."""

    task_type = TASK_TYPE

    def __init__(self, data: TextData, base: str, max_length: int) -> None:
        located = bases.locate(base)
        self._data = data
        self._model = bases.load_model(located, data.labels)
        self.heads = bases.heads_of(self._model)
        self._additive = bases.takes_additive_mask(self._model)
        tokenizer = bases.load_tokenizer(located)
        self.train = encode(data.train, data, tokenizer, max_length)
        self.dev = encode(data.dev, data, tokenizer, max_length)
        self._halves = halves(data)
        self.primary = data.metrics[0]
        self.train_size = len(self.train)
        self.provenance = {
            "base": {
                "name": located.name,
                "origin": located.origin,
                "sha256": bases.fingerprint(self._model, self.heads),
            },
            "data": {
                "source": data.source,
                "train": len(data.train),
                "dev": len(data.dev),
                "sha256": fingerprint([*data.train, *data.dev]),
            },
        }

    def model(self) -> nn.Module:
        """A fresh copy of the base."""
        return copy.deepcopy(self._model)

    def reset_heads(self, model: nn.Module, seed: int) -> None:
        """Draw the heads anew by the base's own rule, from ``seed`` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for head in self.heads:
                for module in model.get_submodule(head).modules():
                    _draw(module, model.config.initializer_range)  # type: ignore[union-attr]

    def loss(
        self, model: nn.Module, batch: Batch, lanes: int, draws: LaneNoise | None = None
    ) -> Tensor:
        """Cross-entropy, or squared error for regression: the mean of each lane, (L,)."""
        logits, labels = self._logits(model, batch), batch["labels"]
        if self._data.labels == 1:
            losses = F.mse_loss(logits.squeeze(-1), labels, reduction="none")
        else:
            losses = F.cross_entropy(logits, labels, reduction="none")
        return losses.view(lanes, -1).mean(1)

    def predict(self, model: nn.Module, batch: Batch, lanes: int) -> Tensor:
        """Classes, or numbers for regression, (L, B)."""
        logits = self._logits(model, batch)
        best = logits.squeeze(-1) if self._data.labels == 1 else logits.argmax(-1).float()
        return best.view(lanes, -1)

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """(M, classes) fp32."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        mask = inputs["attention_mask"]
        if self._additive and mask.device.type not in READ_ON_HOST:
            inputs["attention_mask"] = bases.additive_mask(mask)
        return model(**inputs).logits.float()

    def scores(self, predictions: Tensor) -> Scores:
        """Scores on both halves of the dev set and on all of it, from predictions (N,)."""
        said, labels = predictions.numpy(), self.dev.tensors["labels"].numpy()
        return {reading: self._metrics(said, labels, self._halves[reading]) for reading in READINGS}

    def _metrics(
        self, predictions: np.ndarray, labels: np.ndarray, rows: np.ndarray
    ) -> dict[str, float]:
        parts = np.array([row.get("part", "") for row in self._data.dev])
        scores = {}
        for part, suffix in (self._data.parts or {"": ""}).items():
            chosen = rows[parts[rows] == part]
            for name in self._data.metrics:
                value = METRICS[name](predictions[chosen], labels[chosen])
                scores[f"{name}{suffix}"] = value
        return scores


def family(rows: Callable[[Trial, str | None], TextData], labels: Callable[[str], int]) -> Family:
    """A family of text tasks.

    Args:
        rows: a trial's rows, with the folder of data.
        labels: number of classes of a task, by the name within the family.
    """

    def load(trial: Trial, data: str | None) -> Task:
        limit = limited(rows(trial, data), trial.train_size)
        return TextTask(limit, trial.base, trial.max_length)

    def skeleton(trial: Trial) -> nn.Module:
        return bases.skeleton(trial.base, labels(trial.task.partition("/")[2]))

    return Family(load, skeleton, bases.heads_of, task_type=TASK_TYPE)


def halves(data: TextData) -> dict[str, np.ndarray]:
    """Row numbers of each reading of the dev set.

    The rows in the order of a hash of their text: the first half selects, the second is reported.
    So the split depends on the rows alone, and equal texts never stand on both sides by chance of
    their position.
    """
    order = sorted(range(len(data.dev)), key=lambda i: _text_hash(data.dev[i], data.columns))
    middle = len(order) // 2
    selection, report = order[:middle], order[middle:]
    readings = {"selection": selection, "report": report, "full": [*selection, *report]}
    return {name: np.array(sorted(rows), dtype=int) for name, rows in readings.items()}


def fingerprint(rows: Sequence[Row]) -> str:
    """16 hex digits of SHA-256 over the rows."""
    text = json.dumps(list(rows), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def limited(data: TextData, size: int | None) -> TextData:
    """The same task with the first ``size`` training rows of a fixed shuffle; None keeps all.

    Raises:
        BenchError: there are fewer rows.
    """
    if size is None or size == len(data.train):
        return data
    if size > len(data.train):
        raise BenchError(f"train_size={size}: there are {len(data.train)} training rows")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    return replace(data, train=[data.train[i] for i in order[:size].tolist()])


def _text_hash(row: Row, columns: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(str(row[c]) for c in columns).encode()).hexdigest()


def _draw(module: nn.Module, deviation: float) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
