"""Stable Diffusion, its XL form, a DINO and a CLIP, all tiny, with random weights, on disk."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

WIDTH = 16
TOKENS = 77
SIDE = 16


def tokenizer(folder: Path) -> transformers.CLIPTokenizer:
    """One token a letter."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS
    )


def text_config(words: int) -> transformers.CLIPTextConfig:
    return transformers.CLIPTextConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def unet(**changes: object) -> diffusers.UNet2DConditionModel:
    config = {
        "sample_size": SIDE // 2,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return diffusers.UNet2DConditionModel(**{**config, **changes})


def vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
    )


def scheduler(**changes: object) -> diffusers.DDIMScheduler:
    """As Stable Diffusion has it."""
    return diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **changes,
    )


def sd(folder: Path) -> Path:
    """Like Stable Diffusion 1.x."""
    torch.manual_seed(0)
    words = tokenizer(folder.parent / "words")
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=transformers.CLIPTextModel(text_config(len(words))),
        tokenizer=words,
        unet=unet(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def xl(folder: Path) -> Path:
    """Like Stable Diffusion XL, v-predicting."""
    torch.manual_seed(1)
    words = tokenizer(folder.parent / "words")
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=transformers.CLIPTextModel(text_config(len(words))),
        text_encoder_2=transformers.CLIPTextModelWithProjection(text_config(len(words))),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + WIDTH,
        ),
        scheduler=scheduler(prediction_type="v_prediction"),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def dino(folder: Path) -> Path:
    torch.manual_seed(2)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=SIDE,
        patch_size=8,
    )
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    torch.manual_seed(3)
    words = tokenizer(folder.parent / "words")
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=SIDE,
        patch_size=8,
        projection_dim=WIDTH,
    )
    config = transformers.CLIPConfig(
        text_config=text_config(len(words)).to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=WIDTH,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def photos(folder: Path, count: int, seed: int = 0) -> Path:
    """Smooth pictures of many colors, wider than high."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        small.resize((40, 30), Image.Resampling.BICUBIC).save(folder / f"{number:02}.jpg")
    return folder
