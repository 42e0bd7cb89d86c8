"""Stable Diffusion on photos of a subject: on tiny pipelines, with the real loaders, no network."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from experiments import cli, sizes, studies, tasks
from experiments.errors import BenchError
from experiments.methods import attach
from experiments.step import draws_of
from experiments.study import Study, grid
from experiments.tasks.dreambooth import TEXT_TARGETS, latents, metrics, photos, pipeline, prior
from experiments.tasks.dreambooth import __main__ as command
from experiments.tasks.dreambooth import prompts as captions
from experiments.tasks.dreambooth.diffusion import Diffusion
from experiments.tasks.dreambooth.painting import GUIDANCE, STEPS, Painter, denoise
from experiments.tasks.dreambooth.sheet import sheet
from experiments.tasks.dreambooth.task import DreamBoothTask, load
from experiments.tasks.dreambooth.text import Reader
from experiments.tasks.dreambooth.training import save
from experiments.train import train_pack
from experiments.trial import Trial
from lokr import LoKrModel
from tests.experiments import tiny_pipelines as tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*the rank saves nothing")
SIDE = tiny.SIDE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PHOTOS/dog2 with six photos, PHOTOS/berry_bowl with four."""
    root = tmp_path_factory.mktemp("photos")
    tiny.photos(root / "dog2", 6)
    tiny.photos(root / "berry_bowl", 4, seed=1)
    return root


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.sd(tmp_path_factory.mktemp("sd") / "pipeline"))


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.xl(tmp_path_factory.mktemp("xl") / "pipeline"))


