"""Stable Diffusion pipelines: what one has, whether it fits together, and its parts loaded.

    model_index.json -> components and their configs -> check -> weights (safetensors only)

A pipeline is a hub id or a folder in diffusers' layout. Its classes come from diffusers and
transformers; no code of a repository is run.

Legend: R side of a picture in pixels; T tokens; d width of the text states.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments import bases
from experiments.bases import Base
from experiments.errors import BenchError

ENCODERS = ("text_encoder", "text_encoder_2")
"""Stable Diffusion XL has both."""
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
"""Component -> the classes that it may have."""
PREDICTIONS = ("epsilon", "v_prediction")
KINDS = "Stable Diffusion 1.x, 2.x or XL"
_XL_NUMBERS = 6  # height and width of the original, of the cut's corner and of the target


@dataclass(frozen=True)
class Layout:
    """What a pipeline is made of, from its configs alone.

    Args:
        base: where it is.
        encoders: names of its text encoders.
        unet, vae, scheduler: their configs.
        texts: config of each text encoder.
        empty_is_zero: whether no prompt at all is states of zeros, not the states of "" (XL).
    """

    base: Base
    encoders: tuple[str, ...]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    texts: Mapping[str, Any]
    empty_is_zero: bool

    @property
    def is_xl(self) -> bool:
        return len(self.encoders) > 1

    @property
    def shrink(self) -> int:
        """Pixels a side of one latent."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    def side(self, resolution: int | None) -> int:
        """R: what the user asks for, or what the pipeline was made for.

        Raises:
            BenchError: the U-Net cannot halve it so often, or does not say its own.
        """
        if resolution is None and not isinstance(self.unet.get("sample_size"), int):
            raise BenchError(f"resolution=none: base {self.base.name!r} does not say its own")
        side = resolution or self.unet["sample_size"] * self.shrink
        step = self.shrink * 2 ** (len(self.unet["block_out_channels"]) - 1)
        if side % step:
            raise BenchError(
                f"resolution={side}: expected a multiple of {step} for base {self.base.name!r}"
            )
        return side


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's parts, fp32, on the CPU, in evaluation mode and frozen."""

    layout: Layout
    unet: nn.Module
    vae: Any
    encoders: Mapping[str, nn.Module]
    tokenizers: tuple[Any, ...]
    digest: str
    """16 hex digits over the weights."""

    def denoiser(self, text: bool) -> Denoiser:
        """A fresh copy of what is adapted, none of it frozen."""
        return copy.deepcopy(self.shared_denoiser(text)).requires_grad_(True)

    def shared_denoiser(self, text: bool) -> Denoiser:
        """The same without a copy: to be looked through, not changed."""
        return Denoiser(self.unet, self.encoders if text else {})


