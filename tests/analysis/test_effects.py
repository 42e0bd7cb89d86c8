"""Paired effects of knobs on made-up studies whose answer is known."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.effects import comparisons, estimate, knob_effects, metrics
from analysis.load import load
from analysis.part import parts
from analysis.statistics.paired import against
from analysis.terminal.effects import report

SEEDS = (0, 1, 2)


def result(score: float, adapter: int = 100, selection: float | None = None, **trial) -> dict:
    fields = {"task": "emoji/openmoji", "base": "emoji", "method": "lokr", "learning_rate": 1e-3}
    return {
        "schema": 1,
        "status": "ok",
        "trial": {**fields, "seed": 0, **trial},
        "metrics": {
            "primary": "gain",
            "score": score,
            "selection_score": score if selection is None else selection,
            "selected_epoch": 1,
            "full_dev_best": score,
            "frechet": 200 - 100 * score,
        },
        "history": [{"epoch": 1, "report": {"gain": score}}],
        "parameters": {"adapter": adapter, "head": 0, "trainable": adapter, "base": 1000},
        "cost": {"seconds": 1.0},
    }


@pytest.fixture
def study(tmp_path: Path) -> Callable[[list[dict]], Path]:
    """Writes results as a study's folder."""

    def write(rows: list[dict]) -> Path:
        folder = tmp_path / "made-up"
        folder.mkdir()
        for number, row in enumerate(rows):
            text = json.dumps(row | {"id": f"{number:016x}"})
            (folder / f"{number:016x}.json").write_text(text)
        return folder

    return write


def grid_of(score: Callable[..., float], **values: tuple) -> list[dict]:
    """A full grid, three seeds a cell; the seed shifts every cell alike."""
    combos = [dict(zip(values, combo, strict=True)) for combo in product(*values.values())]
    return [
        result(score(**knobs) + seed / 100, seed=seed, **knobs)
        for knobs in combos
        for seed in SEEDS
    ]


def additive(r: int, alpha: int) -> float:
    return 0.5 + 0.03 * (r == 8) - 0.01 * (alpha == 16)


def students(changes: Sequence[float]) -> tuple[float, float]:
    """The 95% interval that scipy gives."""
    return tuple(stats.ttest_1samp(changes, 0).confidence_interval(0.95))


def printed(folder: Path, metric: str = "score") -> str:
    out = io.StringIO()
    report(folder, metric, Console(file=out, width=80))
    return out.getvalue()


def test_an_additive_effect_is_found_exactly(study):
    frame = load(study(grid_of(additive, r=(2, 8), alpha=(4, 16))))
    effects = knob_effects(frame, "score").set_index("knob")
    for knob, truth in {"r": 0.03, "alpha": -0.01}.items():
        row = effects.loc[knob]
        assert [row["difference"], row["low"], row["high"]] == pytest.approx([truth] * 3)
        assert (row["pairs"], row["seeds"], row["trials"], row["same"]) == (2, 3, 6, 2)
        assert row["interval"] == "pairs"


def test_pairs_that_disagree_are_counted_and_widen_the_interval(study):
    crossed = {(2, 4): 0.5, (8, 4): 0.6, (2, 16): 0.5, (8, 16): 0.48}
    frame = load(study(grid_of(lambda r, alpha: crossed[r, alpha], r=(2, 8), alpha=(4, 16))))
    row = knob_effects(frame, "score").set_index("knob").loc["r"]
    assert row["difference"] == pytest.approx(0.04)
    assert (row["low"], row["high"]) == pytest.approx(students((0.1, -0.02)))
    assert (row["same"], row["pairs"]) == (1, 2)


def test_of_three_values_each_is_compared_with_the_first(study):
    rows = grid_of(lambda r: 0.5 + r / 100, r=(16, 2, 4))
    effects = knob_effects(load(study(rows)), "score")
    assert [*zip(effects["from"], effects["to"], strict=True)] == [("2", "4"), ("2", "16")]
    assert effects["difference"].tolist() == pytest.approx([0.02, 0.14])


