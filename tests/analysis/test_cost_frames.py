"""Measurements of cost to frames; the file comes from the code that measures."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import cost
from experiments import provenance
from experiments.cost import measure
from experiments.cost.records import Records
from experiments.trial import Trial
from tests.analysis.synthetic import Design, read, write

GPU_ONLY = {
    "captured": {
        "p50_ms": 2.0,
        "p95_ms": 2.5,
        "samples": 4,
        "examples_per_second": 4000.0,
        "tokens_per_second": 40_000.0,
        "to_frozen": {"median": 1.5, "q25": 1.4, "q75": 1.6, "rounds": 2},
    },
    "frozen": {"p50_ms": 1.25},
    "peaks": {"allocated_bytes": 3 * 2**20, "reserved_bytes": 4 * 2**20},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with one measurement, made on this processor."""
    root = tmp_path_factory.mktemp("results")
    trial = Trial(
        task="sentences/acceptability",
        base="minilm",
        method="lokr",
        target_modules=("query",),
        learning_rate=0.01,
        train_size=16,
        batch_size=4,
        max_length=16,
    )
    settings = measure.Settings(rounds=2, steps=1, answers=2, energy_seconds=1.0)
    here = provenance.collect("cpu")
    records = Records(root, "small", here)
    found = measure.measure(trial, "cpu", None, settings)
    head = {"schema": 1, "id": trial.id, "study": "small", "cell": "lokr"}
    head |= {"trial": trial.to_dict(), "hardware": records.hardware}
    records.write({**head, **found, "provenance": {**here, **found["provenance"]}})
    return root


@pytest.fixture(scope="module")
def record(measured: Path) -> dict:
    (path,) = measured.glob("cost/*/*/*.json")
    return json.loads(path.read_bytes())


def on_a_gpu(record: dict) -> dict:
    """The same with what a GPU adds."""
    copied = copy.deepcopy(record)
    copied["hardware"] = "A GPU"
    copied["step"]["captured"] = GPU_ONLY["captured"]
    copied["frozen"]["step"]["captured"] = GPU_ONLY["frozen"]
    copied["memory"]["eager"] = GPU_ONLY["peaks"]
    copied["energy"] |= {"joules_per_1000_examples": 12.5, "watts": 300.0, "reason": None}
    return copied


def put(root: Path, record: dict, name: str | None = None) -> Path:
    file = root / "cost" / record["study"] / "gpu" / f"{name or record['id']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    return file


def test_what_a_processor_measures_is_there_and_the_rest_is_missing(measured, record):
    frame = cost.load(measured)
    (row,) = frame.to_dict("records")
    assert frame.attrs["unread"] == {}
    assert row["mode"] == "eager"
    assert row["id"] == record["id"]
    assert row["trial.target_modules"] == ("query",)
    assert row["step_p50_ms"] == record["step"]["eager"]["p50_ms"]
    assert row["to_frozen_low"] <= row["to_frozen"] <= row["to_frozen_high"]
    assert row["answer_merged_ms"] > 0
    assert row["adapter_bytes"] == record["files"]["adapter_bytes"]
    missing = {name for name in cost.MEASURED if math.isnan(row[name])}
    assert missing == {
        "peak_bytes",
        "captured_peak_bytes",
        "frozen_peak_bytes",
        "joules_per_1000",
        "watts",
    }
    assert row["energy_reason"] == "a CPU's energy is not read"


def test_on_a_gpu_the_captured_step_counts_and_memory_is_that_of_eager_steps(tmp_path, record):
    put(tmp_path, on_a_gpu(record))
    (row,) = cost.load(tmp_path).to_dict("records")
    assert row["mode"] == "captured"
    assert (row["step_p50_ms"], row["step_p95_ms"], row["frozen_p50_ms"]) == (2.0, 2.5, 1.25)
    assert (row["to_frozen_low"], row["to_frozen"], row["to_frozen_high"]) == (1.4, 1.5, 1.6)
    assert row["peak_bytes"] == 3 * 2**20
    assert math.isnan(row["captured_peak_bytes"])
    assert (row["joules_per_1000"], row["watts"]) == (12.5, 300.0)
    assert row["forward_ms"] == record["step"]["eager"]["parts"]["forward"]["p50_ms"]


def test_files_that_are_no_measurement_are_named(tmp_path, record):
    put(tmp_path, record)
    put(tmp_path, record, "misnamed")
    put(tmp_path, {"study": "small", "schema": 3}, "newer")
    put(tmp_path, record | {"id": "short", "step": None}, "short")
    frame = cost.load(tmp_path)
    assert len(frame) == 1
    reasons = {Path(path).stem: why for path, why in frame.attrs["unread"].items()}
    assert reasons["misnamed"].endswith("is not its name")
    assert reasons["newer"] == "schema 3, expected 1"
    assert reasons["short"].startswith("not as the schema says")


