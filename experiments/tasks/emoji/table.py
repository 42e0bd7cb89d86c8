"""All pictures with their captions as one table, drawn once and cached as parquet.

    python -m experiments.tasks.emoji.table --sheet sheet.png

A style is one parquet file in the cache folder (concept, raw pixels), named by a hash of the
pinned package, the concepts and ``VERSION``: whatever may change the pictures gives another file.
A machine that has the files needs neither the packages nor resvg.

Legend: N pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments import cache
from experiments.errors import BenchError
from experiments.tasks.emoji import concepts, sources
from experiments.tasks.emoji.concepts import STYLES, Concept
from experiments.tasks.emoji.render import SIZE, UnreadableError, render

VERSION = 1
"""Raise it when the code draws other pixels from the same packages."""
PIXELS = SIZE * SIZE * 3


@dataclass(frozen=True)
class Table:
    """Captioned pictures, sorted by style, then concept; every field has N entries.

    Attributes:
        concepts: what each shows.
        styles: whose each is.
        captions: "<concept>, <designer> style".
        images: (N, 3, 64, 64), uint8, RGB on white.
    """

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    captions: tuple[str, ...]
    images: Tensor

    def where(self, style: str | None = None, test: bool | None = None) -> Tensor:
        """Numbers of the pictures of a style and of a split, ascending; None takes all. int64.

        Raises:
            BenchError: the table has no such style.
        """
        if style is not None and style not in self.styles:
            loaded = ", ".join(sorted(set(self.styles)))
            raise BenchError(f"style {style!r} is not in this table; it has {loaded}")
        rows = [
            row
            for row, (concept, whose) in enumerate(zip(self.concepts, self.styles, strict=True))
            if style in (None, whose) and test in (None, concepts.is_test(concept))
        ]
        return torch.tensor(rows, dtype=torch.int64)

    def need(self, style: str, count: int, test: bool = False) -> None:
        """Check that a style has ``count`` pictures in a split.

        Raises:
            BenchError: it has fewer.
        """
        has = len(self.where(style, test))
        if count > has:
            split = "test" if test else "training"
            raise BenchError(
                f"style {style!r}: {count} images asked for, and its {split} split has {has}"
            )

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over captions and pixels."""
        digest = hashlib.sha256("\n".join(self.captions).encode())
        digest.update(np.ascontiguousarray(self.images.numpy()).data)
        return digest.hexdigest()[:16]


def load(styles: Sequence[str]) -> Table:
    """The pictures of the styles, drawn if they are not in the cache.

    Raises:
        BenchError: no style, an unknown one, or a package that cannot be had.
    """
    if not styles:
        raise BenchError(f"no style is named; known are {', '.join(STYLES)}")
    names: list[str] = []
    owners: list[str] = []
    pixels = []
    for style in sorted(set(styles)):
        drawn, images = _load_style(concepts.source(style))
        names += drawn
        owners += [style] * len(drawn)
        pixels.append(images)
    captions = (concepts.caption(*pair) for pair in zip(names, owners, strict=True))
    images = torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2).contiguous()
    return Table(tuple(names), tuple(owners), tuple(captions), images)


def cached(style: str) -> Path:
    """Where the style's pictures are kept; the file may not exist yet."""
    source = concepts.source(style)
    folder = cache.folder("emoji")
    return folder / f"{style}-{_key(source)}.parquet"


def _load_style(source: sources.Source) -> tuple[list[str], NDArray[np.uint8]]:
    import pyarrow
    import pyarrow.parquet as parquet

    path = cached(source.style)
    if not path.is_file():
        build(source)
    try:
        table = parquet.read_table(path)
        names: list[str] = table.column("concept").to_pylist()
        column = table.column("pixels").combine_chunks()
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise BenchError(f"{path} cannot be read ({error}): delete it and run again") from error
    # A fixed-size column is one buffer, its rows end to end.
    buffer = np.frombuffer(column.buffers()[1], dtype=np.uint8)
    return names, buffer[: len(names) * PIXELS].reshape(-1, SIZE, SIZE, 3)


