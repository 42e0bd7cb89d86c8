"""The report: its sentences against made-up results of known truth, and what a page may hold."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.load import load_all
from analysis.report import assets, build, overall, pictures, rows, words
from analysis.report.findings import Findings, doubted, findings
from analysis.report.knobs import CLEAR, RATES, ROWS, SUGGESTIVE, UNSEEN, UNTOLD
from analysis.report.limits import limits, optimism
from analysis.statistics.choice import worth
from tests.analysis.synthetic import PROVENANCE, Design, Effects, make, write

GRID = {
    "r": {2: 0.0, 8: 0.05},
    "alpha": {4.0: 0.0, 16.0: 0.0},
    "decompose_both": {False: 0.0, True: 0.0},
    "init_weights": {True: 0.0, "lycoris": -0.02},
}
TUNED = {1e-3: 0.0, 3e-3: 0.02, 1e-2: 0.0}
"""The best rate is no edge of the grid."""
MANY = {"data": {**PROVENANCE["data"], "dev": 400_000}}
"""So many dev rows that an accuracy has no error of theirs to speak of."""
LORA = {"method": "lora"}
HOSTILE = "<script>window.hacked = 1</script><!-- </style>"


def designs(task: str = "glue/rte", effects: Effects = GRID, **more: object) -> list[Design]:
    """LoKr on a grid, LoRA three points above its best, all weights five."""
    shared = {"rates": TUNED, "noise": 0.004, "provenance": MANY, **more}
    fixed = {"epochs": {2: 0.0}}
    return [
        Design(effects=effects, trial={"task": task}, **shared),
        Design(effects=fixed, base=0.58, trial={"task": task, **LORA}, **shared),
        Design(effects=fixed, base=0.60, trial={"task": task, "method": "full"}, **shared),
        Design(effects=fixed, base=0.40, trial={"task": task, "method": "head"}, **shared),
    ]


def found_in(folder: Path, *made: Design, seed: int = 0) -> Findings:
    write(folder, *made, seed=seed)
    (part,) = parts_of(folder)
    return findings(part)


def parts_of(folder: Path) -> list:
    from tests.analysis.synthetic import read

    return read(folder)


def said(found: Findings) -> list[str]:
    """What the part of a study of its own cannot say."""
    folder = found.part.folder
    return limits(found, load_all(folder.parent, [folder.name]))


def told_of(found: Findings) -> dict:
    return {row.knob: row for row in found.knobs}


def quiet() -> Console:
    return Console(file=io.StringIO())


def page_of(root: Path, out: Path) -> str:
    return build(root, out, console=quiet()).read_text(encoding="utf-8")


def data_of(html: str) -> dict:
    text = html.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    return json.loads(text)


def column(values: object) -> list:
    """A column of the page's rows, decoded as its script does."""
    if isinstance(values, list):
        return values
    return [None if at < 0 else values["of"][at] for at in values["at"]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    few = {knob: GRID[knob] for knob in ("r", "init_weights")}
    write(root / "made-up", *designs(effects=few), *designs("glue/mrpc", effects=few))
    return root


@pytest.fixture(scope="module")
def html(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(root, tmp_path_factory.mktemp("out") / "report.html")


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


class TestFindings:
    def test_knob_that_helps_is_to_be_set(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "s", *designs())
        told = {row.knob: row for row in found.knobs}
        assert (told["r"].level, told["r"].value) == (CLEAR, "8")
        assert told["r"].text.startswith("r: 8 rather than 2: +")
        assert (told["init_weights"].level, told["init_weights"].value) == (CLEAR, "True")
        assert told["init_weights"].text.startswith("init_weights: True rather than lycoris: +")

    def test_knob_that_does_nothing_is_not_to_be_set(self, tmp_path: Path) -> None:
        levels = []
        for seed in range(5):
            found = found_in(tmp_path / str(seed), designs()[0], seed=seed)
            (told,) = [row for row in found.knobs if row.knob == "decompose_both"]
            levels.append(told.level)
            if told.level == UNSEEN:
                assert told.value is None
                assert "no difference seen" in told.text
        assert levels.count(CLEAR) == 0
        assert levels.count(UNSEEN) >= 4

    def test_knobs_that_move_together_cannot_be_told(self, tmp_path: Path) -> None:
        grid = {"r": {2: 0.0, 8: 0.05}, "alpha": {4.0: 0.0, 16.0: 0.0}}
        keep = lambda knobs: knobs["alpha"] == 2 * knobs["r"]  # noqa: E731
        found = found_in(tmp_path / "s", Design(effects=grid, keep=keep))
        assert {row.knob: row.level for row in found.knobs} == {"r": UNTOLD, "alpha": UNTOLD}
        assert (
            found.knobs[0].text
            == "r (2 and 8): it never varied alone, so what it does cannot be told."
        )

    def test_rivals_are_ahead_or_behind(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "s", *designs())
        rivals = {row.name: row for row in found.rivals}
        assert rivals["lora"].level == CLEAR
        assert rivals["lora"].difference < 0
        assert "LoKr is behind LoRA (peft): " in rivals["lora"].text
        assert "LoKr is ahead of head on the frozen base: +" in rivals["head"].text

    def test_numbers_of_the_pick_are_those_of_the_files(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "s", *designs())
        part = found.part
        lokr = part.trials[part.trials["trial.method"] == "lokr"]
        means = lokr.groupby(["cell", "trial.learning_rate"])[["selection_score", "score"]].mean()
        best = means.loc[means["selection_score"].idxmax()]
        assert f"at rate {means['selection_score'].idxmax()[1]:g}: " in found.pick
        assert f"accuracy {100 * best['score']:.1f} (95% " in found.pick
        assert "3 seeds) with 8,770 trainable parameters." in found.pick

    def test_every_value_is_compared_with_the_best(self, tmp_path: Path) -> None:
        falling = {**GRID, "alpha": {4.0: 0.0, 16.0: 0.0, 64.0: -0.06}}
        rising = {**GRID, "alpha": {4.0: -0.06, 16.0: 0.0, 64.0: 0.0}}
        shared = {"rates": TUNED, "noise": 0.001, "provenance": MANY}
        one = found_in(tmp_path / "a", Design(effects=falling, **shared))
        other = found_in(tmp_path / "b", Design(effects=rising, **shared))
        first, second = told_of(one)["alpha"], told_of(other)["alpha"]
        assert (first.level, {*first.good}, first.worse) == (CLEAR, {"4", "16"}, ("64",))
        assert (second.level, {*second.good}, second.worse) == (CLEAR, {"16", "64"}, ("4",))
        assert re.match(r"alpha: 64 is worse than (4|16): \+[56]\.\d\d points \(95% ", first.text)
        assert re.search(r"(4|16) is not told from (4|16): ", first.text)
        assert "alpha = 16 or 64 rather than 4" in overall.short([other])[0].replace(
            "64 or 16", "16 or 64"
        )

    def test_what_rests_on_an_edge_of_the_rates_is_not_clear(self, tmp_path: Path) -> None:
        grid = {knob: values for knob, values in GRID.items() if knob != "alpha"}
        low = {1e-3: 0.0, 3e-3: -0.02, 1e-2: -0.04}
        shared = {"noise": 0.001, "provenance": MANY, "effects": grid}
        small = Design(trial={"alpha": 4.0}, rates=TUNED, **shared)
        great = Design(trial={"alpha": 16.0}, rates=low, **shared)
        found = found_in(tmp_path / "s", small, great)
        told = told_of(found)
        assert (told["alpha"].level, told["alpha"].lacks) == (SUGGESTIVE, (RATES,))
        assert told["alpha"].text.endswith(" In every pair a cell is at an edge of its rates.")
        assert told["r"].level == CLEAR  # half of its pairs are tuned
        text = " ".join(overall.short([found]))
        assert "alpha = 4 looks better, but only if cells at an edge of the rate grid count" in text
        assert "alpha" not in overall.short([found])[0]

    def test_few_dev_rows_make_no_accuracy_clear(self, tmp_path: Path) -> None:
        few = found_in(tmp_path / "few", *designs(provenance={}))
        gain = found_in(tmp_path / "gain", *designs(provenance={}, primary="gain"))
        levels = [{row.name: row.level for row in one.rivals} for one in (few, gain)]
        assert levels[0] == {"lora": SUGGESTIVE, "full": SUGGESTIVE, "head": CLEAR}
        assert levels[1] == {"lora": CLEAR, "full": CLEAR, "head": CLEAR}
        texts = [row.text for row in few.rivals]
        assert texts[0].startswith("LoKr is perhaps behind LoRA (peft): ")
        assert "Half of 400 dev rows shows differences from 9." in texts[0]
        assert told_of(few)["r"].level == SUGGESTIVE
        assert told_of(few)["r"].lacks == (ROWS,)
        assert (
            "behind in 0, ahead in 0 and not clearly apart in 1 of 1" in overall.verdicts([few])[0]
        )

    def test_factor_of_minus_one_is_no_number(self, tmp_path: Path) -> None:
        effects = {**GRID, "decompose_factor": {-1: 0.0, 4: 0.05}}
        del effects["alpha"]
        found = found_in(tmp_path / "s", Design(effects=effects, rates=TUNED, provenance=MANY))
        told = told_of(found)
        assert (told["decompose_factor"].level, told["decompose_factor"].value) == (CLEAR, "4")
        assert (told["decompose_factor"].edge, told["r"].edge) == (False, True)

    def test_pick_is_told_with_what_the_choice_is_worth(self, tmp_path: Path) -> None:
        equal = {"r": {2**n: 0.0 for n in range(1, 9)}, "alpha": {4.0: 0.0, 16.0: 0.0}}
        found = found_in(tmp_path / "s", Design(effects=equal, noise=0.02, half_noise=0.001))
        chosen = found.table.set_index("cell").loc[found.chosen, "mean"]
        anew = worth(found.part, "lokr").mean
        assert chosen > anew + 0.01
        assert "nor the choice of this cell." in found.pick
        assert (
            f"Chosen without the seed that is scored, it comes to {100 * anew:.1f}." in found.pick
        )

    def test_ceiling_ranks_no_knob(self, tmp_path: Path) -> None:
        top = {"r": {2: -0.2, 8: 0.0}, "init_weights": {True: 0.0, "lycoris": 0.0}}
        found = found_in(tmp_path / "s", Design(effects=top, base=0.998, noise=0.001))
        assert found.matters.startswith("Which knob matters most is not ranked: ")
        assert not any("largest difference" in text for text in overall.short([found]))
        assert any("too easy" in text for text in said(found))

    def test_shares_add_up_and_doubts_stand_beside(self, tmp_path: Path) -> None:
        effects = {**GRID, "alpha": {4.0: 0.0, 16.0: 0.005}}
        found = found_in(tmp_path / "s", Design(effects=effects, seeds=4))
        percents = re.findall(r" (\u2212?\d+)%[ ,]", found.matters.replace("(95%", ""))
        assert sum(int(text.replace("\u2212", "-")) for text in percents) == 100
        assert " noise " in found.matters
        doubtful = found._replace(importance=replace(found.importance, doubts=("it is odd",)))
        assert doubted(doubtful.importance) == " These shares may mislead: it is odd."
        largest = (
            r"What makes the largest difference, .*: r \(8\d% of the variance, 95% \d\d to \d\d, "
        )
        assert re.match(largest, overall.short([found])[-1])
        assert "largest difference" not in " ".join(overall.short([doubtful]))

    def test_no_lokr_says_so(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "s", *designs()[1:])
        assert found.chosen is None
        assert found.pick == "No LoKr cell has a score."
        assert not found.knobs

    def test_one_seed_is_no_certainty(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "s", Design(effects={"r": {2: 0.0, 8: 0.05}}, seeds=1))
        assert [row.level for row in found.knobs] == [UNSEEN]
        assert "no interval" in found.pick
        assert said(found)[0].startswith("No cell has two seeds")


class TestLimits:
    def test_failures_are_counted(self, tmp_path: Path) -> None:
        failed = lambda knobs, rate, seed: rate == 1e-2 and seed == 0  # noqa: E731
        found = found_in(tmp_path / "s", *designs(failed=failed))
        assert "Of 171 trials, 19 ended diverged: no score comes from those." in said(found)

    def test_edges_of_rates_and_knobs(self, tmp_path: Path) -> None:
        design = Design(effects={"r": {2: 0.0, 8: 0.3}}, rates={1e-3: 0.0, 3e-3: 0.1, 1e-2: 0.2})
        text = " ".join(said(found_in(tmp_path / "s", design)))
        assert "2 of 2 cells with three rates or more did best at the highest rate" in text
        assert "(LoKr 2): a higher one may be better still." in text
        assert "The best value is at the edge of what was tried (r = 8): beyond may be" in text

    def test_missing_runs_are_counted(self, tmp_path: Path) -> None:
        part = make(tmp_path / "s", effects=GRID, rates=TUNED)[0]
        for path in sorted(part.folder.glob("*.json"))[:5]:
            path.unlink()
        (part,) = parts_of(part.folder)
        assert any(text.startswith("5 runs are missing") for text in said(findings(part)))

    def test_what_the_study_has_elsewhere_is_missing_too(self, tmp_path: Path) -> None:
        grid = {"r": {2: 0.0, 8: 0.0}}
        lora = {"effects": {}, "rates": TUNED, "seeds": 2}
        lokr = {"effects": grid, "seeds": 2}
        write(
            tmp_path / "s",
            *(Design(trial={"task": task}, **lokr) for task in ("glue/rte", "glue/cola")),
            Design(trial={"task": "glue/rte", **LORA}, **lora),
            Design(trial={"task": "glue/rte", "method": "full"}, effects={}, seeds=1),
        )
        results = load_all(tmp_path)
        cola, rte = parts_of(tmp_path / "s")
        missing = [
            [text for text in limits(findings(part), results) if " missing " in text]
            for part in (rte, cola)
        ]
        assert missing[0] == [
            "1 run is missing of the seeds of this part and the methods and rates of its study "
            "(full fine-tuning 1): not finished, or left out."
        ]
        assert "8 runs are missing" in missing[1][0]
        assert "(full fine-tuning 2, LoRA (peft) 6)" in missing[1][0]

    def test_papers_protocol_is_compared_on_the_same_rows(self, tmp_path: Path) -> None:
        grid = {"r": dict.fromkeys((1, 2, 4, 8), 0.0), "alpha": {4.0: 0.0, 16.0: 0.0}}
        flat = dict.fromkeys(TUNED, 0.0)
        one, several = (
            found_in(tmp_path / name, Design(effects=grid, half_noise=0.05, rates=rates))
            for name, rates in (("one", {1e-3: 0.0}), ("several", flat))
        )
        text = "adds 0.00 points to a cell on average, on the same rows, and 0.00 at most."
        assert any(sentence.endswith(text) for sentence in said(one))
        gaps = optimism(several.part, load_all(tmp_path, ["several"]).epochs)
        for cell, trials in several.part.trials.groupby("cell"):
            means = trials.groupby("trial.learning_rate")[
                ["full_dev_best", "selection_score"]
            ].mean()
            honest = means["full_dev_best"][means["selection_score"].idxmax()]
            assert gaps[cell] == pytest.approx(means["full_dev_best"].max() - honest)
        assert gaps.max() > 0.001

    def test_mixed_provenance_is_said(self, tmp_path: Path) -> None:
        other = designs(provenance={**MANY, "commit": "f" * 40, "dirty": True})[1:]
        text = " ".join(said(found_in(tmp_path / "s", designs()[0], *other)))
        assert "2 commits" in text
        assert "changed files" in text

    def test_easy_tasks_cannot_tell(self, tmp_path: Path) -> None:
        found = found_in(tmp_path / "s", Design(effects={"r": {2: 0.0, 8: 0.0}}, base=0.999))
        assert any("too easy" in text for text in said(found))


class TestOverall:
    def test_values_that_are_clearly_best_elsewhere_depend_on_the_task(
        self, tmp_path: Path
    ) -> None:
        turned = {**GRID, "init_weights": {True: -0.02, "lycoris": 0.0}}
        shared = {"noise": 0.002, "rates": TUNED, "provenance": MANY}
        one = found_in(tmp_path / "a", Design(effects=GRID, **shared))
        other = found_in(tmp_path / "b", Design(effects=turned, **shared))
        short = overall.short([one, other])
        assert short[0] == (
            "Set r = 8 rather than 2: clearly better in both parts, of 2, that varied it alone, "
            "and clearly worse in none."
        )
        assert short[1] == "Beyond may be better still: r is at the edge of what was tried."
        assert "No one value is best in all parts: init_weights." in short
        assert re.fullmatch(
            r"What makes the largest difference, where that can be ranked: "
            r"r \((8\d to )?8\d% of the variance in 2 parts\)\.",
            short[-1],
        )
        knobs = dict(overall.knobs([one, other]))
        assert knobs["r"] == "8 is clearly better in 2 parts."

    def test_one_part_is_said_to_be_one(self, tmp_path: Path) -> None:
        lone = Design(effects={}, trial={"task": "glue/cola"}, provenance=MANY)
        every = [found_in(tmp_path / "a", *designs()), found_in(tmp_path / "b", lone)]
        assert overall.short(every)[0] == (
            "Set r = 8 rather than 2 and init_weights = True rather than lycoris: clearly better "
            "in the one part of 2 that varied each alone."
        )

    def test_a_suggestion_does_not_undo_what_is_clear(self, tmp_path: Path) -> None:
        turned = {"r": {2: 0.0, 8: 0.0}, "init_weights": {True: -0.02, "lycoris": 0.0}}
        shared = {"noise": 0.002, "rates": TUNED, "provenance": MANY}
        clear = found_in(tmp_path / "a", Design(effects=GRID, **shared))
        few = found_in(tmp_path / "b", Design(effects=turned, seeds=6, **shared))
        assert told_of(few)["init_weights"].level == SUGGESTIVE
        short = overall.short([clear, few])
        assert "init_weights = True rather than lycoris" in short[0]
        assert short[2] == (
            "Not settled: init_weights, where other parts say otherwise (lycoris in 1 part, "
            "not clearly)."
        )
        assert not any("No one value" in text for text in short)

    def test_suggestions_that_disagree_are_not_settled(self, tmp_path: Path) -> None:
        shared = {"noise": 0.001, "rates": TUNED, "provenance": MANY, "seeds": 6}
        every = []
        for name, best in (("a", True), ("b", "lycoris")):
            inits = {init: 0.02 * (init == best) for init in (True, "lycoris")}
            grid = {"r": {2: 0.0, 8: 0.0}, "init_weights": inits}
            every.append(found_in(tmp_path / name, Design(effects=grid, **shared)))
        assert overall.short(every)[1] == (
            "Not settled: init_weights, where parts disagree (True in 1 part and lycoris in 1 "
            "part, not clearly)."
        )

    def test_verdict_counts_parts_and_mixes_no_metrics(self, tmp_path: Path) -> None:
        one = found_in(tmp_path / "s", *designs())
        other = found_in(tmp_path / "t", *designs(primary="gain"))
        (lora,) = [text for text in overall.verdicts([one, other]) if "LoRA" in text]
        assert lora.startswith(
            "LoKr against LoRA (peft), each part on its own, uncorrected: behind in 2, ahead in 0 "
            "and not clearly apart in 0 of 2 parts. Median difference: "
        )
        numbers = [one.rivals[0].difference, other.rivals[0].difference]
        first, second = (words.change(number) for number in numbers)
        assert f"{first} points of accuracy (1 part) and {second} points of gain (1 part)" in lora

    def test_no_packing_without_timings(self, tmp_path: Path) -> None:
        assert overall.packing(tmp_path) == []


class TestWords:
    def test_missing_is_said(self) -> None:
        assert words.points(float("nan")) == "unknown"
        assert words.change(float("nan")) == "unknown"

    def test_zero_has_no_sign(self) -> None:
        assert words.change(-0.00001) == "0.00"
        assert words.change(0.0265) == "+2.65"
        assert words.change(-0.0265) == "\u22122.65"

    def test_lists_and_counts(self) -> None:
        assert words.listed(["a"]) == "a"
        assert words.listed(["a", "b", "c"]) == "a, b and c"
        assert words.counted(1, "cell") == "1 cell"
        assert words.counted(10_000, "cell") == "10,000 cells"


class TestPage:
    def test_every_trial_with_its_numbers(self, html: str, root: Path) -> None:
        trials = data_of(html)["rows"]["trials"]
        every = load_all(root).trials.set_index("id")
        ids = column(trials["id"])
        assert sorted(ids) == sorted(every.index)
        score = dict(zip(ids, column(trials["score"]), strict=True))
        for name, value in every["score"].items():
            assert score[name] == pytest.approx(100 * value, rel=1e-5)
        assert set(column(trials["commit"])) == {"0" * 40}

    def test_asks_nothing_of_a_network(self, html: str) -> None:
        for tag, attributes in Tags(html).found:
            for name in ("src", "href", "action", "data", "poster", "srcset"):
                value = attributes.get(name)
                assert value is None or value.startswith(("#", "data:")), (tag, value)
        style = html.split("<style>")[1].split("</style>")[0]
        assert "@import" not in style
        assert "url(" not in style

    def test_policy_allows_these_scripts_alone(self, html: str) -> None:
        (policy,) = [
            attributes["content"]
            for tag, attributes in Tags(html).found
            if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe-eval" not in policy
        scripts = re.findall(r'<script type="module">(.*?)</script>', html, re.S)
        digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
        allowed = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
        assert policy.split("script-src ")[1].split(";")[0].split() == allowed

    def test_same_bytes_in_other_processes(self, root: Path, html: str, tmp_path: Path) -> None:
        started = {}
        for seed in ("1", "2"):
            out = tmp_path / f"{seed}.html"
            command = [sys.executable, "-m", "analysis", "report", "--results", root, "--out", out]
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            started[out] = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        assert [process.wait() for process in started.values()] == [0, 0]
        for out in started:
            assert out.read_text(encoding="utf-8") == html

    def test_names_no_place_of_this_machine(self, html: str, root: Path) -> None:
        assert str(root) not in html
        assert os.sep + "site-packages" not in html

    def test_what_results_say_is_escaped(self, tmp_path: Path) -> None:
        made = Design(effects={"r": {2: 0.0, 8: 0.1}}, trial={"task": f"glue/{HOSTILE}"})
        write(tmp_path / "made-up", made)
        (tmp_path / "made-up" / "bad.json").write_text('{"schema": "<script>"}')
        html = page_of(tmp_path, tmp_path / "report.html")
        assert "<script>window.hacked" not in html
        assert "&lt;script&gt;window.hacked" in html
        assert HOSTILE in data_of(html)["parts"][0]["title"]

    def test_unread_files_are_named(self, tmp_path: Path) -> None:
        write(tmp_path / "made-up", designs()[0])
        (tmp_path / "made-up" / "half.json").write_text('{"schema": 1, "id"')
        html = page_of(tmp_path, tmp_path / "report.html")
        assert f"<code>{Path('made-up') / 'half.json'}</code>: " in html
        assert str(tmp_path) not in html

    def test_failed_trials_stay_in_the_table(self, tmp_path: Path) -> None:
        failed = lambda knobs, rate, seed: True  # noqa: E731
        write(tmp_path / "made-up", Design(effects={"r": {2: 0.0, 8: 0.0}}, failed=failed))
        trials = data_of(page_of(tmp_path, tmp_path / "r.html"))["rows"]["trials"]
        assert set(column(trials["status"])) == {"diverged"}
        assert set(column(trials["score"])) == {None}

    def test_only_named_studies(self, root: Path, tmp_path: Path) -> None:
        write(tmp_path / "one", designs()[0])
        write(tmp_path / "two", designs("glue/cola")[0])
        html = build(tmp_path, tmp_path / "r.html", ["two"], quiet()).read_text(encoding="utf-8")
        assert {part["study"] for part in data_of(html)["parts"]} == {"two"}


class TestCommand:
    def test_empty_folder_is_one_line(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["report", "--results", str(tmp_path)])
        assert result.exit_code == 1
        assert result.output.strip() == f"{tmp_path} holds no results; run a study first"

    def test_unknown_study_is_one_line(self, root: Path) -> None:
        result = CliRunner().invoke(app, ["report", "--results", str(root), "--study", "nope"])
        assert result.exit_code == 1
        assert (
            result.output.strip()
            == f"{root / 'nope'} holds no results; run the study first (there are made-up)"
        )

    def test_folder_as_file_is_one_line(self, root: Path, tmp_path: Path) -> None:
        command = ["report", "--results", str(root), "--out", str(tmp_path)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        assert result.output == f"{tmp_path} is a folder: give the name of a file to write\n"

    def test_says_where_the_page_is(self, root: Path, tmp_path: Path) -> None:
        out = tmp_path / "deep" / "page.html"
        result = CliRunner().invoke(app, ["report", "--results", str(root), "--out", str(out)])
        assert result.exit_code == 0, result.output
        assert str(out) in result.output.replace("\n", "")
        assert out.exists()


class TestAssets:
    def test_script_cannot_end_its_element(self) -> None:
        spelled = assets.inline("a = '</script>'; b = /<!--x/; c = '<SCRIPT'; d = 1 < 2")
        assert spelled == r"a = '\x3c/script>'; b = /\x3c!--x/; c = '\x3cSCRIPT'; d = 1 < 2"

    def test_data_reads_back(self) -> None:
        values = {"a": [HOSTILE, "&amp;", "\u2028", None, 1.5]}
        text = assets.data(values)
        assert "<" not in text
        assert json.loads(text) == values

    def test_missing_must_be_null(self) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            assets.data([float("nan")])


class TestRows:
    def test_columns_read_back(self) -> None:
        frame = pd.DataFrame(
            {
                "n": [1, 2, 3],
                "x": [0.123456789, float("nan"), 2.0],
                "t": ["a", None, "a"],
                "b": [True, False, True],
            }
        )
        columns = {name: column(values) for name, values in rows.columns(frame).items()}
        assert columns == {
            "n": [1, 2, 3],
            "x": [0.123457, None, 2],
            "t": ["a", None, "a"],
            "b": ["yes", "no", "yes"],
        }

    def test_costs_go_to_their_cells(self, tmp_path: Path) -> None:
        part = make(tmp_path / "s", effects={"r": {2: 0.0, 8: 0.0}})[0]
        cells = rows.cell_rows(part, 0, findings(part).table)
        eight = part.trials[part.trials["trial.r"] == 8]["id"].iloc[0]
        measured = {"hardware": "H", "step_p50_ms": 12.5, "peak_bytes": 2.0**31}
        costs = pd.DataFrame(
            [
                {"study": "s", "id": eight, "joules_per_1000": 3.0, **measured},
                {"study": "other", "id": eight, "joules_per_1000": 4.0, **measured},
            ]
        )
        (row,) = rows.cost_rows(part, cells, costs).to_dict("records")
        assert cells.at[row["cell"], "r"] == "8"
        assert (row["step_ms"], row["peak_gib"], row["joules"]) == (12.5, 2.0, 3.0)

    def test_values_in_order(self) -> None:
        texts = ["16", "-1", "lycoris", "4", "True", "", None, "False"]
        assert rows.in_order(texts) == ["-1", "4", "16", "False", "True", "lycoris"]


class TestPictures:
    def drew(self, folder: Path) -> list:
        from PIL import Image

        write(folder, *designs("emoji/dots")[:2], seed=1)
        place = folder / "pictures"
        place.mkdir()
        (part,) = parts_of(folder)
        names = [*(f"{trial}.samples" for trial in part.trials["id"]), "dots-truth", "dots-base"]
        for shade, name in enumerate(names):
            Image.new("RGB", (16, 8), (shade % 256, 0, 0)).save(place / f"{name}.webp")
        return parts_of(folder)

    def test_middle_seed_beside_truth_and_base(self, tmp_path: Path) -> None:
        own = self.drew(tmp_path / "s")
        cells = rows.cell_rows(own[0], 0, findings(own[0]).table)
        album = pictures.album(own, cells)
        assert [row["label"] for row in album.references[0]] == ["the truth", "untouched base"]
        assert len(album.sheets) == len(cells)
        assert album.left_out == 0
        assert [cells.at[row["cell"], "method"] for row in album.best[0]] == ["lora", "lokr"]
        selected = own[0].selected
        for sheet in album.sheets:
            scores = selected[selected["cell"] == cells.at[sheet["cell"], "cell"]]["score"]
            own_score = selected.set_index("id").at[sheet["id"], "score"]
            assert own_score == scores.median()
        assert all(uri.startswith("data:image/webp;base64,") for uri in album.images.values())

    def test_what_does_not_fit_is_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = self.drew(tmp_path / "s")
        cells = rows.cell_rows(own[0], 0, findings(own[0]).table)
        monkeypatch.setattr(pictures, "BUDGET", 1)
        album = pictures.album(own, cells)
        assert len(album.sheets) == 2
        assert album.left_out == len(cells) - 2
        html = page_of(tmp_path, tmp_path / "r.html")
        assert f"{len(cells) - 2} further cells drew pictures that are left out" in html
