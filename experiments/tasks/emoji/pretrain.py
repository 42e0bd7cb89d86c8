"""Trains the base of the emoji task: ``make emoji-base``.

    python -m experiments.tasks.emoji.pretrain --out experiments/tasks/emoji/base

All pictures and caption states of the training styles lie on the device. A step draws 256 rows,
their noise, and timesteps spread evenly over the schedule; one caption in ten is dropped. AdamW in
bf16 autocast; its rate is constant and then falls to zero, by steps or by minutes, whichever is
further along, so that every run ends decayed. What is kept is a running average of the weights, at
the evaluation where its loss on held-out pictures was lowest. A held-out picture is one whose
concept is trained on by other designers only.

``training.json`` beside the weights says what was done; the model card is made from it.

Legend: N pictures; M rows of a batch.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import typer
from torch import Tensor, nn

from experiments import provenance
from experiments.command import INTERRUPTED, Device, DeviceName, explained, place
from experiments.errors import BenchError
from experiments.tasks.emoji import diffusion, text, unet
from experiments.tasks.emoji.text import TextStates

if TYPE_CHECKING:
    from experiments.tasks.emoji.table import Table

TRAINING_FILE = "training.json"
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01
CLIP = 1.0
WARM_UP = 200  # steps
DECAY = 0.38  # the last share of the run, over which the rate falls to zero
DROPPED = 0.1  # captions
AVERAGE_POWER = 16  # weights of the average grow as step^16: its mean age is 1/18 of the run
HELD_OUT_SHARE = 21  # one pair of so many
DRAWS = 4  # of noise and time for each held-out picture
EVALUATION_ROWS = 512
LARGEST_FILE = 16 * 2**20  # bytes


Say = Callable[[str], None]
Ended = Literal["finished", "interrupted", "diverged"]


class _DivergedError(Exception):
    """The held-out loss is no number."""


@dataclass(frozen=True)
class Options:
    """A run's settings; the rest are constants of this module.

    Args:
        steps: at most so many.
        minutes: at most so long, from the second step on: compiling is not counted.
        batch_size: M.
        rate: of AdamW, at its highest.
        seed: of weights and of all draws.
        every: steps between evaluations.
        compiled: through ``torch.compile``.
    """

    steps: int = 20_000
    minutes: float = 8.0
    batch_size: int = 256
    rate: float = 1e-3
    seed: int = 0
    every: int = 500
    compiled: bool = True


@dataclass(frozen=True)
class Pictures:
    """Captioned pictures on a device.

    Args:
        images: (N, 3, 64, 64) uint8.
        text: N captions' states.
    """

    images: Tensor
    text: TextStates

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Pictures:
        return Pictures(self.images[rows], self.text[rows])


@dataclass(frozen=True)
class Exam:
    """Pictures with fixed noise and timesteps, on which two models can be compared.

    Args:
        pictures: K of them, each ``DRAWS`` times.
        t: (K,) int64.
        noise: (K, 12, 32, 32).
    """

    pictures: Pictures
    t: Tensor
    noise: Tensor

    @classmethod
    def of(cls, pictures: Pictures) -> Exam:
        """Timesteps are spread evenly over all rows, in an order drawn once."""
        device, rows = pictures.images.device, DRAWS * len(pictures)
        generator = torch.Generator().manual_seed(0)
        t = diffusion.spread_timesteps(rows)[torch.randperm(rows, generator=generator)]
        noise = torch.randn(rows, *unet.LATENT, generator=generator)
        repeated = torch.arange(len(pictures), device=device).repeat(DRAWS)
        return cls(pictures[repeated], t.to(device), noise.to(device))

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """The mean squared error of v."""
        parts = torch.arange(len(self.t), device=self.t.device).split(EVALUATION_ROWS)
        with autocast(self.t.device):
            losses = [
                losses_of(model, self.pictures[part], self.t[part], self.noise[part])
                for part in parts
            ]
        return torch.cat(losses).double().mean().item()


@dataclass
class Average:
    """The running average of a model's weights, fp32: weight i counts as i^``AVERAGE_POWER``.

    The power-function average of Karras et al. 2024 (arXiv 2312.02696): unlike a fixed decay it
    needs no warm-up, and its length is a share of the run.
    """

    model: nn.Module
    steps: int = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        new = 1 - (1 - 1 / self.steps) ** (AVERAGE_POWER + 1)
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), new)


@dataclass
class Best:
    """The averaged weights where the held-out loss was lowest."""

    loss: float = math.inf
    step: int | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, loss: float, step: int, model: nn.Module) -> None:
        """Keep them if they are better than what was kept."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            self.weights = {name: part.clone() for name, part in model.state_dict().items()}


