"""What samples are worth, and the figure of them, on made-up results whose answer is known."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from rich.console import Console

from analysis import labels
from analysis.figures.samples import Strip, read, samples, wanted
from analysis.load import load
from analysis.selection import cells
from analysis.terminal import judged
from analysis.terminal.figures import draw_all
from analysis.terminal.summary import summarize

LINEARS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
REFERENCE = {
    "prompts": 64,
    "gallery": 1299,
    "styles": 8,
    "similarity_ceiling": 0.952,
    "frechet_other_concepts": 93.9,
    "vendi_ceiling": 11.2,
    "style_ceiling": 0.953,
    "style_accuracy": 0.534,
    "style_false": 0.011,
    "retrieval_top5_ceiling": 1.0,
    "similarity_base": 0.263,
    "frechet_base": 337.2,
    "vendi_base": 1.2,
    "style_base": 0.0,
    "retrieval_top5_base": 0.05,
}


def result(number: int, gain: float, selection: float | None = None, **trial) -> dict:
    fields = {
        "task": "emoji/openmoji",
        "base": "emoji",
        "method": "lokr",
        "r": 8,
        "alpha": 16.0,
        "decompose_factor": 4,
        "decompose_both": False,
        "init_weights": True,
        "use_effective_conv2d": False,
        "target_modules": [*LINEARS, "conv1", "conv2"],
        "learning_rate": 0.001,
        "seed": 0,
        "samples": 64,
    }
    drifts = {1: 0.5, 2: 0.123, 3: 0.7}
    return {
        "schema": 1,
        "id": f"{number:016x}",
        "status": "ok",
        "trial": {**fields, **trial},
        "metrics": {
            "primary": "gain",
            "score": gain,
            "selection_score": gain if selection is None else selection,
            "selected_epoch": 2,
            "full_dev_best": gain,
            "similarity": 0.5 + gain / 10,
            "similarity_se": 0.005,
            "frechet": 200.0,
            "vendi": 9.5,
            "style": 0.75,
            "retrieval_top1": 0.25,
            "retrieval_top5": 0.625,
            "reference": REFERENCE,
        },
        "history": [
            {"epoch": epoch, "report": {"gain": gain, "drift": drift}}
            for epoch, drift in drifts.items()
        ],
        "parameters": {"adapter": 32848, "head": 0, "trainable": 32848, "base": 8289260},
        "cost": {"seconds": 1.0},
    }


def keep(folder: Path, *results: dict) -> Path:
    folder.mkdir(exist_ok=True)
    for row in results:
        (folder / f"{row['id']}.json").write_text(json.dumps(row))
    return folder


def draw(folder: Path, name: str, shade: int, count: int = 8) -> None:
    folder.mkdir(exist_ok=True)
    pixels = np.full((64, 64 * count, 3), shade, np.uint8)
    Image.fromarray(pixels).save(folder / name, lossless=True)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """r=2 gains most on the report half, r=8 on the selection half; LoRA has one cell."""
    rows = [
        result(1, gain=0.9, selection=0.2, r=2),
        result(2, gain=0.3, selection=0.5, seed=0),
        result(3, gain=0.5, selection=0.5, seed=1),
        result(4, gain=0.4, selection=0.5, seed=2),
        result(5, gain=0.1, selection=0.1, method="lora"),
    ]
    folder = keep(tmp_path / "study", *rows)
    for row in rows:
        draw(folder / "pictures", f"{row['id']}.samples.webp", shade=int(row["id"], 16))
    draw(folder / "pictures", "openmoji-truth.webp", shade=255)
    draw(folder / "pictures", "openmoji-base.webp", shade=200)
    return folder


def rows_of(folder: Path):
    frame = load(folder)
    table = labels.shortened(cells(frame), frame)
    return wanted(folder / "pictures", table, frame, "gain")


def printed(folder: Path, width: int = 80) -> str:
    out = io.StringIO()
    summarize(folder, Console(file=out, width=width))
    return out.getvalue()


def line_of(text: str, start: str) -> list[str]:
    """The words of the table's line that starts so; captions come after it."""
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [start])


