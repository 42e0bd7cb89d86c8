"""SVG to 64x64 pixels on white, with resvg.

svg -> view box made square and centered, ``frame`` sides wide -> resvg -> (64, 64, 3)
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from experiments.errors import BenchError

SIZE = 64
"""Side of a picture in pixels."""
WHITE = 250
"""A picture whose every value is above this is blank."""

_ROOT = re.compile(r"<svg\b[^>]*>")


class UnreadableError(ValueError):
    """An SVG that gives no picture; the message says why."""


def render(svg: str, frame: float = 1.0) -> NDArray[np.uint8]:
    """Draw an SVG on white; ``currentColor`` is black.

    Args:
        svg: a whole SVG with a view box.
        frame: side of the square that is drawn, in longer sides of the view box, around its center.

    Returns:
        (64, 64, 3), uint8.

    Raises:
        UnreadableError: the SVG cannot be read, or shows nothing.
        BenchError: resvg-py is not installed.
    """
    from PIL import Image

    png = _rasterize(_framed(svg.replace("currentColor", "#000"), frame))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    if pixels.shape != (SIZE, SIZE, 3):
        raise UnreadableError(f"drawn {pixels.shape[1]}x{pixels.shape[0]}, not {SIZE}x{SIZE}")
    if pixels.min() > WHITE:
        raise UnreadableError("blank")
    return pixels


def _framed(svg: str, frame: float) -> str:
    """The SVG with a square view box, so that the aspect is kept and the picture centered."""
    found = _ROOT.search(svg)
    if found is None:
        raise UnreadableError("no <svg> element")
    left, top, width, height = _view_box(found.group())
    side = frame * max(width, height)
    box = f"{left + (width - side) / 2:g} {top + (height - side) / 2:g} {side:g} {side:g}"
    kept = re.sub(r'\s(?:viewBox|width|height)="[^"]*"', "", found.group()[:-1])
    root = f'{kept} viewBox="{box}" width="{SIZE}" height="{SIZE}">'
    return svg[: found.start()] + root + svg[found.end() :]


def _view_box(root: str) -> tuple[float, float, float, float]:
    try:
        numbers = ElementTree.fromstring(root[:-1] + "/>").get("viewBox", "").split()
        left, top, width, height = (float(number) for number in numbers)
    except (ElementTree.ParseError, ValueError):
        raise UnreadableError("no viewBox of four numbers") from None
    return left, top, width, height


def _rasterize(svg: str) -> bytes:
    try:
        import resvg_py
    except ImportError:
        raise BenchError(
            "emoji are drawn with resvg-py, which is not installed: run `pip install resvg-py`"
        ) from None
    try:
        # No fonts: a picture must not depend on those of the machine.
        return bytes(
            resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", skip_system_fonts=True)
        )
    except ValueError as error:
        raise UnreadableError(str(error).strip().splitlines()[0]) from None
