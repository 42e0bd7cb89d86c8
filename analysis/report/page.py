"""The page out of results: what it shows is collected here, and put into the template."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis import cost, labels, provenance
from analysis.effects import SMALL
from analysis.figures.style import style
from analysis.load import Results
from analysis.part import Part, parts
from analysis.report import assets, charts, overall, pictures, rows, table, words
from analysis.report.findings import LEVELS, Findings, findings, name_of, scored
from analysis.report.limits import limits
from analysis.statistics.noise import pooled
from analysis.statistics.normalize import NoScaleError, Scale, scale

SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond"}
"""matplotlib's markers as Vega's; any other is a cross."""
SLOTS = ("lokr", "lokr-peft", "lora", "full", "head")
"""Methods with a color of their own in the style sheet; any other has the gray one's."""


class Seen(NamedTuple):
    """What was found in a part, and what the page draws of it.

    Args:
        findings: its sentences.
        limits: what it cannot say.
        floor: the smallest difference that its design sees.
        scale: its floor and ceiling, or why it has none.
    """

    findings: Findings
    limits: list[str]
    floor: float
    scale: Scale | str


Step = Callable[[str], None]


def page(root: Path, results: Results, said: Step) -> str:
    """The page as HTML.

    Args:
        root: the folder of all results.
        results: of some of its studies.
        said: told of each step that takes time, in a few words.
    """
    own = [*_parts(root, results)]
    seen = []
    for part in own:
        said(part.title)
        seen.append(_seen(part))
    said("the page")
    drawn = _drawn(root, results, seen)
    album = pictures.album(own, drawn["cells"])
    return _render(_context(root, results, seen, drawn, album))


def _parts(root: Path, results: Results) -> Iterator[Part]:
    for study, trials in results.trials.groupby("study", sort=True):
        yield from parts(trials, root / str(study))


def _seen(part: Part) -> Seen:
    found = findings(part)
    if not scored(part):
        return Seen(found, limits(found), math.nan, f"{part.title}: no trial has a score")
    try:
        unit: Scale | str = scale(part)
    except NoScaleError as error:
        unit = str(error)
    return Seen(found, limits(found), pooled(part).detectable, unit)


def _drawn(root: Path, results: Results, seen: Sequence[Seen]) -> dict[str, pd.DataFrame]:
    """The rows of every kind; cells are numbered over all parts."""
    own = [one.findings.part for one in seen]
    cells = _joined([rows.cell_rows(p, n, seen[n].findings.table) for n, p in enumerate(own)])
    of = [cells[cells["part"] == number] for number in range(len(own))]
    epochs = dict([*results.epochs.groupby("study")]) if len(results.epochs) else {}
    costs = cost.load(root)
    return {
        "cells": cells,
        "trials": _joined([rows.trial_rows(p, c) for p, c in zip(own, of, strict=True)]),
        "curves": _joined(
            [
                rows.curve_rows(p, c, epochs.get(p.study, pd.DataFrame(columns=["id"])))
                for p, c in zip(own, of, strict=True)
            ]
        ),
        "effects": _joined(
            [rows.effect_rows(p, n, seen[n].findings.effects) for n, p in enumerate(own)]
        ),
        "shares": _joined([rows.share_rows(s.findings.importance, n) for n, s in enumerate(seen)]),
        "against": _joined([rows.against_rows(p, n) for n, p in enumerate(own)]),
        "costs": _joined([rows.cost_rows(p, c, costs) for p, c in zip(own, of, strict=True)]),
    }


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    there = [frame for frame in frames if len(frame)]
    return pd.concat(there, ignore_index=True) if there else pd.DataFrame()


