"""Tables of made-up results whose cells are known by hand, and what is written of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.part import Part
from analysis.statistics.choice import crossed
from analysis.tables import (
    against,
    cost,
    methods,
    overview,
    parameters,
    quality,
    ranking,
    speed,
    tradeoff,
)
from analysis.tables.registry import TABLES
from analysis.tables.table import Column, Lacking, Table, least, most, points, spelled, text
from analysis.tables.write import csv, escaped, latex, markdown, write
from tests.analysis.synthetic import PROVENANCE, Design, read
from tests.analysis.synthetic import write as write_results

LORA = {"method": "lora", "r": 8}


@pytest.fixture
def part(tmp_path: Path) -> Part:
    """LoKr at r=2 (.50) and r=8 (.60, a rate that is worse too), LoRA at .61: nearly no noise but a
    known one, three seeds.
    """
    lokr = Design(
        effects={"r": {2: 0.0, 8: 0.1}}, noise=0.002, rates={1e-3: 0.0, 1e-2: -0.05}, base=0.5
    )
    lora = Design(effects={}, base=0.61, noise=0.002, trial=LORA, adapter=lambda knobs: 50_000)
    (part,) = read(write_results(tmp_path / "study", lokr, lora))
    return part


def shown(table: Table) -> list[dict[str, str]]:
    headings = [column.heading for column in table.columns]
    return [dict(zip(headings, row, strict=True)) for row in table.texts()]


def bold(table: Table, heading: str) -> list[bool]:
    place = [column.heading for column in table.columns].index(heading)
    return [row[place] for row in table.bold()]


# -- tables ------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_results_fewest_first(part):
    table = parameters.table(part)
    assert [
        (row["method"], row["r"], row["adapter"], row["trainable"]) for row in shown(table)
    ] == [
        ("lokr", "2", "2,000", "2,770"),
        ("lokr", "8", "8,000", "8,770"),
        ("lora", "", "50,000", "50,770"),
    ]


def test_ranks_are_sorted_as_numbers(tmp_path):
    design = Design(effects={"r": {16: 0.0, 8: 0.0, 2: 0.0}}, adapter=lambda knobs: 1)
    (part,) = read(write_results(tmp_path / "study", design))
    assert [row["r"] for row in shown(parameters.table(part))] == ["2", "8", "16"]


def test_quality_has_means_intervals_and_both_protocols(part):
    table = quality.table(part)
    rows = table.frame.set_index("cell")
    trials = part.trials[(part.trials["cell"] == "lokr r=8") & (part.trials["trial.r"] == 8)]
    chosen = trials[trials["trial.learning_rate"] == 1e-3]
    assert rows.loc["lokr r=8", "mean"] == pytest.approx(chosen["score"].mean())
    assert rows.loc["lokr r=8", "rate"] == 1e-3
    assert rows.loc["lokr r=8", "full"] == pytest.approx(chosen["full_dev_best"].mean())
    assert (rows["low"] < rows["mean"]).all()
    assert (rows["mean"] < rows["high"]).all()
    (row,) = [row for row in shown(table) if row["r"] == "8"]
    assert row["score"] == f"{100 * chosen['score'].mean():.1f}"
    assert row["n"] == "3"


def test_the_best_and_what_cannot_be_told_from_it_are_bold(tmp_path):
    effects = {"r": {2: 0.0, 4: 0.2, 8: 0.2, 16: 0.15}}
    design = Design(effects=effects, noise=0.005)
    (part,) = read(write_results(tmp_path / "study", design, seed=1))
    table = quality.table(part)
    marks = dict(zip(table.frame["r"], bold(table, "score"), strict=True))
    assert marks == {"2": False, "4": True, "8": True, "16": False}


def test_methods_are_their_chosen_cells_best_first(part):
    table = methods.table(part)
    first, second = shown(table)
    assert (first["method"], first["cells"], first["trainable"]) == ("lora", "1", "50,770")
    assert (second["method"], second["cells"]) == ("lokr", "2")
    assert (second["trainable"], second["chosen"]) == ("2,770 to 8,770", "8,770")
    assert table.caption.endswith("Chosen: lokr r=8.")
    assert bold(table, "score") == [True, False]


def test_a_method_in_which_all_trials_failed_is_in_no_table_of_methods(tmp_path):
    lost = Design(effects={}, trial=LORA, failed=lambda *_: True)
    folder = write_results(tmp_path / "study", Design(effects={"r": {2: 0.0}}), lost)
    (part,) = read(folder)
    assert [row["method"] for row in shown(methods.table(part))] == ["lokr"]
    assert len(parameters.table(part).frame) == 2
    assert "3 of 6 trials failed" in ranking.table(part).caption
    with pytest.raises(Lacking, match="no two methods to compare"):
        against.table(part)


def test_the_ranking_marks_ties_and_the_chosen_cell(part):
    table = ranking.table(part)
    assert [row["place"] for row in shown(table)] == ["1*+", "2", "3"]
    assert [row["method"] for row in shown(table)] == ["lora", "lokr", "lokr"]
    assert "with 80% power" in table.caption


def test_one_seed_says_that_noise_is_not_known(tmp_path):
    (part,) = read(write_results(tmp_path / "s", Design(effects={"r": {2: 0.0, 8: 0.1}}, seeds=1)))
    table = ranking.table(part)
    assert "what is noise cannot be told" in table.caption
    assert [row["95%"] for row in shown(table)] == ["", ""]


def test_methods_against_each_other_are_paired_differences(part):
    table = against.table(part)
    (row,) = table.frame.to_dict("records")
    scores = part.selected.set_index(["cell", "trial.seed"])["score"]
    gap = (scores["lora"] - scores["lokr r=8"]).mean()
    assert (row["method"], row["against"]) == ("lora", "lokr")
    assert row["difference"] == pytest.approx(gap)
    assert row["p_holm"] == row["p"]
    assert shown(table)[0]["difference"] == f"{100 * gap:+.2f}"


def test_holm_is_over_the_pairs_of_the_table(tmp_path):
    designs = [
        Design(effects={}, base=base, noise=0.01, trial={"method": method})
        for method, base in (("lokr", 0.5), ("lora", 0.51), ("full", 0.52))
    ]
    (part,) = read(write_results(tmp_path / "study", *designs))
    frame = against.table(part).frame
    smallest = frame["p"].idxmin()
    assert len(frame) == 3
    assert frame.loc[smallest, "p_holm"] == pytest.approx(min(3 * frame.loc[smallest, "p"], 1))


# -- cost --------------------------------------------------------------------------------------


def measurement(trial_id: str, milliseconds: float, hardware: str = "A GPU") -> dict:
    times = {"p50_ms": milliseconds, "p95_ms": 2 * milliseconds}
    speed = {"examples_per_second": 8000 / milliseconds, "tokens_per_second": None}
    eager = {
        **times,
        **speed,
        "to_frozen": {"median": 1.5, "q25": 1.4, "q75": 1.6},
        "parts": dict.fromkeys(("forward", "backward", "optimizer"), times),
    }
    step = {"eager": eager, "captured": None}
    peaks = {"kept_for_backward_bytes": 100, "captured": None}
    answer = {"adapted": times, "merged": None}
    return {
        "schema": 1,
        "id": trial_id,
        "study": "study",
        "cell": "as the plan calls it",
        "trial": {"task": "glue/rte", "base": "minilm", "train_size": None},
        "hardware": hardware,
        "batch": {"rows": 8},
        "step": step,
        "frozen": {"step": step, "memory": {"eager": None}},
        "memory": {**peaks, "eager": {"allocated_bytes": milliseconds * 2**20}},
        "energy": {"joules_per_1000_examples": None, "watts": None, "reason": "no counter"},
        "files": {"adapter_bytes": None, "head_bytes": 2048},
        "inference": {"single": answer, "batch": answer},
        "parameters": {"adapter": 1},
        "provenance": {"commit": "abcdef0123"},
    }


def measure(part: Part, times: dict[str, float], hardware: str = "A GPU") -> None:
    folder = part.folder.parent / "cost" / "study" / hardware
    folder.mkdir(parents=True, exist_ok=True)
    for cell, milliseconds in times.items():
        trial_id = str(part.trials[part.trials["cell"] == cell]["id"].iloc[0])
        record = measurement(trial_id, milliseconds, hardware)
        (folder / f"{trial_id}.json").write_text(json.dumps(record))


def test_without_a_measurement_the_table_of_cost_says_what_to_run(part):
    with pytest.raises(Lacking, match="`python -m experiments cost study`"):
        cost.table(part)
    table = tradeoff.table(part)
    assert "no cost was measured" in table.caption
    assert {row["step, ms"] for row in shown(table)} == {""}


def test_cost_is_that_of_the_measurements_and_the_caption_counts_what_is_lacking(part):
    measure(part, {"lokr r=2": 2.0, "lora": 1.0})
    table = cost.table(part)
    rows = {(row["method"], row["r"]): row for row in shown(table)}
    assert rows["lokr", "2"]["step, ms"] == "2.00"
    assert rows["lokr", "2"]["p95"] == "4.00"
    assert rows["lokr", "2"]["x frozen"] == "1.50 (1.40 to 1.60)"
    assert rows["lokr", "2"]["rows/s"] == "4,000"
    assert rows["lokr", "2"]["peak, MiB"] == "2.00"
    assert rows["lokr", "2"]["KiB"] == "2.00"
    assert set(rows) == {("lokr", "2"), ("lora", "")}
    assert rows["lora", ""]["merged"] == ""
    assert "1 of 3 cells were not measured" in table.caption
    assert "No energy: no counter." in table.caption
    assert "A GPU, commit abcdef0." in table.caption


def test_the_best_cost_is_bold_on_each_kind_of_hardware(part):
    measure(part, {"lokr r=2": 2.0, "lora": 1.0})
    measure(part, {"lokr r=2": 20.0, "lora": 30.0}, hardware="Another")
    table = cost.table(part)
    found = zip(shown(table), bold(table, "step, ms"), strict=True)
    marked = {(row["hardware"], row["method"]) for row, mark in found if mark}
    assert marked == {("A GPU", "lora"), ("Another", "lokr")}


def test_files_that_hold_no_measurement_are_named(part):
    measure(part, {"lora": 1.0})
    (part.folder.parent / "cost" / "study" / "A GPU" / "odd.json").write_text("{}")
    (note,) = cost.table(part).notes
    assert note == "odd.json holds no measurement and was left out: schema None, expected 1"


def test_fronts_are_the_cells_that_nothing_beats():
    frame = pd.DataFrame(
        {
            "mean": [0.9, 0.8, 0.8, 0.7, np.nan],
            "trainable": [100, 50, 60, 50, 1],
            "step_p50_ms": [3.0, np.nan, 3.0, 1.0, 1.0],
            "peak_bytes": [np.nan] * 5,
        }
    )
    found = tradeoff.fronts(frame)
    assert found["front_parameters"].tolist() == [True, True, False, False, False]
    assert found["front_time"].tolist() == [True, False, False, True, False]
    assert not found["front_memory"].any()


def test_cost_against_quality_names_the_fronts(part):
    measure(part, {"lokr r=2": 2.0, "lokr r=8": 3.0, "lora": 1.0})
    rows = {(row["method"], row["r"]): row["fronts"] for row in shown(tradeoff.table(part))}
    assert rows == {
        ("lora", ""): "parameters, time, memory",
        ("lokr", "8"): "parameters",
        ("lokr", "2"): "parameters",
    }


def test_costs_of_one_kind_of_hardware_stand_beside_scores(part):
    measure(part, {"lora": 30.0}, hardware="Another")
    measure(part, {"lokr r=2": 2.0, "lora": 1.0})
    table = tradeoff.table(part)
    assert "Costs on A GPU." in table.caption
    assert shown(table)[0]["step, ms"] == "1.00"


def test_speed_is_in_the_order_of_ways(tmp_path):
    with pytest.raises(Lacking, match="bench sweep"):
        speed.table(tmp_path)
    four = [{"id": str(i)} for i in range(4)]
    shared = {"run": 0, "base": "b", "study": "s", "study_trials": 4, "task": "t"}
    pieces = {
        "b trainer": {**shared, "part": "trainer", "trials": [{"seconds": 20.0}]},
        "b packed": {**shared, "part": "packed", "trials": four, "wall_seconds": 8.0},
    }
    record = {"schema": 1, "small": False, "hardware": "A GPU", "runs": [{"commit": "abcdef0123"}]}
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "sweep.json").write_text(json.dumps({**record, "pieces": pieces}))
    rows = shown(speed.table(tmp_path))
    assert [(row["s a trial"], row["slower"], row["timed"]) for row in rows] == [
        ("2.00", "1.00", "4 of 4"),
        ("20.0", "10.0", "1 of 4"),
    ]


# -- all parts -----------------------------------------------------------------------------------


def test_the_overview_has_a_row_a_part_and_blanks_where_a_rival_did_not_run(part, tmp_path):
    other = Design(effects={}, trial={"task": "glue/cola"}, provenance={"dirty": True})
    (second,) = read(write_results(tmp_path / "other", other))
    table = overview.table([part, second])
    first, last = shown(table)
    scores = part.selected.set_index(["cell", "trial.seed"])["score"]
    gap = (scores["lokr r=8"] - scores["lora"]).mean()
    assert first["minus lora"] == f"{100 * gap:+.1f}"
    assert first["parameters"] == "8,770"
    assert bold(table, "minus lora") == [False, False]  # a point, on half of 400 rows
    assert (last["minus lora"], last["minus full"]) == ("", "")
    assert table.notes == [
        "In 1 of 2 parts trials have several origins; the tables of each part name them."
    ]


def test_a_difference_of_accuracy_is_bold_where_the_dev_rows_show_it_too(tmp_path):
    marks = []
    for rows in (400, 400_000):
        shared = {"noise": 0.002, "provenance": {"data": {**PROVENANCE["data"], "dev": rows}}}
        lokr = Design(effects={}, **shared)
        lora = Design(effects={}, base=0.53, trial=LORA, **shared)
        (part,) = read(write_results(tmp_path / str(rows), lokr, lora))
        marks += bold(overview.table([part]), "minus lora")
    assert marks == [False, True]


def test_what_a_choice_is_worth_stands_beside_the_chosen_cell(tmp_path):
    effects = {"r": {2**n: 0.0 for n in range(1, 9)}}
    (part,) = read(write_results(tmp_path / "s", Design(effects=effects, noise=0.02)))
    anew = crossed(part, "lokr")["value"].mean()
    for table in (overview.table([part]), methods.table(part)):
        (row,) = shown(table)
        assert row["anew"] == f"{100 * anew:.1f}"
        assert float(row["score"]) > float(row["anew"]) + 0.5
        assert "choice of" in table.caption


def test_an_overview_without_lokr_is_lacking(tmp_path):
    (only,) = read(write_results(tmp_path / "only", Design(effects={}, trial=LORA)))
    with pytest.raises(Lacking, match="no lokr cell has a score"):
        overview.table([only])


# -- numbers as text ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.25, "0.250"),
        (0.9996, "1.00"),
        (15.04, "15.0"),
        (99.96, "100"),
        (1236.4, "1,236"),
        (-0.0123, "-0.0123"),
        (0, "0"),
    ],
)
def test_three_digits(value: float, expected: str):
    assert spelled(value) == expected


def test_what_looks_equal_to_the_best_is_best():
    values = pd.Series([0.6371, 0.6369, 0.63, np.nan], name="score")
    assert most(values, points("score")) == [True, True, False, False]
    assert least(values, points("score")) == [False, False, True, False]
    assert least(values[[3]], points("score")) == [False]


# -- files -------------------------------------------------------------------------------------

NASTY = r"50% of $x_1 & {y}~#2^\n <a> | 'b' \"c\" ± --out -0.5 1-2" "\u00d7"


def small(best: list[bool] | None = None) -> Table:
    frame = pd.DataFrame({"name": [NASTY, "plain"], "score": [1 / 3, np.nan]})
    columns = [
        Column("na_me", text("name"), number=False),
        Column("score", points("score"), best=best),
    ]
    return Table("small", "A title, 100%", frame, columns, "A caption_.", ["A note."])


def test_text_is_escaped_sign_by_sign():
    assert escaped("a_b & 5% #1 $2 {x} ~ ^ \\") == (
        r"a\_b \& 5\% \#1 \$2 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert escaped("--out") == "-{}-out"
    assert escaped("-0.5 to 1, 1-2, r=-1") == "$-$0.5 to 1, 1-2, r=$-$1"


def test_markdown_marks_the_best_and_shows_what_is_missing():
    *_, first, second, _, caption, _, note = markdown(small([True, True])).splitlines()
    assert first.endswith("| **33.3** |")
    assert r"\|" in first
    assert second == "| plain | - |"
    assert (caption, note) == ("A caption_.", "**A note.**")


def test_latex_marks_the_best_and_shows_what_is_missing():
    lines = latex(small([True, True])).splitlines()
    assert r"plain & -- \\" in lines
    assert any(line.endswith(r"& \textbf{33.3} \\") for line in lines)
    assert r"\begin{tabular}{@{}lr@{}}" in lines
    assert r"\caption{A title, 100\%. A caption\_. A note.}" in lines


def test_csv_has_full_precision_and_the_protocol(tmp_path):
    (path, *_) = write(small(), tmp_path / "small")
    assert path.read_text().startswith("# A title, 100%\n# A caption_.\n# A note.\n")
    frame = pd.read_csv(path, skiprows=3)
    pd.testing.assert_frame_equal(frame, small().frame, check_dtype=False)


def test_files_have_the_same_bytes_twice(part, tmp_path):
    paths = write(quality.table(part), tmp_path / "out" / "quality")
    before = [path.read_bytes() for path in paths]
    assert [
        p.read_bytes() for p in write(quality.table(part), tmp_path / "out" / "quality")
    ] == before
    assert csv(quality.table(part)).encode() == before[0]


def test_what_is_mixed_stands_beside_every_table(tmp_path):
    other = Design(effects={"r": {4: 0.0}}, provenance={"gpu": "Other GPU"})
    lora = Design(effects={}, trial=LORA)
    lokr = Design(effects={"r": {2: 0.0, 8: 0.1}})
    (part,) = read(write_results(tmp_path / "study", lokr, other, lora))
    measure(part, {"lora": 1.0})
    for name, table in TABLES.items():
        assert "2 kinds of hardware in one table" in markdown(table(part)), name
        assert "2 kinds of hardware in one table" in latex(table(part)), name


def test_the_command_writes_every_table_and_says_what_is_lacking(part):
    root = part.folder.parent
    (part.folder / "notes.json").write_text("{}")
    ran = CliRunner().invoke(app, ["tables", "--results", str(root)])
    assert ran.exit_code == 0
    assert "notes.json holds no result and was left out: schema None" in ran.output
    assert "no cost was measured" in ran.output
    assert "no sweep was timed" in ran.output
    written = {path.name for path in (part.folder / "tables").iterdir()}
    names = set(TABLES) - {"cost"}
    assert written == {f"{part.slug}-{n}.{end}" for n in names for end in ("csv", "md", "tex")}


def test_the_command_has_one_line_for_a_study_that_is_not_there(tmp_path):
    for arguments in (["nothing"], []):
        ran = CliRunner().invoke(app, ["tables", *arguments, "--results", str(tmp_path)])
        assert ran.exit_code == 1
        assert ran.output.count("\n") == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (texlive)")
def test_every_table_compiles(part, tmp_path):
    measure(part, {"lora": 1.0})
    tables = [small([True, False]), *(table(part) for table in TABLES.values())]
    body = "\n".join(latex(table) for table in tables)
    document = tmp_path / "tables.tex"
    document.write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage{graphicx}\n"
        f"\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", document.name]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "tables.log").read_text()
