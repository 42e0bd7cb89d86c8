"""Captions as a pipeline's U-Net reads them: states of one text encoder or, in XL, of two.

Stable Diffusion 1.x and 2.x take the last states; XL takes those before the last layer of both
encoders side by side, and the second one's pooled state (Podell et al. 2023, arXiv 2307.01952).
Encoders that stay frozen read all captions of a task once; trained ones read them in every step,
each caption once a lane, however many rows have it.

Legend: C captions; L lanes; B rows a lane; M rows; T tokens; d and p width of the
states and of the pooled state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.errors import BenchError
from experiments.tasks.dreambooth.pipeline import Denoiser, Pipeline, on_device
from experiments.tasks.dreambooth.resident import Resident


@dataclass(frozen=True)
class Condition:
    """What the U-Net is told: ``states`` (M, T, d) and, in XL, ``pooled`` (M, p)."""

    states: Tensor
    pooled: Tensor | None = None

    def rows(self, which: Tensor | slice) -> Condition:
        """Those of some rows; a tensor of numbers is on the same device."""
        pooled = None if self.pooled is None else self.pooled[which]
        return Condition(self.states[which], pooled)

    def to(self, device: torch.device) -> Condition:
        """On another device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return Condition(self.states.to(device), pooled)


@dataclass(frozen=True)
class Texts:
    """Captions that were read.

    Args:
        condition: C rows, the same for all lanes, or L·C, lane-major.
        lanes: L, or 1 where they are the same for all.
    """

    condition: Condition
    lanes: int

    def rows(self, which: Tensor) -> Condition:
        """The condition of each row of a batch, from numbers of captions, (L, B) -> L·B rows."""
        if self.lanes == 1:
            return self.condition.rows(which.flatten())
        each = len(self.condition.states) // self.lanes
        first = torch.arange(self.lanes, device=which.device).unsqueeze(1) * each
        return self.condition.rows((first + which).flatten())


class Reader:
    """Reads the captions of a task.

    Args:
        pipeline: has the encoders.
        captions: all that will ever be read.
        trained: whether a model brings encoders of its own.

    Raises:
        BenchError: a caption is too long.
    """

    def __init__(self, pipeline: Pipeline, captions: Sequence[str], trained: bool) -> None:
        self.trained = trained
        self._empty = list(captions).index("") if pipeline.layout.empty_is_zero else None
        self._pipeline = pipeline
        self._count = len(captions)
        self._tokens = [Resident(ids) for ids in tokenize(pipeline.tokenizers, captions)]
        self._frozen: Resident[Condition] | None = None

    def read(self, model: Denoiser, captions: slice, lanes: int) -> Texts:
        """Some captions, a range of those that are known, as the lanes of a model read them."""
        device = next(model.parameters()).device
        if self.trained:
            return Texts(self._encode(model.encoders, captions, lanes, device), lanes)
        if self._frozen is None:
            self._frozen = Resident(self._read_all(device))
        return Texts(self._frozen.on(device).rows(captions), 1)

    @torch.no_grad()
    def _read_all(self, device: torch.device) -> Condition:
        """All captions by the frozen encoders, in fp32 whatever holds outside."""
        encoders = list(self._pipeline.encoders.values())
        with on_device(device, *encoders), torch.autocast(device.type, enabled=False):
            return self._encode(encoders, slice(None), 1, device)

    def _encode(
        self, encoders: Sequence[nn.Module], captions: slice, lanes: int, device: torch.device
    ) -> Condition:
        tokens = [ids.on(device)[captions].repeat(lanes, 1) for ids in self._tokens]
        found = encode(encoders, tokens)
        start, stop, _ = captions.indices(self._count)
        if self._empty is not None and start <= self._empty < stop:
            return _silenced(found, self._empty - start, lanes)
        return found


def tokenize(tokenizers: Sequence[Any], captions: Sequence[str]) -> tuple[Tensor, ...]:
    """Token numbers for each tokenizer, (C, T) int64 each, padded to its longest.

    Raises:
        BenchError: a caption is too long: it would lose its end.
    """
    return tuple(_tokens(tokenizer, captions) for tokenizer in tokenizers)


def encode(encoders: Sequence[nn.Module], tokens: Sequence[Tensor]) -> Condition:
    """States of captions from a pipeline's text encoders, which may be adapted.

    Args:
        encoders: one, or XL's two.
        tokens: for each encoder, (M, T), on its device.
    """
    if len(encoders) == 1:
        return Condition(encoders[0](tokens[0])[0])
    outputs = [
        encoder(ids, output_hidden_states=True)
        for encoder, ids in zip(encoders, tokens, strict=True)
    ]
    states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return Condition(states, outputs[1][0])


def _silenced(condition: Condition, caption: int, lanes: int) -> Condition:
    """Zeros for one caption of each lane."""
    each = len(condition.states) // lanes
    kept = torch.arange(len(condition.states), device=condition.states.device) % each != caption
    pooled = None if condition.pooled is None else condition.pooled * kept[:, None]
    return Condition(condition.states * kept[:, None, None], pooled)


def _tokens(tokenizer: Any, captions: Sequence[str]) -> Tensor:
    most = tokenizer.model_max_length
    for caption in captions:
        count = len(tokenizer(caption, truncation=False, verbose=False)["input_ids"])
        if count > most:
            raise BenchError(
                f"caption {caption!r} is {count} tokens long, the text encoder reads {most}; "
                "shorten the class word or the token"
            )
    padded = tokenizer(list(captions), padding="max_length", max_length=most, return_tensors="pt")
    return padded["input_ids"]
