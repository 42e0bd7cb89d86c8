"""What samples of an adapted pipeline are worth, by models that never saw them.

    dino      is it the subject? cosine of DINO features, samples against photos, mean of all pairs
    clip_i    the same with CLIP's image features
    clip_t    is it what the prompt says? cosine of CLIP's features of a sample and of its prompt
    vendi     are the samples different? Vendi score of their DINO features, else of CLIP's

Sources: Ruiz et al. 2023 (DreamBooth, arXiv 2208.12242) for the first three, with ViT-S/16 DINO;
Friedman and Dieng 2022 (arXiv 2210.02410) for the last.

The models come from the hub or from a folder; ``LOKR_DINO`` and ``LOKR_CLIP`` name others, or
``none``: what needs the model is then null.

Legend: N pictures; P photos; R side in pixels; d width of features.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.errors import BenchError
from experiments.tasks.emoji.metrics import vendi

DEFAULTS = {"LOKR_DINO": "facebook/dino-vits16", "LOKR_CLIP": "openai/clip-vit-base-patch32"}
NONE = "none"
Scores = dict[str, float | None]
"""Metric -> value, None where its model was not wanted."""
AT_A_TIME = 64
"""Pictures that a model sees at a time."""
# As the models were trained: mean and deviation of a channel.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Judges:
    """The models, None where the user chose none.

    Args:
        dino: a ViT.
        clip: a CLIP.
        tokenizer: CLIP's.
        names: variable -> the model that it names, or ``none``.
    """

    dino: Any | None
    clip: Any | None
    tokenizer: Any | None
    names: dict[str, str]

    @property
    def models(self) -> list[Any]:
        """Those that there are; they must be on the device that they are asked on."""
        return [model for model in (self.dino, self.clip) if model is not None]

    def look(self, pictures: Tensor, device: torch.device) -> Seen:
        """Features of pictures (N, 3, R, R) uint8."""
        return Seen(
            dino=_features(self.dino, _dino, pictures, device),
            clip=_features(self.clip, _clip, pictures, device),
        )

    def read(self, prompts: Sequence[str], device: torch.device) -> Tensor | None:
        """CLIP's features of prompts, (N, d) of length 1; None without CLIP."""
        if self.clip is None or self.tokenizer is None:
            return None
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        with _in_full(device):
            pooled = self.clip.text_model(**tokens.to(device)).pooler_output
            return F.normalize(self.clip.text_projection(pooled), dim=-1)


@dataclass(frozen=True)
class Seen:
    """Features of pictures, (N, d) of length 1 each; None without the model."""

    dino: Tensor | None
    clip: Tensor | None

    def __getitem__(self, rows: slice) -> Seen:
        return Seen(*(None if x is None else x[rows] for x in (self.dino, self.clip)))


def judges() -> Judges:
    """The models that the variables name.

    Raises:
        BenchError: one cannot be had; says what to set.
    """
    names = {variable: os.environ.get(variable, usual) for variable, usual in DEFAULTS.items()}
    dino = _load("LOKR_DINO", names["LOKR_DINO"], "AutoModel")
    clip = _load("LOKR_CLIP", names["LOKR_CLIP"], "CLIPModel")
    tokenizer = _load("LOKR_CLIP", names["LOKR_CLIP"], "AutoTokenizer")
    return Judges(dino, clip, tokenizer, names)


def fidelity(samples: Seen, photos: Seen, prompts: Tensor | None) -> Scores:
    """``dino``, ``clip_i``, ``clip_t`` and ``vendi`` of samples, each with its own prompt.

    Args:
        samples: of N samples.
        photos: of P photos of the subject.
        prompts: (N, d), what :meth:`Judges.read` says of each sample's prompt.
    """
    features = samples.clip if samples.dino is None else samples.dino
    return {
        "dino": _between(samples.dino, photos.dino),
        "clip_i": _between(samples.clip, photos.clip),
        "clip_t": _matching(samples.clip, prompts),
        "vendi": None if features is None else vendi(features),
    }


def ceiling(photos: Seen) -> Scores:
    """``dino_photos`` and ``clip_i_photos``: the photos against each other, none against itself."""
    return {"dino_photos": _within(photos.dino), "clip_i_photos": _within(photos.clip)}


def _between(a: Tensor | None, b: Tensor | None) -> float | None:
    return None if a is None or b is None else float((a @ b.mT).mean())


def _matching(a: Tensor | None, b: Tensor | None) -> float | None:
    return None if a is None or b is None else float((a * b).sum(-1).mean())


def _within(a: Tensor | None) -> float | None:
    if a is None:
        return None
    count = len(a)
    return float(((a @ a.mT).sum() - count) / (count * (count - 1)))


def _features(
    model: Any | None,
    look: Callable[[Any, Tensor], Tensor],
    pictures: Tensor,
    device: torch.device,
) -> Tensor | None:
    if model is None:
        return None
    with _in_full(device):
        found = [look(model, chunk.to(device)) for chunk in pictures.split(AT_A_TIME)]
    return F.normalize(torch.cat(found).float(), dim=-1)


def _dino(model: Any, pictures: Tensor) -> Tensor:
    """The class token."""
    x = _prepared(pictures, model.config.image_size, _IMAGENET)
    return model(pixel_values=x).last_hidden_state[:, 0]


def _clip(model: Any, pictures: Tensor) -> Tensor:
    x = _prepared(pictures, model.config.vision_config.image_size, _CLIP)
    return model.visual_projection(model.vision_model(pixel_values=x).pooler_output)


def _prepared(
    pictures: Tensor, side: int, scale: tuple[Sequence[float], Sequence[float]]
) -> Tensor:
    x = F.interpolate(pictures.float(), (side, side), mode="bicubic", antialias=True)
    mean, deviation = (torch.tensor(values, device=x.device)[:, None, None] for values in scale)
    return (x.clamp(0, 255) / 255 - mean) / deviation


@contextmanager
def _in_full(device: torch.device) -> Iterator[None]:
    """fp32 without gradients, whatever holds outside."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _load(variable: str, name: str, kind: str) -> Any | None:
    if name == NONE:
        return None
    import transformers

    options: dict[str, Any] = {"local_files_only": Path(name).is_dir()}
    if kind != "AutoTokenizer":
        options |= {"use_safetensors": True, "dtype": torch.float32}
    try:
        loaded = getattr(transformers, kind).from_pretrained(
            name, trust_remote_code=False, **options
        )
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BenchError(
            f"{variable}={name}: could not be had ({reason}); set {variable} to a hub id or a "
            f"folder, or to {NONE} to do without the metrics that need it, or run with "
            "--set samples=0"
        ) from error
    return loaded if kind == "AutoTokenizer" else loaded.eval().requires_grad_(False)