def test_values_of_several_types_and_missing_ones_pair(study):
    values = {"init_weights": ("lycoris", True), "text_r": (None, 4), "t": (["a", "b"], ["a"])}
    rows = grid_of(lambda init_weights, text_r, t: 0.5 + 0.1 * (text_r == 4), **values)
    effects = knob_effects(load(study(rows)), "score").set_index("knob")
    assert effects["pairs"].tolist() == [4, 4, 4]
    assert effects.loc["init_weights", ["from", "to"]].tolist() == ["True", "lycoris"]
    assert effects.loc["t", ["from", "to"]].tolist() == ["a", "a+b"]
    assert effects.loc["text_r", "difference"] == pytest.approx(0.1)


def test_every_cell_is_taken_at_its_own_selected_rate(study):
    rows = [
        result(0.5, r=2, learning_rate=1e-3, selection=0.6),
        result(0.9, r=2, learning_rate=1e-2, selection=0.4),
        result(0.1, r=8, learning_rate=1e-3, selection=0.4),
        result(0.7, r=8, learning_rate=1e-2, selection=0.6),
    ]
    (row,) = knob_effects(load(study(rows)), "score").to_dict("records")
    assert row["difference"] == pytest.approx(0.2)


def test_a_trial_that_failed_does_not_pair(study):
    rows = grid_of(lambda r: 0.5 + r / 100, r=(2, 8))
    rows[-1] |= {"status": "diverged"}
    (row,) = knob_effects(load(study(rows)), "score").to_dict("records")
    assert (row["seeds"], row["trials"]) == (2, 2)


def test_knobs_that_never_differ_alone_have_no_pair_and_it_is_said(study):
    rows = [result(0.5, r=2, alpha=4), result(0.7, r=8, alpha=16)]
    folder = study(rows)
    effects = knob_effects(load(folder), "score")
    assert effects["pairs"].tolist() == [0, 0]
    assert effects["difference"].isna().all()
    assert printed(folder).count("no pair") == 2


def test_when_every_trial_at_a_value_failed_there_is_no_pair(study):
    rows = [result(0.5, r=2), result(0.7, r=8) | {"status": "error", "metrics": None}]
    (row,) = knob_effects(load(study(rows)), "score").to_dict("records")
    assert row["pairs"] == 0


def test_the_only_pair_has_its_interval_over_its_seeds_and_is_marked(study):
    gains = {2: (0.50, 0.52, 0.51), 8: (0.53, 0.53, 0.55)}
    rows = [result(gains[r][seed], r=r, seed=seed) for r in gains for seed in SEEDS]
    folder = study(rows)
    (row,) = knob_effects(load(folder), "score").to_dict("records")
    assert row["interval"] == "seeds"
    low, high = students((0.03, 0.01, 0.04))
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert f"{100 * low:+.2f} to {100 * high:+.2f}*" in printed(folder)


def test_one_pair_of_one_seed_has_no_interval(study):
    folder = study([result(0.5, r=2), result(0.7, r=8)])
    (row,) = knob_effects(load(folder), "score").to_dict("records")
    assert row["difference"] == pytest.approx(0.2)
    assert np.isnan(row["low"])
    assert row["interval"] is None
    assert "one seed" in printed(folder)


@pytest.mark.parametrize(("pairs", "seeds"), [(1, 2), (1, 3), (2, 2), (4, 2), (6, 3)])
def test_of_a_knob_that_does_nothing_the_interval_leaves_zero_out_as_rarely_as_it_says(
    pairs, seeds
):
    """What the knob does differs from cell to cell, and is 0 on average."""
    generator = np.random.default_rng([pairs, seeds])
    index = pd.MultiIndex.from_product([range(pairs), range(seeds)], names=["pair", "trial.seed"])
    repeats, errors = 300, 0
    for _ in range(repeats):
        own = generator.normal(0, 1, pairs) if pairs > 1 else np.zeros(1)
        changes = np.repeat(own, seeds) + generator.normal(0, 1, pairs * seeds)
        found = estimate(pd.Series(changes, index))
        errors += not found["low"] <= 0 <= found["high"]
    least, most = stats.binom.ppf([0.0005, 0.9995], repeats, 0.05)
    assert least <= errors <= most


