"""The time left of a job: the pre-flight's expectation for each step, corrected by the steps so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from genet.progress import Progress, duration

# Steps of one pace: timings of whole networks, and trainings. Timings of blocks are repeated for drift, others are not.
ALIKE = (("calibration", "select", "designs"), ("master", "distill", "race"))
TOLD_FROM_S = 60.0  # least seconds of work before a forecast: shorter steps say little about the pace


class Forecast:
    """The expected and actual seconds of a job's steps. After each step it reports the time left at the pace so far.

    A `resumed` job gets no report, as the work of the earlier process would distort the pace.
    """

    def __init__(self, expected: Mapping[str, float], progress: Progress, resumed: bool) -> None:
        self._left, self._progress, self._resumed = dict(expected), progress, resumed
        self._taken: dict[str, tuple[float, float]] = {}  # by step: seconds, and those expected
        self._worked_s = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run a step in the block, and report how long it took and how long the rest takes."""
        began = time.monotonic()
        yield
        self.ended(name, time.monotonic() - began)

    def ended(self, name: str, seconds: float) -> None:
        """Record how many seconds a step took, and report the rest."""
        expected = self._left.pop(name, 0.0)
        self._taken[name] = seconds, expected
        self._worked_s += seconds
        if expected and self._left and not self._resumed and self._worked_s >= TOLD_FROM_S:
            rest = {step: left * self._pace(step) for step, left in self._left.items()}
            steps = ", ".join(f"{step} {duration(left)}" for step, left in rest.items())
            took = f"{name} took {duration(seconds)}, expected {duration(expected)}"
            self._progress.say(f"  {took}; at this pace the rest takes about {duration(sum(rest.values()))}: {steps}")

    def _pace(self, step: str) -> float:
        """Return by how much steps like this one took longer than expected; 1 before the first of them."""
        alike = next((steps for steps in ALIKE if step in steps), ())
        taken = [self._taken[each] for each in alike if each in self._taken and self._taken[each][1]]
        return sum(seconds for seconds, _ in taken) / sum(expected for _, expected in taken) if taken else 1.0
