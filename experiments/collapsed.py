"""What a study's grid has no result files for: ``results/<study>/collapsed.jsonl``.

A trial that equals another one never runs (``experiments.plan``), so files of results alone do not
tell a hole that says something from one that says nothing. One line a collapsed trial:

    id      of the trial that did not run
    trial   all its fields
    equals  id of the trial that stands for it, whose result is in the same folder once it ran
    reason  why they are equal

The lines hang on the study alone, not on what has run or on the shard: every run writes the same
file. What another run of the folder recorded (with ``--set`` or a larger ``--limit``) stays.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from experiments.plan import Collapsed
from experiments.store import Store, StoreError, write_then_rename

NAME = "collapsed.jsonl"
_log = logging.getLogger(__name__)


def record(store: Store, study: str, collapsed: Sequence[Collapsed]) -> None:
    """Write the file, whole or not at all; none if there is nothing to say.

    Args:
        store: where the results are; the study's folder exists.
        study: its name.
        collapsed: from :func:`experiments.plan.collapse`, of the whole study.

    Raises:
        StoreError: the file cannot be read or written.
    """
    path = store.folder(study) / NAME
    try:
        before = path.read_bytes() if path.exists() else b""
        lines = _known(before, str(path)) | {one.trial.id: _line(one) for one in collapsed}
        content = "".join(f"{lines[key]}\n" for key in sorted(lines)).encode()
        if content != before:
            write_then_rename(path, content)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _line(one: Collapsed) -> str:
    values = {
        "id": one.trial.id,
        "trial": one.trial.to_dict(),
        "equals": one.representative.id,
        "reason": one.reason,
    }
    return json.dumps(values, allow_nan=False)


def _known(content: bytes, path: str) -> dict[str, str]:
    """Id -> line of what is recorded already; a damaged file is made again, and that is said."""
    try:
        lines = content.decode().splitlines()
        return {json.loads(line)["id"]: line for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("%s was damaged (%s) and is written anew", path, error)
        return {}
