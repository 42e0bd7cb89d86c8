"""What is mixed in results is said, and what cannot be compared is said strongly."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from analysis.load import load, load_all
from analysis.provenance import commits, groups, hardware, mixed
from analysis.terminal.summary import summarize
from tests.analysis.synthetic import Design, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight trials of one origin."""
    return write(tmp_path / "study", Design(effects={"r": {2: 0.0, 8: 0.1}}, seeds=4))


@pytest.fixture
def trials(folder: Path) -> pd.DataFrame:
    return load(folder)


def changed(trials: pd.DataFrame, column: str, *values: object) -> pd.DataFrame:
    """The trials with the column's first values replaced."""
    own = trials[f"provenance.{column}"].astype(object).tolist()
    return trials.assign(**{f"provenance.{column}": [*values, *own[len(values) :]]})


def test_one_origin_is_one_group_and_no_sentence(trials):
    table = groups(trials)
    assert len(table) == 1
    assert table.loc[0, "trials"] == 8
    assert table.loc[0, "commit"] == "0" * 40
    assert mixed(trials) == []
    assert hardware(trials) == "Made-up GPU"
    assert commits(trials) == "0000000"


def test_commits_are_counted(trials):
    other = changed(trials, "commit", "f" * 40, None)
    assert mixed(other) == [
        "3 commits in one table: 0000000 (6 trials), fffffff (1 trial), unknown (1 trial)"
    ]
    assert commits(other) == "0000000, fffffff, unknown"
    assert groups(other)["trials"].tolist() == [6, 1, 1]


def test_changed_files_are_said_even_where_all_trials_have_them(trials):
    (sentence,) = mixed(changed(trials, "dirty", *[True] * 8))
    assert sentence.startswith("8 of 8 trials ran from changed files")


def test_gpus_and_processors_are_kinds_of_hardware(trials):
    (sentence,) = mixed(changed(trials, "gpu", "Other GPU", None))
    assert sentence == (
        "3 kinds of hardware in one table: Made-up GPU (6 trials), Made-up CPU (1 trial), "
        "Other GPU (1 trial)"
    )


@pytest.mark.parametrize("package", ["torch", "transformers", "peft", "triton"])
def test_versions_are_told_apart(trials, package):
    (sentence,) = mixed(changed(trials, package, "9.9"))
    assert sentence.startswith(f"2 versions of {package} in one table: ")


def test_other_data_under_one_name_comes_first_and_is_not_comparable(trials):
    other = changed(changed(trials, "commit", "f" * 40), "data_sha256", "e" * 16)
    first, second = mixed(other)
    assert first == (
        "NOT COMPARABLE: glue/rte has 2 sets of data under one name: ddddddd (7 trials), "
        "eeeeeee (1 trial). Their scores answer different questions."
    )
    assert second.startswith("2 commits")


def test_another_base_under_one_name_is_not_comparable(trials):
    (sentence,) = mixed(changed(trials, "base_sha256", "e" * 16))
    assert sentence.startswith("NOT COMPARABLE: minilm has 2 bases under one name")


def test_a_fingerprint_that_some_lack_is_said_without_a_verdict(trials):
    (sentence,) = mixed(changed(trials, "data_sha256", None))
    assert sentence == "1 of 8 trials do not say which set of data they had"


def test_other_tasks_and_sizes_have_other_data(tmp_path):
    sizes = [
        Design(
            effects={"r": {2: 0.0}},
            trial={"train_size": n},
            provenance={"data": {"sha256": str(n) * 8}},
        )
        for n in (32, 64)
    ]
    write(tmp_path / "sizes", *sizes)
    assert mixed(load_all(tmp_path).trials) == []


def test_studies_are_groups_of_their_own(folder):
    write(folder.parent / "again", Design(effects={"r": {2: 0.0}}, seeds=1))
    table = groups(load_all(folder.parent).trials)
    assert table[["study", "trials"]].values.tolist() == [["again", 1], ["study", 8]]


def test_the_summary_says_what_is_mixed_under_the_table(folder):
    other = Design(effects={"r": {4: 0.0}}, provenance={"gpu": "Other GPU", "dirty": True})
    write(folder, other)
    out = io.StringIO()
    summarize(folder, Console(file=out, width=80))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("mixed")]
    assert lines == [
        "mixed   3 of 11 trials ran from changed files: their commit is not their code",
        "mixed   2 kinds of hardware in one table: Made-up GPU (8 trials), Other GPU (3 trials)",
    ]
