"""The rest of a job: what the pre-flight expected of its steps, corrected by what those so far took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from genet.progress import Progress, duration

# Steps of one pace: timings of whole networks, and trainings. Timings of blocks are repeated for drift, others are not.
ALIKE = (("calibration", "select", "designs"), ("master", "distill", "race"))
TOLD_FROM_S = 60.0  # of work on: shorter steps tell little of the pace


class Forecast:
    """The steps of a job with their expected seconds, and what they take. After each the rest is told, by the pace so far.

    What an earlier process did would pass for pace: a job that is `resumed` is told nothing.
    """

    def __init__(self, expected: Mapping[str, float], progress: Progress, resumed: bool) -> None:
        self._left, self._progress, self._resumed = dict(expected), progress, resumed
        self._taken: dict[str, tuple[float, float]] = {}  # by step: seconds, and those expected
        self._worked_s = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do a step in the block, and tell how long it took and what the rest takes."""
        began = time.monotonic()
        yield
        self.ended(name, time.monotonic() - began)

    def ended(self, name: str, seconds: float) -> None:
        """Note a step that took so many seconds, and tell the rest."""
        expected = self._left.pop(name, 0.0)
        self._taken[name] = seconds, expected
        self._worked_s += seconds
        if expected and self._left and not self._resumed and self._worked_s >= TOLD_FROM_S:
            rest = {step: left * self._pace(step) for step, left in self._left.items()}
            steps = ", ".join(f"{step} {duration(left)}" for step, left in rest.items())
            took = f"{name} took {duration(seconds)}, expected {duration(expected)}"
            self._progress.say(f"  {took}; the rest takes about {duration(sum(rest.values()))} by the pace so far: {steps}")

    def _pace(self, step: str) -> float:
        """Return by how much steps like this one took longer than expected; 1 before the first of them."""
        alike = next((steps for steps in ALIKE if step in steps), ())
        taken = [self._taken[each] for each in alike if each in self._taken and self._taken[each][1]]
        return sum(seconds for seconds, _ in taken) / sum(expected for _, expected in taken) if taken else 1.0
