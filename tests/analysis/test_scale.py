"""Effective scale and size, and what they explain, on made-up studies whose law is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.part import Part
from analysis.scale import effective, explained, variables
from lokr import LoKrConfig, LoKrModel
from tests.analysis import synthetic

R, ALPHA, RATES = (2, 4, 8), (4.0, 8.0, 16.0), (1e-3, 3e-3, 1e-2)


def trials(**fields: list) -> pd.DataFrame:
    return pd.DataFrame({name.replace("_", ".", 1): values for name, values in fields.items()})


def part_of(folder: Path, law: Callable[[float, float, float], float], noise: float = 0.0) -> Part:
    """A full grid of r, alpha and rate, two seeds, whose score follows a law."""
    designs = [
        synthetic.Design(
            effects={"r": {r: law(r, alpha, rate)}, "alpha": {alpha: 0.0}},
            rates={rate: 0.0},
            base=0.0,
            noise=noise,
            seeds=2,
            adapter=lambda knobs: 1000 * knobs["r"],
        )
        for r, alpha, rate in product(R, ALPHA, RATES)
    ]
    (part,) = synthetic.read(synthetic.write(folder / "made-up", *designs))
    return part


def by_model(table: pd.DataFrame, column: str = "r2") -> dict[str, float]:
    return dict(zip(table["model"], table[column], strict=True))


def test_scale_is_alpha_by_r_where_there_is_one():
    frame = trials(
        trial_method=["lokr", "lora", "lokr-peft", "full", "head"],
        trial_alpha=[16, 8, 4, 8, 8],
        trial_r=[8, 8, 2, 8, 8],
        trial_learning_rate=[1e-2] * 5,
        parameters_adapter=[100, 200, 300, 400, 0],
    )
    assert effective(frame)[:3].tolist() == [2, 1, 2]
    found = variables(frame)
    assert found["step"][:3].tolist() == pytest.approx([0.02, 0.01, 0.02])
    assert found["pull"][:3].tolist() == pytest.approx([0.16, 0.08, 0.04])
    assert found.loc[3:, ["scale", "step", "pull"]].isna().all(axis=None)
    assert found["parameters"].tolist() == [100, 200, 300, 400, 0]


def change_after_one_step(alpha: float, rate: float) -> torch.Tensor:
    torch.manual_seed(0)
    config = LoKrConfig(r=2, alpha=alpha, target_modules=["0"])
    model = LoKrModel(torch.nn.Sequential(torch.nn.Linear(32, 32)), config)
    inputs = torch.randn(4, 32)
    before = model(inputs).detach()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0, eps=1e-30)
    (model(inputs) ** 2).sum().backward()
    optimizer.step()
    return (model(inputs) - before).detach()


def test_the_first_update_hangs_on_rate_times_scale_alone():
    once = change_after_one_step(alpha=4, rate=1e-2)
    assert torch.allclose(change_after_one_step(alpha=16, rate=2.5e-3), once, rtol=1e-4, atol=1e-6)
    assert torch.allclose(change_after_one_step(alpha=16, rate=1e-2), 4 * once, rtol=0.05)


def test_a_law_of_the_step_is_explained_by_it_and_not_by_categories(tmp_path):
    law = lambda r, alpha, rate: 0.5 - 0.1 * math.log10(100 * rate * alpha / r) ** 2  # noqa: E731
    found = by_model(explained(part_of(tmp_path, law)))
    assert found["rate alpha / r"] == pytest.approx(1)
    assert found["alpha x r x rate"] == pytest.approx(1)
    assert found["rate alpha"] < 0.9
    assert found["alpha, r, rate"] < 0.9


def test_a_law_of_the_pull_is_told_from_one_of_the_step(tmp_path):
    law = lambda r, alpha, rate: 0.5 - 0.1 * math.log10(10 * rate * alpha) ** 2  # noqa: E731
    found = by_model(explained(part_of(tmp_path, law)))
    assert found["rate alpha"] == pytest.approx(1)
    assert found["rate alpha / r"] < 0.9


def test_alpha_and_rate_that_act_apart_are_no_scale(tmp_path):
    law = lambda r, alpha, rate: 0.5 + 0.1 * (alpha == 8) + 0.1 * (rate == 3e-3)  # noqa: E731
    found = by_model(explained(part_of(tmp_path, law)))
    assert found["alpha, rate"] == pytest.approx(1)
    assert found["rate alpha / r"] < 0.5


def test_noise_is_not_foretold(tmp_path):
    table = explained(part_of(tmp_path, lambda r, alpha, rate: 0.5, noise=0.1))
    assert (table["held_out"] < 0.1).all()
    assert (table["r2"] > 0).all()
    assert (table["adjusted"] < table["r2"]).all()
    assert by_model(table, "terms")["alpha x r x rate"] == len(R) * len(ALPHA) * len(RATES) - 1


def test_where_only_the_rate_varies_there_is_nothing_to_tell_apart(tmp_path):
    (part,) = synthetic.make(
        tmp_path / "made-up", effects={"r": {8: 0.0}}, rates=dict.fromkeys(RATES, 0.0)
    )
    table = explained(part)
    assert table.empty
    assert [*table.columns] == ["model", "terms", "r2", "adjusted", "held_out"]
    assert explained(part, method="lora").empty


def test_it_is_an_ordinary_regression(tmp_path):
    part = part_of(tmp_path, lambda r, alpha, rate: 0.5 + 0.01 * r, noise=0.05)
    pull = np.log(variables(part.trials)["pull"].to_numpy())
    x = np.column_stack([np.ones(len(pull)), pull, pull**2])
    y = part.trials["score"].to_numpy(float)
    rest = np.linalg.lstsq(x, y, rcond=None)[1][0]
    total = ((y - y.mean()) ** 2).sum()
    row = explained(part).set_index("model").loc["rate alpha"]
    assert row["r2"] == pytest.approx(1 - rest / total)
    assert row["adjusted"] == pytest.approx(1 - rest / (len(y) - 3) / (total / (len(y) - 1)))
