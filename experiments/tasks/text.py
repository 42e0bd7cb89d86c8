"""Classification and regression of one or two sentences: what GLUE and ``sentences`` share.

Legend: L lanes; B rows a lane; T tokens; N rows of a split.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import bases
from experiments.errors import BenchError
from experiments.tasks.base import READINGS, Scores
from experiments.tasks.metrics import METRICS

Row = dict[str, Any]
EVALUATION_ROWS = {"cpu": 256, "cuda": 4096}
"""Rows, of all lanes together, that one forward pass of an evaluation sees."""


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


class Encoded:
    """Rows as padded token tensors on one device, gathered without synchronizing with it."""

    def __init__(
        self, rows: Sequence[Row], data: TextData, tokenizer: Any, max_length: int
    ) -> None:
        texts = [[str(row[column]) for row in rows] for column in data.columns]
        tokens = tokenizer(
            *texts, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )
        self.lengths: Tensor = tokens["attention_mask"].sum(1)  # (N,) on the CPU
        kind = torch.float32 if data.labels == 1 else torch.int64
        self.labels = torch.tensor([row["label"] for row in rows], dtype=kind)  # (N,)
        self.tensors: dict[str, Tensor] = {**tokens, "labels": self.labels}  # (N, T)

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, rows: Tensor, device: torch.device) -> dict[str, Tensor]:
        """The rows (M,) cut to the longest of them: (M, T') each, on ``device``."""
        longest = int(self.lengths[rows].max())
        self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        rows = rows.to(device, non_blocking=True)
        batch = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return {n: t[:, :longest] if t.dim() == 2 else t for n, t in batch.items()}


class TextTask:
    """A text task on a base: the ``Task`` of :mod:`experiments.tasks.base`."""

    def __init__(self, data: TextData, base: str, max_length: int) -> None:
        located = bases.locate(base)
        self._data = data
        self._model = bases.load_model(located, data.labels)
        self.heads = bases.heads_of(self._model)
        tokenizer = bases.load_tokenizer(located)
        self._train = Encoded(data.train, data, tokenizer, max_length)
        self._dev = Encoded(data.dev, data, tokenizer, max_length)
        self._halves = halves(data)
        self.primary = data.metrics[0]
        self.train_size = len(self._train)
        self.provenance = {
            "base": {
                "name": located.name,
                "origin": located.origin,
                "sha256": bases.fingerprint(self._model),
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

    def batch(self, rows: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Training rows (L, B) -> tensors (L·B, T), lane-major."""
        return self._train.gather(rows.flatten(), device)

    def loss(self, model: nn.Module, batch: dict[str, Tensor], lanes: int) -> Tensor:
        """Cross-entropy, or squared error for regression: the mean of each lane, (L,)."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs).logits.float()  # (L·B, classes)
        labels = batch["labels"]
        if self._data.labels == 1:
            losses = F.mse_loss(logits.squeeze(-1), labels, reduction="none")
        else:
            losses = F.cross_entropy(logits, labels, reduction="none")
        return losses.view(lanes, -1).mean(1)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, lanes: int, device: torch.device) -> list[Scores]:
        """Scores of each lane on both halves of the dev set and on all of it."""
        predictions = self._predict(model, lanes, device)  # (L, N)
        return [self._scores(lane) for lane in predictions]

    def _predict(self, model: nn.Module, lanes: int, device: torch.device) -> np.ndarray:
        """Classes, or numbers for regression, (L, N); every lane sees every row."""
        predictions = torch.empty(lanes, len(self._dev), device=device)
        by_length = self._dev.lengths.argsort(stable=True)  # little padding
        for rows in by_length.split(max(1, EVALUATION_ROWS[device.type] // lanes)):
            batch = self._dev.gather(rows, device)
            inputs = {n: t.repeat(lanes, 1) for n, t in batch.items() if n != "labels"}
            logits = model(**inputs).logits.float().view(lanes, len(rows), -1)
            best = logits.squeeze(-1) if self._data.labels == 1 else logits.argmax(-1).float()
            predictions[:, rows.to(device)] = best
        return predictions.cpu().numpy()

    def _scores(self, predictions: np.ndarray) -> Scores:
        labels = self._dev.labels.numpy()
        return {
            reading: self._metrics(predictions, labels, self._halves[reading])
            for reading in READINGS
        }

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
