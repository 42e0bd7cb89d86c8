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
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
SHORT = HOSTILE.rpartition("/")[2]
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
    Image.new("RGB", (16, 8), "blue").save(pictures / "rte-truth.webp")
    return build(root, root / "report.html", console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def odd_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several numbers of rows, a task whose seeds differ by more than there is to gain, one trial,
    and none with a score.
    """
    root = tmp_path_factory.mktemp("odd")
    plain = {"effects": {"epochs": {2: 0.0}}, "noise": 0.004}

    def design(task: str, method: str = "lokr", rows: int | None = None, **more) -> Design:
        return Design(trial={"task": task, "method": method, "train_size": rows}, **plain | more)

    sized = [design("glue/rte", m, n) for m in ("lokr", "lora") for n in (8, 32, 128)]
    folder = write(root / "sizes", *sized)
    wild = [
        design("glue/wild", method, base=base, noise=0.0005, seed_noise=0.05)
        for method, base in (("lokr", 0.50), ("full", 0.51), ("head", 0.49))
    ]
    bases = {"lokr": 0.55, "lora": 0.54, "full": 0.60, "head": 0.40}
    tame = [design("glue/tame", method, base=base) for method, base in bases.items()]
    lost = design("glue/lost", failed=lambda knobs, rate, seed: True)
    write(root / "odd", *wild, *tame, design("glue/one", seeds=1), lost)
    (folder / "pictures").mkdir()
    first = read(folder)[0].trials["id"].iloc[0]
    Image.new("RGB", (16, 8), "red").save(folder / "pictures" / f"{first}.samples.webp")
    return build(root, root / "report.html", console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class Opened:
    """A page, and what it said and asked for."""

    def __init__(self, browser, file: Path, hash: str = "", **options: object) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri() + hash)
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

    def part(self, value: str) -> None:
        """Show another part."""
        if self.page.input_value("#part") != value:
            self.settle(lambda: self.page.select_option("#part", value))

    def reset(self) -> None:
        """As it was when it was opened, as far as media, filter and table go."""
        self.page.emulate_media(media="screen", color_scheme="light")
        self.part("0")
        if self.page.locator("#choices input:checked").count():
            self.settle(lambda: self.page.click("#reset"))
        if self.page.input_value("#color") != "method":
            self.settle(lambda: self.page.select_option("#color", "method"))
        self.page.uncheck("#all-columns")
        self.page.get_by_label("Search trials").fill("")
        self.page.evaluate("() => window.report.trials.search('').page(0).draw(false)")


WIDE = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def shared(browser, page_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, page_file, **WIDE)
    yield opened
    opened.context.close()


@pytest.fixture
def opened(shared: Opened) -> Opened:
    """The page that all share, which is faster than a new one."""
    shared.reset()
    return shared


@pytest.fixture
def fresh(browser, page_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, page_file, **WIDE)
    yield opened
    opened.context.close()


@pytest.fixture(scope="module")
def odd(browser, odd_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, odd_file, **WIDE)
    yield opened
    opened.context.close()


def test_says_nothing_and_asks_for_nothing(fresh: Opened, page_file: Path) -> None:
    opened = fresh
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
    assert SHORT in opened.page.inner_text("#trials")
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
    assert set(table_column(opened, "method")) == {"LoKr"}


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
    for order, turned in (("ascending", False), ("descending", True)):
        header.get_by_role("button").focus()
        opened.page.keyboard.press("Enter")
        opened.page.wait_for_selector(f"#trials th[aria-sort={order}]")
        values = [float(text) for text in table_column(opened, "score")]
        assert values == sorted(values, reverse=turned)
        assert len(set(values)) > 5


def test_table_searches(opened: Opened) -> None:
    opened.page.get_by_label("Search trials").fill(table_column(opened, "id")[3])
    opened.page.wait_for_function(
        "() => document.querySelectorAll('#trials tbody tr').length === 1"
    )
    assert opened.count().startswith("1 of 132 trials")


def test_keyboard_is_enough(fresh: Opened) -> None:
    opened = fresh
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
    opened.settle(lambda: opened.page.click(f".overview a[href='#{name}']"))
    opened.page.wait_for_selector(f"#{name}[open]")
    assert opened.page.evaluate("() => document.activeElement.parentElement.id") == name
    assert opened.page.input_value("#part") == name.removeprefix("part-")
    opened.page.locator(f"#{name} > summary").click()


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
def test_axe_finds_nothing(opened: Opened, scheme: str) -> None:
    reason = "axe-playwright-python is not installed"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=reason)
    opened.page.emulate_media(color_scheme=scheme)
    found = axe.Axe().run(opened.page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found] == []


def test_dark_is_dark(opened: Opened) -> None:
    opened.page.emulate_media(color_scheme="dark")
    color = "(selector) => getComputedStyle(document.querySelector(selector))"
    back = opened.page.evaluate(f"() => ({color})('body').backgroundColor")
    ink = opened.page.evaluate(f"() => ({color})('#quality .role-axis-label text').fill")
    assert max(channels(back)) < 60
    assert min(channels(ink)) > 180


def test_paper_has_the_answer_and_no_controls(opened: Opened) -> None:
    opened.page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    opened.page.emulate_media(media="print")
    assert not opened.page.is_visible("form.filter")
    assert not opened.page.is_visible("#trials")
    assert not opened.page.is_visible("nav")
    assert opened.page.is_visible("#summary-title")
    assert opened.page.locator("details.part .pick:visible").count() == 2
    assert not opened.page.is_visible("#cost")  # nothing to draw
    heights = [box(opened, f"#{chart}")["height"] for chart in ("quality", "effects", "curves")]
    assert max(heights) < 460  # two of them on a page of 960
    opened.page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("details.part[open]").count() == 1


def test_phone_needs_no_sideways_scroll(browser, page_file: Path) -> None:
    """Nor is a label cut: over all parts each is under the heading of what is compared."""
    opened = Opened(browser, page_file, "#part=all", viewport={"width": 360, "height": 740})
    assert opened.page.input_value("#part") == "all"
    assert opened.page.evaluate("() => document.documentElement.scrollWidth") == 360
    labels = """() => [...document.querySelectorAll('#effects .role-axis-label text')]
        .map(text => [text.textContent, text.getBoundingClientRect().left])"""
    left = opened.page.locator("#effects svg").bounding_box()["x"]
    found = opened.page.evaluate(labels)
    assert all(place >= left for _, place in found)
    assert not any("…" in text for text, _ in found)
    texts = [text for text, _ in found]
    assert texts.index("alpha: 4 → 16") < texts.index("rte")
    assert texts.count("rte") == 3
    opened.context.close()


def test_wider_window_draws_wider_charts(opened: Opened) -> None:
    width = "() => document.querySelector('#quality svg').getBoundingClientRect().width"
    before = opened.page.evaluate(width)
    opened.settle(lambda: opened.page.set_viewport_size({"width": 800, "height": 900}))
    assert opened.page.evaluate(width) != before
    opened.settle(lambda: opened.page.set_viewport_size(WIDE["viewport"]))


def test_table_begins_with_what_one_comes_for(opened: Opened) -> None:
    front = ["method", "r", "alpha", "factor", "rate", "seed", "score", "selection"]
    assert headings(opened)[: len(front)] == front
    score = opened.page.locator("#trials thead th").nth(front.index("score")).bounding_box()
    assert score["x"] + score["width"] < 1280
    best = [float(text) for text in table_column(opened, "score")]
    assert best == sorted(best, reverse=True)
    assert "GPU" not in headings(opened)
    opened.page.check("#all-columns")
    everything = headings(opened)
    assert everything[:3] == ["study", "part", "method"]
    assert everything.index("score") < everything.index("GPU")
    opened.part("all")
    assert "Made-up GPU" in opened.page.inner_text("#trials")


def test_table_has_the_fixed_knobs_of_lora(opened: Opened) -> None:
    opened.settle(lambda: opened.page.check("#choices input[value=lora]"))
    assert set(table_column(opened, "r")) == {"8"}
    assert set(table_column(opened, "alpha")) == {"16"}
    assert set(table_column(opened, "factor")) == {""}
    assert all(row["method"] == "lokr" for row in opened.rows("rate-alpha") if "method" in row)
    assert "Nothing to draw" in opened.page.inner_text("#rate-alpha .words")


def test_view_is_in_the_address(browser, page_file: Path, fresh: Opened) -> None:
    assert fresh.page.evaluate("() => location.hash") == ""
    fresh.part("1")
    fresh.settle(lambda: fresh.page.check("#choices input[value=lokr]"))
    eight = fresh.page.locator("fieldset", has_text="r").get_by_label("8", exact=True)
    fresh.settle(lambda: eight.check())
    fresh.settle(lambda: fresh.page.select_option("#color", "alpha"))
    link = fresh.page.evaluate("() => location.hash")
    other = Opened(browser, page_file, link, **WIDE)
    assert -1 <= box(other, "#explore")["y"] <= 17  # below what scrolls under the edge
    assert other.page.input_value("#part") == "1"
    assert other.page.input_value("#color") == "alpha"
    assert other.rows("quality") == fresh.rows("quality")
    assert len(other.rows("quality")) == 4
    assert other.count() == fresh.count()
    assert other.page.evaluate("() => location.hash") == link
    other.page.evaluate("() => { location.hash = '#summary' }")
    other.page.wait_for_function("link => location.hash === link", arg=link)
    other.settle(lambda: other.page.evaluate("() => { location.hash = '#part=all' }"))
    assert other.page.input_value("#part") == "all"
    assert other.page.locator("#choices input:checked").count() == 0
    other.context.close()


def test_link_to_what_is_not_here_shows_the_page(browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, "#study=x&part=%ff", **WIDE)
    for link in ("", "#part=nothing", "#part-99", "#summary"):
        opened.page.evaluate("link => { location.hash = link }", link)
        opened.page.evaluate("() => new Promise(done => setTimeout(done))")
        assert opened.page.input_value("#part") == "0"
        assert len(opened.rows("quality")) == 11
    assert opened.said == []
    opened.context.close()


def test_missing_truth_is_said(opened: Opened) -> None:
    opened.part(part_named(opened, "glue/rte"))
    assert opened.page.locator(".untrue:visible").count() == 0
    opened.part(part_named(opened, HOSTILE))
    texts = opened.page.locator(".untrue:visible").all_inner_texts()
    assert len(texts) == 2
    assert set(texts) == {texts[0]}
    assert "running the study draws them" in texts[0]


def test_part_without_pictures_offers_none(odd: Opened) -> None:
    odd.part(part_named(odd, "glue/one"))
    assert odd.page.is_visible("#no-samples")
    assert not odd.page.is_visible("#picker")
    assert not odd.page.get_by_role("heading", name="Any cell").is_visible()
    odd.part(part_named(odd, "glue/rte on minilm, 8 rows"))
    assert odd.page.is_visible("#picker")


def test_score_over_training_rows(odd: Opened) -> None:
    odd.part(part_named(odd, "glue/rte on minilm, 32 rows"))
    found = odd.rows("sizes")
    assert sorted((row["method"], row["rows"]) for row in found) == [
        (method, rows) for method in ("lokr", "lora") for rows in (8, 32, 128)
    ]
    assert all(row["low"] < row["score"] < row["high"] for row in found)
    ticks = odd.page.locator("#sizes .role-axis-label text").all_text_contents()
    assert {"8", "32", "128"} <= set(ticks)
    odd.settle(lambda: odd.page.check("#choices input[value=lora]"))
    assert {row["method"] for row in odd.rows("sizes")} == {"lora"}
    odd.part(part_named(odd, "glue/wild"))
    assert "one number of rows" in odd.page.inner_text("#sizes .words")


def test_wild_interval_is_cut_and_said(odd: Opened) -> None:
    odd.part("all")
    number = int(part_named(odd, "glue/wild"))
    found = odd.rows("quality")
    wild = [row for row in found if row["part"] == number]
    tame = [row for row in found if row["part"] != number]
    assert all(row["low"] < row["from"] < row["to"] < row["high"] for row in wild)
    assert all((row["low"], row["high"]) == (row["from"], row["to"]) for row in tame)
    assert (len(wild), len(tame)) == (3, 4)
    assert "Arrows: 3 intervals go beyond the panel" in odd.page.inner_text("#quality .words")
    arrows = """() => [...document.querySelectorAll('#quality .mark-symbol.role-mark path')]
        .filter(path => path.getAttribute('opacity') === '1').length"""
    assert odd.page.evaluate(arrows) == 6


def test_unusual_parts_say_nothing_in_the_console(odd: Opened) -> None:
    for value in odd.page.locator("#part option").evaluate_all("all => all.map(o => o.value)"):
        odd.part(value)
    odd.part(part_named(odd, "glue/one"))
    assert len(odd.rows("quality")) == 1
    odd.part(part_named(odd, "glue/lost"))
    assert "Nothing to draw" in odd.page.inner_text("#quality .words")
    assert odd.said == []


def part_named(opened: Opened, title: str) -> str:
    """The value of the part whose title begins so."""
    (value,) = opened.page.locator("#part option", has_text=title).evaluate_all(
        "all => all.map(option => option.value)"
    )
    return value


def headings(opened: Opened) -> list[str]:
    """Of the table of trials, those that are shown."""
    return opened.page.locator("#trials thead th").all_inner_texts()


def table_column(opened: Opened, heading: str) -> list[str]:
    """What the table of trials shows under a heading."""
    place = headings(opened).index(heading) + 1
    return opened.page.locator(f"#trials tbody td:nth-child({place})").all_inner_texts()


def box(opened: Opened, selector: str) -> dict:
    """Where an element is, in pixels."""
    return opened.page.locator(selector).bounding_box()


def channels(color: str) -> list[int]:
    """The numbers of ``rgb(r, g, b)``."""
    return [int(text) for text in color.split("(")[1].rstrip(")").split(",")[:3]]
