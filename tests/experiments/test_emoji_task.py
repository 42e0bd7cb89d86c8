"""Customizing a tiny random base to OpenMoji: the real task, pictures and features."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from experiments import tasks
from experiments.bench.floor import floor
from experiments.cost import measure
from experiments.errors import BenchError
from experiments.executors import InProcess
from experiments.listener import Silent
from experiments.plan import plan
from experiments.sizes import layers_of, parameters_of, rows_of
from experiments.step import steps_of
from experiments.store import Store
from experiments.studies.emoji_knobs import CONVS, LINEARS
from experiments.tasks.emoji import rows, sampling, unet
from experiments.tasks.emoji.diffusion import STEPS
from experiments.train import train_pack
from experiments.trial import Trial
from lokr import LaneNoise

NARROW = {"block_out_channels": [32, 32, 32], "attention_head_dim": 2}


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a base of the right channels, few of them inside, random weights."""
    folder = tmp_path_factory.mktemp("unet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet.save(unet.build({**unet.CONFIG, **NARROW}), folder)
    return str(folder)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(rows, "UNSEEN", 8)
    monkeypatch.setattr(rows, "DRAWS", 2)
    tasks._load.cache_clear()
    yield
    tasks._load.cache_clear()


@pytest.fixture
def emoji(narrow):
    def make(**fields: object) -> Trial:
        small = {
            "task": "emoji/openmoji-black",
            "base": narrow,
            "target_modules": (*LINEARS, *CONVS),
            "decompose_factor": 2,
            "r": 2,
            "train_size": 4,
            "repeats": 3,
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 5e-3,
            "samples": 0,
            "drift_rows": 0,
        }
        return Trial(**{**small, **fields})

    return make


def curve(outcome):
    return [loss for row in outcome.history for loss in row["losses"]]


KNOBS = {
    "r": (2, 4),
    "alpha": (1.0, 8.0),
    "init_weights": (True, "lycoris"),
    "learning_rate": (1e-3, 1e-2),
    "seed": (0, 1),
    "rank_dropout": (0.0, 0.3),
}


@pytest.mark.parametrize("effective", [False, True])
def test_each_lane_is_its_trial_alone(emoji, effective):
    trials = [
        emoji(
            use_effective_conv2d=effective, **{knob: values[lane] for knob, values in KNOBS.items()}
        )
        for lane in (0, 1)
    ]
    packed = train_pack(trials)
    for one, lane in zip(trials, packed, strict=True):
        (alone,) = train_pack([one])
        assert len(curve(alone)) == steps_of(one, tasks.load(one)) == 6
        assert curve(lane) == pytest.approx(curve(alone), rel=2e-4)
        for reading in ("selection", "report", "full"):
            ours, theirs = lane.history[-1][reading], alone.history[-1][reading]
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_a_lane_that_diverges_leaves_the_others_untouched(emoji):
    calm, wild = emoji(), emoji(learning_rate=1e6, seed=1)
    (lane, broken), (other, _) = train_pack([calm, wild]), train_pack([calm, emoji(seed=1)])
    assert broken.status == "diverged"
    assert curve(lane) == curve(other), "to the last bit"


@pytest.mark.parametrize("method", ["lokr", "lokr-peft", "lora", "full"])
def test_every_method_trains_in_the_same_loop(emoji, method):
    rate = 1e-4 if method == "full" else 5e-3
    trial = emoji(method=method, learning_rate=rate, epochs=3)
    (outcome,) = train_pack([trial])
    assert outcome.status == "ok"
    losses = curve(outcome)
    assert sum(losses[-3:]) < sum(losses[:3])
    assert outcome.metrics["primary"] == "gain"
    assert outcome.history[-1]["full"]["gain"] > 0, "unseen concepts gain too"
    assert outcome.parameters["trainable"] == parameters_of(trial)


def test_ours_is_pefts_lokr(emoji):
    ours, theirs = (train_pack([emoji(method=method)])[0] for method in ("lokr", "lokr-peft"))
    assert curve(ours) == pytest.approx(curve(theirs), rel=2e-4)
    assert ours.parameters == theirs.parameters


def test_an_adapter_that_does_nothing_gains_nothing_and_forgets_nothing(emoji, monkeypatch):
    # The base's own styles would have to be fetched.
    monkeypatch.setattr(rows, "TRAINING_STYLES", ("openmoji",))
    trial = emoji(learning_rate=1e-12, drift_rows=6)
    (outcome,) = train_pack([trial])
    for reading in ("selection", "report", "full"):
        assert outcome.history[-1][reading]["gain"] == pytest.approx(0, abs=1e-5)
        assert outcome.history[-1][reading]["drift"] == pytest.approx(0, abs=1e-5)


def test_the_dev_rows_are_the_same_in_every_trial_and_never_shown(emoji):
    small, large = (tasks.load(emoji(train_size=k)) for k in (4, 8))
    for name, tensor in small.dev.tensors.items():
        assert torch.equal(tensor, large.dev.tensors[name])
    assert torch.equal(large.train.tensors["images"][:4], small.train.tensors["images"])
    shown = {image.numpy().tobytes() for image in large.train.tensors["images"]}
    unseen = {image.numpy().tobytes() for image in large.dev.tensors["images"]}
    assert not shown & unseen
    times = small.dev.tensors["times"]
    assert times.min() >= 0
    assert times.max() < STEPS
    first, second = times.view(2, 8)
    assert (first < STEPS // 2).all()
    assert (second >= STEPS // 2).all()


def test_a_step_draws_its_own_times_and_noise(emoji, monkeypatch):
    task = tasks.load(emoji())
    seen = []

    def losses(model, x, t, noise, states, pooled):
        seen.append((t, noise))
        return noise.mean((1, 2, 3))

    monkeypatch.setattr("experiments.tasks.emoji.diffusion.row_losses", losses)
    draws = LaneNoise([3, 4])
    batch = task.train.gather(torch.tensor([0, 1, 0, 1]), None)
    for _ in range(2):
        assert task.loss(None, batch, 2, draws).shape == (2,)
        draws.advance()
    (t, noise), (later, fresh) = seen
    assert t.view(2, 2)[:, 0].max() < STEPS // 2 <= t.view(2, 2)[:, 1].min(), "spread over a lane"
    assert not torch.equal(noise[:2], noise[2:]), "lanes draw apart"
    assert not torch.equal(noise, fresh)
    assert not torch.equal(t, later)
    alone = task.loss(None, task.train.gather(torch.tensor([0, 1]), None), 1, LaneNoise([4]))
    assert seen[-1][1].tolist() == noise[2:].tolist()
    assert alone.shape == (1,)


def test_the_last_time_is_never_passed(emoji, monkeypatch):
    """In fp32 the largest draw of all would round up to the end."""
    task = tasks.load(emoji())
    seen = []
    monkeypatch.setattr(
        "experiments.tasks.emoji.diffusion.row_losses",
        lambda model, x, t, *rest: seen.append(t) or x.mean((1, 2, 3)),
    )
    draws = LaneNoise([0])
    monkeypatch.setattr(draws, "uniform", lambda place, count: torch.full((1, count), 1 - 2**-24))
    task.loss(None, task.train.gather(torch.arange(4), None), 1, draws)
    assert seen[0].max() == STEPS - 1


def test_pictures_are_drawn_fewer_at_a_time_where_memory_runs_out(emoji, monkeypatch):
    sampler = tasks.load(emoji(samples=4)).exam.sampler
    sizes = []

    def draw(model, lanes, part, device):
        sizes.append(len(part))
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part.view(1, 1).expand(lanes, 1)

    monkeypatch.setattr(sampler, "_draw", draw)
    assert sampler.draw(torch.nn.Linear(1, 1), 2).tolist() == [[0, 1, 2, 3]] * 2
    assert sizes == [4, 2, 1, 1, 1, 1]


def test_samples_are_judged_and_kept_beside_the_result(emoji, tmp_path, monkeypatch):
    from PIL import Image

    def coarse(images: torch.Tensor) -> torch.Tensor:
        return adaptive_avg_pool2d(images.float(), 16).flatten(1)

    monkeypatch.setattr(sampling, "Features", lambda device: coarse)  # EfficientNet takes a minute
    trials = [emoji(samples=4, epochs=1, seed=seed) for seed in (0, 1)]
    store = Store(tmp_path)
    store.prepare("small")
    packs = plan(trials, (), 2, layers_of=layers_of, rows_of=lambda t: rows_of(t, None)).packs
    executor = InProcess(
        train_pack,
        store,
        study="small",
        device="cpu",
        data=None,
        provenance={},
        listener=Silent(),
    )
    first, second = executor.run(packs)
    for name in ("similarity", "frechet", "vendi", "retrieval_top1"):
        assert isinstance(first.metrics[name], float)
        assert f"{name}_base" in first.metrics["reference"]
    assert first.metrics["style"] is None, "no other style is there to tell it from"
    assert first.metrics["reference"]["similarity_ceiling"] > first.metrics["similarity"]
    pictures = tmp_path / "small" / "pictures"
    names = {path.name for path in pictures.iterdir()}
    own = {f"{result.id}.samples.webp" for result in (first, second)}
    assert names == own | {"openmoji-black-base.webp", "openmoji-black-truth.webp"}
    for name in names:
        picture = Image.open(io.BytesIO((pictures / name).read_bytes()))
        assert picture.size == (4 * 64, 64)


def test_what_a_trial_costs_beside_the_frozen_base(emoji):
    measured = measure.measure(emoji(), "cpu", None, measure.Settings(2, 2, 1, 1.0))
    assert measured["parameters"]["head"] == 0
    assert measured["batch"] == {"rows": 4, "batches": 2, "lengths": [None, None], "tokens": None}
    assert measured["step"]["eager"]["to_frozen"]["median"] > 0
    assert measured["files"]["adapter_bytes"] > 4 * measured["parameters"]["adapter"]
    assert measured["files"]["head_bytes"] is None
    assert measured["inference"]["batch"]["merged"]["samples"] > 0


def test_the_floor_runs_back_to_the_first_layer(emoji, monkeypatch):
    task = tasks.load(emoji())
    model = task.model()
    monkeypatch.setattr(task, "model", lambda: model)
    batch = task.train.gather(torch.arange(4), None)
    step = floor(task, [batch], torch.device("cpu"), "fp32", captured=False)
    seen = []
    model.conv_in.register_forward_hook(
        lambda module, given, output: output.register_hook(seen.append) and None
    )
    step()
    assert not any(p.requires_grad for p in model.parameters())
    assert [tuple(gradient.shape) for gradient in seen] == [(4, 32, 32, 32)], "as far as conv_in"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "emoji/comic"}, "task 'emoji/comic': expected one of the styles"),
        ({"task": "emoji/noto"}, "that the base never saw, openmoji"),
        ({"train_size": 100_000}, r"train_size=100000: there are \d+ pictures of openmoji-black"),
        ({"samples": 5}, "samples=5: 4 concepts of openmoji-black are reported"),
        ({"method": "head"}, "method 'head': emoji/openmoji-black has no head to train"),
        ({"base": "nowhere"}, "base 'nowhere'"),
    ],
)
def test_what_cannot_be_is_said_before_training(emoji, fields, message):
    with pytest.raises(BenchError, match=message):
        train_pack([emoji(**fields)])


def test_a_folder_of_data_is_not_ours(emoji, tmp_path):
    with pytest.raises(BenchError, match="--data: emoji come from packages"):
        train_pack([emoji()], data=str(tmp_path))


def test_trials_that_show_the_same_share_one_task(emoji):
    one = emoji()
    assert tasks.load(one) is tasks.load(replace(one, r=4, seed=3, learning_rate=1.0))
    assert tasks.load(one) is not tasks.load(replace(one, train_size=8))
