"""What figures plot is what the statistics say, on made-up results whose answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from analysis.figures import (
    curves,
    expected,
    forgetting,
    gaps,
    heatmap,
    importance,
    paired,
    pareto,
    profiles,
    ranking,
    ridge,
    rows,
    settings,
    sizes,
    sweep_time,
)
from analysis.figures.fronts import front
from analysis.figures.style import STYLES, Lacking
from analysis.importance import importance as shares_of
from analysis.part import Part
from analysis.statistics.cells import summarize
from analysis.statistics.choice import pick
from analysis.statistics.expected import expected_maximum
from analysis.statistics.normalize import normalized
from analysis.statistics.paired import against
from tests.analysis.synthetic import Design, make, read, write

KNOBS = {
    "r": {2: 0.0, 8: 0.03},
    "alpha": {4.0: 0.0, 16.0: 0.01},
    "decompose_factor": {-1: 0.0, 4: 0.005},
    "init_weights": {True: 0.0, "lycoris": -0.004},
}
RATES = {1e-3: -0.05, 3e-3: 0.0, 1e-2: -0.02}


def method(name: str, gain: float, **design: object) -> Design:
    return Design(
        effects={}, base=0.5 + gain, rates=RATES, trial={"method": name}, noise=0.002, **design
    )


def lokr(**design: object) -> Design:
    return Design(**({"effects": KNOBS, "rates": RATES, "noise": 0.002} | design))


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    """A full grid of LoKr, LoRA, all weights and a head."""
    folder = tmp_path_factory.mktemp("results") / "made-up"
    others = [method("lora", 0.05), method("full", 0.08), method("head", -0.1)]
    (found,) = read(write(folder, lokr(), *others))
    return found


def edited(part: Part, edit: Callable[[dict], None]) -> Part:
    """The same results with something changed in every file."""
    for path in part.folder.glob("*.json"):
        result = json.loads(path.read_bytes())
        edit(result)
        path.write_text(json.dumps(result))
    (found,) = read(part.folder)
    return found


def points(axes: Axes) -> dict[int, tuple[float, bool]]:
    """Row -> where its marker is, and whether it is filled."""
    found = {}
    for line in axes.get_lines():
        if line.get_marker() in {look.marker for look in STYLES.values()}:
            filled = to_rgba(line.get_markerfacecolor()) != to_rgba("white")
            found[int(line.get_ydata()[0])] = (float(line.get_xdata()[0]), filled)
    return found


def spans(axes: Axes) -> dict[int, tuple[float, float]]:
    """Row -> the ends of its interval."""
    lines = [line for line in axes.get_lines() if line.get_marker() == "None"]
    level = [line for line in lines if len({*line.get_ydata()}) == 1]
    return {int(line.get_ydata()[0]): tuple(map(float, line.get_xdata())) for line in level}


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def words(figure) -> str:
    """All small text of the figure itself."""
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


# settings


def test_a_mean_is_over_the_settings_that_every_square_has():
    trials = pd.DataFrame(
        [
            {"r": 2, "init": "a", "score": 1.0},
            {"r": 2, "init": "b", "score": 2.0},
            {"r": 8, "init": "a", "score": 3.0},
            {"r": 8, "init": "a", "score": 5.0},  # another seed
        ]
    )
    found = settings.matched(trials, ["r"], ["init"])
    assert found.means.to_dict() == {2: 1.0, 8: 4.0}
    assert found.settings == ("a",)
    assert found.words == "The one setting of (init) that every square has: a."


def test_where_no_alpha_is_shared_alpha_over_r_may_be():
    trials = pd.DataFrame(
        [
            {"r": 4, "alpha": 4.0, "alpha/r": 1.0, "score": 1.0},
            {"r": 8, "alpha": 8.0, "alpha/r": 1.0, "score": 2.0},
            {"r": 8, "alpha": 32.0, "alpha/r": 4.0, "score": 9.0},
        ]
    )
    found = settings.matched(trials, ["r"], ["alpha"])
    assert found.means.to_dict() == {4: 1.0, 8: 2.0}
    assert found.over == ("alpha/r",)


def test_nothing_shared_is_lacking():
    trials = pd.DataFrame([{"r": 2, "init": "a", "score": 1.0}, {"r": 8, "init": "b", "score": 1}])
    with pytest.raises(Lacking, match=r"no setting of \(init\) is there for every r"):
        settings.matched(trials, ["r"], ["init"])


def test_a_cell_that_never_ran_has_the_numbers_of_its_twin(tmp_path):
    """r=8 with factor 4 collapsed into r=8 with factor -1."""
    effects = {"r": {2: 0.0, 8: 0.03}, "decompose_factor": {-1: 0.0, 4: 0.01}}
    gone = {"r": 8, "decompose_factor": 4}
    (whole,) = make(tmp_path / "whole", effects=effects, noise=0.0)
    (part,) = make(tmp_path / "holes", effects=effects, noise=0.0, keep=lambda k: k != gone)
    ran = {int(seed): i for seed, i, r, f in _grid(part) if (r, f) == (8, -1)}
    lines = [
        {"id": i, "trial": _trial(whole, i), "equals": ran[int(seed)], "reason": "the same"}
        for seed, i, r, f in _grid(whole)
        if (r, f) == (8, 4)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (part.folder / "collapsed.jsonl").write_text(text)
    figure = heatmap.draw(part)
    (image,) = figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), [[50, 53], [51, 53]])
    assert "same function as another has that one's numbers" in words(figure)
    assert "same function" not in words(heatmap.draw(whole))


def _grid(part: Part):
    names = ["trial.seed", "id", "trial.r", "trial.decompose_factor"]
    return part.trials[names].itertuples(index=False)


def _trial(part: Part, trial: str) -> dict:
    return json.loads((part.folder / f"{trial}.json").read_bytes())["trial"]


# heat map


def test_the_heat_map_has_the_means_of_its_panels(part):
    figure = heatmap.draw(part)
    selected = part.selected[part.selected["trial.method"] == "lokr"]
    panels = dict(zip(("init: True", "init: lycoris"), figure.axes, strict=False))
    for title, axes in panels.items():
        assert axes.get_title() == title
        mode = selected["trial.init_weights"].map(str) == title.removeprefix("init: ")
        table = selected[mode].groupby(["trial.decompose_factor", "trial.r"])["score"].mean()
        (image,) = axes.images
        np.testing.assert_allclose(image.get_array(), 100 * table.unstack())
        assert texts(axes) == [f"{100 * score:.1f}" for score in table]
    assert "Mean over the 2 settings of (alpha) that every square has." in words(figure)


def test_a_square_that_never_ran_is_said_to_be_none(tmp_path):
    effects = {
        "r": {2: 0.0, 8: 0.1},
        "decompose_factor": {-1: 0.0, 4: 0.0},
        "init_weights": {True: 0.0, "lycoris": 0.0},
    }
    gone = {"r": 8, "decompose_factor": -1, "init_weights": True}
    (part,) = make(tmp_path / "s", effects=effects, keep=lambda knobs: knobs != gone)
    first, second, _ = heatmap.draw(part).axes
    assert texts(first)[1] == "none"
    assert first.images[0].get_array().mask.tolist() == [[False, True], [False, False]]
    assert "none" not in texts(second)


@pytest.mark.parametrize("knob", ["r", "decompose_factor"])
def test_without_ranks_or_factors_there_is_no_heat_map(tmp_path, knob):
    effects = {name: values for name, values in KNOBS.items() if name != knob}
    (part,) = make(tmp_path / "s", effects=effects)
    with pytest.raises(Lacking, match=f"{knob} has one value in every LoKr trial"):
        heatmap.draw(part)


# ridge


def test_the_ridge_has_every_rate_and_its_product_with_alpha_over_r(part):
    figure = ridge.draw(part)
    low, high, last = figure.axes
    own = part.trials[part.trials["trial.method"] == "lokr"]
    means = 100 * own.groupby(["trial.r", "trial.alpha", "trial.learning_rate"])["score"].mean()
    for axes, r in ((low, 2), (high, 8)):
        (squares,) = axes.collections
        found = {
            (round(x, 6), y): score
            for (x, y), score in zip(squares.get_offsets(), squares.get_array(), strict=True)
        }
        assert found == pytest.approx({(rate, a / r): s for (a, rate), s in means[r].items()})
    for line, (r, alpha) in zip(last.get_lines(), [(2, 4), (2, 16), (8, 4), (8, 16)], strict=True):
        x, y = line.get_data()
        np.testing.assert_allclose(x, np.array(sorted(RATES)) * alpha / r)
        np.testing.assert_allclose(y, means[r, alpha])


def test_dotted_lines_are_of_equal_effective_scale(part):
    axes = ridge.draw(part).axes[0]
    products = {round(rate * scale, 9) for rate in RATES for scale in (2.0, 8.0)}
    found = {tuple(np.round(line.get_xdata() * line.get_ydata(), 9)) for line in axes.get_lines()}
    assert found == {(product, product) for product in products}


def test_failed_trials_are_in_no_mean_and_counted(tmp_path):
    def failed(knobs: dict, rate: float, seed: int) -> bool:
        return rate == 1e-2 and seed == 0 and knobs["r"] == 8 and knobs["alpha"] == 16

    grid = {"r": KNOBS["r"], "alpha": KNOBS["alpha"]}
    folder = write(tmp_path / "s", lokr(effects=grid, failed=failed, noise=0.0))
    (part,) = read(folder)
    figure = ridge.draw(part)
    assert "1 trials failed and are in no mean" in words(figure)
    np.testing.assert_allclose(figure.axes[2].get_lines()[3].get_ydata(), [49.0, 54.0, 52.0])


def test_one_scale_or_one_rate_is_no_ridge(tmp_path):
    (part,) = make(tmp_path / "a", effects={"r": KNOBS["r"]}, rates=RATES, trial={"alpha": 16.0})
    ridge.draw(part)  # alpha/r varies with r
    (part,) = make(tmp_path / "b", effects={"init_weights": KNOBS["init_weights"]}, rates=RATES)
    with pytest.raises(Lacking, match="alpha/r has one value"):
        ridge.draw(part)
    (part,) = make(tmp_path / "c", effects={"alpha": KNOBS["alpha"]})
    with pytest.raises(Lacking, match="the learning rate has one value"):
        ridge.draw(part)


# learning curves


def test_curves_are_means_over_cells_with_their_middle_half(tmp_path):
    (part,) = make(tmp_path / "s", effects={"r": KNOBS["r"], "init_weights": KNOBS["init_weights"]})

    def losses(result: dict) -> None:
        trial = result["trial"]
        level = trial["r"] + (0.0 if trial["init_weights"] is True else 10.0) + trial["seed"]
        for epoch in result["history"]:
            epoch["losses"] = [level / epoch["epoch"]] * 15

    figure = curves.draw(edited(part, losses))
    left, right = figure.axes
    first, second = left.get_lines()
    steps = np.arange(20, 31)
    np.testing.assert_allclose(first.get_xdata(), steps)
    # r = 2 and 8, seeds 0, 1, 2: 6 on average in the first epoch, half of it in the second
    late = (steps - 15) / 20  # share of the window that is in the second epoch
    np.testing.assert_allclose(first.get_ydata(), 6 * (1 - late) + 3 * late)
    np.testing.assert_allclose(second.get_ydata(), 16 * (1 - late) + 8 * late)
    band = left.collections[0].get_paths()[0].vertices
    at_first = band[np.isclose(band[:, 0], steps[0]), 1]
    quarters = np.quantile([3, 9], [0.25, 0.75]) * (1 - late[0] / 2)
    assert (at_first.min(), at_first.max()) == pytest.approx(tuple(quarters))
    selected = part.selected.groupby(part.selected["trial.init_weights"].map(str))["score"].mean()
    for line, mode in zip(right.get_lines(), ("True", "lycoris"), strict=True):
        expected_scores = [100 * (selected[mode] - 0.05), 100 * selected[mode]]
        np.testing.assert_allclose(line.get_ydata(), expected_scores)
    assert "then over the 2 cells that every init has" in words(figure)


def test_a_cell_that_one_init_lacks_is_in_no_curve(tmp_path):
    effects = {"r": {2: 0.0, 8: 0.2}, "init_weights": {True: 0.0, "lycoris": 0.0}}
    gone = {"r": 8, "init_weights": "lycoris"}
    (part,) = make(tmp_path / "s", effects=effects, keep=lambda k: k != gone, noise=0.0)
    right = curves.draw(part).axes[1]
    for line in right.get_lines():
        np.testing.assert_allclose(line.get_ydata(), [45.0, 50.0])


def test_null_losses_are_missing_and_no_losses_are_lacking(tmp_path):
    (part,) = make(tmp_path / "s", effects={"init_weights": KNOBS["init_weights"]})
    trial = part.trials["id"].iloc[0]

    def null(result: dict) -> None:
        result["history"][0]["losses"] = [None]

    assert np.isnan(curves.steps(edited(part, null).folder, trial)).tolist() == [True, False]

    def gone(result: dict) -> None:
        for epoch in result["history"]:
            del epoch["losses"]

    with pytest.raises(Lacking, match="no loss of each step"):
        curves.draw(edited(part, gone))


def test_one_init_is_no_comparison(tmp_path):
    (part,) = make(tmp_path / "s", effects={"r": KNOBS["r"]})
    with pytest.raises(Lacking, match="init_weights has one value"):
        curves.draw(part)


# Pareto


def front_of(table: list[tuple[float, float]]) -> list[tuple[float, float]]:
    frame = pd.DataFrame(table, columns=["trainable", "mean"])
    found = front(frame, "trainable", "mean")
    return list(zip(found["trainable"], found["mean"], strict=True))


def test_the_front_is_what_nothing_cheaper_beats():
    assert front_of([(1, 5), (2, 4), (2, 6), (3, 6), (4, 9)]) == [(1, 5), (2, 6), (4, 9)]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_all_pairs(seed):
    values = np.random.default_rng(seed).integers(0, 9, size=(30, 2))
    best = {
        (x, y)
        for x, y in values
        if not any((a <= x and b >= y) and (a, b) != (x, y) for a, b in values)
    }
    assert set(front_of([(int(x), int(y)) for x, y in values])) == best


def test_the_pareto_figure_has_every_cell_at_its_mean_and_interval(part):
    (axes,) = pareto.draw(part).axes
    table = summarize(part)
    plotted = [line for line in axes.get_lines() if line.get_linestyle() == "None"]
    found = {tuple(map(float, dot)) for line in plotted for dot in np.transpose(line.get_data())}
    assert found == {
        (float(n), float(100 * m)) for n, m in zip(table["trainable"], table["mean"], strict=True)
    }
    bars = [path.vertices[:, 1] for bars in axes.collections for path in bars.get_paths()]
    expected_bars = sorted(map(tuple, 100 * table[["low", "high"]].to_numpy()))
    np.testing.assert_allclose(sorted(map(tuple, bars)), expected_bars)
    (line,) = (line for line in axes.get_lines() if line.get_drawstyle() == "steps-post")
    ours = table.assign(mean=100 * table["mean"])
    np.testing.assert_allclose(line.get_ydata(), front(ours, "trainable", "mean")["mean"])


def measurement(part: Part, trial: str, ms: float, gib: float, hardware: str = "A GPU") -> None:
    """A file of results/cost, with what is read of it."""
    step = {
        "p50_ms": ms,
        "p95_ms": ms,
        "examples_per_second": 1.0,
        "tokens_per_second": None,
        "to_frozen": {"median": 1.5, "q25": 1.4, "q75": 1.6},
    }
    parts = {name: {"p50_ms": ms / 3} for name in ("forward", "backward", "optimizer")}
    memory = {
        "kept_for_backward_bytes": 1,
        "eager": {"allocated_bytes": int(gib * 2**30)},
        "captured": None,
    }
    answers = {"adapted": {"p50_ms": 1.0}, "merged": {"p50_ms": 1.0}}
    record = {
        "schema": 1,
        "id": trial,
        "study": part.study,
        "cell": "x",
        "trial": {},
        "hardware": hardware,
        "parameters": {},
        "batch": {"rows": 4},
        "step": {"eager": {**step, "parts": parts}, "captured": None},
        "frozen": {"step": {"eager": step, "captured": None}, "memory": memory},
        "memory": memory,
        "energy": {"joules_per_1000_examples": None, "watts": None, "reason": "no counter"},
        "files": {"adapter_bytes": 1, "head_bytes": 1},
        "inference": {"single": answers, "batch": answers},
        "provenance": {},
    }
    folder = part.folder.parent / "cost" / part.study / hardware
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{trial}.json").write_text(json.dumps(record))


def test_time_and_memory_have_panels_where_they_were_measured(tmp_path):
    (part,) = make(tmp_path / "s", effects={"r": {2: 0.0, 4: 0.01, 8: 0.03}})
    by_cell = part.trials.drop_duplicates("cell").set_index("trial.r")["id"]
    measurement(part, by_cell[2], ms=2.0, gib=0.5)
    measurement(part, by_cell[8], ms=3.0, gib=0.75)
    measurement(part, by_cell[4], ms=9.0, gib=9.0, hardware="Another")
    figure = pareto.draw(part)
    _, time, memory = figure.axes
    score = summarize(part).set_index("cell")["mean"]
    scores = [100 * score[f"lokr r={r}"] for r in (2, 8)]
    for axes, prices in ((time, [2.0, 3.0]), (memory, [0.5, 0.75])):
        dots = axes.get_lines()[0]
        dots_at = sorted(zip(*dots.get_data(), strict=True))
        np.testing.assert_allclose(dots_at, list(zip(prices, scores, strict=True)))
    assert "Time and memory: 2 of 3 cells, on A GPU." in words(figure)


@pytest.mark.parametrize("draw", [pareto.draw, ranking.draw, paired.draw, curves.draw])
def test_nothing_is_drawn_of_trials_that_all_failed(tmp_path, draw):
    (part,) = make(tmp_path / "s", effects=KNOBS, failed=lambda *which: True)
    with pytest.raises(Lacking, match="no trial has a score"):
        draw(part)


# rows


def test_the_ranking_is_the_table_of_cells(part):
    figure = ranking.draw(part)
    names, axes = figure.axes
    table = summarize(part)
    found, ends = points(axes), spans(axes)
    for place, row in table.iterrows():
        assert found[place] == (pytest.approx(100 * row["mean"]), row["tied"])
        assert ends[place] == pytest.approx((100 * row["low"], 100 * row["high"]))
    (remark,) = axes.texts
    assert remark.get_text() == "chosen"
    assert table.loc[remark.xy[1], "chosen"]
    shown = texts(names)
    methods = {"lokr": "LoKr", "lora": "LoRA", "full": "full", "head": "head"}
    assert shown[1 : 1 + len(table)] == [methods[name] for name in table["method"]]


def test_a_row_is_named_by_its_knobs(part):
    cells = ["lora", "lokr r=8 alpha=4 decompose_factor=-1 init_weights=lycoris"]
    columns = rows.columns(part, cells)
    assert [column.heading for column in columns] == ["", "r", "a", "f", "init"]
    assert [column.texts for column in columns] == [
        ["LoRA", "LoKr"],
        ["", "8"],
        ["", "4"],
        ["", "-1"],
        ["", "lycoris"],
    ]
    assert rows.compact(part)[cells[1]] == "LoKr r8 a4 f-1 lycoris"
    assert rows.explained(part) == "a: alpha. f: decompose_factor."


def test_a_cell_in_which_a_seed_failed_is_marked_and_has_no_interval(tmp_path):
    (part,) = make(
        tmp_path / "s",
        effects={"r": {2: 0.0, 4: 0.0, 8: 0.0}},
        failed=lambda knobs, rate, seed: knobs["r"] == 8 and seed == 1,
    )
    axes = ranking.draw(part).axes[1]
    assert "1 failed" in texts(axes)
    assert all(math.isnan(end) for end in spans(axes)[2])
    assert points(axes)[2][0] > 0


def test_an_interval_that_is_far_wider_does_not_stretch_the_axis():
    table = pd.DataFrame(
        {"at": [1.0, 2.0, 3.0], "low": [0.5, 1.5, -97.0], "high": [1.5, 2.5, 103.0]}
    )
    left, right = rows.limits(table)
    assert (left, right) == pytest.approx((0.4, 3.1))


def test_paired_differences_are_those_of_the_statistics(part):
    figure = paired.draw(part)
    names, *panels = figure.axes
    methods = texts(names)[1 : 1 + len(part.cells)]
    assert len(panels) == 2
    for axes, rival in zip(panels, ("lora", "full"), strict=True):
        table = against(part, rival)
        found, ends = points(axes), spans(axes)
        assert len(found) == len(table) == len(part.cells) - 1
        values = sorted(zip(table["difference"], table["p_holm"] < 0.05, strict=True))
        assert sorted(found.values()) == [(pytest.approx(100 * d), f) for d, f in values]
        bounds = sorted(map(tuple, 100 * table[["low", "high"]].to_numpy()))
        left, right = axes.get_xlim()
        clipped = [(max(low, left), min(high, right)) for low, high in bounds]
        np.testing.assert_allclose(sorted(ends.values()), clipped)
        (mark,) = axes.texts
        assert methods[int(mark.xy[1])] == {"lora": "LoRA", "full": "full"}[rival]
        zero = [line for line in axes.get_lines() if {*line.get_xdata()} == {0}]
        assert len(zero) == 1


def test_without_a_rival_there_is_no_difference(tmp_path):
    (part,) = make(tmp_path / "s", effects={"r": KNOBS["r"]})
    with pytest.raises(Lacking, match="neither LoRA nor full fine-tuning"):
        paired.draw(part)


# importance


def test_importance_has_the_shares_with_their_intervals(part):
    figure = importance.draw(part)
    for axes, view in zip(figure.axes, ("tuned", "raw"), strict=True):
        table = importance.bars(shares_of(part, view=view).table)
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], table["share"])
        (intervals,) = axes.collections
        ends = [segment[:, 0] for segment in intervals.get_segments()]
        np.testing.assert_allclose(ends, table[["low", "high"]])
        assert [label.get_text() for label in axes.get_yticklabels()] == table["label"].tolist()
    assert figure.axes[0].get_yticklabels()[0].get_text() == "r"
    assert figure.axes[1].get_yticklabels()[0].get_text() == "rate"
    assert "Exact decomposition of a full grid." in words(figure)


def test_only_the_largest_pairs_are_shown():
    def row(kind: str, share: float, *knobs: str) -> tuple:
        return kind, knobs, share, share - 0.01, share + 0.01

    pairs = [row("pair", 0.2 - 0.02 * i, "r", f"k{i}") for i in range(8)]
    table = [row("main", 0.5, "r+alpha"), *pairs, row("pair", 0.001, "r", "x"), row("noise", 0.1)]
    columns = ["kind", "knobs", "share", "low", "high"]
    shown = importance.bars(pd.DataFrame(table, columns=columns))
    assert shown["label"].tolist() == [
        "r+alpha",
        *(f"r x k{i}" for i in range(importance.PAIRS)),
        "noise",
    ]
    assert shown["share"].iloc[0] == 50


def test_what_cannot_be_ranked_says_why(tmp_path):
    (part,) = make(tmp_path / "s", effects={}, noise=0.0)
    with pytest.raises(Lacking, match="no knob of lokr varies"):
        importance.draw(part)
    (part,) = make(tmp_path / "t", effects={}, rates=RATES)
    tuned, _ = importance.draw(part).axes
    assert "not ranked: no knob of lokr varies" in texts(tuned)[0].replace("\n", " ")


# budgets and profiles


def test_the_expected_maximum_is_drawn_for_each_method(part):
    (axes,) = expected.draw(part).axes
    assert len(axes.get_lines()) == 4
    first = axes.get_lines()[0]
    own = part.trials[part.trials["trial.method"] == "lokr"]
    curve = expected_maximum(own["selection_score"].to_numpy(), own["score"].to_numpy())
    np.testing.assert_allclose(first.get_ydata(), 100 * curve)
    np.testing.assert_allclose(first.get_xdata(), np.arange(1, len(own) + 1))


def test_a_failed_trial_uses_up_the_budget(tmp_path):
    (part,) = make(
        tmp_path / "s", effects={"r": KNOBS["r"]}, failed=lambda k, rate, seed: seed == 0
    )
    (line,) = expected.draw(part).axes[0].get_lines()
    assert len(line.get_xdata()) == 6


def test_a_method_with_few_trials_has_no_curve(tmp_path):
    (part,) = make(tmp_path / "s", effects={}, seeds=2)
    with pytest.raises(Lacking, match="no method has 3 trials with a score"):
        expected.draw(part)


def scaled_parts(tmp_path: Path, **lora: object) -> list[Part]:
    folder = tmp_path / "results" / "two"
    for task in ("glue/rte", "glue/mrpc"):
        fields = {"task": task}
        designs = [
            Design(effects={}, base=base, noise=0.01, trial={**fields, "method": name}, **more)
            for name, base, more in (
                ("lokr", 0.7, {}),
                ("lora", 0.75, lora),
                ("full", 0.8, {}),
                ("head", 0.5, {}),
            )
        ]
        write(folder, *designs)
    return read(folder)


def test_profiles_are_shares_of_normalized_runs(tmp_path):
    parts = scaled_parts(tmp_path)
    figure = profiles.draw(tmp_path, parts)
    (axes,) = figure.axes
    lines = dict(zip(profiles.common(parts), axes.get_lines(), strict=False))
    assert [*lines] == ["full", "head", "lokr", "lora"]
    for name, line in lines.items():
        shares = []
        for part in parts:
            runs = part.trials.loc[part.trials["trial.method"] == name, "score"].to_numpy()
            shares.append((normalized(part, runs) > line.get_xdata()[:, None]).mean(axis=1))
        np.testing.assert_allclose(line.get_ydata(), np.mean(shares, axis=0))
    assert "mean over 2 parts" in words(figure)


def test_a_failed_run_is_below_every_threshold(tmp_path):
    parts = scaled_parts(tmp_path, failed=lambda knobs, rate, seed: seed == 0)
    table = profiles.profile(parts, "lora")
    assert table["share"].max() == pytest.approx(2 / 3)


def test_profiles_need_two_parts_with_a_scale(part):
    with pytest.raises(Lacking, match="1 parts have a normalized score, 2 are needed"):
        profiles.draw(part.folder.parent, [part])


# part by part


def test_gaps_are_the_chosen_cells_differences(tmp_path, part):
    parts = [*scaled_parts(tmp_path), part]
    figure = gaps.draw(tmp_path, parts)
    assert len(figure.axes) == 2
    for axes, rival in zip(figure.axes, ("lora", "full"), strict=True):
        found, ends = points(axes), spans(axes)
        for place, one in enumerate(parts):
            row = against(one, rival).set_index("cell").loc[pick(one, "lokr")]
            assert found[place] == (pytest.approx(100 * row["difference"]), row["p_holm"] < 0.05)
            left, right = axes.get_xlim()
            low, high = max(left, 100 * row["low"]), min(right, 100 * row["high"])
            assert ends[place] == pytest.approx((low, high))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "glue/mrpc on minilm (accuracy)",
        "two: glue/rte on minilm (accuracy)",
        "made-up: glue/rte on minilm (accuracy)",
    ]


def test_without_lokr_and_a_rival_there_is_no_gap(tmp_path):
    parts = make(tmp_path / "s", effects={"r": KNOBS["r"]})
    with pytest.raises(Lacking, match="no part has a score of LoKr and of LoRA"):
        gaps.draw(tmp_path, parts)


def test_sizes_have_a_line_a_method_over_the_number_of_rows(tmp_path):
    def design(name: str, count: int, base: float) -> Design:
        trial = {"method": name, "train_size": count}
        return Design(effects={}, base=base, noise=0.01, trial=trial)

    found = [design("lokr", n, 0.5 + n / 100) for n in (8, 32)] + [design("lora", 8, 0.7)]
    parts = read(write(tmp_path / "s", *found))
    axes, *others = sizes.draw(tmp_path, parts).axes
    lokr, lora = axes.get_lines()
    tables = [summarize(one).set_index("method") for one in parts]
    np.testing.assert_allclose(lokr.get_xdata(), [8, 32])
    np.testing.assert_allclose(lokr.get_ydata(), [100 * t.loc["lokr", "mean"] for t in tables])
    np.testing.assert_allclose(lora.get_xydata(), [[8, 100 * tables[0].loc["lora", "mean"]]])
    bars = [segment[:, 1] for lines in axes.collections for segment in lines.get_segments()]
    bounds = [tables[i].loc[name, ["low", "high"]] for i, name in ((0, "lokr"), (1, "lokr"))]
    np.testing.assert_allclose(bars[:2], 100 * np.array(bounds, float))
    assert not any(other.axison for other in others)


def test_one_number_of_rows_is_no_comparison_of_sizes(tmp_path, part):
    few = read(write(tmp_path / "s", Design(effects={}, trial={"train_size": 8})))
    with pytest.raises(Lacking, match="no task has scores for two numbers of training rows"):
        sizes.draw(tmp_path, [part, *few])
    with pytest.raises(Lacking, match="no task has scores for two numbers of training rows"):
        sizes.draw(tmp_path, [part])


# sweep time


def test_bars_are_seconds_a_trial(tmp_path):
    shared = {"run": 0, "base": "minilm", "task": "glue/rte", "study": "bench", "study_trials": 4}
    timed = [{"seconds": 10.0}, {"seconds": 14.0}]
    pieces = {
        "minilm packed": {**shared, "part": "packed", "wall_seconds": 8.0, "trials": [{}] * 4},
        "minilm trainer": {**shared, "part": "trainer", "trials": timed},
    }
    record = {"schema": 1, "hardware": "A GPU", "small": False, "runs": [{}], "pieces": pieces}
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "sweep.json").write_text(json.dumps(record))
    figure = sweep_time.draw(tmp_path, [])
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [2.0, 12.0]
    assert texts(axes) == ["2", "12 (2), 6.0 times"]
    assert axes.get_title(loc="left") == "4 trials of glue/rte on minilm"
    assert "On A GPU." in words(figure)


def test_a_sweep_that_was_not_timed_is_lacking(tmp_path):
    with pytest.raises(Lacking, match="bench has no sweep; python -m experiments bench sweep"):
        sweep_time.draw(tmp_path, [])


# forgetting


def with_drift(folder: Path) -> Part:
    """Drift is r percent, more at other rates than 0.003; similarity is the score."""
    (part,) = make(folder, effects={"r": KNOBS["r"]}, rates=RATES, noise=0.0, primary="gain")

    def drift(result: dict) -> None:
        trial = result["trial"]
        more = 0.0 if trial["learning_rate"] == 3e-3 else 0.5
        for epoch in result["history"]:
            epoch["report"]["drift"] = trial["r"] / 100 + more
        result["metrics"]["similarity"] = result["metrics"]["score"]

    return edited(part, drift)


def test_fidelity_is_drawn_over_drift_with_the_other_rates_in_gray(tmp_path):
    figure = forgetting.draw(with_drift(tmp_path / "s"))
    gain, similarity = figure.axes
    for axes, unit in ((gain, 100), (similarity, 1)):
        others, own = axes.collections
        np.testing.assert_allclose(own.get_offsets(), [[2, 0.5 * unit], [8, 0.53 * unit]])
        assert len(others.get_offsets()) == 4
        (line,) = axes.get_lines()
        np.testing.assert_allclose(line.get_xdata(), [2, 8])


def test_drift_that_was_not_measured_is_lacking(part):
    with pytest.raises(Lacking, match="drift was not measured"):
        forgetting.draw(part)
