"""A network as fast as wanted that keeps the most important channels and blocks: offers, latencies, choice, certificate.

Edges of the staircase are offered over all narrower widths, not beside the present one alone: importance tells what a channel is
worth in its place, where the paper's objective has to keep the parameters, and so the shape, as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genet.config.options import Spelling, as_option
from genet.errors import EvidenceError
from genet.latency.profile import profile_blocks, profile_sweep
from genet.latency.staircase.staircase import Staircase, analyse
from genet.latency.table import LatencyTable, NetworkRow, Rounds
from genet.latency.timing.ratio import measure_rounds
from genet.progress import UNSEEN, Tracker
from genet.storage import Record
from genet.studies.align.matrix import Matrices
from genet.studies.align.program import GroupOffer, Program, PruningChoice, fastest, least_lost
from genet.studies.align.study import NEGLIGIBLE, Ratio, begin_table, check_measured
from genet.studies.align.subject import Movable

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter
    from genet.studies.align.importance import Importance
    from genet.studies.align.module_subject import ModuleSubject

NARROWEST = 1 / 8  # of the present width
FINE = 12  # fewest widths to measure, if the group has that many
OFFERED = 8  # widths on offer, at most: a matrix has their square
MEASURED = 10  # whole networks, at most
NEAR = 0.01  # below the target: such a network need not be bettered
APART = 0.001  # smallest difference between two shares of the layers' time that counts
SURELY = 0.2  # of what lies between two shares, that a step leaves behind at least


class PrunedGroup(Record):
    """A group's widths on offer, the share of its importance kept at each, and its width in the result; None once it is gone."""

    name: str
    layers: tuple[str, ...]
    width: int
    offered: tuple[int, ...]
    kept: tuple[float, ...]
    new: int | None


class Pruning(Record):
    """A network pruned to a latency on one device: the most important channels and blocks are kept.

    `removed` are those of the removable `blocks` that are gone. `rise` is the importance lost, a rise of the loss to second
    order, and `kept` the share of all importance that is kept. `predicted` is the latency of the layers that change over their
    present one, `measured` that of the whole network, whose upper confidence limit is within the target.
    """

    network: str
    device: str
    estimate: bool
    batch: int
    target: float
    slots: tuple[PrunedGroup, ...]
    blocks: tuple[str, ...]
    removed: tuple[str, ...]
    fixed: dict[str, str]
    parameters: tuple[int, int]
    rise: float
    kept: float
    predicted: float
    measured: Ratio

    @property
    def widths(self) -> dict[str, int]:
        """The widths of the groups that move."""
        return {slot.name: slot.new for slot in self.slots if slot.new not in (None, slot.width)}

    @property
    def parameter_gain(self) -> float:
        """Relative change of the parameters."""
        return self.parameters[1] / self.parameters[0] - 1


@dataclass(frozen=True)
class MeteredSubject:
    """A network to prune, the table of its latencies, and the meter that takes what the table lacks."""

    subject: ModuleSubject
    table: LatencyTable
    meter: Meter


