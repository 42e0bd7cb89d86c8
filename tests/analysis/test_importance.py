"""Shares of variance on made-up grids whose shares are known, exact and with holes."""

from __future__ import annotations

import io
import json
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from analysis import forest, variance
from analysis.__main__ import app
from analysis.collapsed import DamagedError, completed
from analysis.doubts import doubts
from analysis.figures.importance import draw
from analysis.importance import Importance, importance
from analysis.part import Part
from analysis.shares import grouped, percents
from analysis.terminal.importance import report
from tests.analysis import synthetic

REPEATS = 200
# What a true 95% falls short of or exceeds in one of a thousand runs of 200.
LEAST, MOST = (stats.binom.ppf(q, REPEATS, 0.95) / REPEATS for q in (0.001, 0.999))
# Two values a knob at ±size: the variance of a main effect is its square.
KNOBS = {
    "r": {2: -0.05, 8: 0.05},
    "alpha": {4.0: -0.02, 16.0: 0.02},
    "decompose_both": {False: 0.0, True: 0.0},
}


def shares(found: Importance, kind: str = "main") -> dict[str, float]:
    rows = found.table[found.table["kind"] == kind].itertuples()
    return {" x ".join(row.knobs): row.share for row in rows}


def part_of(folder: Path, **design) -> Part:
    (part,) = synthetic.make(folder / "made-up", **design)
    return part


# The arithmetic


