"""``python -m experiments.tasks.dreambooth BASE SUBJECT OUT``: one adapter, trained and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from experiments.command import Device, DeviceName, err, explained, place
from experiments.errors import BenchError
from experiments.overrides import parse
from experiments.studies.dreambooth_knobs import SHARED
from experiments.trial import Trial

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set a field of the trial, such as `r=16`, `learning_rate=5e-4`, `resolution=512`, "
        "`repeats=100`, `prior_weight=1`, or `text_r=8` with `text_alpha=8` for the text encoder; "
        "may be repeated.",
    ),
]


@app.command()
def main(
    base: Annotated[
        str, typer.Argument(help="Hub id or folder of a Stable Diffusion 1.x, 2.x or XL pipeline.")
    ],
    subject: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="Folder with four photos or more. Its name, less digits at the end, is the word "
            "for what they show: `dog`, `dog2`, `stuffed_animal`.",
        ),
    ],
    out: Annotated[Path, typer.Argument(help="New folder: PEFT's adapters, samples, metrics.")],
    device: DeviceName = Device.AUTO,
    sets: Sets = None,
) -> None:
    """Train one LoKr adapter on photos of a subject, and save it as PEFT does.

    Two photos or more are held out to measure by. Samples are judged by DINO and CLIP from the hub:
    `LOKR_DINO` and `LOKR_CLIP` name other models, or `none`.
    """
    with explained():
        found = subject.resolve()
        trial = _trial(f"dreambooth/{found.name}", base, sets or [])
        where = place(device)
        from experiments.tasks.dreambooth.training import train

        said = train(trial, str(found.parent), out, where, _show)
        Console().print(json.dumps(said, indent=2), highlight=False)


def _trial(task: str, base: str, sets: list[str]) -> Trial:
    fields: dict[str, Any] = {**SHARED, "task": task, "base": base, **dict(map(parse, sets))}
    try:
        return Trial(**fields)
    except ValueError as error:
        raise BenchError(f"--set {error}") from error


def _show(done: int, total: int, loss: float) -> None:
    err.print(f"step {done} of {total}: loss {loss:.4f}", highlight=False)


if __name__ == "__main__":
    app(prog_name="python -m experiments.tasks.dreambooth")
