"""The paper of made-up results: macros that are computed, no number in the text, two pages."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from shutil import copytree

import pytest
from typer.testing import CliRunner

from analysis import paper
from analysis.__main__ import app
from analysis.figures.style import Lacking as NoFigure
from analysis.load import load_all
from analysis.paper import compiling, numbers
from analysis.part import Part
from analysis.tables.overview import rows
from tests.analysis.synthetic import PROVENANCE, Design, read, write

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
MACRO = re.compile(r"\\newcommand\{\\(\w+)\}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies: in the greater one LoKr at r=8 is 2 points behind LoRA, on many dev rows; names
    with _ and %. Only read.
    """
    folder = tmp_path_factory.mktemp("paper") / "results"
    shared = {"noise": 0.002, "provenance": {"data": {**PROVENANCE["data"], "dev": 400_000}}}
    lokr = Design(
        effects={"r": {2: -0.05, 8: 0.0}, "init_weights": {True: 0.0, "lycoris": -0.01}},
        rates={1e-3: 0.0, 1e-2: -0.1},
        **shared,
    )
    lora = Design(effects={}, base=0.52, trial={"method": "lora"}, **shared)
    small = Design(effects={}, trial={"task": "glue/a_b%", "base": "base_2"}, noise=0.002)
    write(folder / "great", lokr, lora)
    write(folder / "small", small)
    return folder


@pytest.fixture(scope="module")
def found(root: Path) -> list[Part]:
    return [part for name in ("great", "small") for part in read(root / name)]


