"""``python -m analysis``: results to tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Turn result files into tables and figures. Nothing is trained.",
)
Results = Annotated[Path, typer.Option(help="The folder that holds results/<study>/<id>.json.")]
StudyName = Annotated[str, typer.Argument(help="Name of the study, a folder under RESULTS.")]
AnyStudy = Annotated[
    str | None,
    typer.Argument(help="Name of a study, a folder under RESULTS.", show_default="all"),
]
Metric = Annotated[
    str, typer.Option(help="score, or another metric of the study: similarity, drift, ...")
]


@contextmanager
def _explained(*expected: type[Exception]) -> Iterator[None]:
    """What can go wrong with results and files is one line on stderr and exit status 1."""
    try:
        yield
    except (OSError, *expected) as error:
        # Ours say all in their message; the system's name the file.
        of_system = isinstance(error, OSError) and error.filename is not None
        text = f"{error.filename}: {error.strerror}" if of_system else str(error)
        typer.secho(text, err=True, fg="red")
        raise typer.Exit(1) from None


@app.callback()
def main() -> None:
    """Turn result files into tables and figures. Nothing is trained."""


@app.command()
def summary(
    study: StudyName,
    results: Results = Path("results"),
) -> None:
    """Print a study's cells, best first, and draw score against parameters."""
    from analysis.terminal.summary import summarize

    with _explained():
        summarize(results / study)


@app.command()
def effects(
    study: StudyName,
    results: Results = Path("results"),
    metric: Metric = "score",
) -> None:
    """Print what each knob does and how the methods' best cells compare, in paired differences."""
    from analysis.terminal.effects import UnknownMetricError, report

    with _explained(UnknownMetricError):
        report(results / study, metric)


@app.command()
def importance(
    study: StudyName,
    results: Results = Path("results"),
    metric: Metric = "score",
    method: Annotated[str, typer.Option(help="Whose knobs.")] = "lokr",
) -> None:
    """Print what makes the differences between a study's trials: shares of variance by knob."""
    from analysis.collapsed import DamagedError
    from analysis.terminal.effects import UnknownMetricError
    from analysis.terminal.importance import UnknownMethodError, report

    with _explained(UnknownMetricError, UnknownMethodError, DamagedError):
        report(results / study, metric, method)


@app.command()
def report(
    results: Results = Path("results"),
    studies: Annotated[
        list[str] | None, typer.Option("--study", help="Only this study; may be given again.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; RESULTS/report.html by default.")
    ] = None,
) -> None:
    """Write one page that answers "which LoKr should you train?", to open offline in a browser."""
    from analysis.collapsed import DamagedError
    from analysis.report import build

    with _explained(DamagedError):
        path = build(results, out or results / "report.html", studies or ())
    typer.echo(f"report  {path}  (open it in a browser)")


@app.command()
def export(
    results: Results = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the two files; RESULTS if not given.")
    ] = None,
) -> None:
    """Write all studies as two Parquet files: a row a trial, a row a trial and epoch."""
    from analysis.export import ParquetError, export

    with _explained(ParquetError):
        written = export(results, out or results)
    for path, why in written.unread.items():
        typer.secho(f"{path} holds no result and was left out: {why}", err=True, fg="yellow")
    typer.echo(f"trials  {written.trials}\nepochs  {written.epochs}")


@app.command()
def tables(
    study: AnyStudy = None,
    results: Results = Path("results"),
) -> None:
    """Write tables as CSV, Markdown and LaTeX: parameters, quality, cost, ranking, ..."""
    from analysis.load import studies
    from analysis.tables.registry import write_speed, write_study

    names = studies(results) if study is None else [study]
    if not names:
        typer.secho(f"{results} holds no results; run a study first", err=True, fg="red")
        raise typer.Exit(1)
    with _explained():
        for name in names:
            _say_tables(write_study(results / name))
        if study is None:
            _say_tables([write_speed(results)])


def _say_tables(written: Iterable[tuple[list[Path], str | None]]) -> None:
    """Where each table is, or why there is none."""
    for paths, lacking in written:
        if lacking is None:
            typer.echo(f"table   {paths[0].with_suffix('')}.{{csv,md,tex}}")
        else:
            typer.secho(f"none    {lacking}", fg="yellow")


@app.command()
def figures(
    study: AnyStudy = None,
    results: Results = Path("results"),
) -> None:
    """Draw every figure as PDF and PNG: fronts, rankings, effects, learning curves, samples, ..."""
    from analysis.collapsed import DamagedError
    from analysis.terminal.figures import draw_all

    with _explained(DamagedError):
        draw_all(results, [] if study is None else [study])


@app.command()
def paper(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder for the sources and the PDF.")] = Path("paper"),
) -> None:
    """Write two pages in LaTeX with figures, tables and macros, and compile them if it can."""
    from analysis.paper import PaperError, build
    from analysis.paper.compiling import LatexError

    with _explained(PaperError, LatexError):
        made = build(results, out)
    for path, why in made.unread.items():
        typer.secho(f"{path} holds no result and was left out: {why}", err=True, fg="yellow")
    for note in made.notes:
        typer.secho(f"note    {note}", fg="yellow")
    typer.echo(f"sources {made.sources}/main.tex, numbers.tex, figures/, tables/")
    if made.pdf is not None:
        typer.echo(f"paper   {made.pdf} ({made.pages} pages)")


if __name__ == "__main__":
    app()