class Denoiser(nn.Module):
    """The parts of a pipeline that may be trained: ``unet`` and, if wanted, the text encoders."""

    unet: nn.Module

    def __init__(self, unet: nn.Module, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.unet = unet
        for name, encoder in encoders.items():
            self.add_module(name, encoder)

    @property
    def encoders(self) -> list[nn.Module]:
        """The text encoders, adapted or not; none if they are not trained."""
        return [self.get_submodule(name) for name in ENCODERS if hasattr(self, name)]


def encoders_of(base: str) -> tuple[str, ...]:
    """Names of a pipeline's text encoders."""
    return layout(base).encoders


@lru_cache(maxsize=8)
def layout(name: str) -> Layout:
    """What the pipeline has, checked: nothing is loaded but its configs.

    Raises:
        BenchError: it cannot be had, lacks a component, has one that is not Stable Diffusion's, or
            they do not fit together.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig

    base = bases.locate(name)
    if base.origin == "packaged":
        raise BenchError(f"base {name!r} encodes text; expected a pipeline of {KINDS}")
    index = _index(base)
    encoders = _components(base, index)
    found = Layout(
        base=base,
        encoders=encoders,
        unet=_fetch(base, UNet2DConditionModel.load_config, "unet"),
        vae=_fetch(base, AutoencoderKL.load_config, "vae"),
        scheduler=_fetch(base, DDPMScheduler.load_config, "scheduler"),
        texts={name: _fetch(base, CLIPTextConfig.from_pretrained, name) for name in encoders},
        empty_is_zero=len(encoders) > 1 and index.get("force_zeros_for_empty_prompt", True),
    )
    _check_widths(found)
    return found


@lru_cache(maxsize=1)
def load(name: str) -> Pipeline:
    """The pipeline with its weights.

    Raises:
        BenchError: see :func:`layout`; or a component has no safetensors.
    """
    import diffusers
    import transformers

    found = layout(name)
    _hush()
    unet = _weights(found.base, diffusers.UNet2DConditionModel, "unet")
    vae = _weights(found.base, diffusers.AutoencoderKL, "vae")
    encoders = {
        part: _weights(found.base, getattr(transformers, CLASSES[part][0]), part)
        for part in found.encoders
    }
    tokenizers = tuple(
        _fetch(found.base, transformers.CLIPTokenizer.from_pretrained, part)
        for part in ("tokenizer", "tokenizer_2")[: len(encoders)]
    )
    digest = _digest({"unet": unet, "vae": vae, **encoders})
    return Pipeline(found, unet, vae, encoders, tokenizers, digest)


@lru_cache(maxsize=4)
def skeleton(name: str, text: bool) -> Denoiser:
    """What :meth:`Pipeline.denoiser` gives, on the meta device: shapes without weights."""
    import diffusers
    import transformers

    found = layout(name)
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(dict(found.unet))
        encoders = {
            part: getattr(transformers, CLASSES[part][0])(found.texts[part])
            for part in (found.encoders if text else ())
        }
    return Denoiser(unet, encoders)


@contextmanager
def on_device(device: torch.device, *models: nn.Module) -> Iterator[None]:
    """Models that are needed for a moment; they go back to the CPU."""
    for model in models:
        model.to(device)
    try:
        yield
    finally:
        for model in models:
            model.cpu()


def _index(base: Base) -> dict[str, Any]:
    if base.origin == "folder":
        path = Path(base.location) / "model_index.json"
        if not path.is_file():
            raise BenchError(
                f"base {base.name!r}: {base.location} has no model_index.json; expected a pipeline "
                f"of {KINDS} in diffusers' layout"
            )
    else:
        from huggingface_hub import hf_hub_download

        path = _explained(base, lambda: hf_hub_download(base.location, "model_index.json"))
    return _explained(base, lambda: json.loads(Path(path).read_text("utf-8")))


def _components(base: Base, index: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the text encoders; every other component is there too, and is what we know."""
    if not _class_name(index, "text_encoder"):
        raise BenchError(
            f"base {base.name!r} has no text encoder (text_encoder in model_index.json); expected "
            f"a text-to-image pipeline of {KINDS}"
        )
    both = _class_name(index, "text_encoder_2") is not None
    wanted = [name for name in CLASSES if both or not name.endswith("_2")]
    for name in wanted:
        if _class_name(index, name) not in CLASSES[name]:
            raise BenchError(
                f"base {base.name!r}: its {name} is {_class_name(index, name) or 'missing'}, "
                f"expected {' or '.join(CLASSES[name])} of {KINDS}"
            )
    return ENCODERS if both else ENCODERS[:1]


def _class_name(index: Mapping[str, Any], component: str) -> str | None:
    entry = index.get(component)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _check_widths(found: Layout) -> None:
    """The U-Net takes the VAE's latents and the encoders' states, and predicts what we know."""
    unet, channels = found.unet, found.vae["latent_channels"]
    takes, gives = unet["in_channels"], unet["out_channels"]
    if (takes, gives) != (channels, channels):
        raise BenchError(
            f"base {found.base.name!r}: its U-Net takes {takes} channels and gives {gives}, its "
            f"VAE has {channels}; expected the same (a pipeline for inpainting or editing?)"
        )
    width = sum(text.hidden_size for text in found.texts.values())
    if unet["cross_attention_dim"] != width:
        raise BenchError(
            f"base {found.base.name!r}: its U-Net takes text states {unet['cross_attention_dim']} "
            f"wide, its text encoders give {width}"
        )
    if found.is_xl:
        _check_xl(found)
    prediction = found.scheduler.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise BenchError(
            f"base {found.base.name!r}: its scheduler's prediction_type is {prediction!r}, "
            f"expected {' or '.join(PREDICTIONS)}"
        )


def _check_xl(found: Layout) -> None:
    takes = found.unet.get("projection_class_embeddings_input_dim")
    numbers = _XL_NUMBERS * (found.unet.get("addition_time_embed_dim") or 0)
    gives = numbers + found.texts["text_encoder_2"].projection_dim
    if takes != gives:
        raise BenchError(
            f"base {found.base.name!r}: its U-Net takes {takes} numbers of size and pooled text, "
            f"its second text encoder and the sizes give {gives}"
        )


def _hush() -> None:
    """Bars and reports of loading, which say nothing of what was asked for."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _weights(base: Base, kind: Any, part: str) -> Any:
    """A component's model, fp32.

    Raises:
        BenchError: it cannot be had, or would be filled up with random numbers.
    """
    options = {"use_safetensors": True, "output_loading_info": True}
    model, report = _fetch(base, kind.from_pretrained, part, **options)
    if missing := sorted(report["missing_keys"]):
        listed = f"{', '.join(missing[:3])} ({len(missing)})"
        raise BenchError(f"base {base.name!r}, {part}: its weights lack {listed}")
    return model.float().eval().requires_grad_(False)


def _fetch(base: Base, loader: Callable[..., Any], part: str, **options: Any) -> Any:
    local = base.origin == "folder"
    return _explained(
        base,
        lambda: loader(base.location, subfolder=part, local_files_only=local, **options),
        f", {part},",
    )


def _explained(base: Base, get: Callable[[], Any], what: str = "") -> Any:
    """Whatever a loader raises, in one line."""
    from safetensors import SafetensorError

    try:
        return get()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = base.location if base.origin == "folder" else "the hub; it is no folder here"
        raise BenchError(
            f"base {base.name!r}{what} could not be had from {where} ({reason}); expected a "
            f"pipeline of {KINDS} with safetensors"
        ) from error


def _digest(parts: Mapping[str, nn.Module]) -> str:
    digest = hashlib.sha256()
    for part, model in sorted(parts.items()):
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{part}.{name}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
