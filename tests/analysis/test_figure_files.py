"""Every registered figure as a file: sized for a page, nothing cut, the same bytes twice."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.figures import ACROSS, FIGURES, gallery, samples
from analysis.figures.style import (
    COLUMN,
    PAGE,
    SERIES,
    STYLES,
    Lacking,
    blank,
    framed,
    save,
    style,
    styled,
)
from analysis.part import Part
from analysis.terminal.figures import draw_all
from tests.analysis.synthetic import Design, read, write

EFFECTS = {
    "r": {2: 0.0, 8: 0.03},
    "alpha": {4.0: 0.0, 16.0: 0.01},
    "decompose_factor": {-1: 0.0, 4: 0.005},
    "decompose_both": {False: 0.0, True: 0.001},
    "init_weights": {True: 0.0, "lycoris": -0.004},
    "use_effective_conv2d": {False: 0.0, True: -0.005},
}
RATES = {1e-3: -0.05, 3e-3: 0.0}
EMOJI = {"task": "emoji/openmoji", "base": "emoji", "train_size": 32}
GRID = Design(effects=EFFECTS, rates=RATES, noise=0.002, primary="gain", trial=EMOJI, base=0.3)


def alone(name: str, base: float, trial: dict, **design: object) -> Design:
    fields = {**trial, "method": name}
    return Design(effects={}, base=base, rates=RATES, trial=fields, noise=0.002, **design)


def results(root: Path, grid: Design = GRID) -> Path:
    """A study of pictures with 64 cells of LoKr, and one of sentences; a sweep that was timed."""
    rivals = [alone(n, b, EMOJI, primary="gain") for n, b in (("lora", 0.36), ("full", 0.38))]
    folder = write(root / "pictures", grid, *rivals)
    for number, path in enumerate(sorted(folder.glob("*.json"))):
        result = json.loads(path.read_bytes())
        for epoch in result["history"]:
            epoch["report"]["drift"] = 0.5 + result["metrics"]["score"] + number % 7 / 50
        result["metrics"] |= {"similarity": 0.5, "style": 0.25 + number % 5 / 10}
        path.write_text(json.dumps(result))
        picture(folder / "pictures" / f"{result['id']}.samples.webp", number % 256)
    picture(folder / "pictures" / "openmoji-truth.webp", 255)
    picture(folder / "pictures" / "openmoji-base.webp", 200)
    text = {"task": "glue/rte"}
    others = [alone(n, b, text) for n, b in (("lora", 0.7), ("full", 0.8), ("head", 0.4))]
    write(root / "text", Design(effects={"r": {2: 0.0, 8: 0.1}}, base=0.6), *others)
    sweep(root)
    few = {**text, "task": "glue/mrpc"}
    sizes = [alone("lokr", 0.5 + n / 500, few | {"train_size": n}) for n in (8, 32, 128)]
    write(root / "sizes", *sizes)
    return root


def picture(path: Path, shade: int, count: int = 8) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.full((16, 16 * count, 3), shade, np.uint8)
    Image.fromarray(pixels).save(path, lossless=True)


def sweep(root: Path) -> None:
    shared = {"run": 0, "base": "minilm", "task": "glue/rte", "study": "b", "study_trials": 2}
    pieces = {
        "packed": {**shared, "part": "packed", "wall_seconds": 2.0, "trials": [{}, {}]},
        "alone": {**shared, "part": "trainer", "trials": [{"seconds": 20.0}]},
    }
    record = {"schema": 1, "hardware": "A GPU", "small": False, "runs": [{}], "pieces": pieces}
    (root / "bench").mkdir()
    (root / "bench" / "sweep.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def emoji(root: Path) -> Part:
    (part,) = read(root / "pictures")
    assert len(part.cells) == 66
    return part


@pytest.fixture(scope="module")
def drawn(root: Path, emoji: Part) -> dict[str, Figure]:
    """Every figure, laid out."""
    every = [emoji, *read(root / "text"), *read(root / "sizes")]
    figures = {name: draw(emoji) for name, draw in FIGURES.items()}
    figures |= {name: draw(root, every) for name, draw in ACROSS.items()}
    for figure in figures.values():
        FigureCanvasAgg(figure).draw()
    return figures


NAMES = [*FIGURES, *ACROSS]


def shown(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_fits_a_column_or_a_page_and_its_text_can_be_read(drawn, name):
    figure = drawn[name]
    assert figure.get_figwidth() in (COLUMN, PAGE)
    assert figure.get_figheight() <= 11
    assert min(text.get_fontsize() for text in shown(figure)) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_no_text_leaves_the_page(drawn, name):
    figure = drawn[name]
    page = figure.bbox.padded(1)
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
    boxes |= {f"axes {i}": axes.get_tightbbox() for i, axes in enumerate(figure.axes)}
    assert [what for what, box in boxes.items() if not _inside(page, box)] == []


def _inside(page, box) -> bool:
    return page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


@pytest.mark.parametrize("name", NAMES)
def test_title_note_legend_and_axes_keep_apart(drawn, name):
    figure = drawn[name]
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    boxes += [axes.get_tightbbox() for axes in figure.axes if axes.axison]
    clashes = [
        (i, j)
        for i, one in enumerate(boxes)
        for j, other in enumerate(boxes[:i])
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 1
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    ]
    assert clashes == []


@pytest.mark.parametrize("name", ["ranking", "paired"])
def test_rows_of_many_cells_do_not_run_into_each_other(drawn, name):
    names = drawn[name].axes[0].texts
    column = [t.get_window_extent() for t in names if t.get_position()[0] == 0 and t.get_text()]
    tops = sorted((box.y0, box.y1) for box in column)
    assert len(tops) == 66
    assert all(low[1] <= high[0] + 0.5 for low, high in pairwise(tops))


def test_methods_and_series_differ_without_color():
    for looks in (list(STYLES.values()), list(SERIES)):
        assert len({look.marker for look in looks}) == len(looks)
        assert len({str(look.line) for look in looks}) == len(looks)
        assert len({look.hatch for look in looks}) == len(looks)


def test_a_method_of_another_version_has_its_own_name():
    look = style("dora")
    assert look.label == "dora"
    assert look.marker not in {known.marker for known in STYLES.values()}


@styled
def test_a_long_note_and_a_legend_have_their_own_room():
    figure = blank(COLUMN, 3)
    axes = figure.subplots()
    line = axes.plot([0, 1])[0]
    line.set_label("a line")
    framed(figure, "title", "a word " * 60, [line] * 5, 2)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    title, small = figure.texts
    low = [small, legend, axes, title]
    boxes = [a.get_tightbbox() if a is axes else a.get_window_extent() for a in low]
    assert all(under.y1 <= over.y0 + 0.5 for under, over in pairwise(boxes))
    assert small.get_window_extent().x1 <= figure.bbox.x1


def test_png_and_pdf_have_the_size_on_paper_and_no_date(tmp_path):
    figure = blank(COLUMN, 2)
    figure.subplots().plot([1, 2])
    png, pdf = save(figure, tmp_path / "new" / "figure-1.5")
    assert (png.name, pdf.name) == ("figure-1.5.png", "figure-1.5.pdf")
    with Image.open(png) as image:
        assert image.size == (660, 400)
        assert "Software" not in image.info
    text = pdf.read_bytes()
    assert b"/MediaBox [ 0 0 237.6 144 ]" in text
    assert b"CreationDate" not in text
    assert b"/FontType 3" not in text
    assert b"/Subtype /Type3" not in text


# samples


def test_the_gallery_has_truth_base_and_every_cell_in_the_order_of_selection(emoji):
    figure = gallery.draw(emoji)
    assert len(figure.axes) == gallery.MOST
    note = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "Cells that have no room here: 14." in note
    order = emoji.cells.sort_values("selection_score", ascending=False, kind="stable")
    by_cell = emoji.selected.groupby("cell")
    for axes, cell in zip(figure.axes[2:], order["cell"], strict=False):
        scores = by_cell.get_group(cell).sort_values("score")
        file = emoji.pictures / f"{scores['id'].iloc[1]}.samples.webp"  # the middle of three
        with Image.open(file) as image:
            shade = int(np.asarray(image)[0, 0, 0])
        (pixels,) = (image.get_array() for image in axes.images)
        assert pixels.shape == (16, 16 * gallery.SHOWN, 3)
        assert (pixels == shade).all()
    names = [text.get_text() for text in figure.texts][2:]  # after the title and the note
    assert names[:2] == ["the truth", "untouched base"]
    assert names[2].startswith("full, ")


def test_pictures_of_the_best_cells_are_as_they_are(emoji):
    figure = samples.draw(emoji)
    shades = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    assert shades[:2] == [255, 200]
    assert len(shades) == 2 + 3


@pytest.mark.parametrize("module", [samples, gallery])
def test_pictures_that_cannot_be_read_are_named(tmp_path, module):
    folder = write(tmp_path / "s", alone("lora", 0.3, EMOJI, primary="gain"))
    (part,) = read(folder)
    with pytest.raises(Lacking, match="no samples were drawn"):
        module.draw(part)
    picture(folder / "pictures" / "openmoji-truth.webp", 255)
    figure = module.draw(part)
    note = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "Cannot be read: openmoji-base.webp, " in note
    assert ".samples.webp." in note
    picture(folder / "pictures" / "dog-photos.webp", 1)
    with pytest.raises(Lacking, match="sheets of many prompts have no truth beside them"):
        module.draw(part)


# the command


def small(root: Path) -> Path:
    grid = {"effects": {"r": {2: 0.0, 8: 0.03}, "init_weights": {True: 0.0, "lycoris": 0.0}}}
    shared = {"rates": RATES, "noise": 0.002, "primary": "gain", "base": 0.3, "trial": EMOJI}
    return results(root, Design(**grid, **shared))


def hashes(root: Path) -> dict[str, str]:
    files = sorted([*root.glob("**/*.png"), *root.glob("**/*.pdf")])
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_the_same_results_give_the_same_bytes_in_another_process(tmp_path):
    root = small(tmp_path / "results")
    for study in ("text", "sizes"):
        shutil.rmtree(root / study)
    draw_all(root, console=Console(file=io.StringIO()))
    here = hashes(root)
    for path in root.glob("**/figures/*"):
        path.unlink()
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    command = [sys.executable, "-m", "analysis", "figures", "--results", str(root)]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert hashes(root) == here
    assert "pictures/figures/emoji-openmoji-emoji-gallery.pdf" in here
    assert "figures/sweep-time.png" in here
    assert len(here) == 2 * 12


def test_what_lacks_is_one_line_with_the_reason_and_no_old_file(tmp_path):
    root = small(tmp_path / "results")
    old = root / "text" / "figures" / "glue-rte-minilm-ridge.png"
    old.parent.mkdir()
    old.write_bytes(b"from other results")
    out = io.StringIO()
    written = draw_all(root, ["text"], Console(file=out, width=60))
    lines = out.getvalue().splitlines()
    reason = "the learning rate has one value in every LoKr trial"
    assert f"none    ridge (text/glue-rte-minilm): {reason}" in lines
    assert not old.exists()
    assert lines[-1] == f"figures {old.parent} ({len(written) // 2}, each as png and pdf)"
    assert {path.parent for path in written} == {old.parent}
    assert all(path.exists() for path in written)
    assert not (root / "figures").exists()  # those across studies need all of them


def test_a_reason_that_parts_share_is_said_once(tmp_path):
    for task in ("glue/rte", "glue/mrpc"):
        write(tmp_path / "two", alone("lora", 0.5, {"task": task}))
    out = io.StringIO()
    draw_all(tmp_path, ["two"], Console(file=out, width=60))
    lines = [line for line in out.getvalue().splitlines() if "forgetting" in line]
    assert lines == ["none    forgetting (2 parts): drift was not measured"]


@pytest.mark.parametrize("arguments", [["nothing"], []])
def test_a_folder_without_results_is_one_line(tmp_path, arguments):
    ran = CliRunner().invoke(app, ["figures", *arguments, "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert "holds no results; run" in ran.output
    assert len(ran.output.splitlines()) == 1


def test_damaged_records_are_one_line(tmp_path):
    folder = write(tmp_path / "s", Design(effects={"r": {2: 0.0, 8: 0.1}}))
    (folder / "collapsed.jsonl").write_text("{")
    ran = CliRunner().invoke(app, ["figures", "s", "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert "collapsed.jsonl is damaged" in ran.output
    assert "Traceback" not in ran.output


def test_a_foreign_file_is_named(tmp_path):
    folder = write(tmp_path / "s", alone("lora", 0.5, {}))
    (folder / "notes.json").write_text("{}")
    ran = CliRunner().invoke(app, ["figures", "s", "--results", str(tmp_path)])
    assert ran.exit_code == 0
    assert "notes.json holds no result and was left out" in ran.output
