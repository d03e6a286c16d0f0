"""The procedure of the tail-effect paper's algorithm 2: find every place's edges, choose widths, measure the whole network."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from genet.errors import EvidenceError
from genet.latency.profile import profile_blocks, profile_sweep
from genet.latency.staircase.staircase import Staircase, analyse
from genet.latency.table import LatencyTable, Rounds
from genet.latency.timing.ratio import MOST_ROUNDS, StopRule, measure_ratio
from genet.latency.workload import Workload
from genet.progress import UNSEEN, Tracker
from genet.statistics import half_interval
from genet.storage import Record
from genet.studies.align import TOLERANCE
from genet.studies.align.objective import Chosen, Objective, ObjectiveMode, exact, greedy, stay
from genet.studies.align.place import Place, place, stepless
from genet.studies.align.subject import Movable, Widths

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter
    from genet.studies.align.module_subject import ResizableNetwork

WIDER = 2.0  # factor of the next tolerance to try
ATTEMPTS = 8
NARROWER = (0.75, 0.5, 0.25, 0.1)  # shares of the bounds to try if the bounds themselves lead beyond them
SURE = 0.95  # confidence of the interval of a ratio
UNNOTICED = 0.005  # share of the latency
NEGLIGIBLE = StopRule(lambda rounds: Ratio.of(rounds).margin <= UNNOTICED, most=MOST_ROUNDS)


Solver = Literal["greedy", "exact"]


class Ratio(Record):
    """A latency over another, both timed in turn, round by round; an estimate has one round."""

    ms: float
    before_ms: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Rounds) -> Self:
        """Return the ratio that rounds tell."""
        return cls(ms=rounds.mean_ms, before_ms=statistics.fmean(rounds.reference_ms), rounds=rounds.ratios)

    @property
    def mean(self) -> float:
        """The ratio."""
        return statistics.fmean(self.rounds)

    @property
    def error(self) -> float:
        """Its standard error."""
        return statistics.stdev(self.rounds) / math.sqrt(len(self.rounds)) if len(self.rounds) > 1 else 0.0

    @property
    def above(self) -> float:
        """Its upper confidence limit, by Student's quantile, as few rounds know their own scatter badly."""
        return self.mean + self.margin

    @property
    def margin(self) -> float:
        """Distance of this limit from the mean; 0 for an estimate."""
        return half_interval(self.rounds, SURE) if len(self.rounds) > 1 else 0.0


class Alignment(Record):
    """The alignment of one network on one device.

    `widths` are those of the places that move. `predicted` is the latency after over before as the places' sweeps have it,
    `measured` the same of the whole network. `optimum` is the exact solver's prediction under the same bounds. `reached` says
    that the whole network meets the goal, which is never the case if nothing moves.
    """

    network: str
    device: str
    estimate: bool
    batch: int
    mode: ObjectiveMode
    solver: Solver
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

    def unmoved(self) -> Self:
        """Return the same record with every width as it was."""
        ms, count = self.measured.before_ms, self.parameters[0]
        still = Ratio(ms=ms, before_ms=ms, rounds=(1.0,))
        return self.model_copy(update={"widths": {}, "parameters": (count, count), "predicted": 1.0, "measured": still})


@dataclass(frozen=True)
class Goal:
    """The user's goal: `reduce` is the wanted latency over the present one, `tolerance` the parameters' relative change."""

    mode: ObjectiveMode
    reduce: float | None = None
    tolerance: float = TOLERANCE
    solver: Solver = "greedy"


def find_places(subject: ResizableNetwork, table: LatencyTable, meter: Meter, tracker: Tracker = UNSEEN) -> tuple[Place, ...]:
    """Measure every place over its widths, as far as the table lacks them, and find the edges beside its own.

    EvidenceError if no width of the network may move.
    """
    begin_table(subject, table, meter, tracker)
    for movable in subject.movable:
        _staircase(movable, table, meter, tracker)
    # only now is the machine's usual speed known, at which the latencies of all places are given
    return tuple(_place(subject, movable, table, meter, tracker) for movable in subject.movable)


