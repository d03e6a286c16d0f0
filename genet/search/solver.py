"""The selection step, exact: the whole frontier of predicted accuracy over predicted latency in one pass.

The paper draws random structures; but predicted accuracy is a sum over super-blocks, and so is latency once the width that a
super-block reads is known. Dynamic programming over (super-block, outgoing width), keeping for each the choices that no other
beats in both, therefore finds the best network for every budget at once. If the host that launches kernels may be the slower
side, kernels are counted too, and the states are (super-block, outgoing width, kernels).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.errors import EvidenceError
from genet.search.choice_tables import ChoiceTable, ChoiceTables
from genet.search.features import attainable
from genet.storage import Record


class Candidate(Record):
    """A network that may be chosen, with its predictions."""

    network: str  # its notation
    resolution: int
    predicted_ms: float  # per batch
    predicted_accuracy: float
    parameters: int


SLICES = 256
ROUNDING = 1e-9  # relative difference of sums of the same blocks in another order
NOTHING = "stem, head and every super-block need a block that could be measured, got none for one of them; see latency.jsonl"
State = tuple[int, int]  # outgoing width, kernels so far (0 if they do not count)


@dataclass(frozen=True, slots=True)
class _Front:
    """Ways to one state that few others beat, each with its origin."""

    ms: np.ndarray
    gain: np.ndarray
    parameters: np.ndarray
    before: np.ndarray  # number of the state before
    position: np.ndarray  # in that state's front
    choice: np.ndarray  # of the super-block

    def __getitem__(self, kept: np.ndarray) -> _Front:
        return _Front(*(getattr(self, name)[kept] for name in self.__slots__))


def frontier(tables: ChoiceTables) -> tuple[Candidate, ...]:
    """Return every network that no other is predicted to beat in both latency and accuracy, fastest first.

    Of two that are alike in both, it has the one with fewer parameters (or, if the host decides latencies, as their parts
    compare).
    """
    return ExactSolver(tables).frontier()


class ExactSolver:
    """The dynamic programme of some choice tables, solved once for all budgets."""

    def __init__(self, tables: ChoiceTables) -> None:
        stem_ms, parameters, kernels = tables.stem
        if not math.isfinite(stem_ms):
            raise EvidenceError(NOTHING)
        zero = np.zeros(1, int)
        start = _Front(np.array([stem_ms]), np.array([tables.accuracy]), np.array([parameters]), zero, zero, zero)
        (stem_width,) = tables.superblocks[0].reads
        self.tables, self._counted = tables, bool(tables.host_ms)
        self._stages: list[dict[State, _Front]] = [{(stem_width, kernels if self._counted else 0): start}]
        for table in tables.superblocks:
            self._stages.append(_advance(self._stages[-1], table, self._counted))

    def frontier(self) -> tuple[Candidate, ...]:
        """See `frontier`."""
        ends = []
        for number, ((width, kernels), front) in enumerate(self._stages[-1].items()):
            head_ms, head_parameters, head_kernels = self.tables.head[width]
            if math.isfinite(head_ms):
                ms = np.maximum(front.ms + head_ms, self.tables.host_ms * (kernels + head_kernels))
                here = np.arange(len(ms))
                ends.append(_Front(ms, front.gain, front.parameters + head_parameters, np.full(len(ms), number), here, here))
        if not ends:
            raise EvidenceError(NOTHING)
        return tuple(_candidates(self.tables, self._stages, _best(ends)))

    def best(self, limit_ms: float, count: int) -> tuple[Candidate, ...]:
        """Return up to `count` networks of the highest predicted accuracy within a latency, the best first.

        From the last super-block to the first: the part decided behind a place, and the best that its front can still add within
        the rest of the budget. The most promising part is decided further, so the first to be complete are the best.
        """
        numbers = itertools.count()
        waiting: list[tuple[float, int, int, _Partial]] = []

        def push(partials: Iterable[_Partial]) -> None:
            for partial in partials:  # among equals the one decided furthest, or all of them would be explored side by side
                order = (-round(partial.promise, 12), -len(partial.choices), next(numbers))
                heapq.heappush(waiting, (*order, partial))

        push(self._endings(limit_ms * (1 + ROUNDING)))
        found: list[tuple[int, ...]] = []
        while waiting and len(found) < count:
            *_, partial = heapq.heappop(waiting)
            if len(partial.choices) == len(self.tables.superblocks):
                found.append(partial.choices)
            else:
                push(self.extensions(partial))
        return self._as_candidates(found)

    def _endings(self, limit_ms: float) -> Iterator[_Partial]:
        for (width, kernels), front in self._stages[-1].items():
            head_ms, _, head_kernels = self.tables.head[width]
            left = limit_ms - head_ms
            if self.tables.host_ms * (kernels + head_kernels) <= limit_ms and front.ms[0] <= left:
                promise = float(_best_gains(front, np.array([left]))[0])
                yield _Partial(promise, (width, kernels), left, 0.0, ())

    def extensions(self, partial: _Partial) -> list[_Partial]:
        """Decide one more super-block: for every state before it its most promising choices."""
        place = len(self.tables.superblocks) - len(partial.choices) - 1
        table, (width, kernels) = self.tables.superblocks[place], partial.state
        found = []
        for (in_width, launched), front in self._stages[place].items():
            row = table.reads[in_width]
            fits = table.widths[row] == width
            if self._counted:
                fits = fits & (table.kernels[row] == kernels - launched)
            fits = fits & np.isfinite(table.ms[row]) & (table.ms[row] <= partial.left_ms - front.ms[0])
            members = np.flatnonzero(fits)
            left = partial.left_ms - table.ms[row, members]
            promises = partial.gain + table.gain[members] + _best_gains(front, left)
            found += [
                _Partial(
                    float(promises[k]),
                    (in_width, launched),
                    float(left[k]),
                    partial.gain + float(table.gain[members[k]]),
                    (int(members[k]), *partial.choices),
                )
                for k in range(len(members))
            ]
        return found

    def _as_candidates(self, found: Sequence[tuple[int, ...]]) -> tuple[Candidate, ...]:
        if not found:
            return ()
        totals = self.tables.totals(np.array(found))
        candidates = [_candidate(self.tables, choices, *values) for choices, *values in zip(found, *totals, strict=True)]
        return tuple(sorted(candidates, key=lambda candidate: (-candidate.predicted_accuracy, candidate.parameters)))


class _Partial(NamedTuple):
    """The decided super-blocks from one on, and the rest of the budget for those before it."""

    promise: float  # the accuracy that the best of its completions reaches
    state: State  # that they read
    left_ms: float
    gain: float  # of the decided part
    choices: tuple[int, ...]


def _best_gains(front: _Front, left_ms: np.ndarray) -> np.ndarray:
    """Return the best gain of a front within each latency; all have one."""
    return np.asarray(front.gain[np.maximum(np.searchsorted(front.ms, left_ms, side="right") - 1, 0)])


def _advance(before: dict[State, _Front], table: ChoiceTable, counted: bool) -> dict[State, _Front]:
    """Advance by one super-block: for every state after it the best of all fronts before it and all choices."""
    grown: dict[State, list[_Front]] = {}
    for number, ((in_width, kernels), front) in enumerate(before.items()):
        row = table.reads[in_width]
        ms, launched = table.ms[row], table.kernels[row] if counted else np.zeros(len(table.choices), int)
        widths = table.widths[row]
        for width, more in {*zip(widths.tolist(), launched.tolist(), strict=True)}:
            members = np.flatnonzero((widths == width) & (launched == more) & np.isfinite(ms))
            kept = members[pareto(ms[members], table.gain[members], table.parameters[row, members])]
            if len(kept):
                state = (width, kernels + more if counted else 0)
                grown.setdefault(state, []).append(_grow(front, number, table, row, kept))
    if not grown:
        raise EvidenceError(NOTHING)
    return {state: _best(fronts) for state, fronts in sorted(grown.items())}


def _grow(front: _Front, number: int, table: ChoiceTable, row: int, choices: np.ndarray) -> _Front:
    """Return every way of a front with every choice."""
    ways, size = len(front.ms), len(front.ms) * len(choices)
    return _Front(
        ms=np.add.outer(front.ms, table.ms[row, choices]).ravel(),
        gain=np.add.outer(front.gain, table.gain[choices]).ravel(),
        parameters=np.add.outer(front.parameters, table.parameters[row, choices]).ravel(),
        before=np.full(size, number),
        position=np.repeat(np.arange(ways), len(choices)),
        choice=np.tile(choices, ways),
    )


def _best(fronts: Sequence[_Front]) -> _Front:
    joined = _Front(*(np.concatenate([getattr(front, name) for front in fronts]) for name in _Front.__slots__))
    return joined[pareto(joined.ms, joined.gain, joined.parameters)]


def filter_by_utilization(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that none beats in both throughput and utilization (utilization paper, section 4.3)."""
    ms = np.array([candidate.predicted_ms for candidate in candidates])
    macs = np.array([network_cost(Network.parse(candidate.network)).macs for candidate in candidates])
    return tuple(candidates[place] for place in pareto(ms, macs / ms))


