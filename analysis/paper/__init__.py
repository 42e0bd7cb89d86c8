"""Two pages in LaTeX: figures, tables, macros for every number in the text, and the text.

``main.tex`` is written once and for all; what it says of results are macros of ``numbers.tex``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import copyfile
from typing import NamedTuple

from analysis.collapsed import DamagedError
from analysis.load import load_all
from analysis.paper import compiling, numbers
from analysis.part import Part, all_parts
from analysis.tables import overview, speed
from analysis.tables.table import Lacking, Table
from analysis.tables.write import write

TEMPLATE = Path(__file__).with_name("main.tex")
PAGES = 2


class PaperError(ValueError):
    """There is nothing to write about, or no place to write to; one line for the user."""


class Paper(NamedTuple):
    """What was made.

    Args:
        sources: the folder.
        pdf: None where it was not compiled.
        pages: of the PDF.
        notes: what is lacking and why, for people.
        unread: path of a file that is no result -> why.
    """

    sources: Path
    pdf: Path | None
    pages: int | None
    notes: list[str]
    unread: dict[str, str]


def build(root: Path, out: Path) -> Paper:
    """Collect the paper in ``out`` and compile it if LaTeX is installed.

    The same results give the same sources, and with the same LaTeX the same PDF.

    Args:
        root: the folder that holds ``<study>/<id>.json``.
        out: a folder, made if it is not there: ``main.tex``, ``numbers.tex``, ``figures/``,
            ``tables/``, ``main.pdf``.

    Raises:
        FileNotFoundError: there are no results.
        PaperError: no LoKr cell has a score, ``out`` cannot be written to, or a study's
            ``collapsed.jsonl`` is damaged.
        compiling.LatexError: LaTeX is installed and fails.
    """
    results = load_all(root)
    found = [*all_parts(results, root)]
    try:
        table = overview.table(found)
        notes = [*_collect(root, found, table, out)]
        macros = numbers.macros(root, found, results, table.frame)
        return _compiled(out, macros, notes, results.unread)
    except OSError as error:
        raise PaperError(f"cannot write to {out}: {error.strerror or error}") from error
    except Lacking as error:
        raise PaperError(f"nothing to write about: {error}") from error
    except DamagedError as error:
        raise PaperError(str(error)) from error


def _collect(root: Path, found: Sequence[Part], table: Table, out: Path) -> Iterator[str]:
    """Write figures and tables; says what there is none of."""
    out.mkdir(parents=True, exist_ok=True)
    copyfile(TEMPLATE, out / "main.tex")
    write(table, out / "tables" / "overview")
    try:
        write(speed.table(root), out / "tables" / "speed")
    except Lacking as error:
        (out / "tables" / "speed.tex").unlink(missing_ok=True)
        yield str(error)
    yield from _figures(found, out)


def _figures(found: Sequence[Part], out: Path) -> Iterator[str]:
    """Those of the headline, as PDF."""
    from analysis.figures import FIGURES
    from analysis.figures.style import Lacking as NoFigure
    from analysis.figures.style import save

    headline = numbers.headline(found)
    for name in numbers.FIGURES:
        stem = out / "figures" / name
        stem.with_suffix(".pdf").unlink(missing_ok=True)
        try:
            save(FIGURES[name](headline), stem)
        except NoFigure as error:
            yield f"no figure {name}: {error}"
        else:
            stem.with_suffix(".png").unlink()


def _compiled(out: Path, macros: dict[str, str], notes: list[str], unread: dict[str, str]) -> Paper:
    program, there = compiling.program(), [*_optional(out)]
    _write_numbers(out, macros, there)
    if program is None:
        return Paper(out, None, None, [*notes, compiling.INSTALL], unread)
    _write_numbers(out, macros, _fitting(program, out, macros, there))
    pages = compiling.compiled(program, out)
    if pages != PAGES:
        notes = [*notes, f"the PDF has {pages} pages, not {PAGES}"]
    return Paper(out, out / "main.pdf", pages, notes, unread)


def _optional(out: Path) -> Iterator[str]:
    """What there is to show beside the first table and figure."""
    for name in numbers.OPTIONAL:
        if (out / "figures" / f"{name}.pdf").exists() or (out / "tables" / f"{name}.tex").exists():
            yield name


def _fitting(program: str, out: Path, macros: dict[str, str], there: Sequence[str]) -> list[str]:
    """What fits into the pages, the most important first."""
    shown: list[str] = []
    for name in there:
        _write_numbers(out, macros, [*shown, name])
        if compiling.compiled(program, out, passes=1) <= PAGES:
            shown.append(name)
    return shown


def _write_numbers(out: Path, macros: dict[str, str], shown: Sequence[str]) -> None:
    (out / "numbers.tex").write_text(numbers.spelled(macros, shown), encoding="utf-8")
