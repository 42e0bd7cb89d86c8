"""What was collected, put into the page's template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis import labels, provenance
from analysis.effects import SMALL
from analysis.figures.style import style
from analysis.part import Part
from analysis.report import assets, charts, overall, rows, table, words
from analysis.report.collect import Collected, Seen
from analysis.report.knobs import LEVELS
from analysis.report.names import name_of

SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond"}
"""matplotlib's markers as Vega's; any other is a cross."""
SLOTS = ("lokr", "lokr-peft", "lora", "full", "head")
"""Methods with a color of their own in the style sheet; any other has the gray one's."""
SCALE = (
    "Scores of different tasks have no common unit: over all parts, charts show them as shares of "
    "what training can gain, 0 at the floor and 100 at the ceiling that each part's summary names. "
    "Parts without both are left out of those charts; differences stay in points of their part."
)


def page(found: Collected) -> str:
    """The page as HTML."""
    kinds, scripts = charts.charts(), assets.scripts()
    return _render(
        {
            **_said(found),
            "charts": kinds,
            "style": assets.style(),
            "scripts": scripts,
            "policy": assets.policy(scripts),
            "data": assets.data(_data(found, kinds)),
        }
    )


def _said(found: Collected) -> dict[str, Any]:
    """What the template says in words and tables."""
    seen, every = found.seen, [one.findings for one in found.seen]
    return {
        "words": words,
        "labels": labels,
        "name_of": name_of,
        "seen": seen,
        "start": _start(seen),
        "levels": LEVELS,
        "studies": sorted({one.part.study for one in seen}),
        "trials": len(found.results.trials),
        "cells": len(found.drawn["cells"]),
        "ours": words.method_name(SMALL),
        "main": [words.method_name(method) for method in overall.MAIN],
        "overview": overall.table(every, [one.floor for one in seen]),
        "short": overall.short(every),
        "verdicts": overall.verdicts(every),
        "knobs": overall.knobs(every),
        "packing": overall.packing(found.root),
        "album": found.album,
        "cell_labels": found.drawn["cells"]["label"].tolist(),
        **_origins(found),
    }


def _origins(found: Collected) -> dict[str, Any]:
    """Where results come from."""
    trials = found.results.trials
    mixed = [(str(s), provenance.mixed(t)) for s, t in trials.groupby("study", sort=True)]
    return {
        "origins": provenance.groups(trials).to_dict("records"),
        "mixed": [(study, sentences) for study, sentences in mixed if sentences],
        "constants": rows.constants(trials),
        "unread": sorted(found.unread.items()),
    }


def _start(seen: Sequence[Seen]) -> int:
    """The part with the most trials, the first of several."""
    sizes = [len(one.part.trials) for one in seen]
    return sizes.index(max(sizes))


def _data(found: Collected, kinds: Sequence[charts.Chart]) -> dict[str, Any]:
    """What the page's script reads."""
    own = _parts(found.seen)
    knobs = dict.fromkeys(knob for part in own for knob in part["values"])
    every = {k: rows.in_order(v for p in own for v in p["values"].get(k, [])) for k in knobs}
    return {
        "start": _start(found.seen),
        "ours": SMALL,
        "parts": own,
        "values": every,
        "methods": _methods(found.drawn["cells"]["method"]),
        "scale_note": SCALE,
        "rows": {name: rows.columns(frame) for name, frame in found.drawn.items()},
        "columns": table.columns([*knobs], found.drawn["trials"]),
        "charts": [chart.in_page() for chart in kinds],
        "images": found.album.images,
        "references": found.album.references,
        "pictures": found.album.sheets,
    }


def _parts(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    names = _short([one.part for one in seen])
    return [{**_part(one), "short": name} for one, name in zip(seen, names, strict=True)]


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
