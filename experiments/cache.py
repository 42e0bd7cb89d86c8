"""Where downloads and what is made of them are kept between runs.

``$LOKR_CACHE`` if it is set, else ``lokr-bench`` in ``$XDG_CACHE_HOME``, else in ``~/.cache``.
Everything in it can be had again: deleting it costs time only. A file is written under a temporary
name and renamed, so that a run that was killed, or a second one beside it, leaves no half file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from experiments.errors import BenchError

VARIABLE = "LOKR_CACHE"


def root() -> Path:
    """The cache folder; it may not exist yet."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "lokr-bench"
    return Path.home() / ".cache" / "lokr-bench"


def folder(*parts: str) -> Path:
    """A folder of the cache, made if it is missing.

    Raises:
        BenchError: it cannot be made.
    """
    path = root().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(path, error) from error
    return path


def write(path: Path, writer: Callable[[Path], None]) -> Path:
    """Let ``writer`` write to a temporary path beside ``path``, then rename it to ``path``.

    Raises:
        BenchError: the cache cannot be written to; what ``writer`` raises otherwise passes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        writer(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):  # what went wrong before is what matters
            temporary.unlink()
    return path


def _refused(path: Path, error: OSError) -> BenchError:
    return BenchError(
        f"cache: {path} cannot be written ({error.strerror or error}); "
        f"set {VARIABLE} to a folder that can"
    )
