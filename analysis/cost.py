"""What training costs, as frames: trials measured alone (``results/cost``), and ours beside its
peers (``results/bench``). Seconds in results of trials are shares of packs and never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import ForeignError, hashable, origin, parsed
from analysis.part import Part

SCHEMA = 1
PACKED = "packed"
WAYS = {
    PACKED: "ours, packed",
    "captured": "PEFT LoKr in our loop, in a CUDA graph",
    "unpacked": "PEFT LoKr in our loop, launched from Python",
    "trainer": "PEFT LoKr in transformers' Trainer",
}
"""Parts of ``bench sweep`` that train, fastest first, for people."""
SWEEPS = ("study", "base", "task", "way", "label", "seconds", "slower", "timed", "trials")
MEASURED = (
    "step_p50_ms",
    "step_p95_ms",
    "to_frozen",
    "to_frozen_low",
    "to_frozen_high",
    "rows_per_second",
    "tokens_per_second",
    "forward_ms",
    "backward_ms",
    "optimizer_ms",
    "frozen_p50_ms",
    "peak_bytes",
    "captured_peak_bytes",
    "kept_bytes",
    "frozen_peak_bytes",
    "joules_per_1000",
    "watts",
    "adapter_bytes",
    "head_bytes",
    "answer_adapted_ms",
    "answer_merged_ms",
    "batch_adapted_ms",
    "batch_merged_ms",
)
"""Columns of :func:`load` that hold numbers of a measurement, NaN where it could not be made."""


def load(root: Path) -> pd.DataFrame:
    """Every measurement in ``<root>/cost/<study>/<hardware>/<id>.json``.

    Args:
        root: the folder of all results.

    Returns:
        One row a trial that was measured alone: ``study``, ``hardware``, ``id`` (as in its
        result), ``cell`` (as the study labels it), the trial's fields, ``mode`` (captured: the
        step replayed from a CUDA graph; eager), ``rows`` of a step, those of ``MEASURED``,
        ``parameters.<name>``, ``energy_reason`` (why there is no energy) and ``provenance.<name>``.
        Times are in milliseconds. ``to_frozen`` is the median ratio of a step to the frozen base's,
        low and high its quartiles. ``peak_bytes`` is allocated in eager steps, which every method
        has; ``answer`` is for one row, ``batch`` for a training batch. No row and no column but
        ``study``, ``hardware``, ``id`` and ``cell`` where nothing was measured.
        ``frame.attrs["unread"]``: path of a file that holds no measurement -> why.
    """
    return _frame(sorted((root / "cost").glob("*/*/[!.]*.json")), _rows, _EMPTY)


def of_part(root: Path, part: Part) -> pd.DataFrame:
    """The measurements of a part's trials, with the part's own names of cells.

    Args:
        root: the folder of all results.
        part: its trials.

    Returns:
        As :func:`load`, ``cell`` as in ``part.cells``; a cell that was measured on several kinds of
        hardware has as many rows.
    """
    found = load(root)
    names = part.trials.drop_duplicates("id").set_index("id")["cell"]
    own = found[(found["study"] == part.study) & found["id"].isin(names.index)]
    own = own.assign(cell=own["id"].map(names)).reset_index(drop=True)
    own.attrs["unread"] = found.attrs["unread"]
    return own


def sweeps(root: Path) -> pd.DataFrame:
    """What a trial of a sweep takes, by way to train it (``<root>/bench/sweep*.json``).

    Args:
        root: the folder of all results.

    Returns:
        One row a study, base and way: ``study``, ``base``, ``task``, ``way`` (a key of ``WAYS``),
        ``label``, ``seconds`` (a trial; packed: from start to last result, over all trials;
        else the mean of those that were timed), ``slower`` (times as long as packed), ``timed``,
        ``trials`` (of the study), ``hardware``, ``small`` and ``provenance.<name>``.
        ``frame.attrs["unread"]`` as in :func:`load`.
    """
    files = [root / "bench" / name for name in ("sweep.json", "sweep-cpu.json")]
    return _frame([file for file in files if file.exists()], _sweep_rows, SWEEPS)


def steps(root: Path) -> pd.DataFrame:
    """One training step by ours and its peers (``<root>/bench/step*.json``).

    Returns:
        One row a contender: ``contender``, ``lanes``, ``p50_ms`` and ``p95_ms`` (of a step),
        ``trial_ms`` (the median over the lanes), ``allocated_bytes``, ``reserved_bytes``,
        ``hardware``, ``small``, ``provenance.<name>``.
    """
    files = [root / "bench" / name for name in ("step.json", "step-cpu.json")]
    return _frame([file for file in files if file.exists()], _step_rows, ("contender",))


def layers(root: Path) -> pd.DataFrame:
    """Forward and backward of one layer by ours and its peers (``<root>/bench/layer*.json``).

    Returns:
        One row a layer and contender that could run it: ``layer``, ``contender``, ``p50_ms``,
        ``hardware``, ``small``, ``provenance.<name>``.
    """
    files = [root / "bench" / name for name in ("layer.json", "layer-cpu.json")]
    return _frame([file for file in files if file.exists()], _layer_rows, ("layer", "contender"))


_EMPTY = ("study", "hardware", "id", "cell")


def _frame(
    files: list[Path], rows: Callable[[dict, Path], Iterator[dict]], columns: tuple[str, ...]
) -> pd.DataFrame:
    """The rows of all files; those that hold none are named in the frame's attrs."""
    found: list[dict] = []
    unread: dict[str, str] = {}
    for file in files:
        try:
            found += [*rows(_checked(parsed(file)), file)]
        except ForeignError as error:
            unread[str(file)] = str(error)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            unread[str(file)] = f"not as the schema says ({error!r})"
    frame = pd.DataFrame(found) if found else pd.DataFrame(columns=[*columns])
    numbers = [name for name in MEASURED if name in frame]
    frame = frame.astype(dict.fromkeys(numbers, float))
    frame.attrs["unread"] = unread
    return frame