def begin_table(
    subject: ResizableNetwork, table: LatencyTable, meter: Meter, tracker: Tracker, removable: Sequence[str] = ()
) -> None:
    """Measure a typical place first, so that a new table has a sentinel like most of its rows.

    EvidenceError if no width of the network may move, unless it has `removable` blocks.
    """
    if subject.movable:
        typical = subject.movable[len(subject.movable) // 2]
        first = typical.blocks(typical.width)
        profile_blocks(table, meter, first, first[0], 0, tracker)
    elif not removable:
        why = "; ".join(dict.fromkeys(subject.fixed.values())) or "it has no convolutions"
        raise EvidenceError(f"{subject.name}: got no layer whose width may change, expected at least one: {why}")


def check_measured(movable: Movable, widths: Sequence[int], table: LatencyTable) -> None:
    """Raise EvidenceError, with the reason in the table, if a place's own width is not among those that could be measured."""
    if movable.width not in widths:
        rows = map(table.block_row, movable.blocks(movable.width))
        failure = next((row.failure for row in rows if row and row.failure), "it failed")
        raise EvidenceError(f"measuring {movable.name} at its width {movable.width} failed: {failure}")


def _place(subject: ResizableNetwork, movable: Movable, table: LatencyTable, meter: Meter, tracker: Tracker) -> Place:
    staircase = _staircase(movable, table, meter, tracker)
    return place(movable, staircase, {width: subject.parameters({movable.name: width}) for width in staircase.widths})


def _staircase(movable: Movable, table: LatencyTable, meter: Meter, tracker: Tracker) -> Staircase:
    """Measure over the widths near the place's own, and farther up if none of those ends a tread above it.

    EvidenceError if its own width cannot be measured.
    """
    at_width = {width: movable.blocks(width) for width in movable.grid}
    offered = (movable.width, movable.near)
    staircase = analyse(*profile_sweep(table, meter, at_width, offered, tracker))
    if not (stepless(staircase) or any(movable.width < tread.last for tread in staircase.treads[:-1])):
        at_width |= {width: movable.blocks(width) for width in movable.farther}
        staircase = analyse(*profile_sweep(table, meter, at_width, offered, tracker))
    check_measured(movable, staircase.widths, table)
    return staircase


def choose_widths(
    subject: ResizableNetwork,
    places: Sequence[Place],
    meter: Meter,
    goal: Goal,
    tried: Callable[[float, Ratio], None] = lambda t, r: None,
) -> Alignment:
    """Choose widths and measure the whole network with them; `tried` is called with every measured choice.

    In latency mode the tolerance is doubled until the wanted latency is measured; if it never is, the choice that is certainly
    fastest counts. In accuracy mode the extra time of the whole network tightens the bound on the layers, until it takes no
    longer; if that fails, all widths stay.
    """
    before = subject.parameters({})
    tolerance, owed = goal.tolerance, 0.0
    attempts: list[_Attempt] = []
    for _ in range(ATTEMPTS):
        objective = Objective("accuracy", owed)
        if goal.mode == "latency":
            objective = Objective("latency", -tolerance * before, tolerance * before)
        chosen = _best_within(subject, places, objective, goal.solver, before)
        if chosen == stay(places):
            if goal.mode == "accuracy":
                break
        elif not attempts or chosen != attempts[-1].chosen:
            ratio = ratio_of(subject.workload(_widths(places, chosen)), subject.workload({}), meter)
            attempts.append(_Attempt(tolerance, objective, chosen, ratio))
            tried(tolerance, ratio)
            if _reached(goal, ratio):
                return _alignment(subject, places, meter, goal, attempts[-1])
        if goal.mode == "latency" and goal.reduce is None:
            break  # no goal that more parameters could reach
        tolerance *= WIDER if goal.mode == "latency" else 1
        owed += max(attempts[-1].ratio.above - 1, 0) * attempts[-1].ratio.before_ms if attempts else 0
    best = min(attempts, key=lambda attempt: attempt.ratio.above, default=None)
    if best is None or goal.mode == "accuracy":
        ms = best.ratio.before_ms if best else ratio_of(subject.workload({}), subject.workload({}), meter).ms
        best = _Attempt(goal.tolerance, objective, stay(places), Ratio(ms=ms, before_ms=ms, rounds=(1.0,)))
    return _alignment(subject, places, meter, goal, best)


@dataclass(frozen=True)
class _Attempt:
    """A choice, its bounds, and the measurement of the whole network with it."""

    tolerance: float
    objective: Objective
    chosen: Chosen
    ratio: Ratio


def _best_within(subject: ResizableNetwork, places: Sequence[Place], objective: Objective, solver: str, before: int) -> Chosen:
    """Return the solver's best choice whose parameters, counted with all its widths together, are within the bounds.

    The greedy solver counts like this itself. The integer program adds up the gains of each place with the others unchanged: if
    the sum is off, it is solved again with bounds shifted by the difference, and with narrower ones; single moves and the greedy
    choice are considered too, so that an allowed choice is never passed over for a worse one.
    """
    counted = objective
    if objective.mode == "latency":
        counted = dataclasses.replace(objective, count=lambda chosen: subject.parameters(_widths(places, chosen)) - before)

    def allowed(chosen: Chosen) -> bool:
        return objective.mode == "accuracy" or counted.allows(counted.bounded_total(places, chosen))

    found = [stay(places), greedy(places, counted)]
    if solver == "exact":
        solved = [exact(places, objective)]
        while not allowed(solved[-1]) and len(solved) < ATTEMPTS:
            off = counted.bounded_total(places, solved[-1]) - objective.bounded_total(places, solved[-1])
            bounds = Objective("latency", min(objective.least - off, 0.0), max(objective.most - off, 0.0))
            solved.append(exact(places, bounds))
        if len(solved) > 1:
            solved += [exact(places, Objective("latency", share * objective.least, share * objective.most)) for share in NARROWER]
            solved += _single_moves(places)
        found += solved
    return max((chosen for chosen in found if allowed(chosen)), key=lambda chosen: objective.total_value(places, chosen))


def _single_moves(places: Sequence[Place]) -> list[Chosen]:
    """Return the choices of one place at one of its edges, the others as they are."""
    staying = stay(places)
    pairs = [(index, option) for index, place in enumerate(places) for option in place.options[1:]]
    return [(*staying[:index], option, *staying[index + 1 :]) for index, option in pairs]


def _widths(places: Sequence[Place], chosen: Chosen) -> Widths:
    """Return the new widths of the places that move."""
    pairs = zip(places, chosen, strict=True)
    return {place.name: option.width for place, option in pairs if option.width != place.now.width}


def ratio_of(one: Workload, other: Workload, meter: Meter) -> Ratio:
    """Return a whole network against another, timed in turn; MeasurementError if they cannot be timed."""
    return Ratio.of(measure_ratio([one, other], meter, NEGLIGIBLE.at(meter)))


def _reached(goal: Goal, ratio: Ratio) -> bool:
    """Return whether the goal is met with certainty, up to noise; a slower network never counts as aligned."""
    if goal.mode == "latency":
        return ratio.above <= goal.reduce if goal.reduce else ratio.above < 1
    return no_slower(ratio)


def no_slower(ratio: Ratio) -> bool:
    """Return whether the first certainly takes no longer than the second, up to a negligible difference."""
    return ratio.above <= 1 + UNNOTICED


def _alignment(subject: ResizableNetwork, places: Sequence[Place], meter: Meter, goal: Goal, best: _Attempt) -> Alignment:
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
        reached=bool(widths) and _reached(goal, ratio),
        places=tuple(places),
        fixed=dict(subject.fixed),
        widths=dict(widths),
        parameters=(subject.parameters({}), subject.parameters(widths)),
        predicted=predicted(chosen),
        optimum=predicted(_best_within(subject, places, best.objective, "exact", subject.parameters({}))),
        measured=ratio,
    )
