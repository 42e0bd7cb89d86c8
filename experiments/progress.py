"""What a run looks like: a live bar on a terminal, one line a finished pack elsewhere."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from experiments.listener import Listener
from experiments.plan import Pack
from experiments.store import Result
from experiments.trial import Trial

Label = Callable[[Sequence[Trial]], str]


class Estimate:
    """Rows done and seconds left, from the seconds that a row of each method has really taken.

    Work is counted in rows through the base, so wide packs and long trials weigh more. A method
    not seen yet is taken to be as fast as the others are together.
    """

    def __init__(self, packs: Sequence[Pack], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: Counter[str] = Counter()  # method -> rows done
        self._seconds: dict[str, float] = defaultdict(float)  # method -> what they took
        self.plan(packs)
        self.start(packs[0])

    def plan(self, packs: Sequence[Pack]) -> None:
        """All packs that wait; a pack that had begun is among them if it is to run again."""
        self._pack_rows = self._pack_seconds = 0.0
        self._total = Counter(self._rows)  # method -> rows
        for pack in packs:
            self._total[_method(pack)] += pack.row_passes

    def start(self, pack: Pack) -> None:
        """A pack begins; what a failed one before it did is forgotten, since it is done again."""
        self._pack = pack
        self._started = self._clock()
        self._pack_rows = self._pack_seconds = 0.0

    def step(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps of the pack are taken."""
        self._pack_rows = self._pack.row_passes * done / total
        self._pack_seconds = self._clock() - self._started

    def end(self) -> None:
        """The pack is done."""
        self.step(1, 1)
        self._rows[_method(self._pack)] += self._pack_rows
        self._seconds[_method(self._pack)] += self._pack_seconds
        self._pack_rows = self._pack_seconds = 0.0

    @property
    def rows(self) -> tuple[float, float]:
        """Rows done, and rows in all."""
        return self._rows.total() + self._pack_rows, float(self._total.total())

    @property
    def seconds_left(self) -> float | None:
        """None before the first measurement."""
        rows, seconds = Counter(self._rows), defaultdict(float, self._seconds)
        rows[_method(self._pack)] += self._pack_rows
        seconds[_method(self._pack)] += self._pack_seconds
        if not rows.total():
            return None
        mean = sum(seconds.values()) / rows.total()
        pace = {m: seconds[m] / rows[m] if rows[m] else mean for m in self._total}
        return sum((self._total[m] - rows[m]) * pace[m] for m in self._total)


class Lines:
    """One plain line a finished pack, for logs and pipes."""

    def __init__(self, packs: Sequence[Pack], label: Label, console: Console) -> None:
        self._trials = sum(pack.lanes for pack in packs)
        self._done = 0
        self._estimate = Estimate(packs)
        self._label = label
        self._console = console

    def on_plan(self, packs: Sequence[Pack]) -> None:
        self._estimate.plan(packs)

    def on_start(self, pack: Pack) -> None:
        self._estimate.start(pack)

    def on_step(self, done: int, total: int, loss: float) -> None:
        self._estimate.step(done, total)

    def on_pack_end(self, results: Sequence[Result]) -> None:
        self._estimate.end()
        self._done += len(results)
        parts = [
            f"[{self._done}/{self._trials}] {self._label([result.trial for result in results])}",
            f"{len(results)} {'lane' if len(results) == 1 else 'lanes'}",
            spell_seconds(results[0].cost["pack_seconds"]),
            _verdict(results),
        ]
        if self._done < self._trials:
            parts.append(f"{spell_left(self._estimate.seconds_left)} left")
        self._console.print(" | ".join(parts), markup=False, highlight=False, soft_wrap=True)


class Bar:
    """A live display: all trials above, the running pack below."""

    def __init__(self, packs: Sequence[Pack], label: Label, progress: Progress) -> None:
        self._trials = sum(pack.lanes for pack in packs)
        self._done = 0
        self._estimate = Estimate(packs)
        self._label = label
        self._progress = progress
        total = self._estimate.rows[1]
        self._overall = progress.add_task("all trials", total=total, state="")
        self._current = progress.add_task("starting", total=None, state="")
        self._show()

    def on_plan(self, packs: Sequence[Pack]) -> None:
        self._estimate.plan(packs)
        self._progress.update(self._overall, total=self._estimate.rows[1])
        self._show()

    def on_start(self, pack: Pack) -> None:
        self._estimate.start(pack)
        self._progress.reset(
            self._current,
            description=self._label(pack.trials),
            total=pack.steps,
            state=f"{pack.lanes} lanes, loading",
        )
        self._lanes = pack.lanes
        self._show()

    def on_step(self, done: int, total: int, loss: float) -> None:
        self._estimate.step(done, total)
        state = f"{self._lanes} lanes, step {done}/{total}, loss {loss:.3f}"
        self._progress.update(self._current, completed=done, total=total, state=state)
        self._show()

    def on_pack_end(self, results: Sequence[Result]) -> None:
        self._estimate.end()
        self._done += len(results)
        self._show()

    def _show(self) -> None:
        left = spell_left(self._estimate.seconds_left)
        state = f"{self._done}/{self._trials} done, {left} left"
        self._progress.update(self._overall, completed=self._estimate.rows[0], state=state)


def watch(
    packs: Sequence[Pack], label: Label, out: Console, err: Console
) -> tuple[Listener, AbstractContextManager[object]]:
    """A listener, and the context in which it is on screen.

    A live bar if both streams are terminals, else lines on ``out``. The bar shares a stream with
    the warnings, so that it can step aside for them.
    """
    if not (out.is_terminal and err.is_terminal):
        return Lines(packs, label, out), nullcontext()
    one_line = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    progress = Progress(
        TextColumn("{task.description}", table_column=one_line, markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        console=err,
        expand=True,
    )
    return Bar(packs, label, progress), progress


def spell_seconds(seconds: float) -> str:
    """``2.3 s``, ``45 s``, ``7 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def spell_left(seconds: float | None) -> str:
    """``about 7 min``; unknown before the first measurement."""
    return "unknown time" if seconds is None else f"about {spell_seconds(round(seconds))}"


def _method(pack: Pack) -> str:
    return pack.trials[0].method


def _verdict(results: Sequence[Result]) -> str:
    """The range of the scores, and how many trials have none because they are not ok."""
    scores = [r.metrics["score"] for r in results if r.metrics and r.status == "ok"]
    words = [f"{count} {status}" for status, count in Counter(r.status for r in results).items()]
    if scores:
        low, high = min(scores), max(scores)
        span = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        primary = next(r.metrics["primary"] for r in results if r.metrics)
        words.append(f"{primary} {span}")
    return ", ".join(words)