def narrower(movable: Movable) -> tuple[int, ...]:
    """Return the widths to measure: down to an eighth of the present one, in steps of a power of two times its units."""
    unit, width = movable.multiple, movable.width
    least = max(unit, math.ceil(width * NARROWEST / unit) * unit)
    step = unit
    while (width - least) // (2 * step) >= FINE - 1:
        step *= 2
    return tuple(sorted({width, *range(-(-least // step) * step, width, step)}))


def widths_on_offer(staircase: Staircase) -> tuple[int, ...]:
    """Return the edges of a staircase up to the present width, its last, or all widths on a slope; the most apart of many."""
    widths = staircase.widths if staircase.pattern == "slope" else staircase.candidates
    picked = np.linspace(0, len(widths) - 1, min(OFFERED, len(widths))).round().astype(int)
    return tuple(widths[index] for index in picked)


def find_offers(metered: MeteredSubject, importance: Importance, tracker: Tracker = UNSEEN) -> tuple[GroupOffer, ...]:
    """Measure every group over narrower widths, as far as the table lacks them, and offer its edges.

    EvidenceError if no width of the network may move.
    """
    subject, table, meter = metered.subject, metered.table, metered.meter
    begin_table(subject, table, meter, tracker, subject.removable)
    found = []
    for movable in subject.movable:
        at_width = {width: movable.blocks(width) for width in narrower(movable)}
        widths: tuple[int, ...] = (movable.width,)
        if len(at_width) > 1:
            sweep, _ = profile_sweep(table, meter, at_width, (movable.width,), tracker)
            check_measured(movable, sweep.widths, table)
            widths = widths_on_offer(analyse(sweep))
        group = subject.tied.of(movable.name)
        every, *lost = importance.lost(group, (0, *(width // movable.multiple for width in widths)))
        found.append(GroupOffer(movable.name, widths, tuple(lost), every, subject.around_group(movable.name)))
    return tuple(found)


def find_program(
    metered: MeteredSubject, offers: Sequence[GroupOffer], blocks: Mapping[str, float], tracker: Tracker = UNSEEN
) -> Program:
    """Measure every layer over the pairs of widths that it may read and write, as far as the table lacks them."""
    subject, table = metered.subject, metered.table
    layers = [layer for layer in subject.tied.layers.values() if layer.kind != "norm"]
    matrices = Matrices(layers, {offer.name: offer.widths for offer in offers}, subject.layer_blocks, subject.around)
    wanted = matrices.wanted()
    profile_blocks(table, metered.meter, wanted, wanted[0], 0, tracker)
    return Program(tuple(offers), dict(blocks), matrices.costs(table.ms))


def prune(
    metered: MeteredSubject, program: Program, target: float, tracker: Tracker = UNSEEN, spelled: Spelling = as_option
) -> Pruning:
    """Choose what loses the least importance at a share of the present latency, measured; every network timed is counted.

    The share of the layers' own time that is asked for is moved until the whole network's upper limit is within the target, and
    near it. EvidenceError, with the option as the user spells it, if even the fastest choice is not within it.
    """
    floor, now = fastest(program), program.ms(program.present)
    search = _ShareSearch(target, program.ms(floor) / now)
    known: list[tuple[PruningChoice, Ratio]] = []

    def ratio_with(choice: PruningChoice) -> Ratio:
        found = next((ratio for other, ratio in known if other == choice), None)
        if found is None:
            found = measure_choice(metered, choice)
            known.append((choice, found))
            tracker.advance(f"{found.mean:.3f} of the latency")
        return found

    goes_on = True
    while goes_on and len(known) < MEASURED:
        choice = least_lost(program, search.share * now) or floor
        ratio = ratio_with(choice)
        goes_on = search.goes_on(program.ms(choice) / now, ratio)
    met = [(choice, ratio) for choice, ratio in known if ratio.above <= target]
    if not met:
        ratio = ratio_with(floor)
        if ratio.above > target:
            error = f" ± {ratio.error:.3f}" if ratio.error else ""
            raise EvidenceError(
                f"{metered.subject.name}: {spelled('target_ratio')}: got {target:g}, expected a ratio that the smallest network "
                f"on offer reaches with certainty; its ratio is {ratio.mean:.3f}{error}"
            )
        met = [(floor, ratio)]
    return _pruning(metered, program, target, *min(met, key=lambda each: program.lost(each[0])))


class _ShareSearch:
    """The share of the layers' own time to ask for next, between one that met the target and one that missed it."""

    def __init__(self, target: float, least: float) -> None:
        self.target, self.share = target, max(target, least)
        self._least, self._stride = least, 1.0
        self._met: tuple[float, float] | None = None  # share, and the upper limit of the whole network's ratio
        self._missed = (1.0, 1.0)

    def goes_on(self, predicted: float, ratio: Ratio) -> bool:
        """Take a measured network into account; return whether another share is worth trying."""
        if ratio.above <= self.target:
            if self._met is None or self.share > self._met[0]:
                self._met = self.share, ratio.above
            if ratio.above > self.target - max(NEAR, ratio.margin):
                return False
        elif predicted < self._missed[0]:
            self._missed = predicted, ratio.above
        low, high = self._met[0] if self._met else self._least, self._missed[0]
        if high - low < APART:
            return False
        edge = SURELY * (high - low)
        self.share = min(max(self._wanted(), low + edge if self._met else low), high - edge)
        return True

    def _wanted(self) -> float:
        """Return the share that lies as far as the target between both, or strides on from the one that missed it."""
        high, above = self._missed
        if self._met is None:
            self._stride *= 1.5
            return high - self._stride * (above - self.target)
        low, below = self._met
        return low + (high - low) * (self.target - NEAR / 2 - below) / (above - below)


def measure_choice(metered: MeteredSubject, choice: PruningChoice) -> Ratio:
    """Return a whole network against the present one; the table keeps every round, and those it has count."""
    subject, table, meter = metered.subject, metered.table, metered.meter
    reference, module = str(subject.network), subject.build(choice.widths, removed=choice.removed)
    network = subject.described(module, subject.name, removed=choice.removed)
    workload = subject.workload(choice.widths, removed=choice.removed)
    row, ops = table.network_row(network), len(workload.ops())
    earlier = row if row and (row.reference, row.ops) == (reference, ops) else None

    def kept(rounds: Rounds) -> Rounds:
        if not isinstance(rounds, NetworkRow):  # else they are of the table
            table.add_network(NetworkRow(network=str(network), reference=reference, ops=ops, **rounds.model_dump()))
        return rounds

    so_far = map(kept, measure_rounds([workload, subject.workload({})], meter, earlier))
    return Ratio.of(next(filter(NEGLIGIBLE.at(meter), so_far)))


def _pruning(metered: MeteredSubject, program: Program, target: float, choice: PruningChoice, ratio: Ratio) -> Pruning:
    subject, setting = metered.subject, metered.meter.setting
    layers = {movable.name: movable.layers for movable in subject.movable}
    built = subject.build(choice.widths, removed=choice.removed)
    slots = tuple(
        PrunedGroup(
            name=offer.name,
            layers=layers[offer.name],
            width=offer.widths[-1],
            offered=offer.widths,
            kept=tuple(1 - lost / (offer.importance or 1.0) for lost in offer.lost),
            new=choice.widths.get(offer.name),
        )
        for offer in program.offers
    )
    return Pruning(
        network=subject.name,
        device=setting.device.name,
        estimate=setting.estimate,
        batch=setting.batch,
        target=target,
        slots=slots,
        blocks=tuple(program.blocks),
        removed=choice.removed,
        fixed=dict(subject.fixed),
        parameters=(subject.parameters({}), sum(each.numel() for each in built.parameters())),
        rise=program.lost(choice),
        kept=1 - program.lost(choice) / (program.importance or 1.0),
        predicted=program.ms(choice) / program.ms(program.present),
        measured=ratio,
    )
