"""How long work tells where it is: a live bar on a terminal, a plain line every so often when piped.

The pipeline speaks through this small interface and knows nothing of terminals; this one is silent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 10.0


class Progress:
    """Says nothing; the base of the two that do, and what a program that calls genet uses."""

    def say(self, text: str) -> None:
        """One line for the user."""

    @contextmanager
    def track(self, title: str, total: int, done: int = 0) -> Iterator[Tracker]:
        """A counted piece of work of `total` steps, of which `done` were done in an earlier run."""
        yield Tracker(total, done)


class Tracker:
    """Counts steps and knows the time left from the pace of this run."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.note = total, done, ""
        self._start, self._start_done = time.monotonic(), done

    def advance(self, note: str = "") -> None:
        """One step is done; `note` is the latest thing worth knowing."""
        self.done += 1
        self.note = note or self.note

    def resume_at(self, done: int) -> None:
        """Say how much was done already, once that is known: a training that goes on begins further on."""
        if self.done < done:
            self.done = self._start_done = done

    @property
    def elapsed_s(self) -> float:
        """Seconds since this run began the work."""
        return time.monotonic() - self._start

    @property
    def left_s(self) -> float | None:
        """Expected seconds left; None before the first step of this run."""
        steps = self.done - self._start_done
        return None if steps == 0 else self.elapsed_s / steps * (self.total - self.done)


class LinePrinter(Progress):
    """Plain lines, for pipes and log files."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def track(self, title: str, total: int, done: int = 0) -> Iterator[Tracker]:
        """A line at the start, every ten seconds and at the end."""
        tracker = _LineTracker(title, total, done, self)
        tracker.speak()
        yield tracker
        tracker.speak()


class _LineTracker(Tracker):
    def __init__(self, title: str, total: int, done: int, printer: LinePrinter) -> None:
        super().__init__(total, done)
        self._title, self._printer, self._spoken = title, printer, 0.0

    def advance(self, note: str = "") -> None:
        super().advance(note)
        if time.monotonic() - self._spoken > LINE_EVERY_S and self.done < self.total:
            self.speak()

    def speak(self) -> None:
        """Print the state of the work."""
        self._spoken = time.monotonic()
        if self.done >= self.total:
            state = f"done in {duration(self.elapsed_s)}"
        else:
            state = f"{duration(self.left_s)} left" if self.left_s is not None else "starting"
        note = f"  {self.note}" if self.note else ""
        self._printer.say(f"  {self._title}: {self.done}/{self.total}, {state}{note}")


class LiveBar(LinePrinter):
    """A moving bar with the time left, for terminals."""

    @contextmanager
    def track(self, title: str, total: int, done: int = 0) -> Iterator[Tracker]:
        """A bar that ends as one line."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left  {task.fields[note]}"),
        )
        with Bars(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(title, total=total, completed=done, left="?", note="")
            tracker = _BarTracker(total, done, bars, task)
            yield tracker
        note = f"  {tracker.note}" if tracker.note else ""
        self.say(f"  {title}: {tracker.done}/{total}, done in {duration(tracker.elapsed_s)}{note}")


class _BarTracker(Tracker):
    def __init__(self, total: int, done: int, bars: object, task: object) -> None:
        super().__init__(total, done)
        self._bars, self._task = bars, task

    def advance(self, note: str = "") -> None:
        super().advance(note)
        left = "?" if self.left_s is None else duration(self.left_s)
        self._bars.update(self._task, completed=self.done, left=left, note=self.note)  # type: ignore[attr-defined]


def duration(seconds: float) -> str:
    """Seconds as people say them: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