def test_seeds_that_repeat_each_other_narrow_nothing():
    means = np.random.default_rng(2).normal(size=12)
    index = pd.MultiIndex.from_product([range(12), range(5)], names=["pair", "trial.seed"])
    five = estimate(pd.Series(np.repeat(means, 5), index=index))
    assert (five["low"], five["high"]) == pytest.approx(students(means))
    assert five["trials"] == 60


def test_a_pair_of_cells_counts_as_much_as_another_however_many_seeds_it_has():
    index = pd.MultiIndex.from_tuples(
        [("a", 0), ("a", 1), ("a", 2), ("b", 0)], names=["pair", "trial.seed"]
    )
    found = estimate(pd.Series([0.1, 0.2, 0.3, 0.4], index=index))
    assert found["difference"] == pytest.approx(0.3)
    assert (found["low"], found["high"]) == pytest.approx(students((0.2, 0.4)))
    assert (found["trials"], found["pairs"]) == (4, 2)


def contest() -> list[dict]:
    """LoRA of 2,000 parameters; lokr of 300, 100 and 50, which selects worse the fewer it has."""
    scores = {
        ("lora", 0, 2000): (0.70, 0.74, 0.72),
        ("lokr", 8, 300): (0.68, 0.71, 0.66),
        ("lokr", 4, 100): (0.60, 0.62, 0.61),
        ("lokr", 2, 50): (0.50, 0.51, 0.52),
    }
    return [
        result(values[seed], adapter, method=method, r=r, seed=seed)
        for (method, r, adapter), values in scores.items()
        for seed in SEEDS
    ]


def test_best_cells_are_compared_with_the_noise_of_all_cells_as_on_the_page(study):
    folder = study(contest())
    row = comparisons(load(folder), "score").set_index("kind").loc["best"]
    (part,) = parts(load(folder), folder)
    page = against(part, "lora").set_index("cell").loc["lokr r=8"]
    assert (row["method"], row["against"], row["cell"]) == ("lokr", "lora", "lokr r=8")
    same = ["difference", "low", "high", "p", "seeds", "test"]
    assert row[same].tolist() == pytest.approx(page[same].tolist())
    assert (row["interval"], row["same"], row["seeds"]) == ("pooled t", 3, 3)
    assert row["against_se"] == pytest.approx(0.02 / 3**0.5)
    assert "noise pooled over all cells" in " ".join(printed(folder).split())


def test_beside_it_is_what_their_own_seeds_say_as_scipy_does(study):
    row = comparisons(load(study(contest())), "score").set_index("kind").loc["best"]
    oracle = stats.ttest_rel((0.68, 0.71, 0.66), (0.70, 0.74, 0.72)).confidence_interval(0.95)
    assert (row["own_low"], row["own_high"]) == pytest.approx((oracle.low, oracle.high))


def test_of_one_seed_in_common_the_noise_of_the_other_cells_tells(study):
    rows = [*contest(), result(0.4, 0, method="head", seed=1)]
    table = comparisons(load(study(rows)), "score").set_index(["method", "against"])
    row = table.loc[("lokr", "head")]
    assert row["difference"] == pytest.approx(0.31)
    assert row["low"] < 0.31 < row["high"]
    assert np.isnan(row["own_low"])


def test_where_no_cell_has_two_seeds_there_is_no_interval_and_it_is_said(study):
    rows = [result(0.4, 0, method="head", seed=1), result(0.5, method="lora", seed=1)]
    table = comparisons(load(folder := study(rows)), "score")
    assert table["low"].isna().tolist() == [True]
    assert table["interval"].isna().tolist() == [True]
    assert printed(folder).count("one seed") == 1


def test_where_a_seed_failed_there_is_no_interval_and_it_is_said(study):
    rows = contest()
    rows[0] |= {"status": "diverged"}  # lora, which has no other cell
    row = comparisons(load(folder := study(rows)), "score").set_index("kind").loc["best"]
    assert np.isnan(row["low"])
    assert (row["seeds"], row["test"]) == (2, "none")
    assert "a seed failed" in printed(folder)