def _checked(record: Any) -> dict:
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise ForeignError(f"schema {found!r}, expected {SCHEMA}")
    return record


def _rows(record: dict, file: Path) -> Iterator[dict]:
    if record["id"] != file.stem:
        raise ForeignError(f"its id {record['id']!r} is not its name")
    yield {
        **{name: record[name] for name in _EMPTY},
        **{f"trial.{name}": hashable(value) for name, value in record["trial"].items()},
        "rows": record["batch"]["rows"],
        **_step(record["step"]),
        "frozen_p50_ms": _best(record["frozen"]["step"])["p50_ms"],
        **_memory(record),
        "joules_per_1000": record["energy"]["joules_per_1000_examples"],
        "watts": record["energy"]["watts"],
        "energy_reason": record["energy"]["reason"],
        **{name: record["files"][name] for name in ("adapter_bytes", "head_bytes")},
        **_answers(record["inference"]),
        **{f"parameters.{name}": count for name, count in record["parameters"].items()},
        **origin(record["provenance"]),
    }


def _best(step: Mapping[str, Any]) -> Mapping[str, Any]:
    """As trials are trained: captured where that is possible."""
    return step["captured"] or step["eager"]


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    best, parts = _best(step), step["eager"]["parts"]
    ratio = best["to_frozen"]
    return {
        "mode": "captured" if step["captured"] else "eager",
        "step_p50_ms": best["p50_ms"],
        "step_p95_ms": best["p95_ms"],
        "to_frozen": ratio["median"],
        "to_frozen_low": ratio["q25"],
        "to_frozen_high": ratio["q75"],
        "rows_per_second": best["examples_per_second"],
        "tokens_per_second": best["tokens_per_second"],
        **{f"{name}_ms": parts[name]["p50_ms"] for name in ("forward", "backward", "optimizer")},
    }


def _memory(record: Mapping[str, Any]) -> dict[str, Any]:
    memory, frozen = record["memory"], record["frozen"]["memory"]
    return {
        "peak_bytes": (memory["eager"] or {}).get("allocated_bytes"),
        "captured_peak_bytes": (memory["captured"] or {}).get("allocated_bytes"),
        "kept_bytes": memory["kept_for_backward_bytes"],
        "frozen_peak_bytes": (frozen["eager"] or {}).get("allocated_bytes"),
    }


def _answers(inference: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{name}_{how}_ms": (inference[size][how] or {}).get("p50_ms")
        for name, size in (("answer", "single"), ("batch", "batch"))
        for how in ("adapted", "merged")
    }


def _shared(record: Mapping[str, Any], piece: Mapping[str, Any]) -> dict[str, Any]:
    run = record["runs"][piece["run"]]
    return {"hardware": record["hardware"], "small": record["small"], **origin(run)}


def _sweep_rows(record: dict, file: Path) -> Iterator[dict]:
    pieces = record["pieces"].values()
    packed = {
        (piece["study"], piece["base"]): _seconds(piece)
        for piece in pieces
        if piece["part"] == PACKED
    }
    for piece in pieces:
        if piece["part"] not in WAYS:  # such as the floor, which trains nothing
            continue
        seconds = _seconds(piece)
        yield {
            **{name: piece[name] for name in ("study", "base", "task")},
            "way": piece["part"],
            "label": WAYS[piece["part"]],
            "seconds": seconds,
            "slower": seconds / packed.get((piece["study"], piece["base"]), float("nan")),
            "timed": len(piece["trials"]),
            "trials": piece["study_trials"],
            **_shared(record, piece),
        }


def _seconds(piece: Mapping[str, Any]) -> float:
    """Of a trial."""
    if piece["part"] == PACKED:
        return float(piece["wall_seconds"] / len(piece["trials"]))
    return float(pd.Series([trial["seconds"] for trial in piece["trials"]]).mean())


def _step_rows(record: dict, file: Path) -> Iterator[dict]:
    for name, piece in record["pieces"].items():
        samples = pd.Series(piece["samples"], dtype=float)
        yield {
            "contender": name,
            "lanes": piece["lanes"],
            "p50_ms": samples.median(),
            "p95_ms": samples.quantile(0.95),
            "trial_ms": samples.median() / piece["lanes"],
            **{key: piece[key] for key in ("allocated_bytes", "reserved_bytes")},
            **_shared(record, piece),
        }


def _layer_rows(record: dict, file: Path) -> Iterator[dict]:
    for name, piece in record["pieces"].items():
        for contender, found in piece["contenders"].items():
            if found.get("samples"):
                yield {
                    "layer": name,
                    "contender": contender,
                    "p50_ms": pd.Series(found["samples"]).median(),
                    **_shared(record, piece),
                }
