"""Files and page of the comparisons: verdicts are computed, machines are not mixed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments import cli
from experiments.bench import contenders, layer_report, page, step, step_report, sweep, sweep_report
from experiments.bench.paired import ENOUGH, difference
from experiments.bench.record import Record, Recorder, read, read_all
from experiments.bench.sheets import Target, judged, number, spread, with_spread
from experiments.errors import BenchError

GPU = {
    "gpu": "Some GPU",
    "cpu": "Some CPU",
    "commit": "0123456789abcdef",
    "dirty": False,
    "threads": 4,
    "versions": {"torch": "2.11", "peft": "0.21.0"},
}
CPU = {**GPU, "gpu": None}
CASE = {
    "kind": "linear",
    "out": 768,
    "into": 768,
    "tokens": 32768,
    "size": None,
    "r": 8,
    "factor": 8,
    "effective": False,
}
TIMES = {
    "frozen": 0.1,
    "PEFT LoRA": 0.4,
    "PEFT LoKr": 0.5,
    "LyCORIS": 0.36,
    "LyCORIS bypass": 0.33,
    "ours, PyTorch": 0.3,
    "ours": 0.2,
}


def layer_piece(case: dict | None = None, **times: float | None) -> dict:
    """A measured layer; a time of None is a contender that is missing."""
    errors = {"output": 1e-3, "input_gradient": 2e-3, "factor_gradients": 3e-3}
    return {
        "case": {**CASE, **(case or {})},
        "dtype": "bfloat16",
        "input_sets": 2,
        "contenders": {
            name: {
                "mode": None if ms is None else "graph",
                "samples": None if ms is None else [ms, ms, ms],
                "errors": None if name in ("frozen", "PEFT LoRA") or ms is None else errors,
                "reason": "not installed: no such module" if ms is None else None,
            }
            for name, ms in {**TIMES, **times}.items()
        },
    }


def layer_record(small: bool = False, **pieces: dict) -> Record:
    found = {name: {"run": 0, **piece} for name, piece in pieces.items()}
    return Record("layer", small, "Some GPU", [GPU], found)


def ratios(record: Record) -> list[str]:
    """The cells of the first row of the table of ratios."""
    (sheet,) = (s for s in layer_report.sheets(record) if "ratios" in s.title)
    return list(sheet.rows[0][1:])


def test_ratios_stand_beside_their_targets():
    assert ratios(layer_record(a=layer_piece())) == [
        "2.00 (at most 2.2: met)",
        "2.00 (at least 1: met)",
        "2.50 (at least 2: met)",
        "1.65 (at least 1.5: met)",
    ]
    assert ratios(layer_record(a=layer_piece(ours=0.5))) == [
        "5.00 (at most 2.2: missed)",
        "0.80 (at least 1: missed)",
        "1.00 (at least 2: missed)",
        "0.66 (at least 1.5: missed)",
    ]


@pytest.mark.parametrize(
    ("case", "bound"),
    [
        ({"out": 4096, "into": 4096}, 1.25),
        ({"out": 3072, "into": 3072}, 1.4),
        ({"out": 3072, "into": 3072, "r": None}, 1.8),
        ({"out": 768, "into": 768}, 2.2),
        ({"out": 12288, "into": 3072}, None),
        ({"out": 384, "into": 384}, None),
    ],
)
def test_the_bound_over_the_frozen_layer_is_the_issues(case, bound):
    (over_frozen, *others) = ratios(layer_record(a=layer_piece(case)))
    assert over_frozen == ("2.00" if bound is None else judged(2.0, Target("at most", bound)))
    assert all("at least" in other for other in others)


def test_the_better_of_lycoriss_paths_counts_and_a_missing_peer_has_no_ratio():
    assert ratios(layer_record(a=layer_piece(LyCORIS=0.25)))[3].startswith("1.25")
    gone = layer_piece(**{"LyCORIS": None, "LyCORIS bypass": None})
    record = layer_record(a=gone)
    assert ratios(record)[3] == "-"
    (times, *_) = layer_report.sheets(record)
    assert "LyCORIS: not installed: no such module." in times.notes
    assert layer_report.failures(record) == []


def test_convolutions_have_a_table_of_their_own_without_targets():
    record = layer_record(a=layer_piece(), b=layer_piece({"kind": "conv2d", "size": 8}))
    titles = [sheet.title for sheet in layer_report.sheets(record)]
    assert [title.split(":")[0] for title in titles[:4]] == ["Linear layers"] * 2 + [
        "Convolutions"
    ] * 2
    assert "at" not in " ".join(layer_report.sheets(record)[3].rows[0])


def test_on_a_cpu_only_pefts_lokr_from_768_on_has_a_target():
    assert ratios(layer_record(small=True, a=layer_piece())) == [
        "2.00",
        "2.00",
        "2.50 (at least 2: met)",
        "1.65",
    ]
    assert ratios(layer_record(small=True, a=layer_piece({"into": 384})))[2] == "2.50"


def test_errors_of_ours_are_judged_and_eager_times_are_marked():
    piece = layer_piece()
    piece["contenders"]["ours"]["errors"]["output"] = 0.5
    piece["contenders"]["LyCORIS"] |= {"mode": "eager", "reason": "not captured: sync"}
    record = layer_record(a=piece)
    times, _, errors = layer_report.sheets(record)
    assert errors.notes == ["Ours at most 0.02 in bfloat16: missed."]
    assert errors.rows[0][-1] == "5.0e-01"
    assert "0.360 ±0.000 (eager)" in times.rows[0]
    assert layer_report.failures(record) == ["a: relative error 5.0e-01, allowed 0.02"]


def step_record(**times: float | None) -> Record:
    ms = {
        "frozen base, captured": 9.0,
        "PEFT LoRA": 70.0,
        "PEFT LoKr": 90.0,
        "ours": 15.0,
        "ours, side by side": 80.0,
    }
    pieces = {
        name: {
            "run": 0,
            "size": step.Size().to_dict(),
            "lanes": 8 if "side" in name else 1,
            "samples": None if value is None else [value, value, 2 * value],
            "allocated_bytes": None if value is None else int(value * 2**20),
            "reserved_bytes": None if value is None else 2**30,
            "reason": "RuntimeError: bug" if value is None else None,
        }
        for name, value in {**ms, **times}.items()
    }
    return Record("step", False, "Some GPU", [GPU], pieces)


def test_step_time_memory_and_their_targets():
    times, verdicts = step_report.sheets(step_record())
    assert verdicts.rows[0][1] == "6.00 (at least 5: met)"
    assert verdicts.rows[-1][1] == "0.21 (at most 1: met)"
    lanes = next(row for row in times.rows if "8 trials" in row[0])
    assert lanes[1:4] == ["80.0", "152.0", "10.0"]
    assert step_report.sheets(step_record(ours=20.0))[1].rows[0][1] == "4.50 (at least 5: missed)"
    assert step_report.failures(step_record()) == []
    failed = step_record(ours=None)
    assert step_report.failures(failed) == ["ours: RuntimeError: bug"]
    assert step_report.sheets(failed)[1].rows[0][1] == "-"


def test_steps_of_different_sizes_are_not_compared():
    record = step_record()
    record.pieces["PEFT LoKr"]["size"] = {**record.pieces["ours"]["size"], "rows": 64}
    first, verdicts, second, _ = step_report.sheets(record)
    assert "32 rows" in first.title
    assert "64 rows" in second.title
    assert verdicts.rows[0][1] == "-"


def sweep_record(small: bool = False, shift: float = 0.0) -> Record:
    """64 trials: packed in 64 s, in the Trainer 15 s each."""
    head = {
        "base": "minilm",
        "study": "bench-sweep",
        "study_trials": 64,
        "task": "glue/rte",
        "epochs": 6,
        "batch_size": 32,
        "max_length": 128,
        "precision": "bf16",
    }
    noise = np.random.default_rng(1).normal(0, 0.01, 64)

    def trials(count: int, seconds: float, wobble: bool) -> list[dict]:
        return [
            {
                "id": f"{i}{wobble}",
                "pair": str(i),
                "status": "ok",
                "full_score": 0.6 + (noise[i] + shift if wobble else 0.0),
                "report_score": None if i == 0 else 0.6,
                "seconds": seconds,
            }
            for i in range(count)
        ]

    packed = {"wall_seconds": 64.0, "first_result_seconds": 20.0, "lanes": [32]}
    floor = {"lanes": 32, "rows": 1024, "tokens": 96, "samples": {"step": [9.0], "floor": [6.0]}}
    pieces = {
        "packed": {**packed, "trials": trials(64, 1.0, True)},
        "trainer": {"warm_up_seconds": 20.0, "trials": trials(3, 15.0, False)},
        "unpacked": {"warm_up_seconds": 20.0, "trials": trials(3, 7.0, False)},
        "captured": {"warm_up_seconds": 20.0, "trials": trials(64, 3.0, False)},
        "floor": floor,
    }
    found = {f"minilm {p}": {"run": 0, "part": p, **head, **v} for p, v in pieces.items()}
    return Record("sweep", small, "Some GPU", [GPU], found)


def test_trials_an_hour_and_their_targets():
    speed, floor, scores = sweep_report.sheets(sweep_record())
    assert [row[3] for row in speed.rows] == ["3,600", "240.0", "514.3", "1,200"]
    assert [row[4] for row in speed.rows] == [
        "-",
        "15.00 (at least 10: met)",
        "7.00 (at least 8: missed)",
        "3.00 (at least 2.5: met)",
    ]
    assert [row[1] for row in speed.rows] == [
        "64",
        "3 of 64, extrapolated",
        "3 of 64, extrapolated",
        "64",
    ]
    assert floor.rows[0][-1] == "1.50"
    full, report = scores.rows
    assert full[1] == "64"
    assert full[-1] == "met"
    assert report[1] == "63", "a trial without a score is no pair"
    assert sweep_report.sheets(sweep_record(shift=0.05))[2].rows[0][-1] == "missed"


def test_only_the_same_trials_are_compared():
    record = sweep_record()
    record.pieces["minilm trainer"]["epochs"] = 1
    speeds = [s for s in sweep_report.sheets(record) if "trials of glue/rte" in s.title]
    assert len(speeds) == 2
    assert speeds[1].rows[0][4] == "-"


def test_the_small_sweep_has_no_targets():
    (speed, *_) = sweep_report.sheets(sweep_record(small=True))
    assert "at least" not in str(speed.rows)


def test_a_paired_difference_and_its_interval():
    generator = np.random.default_rng(0)
    first = generator.normal(0.6, 0.1, 400)
    noise = generator.normal(0, 0.02, 400)
    same = difference(first + noise, first)
    assert same.is_nothing
    assert same.pairs == 400
    assert same.high - same.low == pytest.approx(2 * 1.96 * 0.02 / 20, rel=0.15)
    assert not difference(first + noise + 0.01, first).is_nothing
    assert difference([0.5], [0.25]).mean == 0.25
    assert difference([], []) is None
    assert difference(first + noise, first) == same, "the same numbers every time"


def test_numbers_as_people_read_them():
    assert [number(v) for v in (None, 0.1234, 1.234, 12.34, 12345.6)] == [
        "-",
        "0.123",
        "1.23",
        "12.3",
        "12,346",
    ]
    assert with_spread([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.00 ±2.00"
    assert with_spread(None) == "-"
    assert spread([1.0]) == 0


def test_names_in_the_reports_are_the_contenders():
    assert set(layer_report.ORDER) == set(contenders._BUILD)
    named = (step_report.LORA, step_report.PEFT, step_report.OURS, step_report.EAGER)
    named += (step_report.FLOOR, step_report.FLOOR_CAPTURED, step_report.PEFT_CAPTURED)
    assert set(named) <= set(step.names("cuda"))
    assert {*sweep_report._LABELS, "floor"} == set(sweep.PARTS)


def test_the_page_is_a_function_of_the_files(tmp_path):
    recorder = Recorder(tmp_path, "layer", GPU)
    recorder.put("768x768", layer_piece())
    small = Recorder(tmp_path, "layer", CPU)
    small.put("768x768", layer_piece(ours=0.4))
    text = page.page(read_all(tmp_path))
    assert text == page.page(read_all(tmp_path))
    assert text.index("## One layer\n") < text.index("## One layer (small CPU version)")
    assert "On: Some GPU. File: `layer.json`." in text
    assert "commit 0123456789ab: torch 2.11, triton none, peft 0.21.0" in text
    assert "| 768x768 | 2.00 (at most 2.2: met) |" in text
    ran = CliRunner().invoke(cli.app, ["bench", "page", "--results", str(tmp_path)])
    assert ran.exit_code == 0
    assert (tmp_path / "bench" / "README.md").read_text() == text


def test_a_page_of_everything_has_all_three():
    records = [layer_record(a=layer_piece()), step_record(), sweep_record()]
    text = page.page(records)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## One layer",
        "## One training step",
        "## One sweep",
    ]


def test_nothing_measured_is_a_page_too():
    assert "Nothing is measured yet" in page.page([])


def test_a_piece_replaces_itself_alone_and_keeps_its_run(tmp_path):
    first = Recorder(tmp_path, "layer", GPU)
    first.put("a", layer_piece())
    first.put("b", layer_piece())
    later = {**GPU, "commit": "fedcba"}
    second = Recorder(tmp_path, "layer", later)
    second.put("b", layer_piece(ours=0.3))
    found = read(tmp_path / "bench" / "layer.json")
    assert found.runs == [GPU, later]
    assert found.pieces["a"]["run"] == 0
    assert found.pieces["b"]["run"] == 1
    assert found.pieces["b"]["contenders"]["ours"]["samples"][0] == 0.3
    assert "(1 of 2 pieces)" in page.page([found])
    second.put("a", layer_piece())
    assert read(tmp_path / "bench" / "layer.json").runs == [later]


def test_another_gpus_pieces_are_not_mixed_in(tmp_path):
    Recorder(tmp_path, "layer", GPU).put("a", layer_piece())
    Recorder(tmp_path, "layer", {**GPU, "gpu": "Another"}).put("b", layer_piece())
    found = read(tmp_path / "bench" / "layer.json")
    assert found.hardware == "Another"
    assert list(found.pieces) == ["b"]


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 7}', '{"schema": 1}', "\xff"])
def test_a_damaged_file_is_one_line(tmp_path, content):
    path = tmp_path / "bench" / "layer.json"
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    with pytest.raises(BenchError, match="is no bench result"):
        read_all(tmp_path)
    ran = CliRunner().invoke(cli.app, ["bench", "page", "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert "move it away" in ran.output


def test_results_that_cannot_be_written_are_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match="cannot"):
        Recorder(tmp_path / "file", "layer", GPU)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, "layer", GPU)
    recorder.put("a", layer_piece())
    before = (tmp_path / "bench" / "layer.json").read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BenchError, match=r"cannot write .*layer\.json: No space left on device"):
        recorder.put("b", layer_piece())
    assert (tmp_path / "bench" / "layer.json").read_text() == before
    assert [p.name for p in (tmp_path / "bench").iterdir()] == ["layer.json"]


def test_what_is_not_finite_is_null_and_not_exact(tmp_path):
    piece = layer_piece()
    piece["contenders"]["ours"]["errors"]["output"] = float("nan")
    Recorder(tmp_path, "layer", GPU).put("a", piece)
    found = read(tmp_path / "bench" / "layer.json")
    assert found.pieces["a"]["contenders"]["ours"]["errors"]["output"] is None
    assert layer_report.failures(found) == ["a: relative error not finite, allowed 0.02"]
    *_, errors = layer_report.sheets(found)
    assert errors.notes == ["Ours at most 0.02 in bfloat16: missed."]


def test_all_measures_the_three(tmp_path, monkeypatch):
    called = []
    for name in ("layer", "step", "sweep"):
        monkeypatch.setattr(
            f"experiments.bench.runs.{name}",
            lambda recorder, *rest, name=name: called.append(name) or [],
        )
    ran = CliRunner().invoke(
        cli.app, ["bench", "all", "--device", "cpu", "--results", str(tmp_path)]
    )
    assert ran.exit_code == 0, ran.output
    assert called == ["layer", "step", "sweep", "sweep"], "of text and of diffusion"


@pytest.mark.parametrize("command", ["layer", "step", "sweep", "page", "all"])
def test_every_command_has_help(command):
    ran = CliRunner().invoke(cli.app, ["bench", command, "--help"])
    assert ran.exit_code == 0
    assert "--results" in ran.output


def test_the_published_page_is_up_to_date():
    folder = Path(__file__).parents[2] / "results"
    records = read_all(folder)
    published = folder / "bench" / "README.md"
    assert bool(records) == published.exists()
    if records:
        assert published.read_text() == page.page(records)
        for record in records:
            text = (folder / "bench" / record.file_name).read_text()
            assert text == json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n"


def test_a_few_pairs_are_no_verdict():
    few = difference([0.5] * (ENOUGH - 1), [0.25] * (ENOUGH - 1))
    assert sweep_report._verdict(few) == "too few: 8 at least"
    assert sweep_report._verdict(difference([0.5] * ENOUGH, [0.25] * ENOUGH)) == "missed"
    assert sweep_report._verdict(difference([0.5] * ENOUGH, [0.5] * ENOUGH)) == "met"