def test_methods_with_no_seed_in_common_are_no_pair(study):
    rows = [result(0.4, method="head", seed=7), *contest()]
    table = comparisons(load(study(rows)), "score").set_index(["method", "against"])
    assert table.loc[("lokr", "head"), ["pairs", "seeds", "same"]].tolist() == [0, 0, 0]


def test_the_best_cell_with_a_twentieth_is_set_against_lora_in_a_sentence(study):
    folder = study(contest())
    row = comparisons(load(folder), "score").set_index("kind").loc["small"]
    assert row["cell"] == "lokr r=4"
    assert row["difference"] == pytest.approx(-0.11)
    (line,) = [line for line in printed(folder).splitlines() if line.startswith("small ")]
    for expected in ("100 are", "1/20 of lora's 2,000", "-11.00", "standard error 1.15"):
        assert expected in line


def test_no_cell_small_enough_is_said(study):
    folder = study([row for row in contest() if row["parameters"]["adapter"] > 100])
    assert "no lokr cell has at most 1/20 of lora's 2,000 adapter parameters" in printed(folder)
    assert comparisons(load(folder), "score")["kind"].tolist() == ["best"]


def test_a_cell_that_lost_a_seed_is_best_only_where_there_is_no_other(study):
    rows = contest()
    rows[3] |= {"status": "diverged"}  # lokr r=8, seed 0
    best = comparisons(load(study(rows)), "score").set_index("kind").loc["best"]
    assert best["cell"] == "lokr r=4"


def test_a_method_alone_in_which_nothing_varies_says_both(study):
    text = printed(study([result(0.5, method="full")]))
    assert "no knob varies" in text
    assert "no two methods to compare" in text


def test_tasks_are_kept_apart(study):
    rows = grid_of(lambda r: 0.5 + r / 100, r=(2, 8))
    other = grid_of(lambda r: 0.5 - r / 100, r=(2, 8))
    for row in other:
        row["trial"]["task"] = "emoji/twemoji"
    folder = study(rows + other)
    table = pd.read_csv(report(folder, "score", Console(file=io.StringIO())))
    by_task = table.set_index("task")["difference"].to_dict()
    assert by_task == pytest.approx({"emoji/openmoji": 0.06, "emoji/twemoji": -0.06})


def test_another_metric_is_in_its_own_unit(study):
    text = printed(study(grid_of(additive, r=(2, 8), alpha=(4, 16))), "frechet")
    assert "-3.0 to -3.0" in text
    assert "in points" not in text


def test_tables_fit_a_terminal_and_the_file_is_the_same_twice(study):
    folder = study(grid_of(additive, r=(2, 8), alpha=(4, 16)) + contest())
    before = printed(folder)
    path = folder / "figures" / "effects-score.csv"
    content = path.read_bytes()
    *lines, last = before.splitlines()
    assert max(len(line) for line in lines if not line.startswith("small ")) <= 80
    assert last == f"table   {path}"
    assert printed(folder) == before
    assert path.read_bytes() == content


def test_a_file_that_is_no_result_is_named(study):
    folder = study([result(0.5, r=2)])
    (folder / "notes.json").write_text("{}")
    assert "notes.json holds no result" in printed(folder)


def test_the_command_writes_the_table(study):
    folder = study(contest())
    ran = CliRunner().invoke(app, ["effects", folder.name, "--results", str(folder.parent)])
    assert ran.exit_code == 0, ran.output
    assert set(pd.read_csv(folder / "figures" / "effects-score.csv")["kind"]) == {
        "knob",
        "best",
        "small",
    }


def test_an_unknown_metric_is_one_line_that_names_the_others(study):
    folder = study(contest())
    arguments = ["effects", folder.name, "--results", str(folder.parent), "--metric", "beauty"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 1
    (line,) = ran.output.splitlines()
    assert "'beauty'" in line
    assert line.endswith(", ".join(metrics(load(folder))))
    assert "frechet" in line
    assert not (folder / "figures").exists()


def test_a_study_without_results_is_one_line(tmp_path):
    ran = CliRunner().invoke(app, ["effects", "nothing", "--results", str(tmp_path)])
    assert ran.exit_code == 1
    assert "run the study first" in ran.output
