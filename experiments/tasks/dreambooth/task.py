"""``dreambooth/<subject>``: the ``Task`` of customizing a pipeline to a subject from a few photos.

The primary metric is the *gain*: the share of the base's own denoising loss, on photos of the
subject that were never shown, that the adapter takes away (0: the untouched base; more is better).
*drift* is the share by which the loss on the base's own pictures of the class rises: what is
forgotten.

Everything that no trial changes is made once: latents, states of captions that a frozen encoder
reads, the base's pictures of the class, its losses and its samples.

Legend: L lanes; B rows a lane; M rows of all lanes, lane-major; N dev rows; n samples; R side in
pixels; k, h, w a latent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.errors import BenchError
from experiments.step import autocast
from experiments.tasks.base import READINGS, Batch, Final, Scores, Split, Task
from experiments.tasks.dreambooth import (
    FAMILY,
    latents,
    metrics,
    photos,
    pipeline,
    prior,
    prompts,
    rows,
)
from experiments.tasks.dreambooth.latents import Posterior
from experiments.tasks.dreambooth.painting import Painter, denoise
from experiments.tasks.dreambooth.photos import Subject
from experiments.tasks.dreambooth.pipeline import Denoiser, Pipeline, on_device
from experiments.tasks.dreambooth.resident import Resident
from experiments.tasks.dreambooth.sheet import sheet
from experiments.tasks.dreambooth.text import Reader
from experiments.trial import Trial
from lokr import LaneNoise

READ = ("text_r", "text_alpha", "prior_weight", "gradient_checkpointing", "samples", "drift_rows")
"""Fields of a trial that this task reads when it is loaded, beside those that name its data."""
TIME, NOISE, LATENT, PRIOR = range(4)
"""Places of a step's draws, see ``LaneNoise``."""
# The captions of a task, in order: of the photos, of the class; none, the prompts, of the class.
_TRAINED = slice(0, 2)
_PROMPTS = slice(2, None)


@dataclass(frozen=True)
class _Rows:
    """What the pictures of a task became."""

    train: Split
    dev: Split
    readings: dict[str, Tensor]
    prior: Resident[Posterior]


@dataclass(frozen=True)
class _Untouched:
    """What the untouched base is worth.

    Args:
        losses: of the dev rows, (N,).
        reference: ceilings of the samples' metrics, and under ``<name>_base`` the base's own.
        exhibits: the photos and its samples.
    """

    losses: Tensor
    reference: dict[str, float | None]
    exhibits: dict[str, bytes]


