"""The estimate is measured, and the display survives what a run does to it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments.plan import Pack, plan
from experiments.progress import Bar, Estimate, Lines, spell_left, spell_seconds, watch
from experiments.trial import Trial
from tests.experiments.fakes import layers_of, result, rows_of


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def packs_of(method: str, count: int) -> tuple[Pack, ...]:
    trials = [Trial(task="glue/rte", method=method, seed=seed) for seed in range(count)]
    return plan(trials, (), 1, layers_of=layers_of, rows_of=rows_of).packs


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_promised_before_the_first_step(clock):
    estimate = Estimate(packs_of("lokr", 2), clock)
    assert estimate.seconds_left is None
    assert estimate.rows == (0, 2 * 12 * 32)


def test_time_left_follows_the_measured_speed(clock):
    packs = packs_of("lokr", 3)
    estimate = Estimate(packs, clock)
    estimate.start(packs[0])
    clock.now = 5
    estimate.step(6, 12)
    assert estimate.seconds_left == pytest.approx(25)  # half of the first of three, in 5 s
    clock.now = 20
    estimate.end()
    assert estimate.seconds_left == pytest.approx(40)
    for pack in packs[1:]:
        estimate.start(pack)
        clock.now += 10
        estimate.end()
    assert estimate.seconds_left == 0
    assert estimate.rows[0] == estimate.rows[1]


def test_each_method_has_its_own_speed(clock):
    slow, fast = packs_of("full", 2), packs_of("head", 2)
    estimate = Estimate([*slow, *fast], clock)
    estimate.start(slow[0])
    clock.now = 10
    estimate.end()
    assert estimate.seconds_left == pytest.approx(30)  # heads not seen yet: as slow as the rest
    estimate.start(fast[0])
    clock.now = 11
    estimate.end()
    assert estimate.seconds_left == pytest.approx(10 + 1)


def test_a_failed_pack_is_work_still_to_do(clock):
    (pack,) = packs_of("lokr", 1)
    estimate = Estimate([pack], clock)
    estimate.start(pack)
    clock.now = 100
    estimate.step(11, 12)
    estimate.start(pack)
    assert estimate.rows[0] == 0
    clock.now = 110
    estimate.end()
    assert estimate.seconds_left == 0


def test_packs_cut_anew_are_the_work_that_is_left(clock):
    first, second, third = packs_of("lokr", 3)
    estimate = Estimate([first, second, third], clock)
    estimate.start(first)
    clock.now = 10
    estimate.end()
    estimate.start(second)
    clock.now = 100
    estimate.step(11, 12)
    estimate.plan([second, third])  # the second failed, and waits again
    assert estimate.rows == (first.row_passes, 3 * first.row_passes)
    assert estimate.seconds_left == pytest.approx(20)
    estimate.plan([third])
    assert estimate.rows == (first.row_passes, 2 * first.row_passes)


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.34, "2.3 s"), (45.2, "45 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_times_for_people(seconds, text):
    assert spell_seconds(seconds) == text


def test_an_unknown_time_is_called_unknown():
    assert spell_left(None) == "unknown time"


def label(trials) -> str:
    return f"{trials[0].method} [bold] {len(trials)}"


def test_a_live_bar_shows_trials_pack_step_and_loss():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150)
    packs = packs_of("lokr", 2)
    listener, on_screen = watch(packs, label, console, console)
    assert isinstance(listener, Bar)
    with on_screen:
        listener.on_start(packs[0])  # fails, and starts again
        listener.on_start(packs[0])
        listener.on_step(6, 12, 0.6931)
        on_screen.refresh()
        listener.on_plan(packs)  # fails again, and waits
        listener.on_start(packs[0])
        listener.on_pack_end([result(packs[0].trials[0])])
    shown = screen.getvalue()
    for text in ("lokr [bold] 1", "step 6/12", "loss 0.693", "1/2 done", "left"):
        assert text in shown


def test_a_pipe_gets_a_line_for_each_finished_pack():
    out = io.StringIO()
    console = Console(file=out)
    packs = packs_of("lokr", 2)
    listener, _ = watch(packs, label, console, console)
    assert isinstance(listener, Lines)
    listener.on_start(packs[0])
    listener.on_plan(packs)
    listener.on_start(packs[0])
    failed = result(packs[0].trials[0], status="diverged", metrics=None)
    listener.on_pack_end([failed])
    assert out.getvalue().startswith("[1/2] lokr [bold] 1 | 1 lane | 2.0 s | 1 diverged | about ")
