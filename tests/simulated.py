"""A device whose latencies, speed and faults are known."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import torch

from genet.device import read_card
from genet.latency.clock import Timing
from genet.latency.part import Part
from genet.latency.table import Setting
from genet.spec.recipe import Measure

SETTING = Setting.of(read_card(torch.device("cpu")), Measure(batch=2))


class Simulated:
    """A device that takes `ms(part)`, slower by `speed(number of the timing)`; counts how often each part was timed."""

    def __init__(self, ms: Callable[[Part], float], speed: Callable[[int], float] = lambda _: 1.0) -> None:
        self.setting = SETTING
        self.timed: Counter[str] = Counter()
        self._ms, self._speed, self._clock = ms, speed, itertools.count()

    def prepare(self, parts: Sequence[Part]) -> Callable[..., tuple[Timing, ...]]:
        known = [self._ms(part) for part in parts]

        def race(repeats: int = 30) -> tuple[Timing, ...]:
            speed = self._speed(next(self._clock))
            self.timed.update(part.name for part in parts)
            return tuple(Timing(ms=ms * speed, median_ms=ms * speed, spread=0.001) for ms in known)

        return race