def build(source: sources.Source) -> Path:
    """Draw a style and cache it; what cannot be drawn is named and left out.

    Returns:
        The parquet file: ``concept`` (string), ``pixels`` (64 x 64 x 3 bytes); in its metadata,
        ``left_out`` (JSON, concept to reason) and ``resvg``.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    wanted = [concept for concept in concepts.load() if source.style in concept.icons]
    left_out: dict[str, str] = {}
    drawn = list(_draw(source, wanted, left_out))
    if not drawn:
        raise BenchError(f"style {source.style!r}: none of its {len(wanted)} drawings can be drawn")
    table = pyarrow.table(
        {
            "concept": pyarrow.array([name for name, _ in drawn]),
            "pixels": pyarrow.array([p.tobytes() for _, p in drawn], pyarrow.binary(PIXELS)),
        },
        metadata={"left_out": json.dumps(left_out), "resvg": _resvg_version()},
    )
    # One row group: its column comes back as one buffer.
    return cache.write(
        cached(source.style),
        lambda path: parquet.write_table(
            table, path, compression="zstd", use_dictionary=False, row_group_size=len(drawn)
        ),
    )


def left_out(style: str) -> dict[str, str]:
    """Concepts of a built style that could not be drawn, and why."""
    import pyarrow.parquet as parquet

    found: dict[str, str] = json.loads(parquet.read_schema(cached(style)).metadata[b"left_out"])
    return found


def _draw(
    source: sources.Source, wanted: Sequence[Concept], left_out: dict[str, str]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """(concept, picture) in order; what is left out goes to ``left_out`` and to stderr."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    svg_of = sources.drawings(source)
    seen: dict[bytes, str] = {}
    for concept in track(wanted, f"{source.style}: drawing", console=console, transient=True):
        try:
            pixels = render(svg_of(concept.icons[source.style]), source.frame)
        except (UnreadableError, KeyError, OSError) as error:
            left_out[concept.name] = f"{type(error).__name__}: {error}"
            continue
        # Without color, red and blue hearts are one picture: on both sides of the split, it would
        # show a test drawing in training; and nothing could tell which was meant.
        first = seen.setdefault(pixels.tobytes(), concept.name)
        if first == concept.name:
            yield concept.name, pixels
        else:
            left_out[concept.name] = f"same pixels as {first!r}"
    if left_out:
        listed = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
        console.print(
            f"{source.style}: {len(left_out)} of {len(wanted)} left out: {listed}", soft_wrap=True
        )


def _key(source: sources.Source) -> str:
    drawn = {c.name: c.icons[source.style] for c in concepts.load() if source.style in c.icons}
    parts = [VERSION, SIZE, source.style, source.requirement, source.integrity, source.frame, drawn]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _resvg_version() -> str:
    from importlib.metadata import version

    return version("resvg-py")


def sheet(table: Table, names: Sequence[str]) -> Any:
    """A picture of the table: a row a concept, a column a style (sorted); grey where there is none.

    Returns:
        A PIL image.
    """
    from PIL import Image

    columns = sorted(set(table.styles))
    row_of = {key: i for i, key in enumerate(zip(table.concepts, table.styles, strict=True))}
    canvas = Image.new("RGB", (len(columns) * SIZE, len(names) * SIZE), "#d0d0d0")
    for y, name in enumerate(names):
        for x, style in enumerate(columns):
            if (row := row_of.get((name, style))) is not None:
                pixels = table.images[row].permute(1, 2, 0).numpy()
                canvas.paste(Image.fromarray(pixels), (x * SIZE, y * SIZE))
    return canvas


def main(arguments: Sequence[str] | None = None) -> None:
    """Build or load styles and print what they hold."""
    parser = argparse.ArgumentParser(description="Draw and count the emoji.")
    parser.add_argument("--style", action="append", help="one style; may be repeated (all)")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet to this PNG")
    parser.add_argument("--rows", type=int, default=24, help="concepts on the sheet (24)")
    parser.add_argument("--skip", type=int, default=0, help="concepts before the sheet's first (0)")
    options = parser.parse_args(arguments)
    table = load(options.style or STYLES)
    _print_counts(table)
    if options.sheet:
        names = sorted(set(table.concepts))[options.skip : options.skip + options.rows]
        sheet(table, names).save(options.sheet)
        print(f"{options.sheet}: {', '.join(names)}")


def _print_counts(table: Table) -> None:
    pairs = zip(table.styles, map(concepts.is_test, table.concepts), strict=True)
    count = Counter(pairs)
    print(f"{'style':28}{'training':>9}{'test':>6}{'left out':>10}  license")
    for style in sorted(set(table.styles)):
        license = concepts.source(style).license
        missing = len(left_out(style))
        print(f"{style:28}{count[style, False]:9}{count[style, True]:6}{missing:10}  {license}")
    print(f"{len(table.styles)} pictures of {len(set(table.concepts))} concepts")
    print(f"fingerprint {table.fingerprint}")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        raise SystemExit(f"error: {error}") from None
