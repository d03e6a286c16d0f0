"""The selection step, exact: the whole frontier of predicted accuracy over predicted latency in one pass.

The paper draws random structures; but predicted accuracy is a sum over super-blocks, and so is latency once the width
that a super-block reads is known. Dynamic programming over (super-block, outgoing width), keeping for each the choices
that no other beats in both, therefore finds the best network for every budget at once. Where the host that launches
kernels may be the slower side, kernels are counted too, and the states are (super-block, outgoing width, kernels).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from genet.choose.offers import Offer, Offers
from genet.errors import EvidenceError
from genet.files import Record


class Candidate(Record):
    """A network that may be chosen, with what is predicted of it."""

    network: str  # its notation
    resolution: int
    predicted_ms: float  # per batch
    predicted_accuracy: float
    parameters: int


SLICES = 256
NOTHING = "stem, head and every super-block must have a block that could be measured, and one has none; see latency.jsonl"
State = tuple[int, int]  # outgoing width, kernels so far (0 where they do not count)


@dataclass(frozen=True, slots=True)
class _Front:
    """Ways to one state that few others beat, each with where it came from."""

    ms: np.ndarray
    gain: np.ndarray
    parameters: np.ndarray
    before: np.ndarray  # number of the state before
    position: np.ndarray  # in that state's front
    choice: np.ndarray  # of the super-block

    def __getitem__(self, kept: np.ndarray) -> _Front:
        return _Front(*(getattr(self, name)[kept] for name in self.__slots__))


def frontier(offers: Offers, layers: int = 1) -> tuple[Candidate, ...]:
    """Every network that no other is predicted to beat in both latency and accuracy, fastest first.

    Of two that are alike in both, the one with fewer parameters. With more `layers`, also what is on the frontier once the
    networks of the layers before are taken out: the `layers` best networks for any budget are among them.
    """
    stem_ms, parameters, kernels = offers.stem
    if not math.isfinite(stem_ms):
        raise EvidenceError(NOTHING)
    zero = np.zeros(1, int)
    start = _Front(np.array([stem_ms]), np.array([offers.accuracy]), np.array([parameters]), zero, zero, zero)
    (stem_width,) = offers.superblocks[0].reads
    stages: list[dict[State, _Front]] = [{(stem_width, kernels if offers.host_ms else 0): start}]
    for offer in offers.superblocks:
        stages.append(_advance(stages[-1], offer, bool(offers.host_ms), layers))
    ends = []
    for number, ((width, kernels), front) in enumerate(stages[-1].items()):
        head_ms, head_parameters, head_kernels = offers.head[width]
        if math.isfinite(head_ms):
            ms = np.maximum(front.ms + head_ms, offers.host_ms * (kernels + head_kernels))
            here = np.arange(len(ms))
            ends.append(_Front(ms, front.gain, front.parameters + head_parameters, np.full(len(ms), number), here, here))
    if not ends:
        raise EvidenceError(NOTHING)
    return tuple(_candidates(offers, stages, _best(ends, layers)))


def _advance(before: dict[State, _Front], offer: Offer, counted: bool, layers: int) -> dict[State, _Front]:
    """One super-block further: for every state after it the best of all fronts before it and all choices."""
    grown: dict[State, list[_Front]] = {}
    width_of = np.array([choice.width for choice in offer.choices])
    for number, ((in_width, kernels), front) in enumerate(before.items()):
        row = offer.reads[in_width]
        ms, launched = offer.ms[row], offer.kernels[row] if counted else np.zeros(len(width_of), int)
        for width, more in {*zip(width_of.tolist(), launched.tolist(), strict=True)}:
            members = np.flatnonzero((width_of == width) & (launched == more) & np.isfinite(ms))
            kept = members[_layers(ms[members], offer.gain[members], offer.parameters[row, members], layers)]
            if len(kept):
                state = (width, kernels + more if counted else 0)
                grown.setdefault(state, []).append(_grow(front, number, offer, row, kept))
    if not grown:
        raise EvidenceError(NOTHING)
    return {state: _best(fronts, layers) for state, fronts in sorted(grown.items())}


def _grow(front: _Front, number: int, offer: Offer, row: int, choices: np.ndarray) -> _Front:
    """Every way of a front with every choice."""
    ways, size = len(front.ms), len(front.ms) * len(choices)
    return _Front(
        ms=np.add.outer(front.ms, offer.ms[row, choices]).ravel(),
        gain=np.add.outer(front.gain, offer.gain[choices]).ravel(),
        parameters=np.add.outer(front.parameters, offer.parameters[row, choices]).ravel(),
        before=np.full(size, number),
        position=np.repeat(np.arange(ways), len(choices)),
        choice=np.tile(choices, ways),
    )


def _best(fronts: Sequence[_Front], layers: int) -> _Front:
    joined = _Front(*(np.concatenate([getattr(front, name) for front in fronts]) for name in _Front.__slots__))
    return joined[_layers(joined.ms, joined.gain, joined.parameters, layers)]


def pareto(ms: np.ndarray, gain: np.ndarray, parameters: np.ndarray | None = None) -> np.ndarray:
    """Positions of the points that none beats in both, ascending in `ms`; of equal points the one with fewest parameters."""
    hopeful = _hopeful(ms, gain)
    keys = [-gain[hopeful], ms[hopeful]]
    order = hopeful[np.lexsort(keys if parameters is None else [parameters[hopeful], *keys])]
    best = np.maximum.accumulate(gain[order])
    return np.asarray(order[np.concatenate([[True], best[1:] > best[:-1]])[: len(order)]])


def _hopeful(ms: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Positions of the points that none of a faster slice of latencies beats: a few of many, found without sorting them."""
    if len(ms) < 4 * SLICES or ms.min() == ms.max():
        return np.arange(len(ms))
    place = ((ms - ms.min()) * ((SLICES - 1) / (ms.max() - ms.min()))).astype(int)
    best = np.full(SLICES + 1, -np.inf)
    np.maximum.at(best, place + 1, gain)
    return np.flatnonzero(gain > np.maximum.accumulate(best)[place])


