"""The sweep comparison as tables: a function of ``sweep.json`` alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench import DIFFUSION, TEXT
from experiments.bench.paired import ENOUGH, Difference, difference
from experiments.bench.record import Record
from experiments.bench.sheets import NONE, Sheet, Target, judged, median, number, ratio, with_spread

_SETTINGS = (
    "study",
    "base",
    "task",
    "epochs",
    "batch_size",
    "max_length",
    "precision",
    "study_trials",
)
_LABELS = {
    "packed": "ours, packed: start to last result",
    "trainer": "PEFT LoKr in transformers' Trainer",
    "unpacked": "PEFT LoKr in our loop, launched from Python",
    "captured": "PEFT LoKr in our loop, captured",
}
_TARGETS = {
    TEXT: {
        "trainer": Target("at least", 10.0),
        "unpacked": Target("at least", 8.0),
        "captured": Target("at least", 2.5),
    },
    DIFFUSION: {"unpacked": Target("at least", 8.0)},
}
_AIM = Target("at least", 20.0)  # over the Trainer with MiniLM: hoped for, where 10 is wanted
Parts = Mapping[str, Mapping[str, Any]]


def sheets(record: Record) -> list[Sheet]:
    """For each sweep: trials an hour, the packed step beside the base, and the scores."""
    found: list[Sheet] = []
    for settings, parts in _sweeps(record.pieces).items():
        title = _title(dict(zip(_SETTINGS, settings, strict=True)))
        found += [_speed(title, parts, record.small)]
        found += [_floor(parts["floor"])] if "floor" in parts else []
        found += [_scores(parts)] if "packed" in parts and _peer(parts) else []
    return found


def _sweeps(pieces: Mapping[str, Mapping[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Settings -> part -> piece: only what was measured on the same trials is compared."""
    sweeps: dict[tuple[Any, ...], dict[str, Any]] = {}
    for piece in pieces.values():
        key = tuple(piece[name] for name in _SETTINGS)
        sweeps.setdefault(key, {})[piece["part"]] = piece
    return sweeps


def _title(settings: Mapping[str, Any]) -> str:
    words = "{study_trials} trials of {task} on {base}, {epochs} epochs, batch {batch_size}"
    tokens = "" if settings["study"] == DIFFUSION else ", up to {max_length} tokens"
    return f"{words}{tokens}, {{precision}}".format(**settings)


def _speed(title: str, parts: Parts, small: bool) -> Sheet:
    ours = _seconds(parts.get("packed"))
    rows = [_speed_row(name, parts[name], ours, small) for name in _LABELS if name in parts]
    columns = ["", "trials timed", "s a trial", "trials an hour", "times slower than packed"]
    return Sheet(title, columns, rows, _speed_notes(parts, small))


def _speed_row(name: str, piece: Mapping[str, Any], ours: float | None, small: bool) -> list[str]:
    seconds = _seconds(piece)
    count, of = len(piece["trials"]), piece["study_trials"]
    slower = None if name == "packed" else ratio(seconds, ours)
    return [
        _LABELS[name],
        f"{count}" if count == of else f"{count} of {of}, extrapolated",
        number(seconds),
        number(ratio(3600.0, seconds)),
        judged(slower, None if small else _TARGETS[piece["study"]].get(name)),
    ]


def _seconds(piece: Mapping[str, Any] | None) -> float | None:
    """Of one trial: the wall clock's share, or the mean of those timed."""
    if piece is None or not piece["trials"]:
        return None
    if piece["part"] == "packed":
        return float(ratio(piece["wall_seconds"], len(piece["trials"])) or 0.0)
    return statistics.fmean(trial["seconds"] for trial in piece["trials"])


