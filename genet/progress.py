"""Progress of long work: a live bar on a terminal, a plain line every so often when piped.

The pipeline speaks through this small interface and knows nothing of terminals; this one is silent.
"""

from __future__ import annotations

import re
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 10.0
COLUMNS = 80
WORD = 8  # columns: of a remark that has less room nothing is shown


@dataclass(frozen=True)
class WorkItem:
    """A piece of work of `total` steps, of which `done` were done in an earlier run; None if nobody knows how many there are.

    A part of another has no time of its own.
    """

    title: str
    total: int | None
    done: int = 0
    part: bool = False


class Progress:
    """Silent progress; the base of the two others, and the default for programs that call genet."""

    def say(self, text: str) -> None:
        """Show one line to the user."""

    @contextmanager
    def awake(self, doing: str = "at work") -> Iterator[None]:
        """Report at least every ten seconds that the work in the block goes on, and what it is."""
        yield

    @contextmanager
    def track(self, title: str, total: int | None, done: int = 0) -> Iterator[Tracker]:
        """Track one piece of work, counted or open-ended."""
        with self.tracks([WorkItem(title, total, done)]) as (tracker,):
            yield tracker

    @contextmanager
    def tracks(self, counts: Sequence[WorkItem]) -> Iterator[list[Tracker]]:
        """Track several pieces of work that go on side by side."""
        yield [Tracker(count) for count in counts]


SILENT = Progress()


def on_screen() -> Progress:
    """Return a live bar on a terminal, plain lines elsewhere."""
    from rich.console import Console

    console = Console()
    return LiveBar(console) if console.is_terminal else LinePrinter(console)


class Tracker:
    """A tracker counts steps and estimates the remaining time from the pace of this run."""

    def __init__(self, count: WorkItem) -> None:
        self.count, self.total, self.done, self.note = count, count.total, count.done, ""
        self.doing = ""  # in the step under way
        self._ahead = 0.0  # part done of the steps under way
        self._start = self._paced_from = self._last = time.monotonic()
        self._start_done, self._paced = float(count.done), False

    def advance(self, note: str = "") -> None:
        """Count one step as done; `note` is the latest remark."""
        self.done += 1
        if self.total is not None:
            self.total = max(self.total, self.done)
        self.note, self.doing = note or self.note, ""
        self._last = time.monotonic()
        self._moved()

    def now(self, doing: str) -> None:
        """Tell what is being done in the step under way; it takes the place of the latest remark until the step is done."""
        self.doing = doing
        self._moved()

    def advance_by(self, steps: float, earlier: bool = False) -> None:
        """Add a part to the steps under way, done here or in an earlier run; `complete` counts a whole one."""
        self._ahead += steps
        self._start_done += steps if earlier else 0
        self._last = time.monotonic()
        if steps > 0 and not (earlier or self._paced):  # the start before the first strides does not count for the pace
            self._paced, self._paced_from, self._start_done = True, time.monotonic(), self.position
        self._moved()

    def complete(self, note: str = "") -> None:
        """Count one step that was under way as done."""
        self._ahead -= 1
        self.advance(note)

    def resume_at(self, done: int) -> None:
        """Set the part done before, once it is known: a resumed training begins further on."""
        if self.done < done:
            self.done, self.doing = done, ""
            self._start_done = done

    def end_here(self) -> None:
        """Take what is done for all: the rest turned out not to be needed."""
        self.total = self.done
        self._moved()

    @property
    def position(self) -> float:
        """Steps done, including those under way."""
        return self.done + self._ahead

    @property
    def elapsed_s(self) -> float:
        """Seconds since this run began the work."""
        return time.monotonic() - self._start

    @property
    def left_s(self) -> float | None:
        """Expected seconds left; None before this run has done anything, and for work without an end in sight.

        They are those of the pace at the last step, counted down since; a step that takes longer than expected adds none.
        """
        steps = self.position - self._start_done
        if steps <= 0 or self.total is None:
            return None
        pace_s, left = (self._last - self._paced_from) / steps, self.total - self.position
        return max(0.0, pace_s * left - (time.monotonic() - self._last), pace_s * (left - 1))

    @property
    def state(self) -> str:
        """The state of the work in words, with its time for whole works only."""
        if self.total is None:
            return f"{self.done} so far"
        counted = f"{self.done}/{self.total}"
        if self.count.part:
            return counted
        if self.done >= self.total:
            return f"{counted}, done in {duration(self.elapsed_s)}"
        if self.left_s is None:
            return f"{counted}, {'under way' if self.doing or self.elapsed_s >= LINE_EVERY_S else 'starting'}"
        overdue = self.left_s < 0.5 and self.position >= self.total - 1
        return f"{counted}, {'longer than expected' if overdue else f'{duration(self.left_s)} left'}"

    def _moved(self) -> None:
        """Show progress."""


UNSEEN = Tracker(WorkItem("", None))  # its progress is not shown


