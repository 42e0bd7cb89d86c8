"""The base of the emoji task: a text-conditional U-Net of 8.29 million parameters.

diffusers' ``UNet2DConditionModel`` on pixels: each 2x2 block of a 64x64 picture is one position of
12 channels, so the U-Net works at 32x32, and attention at 16x16 and 8x8. It reads a caption's token
states by cross-attention, and its pooled state beside the timestep (:mod:`.text`).

Legend: N pictures; M rows of a batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.errors import BenchError
from experiments.tasks.emoji.text import WIDTH

PACKAGED = "emoji"
FOLDER = Path(__file__).parent / "base"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"  # diffusers' own name
PIXELS = 64
BLOCK = 2  # pixels a side of what becomes one position
CHANNELS = 3 * BLOCK * BLOCK
SIDE = PIXELS // BLOCK
LATENT = (CHANNELS, SIDE, SIDE)
"""A picture as the U-Net sees it."""
CONFIG: dict[str, Any] = {
    "sample_size": SIDE,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "block_out_channels": [96, 128, 128],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,  # diffusers takes it for the number of heads
    "norm_num_groups": 32,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": WIDTH,
}
# What the task's pictures and captions ask of a base; the rest is the base's own affair.
REQUIRED = (
    "in_channels",
    "out_channels",
    "cross_attention_dim",
    "class_embed_type",
    "projection_class_embeddings_input_dim",
)


def build(config: dict[str, Any] | None = None) -> Any:
    """An untrained U-Net, fp32, drawn from torch's global generator.

    Args:
        config: options of ``UNet2DConditionModel``; ``CONFIG`` without it.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(CONFIG if config is None else config)


def skeleton(name: str = PACKAGED) -> Any:
    """The base on the meta device: shapes without weights."""
    config = CONFIG if name == PACKAGED else read_config(name)
    with torch.device("meta"):
        return build(config)


def load(name: str = PACKAGED) -> Any:
    """A trained base, fp32, in eval mode, on the CPU.

    Args:
        name: ``"emoji"``, the packaged one, or a folder with ``config.json`` and
            ``diffusion_pytorch_model.safetensors``, as diffusers saves a U-Net.

    Raises:
        BenchError: nothing is there, or it does not fit the pictures or the captions.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    model, file = build(read_config(name)), _folder(name) / WEIGHTS_FILE
    try:
        model.load_state_dict({key: part.float() for key, part in load_file(file).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BenchError(f"base {name!r}: {file.name} cannot be loaded: {reason}") from error
    return model.eval()


def read_config(name: str) -> dict[str, Any]:
    """The config of a base on disk, checked against what the task needs.

    Raises:
        BenchError: it is missing, unreadable, or of other channels.
    """
    file = _folder(name) / CONFIG_FILE
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(
            f"base {name!r}: {file} cannot be read ({error}); give {PACKAGED!r}, or the folder of "
            f"a U-Net with {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from error
    for field in REQUIRED:
        if config.get(field) != CONFIG[field]:
            raise BenchError(
                f"base {name!r}: {field}={config.get(field)!r} in {CONFIG_FILE}, emoji need "
                f"{CONFIG[field]!r}"
            )
    return config


def save(model: Any, folder: Path) -> Path:
    """Write config and fp16 weights, as diffusers reads them; the file of the weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "UNet2DConditionModel"}
    config |= {k: v for k, v in model.config.items() if not k.startswith("_")}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    state = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return folder / WEIGHTS_FILE


def layout(device: torch.device) -> torch.memory_format:
    """How a base and its pictures lie in memory, for speed alone."""
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


def to_latents(images: Tensor) -> Tensor:
    """Pictures (N, 3, 64, 64) uint8 as the U-Net sees them: (N, 12, 32, 32) fp32 in [-1, 1]."""
    return F.pixel_unshuffle(images.float() / 127.5 - 1, BLOCK)


def to_images(latents: Tensor) -> Tensor:
    """The inverse of :func:`to_latents`; what is beyond black and white is cut off."""
    pixels = F.pixel_shuffle(latents.float(), BLOCK)
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def predict(model: Any, x: Tensor, t: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
    """The U-Net's answer v, (M, 12, 32, 32).

    Args:
        model: the U-Net, also wrapped by ``LoKrModel`` or peft, or compiled.
        x: (M, 12, 32, 32).
        t: (M,) int64 on the same device.
        states: (M, T, W).
        pooled: (M, W).
    """
    options = {"encoder_hidden_states": states.to(x.dtype), "class_labels": pooled.to(x.dtype)}
    answer: Tensor = model(x, t, **options, return_dict=False)[0]
    return answer


def _folder(name: str) -> Path:
    return FOLDER if name == PACKAGED else Path(name)