def _speed_notes(parts: Parts, small: bool) -> list[str]:
    notes = []
    if "packed" in parts:
        piece = parts["packed"]
        lanes = ", ".join(map(str, piece["lanes"]))
        notes.append(
            f"Packed: {piece['wall_seconds']:.1f} s by the wall clock, start-up, compilation and "
            f"capture included; the first results after {piece['first_result_seconds']:.1f} s; "
            f"packs of {lanes} lanes."
        )
    alone = [_spread_note(name, parts[name]) for name in _LABELS if name in parts]
    return [*notes, *filter(None, alone), *([] if small else _aim(parts))]


def _aim(parts: Parts) -> list[str]:
    """How far the sweep with MiniLM is from what is hoped for."""
    from experiments.bases import PACKAGED  # imports torch, too slow for --help

    trainer, packed = parts.get("trainer"), parts.get("packed")
    if trainer is None or packed is None or trainer["base"] != PACKAGED:
        return []
    reached = ratio(_seconds(trainer), _seconds(packed))
    return [f"The aim over the Trainer with MiniLM: {judged(reached, _AIM)}."]


def _spread_note(name: str, piece: Mapping[str, Any]) -> str | None:
    if name == "packed":
        return None
    times = [trial["seconds"] for trial in piece["trials"]]
    if not times:
        return None
    return (
        f"{_LABELS[name]}: {min(times):.2f} to {max(times):.2f} s a trial; not counted: imports, "
        f"data and a warm-up trial of {piece['warm_up_seconds']:.2f} s."
    )


def _floor(piece: Mapping[str, Any]) -> Sheet:
    samples = piece["samples"]
    over = ratio(median(samples["step"]), median(samples["floor"]))
    row = ["", with_spread(samples["step"]), with_spread(samples["floor"]), judged(over, None)]
    tokens = "" if piece["tokens"] is None else f" of {piece['tokens']} tokens"
    return Sheet(
        f"A packed step of {piece['lanes']} lanes, {piece['rows']} rows{tokens}, in ms",
        ["", "our step", "frozen base, forward and backward", "ratio"],
        [row],
    )


def _scores(parts: Parts) -> Sheet:
    """Last epoch's scores, ours minus PEFT's, over the trials that both have trained."""
    columns = ["last epoch's score on", "pairs", "ours", "PEFT", "ours - PEFT", "95% interval", ""]
    names = {"full_score": "the full dev set", "report_score": "its report half"}
    rows = [[label, *_score_cells(parts, key)] for key, label in names.items()]
    return Sheet(
        "Scores of the same trials, packed through ours and alone through PEFT",
        columns,
        rows,
        ["Percentile bootstrap over the pairs; met: the interval of the mean difference holds 0."],
    )


def _peer(parts: Parts) -> Mapping[str, Any] | None:
    """PEFT's LoKr in our loop, where its trials have our trials' factors, head and data order."""
    return parts.get("captured") or parts.get("unpacked")


def _score_cells(parts: Parts, key: str) -> list[str]:
    peer = _peer(parts)
    assert peer is not None
    ours, theirs = _paired(parts["packed"]["trials"], peer["trials"], key)
    found = difference(ours, theirs)
    if found is None:
        return ["0", *[NONE] * 5]
    return [
        str(found.pairs),
        _mean_and_deviation(ours),
        _mean_and_deviation(theirs),
        f"{found.mean:+.4f}",
        f"{found.low:+.4f} to {found.high:+.4f}",
        _verdict(found),
    ]


def _paired(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], key: str
) -> tuple[list[float], list[float]]:
    """Scores of both, trial by trial; a trial without a score on either side drops out."""
    peer = {trial["pair"]: trial[key] for trial in theirs}
    both = [
        (trial[key], peer[trial["pair"]])
        for trial in ours
        if trial[key] is not None and peer.get(trial["pair"]) is not None
    ]
    return [a for a, _ in both], [b for _, b in both]


def _mean_and_deviation(scores: Sequence[float]) -> str:
    deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return f"{statistics.fmean(scores):.4f} ± {deviation:.4f}"


def _verdict(found: Difference) -> str:
    if found.pairs < ENOUGH:
        return f"too few: {ENOUGH} at least"
    return "met" if found.is_nothing else "missed"
