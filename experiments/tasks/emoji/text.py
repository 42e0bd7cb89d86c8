"""Captions as the states of a frozen MiniLM: what the U-Net is told.

The token states are the encoder's last layer, times ``STATE_SCALE``; padding is zero. The pooled
state is their mean over the tokens, as sentence-transformers takes it for this model, of length
``sqrt(W)``. Both scales bring a number's spread to about one. The empty caption says nothing: all
its numbers are zero, and that is what a dropped caption is in training and in guidance.

Legend: N captions; T = 20 tokens, [CLS] and [SEP] among them; W = 384 wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments import bases
from experiments.errors import BenchError

TOKENS = 20
WIDTH = 384
STATE_SCALE = 2.0
CHUNK = 256  # captions through the encoder at once


@dataclass(frozen=True)
class TextStates:
    """Captions encoded.

    Args:
        states: (N, T, W), zero at padding.
        pooled: (N, W).
    """

    states: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, rows: Any) -> TextStates:
        """The captions at ``rows``: a tensor of row numbers, or a slice."""
        return TextStates(self.states[rows], self.pooled[rows])

    def to(self, *where: Any) -> TextStates:
        """The same on another device or in another dtype."""
        return TextStates(self.states.to(*where), self.pooled.to(*where))


EMPTY = TextStates(torch.zeros(1, TOKENS, WIDTH), torch.zeros(1, WIDTH))
"""The empty caption, one row."""


def encode(captions: Sequence[str], device: str | torch.device = "cpu") -> TextStates:
    """Captions as states, fp32, on ``device``; each distinct caption is encoded once.

    Args:
        captions: N texts; the empty one gives zeros.
        device: where the encoder runs and the states stay.

    Raises:
        BenchError: a caption is longer than ``TOKENS``, or MiniLM is not installed.
    """
    distinct = sorted(set(captions) - {""}, key=lambda caption: (len(caption), caption))
    known = _encode_distinct(distinct, torch.device(device))
    number = {caption: i for i, caption in enumerate([*distinct, ""])}
    rows = torch.tensor([number[caption] for caption in captions], dtype=torch.int64)
    return known[rows.to(device)]


def _encode_distinct(captions: list[str], device: torch.device) -> TextStates:
    """The captions in their order, then the empty one."""
    empty = EMPTY.to(device)
    if not captions:
        return empty
    base = bases.locate(bases.PACKAGED)
    tokenizer = bases.load_tokenizer(base)
    check_lengths(captions, tokenizer)
    encoder = _encoder(base.location).to(device)
    chunks = [captions[i : i + CHUNK] for i in range(0, len(captions), CHUNK)]
    parts = [_encode_chunk(chunk, tokenizer, encoder) for chunk in chunks] + [empty]
    return TextStates(torch.cat([p.states for p in parts]), torch.cat([p.pooled for p in parts]))


def check_lengths(captions: Sequence[str], tokenizer: Any) -> None:
    """Refuse captions of more than ``TOKENS`` tokens.

    Raises:
        BenchError: names the first such caption.
    """
    for caption, tokens in zip(captions, tokenizer(list(captions))["input_ids"], strict=True):
        if len(tokens) > TOKENS:
            raise BenchError(
                f"caption {caption!r}: {len(tokens)} tokens, at most {TOKENS} are allowed"
            )


@torch.no_grad()
def _encode_chunk(captions: list[str], tokenizer: Any, encoder: Any) -> TextStates:
    tokens = tokenizer(captions, padding=True, return_tensors="pt").to(encoder.device)
    kept = tokens["attention_mask"][..., None]  # (n, t, 1), t tokens of the longest
    states = encoder(**tokens).last_hidden_state * kept  # (n, t, W)
    pooled = F.normalize(states.sum(1), dim=-1) * WIDTH**0.5
    return TextStates(F.pad(states * STATE_SCALE, (0, 0, 0, TOKENS - kept.shape[1])), pooled)


def _encoder(location: str) -> Any:
    """The frozen encoder, fp32, on the CPU."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    options = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    return AutoModel.from_pretrained(location, dtype=torch.float32, **options).eval()
