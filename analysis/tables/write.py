"""A table as CSV (raw numbers), Markdown and LaTeX (booktabs), the protocol beside it in each."""

from __future__ import annotations

import re
from pathlib import Path

from analysis.tables.table import Table

NOTHING = "-"
"""How a missing number is shown."""
WIDE = 6
"""A table of more columns goes across the page where the page has two columns."""
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "\u00d7": r"$\times$",
    "\u2212": r"$-$",
    "·": r"$\cdot$",
    "²": r"$^2$",
    "Δ": r"$\Delta$",
    "√": r"$\surd$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
}
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPES)))
_NEGATIVE = re.compile(r"(?<![\w.)-])-(?=[\d.])")


def write(table: Table, stem: Path) -> list[Path]:
    """Write ``<stem>.csv``, ``.md`` and ``.tex``; the same table gives the same bytes.

    Args:
        table: to write.
        stem: path without a suffix; its folder is made if it is not there.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    texts = {".csv": csv(table), ".md": markdown(table), ".tex": latex(table)}
    paths = [stem.with_name(stem.name + suffix) for suffix in texts]
    for path, content in zip(paths, texts.values(), strict=True):
        path.write_text(content, encoding="utf-8", newline="\n")
    return paths


def csv(table: Table) -> str:
    """Raw numbers in full precision; the caption in lines that begin with #."""
    lines = [table.title, table.caption, *table.notes]
    return "".join(f"# {line}\n" for line in lines) + table.frame.to_csv(index=False)


def markdown(table: Table) -> str:
    """A heading, a table with the best in bold, the caption below it."""
    rows = [
        [
            f"**{text}**" if bold and text else text or NOTHING
            for text, bold in zip(*row, strict=True)
        ]
        for row in zip(_piped(table), table.bold(), strict=True)
    ]
    rules = ["---:" if column.number else "---" for column in table.columns]
    lines = [[column.heading for column in table.columns], rules, *rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n\n**{note}**" for note in table.notes)
    return f"### {table.title}\n\n{body}\n\n{table.caption}{notes}\n"


def latex(table: Table) -> str:
    """A float with caption and label; needs booktabs and graphicx (a table that is wider than the
    text is shrunk to it). Everything that is text is escaped.
    """
    star = "*" if len(table.columns) > WIDE else ""
    caption = " ".join([f"{table.title}. {table.caption}", *table.notes])
    return "\n".join(
        [
            rf"\begin{{table{star}}}[tbp]",
            r"\centering\footnotesize",
            rf"\caption{{{escaped(caption)}}}",
            rf"\label{{tab:{_label(table)}}}",
            r"\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"{tabular(table)}}}",
            rf"\end{{table{star}}}",
            "",
        ]
    )


def tabular(table: Table) -> str:
    """The tabular alone, for a float of one's own."""
    kinds = "".join("r" if column.number else "l" for column in table.columns)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{@{{}}{kinds}@{{}}}}",
            r"\toprule",
            _line([escaped(column.heading) for column in table.columns]),
            r"\midrule",
            *map(_line, _cells(table)),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def escaped(text: str) -> str:
    """Text as LaTeX prints it, sign by sign.

    Minus signs before numbers are set as such, and two hyphens stay two.
    """
    spelled = _SPECIAL.sub(lambda found: _ESCAPES[found.group()], text)
    return _NEGATIVE.sub("$-$", spelled.replace("--", "-{}-"))


def _cells(table: Table) -> list[list[str]]:
    return [
        [_cell(text, bold) for text, bold in zip(texts, bolds, strict=True)]
        for texts, bolds in zip(table.texts(), table.bold(), strict=True)
    ]


def _cell(text: str, bold: bool) -> str:
    if not text:
        return "--"
    return rf"\textbf{{{escaped(text)}}}" if bold else escaped(text)


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _piped(table: Table) -> list[list[str]]:
    return [[text.replace("|", r"\|") for text in row] for row in table.texts()]


def _label(table: Table) -> str:
    return re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-")
