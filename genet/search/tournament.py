"""The tournament for the MasterNet: designs of one latency are trained, fewer and fewer of them for longer and longer.

The GENet paper trained twenty designs of one latency, and began its search with the best (section 4.1). Here all are trained
briefly, a third of them for twice as long, and so on; the images held out for the search decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from genet.config.recipe import Schedule
from genet.latency.table import Setting
from genet.search.outcome import TournamentWinner
from genet.search.race import SHORT, short_training
from genet.search.scores import standard_error
from genet.storage import Derived, Record

SURVIVING_SHARE = 1 / 3  # of a round, the best
LAST = 3  # designs of which the best wins without a further round


class Contender(Record):
    """A design at the latency of the MasterNet that the space has. Latencies are milliseconds per image."""

    design: str
    name: str
    network: str
    ms_per_image: float
    interval_ms_per_image: float  # half of the 99.9 % confidence interval
    parameters: int


class Round(Record):
    """A round that has begun: the epochs of its trainings, and what names each of them, by network."""

    epochs: int
    trainings: dict[str, str]


class Tournament(Derived):
    """The contenders to be the MasterNet, that of the space first, and at the end the winner.

    `planned` counts the rounds, of which those in `rounds` have begun. `winner` is a notation.
    """

    setting: Setting
    contenders: tuple[Contender, ...]
    planned: int
    rounds: tuple[Round, ...] = ()
    winner: str | None = None

    @property
    def won(self) -> TournamentWinner | None:
        """The design that has won, None before the end."""
        found = (each for each in self.contenders if each.network == self.winner)
        return next(
            (TournamentWinner(design=each.design, network=each.network, ms_per_image=each.ms_per_image) for each in found), None
        )

    @property
    def trainings(self) -> frozenset[str]:
        """Names of all trainings of the rounds that have begun."""
        return frozenset(id for each in self.rounds for id in each.trainings.values())


class RoundResult(Record):
    """What a training reached on the images held out, 0 to 1; None if it failed."""

    accuracy: float | None
    images: int


class Standing(Record):
    """The standing of a contender: what it reached in each round that it took part in, None before its training is over.

    `state` is won, leads, in, out or failed. `error` is the standard error of what it reached last.
    """

    contender: Contender
    reached: tuple[float | None, ...]
    error: float | None
    state: Literal["won", "leads", "in", "out", "failed"]


def tournament_rounds(designs: int, schedule: Schedule) -> tuple[tuple[int, Schedule], ...]:
    """Return how many designs take part in each round, and how they are trained; no round if there is but one.

    The first round has half the epochs of a short training. Then the best third goes on, trained for twice as long, until three
    or fewer are left. If there are no more than three from the start, they have one round of short trainings. A round as long as
    the one before would repeat its trainings, so both are one.
    """
    sizes = [designs]
    while sizes[-1] > LAST:
        sizes.append(math.ceil(SURVIVING_SHARE * sizes[-1]))
    first = SHORT if len(sizes) == 1 else SHORT / 2
    rounds: dict[int, tuple[int, Schedule]] = {}
    for number, size in enumerate(sizes if designs > 1 else ()):
        short = short_training(schedule, min(1.0, first * 2**number))
        rounds.setdefault(short.epochs, (size, short))
    return tuple(rounds.values())


def ranked(networks: Sequence[str], accuracies: Mapping[str, float]) -> tuple[str, ...]:
    """Return the networks that a round has trained, the best first; equals stay in their order."""
    return tuple(sorted((each for each in networks if each in accuracies), key=lambda each: -accuracies[each]))


def standings(found: Tournament, ended: Mapping[str, RoundResult]) -> tuple[Standing, ...]:
    """Return the standing of every contender, the best first, by what the trainings that have ended reached."""
    ordered = [_standing(found, each, ended) for each in found.contenders]
    ordered.sort(key=lambda each: (-len(each.reached), each.state == "failed", *(-(last or 0.0) for last in each.reached[-1:])))
    first = ordered[0]
    if found.winner is None and first.state == "in" and first.error is not None:
        ordered[0] = first.model_copy(update={"state": "leads"})
    return tuple(sorted(ordered, key=lambda each: each.state != "won"))


def _standing(found: Tournament, contender: Contender, ended: Mapping[str, RoundResult]) -> Standing:
    trainings = [each.trainings[contender.network] for each in found.rounds if contender.network in each.trainings]
    known = [ended.get(training) for training in trainings]
    last = known[-1] if known else None
    state: Literal["won", "in", "out", "failed"] = "in"
    if contender.network == found.winner:
        state = "won"
    elif last and last.accuracy is None:
        state = "failed"
    elif found.winner is not None or len(trainings) < len(found.rounds):
        state = "out"
    return Standing(
        contender=contender,
        reached=tuple(each.accuracy if each else None for each in known),
        error=standard_error([last.accuracy], last.images, 0.0) if last and last.accuracy is not None else None,
        state=state,
    )


def cost_in_trainings(designs: int, schedule: Schedule) -> float:
    """Return what a tournament of so many designs costs at most, in full trainings (T)."""
    return sum(size * training.epochs for size, training in tournament_rounds(designs, schedule)) / schedule.epochs
