"""The procedure of the tail-effect paper's algorithm 2: find every place's edges, choose widths, measure the whole network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genet.errors import EvidenceError
from genet.files import Record
from genet.latency.part import Part
from genet.latency.profile import ROUND_REPEATS, ROUNDS, profile_blocks, profile_sweep
from genet.latency.staircase import analyse
from genet.latency.table import LatencyTable
from genet.studies.align.aim import Aim, Chosen, Mode, Solver, stay
from genet.studies.align.exact import exact
from genet.studies.align.greedy import greedy
from genet.studies.align.place import Place, place
from genet.studies.align.subject import Movable, Subject, Widths

if TYPE_CHECKING:
    from genet.latency.meter import Meter

SOLVERS: dict[str, Solver] = {"greedy": greedy, "exact": exact}
WIDER = 2.0  # so much wider a tolerance is tried next
ATTEMPTS = 8
SURE = 2.0  # standard errors


class Ratio(Record):
    """A latency over another, both timed in turn, round by round; an estimate has one round."""

    ms: float
    before_ms: float
    rounds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The ratio."""
        return statistics.fmean(self.rounds)

    @property
    def error(self) -> float:
        """Its standard error."""
        return statistics.stdev(self.rounds) / math.sqrt(len(self.rounds)) if len(self.rounds) > 1 else 0.0


class Alignment(Record):
    """What was found for one network on one device.

    `widths` are those of the places that move. `predicted` is the latency after over before as the places' sweeps have it,
    `measured` the same of the whole network. `optimum` is the exact solver's prediction under the same bounds.
    """

    network: str
    device: str
    estimate: bool
    batch: int
    mode: Mode
    solver: Literal["greedy", "exact"]
    tolerance: float
    reached: bool
    places: tuple[Place, ...]
    fixed: dict[str, str]
    widths: dict[str, int]
    parameters: tuple[int, int]
    predicted: float
    optimum: float
    measured: Ratio

    @property
    def parameter_gain(self) -> float:
        """Relative change of the parameters."""
        return self.parameters[1] / self.parameters[0] - 1


@dataclass(frozen=True)
class Goal:
    """What the user asks for: `reduce` is the latency wanted over that of now, `tolerance` the parameters' relative change."""

    mode: Mode
    reduce: float | None = None
    tolerance: float = 0.05
    solver: Literal["greedy", "exact"] = "greedy"


def find_places(subject: Subject, table: LatencyTable, meter: Meter, measured: Callable[[], None]) -> tuple[Place, ...]:
    """Measure every place over its widths, as far as the table does not know it, and read off the edges beside its own.

    EvidenceError where no width of the network may move.
    """
    if not subject.movable:
        why = "; ".join(dict.fromkeys(subject.fixed.values())) or "it has no convolutions"
        raise EvidenceError(f"{subject.name}: must have layers whose width may change, and has none: {why}")
    return tuple(_place(subject, movable, table, meter, measured) for movable in subject.movable)


def _place(subject: Subject, movable: Movable, table: LatencyTable, meter: Meter, measured: Callable[[], None]) -> Place:
    at_width = {width: movable.blocks(width) for width in movable.grid}
    now = at_width[movable.width]
    profile_blocks(table, meter, now, now[0], 0, measured)  # a sampled sweep might pass over the present width
    sweep, macs = profile_sweep(table, meter, at_width, measured)
    parameters = {width: subject.parameters({movable.name: width}) for width in sweep.widths}
    return place(movable.name, movable.layers, analyse(sweep, macs), movable.width, parameters)


