"""LaTeX to PDF, where LaTeX is installed; the same bytes from the same sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAM = "pdflatex"
INSTALL = (
    f"no {PROGRAM} here, so no PDF: install texlive-latex-recommended (Debian, Ubuntu), "
    "texlive-collection-latexrecommended (Fedora) or MacTeX, and run this again"
)
PASSES = 3
"""Until numbers of tables and figures stand still."""
SECONDS = 120
_PAGES = re.compile(r"Output written on .*?\((\d+) pages?", re.DOTALL)


class LatexError(RuntimeError):
    """LaTeX does not make a PDF of it; the message is one line."""


def program() -> str | None:
    """The path of pdflatex, None where it is not installed."""
    return shutil.which(PROGRAM)


def compiled(latex: str, folder: Path, passes: int = PASSES) -> int:
    """Make ``<folder>/main.pdf`` of ``main.tex``; nothing else is left there.

    Args:
        latex: path of pdflatex.
        folder: the sources.
        passes: one tells the pages, and leaves references open.

    Returns:
        The number of pages.

    Raises:
        LatexError: it fails; ``main.log`` is left in the folder.
    """
    with TemporaryDirectory() as made:
        for _ in range(passes):
            ran = _run(latex, folder, Path(made))
        log = Path(made, "main.log")
        if ran.returncode != 0:
            if log.exists():
                shutil.copyfile(log, folder / "main.log")
            raise LatexError(f"{PROGRAM} fails on {folder / 'main.tex'}: {_reason(ran.stdout)}")
        shutil.copyfile(Path(made, "main.pdf"), folder / "main.pdf")
        (folder / "main.log").unlink(missing_ok=True)
    return int(_PAGES.findall(ran.stdout)[-1])


def _run(latex: str, folder: Path, made: Path) -> subprocess.CompletedProcess[str]:
    # No date of today, and no wrapped lines in what it prints.
    fixed = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "10000"}
    options = ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    try:
        return subprocess.run(
            [latex, *options, f"-output-directory={made}", "main.tex"],
            cwd=folder,
            env={**os.environ, **fixed},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LatexError(f"{PROGRAM} did not end in {SECONDS} s") from error


def _reason(printed: str) -> str:
    """The first error, and what to install if a package is missing."""
    errors = [line[2:] for line in printed.splitlines() if line.startswith("! ")]
    if missing := [error for error in errors if error.endswith("not found.")]:
        return f"{missing[0]} Install {INSTALL.partition('install ')[2]}"
    return errors[0] if errors else "no reason in its log"