def pareto(ms: np.ndarray, gain: np.ndarray, parameters: np.ndarray | None = None) -> np.ndarray:
    """Return positions of the points that none beats in both, ascending in `ms`; ties go to fewest parameters."""
    hopeful = _prefiltered(ms, gain)
    keys = [-gain[hopeful], ms[hopeful]]
    order = hopeful[np.lexsort(keys if parameters is None else [parameters[hopeful], *keys])]
    best = np.maximum.accumulate(gain[order])
    return np.asarray(order[np.concatenate([[True], best[1:] > best[:-1]])[: len(order)]])


def _prefiltered(ms: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return the positions of points that no faster slice of latencies beats: few of many, found without sorting."""
    if len(ms) < 4 * SLICES or ms.min() == ms.max():
        return np.arange(len(ms))
    place = ((ms - ms.min()) * ((SLICES - 1) / (ms.max() - ms.min()))).astype(int)
    best = np.full(SLICES + 1, -np.inf)
    np.maximum.at(best, place + 1, gain)
    return np.flatnonzero(gain > np.maximum.accumulate(best)[place])


def _candidates(tables: ChoiceTables, stages: list[dict[State, _Front]], ends: _Front) -> Iterable[Candidate]:
    """Walk back from every end and write its network down."""
    fronts, accuracies = [list(stage.values()) for stage in stages[1:]], attainable(ends.gain, tables.accuracy)
    for end in range(len(ends.ms)):
        state, position = int(ends.before[end]), int(ends.position[end])
        choices: list[int] = []
        for stage in reversed(fronts):
            front = stage[state]
            choices.append(int(front.choice[position]))
            state, position = int(front.before[position]), int(front.position[position])
        yield _candidate(tables, choices[::-1], ends.ms[end], accuracies[end], ends.parameters[end])


def _candidate(tables: ChoiceTables, choices: Sequence[int], ms: float, accuracy: float, parameters: int) -> Candidate:
    return Candidate(
        network=str(tables.network(choices)),
        resolution=tables.resolution,
        predicted_ms=float(ms),
        predicted_accuracy=float(accuracy),
        parameters=int(parameters),
    )


def random_search(tables: ChoiceTables, count: int, seed: int) -> tuple[Candidate, ...]:
    """Search in the paper's way: of `count` random structures those that no other of them beats, fastest first."""
    picks = tables.random_picks(count, np.random.default_rng(seed))
    found = tables.totals(picks)
    possible = np.flatnonzero(np.isfinite(found.ms))
    best = possible[pareto(*(values[possible] for values in found))]
    return tuple(_candidate(tables, picks[one].tolist(), *(values[one] for values in found)) for one in best)