def _layers(ms: np.ndarray, gain: np.ndarray, parameters: np.ndarray, layers: int) -> np.ndarray:
    """Positions of the frontier, and of the frontiers of what is left, ascending in `ms`."""
    left = np.arange(len(ms))
    kept: list[np.ndarray] = []
    for _ in range(layers):
        front = pareto(ms[left], gain[left], parameters[left])
        kept.append(left[front])
        left = np.delete(left, front)
    every = np.concatenate(kept)
    return every if layers == 1 else every[np.argsort(ms[every], kind="stable")]


def _candidates(offers: Offers, stages: list[dict[State, _Front]], ends: _Front) -> Iterable[Candidate]:
    """Walk back from every end and write its network down."""
    fronts = [list(stage.values()) for stage in stages[1:]]
    for end in range(len(ends.ms)):
        state, position = int(ends.before[end]), int(ends.position[end])
        choices: list[int] = []
        for stage in reversed(fronts):
            front = stage[state]
            choices.append(int(front.choice[position]))
            state, position = int(front.before[position]), int(front.position[position])
        yield Candidate(
            network=str(offers.network(choices[::-1])),
            resolution=offers.resolution,
            predicted_ms=float(ends.ms[end]),
            predicted_accuracy=float(ends.gain[end]),
            parameters=int(ends.parameters[end]),
        )


def drawn(offers: Offers, count: int, seed: int) -> tuple[Candidate, ...]:
    """The paper's way: of `count` random structures those that no other of them beats, fastest first."""
    draw = np.random.default_rng(seed)
    picks = np.column_stack([draw.integers(len(offer.choices), size=count) for offer in offers.superblocks])
    found = offers.totals(picks)
    possible = np.flatnonzero(np.isfinite(found.ms))
    best = possible[pareto(*(values[possible] for values in found))]
    return tuple(
        Candidate(
            network=str(offers.network(picks[one].tolist())),
            resolution=offers.resolution,
            predicted_ms=float(found.ms[one]),
            predicted_accuracy=float(found.accuracy[one]),
            parameters=int(found.parameters[one]),
        )
        for one in best
    )