class LinePrinter(Progress):
    """Plain lines, for pipes and log files: at both ends of all work, and when none was printed for ten seconds."""

    def __init__(self, console: Console, every_s: float = LINE_EVERY_S) -> None:
        self._console, self.every_s = console, every_s
        self._told = time.monotonic()  # when the last line was printed
        self._under_way: list[Tracker] = []  # a whole before its parts
        self._doing: list[tuple[str, float]] = []  # the work that nothing counts, the innermost last, and when it began

    def say(self, text: str) -> None:
        """Print a sentence, in lines as wide as the console."""
        self._told = time.monotonic()
        lines = wrapped(text, self._console.width)
        self._console.print(lines, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextmanager
    def tracks(self, counts: Sequence[WorkItem]) -> Iterator[list[Tracker]]:
        """See `Progress`."""
        trackers = [_LineTracker(count) for count in counts]
        self._tell(trackers)
        with self.awake(), self._at(trackers):
            yield list(trackers)
        self._tell([tracker for tracker in trackers if tracker.moved])

    @contextmanager
    def awake(self, doing: str = "at work") -> Iterator[None]:
        """See `Progress`."""
        watched = bool(self._doing)
        self._doing.append((doing, time.monotonic()))
        try:
            with nullcontext() if watched else self._watching():
                yield
        finally:
            self._doing.pop()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(max(0.0, self._told + self.every_s - time.monotonic())):
                if time.monotonic() - self._told >= self.every_s:
                    self._tell_what_goes_on()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _tell_what_goes_on(self) -> None:
        """Print all work that has moved since it was last printed; if none has, as a step may take long, the first again."""
        under_way = [tracker for tracker in self._under_way if isinstance(tracker, _LineTracker)]
        if under_way:
            self._tell([tracker for tracker in under_way if tracker.moved] or under_way[:1], so_far=True)
        else:
            doing, began = self._doing[-1]
            self.say(f"  {doing}, {duration(time.monotonic() - began)} so far")

    def _tell(self, trackers: Sequence[_LineTracker], so_far: bool = False) -> None:
        for tracker in trackers:
            tracker.told = tracker.facts
            timed = so_far and not tracker.count.part
            elapsed = f", {duration(tracker.elapsed_s)} so far" if timed else ""
            self.say(_line(tracker, self._console.width, elapsed))

    @contextmanager
    def _at(self, trackers: Sequence[Tracker]) -> Iterator[None]:
        before, self._under_way = self._under_way, [*trackers]
        try:
            yield
        finally:
            self._under_way = before


class _LineTracker(Tracker):
    """A tracker that knows what was last printed about it."""

    told: tuple[object, ...] = ()

    @property
    def facts(self) -> tuple[object, ...]:
        """The facts on its line, except the time."""
        return self.position, self.total, self.doing or self.note

    @property
    def moved(self) -> bool:
        """True if its line has changed."""
        return self.told != self.facts


def _line(tracker: Tracker, width: int, elapsed: str = "") -> str:
    """Return a tracker's line. What finds no room goes, in this order: title and remark behind their commas, then the rest of it.

    The time that work has taken goes before a remark does if the time left is told.
    """
    title, state, note = tracker.count.title, tracker.state, tracker.doing or tracker.note
    name, parts = title.partition(",")[0], note.split(", ")
    notes = [", ".join(parts[:count]) for count in range(len(parts), 0, -1)]
    ends = (elapsed, "") if state.endswith(" left") else (elapsed,)
    drafts = [(title, note, elapsed), *((name, shorter, end) for shorter in notes for end in ends)]
    lines = [f"  {what}: {state}{f'  {remark}' if remark else ''}{end}" for what, remark, end in drafts]
    fitting = next((line for line in lines if len(line) <= width), None)
    if fitting is not None:
        return fitting
    start, end = f"  {name}: {state}", ends[-1]
    room = width - len(start) - len(end) - len("  …")
    return f"{start}  {note[:room]}…{end}" if room >= WORD else f"{start}{end}"


class LiveBar(LinePrinter):
    """Moving bars with the time left, for terminals."""

    def _tell_what_goes_on(self) -> None:
        if self._under_way:  # the bars are to be seen
            self._told = time.monotonic()
        else:
            super()._tell_what_goes_on()

    @contextmanager
    def tracks(self, counts: Sequence[WorkItem]) -> Iterator[list[Tracker]]:
        """Show bars that end as one line each."""
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.fields[state]}  {task.fields[note]}"))
        with Bars(*columns, console=self._console, transient=True) as bars:
            trackers = [_BarTracker(count, bars) for count in counts]
            with self._at(trackers):
                yield list(trackers)
        for tracker in trackers:
            self.say(_line(tracker, self._console.width))


class _BarTracker(Tracker):
    def __init__(self, count: WorkItem, bars: Any) -> None:
        super().__init__(count)
        self._bars, self._task = bars, bars.add_task(count.title, total=count.total, state="", note="")
        self._moved()

    def _moved(self) -> None:
        self._bars.update(self._task, total=self.total, completed=self.position, state=self.state, note=self.doing or self.note)


def duration(seconds: float) -> str:
    """Return seconds in usual units: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def wrapped(text: str, width: int = COLUMNS, indent: str | None = None) -> str:
    """Return text in lines of a width; names, paths and a number with its unit stay whole.

    Unless an `indent` is given, the lines after the first are indented twice as far as it is.
    """
    own = text[: len(text) - len(text.lstrip())]
    lines = textwrap.fill(
        re.sub(r"(?<=\d) (?=(?:s|min|h|ms)\b|%)", "\xa0", text),
        width,
        subsequent_indent=2 * own if indent is None else indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace("\xa0", " ")