def align(
    subject: Subject, places: Sequence[Place], meter: Meter, goal: Goal, tried: Callable[[float, Ratio], None] = lambda t, r: None
) -> Alignment:
    """Choose widths and measure the whole network with them; `tried` hears of every choice that is measured.

    In latency mode the tolerance is doubled until the latency wanted is measured, or until that no longer changes the choice;
    the fastest counts. In accuracy mode what the whole network takes longer than before is asked back from the layers, until
    it takes no longer; where that fails, all widths stay.
    """
    before = subject.parameters({})
    tolerance, owed = goal.tolerance, 0.0
    attempts: list[_Attempt] = []
    while len(attempts) < ATTEMPTS:
        aim = Aim("accuracy", owed)
        if goal.mode == "latency":
            aim = Aim("latency", -tolerance * before, tolerance * before)
        chosen, aim = _kept_to(subject, places, aim, SOLVERS[goal.solver], before)
        if attempts and chosen == attempts[-1].chosen:
            break
        ratio = ratio_of(subject.part(_widths(places, chosen)), subject.part({}), meter)
        attempts.append(_Attempt(tolerance, chosen, aim, ratio))
        tried(tolerance, ratio)
        if _reached(goal, ratio):
            return _alignment(subject, places, meter, goal, attempts[-1])
        tolerance *= WIDER
        owed += (ratio.mean - 1) * ratio.before_ms
    best = min(attempts, key=lambda attempt: attempt.ratio.mean)
    if goal.mode == "accuracy":
        same = Ratio(ms=best.ratio.before_ms, before_ms=best.ratio.before_ms, rounds=(1.0,))
        best = _Attempt(tolerance, stay(places), best.aim, same)
    return _alignment(subject, places, meter, goal, best)


@dataclass(frozen=True)
class _Attempt:
    """A choice, the bounds it was made under, and the whole network with it on the clock."""

    tolerance: float
    chosen: Chosen
    aim: Aim
    ratio: Ratio


def _kept_to(subject: Subject, places: Sequence[Place], aim: Aim, solver: Solver, before: int) -> tuple[Chosen, Aim]:
    """A choice whose parameters, counted with all its widths together, are within the bounds.

    Each place's gain is counted with the others as they are, so what the sum is off by is taken off the bounds.
    """
    bounds = aim
    for _ in range(ATTEMPTS):
        chosen = solver(places, bounds)
        if aim.mode == "accuracy":
            return chosen, bounds
        gained = subject.parameters(_widths(places, chosen)) - before
        if aim.allows(gained):
            return chosen, bounds
        off = gained - bounds.used(places, chosen)
        bounds = Aim("latency", min(aim.least - off, 0.0), max(aim.most - off, 0.0))
    return stay(places), bounds


def _widths(places: Sequence[Place], chosen: Chosen) -> Widths:
    """The places that move."""
    pairs = zip(places, chosen, strict=True)
    return {place.name: option.width for place, option in pairs if option.width != place.now.width}


def ratio_of(one: Part, other: Part, meter: Meter) -> Ratio:
    """A whole network against another, timed in turn; MeasurementError where they cannot be timed."""
    after, before = [], []
    for _ in range(1 if meter.setting.estimate else ROUNDS):
        timings = meter.prepare([one, other])(ROUND_REPEATS)
        after.append(timings[0].ms)
        before.append(timings[1].ms)
    rounds = tuple(a / b for a, b in zip(after, before, strict=True))
    return Ratio(ms=statistics.fmean(after), before_ms=statistics.fmean(before), rounds=rounds)


def _reached(goal: Goal, ratio: Ratio) -> bool:
    if goal.mode == "latency":
        return goal.reduce is None or ratio.mean <= goal.reduce
    return no_slower(ratio)


def no_slower(ratio: Ratio) -> bool:
    """Whether it cannot be told that the first is slower than the second."""
    return ratio.mean - SURE * ratio.error <= 1


def _alignment(subject: Subject, places: Sequence[Place], meter: Meter, goal: Goal, best: _Attempt) -> Alignment:
    chosen, ratio = best.chosen, best.ratio
    setting, widths = meter.setting, _widths(places, chosen)

    def predicted(choice: Chosen) -> float:
        saved = math.fsum(place.latency_gain(option) for place, option in zip(places, choice, strict=True))
        return 1 - saved / ratio.before_ms

    return Alignment(
        network=subject.name,
        device=setting.device.name,
        estimate=setting.estimate,
        batch=setting.batch,
        mode=goal.mode,
        solver=goal.solver,
        tolerance=best.tolerance,
        reached=_reached(goal, ratio),
        places=tuple(places),
        fixed=dict(subject.fixed),
        widths=dict(widths),
        parameters=(subject.parameters({}), subject.parameters(widths)),
        predicted=predicted(chosen),
        optimum=predicted(exact(places, best.aim)),
        measured=ratio,
    )
