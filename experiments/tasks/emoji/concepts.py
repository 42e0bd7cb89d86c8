"""What the emoji show, under one name for all designers; captions; the split of concepts.

``concepts.csv`` has a row a concept: its name, its code point, and what each set calls it
("=" where that is the name with hyphens; empty where it has no drawing). It is written by
``join.py`` and committed, so that names, the split and what the base has seen are the same on every
machine, and a held-out style needs no other package than its own. Every concept is drawn in a
training style.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from experiments.errors import BenchError
from experiments.tasks.emoji.sources import SOURCES, Source

TRAINING_STYLES = (
    "noto",
    "noto-v1",
    "twemoji",
    "fluent-emoji-flat",
    "fluent-emoji",
    "emojione",
    "fxemoji",
)
HELD_OUT_STYLES = (
    "openmoji",
    "openmoji-black",
    "fluent-emoji-high-contrast",
    "streamline-emojis",
    "emojione-monotone",
)
STYLES = TRAINING_STYLES + HELD_OUT_STYLES
FILE = Path(__file__).with_name("concepts.csv")
TEST_SHARE = 5
"""One concept of five is in the test split: never shown in a held-out style."""


@dataclass(frozen=True)
class Concept:
    """A concept and the icon that draws it in each style that does."""

    name: str
    code: str
    icons: dict[str, str]


@lru_cache(maxsize=1)
def load() -> tuple[Concept, ...]:
    """All concepts, sorted by name."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_read(row) for row in csv.DictReader(file))


def is_test(concept: str) -> bool:
    """Whether the concept is in the test split: by a hash of its name alone."""
    return int(hashlib.sha256(concept.encode()).hexdigest()[:8], 16) % TEST_SHARE == 0


def caption(concept: str, style: str) -> str:
    """ "<name>, <designer> style"; at most 20 tokens of MiniLM, which `join.py` sees to."""
    return f"{concept}, {source(style).designer} style"


def source(style: str) -> Source:
    """The style's source.

    Raises:
        BenchError: no such style.
    """
    if style not in SOURCES:
        raise BenchError(f"style {style!r} is not known; known are {', '.join(STYLES)}")
    return SOURCES[style]


def _read(row: dict[str, str]) -> Concept:
    name, code = row["name"], row["code"]
    icons = {style: row[style].replace("=", slug(name)) for style in STYLES if row[style]}
    return Concept(name, code, icons)


def slug(name: str) -> str:
    """The name as Iconify's sets spell it."""
    return name.replace(" ", "-")
