"""All results as two Parquet files, for whatever else reads tables: one row a trial, one row a
trial and epoch.

A column whose values are of several kinds (target modules: a tuple of names or a word) is text in
JSON. The file's metadata under ``lokr-bench`` says which ones, the version of the results' schema,
and the dtypes, so that reading gives back the frame that was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.load import SCHEMA, load_all

KEY = b"lokr-bench"
TRIALS, EPOCHS = "trials.parquet", "epochs.parquet"
_NATIVE = ("string", "boolean", "integer", "floating", "empty")


class ParquetError(ValueError):
    """A file is no export of this schema, or cannot be written; the message is one line."""


class Exported(NamedTuple):
    """What was written, and path of a file that is no result -> why it is not in there."""

    trials: Path
    epochs: Path
    unread: dict[str, str]


def export(root: Path, out: Path) -> Exported:
    """Write the results of every study under ``root`` to two files in ``out``.

    The same results give the same bytes.

    Args:
        root: the folder that holds ``<study>/<id>.json``.
        out: a folder, made if it is not there.

    Raises:
        FileNotFoundError: there are no results.
        ParquetError: ``out`` cannot be written to.
    """
    results = load_all(root)
    written = Exported(out / TRIALS, out / EPOCHS, results.unread)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write(results.trials, written.trials)
        write(results.epochs, written.epochs)
    except OSError as error:
        raise ParquetError(f"cannot write to {out}: {error.strerror or error}") from error
    return written


def write(frame: pd.DataFrame, path: Path) -> None:
    """One frame of :func:`analysis.load.load_all` as a file.

    Args:
        frame: columns of numbers, flags, text, or values that JSON can spell.
        path: the file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    mixed = [name for name in frame if _is_mixed(frame[name])]
    about = {
        "schema": SCHEMA,
        "json": mixed,
        "dtypes": {name: str(dtype) for name, dtype in frame.dtypes.items()},
    }
    spelled = frame.assign(**{name: _each(frame[name], json.dumps) for name in mixed})
    table = pa.Table.from_pandas(spelled, preserve_index=False)
    # pandas' own metadata names its version: the bytes would change with it.
    table = table.replace_schema_metadata({KEY: json.dumps(about).encode()})
    parquet.write_table(table, path, compression="zstd")


def read(path: Path) -> pd.DataFrame:
    """The frame that :func:`write` was given.

    Raises:
        FileNotFoundError: there is no such file.
        ParquetError: it is no export of this schema.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise ParquetError(f"{path} is no Parquet file ({error})") from error
    about = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    if about.get("schema") != SCHEMA:
        raise ParquetError(f"{path}: schema {about.get('schema')!r}, expected {SCHEMA}")
    frame = table.to_pandas()
    frame = frame.assign(**{name: _each(frame[name], _parsed) for name in about["json"]})
    objects = [name for name, dtype in about["dtypes"].items() if dtype == "object"]
    blanks = {name: _each(frame[name].astype(object), lambda value: value) for name in objects}
    return frame.assign(**blanks)


def _is_mixed(column: pd.Series) -> bool:
    if column.dtype != object:
        return False
    return pd.api.types.infer_dtype(column, skipna=True) not in _NATIVE


def _each(column: pd.Series, turn: Callable[[Any], object]) -> pd.Series:
    """A column of objects: every value turned into another, what is missing None."""
    values = [None if value is None or value != value else turn(value) for value in column]
    return pd.Series(values, index=column.index, dtype=object)


def _parsed(text: str) -> object:
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value
