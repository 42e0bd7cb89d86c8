"""What the page carries with it: Vega-Lite for its charts, DataTables for its table, our own style
and script. All of it is inlined, so that nothing is ever asked of a network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources

_EXPORTS = re.compile(r"export\s*\{([^{}]*)\};?")
_SCRIPTS = ("filters.js", "charts.js", "table.js", "pictures.js", "page.js")
_DANGEROUS = re.compile(r"<(?=!--|/?script)", re.IGNORECASE)
"""What a browser would take for markup in the middle of a script."""


def scripts() -> list[str]:
    """The page's modules in the order in which they run: the libraries, then our own."""
    own = "\n".join(_read(name) for name in _SCRIPTS)
    return [inline(text) for text in (_vega(), _datatables(), own)]


def style() -> str:
    """The page's style sheet."""
    return _read("page.css")


def inline(script: str) -> str:
    """The same script, spelled so that it can stand in a page: ``<`` as an escape before what ends
    or hides a script. In strings and in regular expressions, where alone it occurs, both are one.
    """
    return _DANGEROUS.sub(r"\\x3c", script)


def data(values: object) -> str:
    """JSON to stand in a page: no character in it can end its element.

    Raises:
        ValueError: a number is not finite; missing is null.
    """
    text = json.dumps(values, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def policy(texts: Sequence[str]) -> str:
    """The page's Content-Security-Policy: these scripts and no other, no request to anywhere.

    Vega and DataTables set styles of elements, which only ``unsafe-inline`` allows.
    """
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in texts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _vega() -> str:
    import vl_convert

    return vl_convert.javascript_bundle()


def _datatables() -> str:
    """The bundle of itables, its exports as a global: there is no file to import them from."""
    bundle = (resources.files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    return _EXPORTS.sub(_as_global, bundle)


def _as_global(exports: re.Match[str]) -> str:
    pairs = (pair.split(" as ") for pair in exports[1].split(","))
    return "window.tables={" + ",".join(f"{name}:{own}" for own, name in pairs) + "};"


def _read(name: str) -> str:
    return (resources.files("analysis.report") / name).read_text(encoding="utf-8")