@pytest.fixture(params=["sd", "xl"])
def base(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("judges")
    return {
        "LOKR_DINO": str(tiny.dino(root / "dino")),
        "LOKR_CLIP": str(tiny.clip(root / "clip")),
    }


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of its own, few pictures of the class, and no judges but those of the test."""
    monkeypatch.setenv("LOKR_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("LOKR_DINO", "none")
    monkeypatch.setenv("LOKR_CLIP", "none")
    monkeypatch.setattr(prior, "TRAINED", 3)
    tasks._load.cache_clear()


def make(base: str, **fields: object) -> Trial:
    """Six steps of two photos on the tiny U-Net; one picture of the class measures forgetting."""
    small = {
        "task": "dreambooth/dog2",
        "base": base,
        "target_modules": ("to_q", "to_k", "conv1"),
        "r": 2,
        "alpha": 2,
        "learning_rate": 1e-2,
        "epochs": 2,
        "batch_size": 2,
        "repeats": 2,
        "train_size": 3,
        "samples": 0,
        "drift_rows": 1,
    }
    return Trial(**{**small, **fields})


def settled(trial: Trial, folder: Path) -> DreamBoothTask:
    task = load(trial, str(folder))
    task.settle(torch.device("cpu"), trial.precision)
    return task


def losses(trial: Trial, folder: Path) -> list[float]:
    (outcome,) = train_pack([trial], data=str(folder))
    assert outcome.status == "ok"
    return [loss for row in outcome.history for loss in row["losses"]]


# -- photos ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("dog2", "dog"), ("berry_bowl", "berry bowl"), ("dog", "dog"), ("007", "007")],
)
def test_the_class_word_is_the_folder_s_name_without_digits_at_its_end(tmp_path, name, kind):
    tiny.photos(tmp_path / name, 4)
    found = photos.find(str(tmp_path), name)
    assert (found.kind, found.token, found.live) == (kind, "sks", kind == "dog")


def test_the_benchmark_s_own_list_and_then_the_user_s_count_before_the_folder_s_name(tmp_path):
    tiny.photos(tmp_path / "bear_plushie", 4)
    benchmark = "Classes\n\nsubject_name,class\nbear_plushie,stuffed animal\n\nPrompts\n"
    (tmp_path / "prompts_and_classes.txt").write_text(benchmark)
    assert photos.find(str(tmp_path), "bear_plushie").kind == "stuffed animal"
    said = {"bear_plushie": {"class": "bear", "token": "olis", "live": True}}
    (tmp_path / "classes.json").write_text(json.dumps(said))
    found = photos.find(str(tmp_path), "bear_plushie")
    assert (found.kind, found.token, found.live) == ("bear", "olis", True)
    (tmp_path / "classes.json").write_text('{"bear_plushie": "toy"}')
    assert photos.find(str(tmp_path), "bear_plushie").kind == "toy"


@pytest.mark.parametrize(
    "said", ['{"dog2": {"clas": "dog"}}', '{"dog2": {"live": 1}}', '{"dog2": 3}', '{"dog2": ""}']
)
def test_classes_that_are_not_understood_are_shown_with_what_is_expected(folder, tmp_path, said):
    shutil.copytree(folder / "dog2", tmp_path / "dog2")
    (tmp_path / "classes.json").write_text(said)
    with pytest.raises(BenchError, match=r"classes.json: 'dog2' is .*, expected class and token"):
        photos.find(str(tmp_path), "dog2")


@pytest.mark.parametrize("said", ["{", "[]"])
def test_classes_that_are_no_table_are_refused(folder, tmp_path, said):
    shutil.copytree(folder / "dog2", tmp_path / "dog2")
    (tmp_path / "classes.json").write_text(said)
    with pytest.raises(BenchError, match=r"classes.json: expected JSON, subject -> its class"):
        photos.find(str(tmp_path), "dog2")


def test_no_folder_no_subject_and_too_few_photos_are_one_line_each(folder, tmp_path):
    with pytest.raises(BenchError, match="--data is missing"):
        photos.find(None, "dog2")
    with pytest.raises(BenchError, match=r"task 'dreambooth/cat': .* has berry_bowl, dog2"):
        photos.find(str(folder), "cat")
    tiny.photos(tmp_path / "cat", 3)
    shutil.copy(tmp_path / "cat/00.jpg", tmp_path / "cat/03.jpg")  # the same photo again
    with pytest.raises(BenchError, match=r"cat: 3 different photos .*, expected 4 or more"):
        photos.find(str(tmp_path), "cat")


def test_a_photo_that_cannot_be_read_is_named_before_training(folder, sd, tmp_path):
    shutil.copytree(folder / "dog2", tmp_path / "dog2")
    (tmp_path / "dog2/03.jpg").write_bytes(b"not a picture")
    with pytest.raises(BenchError, match=r"photo .*03.jpg: cannot be read as a picture"):
        load(make(sd), str(tmp_path))
    whole = (folder / "dog2/03.jpg").read_bytes()
    (tmp_path / "dog2/03.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BenchError, match=r"photo .*03.jpg: cannot be read as a picture"):
        load(make(sd), str(tmp_path))


def test_photos_are_upright_and_cut_to_the_middle(tmp_path):
    picture = Image.new("RGB", (60, 20), "red")
    picture.paste("blue", (20, 0, 40, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "a.png", exif=exif)
    (read,) = photos.read([tmp_path / "a.png"], 8)
    assert read.shape == (3, 8, 8)
    assert read.dtype == torch.uint8
    blue = torch.tensor([0, 0, 255], dtype=torch.uint8)
    assert (read == blue[:, None, None])[:, 3:5, 3:5].all()


def test_which_photos_are_held_out_depends_on_their_content_alone(folder, tmp_path):
    (tmp_path / "dog2").mkdir()
    for number, path in enumerate(sorted((folder / "dog2").iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / f"dog2/{number}.jpg")
    ours, theirs = (photos.find(str(root), "dog2") for root in (folder, tmp_path))
    assert ours.digest == theirs.digest
    assert [p.read_bytes() for p in ours.photos] == [p.read_bytes() for p in theirs.photos]
    assert ours.held_out == 2
    assert replace(ours, photos=ours.photos * 2).held_out == 3


# -- prompts --------------------------------------------------------------------------------


def test_there_are_25_prompts_for_objects_and_25_for_live_subjects():
    both = [captions.prompts("sks", "dog", live) for live in (False, True)]
    for listed in both:
        assert len(set(listed)) == 25
        assert all("sks dog" in prompt for prompt in listed)
    assert len(set(both[0]) & set(both[1])) == 15
    assert both[1][15] == "a sks dog in a firefighter outfit"
    assert captions.class_prompts("vase", False)[13] == "a vase floating on top of water"


# -- pipelines ------------------------------------------------------------------------------


def edited(base: str, folder: Path, file: str, **changes: Any) -> str:
    """A copy of a pipeline with other values in one of its files; None takes a value out."""
    shutil.copytree(base, folder / "edited")
    path = folder / "edited" / file
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    return str(folder / "edited")


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("model_index.json", {"text_encoder": None}, "has no text encoder"),
        ("model_index.json", {"text_encoder": [None, None]}, "has no text encoder"),
        ("model_index.json", {"vae": None}, "its vae is missing, expected AutoencoderKL"),
        (
            "model_index.json",
            {"text_encoder": ["transformers", "T5EncoderModel"]},
            "its text_encoder is T5EncoderModel, expected CLIPTextModel",
        ),
        (
            "unet/config.json",
            {"in_channels": 9},
            r"takes 9 channels and gives 4, its VAE has 4; expected the same \(a pipeline for inp",
        ),
        (
            "unet/config.json",
            {"cross_attention_dim": 24},
            "takes text states 24 wide, its text encoders give 16",
        ),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "sample"},
            "prediction_type is 'sample', expected epsilon or v_prediction",
        ),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused_from_its_configs(
    sd, tmp_path, file, changes, said
):
    with pytest.raises(BenchError, match=said):
        pipeline.layout(edited(sd, tmp_path, file, **changes))


def test_xl_s_pooled_states_must_fit_its_unet(xl, tmp_path):
    wrong = edited(xl, tmp_path, "unet/config.json", projection_class_embeddings_input_dim=99)
    with pytest.raises(BenchError, match=r"takes 99 numbers of size and pooled text, .* give 40"):
        pipeline.layout(wrong)


def test_a_base_that_cannot_be_had_says_what_a_base_is(sd, tmp_path):
    with pytest.raises(BenchError, match="'minilm' encodes text; expected a pipeline of Stable"):
        pipeline.layout("minilm")
    with pytest.raises(BenchError, match=r"has no model_index.json; expected a pipeline of Stable"):
        pipeline.layout(str(tmp_path))
    with pytest.raises(BenchError, match="'nobody/nothing' could not be had from the hub"):
        pipeline.layout("nobody/nothing")
    shutil.copytree(sd, tmp_path / "pickled")
    weights = tmp_path / "pickled/unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BenchError, match=r"'pickled', unet, could not be had from .* safetensors"):
        pipeline.load(str(tmp_path / "pickled"))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_that_are_damaged_or_not_all_there_are_no_base(sd, tmp_path, part):
    shutil.copytree(sd, tmp_path / "base")
    (weights,) = (tmp_path / "base" / part).glob("*.safetensors")
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[1:]), weights, metadata={"format": "pt"})
    with pytest.raises(BenchError, match=rf"'base', {part}: its weights lack .* \(1\)"):
        pipeline.load(str(tmp_path / "base"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BenchError, match=rf"'base', {part}, could not be had from .*safetensors"):
        pipeline.load(str(tmp_path / "base"))


def test_a_resolution_must_be_one_that_the_unet_can_halve(sd, folder):
    assert pipeline.layout(sd).side(None) == SIDE
    assert pipeline.layout(sd).side(32) == 32
    with pytest.raises(BenchError, match="resolution=30: expected a multiple of 4"):
        load(make(sd, resolution=30), str(folder))


def test_the_skeleton_has_the_shapes_of_the_model_and_no_weights(base):
    whole = pipeline.load(base).denoiser(text=True)
    bare = pipeline.skeleton(base, text=True)
    shapes = [{n: p.shape for n, p in model.named_parameters()} for model in (whole, bare)]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in bare.parameters())


# -- noise, text, latents: diffusers is the oracle --------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_targets_are_those_of_diffusers(kind):
    config = tiny.scheduler(prediction_type=kind).config
    oracle = diffusers.DDPMScheduler.from_config(config)
    x, noise = torch.randn(2, 5, 4, 3, 3)
    times = torch.tensor([0, 1, 400, 998, 999])
    hidden, target = Diffusion(config).corrupt(x, times, noise)
    torch.testing.assert_close(hidden, oracle.add_noise(x, noise, times))
    expected = noise if kind == "epsilon" else oracle.get_velocity(x, noise, times)
    torch.testing.assert_close(target, expected)


def whole_pipeline(base: str) -> Any:
    found = diffusers.DiffusionPipeline.from_pretrained(base)
    found.set_progress_bar_config(disable=True)
    return found


def test_captions_are_read_as_the_whole_pipeline_reads_them(base):
    parts = pipeline.load(base)
    reader = Reader(parts, ["a dog", "", "a cat"], trained=False)
    found = reader.read(parts.shared_denoiser(False), slice(0, 3), 1)
    whole = whole_pipeline(base)
    with torch.no_grad():
        states, empty, *pooled = whole.encode_prompt(
            ["a dog", "a cat"],
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
        )
    which = found.rows(torch.tensor([[0, 2], [1, 1]]))
    torch.testing.assert_close(which.states, torch.cat([states, empty]))
    if pooled:
        torch.testing.assert_close(which.pooled, torch.cat(pooled))


def test_trained_encoders_read_as_frozen_ones_before_the_first_step(base):
    parts = pipeline.load(base)
    listed = ["a dog", "a cat", "", "a vase"]
    frozen, trained = (Reader(parts, listed, trained=trained) for trained in (False, True))
    model = parts.shared_denoiser(text=True)
    which = torch.tensor([[1, 0, 2], [2, 2, 1]])
    for part in (slice(0, 3), slice(2, 4)):
        rows = which % len(listed[part])
        expected = frozen.read(model, part, 2).rows(rows)
        found = trained.read(model, part, 2)
        assert found.lanes == 2
        torch.testing.assert_close(found.rows(rows).states, expected.states)


def test_a_caption_that_would_lose_its_end_is_refused_before_training(sd, tmp_path):
    long = "dog" * 30
    tiny.photos(tmp_path / long, 4)
    with pytest.raises(
        BenchError, match=r"caption 'a photo of sks dog.*' is 103 tokens long, .*77"
    ):
        load(make(sd, task=f"dreambooth/{long}", train_size=2), str(tmp_path))


def test_latents_are_scaled_and_come_back_as_the_pipeline_decodes_them(sd):
    parts = pipeline.load(sd)
    pictures = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    found = latents.encode(parts.vae, pictures)
    x = pictures.float() / 127.5 - 1
    with torch.no_grad():
        expected = parts.vae.encode(x).latent_dist
        scale = parts.vae.config.scaling_factor
        torch.testing.assert_close(found.mean, expected.mean * scale)
        torch.testing.assert_close(found.deviation, expected.std * scale)
        back = parts.vae.decode(expected.mean).sample
    decoded = latents.decode(parts.vae, found.mean).float() / 127.5 - 1
    assert (decoded - back.clamp(-1, 1)).abs().max() < 1 / 127


def test_pictures_are_those_that_the_whole_pipeline_draws(base):
    """Guidance, schedule, sizes that XL is told, the empty caption: all at once."""
    parts = pipeline.load(base)
    painter = Painter(parts, SIDE)
    model = parts.shared_denoiser(False)
    texts = Reader(parts, ["", "a dog", "a cat"], False).read(model, slice(0, 3), 1)
    with torch.no_grad():
        (drawn,) = painter.draw(model.unet, texts, torch.tensor([1, 2]), [5, 6], 1)
    whole = whole_pipeline(base)
    expected = whole(
        ["a dog", "a cat"],
        height=SIDE,
        width=SIDE,
        latents=painter.noise([5, 6]),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
    ).images
    found = drawn.permute(0, 2, 3, 1).numpy() / 255
    np.testing.assert_allclose(found, expected, atol=1 / 250)


def test_pictures_of_a_lane_do_not_depend_on_its_company_or_on_how_many_are_drawn_at_once(
    sd, monkeypatch
):
    parts = pipeline.load(sd)
    painter = Painter(parts, SIDE)
    model = parts.shared_denoiser(False)
    texts = Reader(parts, ["", "a dog"], False).read(model, slice(0, 2), 1)
    one = torch.ones(3, dtype=torch.int64)
    with torch.no_grad():
        (alone,) = painter.draw(model.unet, texts, one, [0, 1, 2], 1)
        monkeypatch.setattr("experiments.tasks.dreambooth.painting.ROWS", 1)
        lanes = painter.draw(model.unet, texts, one, [0, 1, 2], 2)
    for lane in lanes:
        assert (lane.int() - alone.int()).abs().max() <= 1


# -- the base's own pictures ----------------------------------------------------------------


def test_the_base_s_own_pictures_are_drawn_once_and_kept(sd, folder, monkeypatch):
    trial = make(sd, prior_weight=1.0, drift_rows=2)
    first = settled(trial, folder)
    assert first.provenance["data"]["class_pictures"] == 5
    (kept,) = (prior.cache.folder("dreambooth")).iterdir()
    names = {path.name for path in kept.iterdir()}
    assert names == {"0.png", "1.png", "10000.png", "10001.png", "10002.png"}
    before = {name: (kept / name).read_bytes() for name in names}
    (kept / "1.png").unlink()
    drawn: list[Any] = []
    draw = Painter.draw
    monkeypatch.setattr(Painter, "draw", lambda *given: drawn.append(given[4]) or draw(*given))
    second = settled(trial, folder)
    assert drawn == [[1]], "only what was missing"
    assert {name: (kept / name).read_bytes() for name in names} == before
    torch.testing.assert_close(second.dev.tensors["latents"], first.dev.tensors["latents"])
    (kept / "0.png").write_bytes(b"half a pict")
    with pytest.raises(BenchError, match=r"0.png: cannot be read .*; delete .* drawn again"):
        settled(trial, folder)


def test_pictures_that_measure_forgetting_are_none_of_those_trained_on(sd):
    assert prior.numbers(2, trained=False) == [0, 1]
    wanted = prior.numbers(2, trained=True)
    assert len(set(wanted)) == len(wanted) == 2 + prior.TRAINED


# -- the task -------------------------------------------------------------------------------


def test_the_untouched_base_gains_nothing_and_drifts_nowhere(base, folder):
    task = settled(make(base, drift_rows=3), folder)
    assert len(task.dev) == 2 * 20 + 3
    rows = task.dev.gather(torch.arange(len(task.dev)), None)
    with torch.no_grad():
        said = task.predict(task.model(), rows, 1)[0]
    for reading, scores in task.scores(said).items():
        assert (scores["gain"], scores["drift"]) == (0, 0), reading
        assert 0.1 < scores["loss"] < 2
    better = task.scores(said * torch.cat([torch.full((40,), 0.75), torch.full((3,), 1.5)]))
    assert better["full"]["gain"] == pytest.approx(0.25)
    assert better["report"]["drift"] == pytest.approx(0.5)


def test_one_held_out_photo_selects_and_the_other_is_reported(sd, folder):
    task = settled(make(sd), folder)
    photo = [task.dev.tensors["latents"][i] for i in (0, 20)]
    assert not torch.equal(*photo)
    said = torch.cat([torch.full((20,), 2.0), torch.full((20,), 3.0), torch.ones(1)])
    scores = task.scores(said)
    assert [scores[name]["loss"] for name in ("selection", "report", "full")] == [2, 3, 2.5]
    train = task.train.tensors["mean"]
    assert not any(torch.equal(a, b) for a in train for b in photo)


def test_without_pictures_of_the_class_nothing_is_drawn_and_drift_is_not_claimed(
    sd, folder, monkeypatch
):
    monkeypatch.setattr(Painter, "draw", lambda *given: pytest.fail("nothing is to be drawn"))
    task = settled(make(sd, drift_rows=0), folder)
    assert task.scores(torch.ones(40))["full"].keys() == {"gain", "loss"}


def test_more_photos_than_there_are_to_train_on_are_refused(sd, folder):
    with pytest.raises(BenchError, match=r"train_size=5: dog2 has 6 different photos, 4 of them"):
        load(make(sd, train_size=5), str(folder))


def test_prior_preservation_adds_the_weighted_loss_on_the_class(sd, folder):
    """What the photos' part is does not depend on the weight, so the weight shows linearly."""
    weights = (1.0, 2.0, 3.0)
    found = []
    for weight in weights:
        trial = make(sd, prior_weight=weight)
        task = settled(trial, folder)
        batch = task.train.gather(torch.tensor([0, 1]), None)
        with torch.no_grad():
            found.append(task.loss(task.model(), batch, 1, draws_of([trial])).item())
    assert found[1] - found[0] > 0.1
    assert found[2] - found[1] == pytest.approx(found[1] - found[0], rel=1e-4)


def test_a_step_s_loss_is_its_definition(sd, folder):
    """Against noise, times and latents put together here from the same draws."""
    trial = make(sd)
    task, draws = settled(trial, folder), draws_of([trial])
    model = task.model()
    batch = task.train.gather(torch.tensor([0, 2]), None)
    found = task.loss(model, batch, 1, draws)
    size = batch["mean"].numel()
    first, noise = (draws.normal(place, size).view_as(batch["mean"]) for place in (2, 1))
    x = batch["mean"] + batch["deviation"] * first
    times = ((torch.arange(2) + draws.uniform(0, 2)[0]) / 2 * 1000).long()
    assert times[0] < 500 <= times[1]
    parts = pipeline.load(sd)
    hidden = diffusers.DDPMScheduler.from_config(parts.layout.scheduler).add_noise(x, noise, times)
    read = Reader(parts, ["a photo of sks dog"], False).read(model, slice(0, 1), 1)
    condition = read.rows(torch.zeros(1, 2, dtype=torch.int64))
    said = denoise(model.unet, hidden, times, condition, SIDE)
    torch.testing.assert_close(found, (said - noise).square().mean().view(1))


PART = {"text_r": 2, "text_alpha": 2.0, "prior_weight": 0.5}


@pytest.mark.parametrize("fields", [{}, PART, {**PART, "rank_dropout": 0.5}])
def test_a_lane_is_its_trial_alone(base, folder, fields):
    trials = [make(base, seed=seed, alpha=1 + seed, **fields) for seed in (0, 1, 2)]
    packed = train_pack(trials, data=str(folder))
    for trial, outcome in zip(trials, packed, strict=True):
        together = [loss for row in outcome.history for loss in row["losses"]]
        assert len(set(together)) == 6
        np.testing.assert_allclose(together, losses(trial, folder), rtol=1e-4, atol=1e-5)


def test_activations_computed_again_change_no_loss(base, folder):
    plain = losses(make(base, rank_dropout=0.3), folder)
    again = losses(make(base, rank_dropout=0.3, gradient_checkpointing=True), folder)
    np.testing.assert_allclose(again, plain, rtol=1e-6)
    unet = load(make(base, gradient_checkpointing=True), str(folder)).model().unet
    assert unet.is_gradient_checkpointing


@pytest.mark.parametrize("method", ["lokr", "lora", "lokr-peft", "full"])
@pytest.mark.parametrize("fields", [{}, PART])
def test_every_method_trains_the_unet_and_on_request_the_text_encoder(sd, folder, method, fields):
    rate = 1e-3 if method == "full" else 1e-2
    trial = make(sd, method=method, learning_rate=rate, **fields)
    (outcome,) = train_pack([trial], data=str(folder))
    assert outcome.status == "ok"
    assert outcome.parameters["trainable"] == sizes.parameters_of(trial)
    gains = [row["full"]["gain"] for row in outcome.history]
    assert all(gain != 0 for gain in gains)
    without = sizes.parameters_of(make(sd, method=method))
    assert (sizes.parameters_of(trial) > without) == bool(fields)


def test_half_precision_trains_to_nearly_the_same_losses(base, folder):
    found = [losses(make(base, precision=name, **PART), folder) for name in ("fp32", "bf16")]
    assert found[0] != found[1]
    np.testing.assert_allclose(*found, rtol=0.05)


def test_dev_rows_are_the_same_however_many_are_looked_at_at_once(sd, folder, monkeypatch):
    task = settled(make(sd), folder)
    rows = task.dev.gather(torch.arange(len(task.dev)).repeat(2), None)
    with torch.no_grad():
        together = task.predict(task.model(), rows, 2)
        monkeypatch.setattr("experiments.tasks.dreambooth.painting._LATENT", 7)
        assert task._painter.rows_at_a_time(2) == 1
        apart = task.predict(task.model(), rows, 2)
    assert together.shape == (2, len(task.dev))
    torch.testing.assert_close(apart, together)


def test_the_text_encoder_has_a_config_of_its_own(base):
    parts = tasks.family(make(base)).parts(make(base, text_r=3, text_alpha=1.5))
    assert list(parts) == ["unet", *pipeline.encoders_of(base)]
    assert (parts["unet"].r, parts["unet"].alpha) == (2, 2)
    text = parts["text_encoder"]
    assert (text.r, text.alpha, text.target_modules) == (3, 1.5, TEXT_TARGETS)
    assert list(tasks.family(make(base)).parts(make(base))) == ["unet"]


def test_a_task_that_was_loaded_for_other_numbers_says_so(sd, folder):
    task = settled(make(sd), folder)
    with pytest.raises(RuntimeError, match=r"loaded with prior_weight=0.0, trained 1.0"):
        task.finish(task.model(), [make(sd, prior_weight=1.0)])


def test_a_method_that_trains_a_head_finds_none(sd, folder):
    with pytest.raises(BenchError, match="dreambooth/dog2 has no head to train"):
        train_pack([make(sd, method="head")], data=str(folder))


class NoHost(TorchDispatchMode):
    """Fails where a value goes to the host, or comes from it: neither can be recorded."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        assert "_local_scalar_dense" not in name, "a value was read"
        assert "nonzero" not in name, "a size depends on values"
        assert "lift_fresh" not in name, "a tensor was made from the host's numbers"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("fields", [{}, PART, {"gradient_checkpointing": True}])
def test_a_step_and_an_evaluation_ask_the_host_nothing(base, folder, fields):
    trials = [make(base, seed=seed, **fields) for seed in (0, 1)]
    task = settled(trials[0], folder)
    model, draws = attach(trials, task).model, draws_of(trials)
    batch = task.train.gather(torch.tensor([0, 1, 2, 0]), None)
    dev = task.dev.gather(torch.arange(len(task.dev)).repeat(2), None)
    task.loss(model, batch, 2, draws)  # what is sent to a device once is there now
    with NoHost():
        task.loss(model.train(), batch, 2, draws).sum().backward()
        with torch.no_grad():
            task.predict(model.eval(), dev, 2)


def test_the_guard_of_the_host_sees_what_it_is_to_see():
    for forbidden in (lambda: torch.ones(1).item(), lambda: torch.tensor([1.0]) + 1):
        with pytest.raises(AssertionError), NoHost():
            forbidden()


# -- what samples are worth -------------------------------------------------------------------


def test_samples_are_judged_and_kept_and_read_against_floor_and_ceiling(
    base, folder, judges, monkeypatch
):
    for variable, name in judges.items():
        monkeypatch.setenv(variable, name)
    trials = [make(base, samples=3, seed=seed) for seed in (0, 1)]
    outcomes = train_pack(trials, data=str(folder))
    for outcome in outcomes:
        found = outcome.metrics
        assert all(-1 <= found[name] <= 1 for name in ("dino", "clip_i", "clip_t"))
        assert 1 <= found["vendi"] <= 3
        assert found["reference"].keys() == {
            "dino_photos",
            "clip_i_photos",
            *(f"{name}_base" for name in ("dino", "clip_i", "clip_t", "vendi")),
        }
        assert outcome.provenance["judges"] == judges
        assert set(outcome.exhibits) == {"dog2-photos.webp", "dog2-base.webp"}
    sheets = [outcome.pictures["samples.webp"] for outcome in outcomes]
    assert sheets[0] != sheets[1]
    size = read_picture(sheets[0]).size
    assert size == (5 * SIDE, SIDE)


def test_a_sheet_shows_pictures_row_by_row_and_small():
    shades = torch.tensor([0, 100, 200], dtype=torch.uint8)
    small = np.asarray(read_picture(sheet(shades.view(3, 1, 1, 1).expand(3, 3, 16, 16), 2)))
    assert small.shape == (32, 32, 3)
    centers = small[8::16, 8::16].mean(-1)
    np.testing.assert_allclose(centers, [[0, 100], [200, 255]], atol=3)
    large = torch.zeros(1, 3, 512, 512, dtype=torch.uint8)
    assert read_picture(sheet(large, 1)).size == (256, 256)


def read_picture(content: bytes) -> Image.Image:
    import io

    return Image.open(io.BytesIO(content))


def test_an_untrained_adapter_draws_what_the_base_draws(sd, folder, judges, monkeypatch):
    for variable, name in judges.items():
        monkeypatch.setenv(variable, name)
    trial = make(sd, samples=2)
    task = settled(trial, folder)
    model = attach([trial], task).model.eval()
    with torch.no_grad():
        (final,) = task.finish(model, [trial])
    reference = final.metrics["reference"]
    for name in ("dino", "clip_i", "clip_t", "vendi"):
        assert final.metrics[name] == pytest.approx(reference[f"{name}_base"], abs=1e-4)
    assert final.pictures["samples.webp"] == task.exhibits()["dog2-base.webp"]


def test_metrics_without_their_model_are_null(sd, folder, judges, monkeypatch):
    (outcome,) = train_pack([make(sd, samples=1)], data=str(folder))
    assert [outcome.metrics[name] for name in ("dino", "clip_i", "clip_t", "vendi")] == [None] * 4
    assert outcome.provenance["judges"] == {"LOKR_DINO": "none", "LOKR_CLIP": "none"}
    monkeypatch.setenv("LOKR_CLIP", judges["LOKR_CLIP"])
    found = metrics.judges().look(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.device("cpu"))
    assert metrics.ceiling(found) == {"dino_photos": None, "clip_i_photos": pytest.approx(1)}


def test_a_judge_that_cannot_be_had_is_said_before_training(sd, folder, monkeypatch):
    monkeypatch.setenv("LOKR_DINO", "nobody/nothing")
    with pytest.raises(BenchError, match=r"LOKR_DINO=nobody/nothing: could not be had .* to none"):
        load(make(sd, samples=1), str(folder))
    load(make(sd, samples=0), str(folder))  # nothing to judge


def test_the_metrics_are_means_of_cosines():
    samples = metrics.Seen(dino=torch.eye(4)[:2], clip=torch.eye(4)[2:])
    ours = metrics.Seen(dino=torch.eye(4)[:3], clip=torch.eye(4)[2:])
    found = metrics.fidelity(samples, ours, torch.eye(4)[2:])
    assert found == {
        "dino": pytest.approx(1 / 3),
        "clip_i": pytest.approx(1 / 2),
        "clip_t": pytest.approx(1),
        "vendi": pytest.approx(2),
    }
    assert metrics.ceiling(ours) == {"dino_photos": 0, "clip_i_photos": 0}


def test_clip_s_features_are_transformers_own(judges, monkeypatch):
    for variable, name in judges.items():
        monkeypatch.setenv(variable, name)
    found = metrics.judges()
    picture = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    mean, deviation = (torch.tensor(x)[:, None, None] for x in metrics._CLIP)
    x = (picture.float() / 255 - mean) / deviation
    tokens = found.tokenizer(["a dog"], return_tensors="pt")
    with torch.no_grad():
        expected = found.clip(pixel_values=x, **tokens)
    seen, here = found.look(picture, torch.device("cpu")), torch.device("cpu")
    torch.testing.assert_close(seen.clip, expected.image_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.read(["a dog"], here), expected.text_embeds)


# -- adapters on disk -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lokr", "lora", "lokr-peft"])
def test_peft_loads_what_was_trained_into_the_pipeline(base, folder, tmp_path, method):
    """The whole of diffusers with peft's adapters draws what our model draws."""
    from peft import PeftModel

    trial = make(base, method=method, text_r=2, text_alpha=2.0)
    task = settled(trial, folder)
    model = attach([trial], task).model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    save(model, trial, tmp_path)
    whole = whole_pipeline(base)
    plain = drawn_by(whole)
    for part in ("unet", *pipeline.encoders_of(base)):
        adapted = PeftModel.from_pretrained(getattr(whole, part), str(tmp_path / part))
        setattr(whole, part, adapted)
    found = drawn_by(whole)
    assert np.abs(found - plain).max() > 1e-2
    (ours,) = drawn_by_ours(task, model)
    np.testing.assert_allclose(found, ours, atol=1 / 120)


def drawn_by(whole: Any) -> np.ndarray:
    noise = torch.randn(1, 4, SIDE // 2, SIDE // 2, generator=torch.Generator().manual_seed(0))
    return whole(
        "a sks dog in the jungle",
        height=SIDE,
        width=SIDE,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
    ).images[0]


def drawn_by_ours(task: DreamBoothTask, model: Any) -> list[np.ndarray]:
    """Sample 0 of each lane: the first prompt from the seed 0."""
    task._trial = replace(task._trial, samples=1)
    with torch.no_grad():
        drawn = task._samples(model, 1)
    return [lane[0].permute(1, 2, 0).numpy() / 255 for lane in drawn]


def test_a_lane_of_a_pack_is_saved_as_its_own_adapter(sd, folder, tmp_path):
    trials = [make(sd, seed=seed) for seed in (0, 1)]
    task = settled(trials[0], folder)
    model = attach(trials, task).model
    for lane in (0, 1):
        save(model, trials[lane], tmp_path / str(lane), lane)
    loaded = [
        LoKrModel.from_pretrained(task.model().unet, tmp_path / str(lane) / "unet")
        for lane in (0, 1)
    ]
    for lane, one in enumerate(loaded):
        ours = dict(model.unet.adapted_layers("default"))
        for name, layer in one.adapted_layers("default"):
            expected = ours[name].adapter("default").lane(lane)
            for key, value in layer.adapter("default").lane(0).items():
                torch.testing.assert_close(value, expected[key])


# -- the command lines ------------------------------------------------------------------------


def test_a_study_runs_from_the_command_line_and_goes_on_where_it_stopped(
    sd, folder, tmp_path, monkeypatch
):
    study = Study(
        name="dreambooth-knobs",
        description="small",
        trials=tuple(grid(make("nobody/nothing", samples=2).to_dict(), seed=(0, 1))),
        scientific=("r",),
    )
    monkeypatch.setattr(studies, "load", lambda name: study)
    given = ["run", "dreambooth-knobs", "--results", str(tmp_path), "--device", "cpu"]
    given += ["--data", str(folder), "--set", f"base={sd}"]
    done = CliRunner().invoke(cli.app, given)
    assert done.exit_code == 0, done.output
    files = {path.name for path in (tmp_path / "dreambooth-knobs").glob("*.json")}
    assert len(files) == 2
    shown = {path.name for path in (tmp_path / "dreambooth-knobs/pictures").iterdir()}
    own = {f"{Path(name).stem}.samples.webp" for name in files}
    assert shown == own | {"dog2-photos.webp", "dog2-base.webp"}
    again = CliRunner().invoke(cli.app, given)
    assert "Nothing to run" in again.output


def test_the_study_of_a_real_pipeline_says_what_it_would_train(sd):
    trials = studies.load("dreambooth-knobs").trials
    assert {trial.method for trial in trials} == {"lokr", "lora"}
    for trial in trials[:1] + trials[-1:]:
        assert sizes.parameters_of(replace(trial, base=sd)) > 0


def test_one_adapter_is_trained_and_saved_by_one_command(sd, folder, tmp_path):
    out = tmp_path / "out"
    sets = ("r=2", "repeats=2", "epochs=1", "samples=2", "drift_rows=1", "precision=fp32")
    given = [sd, str(folder / "dog2"), str(out), "--device", "cpu"]
    given += [word for one in (*sets, "text_r=2", "text_alpha=2") for word in ("--set", one)]
    done = CliRunner().invoke(command.app, given)
    assert done.exit_code == 0, done.output
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        *(
            f"{part}/adapter_{end}"
            for part in ("unet", "text_encoder")
            for end in ("config.json", "model.safetensors")
        ),
        "samples.webp",
        "photos.webp",
        "base.webp",
        "metrics.json",
    }
    said = json.loads((out / "metrics.json").read_text())
    assert said["metrics"]["gain"] != 0
    assert said["trial"]["task"] == "dreambooth/dog2"
    again = CliRunner().invoke(command.app, given)
    assert again.exit_code == 1
    assert "is no empty folder" in again.output


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("method=full", "method 'full': expected one of lokr, lora, lokr-peft"),
        ("r=0", "--set r=0: expected an integer >= 1"),
        ("text_r=4", "expected both or neither"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(sd, folder, tmp_path, sets, said):
    given = [sd, str(folder / "dog2"), str(tmp_path / "out"), "--device", "cpu", "--set", sets]
    done = CliRunner().invoke(command.app, given)
    assert done.exit_code == 1
    assert said in done.output


def test_help_names_the_words_of_the_command():
    done = CliRunner().invoke(command.app, ["--help"])
    assert done.exit_code == 0
    assert "four photos or more" in " ".join(done.output.split())
