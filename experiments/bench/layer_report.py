"""The layer comparison as tables: a function of ``layer.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.record import Record
from experiments.bench.sheets import (
    NONE,
    Sheet,
    Target,
    judged,
    least,
    median,
    ratio,
    with_spread,
)

# Names of the contenders, see ``experiments.bench.contenders`` (which needs torch).
FROZEN, LORA, PEFT, OURS = "frozen", "PEFT LoRA", "PEFT LoKr", "ours"
LYCORIS = ("LyCORIS", "LyCORIS bypass")
ORDER = (FROZEN, LORA, PEFT, *LYCORIS, "ours, PyTorch", OURS)
OVER_LORA = Target("at least", 1.0)
OVER_PEFT = Target("at least", 2.0)
OVER_LYCORIS = Target("at least", 1.5)
EXACT = {"bfloat16": 0.02, "float32": 1e-4}
"""Largest relative error of ours, against the definition in fp64."""
Piece = Mapping[str, Any]


def sheets(record: Record) -> list[Sheet]:
    """Times, ratios and errors; linear layers and convolutions apart."""
    found: list[Sheet] = []
    for kind, title in (("linear", "Linear layers"), ("conv2d", "Convolutions")):
        pieces = {n: p for n, p in record.pieces.items() if p["case"]["kind"] == kind}
        if pieces:
            found += [_times(title, pieces), _ratios(title, pieces, record.small)]
    return [*found, _errors(record.pieces)] if found else []


def failures(record: Record) -> list[str]:
    """What of ours did not run or is not exact, one line each."""
    lines = []
    for name, piece in record.pieces.items():
        result = piece["contenders"][OURS]
        if result["samples"] is None:
            lines.append(f"{name}: {result['reason']}")
        elif not _exact(piece):
            allowed = EXACT[piece["dtype"]]
            lines.append(f"{name}: relative error {_error(piece, OURS)}, allowed {allowed:g}")
    return lines


def _times(title: str, pieces: Mapping[str, Piece]) -> Sheet:
    names = [n for n in ORDER if any(n in piece["contenders"] for piece in pieces.values())]
    rows = [[name, *(_time(piece, n) for n in names)] for name, piece in pieces.items()]
    return Sheet(
        f"{title}: forward and backward, ms (median ± distance between the quartiles)",
        ["layer", *names],
        rows,
        _reasons(pieces),
    )


def _time(piece: Piece, name: str) -> str:
    result = piece["contenders"].get(name)
    if result is None:
        return NONE
    eager = " (eager)" if result["mode"] == "eager" else ""
    return with_spread(result["samples"]) + eager


def _reasons(pieces: Mapping[str, Piece]) -> list[str]:
    """Why a contender is missing, or was not captured: each reason once."""
    found: dict[str, list[str]] = {}
    for piece in pieces.values():
        for name, result in piece["contenders"].items():
            if result["reason"]:
                found.setdefault(f"{name}: {result['reason']}", []).append(_shape(piece))
    return [
        f"{reason}" + ("" if len(where) == len(pieces) else f" ({', '.join(where)})") + "."
        for reason, where in found.items()
    ]


def _ratios(title: str, pieces: Mapping[str, Piece], small: bool) -> Sheet:
    judge = _judge_small if small else _judge
    names = ["ours / frozen", "LoRA / ours", "PEFT LoKr / ours", "LyCORIS's better / ours"]
    rows = [[name, *_judged(piece, judge(piece["case"]))] for name, piece in pieces.items()]
    return Sheet(f"{title}: ratios and their targets", ["layer", *names], rows)


def _judged(piece: Piece, targets: Sequence[Target | None]) -> list[str]:
    times = {name: median(result["samples"]) for name, result in piece["contenders"].items()}
    ours = times[OURS]
    ratios = (
        ratio(ours, times[FROZEN]),
        ratio(times.get(LORA), ours),
        ratio(times[PEFT], ours),
        ratio(least(times[name] for name in LYCORIS), ours),
    )
    return [judged(*pair) for pair in zip(ratios, targets, strict=True)]


def _judge(case: Mapping[str, Any]) -> tuple[Target | None, ...]:
    """Targets of the four ratios; convolutions have none."""
    if case["kind"] != "linear":
        return (None,) * 4
    bound = _over_frozen(case)
    frozen = None if bound is None else Target("at most", bound)
    return frozen, OVER_LORA, OVER_PEFT, OVER_LYCORIS


def _over_frozen(case: Mapping[str, Any]) -> float | None:
    out, into, full = case["out"], case["into"], case["r"] is None
    if out == into == 3072:
        return 1.8 if full else 1.4
    if full:
        return None
    if min(out, into) >= 4096:
        return 1.25
    return 2.2 if out == into == 768 else None


def _judge_small(case: Mapping[str, Any]) -> tuple[Target | None, ...]:
    """On a CPU: 2x over PEFT's LoKr on linear layers of 768 or more."""
    large = case["kind"] == "linear" and min(case["out"], case["into"]) >= 768
    return None, None, OVER_PEFT if large else None, None


def _errors(pieces: Mapping[str, Piece]) -> Sheet:
    """The worst of output and gradients, for every LoKr."""
    names = [name for name in ORDER if name not in (FROZEN, LORA)]
    rows = [[name, *(_error(piece, n) for n in names)] for name, piece in pieces.items()]
    allowed = {piece["dtype"]: EXACT[piece["dtype"]] for piece in pieces.values()}
    verdict = "met" if all(map(_exact, pieces.values())) else "missed"
    bounds = " and ".join(f"{bound:g} in {dtype}" for dtype, bound in allowed.items())
    return Sheet(
        "Relative error of output and gradients (the worst) against torch.kron in fp64",
        ["layer", *names],
        rows,
        [f"Ours at most {bounds}: {verdict}."],
    )


def _error(piece: Piece, name: str) -> str:
    errors = piece["contenders"].get(name, {}).get("errors")
    if errors is None:
        return NONE
    return "not finite" if None in errors.values() else f"{max(errors.values()):.1e}"


def _exact(piece: Piece) -> bool:
    """Whether ours ran and every error of it is in bounds; a null error was not finite."""
    errors = piece["contenders"][OURS]["errors"] or {"output": None}
    return all(e is not None and e <= EXACT[piece["dtype"]] for e in errors.values())


def _shape(piece: Piece) -> str:
    case = piece["case"]
    return f"{case['out']}x{case['into']}"