def test_no_measurement_is_an_empty_frame(tmp_path):
    assert cost.load(tmp_path).empty
    assert cost.sweeps(tmp_path).empty
    assert cost.steps(tmp_path).empty
    assert cost.layers(tmp_path).empty


def test_a_parts_measurements_have_the_parts_names_of_cells(tmp_path, record):
    folder = write(tmp_path / "study", Design(effects={"r": {2: 0.0, 8: 0.1}}))
    (part,) = read(folder)
    first = part.trials[part.trials["cell"] == "lokr r=8"]["id"].iloc[0]
    put(tmp_path, record | {"id": first, "study": "study", "cell": "as the plan calls it"})
    put(tmp_path, record | {"id": first, "study": "another"})
    put(tmp_path, record | {"id": "0" * 16, "study": "study"})
    found = cost.of_part(tmp_path, part)
    assert found["cell"].tolist() == ["lokr r=8"]


def sweep(part: str, **values: object) -> dict:
    base = {"run": 0, "part": part, "base": "minilm", "study": "s", "study_trials": 4}
    return base | {"task": "glue/rte"} | values


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A sweep of 4 trials that took 8 s, PEFT's 20 and 22 s a trial; one step, one layer."""
    runs = [{"commit": "c" * 40, "gpu": "A GPU", "versions": {"torch": "2.11.0"}}]
    shared = {"schema": 1, "small": False, "hardware": "A GPU", "runs": runs}
    four = [{"id": str(i)} for i in range(4)]
    pieces = {
        "minilm packed": sweep("packed", wall_seconds=8.0, trials=four),
        "minilm trainer": sweep("trainer", trials=[{"seconds": 20.0}, {"seconds": 22.0}]),
        "other trainer": sweep("trainer", base="other", trials=[{"seconds": 5.0}]),
        "minilm floor": sweep("floor", ms=1.0),
    }
    size = {"run": 0, "allocated_bytes": 10, "reserved_bytes": 20}
    contenders = {"ours": {"samples": [1.0, 3.0, 2.0]}, "peer": {"samples": None, "reason": "no"}}
    step = {"ours": {"lanes": 2, "samples": [4.0, 6.0, 8.0], **size}}
    step["failed"] = {"lanes": 1, "samples": None, **size}
    files = {
        "sweep": pieces,
        "step": step,
        "layer": {"64x64": {"run": 0, "contenders": contenders}},
    }
    (tmp_path / "bench").mkdir()
    for name, found in files.items():
        text = json.dumps({**shared, "comparison": name, "pieces": found})
        (tmp_path / "bench" / f"{name}.json").write_text(text)
    return tmp_path


def test_a_sweep_is_seconds_a_trial_by_way(bench):
    frame = cost.sweeps(bench).set_index(["base", "way"])
    assert frame.loc[("minilm", "packed"), "seconds"] == 2.0
    assert frame.loc[("minilm", "trainer"), "seconds"] == 21.0
    assert frame.loc[("minilm", "trainer"), "slower"] == 10.5
    assert frame.loc[("minilm", "trainer"), "timed"] == 2
    assert math.isnan(frame.loc[("other", "trainer"), "slower"])
    assert len(frame) == 3
    assert set(frame["provenance.torch"]) == {"2.11.0"}


def test_steps_and_layers_are_medians(bench):
    steps = cost.steps(bench).set_index("contender")
    assert steps.loc["ours", "p50_ms"] == 6.0
    assert steps.loc["ours", "trial_ms"] == 3.0
    assert math.isnan(steps.loc["failed", "p50_ms"])
    layers = cost.layers(bench)
    assert layers[["layer", "contender", "p50_ms"]].values.tolist() == [["64x64", "ours", 2.0]]


def test_a_damaged_comparison_is_named(bench):
    (bench / "bench" / "sweep.json").write_text('{"schema": 1, "pieces": {}}')
    (bench / "bench" / "step.json").write_text('{"schema": 1}')
    assert cost.sweeps(bench).empty
    (reason,) = cost.steps(bench).attrs["unread"].values()
    assert reason == "not as the schema says (KeyError('pieces'))"


def test_the_results_of_this_repository_are_read():
    root = Path(__file__).parents[2] / "results"
    frame = cost.sweeps(root)
    assert frame.attrs["unread"] == {}
    packed = frame[frame["way"] == cost.PACKED]
    assert (packed["slower"] == 1).all()
    assert (frame.loc[frame["way"] != cost.PACKED, "slower"] > 1).all()
    assert isinstance(cost.load(root), pd.DataFrame)


def test_a_part_that_nobody_measured_has_no_row(tmp_path):
    (part,) = read(write(tmp_path / "study", Design(effects={"r": {2: 0.0}})))
    assert cost.of_part(tmp_path, part).empty
