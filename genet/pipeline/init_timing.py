"""Brief timings for a first recipe: how long its networks take here, in the runtime and at the batch that will serve."""

from __future__ import annotations

import time

from genet.arch.network import Network
from genet.config.recipe import Measure
from genet.errors import GenetError
from genet.latency.timing.meter import Meter, meter_of
from genet.latency.workload import network_workload
from genet.pipeline.init_rules import TIMINGS, BriefTiming
from genet.progress import Progress

REPEATS, LIMIT_S = 5, 1.0  # of a timing; and seconds after which none but the second begins
LONG_MS = 50.0  # a longer network is not repeated within a timing
SLOWER = 2.0  # times the latency with all threads: what takes longer with one is not timed again
FASTER = 0.95  # of the latency with all threads: with one it must be less


class BriefTimer:
    """A timer of single networks. On a processor it compares all threads with one, unless their number is given."""

    def __init__(self, measure: Measure, progress: Progress) -> None:
        self._measure, self._progress = measure, progress

    def __call__(self, network: Network, like: BriefTiming | None = None) -> BriefTiming | None:
        """Return a network's latency, the shortest of some timings, since other work only makes one longer.

        It is that with the threads that serve best, or with those of another network that it is timed `like`. None if it cannot
        be timed here, as without its runtime, which is said, or if latencies are of another machine.
        """
        if self._measure.latency_file is not None:
            return None
        try:
            threads = like.threads if like else None
            own = meter_of(self._measure.model_copy(update={"threads": threads}) if threads else self._measure)
            card = own.setting.device
            several = not (like or self._measure.threads) and card.kind == "cpu" and (card.processors or 1) > 1
            return self._timed(network, [own, meter_of(self._measure.model_copy(update={"threads": 1}))] if several else [own])
        except GenetError as fault:
            self._progress.say(f"  not timed here: {fault}")
            return None

    def _timed(self, network: Network, meters: list[Meter]) -> BriefTiming:
        timers = [meter.prepare([network_workload(network)]) for meter in meters]
        found: list[list[float]] = [[] for _ in timers]
        began, repeats = time.monotonic(), 1
        with self._progress.track("timing a network", TIMINGS) as tracker:
            while len(found[0]) < TIMINGS and (len(found[0]) < 2 or time.monotonic() - began < LIMIT_S):
                for timer, times in zip(timers, found, strict=True):  # in turn
                    if not times or min(times) < SLOWER * min(found[0]):
                        times.append(timer(repeats)[0].median_ms)
                repeats = REPEATS if found[0][0] <= LONG_MS else 1
                tracker.advance()
            tracker.end_here()
        fastest = 1 if found[1:] and min(found[1]) < FASTER * min(found[0]) else 0
        by_threads = [(meter.setting.device.processors, min(times)) for meter, times in zip(meters, found, strict=True)]
        return BriefTiming(
            ms=min(found[fastest]),
            spread=max(found[fastest]) / min(found[fastest]) - 1,
            setting=str(meters[fastest].setting),
            threads=1 if fastest else None,
            by_threads=tuple(by_threads) if len(by_threads) > 1 else (),
        )
