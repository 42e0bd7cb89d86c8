"""The example of peft's documentation page of LoKr, on a small pipeline with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers

from lokr import LoKrConfig, LoKrModel
from tests.lokr.peers import randomize

pytestmark = pytest.mark.filterwarnings("ignore:.*the rank saves nothing")


def tokenizer(folder: Path) -> transformers.CLIPTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
    )


def text_encoder(words: int) -> transformers.CLIPTextModel:
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=words,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def unet() -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


@pytest.fixture
def pipeline(tmp_path: Path) -> diffusers.StableDiffusionPipeline:
    torch.manual_seed(0)
    words = tokenizer(tmp_path)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8),
        text_encoder=text_encoder(len(words)),
        tokenizer=words,
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(pipeline: diffusers.StableDiffusionPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return pipeline(
        "a cat", height=8, width=8, num_inference_steps=2, output_type="np", generator=generator
    ).images


def test_the_example_of_the_documentation(pipeline):
    plain = images(pipeline)
    with pytest.warns(UserWarning, match="lora_alpha=32 is read as alpha=32"):
        config_te = LoKrConfig(
            r=8,
            lora_alpha=32,
            target_modules=["k_proj", "q_proj", "v_proj", "out_proj", "fc1", "fc2"],
            rank_dropout=0.0,
            module_dropout=0.0,
            init_weights=True,
        )
    with pytest.warns(UserWarning, match="lora_alpha=32 is read as alpha=32"):
        config_unet = LoKrConfig(
            r=8,
            lora_alpha=32,
            target_modules=[
                "proj_in",
                "proj_out",
                "to_k",
                "to_q",
                "to_v",
                "to_out.0",
                "ff.net.0.proj",
                "ff.net.2",
            ],
            rank_dropout=0.0,
            module_dropout=0.0,
            init_weights=True,
            use_effective_conv2d=True,
        )
    pipeline.text_encoder = LoKrModel(pipeline.text_encoder, config_te, "default")
    pipeline.unet = LoKrModel(pipeline.unet, config_unet, "default")
    assert pipeline.unet.peft_config["default"].alpha == 32
    assert len(pipeline.text_encoder.get_delta_weight()) == 2 * 6
    assert len(pipeline.unet.get_delta_weight()) > 20
    # The left factors are zero: nothing has changed yet.
    np.testing.assert_array_equal(images(pipeline), plain)
    randomize(pipeline.unet)
    through_unet = images(pipeline)
    assert np.isfinite(through_unet).all()
    assert np.abs(through_unet - plain).max() > 1e-3
    randomize(pipeline.text_encoder)
    through_both = images(pipeline)
    assert np.abs(through_both - through_unet).max() > 1e-4


def test_convolutions_of_the_unet_take_the_tucker_form_and_merge(pipeline):
    plain = images(pipeline)
    config = LoKrConfig(
        r=1, target_modules=["conv1", "conv2", "conv_in"], use_effective_conv2d=True
    )
    unet = pipeline.unet
    pipeline.unet = LoKrModel(unet, config)
    randomize(pipeline.unet)
    assert any(name.endswith("lokr_t2") for name in pipeline.unet.state_dict())
    adapted = images(pipeline)
    assert np.abs(adapted - plain).max() > 1e-3
    pipeline.unet = pipeline.unet.merge_and_unload()
    assert pipeline.unet is unet
    np.testing.assert_allclose(images(pipeline), adapted, atol=1e-3)


def test_a_unet_of_half_precision(pipeline):
    pipeline.to(torch.bfloat16)
    pipeline.unet = LoKrModel(pipeline.unet, LoKrConfig(r=2, target_modules=["to_q", "conv1"]))
    plain = images(pipeline)
    randomize(pipeline.unet)
    assert not np.array_equal(images(pipeline), plain)