def tables(text: str) -> list[str]:
    """From the heading of each table to that of the next."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.split()[:1] == ["method"]]
    return ["\n".join(lines[a:b]) for a, b in pairwise([*starts, len(lines)])]


def words(text: str) -> str:
    return " ".join(text.split())


def test_rows_are_truth_base_and_each_methods_cell_that_is_best_on_the_selection_half(study):
    rows = rows_of(study)
    files = [row.file.name for row in rows]
    middle = f"{4:016x}.samples.webp"  # the seed of the gain 0.4, between 0.3 and 0.5
    lora = f"{5:016x}.samples.webp"
    assert files == ["openmoji-truth.webp", "openmoji-base.webp", middle, lora]
    assert rows[2].label == "LoKr\nr=8\n32,848 parameters, gain 40.0"
    assert rows[3].label == "LoRA (peft)\n32,848 parameters, gain 10.0"


def test_of_two_seeds_the_lower_is_shown(study):
    (study / f"{5:016x}.json").unlink()
    keep(study, result(6, gain=0.95, r=8, seed=0), result(7, gain=0.99, r=8, seed=1))
    for number in (2, 3, 4):
        (study / f"{number:016x}.json").unlink()
    assert rows_of(study)[-1].file.name == f"{6:016x}.samples.webp"


def test_a_trial_that_failed_is_not_shown(study):
    diverged = result(4, gain=0.4, selection=0.5, seed=2) | {"status": "diverged"}
    keep(study, diverged)
    assert rows_of(study)[2].file.name == f"{2:016x}.samples.webp"


def test_a_method_without_a_finished_trial_has_no_row(study):
    keep(study, result(5, gain=0.1, method="lora") | {"status": "diverged"})
    assert [row.label.split("\n")[0] for row in rows_of(study)[2:]] == ["LoKr"]


def test_pictures_are_read_as_they_are_and_what_lacks_is_named(study):
    (study / "pictures" / "openmoji-base.webp").unlink()
    (study / "pictures" / f"{5:016x}.samples.webp").write_bytes(b"no picture")
    strips, lacking = read(rows_of(study))
    assert [int(strip.pixels[0, 0, 0]) for strip in strips] == [255, 4]
    assert strips[0].pixels.shape == (64, 512, 3)
    assert lacking == ["openmoji-base.webp", f"{5:016x}.samples.webp"]


def test_the_figure_has_each_strip_in_its_place_and_its_own_colors():
    shades = [10, 120, 240]
    strips = [
        Strip(str(s), np.full((64, 64 * n, 3), s, np.uint8))
        for s, n in zip(shades, (8, 8, 4), strict=True)
    ]
    figure = samples(strips, "emoji/openmoji on emoji", "")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    boxes = [axes.get_window_extent() for axes in figure.axes]
    height = pixels.shape[0]
    for shade, box in zip(shades, boxes, strict=True):
        inside = pixels[
            round(height - box.y1) + 1 : round(height - box.y0) - 1,
            round(box.x0) + 1 : round(box.x1) - 1,
        ]
        assert (inside[..., :3] == shade).all()
    assert boxes[0].y0 > boxes[1].y1 > boxes[1].y0 > boxes[2].y1
    assert [box.x0 for box in boxes] == [boxes[0].x0] * 3
    assert boxes[2].width == pytest.approx(boxes[0].width / 2)
    assert boxes[0].width == pytest.approx(8 * boxes[0].height)


def test_summary_writes_the_same_grid_twice_and_names_it(study):
    text = printed(study)
    grid = study / "figures" / "emoji-openmoji-emoji-samples"
    assert f"samples {grid}.png (and .pdf)" in text.splitlines()
    assert "no picture" not in text
    files = [Path(f"{grid}.png"), Path(f"{grid}.pdf")]
    before = [file.read_bytes() for file in files]
    printed(study)
    assert [file.read_bytes() for file in files] == before


def test_pictures_that_are_missing_are_said_and_the_others_shown(study):
    (study / "pictures" / "openmoji-truth.webp").unlink()
    text = printed(study)
    assert f"no picture can be read from {study}/pictures: openmoji-truth.webp" in text
    assert (study / "figures" / "emoji-openmoji-emoji-samples.png").exists()


def test_without_any_picture_there_is_no_figure_and_it_is_said(tmp_path):
    folder = keep(tmp_path / "study", result(1, gain=0.9))
    text = printed(folder)
    assert "openmoji-truth.webp, openmoji-base.webp, 0000000000000001.samples.webp" in text
    assert "-samples.png" not in text
    assert not list((folder / "figures").glob("*-samples*"))


def test_summary_and_figures_draw_the_same_grid(tmp_path):
    folder = keep(tmp_path / "study", result(1, gain=0.9))
    draw(folder / "pictures", "0000000000000001.samples.webp", shade=9)
    printed(folder)
    (grid,) = (folder / "figures").glob("*-samples.png")
    by_summary = grid.read_bytes()
    draw_all(tmp_path, ["study"], Console(file=io.StringIO()))
    assert grid.read_bytes() == by_summary


def test_trials_that_drew_nothing_are_said_to_have_drawn_nothing(tmp_path):
    row = result(1, gain=0.9, samples=0)
    kept = ("primary", "score", "selection_score", "selected_epoch", "full_dev_best")
    row["metrics"] = {name: row["metrics"][name] for name in kept}
    text = printed(keep(tmp_path / "study", row))
    assert "samples none were drawn (samples=0)" in text
    assert "gain and drift" not in text


def test_sheets_of_a_pipeline_are_named_and_not_laid_side_by_side(tmp_path):
    row = result(1, gain=0.9, task="dreambooth/dog")
    folder = keep(tmp_path / "study", row)
    draw(folder / "pictures", "dog-photos.webp", shade=9)
    assert f"samples {folder}/pictures/*.webp" in printed(folder).splitlines()
    assert not list((folder / "figures").glob("*-samples*"))


def test_the_second_table_has_means_at_the_selected_rate_beside_base_and_truth(tmp_path):
    rows = [
        result(1, gain=0.2, selection=0.5, learning_rate=0.01, seed=0),
        result(2, gain=0.4, selection=0.5, learning_rate=0.01, seed=1),
        result(3, gain=0.9, selection=0.1, learning_rate=0.001, seed=0),
    ]
    _, text = tables(printed(keep(tmp_path / "study", *rows)))
    assert " ".join(line_of(text, "method")) == "method gain sim FD vendi style top5 drift"
    assert " ".join(line_of(text, "lokr")) == "lokr 30.0 0.530 200 9.5 75 62 12.3"
    assert " ".join(line_of(text, "base")) == "base 0.0 0.263 337 1.2 0 5 0.0"
    assert " ".join(line_of(text, "truth")) == "truth 0.952 93.9 11.2 95 100"


def test_the_caption_says_when_and_how_many_and_how_good_the_classifier_is(study):
    text = words(printed(study))
    assert "gain and drift are read at the selected epoch; samples are drawn after the" in text
    assert "last step, 64 a trial" in text
    assert "gain: % of the base's own loss on what it was not shown that is taken away." in text
    assert "it is right on 53% of true drawings of 8 styles and takes 1.1% of other styles'" in text
    assert "among the 5 nearest of 1,299" in text


def test_nothing_is_said_of_a_classifier_that_could_not_be_made(tmp_path):
    row = result(1, gain=0.9)
    row["metrics"] |= {"style": None}
    row["metrics"]["reference"] = REFERENCE | dict.fromkeys(
        ("style_accuracy", "style_false", "style_ceiling", "style_base")
    )
    text = words(printed(keep(tmp_path / "study", row)))
    assert "classifier" not in text
    assert "style:" not in text


def test_drift_that_was_not_measured_has_no_column(tmp_path):
    row = result(1, gain=0.9)
    row["history"] = [{"epoch": 2, "report": {"gain": 0.9}}]
    text = printed(keep(tmp_path / "study", row))
    assert "drift" not in line_of(tables(text)[1], "method")
    assert "drift:" not in text
    assert "gain is read at the selected epoch" in words(text)


def test_the_csv_has_what_the_second_table_has(study):
    printed(study)
    table = pd.read_csv(study / "figures" / "emoji-openmoji-emoji.csv").set_index("cell")
    best = table.loc["lokr r=8"]
    expected = {"score": 0.4, "similarity": 0.54, "frechet": 200, "vendi": 9.5, "style": 0.75}
    expected |= {"retrieval_top5": 0.625, "drift": 0.123, "selection_score": 0.5}
    assert best[list(expected)].to_dict() == pytest.approx(expected)
    assert table["trainable"].dtype == int


def test_references_are_means_of_what_is_known(tmp_path):
    rows = [result(1, gain=0.9), result(2, gain=0.9, seed=1)]
    rows[0]["metrics"]["reference"] = {"vendi_base": 1.0, "style_base": None}
    rows[1]["metrics"]["reference"] = {"vendi_base": 2.0, "style_base": None}
    assert judged.references(load(keep(tmp_path / "study", *rows))) == {"vendi_base": 1.5}


def test_all_six_knobs_of_every_method_fit_80_columns(tmp_path):
    """As wide as it gets: failures, every knob, all weights, and no number is cut."""
    rows = [
        result(1, gain=0.366, r=2, learning_rate=0.0003, seed=0),
        result(2, gain=0.102, r=2, learning_rate=0.0003, seed=1),
        result(3, gain=-0.123, alpha=4.0, decompose_factor=-1, decompose_both=True),
        result(4, gain=0.1, init_weights="lycoris", use_effective_conv2d=True),
        result(5, gain=0.1, init_weights="lycoris", learning_rate=0.01) | {"status": "diverged"},
        result(6, gain=0.1, method="full"),
        result(7, gain=0.01, method="lokr-peft"),
    ]
    rows[5]["parameters"] |= {"trainable": 8289260}
    text = printed(keep(tmp_path / "study", *rows))
    shown = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(len, shown)) <= 80
    assert "…" not in text
    first, second = tables(text)
    assert line_of(first, "full")[:2] == ["full", "8.29M"]
    assert "lokr 2 16 4 no True no 32.8k 0.0003 23.4±18.7 23.4 1.0 0" in words(first)
    assert "lokr 8 4 -1 yes True no -12.3 0.488 200 9.5 75 62 12.3" in words(second)


def test_counts_are_exact_where_there_is_room(study):
    assert "32,848" in printed(study)


def test_targets_are_told_apart_by_what_differs(tmp_path):
    rows = [
        result(1, gain=0.9, target_modules=LINEARS),
        result(2, gain=0.8, target_modules=[*LINEARS, "conv1", "conv2"]),
    ]
    text = printed(keep(tmp_path / "study", *rows))
    assert "lokr (6) " in words(text)
    assert "lokr (6)+conv1+conv2 " in words(text)
    assert f"targets: (6) stands for {', '.join(LINEARS)}." in words(text)


def test_targets_that_share_little_are_spelled_in_full():
    assert labels.shared([("query", "value"), "all-linear"]) == []
    assert labels.shared([("query", "value"), ("query", "key")]) == []
    assert labels.shared([("a", "b", "c"), ("b", "a")]) == ["a", "b"]


COUNTS = {770: "770", 999: "999", 6146: "6.15k", 999_400: "999k", 999_999: "1M", 7e9: "7G"}


@pytest.mark.parametrize(("number", "text"), COUNTS.items())
def test_counts_in_short(number, text):
    assert labels.count(number) == text