def _context(
    root: Path,
    results: Results,
    seen: Sequence[Seen],
    drawn: dict[str, pd.DataFrame],
    album: pictures.Album,
) -> dict[str, Any]:
    """What the template is filled with."""
    found, start = [one.findings for one in seen], _start(seen)
    scripts, kinds = assets.scripts(), charts.charts()
    return {
        "words": words,
        "labels": labels,
        "seen": seen,
        "start": start,
        "levels": LEVELS,
        "studies": sorted({one.part.study for one in found}),
        "trials": len(results.trials),
        "cells": len(drawn["cells"]),
        "ours": words.method_name(SMALL),
        "overview": overall.table(found, [one.floor for one in seen]),
        "main": [words.method_name(method) for method in overall.MAIN],
        "name_of": name_of,
        "short": overall.short(found),
        "verdicts": overall.verdicts(found),
        "knobs": overall.knobs(found),
        "packing": overall.packing(root),
        "charts": kinds,
        "album": album,
        "cell_labels": drawn["cells"]["label"].tolist(),
        "origins": _origins(results.trials),
        "mixed": _mixed(results.trials),
        "constants": rows.constants(results.trials),
        "unread": _unread(root, results),
        "style": assets.style(),
        "scripts": scripts,
        "policy": assets.policy(scripts),
        "data": assets.data(_data(seen, drawn, album, kinds, start)),
    }


def _start(seen: Sequence[Seen]) -> int:
    """The part with the most trials, the first of several."""
    sizes = [len(one.findings.part.trials) for one in seen]
    return sizes.index(max(sizes))


def _data(
    seen: Sequence[Seen],
    drawn: dict[str, pd.DataFrame],
    album: pictures.Album,
    kinds: Sequence[charts.Chart],
    start: int,
) -> dict[str, Any]:
    """What the page's script reads."""
    own = [
        _part(one) | {"short": name}
        for one, name in zip(seen, _short([one.findings.part for one in seen]), strict=True)
    ]
    knobs = dict.fromkeys(knob for part in own for knob in part["values"])
    every = {k: rows.in_order(v for p in own for v in p["values"].get(k, [])) for k in knobs}
    return {
        "start": start,
        "parts": own,
        "values": every,
        "methods": _methods(drawn["cells"]["method"]),
        "scale_note": "Scores of different tasks have no common unit: over all parts, charts show "
        "them as shares of what training can gain, 0 at the floor and 100 at the ceiling that each "
        "part's summary names. Parts without both are left out of those charts.",
        "rows": {name: rows.columns(frame) for name, frame in drawn.items()},
        "columns": table.columns([*knobs], drawn["trials"]),
        "charts": [chart.in_page() for chart in kinds],
        "images": album.images,
        "references": album.references,
        "pictures": album.sheets,
    }


def _short(own: Sequence[Part]) -> list[str]:
    """The parts' names where there is little room: the last word of the task, if that is enough."""
    names = [
        " ".join([part.task.rpartition("/")[2], *([part.title.split(", ")[-1]] * part.sizes)])
        for part in own
    ]
    if len(set(names)) == len(names):
        return names
    return [f"{part.title} ({part.study})" for part in own]


def _part(one: Seen) -> dict[str, Any]:
    part = one.findings.part
    unit = None if isinstance(one.scale, str) else one.scale
    return {
        "title": part.title,
        "study": part.study,
        "values": rows.values(part),
        "scale": unit and {"low": 100 * unit.low, "high": 100 * unit.high},
        "note": f"Score: {part.metric} on the report half of the dev set, in points of 100.",
    }


def _methods(present: pd.Series) -> dict[str, dict[str, str]]:
    """Name -> what it is called and how it looks, those we know first."""
    names = [name for name in SLOTS if (present == name).any()]
    names += sorted({*present} - {*SLOTS})
    return {
        name: {
            "label": words.method_name(name),
            "slot": name if name in SLOTS else "other",
            "shape": SHAPES.get(style(name).marker, "cross"),
        }
        for name in names
    }


def _origins(trials: pd.DataFrame) -> list[dict[str, Any]]:
    return provenance.groups(trials).to_dict("records")


def _mixed(trials: pd.DataFrame) -> list[tuple[str, list[str]]]:
    found = [(str(s), provenance.mixed(t)) for s, t in trials.groupby("study", sort=True)]
    return [(study, sentences) for study, sentences in found if sentences]


def _unread(root: Path, results: Results) -> list[tuple[str, str]]:
    """Files that hold no result, by their path under the folder, and why."""
    every = {**results.unread, **cost.load(root).attrs["unread"]}
    return [(str(Path(path).relative_to(root)), why) for path, why in sorted(every.items())]


def _render(context: dict[str, Any]) -> str:
    """All that comes out of results is escaped; style, scripts and data were made safe before."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("analysis.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(context)
