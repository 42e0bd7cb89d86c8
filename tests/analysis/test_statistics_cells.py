"""Cells in order, their intervals and ties, on made-up parts whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.part import Part
from analysis.statistics.additive import failures, wide
from analysis.statistics.cells import COLUMNS, placed, summarize
from analysis.statistics.choice import crossed, pick, worth
from analysis.statistics.noise import dev_se, pooled
from analysis.statistics.paired import compared
from tests.analysis.synthetic import Design, make, read, redrawn, write

RANKS = {"r": {2: 0.0, 4: 0.01, 8: 0.04, 16: 0.04}}
REPEATS = 200
BOUNDS = stats.binom.ppf([0.0005, 0.9995], REPEATS, 0.95)


def contest(folder: Path, noise: float = 0.0, seeds: int = 3) -> Part:
    """Four ranks of lokr and one cell of lora, which is as good as the second rank."""
    lokr = Design(effects=RANKS, noise=noise, seeds=seeds, rates={1e-3: 0.0, 1e-2: -0.2})
    lora = Design(
        effects={"r": {8: 0.01}}, noise=noise, seeds=seeds, trial={"method": "lora"}, base=0.5
    )
    (part,) = read(write(folder, lokr, lora))
    return part


def test_without_noise_means_and_ranks_are_the_truth(tmp_path):
    table = summarize(contest(tmp_path))
    assert list(table.columns) == list(COLUMNS)
    assert table["mean"].tolist() == pytest.approx([0.54, 0.54, 0.51, 0.51, 0.5])
    assert table["rank"].tolist() == [1, 1, 3, 3, 5]
    assert table["tied"].tolist() == [True, True, False, False, False]
    assert table["cell"].tolist() == ["lokr r=16", "lokr r=8", "lokr r=4", "lora", "lokr r=2"]
    assert table["rate"].tolist() == [1e-3] * 5
    assert table["n"].tolist() == [3] * 5
    assert table["chosen"].tolist() == [False, True, False, False, False]  # fewer parameters


def test_centers_and_intervals_by_hand(tmp_path):
    part = contest(tmp_path, noise=0.01)
    table, noise = summarize(part).set_index("cell"), pooled(part)
    scores = part.selected[part.selected["cell"] == "lokr r=4"]["score"].to_numpy()
    row = table.loc["lokr r=4"]
    expected = [scores.mean(), np.median(scores), scores.mean(), scores.std(ddof=1)]
    assert row[["mean", "median", "iqm", "sd"]].tolist() == pytest.approx(expected)
    bounds = stats.t.interval(0.95, noise.df, scores.mean(), noise.sd / np.sqrt(3))
    assert (row["low"], row["high"]) == pytest.approx(bounds)


def test_an_interval_ends_where_the_metric_does(tmp_path):
    (part,) = make(tmp_path, effects=RANKS, base=0.959, noise=0.002)
    assert pooled(part).odd == ()
    assert summarize(part)["high"].max() == 1.0


def test_a_cell_with_a_failed_seed_comes_last_without_interval_rank_or_tie(tmp_path):
    def failed(knobs: dict, rate: float, seed: int) -> bool:
        return knobs["r"] == 16 and seed == 1

    (part,) = make(tmp_path, effects=RANKS, failed=failed)
    row = summarize(part).iloc[-1]
    assert (row["cell"], row["n"], row["failed"]) == ("lokr r=16", 2, 1)
    assert row[["low", "high", "rank", "tied"]].isna().all()
    assert row["mean"] == pytest.approx(0.54, abs=0.02)
    assert pick(part) == "lokr r=8"


def test_a_cell_in_which_all_failed_has_no_numbers(tmp_path):
    (part,) = make(tmp_path, effects=RANKS, failed=lambda knobs, rate, seed: knobs["r"] == 2)
    row = summarize(part).set_index("cell").loc["lokr r=2"]
    assert row[["mean", "median", "iqm", "sd", "low", "high", "rank", "tied"]].isna().all()
    assert (row["n"], row["failed"]) == (0, 3)


def test_where_all_failed_nothing_is_picked(tmp_path):
    (part,) = make(tmp_path, effects=RANKS, failed=lambda knobs, rate, seed: True)
    with pytest.raises(ValueError, match="no trial in glue/rte on minilm has a score"):
        pick(part)
    table = summarize(part)
    assert table["failed"].tolist() == [3, 3, 3, 3]
    assert not table["chosen"].any()
    assert table[["mean", "low", "high", "rank", "tied"]].isna().all(axis=None)


def test_a_method_that_did_not_run_is_named_with_those_that_did(tmp_path):
    with pytest.raises(ValueError, match=r"'full' has no score.*there are lokr, lora"):
        pick(contest(tmp_path), "full")


def test_an_odd_cell_is_marked_and_has_its_own_interval(tmp_path):
    effects = {"r": {2**i: 0.0 for i in range(12)}}
    (part,) = make(tmp_path, effects=effects, noise=0.002)
    bad = (part.trials["trial.r"] == 1) & (part.trials["trial.seed"] == 2)
    part.trials.loc[bad, ["score", "selection_score"]] -= 0.3
    table = summarize(part).set_index("cell")
    scores = part.trials[part.trials["trial.r"] == 1]["score"].to_numpy()
    own = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert table.index[table["odd"]].tolist() == ["lokr r=1"]
    row = table.loc["lokr r=1"]
    assert (row["low"], row["high"]) == pytest.approx((max(own.low, 0), min(own.high, 1)))
    widths = (table["high"] - table["low"]).drop("lokr r=1")
    assert widths.max() < 0.01
    assert row["tied"]  # what one seed destroys cannot be told from the best by three


def test_one_seed_has_no_interval_and_everything_is_tied(tmp_path):
    (part,) = make(tmp_path, effects=RANKS, seeds=1)
    table = summarize(part)
    assert table[["sd", "low", "high"]].isna().all(axis=None)
    assert table["tied"].all()


def test_of_a_distance_the_smallest_is_best(tmp_path):
    part = contest(tmp_path, noise=0.002)
    part.trials["frechet"] = 100 * part.trials["score"]
    table = summarize(part, "frechet")
    assert table["cell"].iloc[0] == "lokr r=2"
    assert table["rank"].iloc[0] == 1
    assert table["mean"].is_monotonic_increasing
    assert table["tied"].tolist() == [True, False, False, False, False]


def test_a_lone_cell_is_its_own_best(tmp_path):
    (part,) = make(tmp_path, effects={"r": {2: 0.0}})
    (row,) = summarize(part).to_dict("records")
    assert (row["rank"], row["tied"], row["chosen"]) == (1, True, True)
    assert row["low"] < row["mean"] < row["high"]


def test_the_dev_rows_of_an_accuracy_are_those_of_its_half(tmp_path):
    (part,) = make(tmp_path, effects=RANKS)  # 400 dev rows
    for metric, rows in (("score", 200), ("full_dev_best", 400)):
        table = summarize(part, metric)
        expected = [dev_se(mean, rows) for mean in table["mean"]]
        assert table["dev_se"].tolist() == pytest.approx(expected)


def test_other_metrics_and_unknown_rows_have_no_such_error(tmp_path):
    (gain,) = make(tmp_path / "gain", effects=RANKS, primary="gain")
    unknown = {"data": {"source": "made up", "train": 100, "dev": None, "sha256": "d" * 16}}
    (rows,) = make(tmp_path / "rows", effects=RANKS, provenance=unknown)
    for part in (gain, rows):
        assert summarize(part)["dev_se"].isna().all()


def test_crossed_choices_are_free_of_the_luck_of_the_seeds_they_report(tmp_path):
    """Thirty cells that are all alike: the best of them is a matter of luck."""
    effects = {"r": {2**i: 0.0 for i in range(30)}}
    (still,) = make(tmp_path, effects=effects, noise=0.0)
    generator = np.random.default_rng(3)
    chosen, honest = [], []
    for _ in range(25):
        part = redrawn(still, generator, noise=0.01, seed_noise=0.0)
        mean = part.trials.groupby("cell")["selection_score"].mean()
        chosen.append(mean.max() - 0.5)
        honest.append(crossed(part)["value"].mean() - 0.5)
    error = 0.01 / np.sqrt(3 * 25)
    assert abs(np.mean(honest)) < 3.3 * error
    assert np.mean(chosen) > 8 * error


def test_crossed_choices_by_hand(tmp_path):
    part = contest(tmp_path)
    scores = {0: (0.6, 0.5), 1: (0.5, 0.7), 2: (0.6, 0.5)}  # ranks 8 and 16
    for seed, pair in scores.items():
        for r, score in zip((8, 16), pair, strict=True):
            one = (part.trials["cell"] == f"lokr r={r}") & (part.trials["trial.seed"] == seed)
            one &= part.trials["trial.learning_rate"] == 1e-3
            part.trials.loc[one, "selection_score"] = score
            part.trials.loc[one, "score"] = score + 0.01
    table = crossed(part, "lokr")
    assert table["seed"].tolist() == [0, 1, 2]
    assert table["cell"].tolist() == ["lokr r=16", "lokr r=8", "lokr r=16"]
    assert table["rate"].tolist() == [1e-3] * 3
    assert table["value"].tolist() == pytest.approx([0.51, 0.51, 0.51])


def test_crossed_choices_show_a_run_that_failed_and_need_two_seeds(tmp_path):
    def failed(knobs: dict, rate: float, seed: int) -> bool:
        return knobs["r"] == 16 and seed == 1

    effects = {"r": {2: 0.0, 16: 0.1}}
    (part,) = make(tmp_path / "three", effects=effects, failed=failed)
    assert crossed(part)["cell"].tolist() == ["lokr r=2", "lokr r=16", "lokr r=2"]
    assert crossed(part)["value"].isna().tolist() == [False, True, False]
    (single,) = make(tmp_path / "one", effects=effects, seeds=1)
    assert crossed(single).empty


def of_trials(part: Part, keep: pd.Series) -> Part:
    return Part(part.folder, part.task, part.base, part.rows, part.sizes, part.trials[keep])


def test_a_cell_with_fewer_seeds_than_most_is_taken_only_where_there_is_no_other(tmp_path):
    """Cells that are all alike in a sweep that was interrupted: the luckiest has one run."""
    (part,) = make(tmp_path, effects={"r": {2**i: 0.0 for i in range(30)}}, noise=0.01)
    lucky, first = part.trials["trial.r"] == 1, part.trials["trial.seed"] == 0
    part.trials.loc[lucky, ["score", "selection_score"]] = 0.9
    rest = of_trials(part, ~lucky | first)
    assert rest.cells["selection_score"].max() == 0.9
    assert pick(rest) != "lokr r=1"
    assert "lokr r=1" not in set(crossed(rest)["cell"])
    assert pick(of_trials(part, lucky & first)) == "lokr r=1"


def test_what_a_choice_is_worth_is_the_mean_of_the_left_out_runs(tmp_path):
    part = contest(tmp_path, noise=0.01)
    table, found = crossed(part, "lokr"), worth(part, "lokr")
    assert found.mean == pytest.approx(table["value"].mean())
    assert found.values == tuple(table["value"])
    assert found.cells == tuple(table["cell"])
    assert (found.runs, found.lost) == (3, 0)


def test_a_left_out_run_that_failed_is_counted_and_one_seed_is_worth_nothing(tmp_path):
    effects = {"r": {2: 0.0, 16: 0.1}}
    (part,) = make(
        tmp_path / "three",
        effects=effects,
        failed=lambda knobs, _, seed: (seed, knobs["r"]) == (1, 16),
    )
    found = worth(part)
    assert (found.runs, found.lost) == (2, 1)
    assert found.mean == pytest.approx(0.5, abs=0.02)
    (single,) = make(tmp_path / "one", effects=effects, seeds=1)
    assert worth(single)[1:] == (0, 0, (), ())
    assert np.isnan(worth(single).mean)


def noisy(folder: Path) -> Iterator[tuple[pd.DataFrame, pd.Series]]:
    """The scores of a part without noise, to which it is added anew each time."""
    still = contest(folder)
    truth, lost = wide(still), failures(still)
    generator = np.random.default_rng(7)
    for _ in range(REPEATS):
        noise = generator.normal(0, 0.01, truth.shape) + generator.normal(0, 0.005, 3)
        yield truth + noise, lost


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    return [placed(values, lost) for values, lost in noisy(tmp_path_factory.mktemp("cells"))]


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    made = noisy(tmp_path_factory.mktemp("gaps"))
    return [compared(values, lost, "lora") for values, lost in made]


def held(rows, truth: float) -> int:
    return sum(row["low"] <= truth <= row["high"] for row in rows)


def test_a_cells_interval_holds_the_truth_as_often_as_it_says(cells):
    count = held([found.loc["lokr r=8"] for found in cells], 0.54)
    assert BOUNDS[0] <= count <= BOUNDS[1]


def test_a_differences_interval_holds_the_truth_as_often_as_it_says(gaps):
    count = held([found.loc["lokr r=8"] for found in gaps], 0.03)
    assert BOUNDS[0] <= count <= BOUNDS[1]


def test_equal_cells_differ_significantly_one_time_in_twenty(gaps):
    errors = sum(found.loc["lokr r=4", "p"] < 0.05 for found in gaps)
    assert REPEATS - BOUNDS[1] <= errors <= REPEATS - BOUNDS[0]


def test_the_truly_best_cells_are_among_the_tied(cells):
    both = sum(found.loc["lokr r=8", "tied"] for found in cells)
    assert both >= BOUNDS[0]


def test_a_cell_that_is_clearly_worse_is_out_more_often_than_not(cells):
    assert sum(not found.loc["lokr r=2", "tied"] for found in cells) > REPEATS / 2