@pytest.fixture(scope="module")
def macros(root: Path, found: list[Part]) -> dict[str, str]:
    return numbers.macros(root, found, load_all(root), rows(found))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures have tests of their own, and take seconds."""

    def none(part: Part) -> None:
        raise NoFigure("not in this test")

    monkeypatch.setattr("analysis.figures.FIGURES", dict.fromkeys(numbers.FIGURES, none))


def test_counts_are_those_of_the_results(macros):
    assert (macros["Trials"], macros["Studies"], macros["Failed"]) == ("30", "2", "0")
    assert (macros["HeadTrials"], macros["HeadCells"], macros["HeadRates"]) == ("27", "5", "2")
    assert macros["HeadStudy"] == "great"
    assert macros["Hardware"] == "Made-up GPU"
    assert macros["Level"] == r"95\%"


def test_every_part_has_its_lokr_against_lora_and_all_weights(macros, found):
    row = rows(found).iloc[0]
    expected = f"{100 * row['lora_difference']:.2f} ({100 * row['lora_low']:.2f} to "
    assert -0.03 < row["lora_difference"] < -0.01
    assert macros["GreatGlueRteOnMinilmAgainstLora"].startswith(expected.replace("-", "$-$"))
    assert macros["GreatGlueRteOnMinilmAgainstFull"] == "not compared"
    assert macros["SmallGlueABOnBaseTwoAgainstLora"] == "not compared"
    assert macros["SmallGlueABOnBaseTwoLokr"].startswith("50.")
    assert macros["SmallGlueABOnBaseTwoAnew"].startswith("50.")


def test_the_verdict_counts_parts(macros):
    verdicts = macros["Verdicts"]
    text = "Against LoRA (peft), LoKr is behind in 1 of 1 part, each on its own, uncorrected."
    assert text in verdicts
    assert "No part has full fine-tuning to compare LoKr with." in verdicts


def test_what_is_missing_is_counted_by_the_study(root, tmp_path):
    copytree(root, tmp_path / "results")
    for path in sorted((tmp_path / "results" / "great").glob("*.json"))[:2]:
        path.unlink()
    parts = [part for name in ("great", "small") for part in read(tmp_path / "results" / name)]
    results = load_all(tmp_path / "results")
    assert numbers.macros(tmp_path / "results", parts, results, rows(parts))["Missing"] == "2"


def test_knobs_say_how_sure_they_are(macros):
    items = macros["Knobs"].splitlines()
    assert len(items) == 2
    assert all(item.endswith((" Clear.", " Suggestive.", " Not seen.")) for item in items)


def test_the_pick_says_what_its_interval_leaves_out(macros):
    assert "The interval covers neither other rows nor the choice of this cell." in macros["Pick"]
    assert "Chosen without the seed that is scored, it comes to " in macros["Pick"]


def test_importance_names_the_knob_that_makes_the_difference(macros):
    text = macros["Importance"]
    share = float(re.search(r"score, r (\d+)\\%", text)[1])
    assert share > 85  # of .0025 + .0001 / 4 and a little noise


def test_what_is_not_measured_says_how_to(macros):
    assert "python -m experiments cost great measures it" in macros["Cost"]
    assert "python -m experiments bench sweep times one" in macros["Packing"]


def test_text_in_macros_is_escaped(macros):
    assert r"glue: a\_b\%" in macros["Tasks"]


def test_the_text_has_no_number_but_those_of_macros():
    text = paper.TEMPLATE.read_text()
    body = text[text.index(r"\begin{abstract}") : text.index(r"\begin{thebibliography}")]
    for layout in (r"\\ifnum\\Show\w+=1", r"\\across\{[\d.]*\}", r"conv2d", r"w_[12]"):
        body = re.sub(layout, "", body)
    assert not re.findall(r"\d+", body)


def test_every_macro_of_the_text_is_defined_and_every_switch_is_used(macros):
    text = paper.TEMPLATE.read_text()
    defined = {*MACRO.findall(numbers.spelled(macros, ()))}
    own = {*MACRO.findall(text)}
    used = {name for name in re.findall(r"\\([A-Z]\w+)", text) if name not in own}
    assert used - {"Delta", "IfFileExists", "LARGE"} <= defined
    assert {f"Show{name.title()}" for name in numbers.OPTIONAL} <= used


def test_results_without_lokr_are_one_line(tmp_path):
    write(tmp_path / "other", Design(effects={}, trial={"method": "lora"}))
    with pytest.raises(paper.PaperError, match="no lokr cell has a score"):
        paper.build(tmp_path, tmp_path / "paper")
    ran = CliRunner().invoke(
        app, ["paper", "--results", str(tmp_path), "--out", str(tmp_path / "paper")]
    )
    assert ran.exit_code == 1
    assert ran.output.count("\n") == 1


@pytest.mark.usefixtures("no_figures")
def test_without_latex_the_sources_are_there_and_it_says_what_to_install(
    root, tmp_path, monkeypatch
):
    monkeypatch.setattr(compiling, "program", lambda: None)
    out = tmp_path / "paper"
    ran = CliRunner().invoke(app, ["paper", "--results", str(root), "--out", str(out)])
    assert ran.exit_code == 0
    assert "install texlive-latex-recommended" in ran.output
    assert {path.name for path in out.iterdir()} >= {"main.tex", "numbers.tex", "tables"}
    assert not (out / "main.pdf").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_place_that_cannot_be_written_to_is_one_line(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(paper.PaperError, match="cannot write to"):
        paper.build(root, tmp_path / "file")


@pytest.mark.usefixtures("no_figures")
def test_a_damaged_list_of_collapsed_trials_is_one_line(root, tmp_path):
    copytree(root, tmp_path / "results")
    (tmp_path / "results" / "great" / "collapsed.jsonl").write_text("{bad\n")
    with pytest.raises(paper.PaperError, match=r"collapsed\.jsonl is damaged"):
        paper.build(tmp_path / "results", tmp_path / "paper")


@needs_latex
@pytest.mark.usefixtures("no_figures")
def test_the_pdf_has_the_same_bytes_twice(root, tmp_path):
    first, second = (paper.build(root, tmp_path / name) for name in ("first", "second"))
    assert first.pdf.read_bytes() == second.pdf.read_bytes()
    one, other = (sorted(made.sources.rglob("*.*")) for made in (first, second))
    assert [path.name for path in one] == [path.name for path in other]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert "main.log" not in {path.name for path in one}


@needs_latex
def test_what_latex_cannot_do_is_one_line_with_its_reason(tmp_path):
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\\begin{document}\\nothing\\end{document}\n"
    )
    with pytest.raises(compiling.LatexError, match="Undefined control sequence"):
        compiling.compiled(compiling.program(), tmp_path)
    assert (tmp_path / "main.log").exists()


@needs_latex
def test_a_package_that_is_missing_says_what_to_install(tmp_path):
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\\usepackage{no-such-package}\\begin{document}x\\end{document}\n"
    )
    with pytest.raises(compiling.LatexError, match=r"not found\. Install texlive-latex"):
        compiling.compiled(compiling.program(), tmp_path)


KEPT = ("bench", "cost", "emoji-knobs", "emoji-styles", "glue-rte", "sentences")


@needs_latex
def test_the_results_of_this_repository_fill_two_pages(tmp_path):
    ours = Path(__file__).parents[2] / "results"
    root = tmp_path / "results"
    root.mkdir()
    for name in KEPT:  # a user's own studies are beside them
        (root / name).symlink_to(ours / name)
    made = paper.build(root, tmp_path / "paper")
    assert made.pages == paper.PAGES
    assert made.unread == {}
    assert (made.sources / "figures" / "importance.pdf").exists()
