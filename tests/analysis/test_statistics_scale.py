"""One scale for several tasks, and methods over parts, on made-up studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.part import Part
from analysis.statistics.across import methods, runs
from analysis.statistics.center import iqm
from analysis.statistics.normalize import NoScaleError, normalized, scale
from tests.analysis.synthetic import Design, read, write

LEVELS = {"head": 0.2, "lokr": 0.5, "lora": 0.6, "full": 0.7}


def design(method: str, level: float, noise: float = 0.001, **fields: object) -> Design:
    primary = str(fields.pop("primary", "accuracy"))
    effects = {"r": {8: 0.0}}
    trial = {"method": method, **fields}
    return Design(effects=effects, base=level, noise=noise, trial=trial, primary=primary)


def study(folder: Path, levels: dict[str, float] = LEVELS, **fields: object) -> Part:
    designs = [design(method, level, **fields) for method, level in levels.items()]
    (part,) = read(write(folder, *designs))
    return part


def without(*names: str) -> dict[str, float]:
    return {name: level for name, level in LEVELS.items() if name not in names}


def test_text_goes_from_the_head_to_all_weights(tmp_path):
    part = study(tmp_path)
    found = scale(part)
    assert (found.low, found.high) == pytest.approx((0.2, 0.7), abs=0.003)
    assert found.how == "0 is the frozen base with a trained head (head), 1 the best cell of full"
    assert normalized(part, np.array([0.2, 0.45, 0.7])) == pytest.approx([0, 0.5, 1], abs=0.01)


def test_without_all_weights_lora_is_one(tmp_path):
    found = scale(study(tmp_path, without("full")))
    assert found.high == pytest.approx(0.6, abs=0.003)
    assert found.how.endswith("1 the best cell of lora")


def test_a_gain_starts_at_zero_by_its_definition(tmp_path):
    found = scale(study(tmp_path, without("head"), primary="gain"))
    assert found.low == 0.0
    assert found.how == "0 is the untouched base, 1 the best cell of full"


@pytest.mark.parametrize(
    ("left_out", "why"),
    [(("full", "lora"), "neither full nor lora ran"), (("head",), "head did not run")],
)
def test_without_an_end_there_is_no_scale_and_it_is_said(tmp_path, left_out, why):
    with pytest.raises(NoScaleError, match=rf"glue/rte on minilm: {why}"):
        scale(study(tmp_path, without(*left_out)))


def test_ends_that_noise_could_swap_are_no_scale(tmp_path):
    levels = {"head": 0.50, "lokr": 0.51, "lora": 0.51, "full": 0.505}
    with pytest.raises(NoScaleError, match="full cannot be told from head"):
        scale(study(tmp_path, levels, noise=0.02))


def test_a_gain_below_zero_is_no_scale(tmp_path):
    with pytest.raises(NoScaleError, match="not above 0"):
        scale(study(tmp_path, {"full": -0.1}, primary="gain"))


def test_methods_over_parts_by_hand(tmp_path):
    one = study(tmp_path / "one")
    two = study(tmp_path / "two", without("lora"), task="glue/mrpc")
    alone = study(tmp_path / "alone", without("head"), task="glue/cola")
    found = methods([one, two, alone])
    assert found.how == {
        "one/glue-rte-minilm": scale(one).how,
        "two/glue-mrpc-minilm": scale(two).how,
    }
    assert found.refused == ["glue/cola on minilm: head did not run, nothing is 0"]
    table = found.table.set_index("method")
    assert table["parts"].to_dict() == {"full": 2, "lora": 1, "lokr": 2, "head": 2}
    assert table["complete"].to_dict() == {"full": True, "lora": False, "lokr": True, "head": True}
    values = np.concatenate([normalized(p, runs(p, "lokr")) for p in (one, two)])
    row = table.loc["lokr"]
    assert (row["runs"], row["mean"], row["iqm"]) == (
        6,
        pytest.approx(values.mean()),
        pytest.approx(iqm(values)),
    )
    assert row["low"] <= row["iqm"] <= row["high"]
    assert row["iqm"] == pytest.approx(0.6, abs=0.01)
    assert list(table.index) == ["full", "lora", "lokr", "head"]


def test_nothing_to_normalize_is_an_empty_table_with_the_reason(tmp_path):
    found = methods([study(tmp_path, without("head"))])
    assert found.table.empty
    assert len(found.refused) == 1


def test_a_failed_run_of_the_chosen_cell_is_left_out(tmp_path):
    part = study(tmp_path)
    lost = (part.trials["trial.method"] == "lokr") & (part.trials["trial.seed"] == 1)
    part.trials.loc[lost, "status"] = "diverged"
    part.trials.loc[lost, ["score", "selection_score"]] = np.nan
    assert len(runs(part, "lokr")) == 2
    assert len(runs(part, "dora")) == 0
