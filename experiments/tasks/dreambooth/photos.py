"""Folders of photos in DreamBooth's layout: a folder a subject, a class word each.

    PHOTOS/dog2/00.jpg …               the class word is the folder's name, trailing digits dropped
    PHOTOS/prompts_and_classes.txt     the benchmark's own list of class words, if it is there
    PHOTOS/classes.json                the user's: {"dog2": {"class": "dog", "token": "sks",
                                       "live": true}}, every key optional; counts before the others

Legend: N photos; R side of a picture in pixels.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.errors import BenchError
from experiments.tasks.dreambooth.prompts import LIVE_CLASSES, TOKEN

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LEAST = 4
"""Photos of a subject: two to train on, one that chooses the rate and the epoch, one to report."""
HELD_OUT = 2
"""Photos held out at least; more where a quarter of them is more."""
_KEYS: dict[str, type] = {"class": str, "token": str, "live": bool}


@dataclass(frozen=True)
class Subject:
    """One subject and what is said of it.

    Args:
        name: its folder.
        kind: class word, "dog".
        token: what stands for it in captions, "sks".
        live: whether it gets the prompts for live subjects.
        photos: files, equal ones once, in the order of a hash of their content.
        digest: 16 hex digits over the photos' content.
    """

    name: str
    kind: str
    token: str
    live: bool
    photos: tuple[Path, ...]
    digest: str

    @property
    def held_out(self) -> int:
        """Photos that are not trained on, the last ones."""
        return max(HELD_OUT, len(self.photos) // 4)


def find(folder: str | None, name: str) -> Subject:
    """The subject in ``folder/name``; no picture is decoded.

    Raises:
        BenchError: no folder is given, there is no such subject, it has too few photos, or what
            ``classes.json`` says of it is not understood.
    """
    if folder is None:
        raise BenchError(
            "dreambooth: --data is missing: a folder with a folder of photos for each subject, "
            "PHOTOS/dog/*.jpg"
        )
    root = Path(folder)
    if not (root / name).is_dir():
        there = sorted(path.name for path in root.iterdir() if _shown(path))
        raise BenchError(f"task 'dreambooth/{name}': {root} has {', '.join(there) or 'no folder'}")
    said = _said(root, name)
    kind = said.get("class") or _benchmark_classes(root).get(name) or _class_of(name)
    photos, digest = _photos(root / name)
    return Subject(
        name=name,
        kind=kind,
        token=said.get("token", TOKEN),
        live=said.get("live", kind in LIVE_CLASSES),
        photos=photos,
        digest=digest,
    )


def read(paths: Sequence[Path], side: int) -> Tensor:
    """Photos as (N, 3, R, R) uint8: upright, the shorter side scaled to R, the middle cut out.

    Raises:
        BenchError: one cannot be read.
    """
    return torch.stack([_read(path, side) for path in paths])


def _read(path: Path, side: int) -> Tensor:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            square = ImageOps.fit(
                ImageOps.exif_transpose(image).convert("RGB"),
                (side, side),
                Image.Resampling.LANCZOS,
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BenchError(
            f"photo {path}: cannot be read as a picture ({error}); expected one of "
            f"{', '.join(SUFFIXES)}"
        ) from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _photos(folder: Path) -> tuple[tuple[Path, ...], str]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    by_hash = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}
    if len(by_hash) < LEAST:
        raise BenchError(
            f"{folder}: {len(by_hash)} different photos ({', '.join(SUFFIXES)}), expected {LEAST} "
            f"or more: {HELD_OUT} of them are never trained on"
        )
    digest = hashlib.sha256("".join(sorted(by_hash)).encode()).hexdigest()[:16]
    return tuple(by_hash[key] for key in sorted(by_hash)), digest


def _shown(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _class_of(name: str) -> str:
    """``dog2`` -> dog, ``stuffed_animal`` -> stuffed animal."""
    return re.sub(r"[_\s]+", " ", re.sub(r"\d+$", "", name)).strip() or name


def _benchmark_classes(root: Path) -> dict[str, str]:
    """Subject -> class word from DreamBooth's own file, lines of ``subject,class``."""
    path = root / "prompts_and_classes.txt"
    if not path.is_file():
        return {}
    rows = re.findall(r"^([\w-]+),([\w -]+)$", path.read_text("utf-8"), re.MULTILINE)
    return {subject: kind.strip() for subject, kind in rows}


def _said(root: Path, name: str) -> Mapping[str, Any]:
    """What ``classes.json`` says of a subject."""
    path = root / "classes.json"
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text("utf-8")).get(name, {})
    except (ValueError, AttributeError) as error:
        raise BenchError(f"{path}: expected JSON, subject -> its class ({error})") from error
    said = {"class": said} if isinstance(said, str) else said
    known = isinstance(said, dict) and said.keys() <= _KEYS.keys()
    if not known or not all(isinstance(said[key], _KEYS[key]) and said[key] != "" for key in said):
        raise BenchError(
            f"{path}: {name!r} is {said!r}, expected class and token (text) and live (true or "
            "false), or the class word alone"
        )
    return said