class DreamBoothTask(Task):
    """A subject on a pipeline.

    Args:
        trial: its base, and how many photos and pictures are used, at which size.
        subject: its photos and class word.
        parts: the pipeline.

    Raises:
        BenchError: a photo cannot be read, there are too few, a caption is too long, or a model
            that judges the samples cannot be had.
    """

    primary = "gain"
    heads = ()
    stochastic = True

    def __init__(self, trial: Trial, subject: Subject, parts: Pipeline) -> None:
        self.subject = subject
        self.pipeline = parts
        self._trial = trial
        self._side = parts.layout.side(trial.resolution)
        self.train_size = _train_size(trial, subject)
        self._photos = photos.read(subject.photos, self._side)
        said = (subject.token, subject.kind)
        captions = (
            prompts.photo_caption(*said),
            prompts.class_caption(subject.kind),
            "",
            *prompts.prompts(*said, subject.live),
            prompts.class_caption(subject.kind),
        )
        self._class_caption = (len(captions[_PROMPTS]) - 1, captions[-1])
        self._reader = Reader(parts, captions, trained=trial.text_r is not None)
        self._painter = Painter(parts, self._side)
        self._judges = metrics.judges() if trial.samples else None
        self._rows: _Rows | None = None
        self._untouched: dict[tuple[str, str], _Untouched] = {}
        self._base: _Untouched | None = None
        self.provenance = self._origin()

    @property
    def train(self) -> Split:
        """The photos to train on."""
        return self._made().train

    @property
    def dev(self) -> Split:
        """Held-out photos at fixed times, and the base's own pictures of the class."""
        return self._made().dev

    def model(self) -> nn.Module:
        """A fresh copy of the U-Net and, if they are trained, the text encoders."""
        model = self.pipeline.denoiser(self._reader.trained)
        if self._trial.gradient_checkpointing:
            unet: Any = model.unet
            unet.enable_gradient_checkpointing(_checkpoint)
        return model

    def parts(self, trial: Trial) -> dict[str, Trial]:
        """The U-Net and, if they are trained, the text encoders, each with its own adapter."""
        return FAMILY.parts(trial)

    def reset_heads(self, model: nn.Module, seed: int) -> None:
        """There are none."""

    def loss(
        self, model: nn.Module, batch: Batch, lanes: int, draws: LaneNoise | None = None
    ) -> Tensor:
        """Mean squared error of what the U-Net predicts, (L,); with prior preservation, plus its
        weight times that of as many of the base's own pictures of the class.
        """
        assert draws is not None
        found = Posterior(batch["mean"], batch["deviation"])
        photo = _by_lane(found.mean, lanes).shape[1]  # B
        if self._trial.prior_weight:
            found = self._beside(found, draws, lanes)
        x, noise = self._drawn(found, draws, lanes)
        caption = torch.full((lanes, len(x) // lanes), rows.PHOTO, device=x.device)
        caption[:, photo:].fill_(rows.CLASS)
        times = self._times(draws, caption.shape[1], photo)
        losses = self._losses(model, x, times, noise, caption)
        mean = losses[:, :photo].mean(1)
        if not self._trial.prior_weight:
            return mean
        return mean + self._trial.prior_weight * losses[:, photo:].mean(1)

    def predict(self, model: nn.Module, batch: Batch, lanes: int) -> Tensor:
        """Mean squared error of each dev row at its own time and noise, (L, B)."""
        parts = {name: _by_lane(tensor, lanes) for name, tensor in batch.items()}
        size = self._painter.rows_at_a_time(lanes)
        found = []
        for start in range(0, parts["times"].shape[1], size):
            part = {name: tensor[:, start : start + size] for name, tensor in parts.items()}
            x, noise = part["latents"].flatten(0, 1), part["noise"].flatten(0, 1)
            found.append(self._losses(model, x, part["times"].flatten(), noise, part["caption"]))
        return torch.cat(found, dim=1)

    def scores(self, predictions: Tensor) -> Scores:
        """``gain`` and ``loss`` on each reading; ``drift`` beside them, if it is measured."""
        readings = self._made().readings
        own = readings["own"]
        drift = {"drift": -self._gain(predictions, own)} if len(own) else {}
        return {
            reading: {
                "gain": self._gain(predictions, readings[reading]),
                "loss": predictions[readings[reading]].mean().item(),
                **drift,
            }
            for reading in READINGS
        }

    @torch.no_grad()
    def settle(self, device: torch.device, precision: str) -> None:
        """Make what is made once, and measure the untouched base on this device and precision."""
        key = (str(device), precision)
        if key not in self._untouched:
            with self._untouched_base(device) as model, autocast(device, precision):
                self._made(model)
                self._untouched[key] = self._look_at(model)
        self._base = self._untouched[key]

    def finish(self, model: nn.Module, trials: Sequence[Trial]) -> list[Final]:
        """Samples of DreamBooth's prompts and what they are worth, lane by lane."""
        self._check_loaded_for(trials[0])
        if self._judges is None:
            return [Final() for _ in trials]
        drawn = self._samples(model, len(trials))
        judged = self._judged(drawn, _device(model))[0]
        reference = {"reference": self._settled().reference}
        return [
            Final({**scores, **reference}, {"samples.webp": sheet(lane)})
            for scores, lane in zip(judged, drawn, strict=True)
        ]

    def exhibits(self) -> dict[str, bytes]:
        """The photos, and the same samples by the untouched base."""
        return self._settled().exhibits

    # -- what is made once ------------------------------------------------------------------

    def _made(self, model: Denoiser | None = None) -> _Rows:
        """The rows; made where ``model`` is, which is the untouched base, or on the CPU."""
        if self._rows is None:
            if model is None:
                with self._untouched_base(torch.device("cpu")) as model, torch.no_grad():
                    return self._made(model)
            self._rows = self._make(model)
        return self._rows

    def _make(self, model: Denoiser) -> _Rows:
        trial, device = self._trial, _device(model)
        own = self._own(model)
        self.provenance["data"] |= {"class_pictures": len(own), "class_sha256": _digest(own)}
        with on_device(device, self.pipeline.vae):
            found = latents.encode(self.pipeline.vae, self._photos).to(torch.device("cpu"))
            priors = _encoded(self.pipeline.vae, own, found)
        held_out = self.subject.held_out
        kept = found.rows(slice(-held_out, None))
        drift = priors.rows(slice(0, trial.drift_rows))
        return _Rows(
            train=rows.train_split(found.rows(slice(0, self.train_size))),
            dev=rows.dev_split(kept, drift, self._painter.diffusion.times),
            readings=rows.readings(held_out, len(drift)),
            prior=Resident(priors.rows(slice(trial.drift_rows, None))),
        )

    def _own(self, model: Denoiser) -> Tensor:
        """The base's own pictures of the class, (C, 3, R, R) uint8."""
        wanted = prior.numbers(self._trial.drift_rows, self._trial.prior_weight > 0)
        texts = self._reader.read(model, _PROMPTS, 1)
        return prior.pictures(
            self.pipeline, self._painter, model, texts, self._class_caption, wanted
        )

    @contextmanager
    def _untouched_base(self, device: torch.device) -> Iterator[Denoiser]:
        model = self.pipeline.shared_denoiser(self._reader.trained)
        with on_device(device, model):
            yield model

    def _look_at(self, model: Denoiser) -> _Untouched:
        """The untouched base's losses; its samples, the floor, and the photos, the ceiling."""
        device = _device(model)
        every = torch.arange(len(self.dev), device=device)
        losses = self.predict(model, self.dev.gather(every, None), 1)[0].cpu()
        if self._judges is None:
            return _Untouched(losses, {}, {})
        samples = self._samples(model, 1)
        (floor,), ceiling = self._judged(samples, device)
        name = self.subject.name
        return _Untouched(
            losses,
            {**ceiling, **{f"{metric}_base": value for metric, value in floor.items()}},
            {f"{name}-photos.webp": sheet(self._photos), f"{name}-base.webp": sheet(samples[0])},
        )

    def _origin(self) -> dict[str, Any]:
        base, subject = self.pipeline.layout.base, self.subject
        return {
            "base": {"name": base.name, "origin": base.origin, "sha256": self.pipeline.digest},
            "data": {
                "source": "folder",
                "subject": subject.name,
                "class": subject.kind,
                "token": subject.token,
                "train": self.train_size,
                "held_out": subject.held_out,
                "resolution": self._side,
                "sha256": subject.digest,
            },
            "judges": None if self._judges is None else self._judges.names,
        }

    # -- losses -----------------------------------------------------------------------------

    def _beside(self, found: Posterior, draws: LaneNoise, lanes: int) -> Posterior:
        """B photos a lane and after them as many pictures of the class, drawn anew each step."""
        own = self._rows_of_prior(found.mean.device)
        count = len(found) // lanes
        which = (draws.uniform(PRIOR, count) * len(own)).long()  # (L, B)
        chosen = own.rows(which.flatten())
        pairs = ((found.mean, chosen.mean), (found.deviation, chosen.deviation))
        mean, deviation = (
            torch.cat([_by_lane(a, lanes), _by_lane(b, lanes)], dim=1).flatten(0, 1)
            for a, b in pairs
        )
        return Posterior(mean, deviation)

    def _rows_of_prior(self, device: torch.device) -> Posterior:
        return self._made().prior.on(device)

    def _drawn(self, found: Posterior, draws: LaneNoise, lanes: int) -> tuple[Tensor, Tensor]:
        """Latents of the pictures, and the noise that is to hide them, (M, k, h, w) each."""
        count = found.mean.numel() // lanes
        first, second = (draws.normal(place, count) for place in (LATENT, NOISE))
        return found.draw(first.view_as(found.mean)), second.view_as(found.mean)

    def _times(self, draws: LaneNoise, count: int, strata: int) -> Tensor:
        """(M,) int64, spread evenly over each ``strata`` rows of a lane."""
        share = draws.uniform(TIME, count)  # (L, count)
        place = torch.arange(count, device=share.device) % strata
        end = self._painter.diffusion.times
        times = ((place + share) / strata * end).long().flatten()
        return times.clamp(max=end - 1)  # rounding may reach the end

    def _losses(
        self, model: Any, x: Tensor, times: Tensor, noise: Tensor, caption: Tensor
    ) -> Tensor:
        """Of rows (M, k, h, w) with these captions, (L, B) -> (L, B) fp32."""
        hidden, target = self._painter.diffusion.corrupt(x, times, noise)
        condition = self._reader.read(model, _TRAINED, len(caption)).rows(caption)
        said = denoise(model.unet, hidden, times, condition, self._side)
        return (said.float() - target).square().mean((1, 2, 3)).view_as(caption)

    def _gain(self, predictions: Tensor, chosen: Tensor) -> float:
        untouched = self._settled().losses[chosen].mean()
        return (1 - predictions[chosen].mean() / untouched).item()

    def _settled(self) -> _Untouched:
        if self._base is None:
            raise RuntimeError(
                "settle() comes before scores: it measures what they are read against"
            )
        return self._base

    # -- samples ----------------------------------------------------------------------------

    def _samples(self, model: Any, lanes: int) -> Tensor:
        """(L, n, 3, R, R) uint8 on the CPU: the prompts in turn, sample i from the seed i."""
        texts = self._reader.read(model, _PROMPTS, lanes)
        number = torch.arange(self._trial.samples)
        captions = 1 + number % len(prompts.OBJECT_PROMPTS)  # after the empty one
        return self._painter.draw(model.unet, texts, captions, number.tolist(), lanes)

    def _judged(
        self, drawn: Tensor, device: torch.device
    ) -> tuple[list[metrics.Scores], metrics.Scores]:
        """What samples (L, n, 3, R, R) are worth, lane by lane, and what the photos are."""
        assert self._judges is not None
        texts = prompts.class_prompts(self.subject.kind, self.subject.live)
        own = torch.arange(drawn.shape[1], device=device) % len(texts)
        with on_device(device, *self._judges.models):
            said = self._judges.read(texts, device)
            subject = self._judges.look(self._photos, device)
            seen = [self._judges.look(lane, device) for lane in drawn]
        asked = None if said is None else said[own]
        return [metrics.fidelity(one, subject, asked) for one in seen], metrics.ceiling(subject)

    def _check_loaded_for(self, trial: Trial) -> None:
        """Tasks are shared by trials, which must not differ in what was read when it was loaded."""
        for name in READ:
            ours, theirs = getattr(self._trial, name), getattr(trial, name)
            if ours != theirs:
                raise RuntimeError(f"the task was loaded with {name}={ours}, trained {theirs}")


def load(trial: Trial, data: str | None) -> DreamBoothTask:
    """The trial's task: its photos in ``data``, its base a hub id or a folder.

    Raises:
        BenchError: see :class:`DreamBoothTask`, ``pipeline.layout`` and ``photos.find``.
    """
    subject = photos.find(data, trial.task.partition("/")[2])
    _train_size(trial, subject)  # before anything large is read
    pipeline.layout(trial.base).side(trial.resolution)
    return DreamBoothTask(trial, subject, pipeline.load(trial.base))


def _train_size(trial: Trial, subject: Subject) -> int:
    there = len(subject.photos) - subject.held_out
    size = there if trial.train_size is None else trial.train_size
    if size > there:
        raise BenchError(
            f"train_size={size}: {subject.name} has {len(subject.photos)} different photos, "
            f"{there} of them to train on"
        )
    return size


def _encoded(vae: Any, pictures: Tensor, like: Posterior) -> Posterior:
    """As ``latents.encode``, on the CPU; no pictures, no rows."""
    if not len(pictures):
        return like.rows(slice(0, 0))
    return latents.encode(vae, pictures).to(torch.device("cpu"))


def _digest(pictures: Tensor) -> str | None:
    """16 hex digits over pictures, None if there are none."""
    if not len(pictures):
        return None
    return hashlib.sha256(pictures.contiguous().numpy().tobytes()).hexdigest()[:16]


def _by_lane(tensor: Tensor, lanes: int) -> Tensor:
    """(M, …) -> (L, B, …)."""
    return tensor.unflatten(0, (lanes, -1))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _checkpoint(module: nn.Module, *inputs: Any) -> Any:
    """Activations computed again in the backward pass.

    Our dropouts are counted, not drawn, and torch's generator cannot be read while a step is
    recorded; it is kept for peft's dropouts, with which no step is.
    """
    recorded = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    return torch.utils.checkpoint.checkpoint(
        module.__call__, *inputs, use_reentrant=False, preserve_rng_state=not recorded
    )