def by_least_squares(grid: np.ndarray, subset: tuple[int, ...]) -> float:
    """Mean square of an effect: what a regression gains by the dummies of the subset."""
    places = np.indices(grid.shape).reshape(grid.ndim, -1).T
    y = grid.ravel()

    def missed(subsets: list[tuple[int, ...]]) -> float:
        dummies = [pd.get_dummies([*map(str, places[:, one])], dtype=float) for one in subsets]
        x = np.column_stack([np.ones(len(y)), *dummies])
        return float(((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).mean())

    below = [part for size in range(1, len(subset)) for part in combinations(subset, size)]
    return missed(below) - missed([*below, subset])


def test_effects_are_those_of_nested_regressions():
    grid = np.random.default_rng(0).normal(size=(3, 4, 2))
    found = {subset: (e**2).mean() for subset, e in variance.effects(grid, 3)}
    for subset, square in found.items():
        assert square == pytest.approx(by_least_squares(grid, subset or (0, 1, 2)))
    assert sum(found.values()) == pytest.approx(grid.var())


def test_effects_of_a_known_polynomial_are_its_coefficients():
    x, y, z = np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")
    grid = 7 + 3 * x + 2 * y * z + 0.5 * x * y * z
    found = {subset: (e**2).mean() for subset, e in variance.effects(grid, 3)}
    assert found.pop((0,)) == pytest.approx(9)
    assert found.pop((1, 2)) == pytest.approx(4)
    assert found.pop(()) == pytest.approx(0.25)
    assert [*found.values()] == pytest.approx([0] * 4)


def test_noise_is_what_a_regression_on_cells_and_seeds_leaves():
    values = np.random.default_rng(0).normal(size=(6, 3)) + np.arange(6)[:, None]
    values[[0, 4], [1, 2]] = np.nan
    cells, seeds = np.nonzero(~np.isnan(values))
    x = np.column_stack([np.eye(6)[cells], np.eye(3)[seeds][:, 1:]])
    y = values[cells, seeds]
    coefficients, rest, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    noise = variance.fit_noise(values)
    assert noise.df == len(y) - rank == 8
    assert noise.variance == pytest.approx(rest[0] / 8)
    shifts = np.array([0, *coefficients[6:]])
    assert noise.seeds == pytest.approx(shifts - shifts.mean())
    assert noise.means == pytest.approx(coefficients[:6] + shifts.mean())


def test_without_a_second_seed_noise_cannot_be_told():
    with pytest.raises(variance.NoNoiseError, match="no cell has two seeds"):
        variance.fit_noise(np.arange(4.0)[:, None])


def test_how_noise_reaches_an_effect_is_what_matrices_say():
    units = np.array([[[0, 1], [2, 2]], [[3, 4], [0, 5]], [[6, 6], [6, 7]]])
    counts = np.array([3, 2, 3, 1, 3, 3, 2, 3])
    dense = np.eye(8)[units] / np.sqrt(counts)
    columns = [dict(variance.effects(dense[..., unit], 3)) for unit in range(8)]
    whole = dense.reshape(12, 8) - dense.reshape(12, 8).mean(0)
    for subset, (own, others) in variance._reaches(units, counts).items():
        if subset == variance.WHOLE:
            continue
        full = [np.broadcast_to(column[subset], units.shape).ravel() for column in columns]
        matrix = np.column_stack(full)
        for reach, part in ((own, matrix), (others, whole - matrix)):
            values = np.linalg.eigvalsh(part.T @ part / 12)
            assert reach == pytest.approx((values.sum(), (values**2).sum())), subset


# Unbiased, and covered as often as is said


def quarter(twins: bool) -> tuple[np.ndarray, np.ndarray]:
    """The values of a 2 x 2 x 3 grid, and the units that ran: two points may be one unit."""
    x, y, z = np.indices((2, 2, 3))
    units = np.arange(12).reshape(2, 2, 3)
    if twins:  # where x is 0, y does nothing
        units = np.where((x == 0) & (y == 1), units - 3, units)
        units = np.unique(units, return_inverse=True)[1].reshape(2, 2, 3)
    return np.array(1.0 * x + 0.4 * x * y + 0.3 * (z == 2) * (1 - x)), units


SITUATIONS = {
    "little noise": (1.0, 0.2, 3, False),
    "much noise, two seeds": (1.0, 0.6, 2, False),
    "nothing but noise": (0.0, 0.6, 3, False),
    "twins": (1.0, 0.3, 3, True),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_shares_are_unbiased_and_intervals_cover_over_200_repeats(situation):
    size, sd, seeds, twins = SITUATIONS[situation]
    values, units = quarter(twins)
    ran = np.zeros(units.max() + 1)
    ran[units] = size * values
    rng = np.random.default_rng(0)
    shift = np.array([0.1, -0.1, 0])[:seeds]
    shift -= shift.mean()
    truth = {s: (e**2).mean() for s, e in variance.effects(ran[units], 3)}
    truth |= {"seed": (shift**2).mean(), "noise": sd**2}
    total = sum(truth.values())
    drawn: dict = {key: [] for key in truth}
    for _ in range(REPEATS):
        noisy = ran[:, None] + shift + rng.normal(0, sd, (len(ran), seeds))
        found = variance.decompose(units, variance.fit_noise(noisy), draws=200)
        for key, share in {**found.effects, "seed": found.seed, "noise": found.noise}.items():
            drawn[key].append(share)
    for key, rows in drawn.items():
        got, true = np.array(rows), truth[key] / total
        # A share is a ratio of two unbiased numbers, so nearly unbiased itself.
        error = got[:, 0].std() / REPEATS**0.5
        assert got[:, 0].mean() == pytest.approx(true, abs=4 * error + 0.005), key
        held = np.mean((got[:, 1] <= true + 1e-12) & (true <= got[:, 2] + 1e-12))
        assert held >= LEAST, key
        if 0.05 < true < 0.95:  # an interval that starts at 0 holds 0 more often than 95%
            assert held <= MOST, key


def test_taking_repeated_measurements_for_new_ones_would_find_what_is_not_there():
    # All that runs is y at x = 0 and x = 1; z does nothing anywhere, so its points are twins.
    units = np.broadcast_to(np.arange(4).reshape(2, 2, 1), (2, 2, 4))
    separate = np.arange(16).reshape(2, 2, 4)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(REPEATS):
        noisy = rng.normal(0, 1, (4, 3))
        told = variance.decompose(units, variance.fit_noise(noisy), draws=2)
        naive = variance.decompose(separate, variance.fit_noise(noisy[units.ravel()]), draws=2)
        drawn.append((told.effects[(0,)].share, naive.effects[(0,)].share))
    mean, wrong = np.mean(drawn, axis=0)
    assert told.effects[(2,)] == pytest.approx((0, 0, 0))
    assert abs(mean) < 0.03
    assert wrong > 0.05


# What speaks against shares


def test_where_all_cells_vary_alike_there_is_hardly_ever_a_doubt():
    rng = np.random.default_rng(0)
    cells = rng.normal(0.5, 0.1, 16)[:, None]
    found = [bool(doubts(cells + rng.normal(0, 0.01, (16, 3)), 1.0)) for _ in range(REPEATS)]
    assert sum(found) <= stats.binom.ppf(0.9995, REPEATS, 0.02)


def test_cells_at_the_end_of_the_scale_are_doubted_and_a_scale_without_an_end_has_none():
    rng = np.random.default_rng(0)
    values = np.linspace(0.8, 0.97, 16)[:, None] + rng.normal(0, 0.005, (16, 3))
    values[-3:] = 1.0
    (doubt,) = doubts(values, 1.0)
    assert doubt.startswith("3 of 16 cells are at the end of the scale")
    assert doubts(values, np.inf) == ()


def test_a_half_that_varies_far_more_is_doubted():
    rng = np.random.default_rng(0)
    sd = np.where(np.arange(16) < 8, 0.05, 0.005)[:, None]
    values = np.linspace(0.0, 0.9, 16)[:, None] + sd * rng.normal(size=(16, 3))
    (doubt,) = doubts(values, 1.0)
    assert doubt.startswith("runs of the worse half of the cells vary ")
    (other,) = doubts(-values, np.inf)
    assert other.startswith("runs of the better half of the cells vary ")


def test_a_half_that_does_not_vary_at_all_is_doubted():
    values = np.arange(16.0)[:, None] * np.ones(2)
    values[:8] += 0.1 * np.array([[1, -1], [-1, 1]] * 4)
    (doubt,) = doubts(values, np.inf)
    assert doubt.startswith("runs of the worse half")


def test_a_cell_that_makes_most_of_the_noise_is_doubted():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.005, (16, 3))
    values[3, 1] -= 0.3
    (doubt,) = [doubt for doubt in doubts(values, 1.0) if "1 of 16 cells varies" in doubt]
    assert "without, the noise is 0.00" in doubt


def test_a_part_at_the_ceiling_says_so_and_a_part_below_it_does_not(tmp_path):
    noise = {"effects": KNOBS, "noise": 0.002}
    for name, base in (("easy", 0.925), ("hard", 0.5)):
        (part,) = synthetic.make(tmp_path / name, base=base, **noise)
        found = importance(part)
        assert found.how == "exact"
        assert any("end of the scale" in doubt for doubt in found.doubts) == (name == "easy")
        shown = printed(part.folder)
        assert ("doubt   2 of 8 cells are at the end" in shown) == (name == "easy")
        table = pd.read_csv(part.folder / "figures" / "importance-lokr-score.csv")
        assert table["doubts"].notna().any() == (name == "easy")
        note = " ".join(" ".join(text.get_text() for text in draw(part).texts).split())
        assert ("selected rate: 2 of 8 cells are at the end" in note) == (name == "easy")


# As they are printed


@given(st.lists(st.floats(-0.3, 1.2), min_size=1, max_size=9), st.integers(0, 2))
def test_percents_add_up_and_none_is_a_unit_off(shares, digits):
    shares = np.array([*shares, 1 - sum(shares)])
    found = np.array(percents(shares, digits))
    assert found.sum() == pytest.approx(100)
    assert (np.abs(found - 100 * shares) < 10.0**-digits + 1e-6).all()


def test_percents_by_hand():
    assert percents([1 / 3, 1 / 3, 1 / 3]) == [34, 33, 33]
    assert percents([1.146, -0.146]) == [115, -15]
    assert percents([0.5, 0.29, 0.21]) == [50, 29, 21]
    assert percents([1.0, -0.0001, 0.0001]) == [100, 0, 0]


def test_what_a_sentence_names_and_the_rest_are_the_whole(tmp_path):
    found = importance(part_of(tmp_path, effects=KNOBS, noise=0.01, seed=2))
    sure, one = grouped(found), grouped(found, top=1)
    assert sure["label"].tolist() == [
        *("r", "alpha"),
        *("other knobs", "knobs together", "seed", "noise"),
    ]
    assert one["label"].tolist() == ["r", "other knobs", "knobs together", "seed", "noise"]
    by_label, mains = one.set_index("label"), shares(found)
    others = mains["alpha"] + mains["decompose_both"]
    assert by_label.loc["other knobs", "share"] == pytest.approx(others)
    assert by_label.loc["r", ["low", "high"]].notna().all()
    assert by_label.loc["other knobs", ["low", "high"]].isna().all()
    for table in (sure, one):
        assert table["share"].sum() == pytest.approx(1)
        assert table["percent"].sum() == 100
    assert (sure["share"] < 0).any()
    assert grouped(importance(part_of(tmp_path / "one", effects=KNOBS, seeds=1))).empty


# Parts of a study


def test_known_shares_come_out_of_result_files(tmp_path):
    part = part_of(tmp_path, effects=KNOBS, noise=0.01)
    found = importance(part)
    total = 0.05**2 + 0.02**2 + 0.01**2
    assert (found.how, found.fit, found.refused, found.holes) == ("exact", None, None, 0)
    assert found.noise == pytest.approx(0.01, rel=0.4)
    expected = {"r": 0.0025 / total, "alpha": 0.0004 / total, "decompose_both": 0, "seed": 0}
    assert shares(found) == pytest.approx(expected, abs=0.05)
    for row in found.table[found.table["kind"] == "main"].itertuples():
        assert row.low - 1e-9 <= expected[row.knobs[0]] <= row.high
    assert found.table["share"].sum() == pytest.approx(1)
    assert [*found.table["kind"]] == ["main"] * 4 + ["pair"] * 3 + ["higher", "noise"]


def test_a_function_of_two_knobs_together_has_no_mains(tmp_path):
    flat = {"r": {2: 0.0, 8: 0.0}, "alpha": {4.0: 0.0, 16.0: 0.0}}
    crossed = {(2, 4.0): 0.05, (8, 16.0): 0.05, (2, 16.0): -0.05, (8, 4.0): -0.05}
    found = importance(
        part_of(tmp_path, effects=flat, pairs={("r", "alpha"): crossed}, noise=0.005, seeds=4)
    )
    assert shares(found, "pair") == pytest.approx({"r x alpha": 0.99}, abs=0.02)
    assert shares(found) == pytest.approx({"r": 0, "alpha": 0, "seed": 0}, abs=0.02)


def test_a_shift_of_every_cell_by_its_seed_is_the_seeds(tmp_path):
    found = importance(part_of(tmp_path, effects=KNOBS, noise=0.002, seed_noise=0.1))
    mains = shares(found)
    assert mains["seed"] > 0.5
    assert mains["seed"] + mains["r"] + mains["alpha"] > 0.98


def test_the_rate_is_a_variable_of_the_raw_view_alone(tmp_path):
    rates = {1e-3: -0.1, 1e-2: 0.1}
    part = part_of(tmp_path, effects=KNOBS, rates=rates, noise=0.002)
    tuned, raw = (shares(importance(part, view=view)) for view in ("tuned", "raw"))
    assert "learning_rate" not in tuned
    total = 0.1**2 + 0.05**2 + 0.02**2
    assert raw["learning_rate"] == pytest.approx(0.1**2 / total, abs=0.01)
    assert tuned["r"] == pytest.approx(0.05**2 / (0.05**2 + 0.02**2), abs=0.01)


def test_a_trial_that_diverged_leaves_its_cell_to_the_other_seeds(tmp_path):
    part = part_of(
        tmp_path,
        effects=KNOBS,
        noise=0.002,
        failed=lambda knobs, rate, seed: knobs["r"] == 2 and knobs["alpha"] == 4.0 and seed == 1,
    )
    found = importance(part)
    assert (found.how, found.lost, found.holes) == ("exact", 2, 0)
    assert shares(found)["r"] == pytest.approx(0.0025 / 0.0029, abs=0.02)


def test_knobs_that_move_together_are_one_variable(tmp_path):
    effects = {**KNOBS, "init_weights": {True: 0.0, "lycoris": 0.03}}
    part = part_of(
        tmp_path,
        effects=effects,
        noise=0.002,
        keep=lambda knobs: (knobs["r"] == 2) == (knobs["alpha"] == 4.0),
    )
    found = importance(part)
    assert found.how == "exact"
    assert {*shares(found)} == {"r+alpha", "decompose_both", "init_weights", "seed"}


def test_knobs_of_which_some_combinations_ran_are_one_variable(tmp_path):
    part = part_of(
        tmp_path, effects=KNOBS, keep=lambda knobs: knobs["r"] == 2 or knobs["alpha"] == 16.0
    )
    found = importance(part)
    assert (found.how, found.holes) == ("exact", 0)
    assert {*shares(found)} == {"r+alpha", "decompose_both", "seed"}


def test_a_method_is_decomposed_alone(tmp_path):
    designs = [
        synthetic.Design(effects={"r": {2: 0.0, 8: 0.3}}),
        synthetic.Design(effects={"alpha": {4.0: 0.0, 8.0: 0.3}}, trial={"method": "lora"}),
    ]
    (part,) = synthetic.read(synthetic.write(tmp_path / "made-up", *designs))
    assert {*shares(importance(part))} == {"r", "seed"}
    assert {*shares(importance(part, method="lora"))} == {"alpha", "seed"}


@pytest.mark.parametrize(
    ("design", "reason"),
    [
        ({"seeds": 1}, "no cell has two seeds to compare"),
        ({"effects": {"r": {2: 0.0}}}, "no knob of lokr varies"),
        ({"failed": lambda *trial: True}, "no trial of lokr has a score"),
        ({"effects": {"r": {2: 0.0, 8: 0.0}}, "noise": 0.0}, "every trial has the same score"),
    ],
)
def test_what_cannot_be_decomposed_says_why(tmp_path, design, reason):
    found = importance(part_of(tmp_path, **{"effects": KNOBS, **design}))
    assert found.refused is not None
    assert found.refused.startswith(reason)
    assert found.table.empty
    assert [*found.table.columns] == ["kind", "knobs", "share", "low", "high"]


def test_an_unknown_view_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="view='best': expected one of tuned, raw"):
        importance(part_of(tmp_path, effects=KNOBS), view="best")


