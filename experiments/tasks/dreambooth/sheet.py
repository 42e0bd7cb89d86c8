"""Pictures as files: one PNG, or many on one sheet.

Legend: N pictures; R side in pixels.
"""

from __future__ import annotations

import io
import math

import torch
from torch import Tensor

CELL = 256
"""Pixels a side that a picture has on a sheet at most."""
COLUMNS = 5
_WHITE = 255


def png(picture: Tensor) -> bytes:
    """(3, R, R) uint8 -> a PNG file."""
    return _file(picture, "PNG")


def sheet(pictures: Tensor, columns: int = COLUMNS) -> bytes:
    """(N, 3, R, R) uint8 -> a WebP file with all of them, row by row."""
    cells = _shrunk(pictures.cpu())
    rows = math.ceil(len(cells) / columns)
    missing = rows * columns - len(cells)
    blank = cells.new_full((missing, *cells.shape[1:]), _WHITE)
    side = cells.shape[-1]
    grid = torch.cat([cells, blank]).view(rows, columns, 3, side, side)
    return _file(grid.permute(2, 0, 3, 1, 4).reshape(3, rows * side, columns * side), "WEBP")


def _shrunk(pictures: Tensor) -> Tensor:
    side = pictures.shape[-1]
    if side <= CELL:
        return pictures
    small = torch.nn.functional.interpolate(
        pictures.float(), (CELL, CELL), mode="bilinear", antialias=True
    )
    return small.round().clamp(0, 255).to(torch.uint8)


def _file(picture: Tensor, kind: str) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(content, kind)
    return content.getvalue()