class Trainer:
    """One run.

    Args:
        model: freshly drawn, on the device of the pictures.
        pictures: to train on.
        held_out: never trained on.
        options: of the run.
        say: gets a line an evaluation.

    Raises:
        BenchError: there is nothing to train on or to hold out.
    """

    def __init__(
        self,
        model: nn.Module,
        pictures: Pictures,
        held_out: Pictures,
        options: Options,
        say: Say = lambda line: None,
    ) -> None:
        if not len(pictures) or not len(held_out):
            raise BenchError(
                f"{len(pictures)} pictures to train on and {len(held_out)} held out: "
                "each needs one at least"
            )
        self.options, self.say, self.pictures = options, say, pictures
        self.model = model.train()
        self.average = Average(copy.deepcopy(model).eval().requires_grad_(False))
        self.device = pictures.images.device
        self.exams = {"held_out": Exam.of(held_out), "seen": Exam.of(_some(pictures, held_out))}
        self.optimizer = torch.optim.AdamW(
            model.parameters(), options.rate, BETAS, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.best = Best()
        self.curve: list[dict[str, float]] = []
        self.step = 0
        self.seconds = 0.0
        self.first_step_seconds: float | None = None

    def run(self) -> Ended:
        """Train to the end, until Ctrl-C, or until the loss is no number any more.

        Raises:
            BenchError: there was no evaluation before that, so that there is nothing to keep.
        """
        ended: Ended = "finished"
        try:
            self._train()
        except KeyboardInterrupt:
            ended = "interrupted"
        except _DivergedError:
            ended = "diverged"
        if self.best.step is None:
            raise BenchError(f"{ended} at step {self.step}, before the first evaluation: not saved")
        return ended

    def _train(self) -> None:
        generator = torch.Generator(self.device).manual_seed(self.options.seed)
        rows = row_numbers(len(self.pictures), self.options.batch_size, generator)
        answer = torch.compile(self.model, dynamic=False) if self.options.compiled else self.model
        seen = self._first_step(answer, rows, generator)  # losses since the last evaluation
        progress = 0.0
        while progress < 1:
            self._set_rate(progress)
            seen += self._step(answer, next(rows), generator)
            progress = self._progress()
            if self.step % self.options.every == 0 or progress >= 1:
                self._evaluate(seen)
                seen.zero_()

    def _first_step(self, answer: Any, rows: Iterator[Tensor], generator: Any) -> Tensor:
        """Compile, in a step of rate zero, and give its loss; the clock starts after it."""
        began = time.perf_counter()
        self._set_rate(0.0)
        loss = self._step(answer, next(rows), generator)
        loss.item()  # waits for the device
        self.first_step_seconds = time.perf_counter() - began
        how = "compiled" if self.options.compiled else "not compiled"
        self.say(f"first step ({how}) took {self.first_step_seconds:.1f} s")
        self._started = time.perf_counter()
        return loss

    def _step(self, answer: Any, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One step; its mean loss, still on the device."""
        batch = self.pictures[rows]
        t = diffusion.spread_timesteps(len(rows), generator)
        noise = torch.randn(len(rows), *unet.LATENT, generator=generator, device=self.device)
        told = torch.rand(len(rows), generator=generator, device=self.device) >= DROPPED
        with autocast(self.device):
            loss = losses_of(answer, batch, t, noise, told).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.model)
        self.step += 1
        return loss.detach()

    def _progress(self) -> float:
        """Share of the run that is behind us: of its steps or of its time."""
        self.seconds = time.perf_counter() - self._started
        return max(self.step / self.options.steps, self.seconds / (60 * self.options.minutes))

    def _set_rate(self, progress: float) -> None:
        rate = self.options.rate * rate_factor(self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _evaluate(self, seen: Tensor) -> None:
        last = self.curve[-1]["step"] if self.curve else 0
        train_loss = seen.item() / (self.step - last)  # waits for the device
        self.seconds = time.perf_counter() - self._started
        point = {
            "step": self.step,
            "images": self.step * self.options.batch_size,
            "seconds": self.seconds,
            "rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            **{f"{name}_loss": exam.loss(self.average.model) for name, exam in self.exams.items()},
        }
        self.curve.append(point)
        if not math.isfinite(point["held_out_loss"]):
            raise _DivergedError
        self.best.offer(point["held_out_loss"], self.step, self.average.model)
        self.say(
            f"step {self.step:6d}  {self.seconds:6.1f} s  "
            f"{point['images'] / self.seconds:6.0f} images/s  "
            f"rate {point['rate']:.2e}  train {point['train_loss']:.4f}  "
            f"seen {point['seen_loss']:.4f}  held out {point['held_out_loss']:.4f}"
        )


def losses_of(
    model: Any, batch: Pictures, t: Tensor, noise: Tensor, told: Tensor | None = None
) -> Tensor:
    """Squared error of v a row, (M,); rows where ``told`` (M,) is False have no caption."""
    x0 = unet.to_latents(batch.images).to(memory_format=unet.layout(t.device))
    states, pooled = batch.text.states, batch.text.pooled
    if told is not None:
        states, pooled = states * told[:, None, None], pooled * told[:, None]
    return diffusion.row_losses(model, x0, t, noise, states, pooled)


def rate_factor(step: int, progress: float) -> float:
    """Share of the highest rate: linear warm-up, constant, linear to zero at progress 1."""
    return min(1.0, step / WARM_UP, max(0.0, 1 - progress) / DECAY)


def row_numbers(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches (size,) without end: every row once before any row comes again."""
    left = torch.empty(0, dtype=torch.int64, device=generator.device)
    while True:
        while len(left) < size:
            order = torch.randperm(count, generator=generator, device=generator.device)
            left = torch.cat([left, order])
        yield left[:size]
        left = left[size:]


def quiet_start(model: nn.Module) -> None:
    """Make the model's answer, and what each residual block adds, zero at first.

    As in Dhariwal & Nichol 2021 (arXiv 2105.05233): every block starts as the identity.
    """
    last = ("conv_out", ".conv2", ".proj_out")
    for name, module in model.named_modules():
        if name.endswith(last) and isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def is_held_out(concept: str, style: str) -> bool:
    """Whether the pair may be held out from the base's training: by a hash of its names."""
    digest = hashlib.sha256(f"{concept}\0{style}\0base".encode()).hexdigest()
    return int(digest[:8], 16) % HELD_OUT_SHARE == 0


def split(concepts: Sequence[str], styles: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Numbers of the rows to train on and of those held out; every concept is trained on."""
    drawn = [is_held_out(*pair) for pair in zip(concepts, styles, strict=True)]
    known = {concept for concept, out in zip(concepts, drawn, strict=True) if not out}
    held_out = torch.tensor(
        [out and concept in known for concept, out in zip(concepts, drawn, strict=True)],
        dtype=torch.bool,
    )
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bf16 on a GPU; a CPU trains in fp32."""
    if device.type == "cpu":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def pictures_of(table: Table, device: torch.device) -> Pictures:
    """A table on the device, its captions encoded there; states are kept in fp16."""
    return Pictures(table.images.to(device), text.encode(table.captions, device).to(torch.float16))


def draw(options: Options, device: torch.device, config: dict[str, Any] | None = None) -> Any:
    """The untrained U-Net of a seed, on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = unet.build(config)
    quiet_start(model)
    return model.to(device, memory_format=unet.layout(device))


def save(trainer: Trainer, folder: Path, ended: Ended, data: dict[str, Any]) -> None:
    """Write the best averaged weights and ``training.json``.

    Raises:
        BenchError: the weights' file is larger than ``LARGEST_FILE``.
    """
    trainer.average.model.load_state_dict(trainer.best.weights)
    file = unet.save(trainer.average.model, folder)
    size = file.stat().st_size
    if size >= LARGEST_FILE:
        raise BenchError(f"{file}: {size} bytes, fewer than {LARGEST_FILE} are allowed")
    record = report(trainer, ended, data) | {"file_bytes": size}
    (folder / TRAINING_FILE).write_text(json.dumps(record, indent=2) + "\n")


def report(trainer: Trainer, ended: Ended, data: dict[str, Any]) -> dict[str, Any]:
    """What was done, as ``training.json`` has it."""
    best = next(point for point in trainer.curve if point["step"] == trainer.best.step)
    curve = [
        {key: value if math.isfinite(value) else None for key, value in point.items()}
        for point in trainer.curve
    ]
    return {
        "ended": ended,
        "parameters": sum(part.numel() for part in trainer.model.parameters()),
        "steps": trainer.step,
        "images": trainer.step * trainer.options.batch_size,
        "seconds": trainer.seconds,
        "first_step_seconds": trainer.first_step_seconds,
        "kept_step": trainer.best.step,
        "held_out_loss": best["held_out_loss"],
        "seen_loss": best["seen_loss"],
        "options": asdict(trainer.options),
        "data": data,
        "provenance": provenance.collect(str(trainer.device)),
        "curve": curve,
    }


def _some(pictures: Pictures, like: Pictures) -> Pictures:
    """As many pictures as ``like`` has, a fixed choice."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    return pictures[order[: len(like)].to(pictures.images.device)]


def train(
    options: Options, device: torch.device, folder: Path, say: Callable[[str], None]
) -> Ended:
    """Train on the real pictures and save."""
    from experiments.tasks.emoji import table as tables
    from experiments.tasks.emoji.concepts import TRAINING_STYLES

    table = tables.load(TRAINING_STYLES)
    pictures = pictures_of(table, device)
    ours, held_out = split(table.concepts, table.styles)
    say(f"{len(ours)} pictures to train on, {len(held_out)} held out")
    model = draw(options, device)
    parts = (pictures[rows.to(device)] for rows in (ours, held_out))
    trainer = Trainer(model, *parts, options, say)
    data = {"styles": list(TRAINING_STYLES), "train": len(ours), "held_out": len(held_out)}
    data |= {"sha256": table.fingerprint}
    ended = trainer.run()
    save(trainer, folder, ended, data)
    say(f"{ended}; saved: held out {trainer.best.loss:.4f} at step {trainer.best.step}")
    return ended


def main(
    out: Annotated[Path, typer.Option(help="Folder of the weights and the model card.")],
    steps: Annotated[int, typer.Option(min=2, help="At most so many steps.")] = Options.steps,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="At most so long, compiling not counted.")
    ] = Options.minutes,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = Options.batch_size,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and draws.")] = Options.seed,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Through torch.compile.")
    ] = Options.compiled,
    card: Annotated[bool, typer.Option(help="Judge the base and write its model card.")] = True,
    device: DeviceName = Device.AUTO,
) -> None:
    """Train the base of the emoji task. Ctrl-C ends it and keeps what is there."""
    options = Options(steps, minutes, batch_size, seed=seed, compiled=compiled)
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:7.1f}  {line}", flush=True)

    with explained():
        where = torch.device(place(device).value)
        torch.backends.cudnn.benchmark = where.type == "cuda"
        ended = train(options, where, out, say)
        if ended == "interrupted":
            raise typer.Exit(INTERRUPTED)
        if card:
            from experiments.tasks.emoji import card as cards

            cards.write(out, where, say)


if __name__ == "__main__":
    typer.run(main)