# Collapsed cells


def twins(folder: Path) -> None:
    """The cells with r = 8 and decompose_both are those without it."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        ran = json.loads(path.read_bytes())
        if ran["trial"]["r"] == 8:
            trial = {**ran["trial"], "decompose_both": True}
            line = {"id": f"twin{ran['id']}", "trial": trial, "equals": ran["id"], "reason": "-"}
            lines.append(json.dumps(line))
    (folder / "collapsed.jsonl").write_text("\n".join(lines) + "\n")


def pruned(knobs: dict) -> bool:
    return knobs["r"] == 2 or not knobs["decompose_both"]


def test_collapsed_cells_fill_the_grid_with_their_twins_numbers(tmp_path):
    part = part_of(tmp_path, effects=KNOBS, keep=pruned, noise=0.002)
    twins(part.folder)
    whole = completed(part)
    assert (len(part.trials), len(whole.trials)) == (18, 24)
    assert (whole.trials["equals"] != whole.trials["id"]).sum() == 6
    scores = whole.trials.groupby(["cell", "trial.seed"])["score"].first()
    label = "lokr r=8 alpha=4 decompose_both="
    assert scores[f"{label}True"].tolist() == scores[f"{label}False"].tolist()
    found = importance(part)
    assert found.how == "exact"
    assert shares(found)["r"] == pytest.approx(0.0025 / 0.0029, abs=0.02)
    assert "decompose_both" in shares(found)


def test_a_line_whose_trial_has_not_run_yet_fills_nothing(tmp_path):
    part = part_of(tmp_path, effects=KNOBS, keep=pruned)
    twins(part.folder)
    path = part.folder / "collapsed.jsonl"
    path.write_text(path.read_text().replace('"equals": "', '"equals": "0'))
    assert len(completed(part).trials) == len(part.trials)


def test_a_damaged_record_is_one_line(tmp_path):
    part = part_of(tmp_path, effects=KNOBS)
    (part.folder / "collapsed.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(DamagedError, match="is damaged"):
        completed(part)
    arguments = ["importance", "made-up", "--results", str(tmp_path)]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 1
    assert len(ran.output.splitlines()) == 1


# Grids with holes

FIVE = {
    **KNOBS,
    "init_weights": {True: 0.0, "lycoris": 0.0},
    "decompose_factor": {4: 0.0, -1: 0.0},
}


def punched(knobs: dict) -> bool:
    return not (knobs["r"] == 8 and knobs["alpha"] == 4.0 and knobs["decompose_both"])


def test_a_grid_with_holes_is_a_forests_with_its_fit_beside_it(tmp_path):
    found = importance(part_of(tmp_path, effects=FIVE, keep=punched, noise=0.005, seeds=2))
    assert (found.how, found.refused, found.holes) == ("fanova", None, 4)
    assert found.fit is not None
    assert found.fit > 0.9
    mains = shares(found)
    assert mains["r"] == pytest.approx(0.0025 / 0.002925, abs=0.08)
    assert mains["alpha"] == pytest.approx(0.0004 / 0.002925, abs=0.08)
    assert max(mains[k] for k in ("decompose_both", "init_weights", "decompose_factor")) < 0.01
    assert found.table["share"].sum() == pytest.approx(1)
    assert (found.table["low"] <= found.table["high"]).all()


def test_a_forest_that_foretells_nothing_ranks_nothing(tmp_path):
    flat = {knob: dict.fromkeys(values, 0.0) for knob, values in FIVE.items()}
    found = importance(part_of(tmp_path, effects=flat, keep=punched, seeds=2))
    assert found.fit is not None
    assert found.fit < 0.5
    assert found.table.empty
    assert f"cross-validated R² {found.fit:.2f}" in str(found.refused)


def test_a_few_cells_of_a_grid_are_not_modeled(tmp_path):
    found = importance(part_of(tmp_path, effects=KNOBS, keep=lambda k: k != {
        "r": 2, "alpha": 4.0, "decompose_both": True
    }))  # fmt: skip
    assert found.how == "fanova"
    assert str(found.refused).startswith("the grid has holes: 7 of 8 cells ran")


def test_on_a_pruned_grid_constant_and_inert_knobs_have_nothing():
    points = np.array([*product((0, 1, 2), (0, 1), (0, 1), (0,))])
    truth = np.array([0.5, 0.7, 0.6])[points[:, 0]] + 0.08 * points[:, 1]
    rng = np.random.default_rng(0)
    values = truth[:, None] + rng.normal(0, 0.01, (len(truth), 3))
    kept = np.argsort(-values.mean(1))[:10]  # the best ones, as a pruning search leaves them
    noise = variance.fit_noise(values[kept])
    found = forest.decompose(points[kept], np.arange(10), noise)
    assert found.effects[(3,)] == pytest.approx((0, 0, 0))
    assert found.effects[(2,)].share < 0.02
    assert found.effects[(0,)].share > 0.5


# The command


def printed(folder: Path) -> str:
    out = io.StringIO()
    report(folder, console=Console(file=out, width=80))
    return out.getvalue()


def test_tables_fit_a_terminal_and_the_file_is_the_same_twice(tmp_path):
    part = part_of(tmp_path, effects=KNOBS, rates={1e-3: 0.0, 1e-2: 0.02})
    before = printed(part.folder)
    path = part.folder / "figures" / "importance-lokr-score.csv"
    content = path.read_bytes()
    *lines, last = before.splitlines()
    assert max(map(len, lines)) <= 80
    assert last == f"table   {path}"
    assert "other pairs" in before
    for table in before.split("share of the")[0].split("variable")[1:]:
        shown = re.findall(r"^ *(?:\w[\w+ ]*?) +(-?\d+\.\d)\b", table, re.MULTILINE)
        assert sum(map(float, shown)) == pytest.approx(100)
    assert printed(part.folder) == before
    assert path.read_bytes() == content
    table = pd.read_csv(path)
    assert set(table["view"]) == {"tuned", "raw"}
    assert "r x learning_rate" in set(table["knobs"])


def test_a_refusal_is_a_line_on_the_screen_and_a_row_of_the_file(tmp_path):
    part = part_of(tmp_path, effects=KNOBS, seeds=1)
    assert printed(part.folder).count("nothing is ranked: no cell has two seeds") == 2
    table = pd.read_csv(part.folder / "figures" / "importance-lokr-score.csv")
    assert table["refused"].str.startswith("no cell has two seeds").tolist() == [True, True]
    assert table["share"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["made-up", "--metric", "beauty"], "metric 'beauty'"),
        (["made-up", "--method", "dora"], "method 'dora'"),
        (["nothing"], "run the study first"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, words):
    part_of(tmp_path, effects=KNOBS)
    ran = CliRunner().invoke(app, ["importance", *arguments, "--results", str(tmp_path)])
    assert ran.exit_code == 1
    (line,) = ran.output.splitlines()
    assert words in line
    assert not (tmp_path / "made-up" / "figures").exists()


def test_the_command_writes_the_table(tmp_path):
    part = part_of(tmp_path, effects=KNOBS)
    ran = CliRunner().invoke(app, ["importance", "made-up", "--results", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    assert (part.folder / "figures" / "importance-lokr-score.csv").exists()
