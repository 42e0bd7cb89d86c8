"""The report in a real browser, headless: nothing is asked of a network, a filter moves everything,
a keyboard is enough, and it reads in the dark, on paper and on a phone.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from analysis.report import build
from tests.analysis.synthetic import Design, read, write

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium; $CHROMIUM names one")

GRID = {
    "r": {2: 0.0, 8: 0.05},
    "alpha": {4.0: 0.0, 16.0: 0.0},
    "decompose_factor": {-1: 0.0, 4: 0.01},
}
RATES = {1e-3: 0.0, 3e-3: 0.02}
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
CHARTS = ("quality", "effects", "shares", "against", "rate-alpha", "factor-rank", "curves")


def designs(task: str) -> list[Design]:
    shared = {"rates": RATES, "noise": 0.004}
    fixed = {"epochs": {2: 0.0}}
    return [
        Design(effects=GRID, trial={"task": task}, **shared),
        Design(effects=fixed, base=0.58, trial={"task": task, "method": "lora"}, **shared),
        Design(effects=fixed, base=0.60, trial={"task": task, "method": "full"}, **shared),
        Design(effects=fixed, base=0.40, trial={"task": task, "method": "head"}, **shared),
    ]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    folder = write(root / "made-up", *designs("glue/rte"), *designs(f"glue/{HOSTILE}"))
    pictures = folder / "pictures"
    pictures.mkdir()
    for part in read(folder):
        for trial in part.trials["id"]:
            Image.new("RGB", (16, 8), "red").save(pictures / f"{trial}.samples.webp")
    return build(root, root / "report.html", console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class Opened:
    """A page, and what it said and asked for."""

    def __init__(self, browser, file: Path, **options: object) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")

    def count(self) -> str:
        return self.page.inner_text("#count")

    def rows(self, chart: str) -> list[dict]:
        """What a chart draws; none where it draws nothing."""
        script = "name => window.report.views[name]?.view.data('rows') ?? []"
        return self.page.evaluate(script, chart)

    def settle(self, action) -> None:
        """Do something, and wait until the charts are drawn anew."""
        before = self.page.evaluate("() => Number(document.body.dataset.drawn)")
        action()
        script = "before => Number(document.body.dataset.drawn) > before"
        self.page.wait_for_function(script, arg=before)


@pytest.fixture
def opened(browser, page_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, page_file, viewport={"width": 1300, "height": 900})
    yield opened
    opened.context.close()


def test_says_nothing_and_asks_for_nothing(opened: Opened, page_file: Path) -> None:
    assert opened.said == []
    outside = [url for url in opened.asked if not url.startswith("data:")]
    assert outside == [page_file.as_uri()]


def test_policy_stops_requests_and_foreign_scripts(opened: Opened) -> None:
    assert (
        opened.page.evaluate("() => fetch('https://example.com').then(() => 'sent', () => 'no')")
        == "no"
    )
    run = """() => {
        const script = document.createElement('script');
        script.textContent = 'window.hacked = 1';
        document.body.append(script);
        return window.hacked ?? null;
    }"""
    assert opened.page.evaluate(run) is None
    assert any("Content Security Policy" in text for text in opened.said)


def test_what_results_say_does_not_run(opened: Opened) -> None:
    opened.settle(lambda: opened.page.select_option("#part", "all"))
    assert opened.page.evaluate("() => window.hacked ?? null") is None
    assert HOSTILE in opened.page.inner_text("#trials")
    assert opened.page.locator("main img[src=x]").count() == 0


def test_every_chart_is_drawn(opened: Opened) -> None:
    for chart in CHARTS:
        assert opened.page.locator(f"#{chart} svg").count() == 1, chart
        assert opened.rows(chart), chart
    assert len(opened.rows("quality")) == 11
    assert "Nothing to draw" in opened.page.inner_text("#cost .words")


def test_method_moves_charts_and_table(opened: Opened) -> None:
    opened.settle(lambda: opened.page.check("#choices input[value=lokr]"))
    assert {row["method"] for row in opened.rows("quality")} == {"lokr"}
    assert len(opened.rows("quality")) == 8
    assert {row["group"] for row in opened.rows("curves")} == {"LoKr"}
    assert opened.count() == "48 of 132 trials, 8 of 22 cells"
    methods = opened.page.locator("#trials tbody td:nth-child(3)").all_inner_texts()
    assert set(methods) == {"LoKr"}


def test_knob_moves_charts_and_leaves_other_methods(opened: Opened) -> None:
    before = {(row["rate"], row["alpha"]): row["score"] for row in opened.rows("rate-alpha")}
    eight = opened.page.locator("fieldset", has_text="r").get_by_label("8", exact=True)
    opened.settle(lambda: eight.check())
    left = opened.rows("quality")
    assert {row["r"] for row in left if row["method"] == "lokr"} == {"8"}
    assert {row["method"] for row in left} == {"lokr", "lora", "full", "head"}
    after = {(row["rate"], row["alpha"]): row["score"] for row in opened.rows("rate-alpha")}
    assert all(after[key] > before[key] for key in before)
    assert {row["knob"] for row in opened.rows("effects")} == {"r"}
    assert opened.count() == "42 of 132 trials, 7 of 22 cells"
    opened.settle(lambda: opened.page.click("#reset"))
    assert opened.count() == "66 of 132 trials, 11 of 22 cells"
    assert opened.page.locator("#choices input:checked").count() == 0


def test_part_moves_charts_table_and_pictures(opened: Opened) -> None:
    ids = {row["label"] for row in opened.rows("quality")}
    first = opened.page.locator("#picker option").first.get_attribute("value")
    other = "1" if opened.page.input_value("#part") == "0" else "0"
    opened.settle(lambda: opened.page.select_option("#part", other))
    assert {row["part"] for row in opened.rows("quality")} == {int(other)}
    assert {row["label"] for row in opened.rows("quality")} == ids
    assert opened.page.locator("#picker option").first.get_attribute("value") != first
    assert opened.page.locator(".album:visible").count() == 1


def test_all_parts_are_normalized(opened: Opened) -> None:
    opened.settle(lambda: opened.page.select_option("#part", "all"))
    assert opened.count() == "132 of 132 trials, 22 of 22 cells"
    best = [row["score"] for row in opened.rows("quality") if row["method"] == "full"]
    assert best == pytest.approx([100, 100], abs=0.01)
    assert "choose one of them" in opened.page.inner_text("#curves .words")
    floor = [row["score"] for row in opened.rows("quality") if row["method"] == "head"]
    assert floor == pytest.approx([0, 0], abs=0.01)


def test_color_stays_when_a_filter_takes_others_away(opened: Opened) -> None:
    fill = """() => [...document.querySelectorAll('#quality .mark-symbol.role-mark path')]
        .map(path => path.getAttribute('fill'))"""
    before = set(opened.page.evaluate(fill))
    opened.settle(lambda: opened.page.check("#choices input[value=lora]"))
    after = set(opened.page.evaluate(fill))
    assert len(before) == 4
    assert after == {"var(--m-lora)"}
    opened.settle(lambda: opened.page.select_option("#color", "r"))
    opened.settle(lambda: opened.page.click("#reset"))
    groups = {row["group"] for row in opened.rows("quality")}
    assert groups == {"2", "8", "LoRA (peft)", "full fine-tuning", "head on the frozen base"}
    assert "var(--soft)" in opened.page.evaluate(fill)


def test_table_sorts_by_its_headers(opened: Opened) -> None:
    header = opened.page.locator("#trials").get_by_role("columnheader", name="score").first
    place = opened.page.locator("#trials thead th").all_inner_texts().index("score") + 1
    for order, turned in (("ascending", False), ("descending", True)):
        header.get_by_role("button").focus()
        opened.page.keyboard.press("Enter")
        opened.page.wait_for_selector(f"#trials th[aria-sort={order}]")
        shown = opened.page.locator(f"#trials tbody td:nth-child({place})").all_inner_texts()
        values = [float(text) for text in shown]
        assert values == sorted(values, reverse=turned)
        assert len(set(values)) > 5


def test_table_searches(opened: Opened) -> None:
    name = opened.page.locator("#trials tbody tr").nth(3).locator("td").all_inner_texts()
    opened.page.get_by_label("Search trials").fill(name[-1])
    opened.page.wait_for_function(
        "() => document.querySelectorAll('#trials tbody tr').length === 1"
    )
    assert opened.count().startswith("1 of 132 trials")


def test_keyboard_is_enough(opened: Opened) -> None:
    keys = opened.page.keyboard
    focused = "() => document.activeElement.id || document.activeElement.textContent"
    keys.press("Tab")
    assert opened.page.evaluate(focused) == "Skip to the summary"
    keys.press("Enter")
    for _ in range(60):
        keys.press("Tab")
        if opened.page.evaluate(focused) == "part":
            break
    assert opened.page.evaluate(focused) == "part"
    outline = "() => getComputedStyle(document.activeElement).outlineStyle"
    assert opened.page.evaluate(outline) == "solid"
    before = opened.page.input_value("#part")
    opened.settle(lambda: keys.press("ArrowDown" if before == "0" else "ArrowUp"))
    assert opened.page.input_value("#part") != before
    for _ in range(4):
        keys.press("Tab")
    assert opened.page.evaluate("() => document.activeElement.type") == "checkbox"
    opened.settle(lambda: keys.press("Space"))
    assert opened.count() == "48 of 132 trials, 8 of 22 cells"


def test_link_to_a_part_opens_it(opened: Opened) -> None:
    (closed,) = opened.page.locator("details.part:not([open])").all()
    name = closed.get_attribute("id")
    opened.page.click(f".overview a[href='#{name}']")
    opened.page.wait_for_selector(f"#{name}[open]")
    assert opened.page.evaluate("() => document.activeElement.parentElement.id") == name


def test_numbers_stand_beside_each_chart(opened: Opened) -> None:
    opened.page.locator("#quality details summary").click()
    table = opened.page.locator("#quality details table")
    assert table.locator("tbody tr").count() == 11
    label = opened.page.get_attribute("#quality .plot", "aria-label")
    assert label.startswith("Quality against parameters. 11 cells. Highest score ")


def test_structure_for_screen_readers(opened: Opened) -> None:
    page = opened.page
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.locator("#count").get_attribute("aria-live") == "polite"
    unlabeled = """() => [...document.querySelectorAll('input, select')]
        .filter(e => !e.labels?.length && !e.getAttribute('aria-label')).length"""
    assert page.evaluate(unlabeled) == 0
    assert page.evaluate("() => [...document.images].filter(i => !i.alt).length") == 0
    levels = page.evaluate(
        "() => [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))"
    )
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, page_file: Path, scheme: str) -> None:
    reason = "axe-playwright-python is not installed"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=reason)
    opened = Opened(browser, page_file, color_scheme=scheme)
    found = axe.Axe().run(opened.page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []
    opened.context.close()


def test_dark_is_dark(browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, color_scheme="dark")
    color = "(selector) => getComputedStyle(document.querySelector(selector))"
    back = opened.page.evaluate(f"() => ({color})('body').backgroundColor")
    ink = opened.page.evaluate(f"() => ({color})('#quality .role-axis-label text').fill")
    assert max(channels(back)) < 60
    assert min(channels(ink)) > 180
    opened.context.close()


def test_paper_has_the_answer_and_no_controls(opened: Opened) -> None:
    opened.page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    opened.page.emulate_media(media="print")
    assert not opened.page.is_visible("form.filter")
    assert not opened.page.is_visible("#trials")
    assert not opened.page.is_visible("nav")
    assert opened.page.is_visible("#summary-title")
    assert opened.page.locator("details.part .pick:visible").count() == 2
    opened.page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("details.part[open]").count() == 1


def test_phone_needs_no_sideways_scroll(browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, viewport={"width": 360, "height": 740})
    assert opened.page.evaluate("() => document.documentElement.scrollWidth") == 360
    opened.context.close()


def test_wider_window_draws_wider_charts(opened: Opened) -> None:
    width = "() => document.querySelector('#quality svg').getBoundingClientRect().width"
    before = opened.page.evaluate(width)
    opened.settle(lambda: opened.page.set_viewport_size({"width": 800, "height": 900}))
    assert opened.page.evaluate(width) != before


def channels(color: str) -> list[int]:
    """The numbers of ``rgb(r, g, b)``."""
    return [int(text) for text in color.split("(")[1].rstrip(")").split(",")[:3]]
