"""The result of a job: the winning network per budget, with all its predictions and measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping

from genet.config.budget import Budget
from genet.latency.noise import TOO_NOISY, noise_warning
from genet.latency.table import Setting
from genet.search.certificate import uncertified
from genet.storage import Derived, Record

TELLING = 30  # images: with fewer, a standard error says little
MOVED = 0.02  # share of the loss of guessing that a network which learns stays below


TOURNAMENT, MASTER, TRIALS, RACE = "tournament", "MasterNet", "single trials", "joint trials and race"  # parts of a search's cost


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{share:.1%}"


class TrainedNetwork(Derived):
    """A trained network. Accuracies are 0 to 1; `nas_accuracy` is on the `nas_images` held out for the search."""

    network: str
    resolution: int
    nas_accuracy: float
    nas_images: int
    test_accuracy: float
    loss: float | None = None  # mean training loss of the last epoch; None if it was trained elsewhere
    curve: tuple[tuple[int, float, float], ...] = ()  # epoch, its training loss and training accuracy
    images: str | None = None  # digest of their names and sizes; None for embedded images, and in an earlier version

    def why_at_chance(self, classes: int) -> str | None:
        """Return that the accuracy is that of guessing one of `classes`; None if it is not, or if too few images tell."""
        chance = 1 / classes
        error = math.sqrt(chance * (1 - chance) / max(1, self.nas_images))
        if self.nas_images < TELLING or self.nas_accuracy > chance + 2 * error:
            return None
        guessing = math.log(classes)  # the loss of it, with softened labels too
        loss = f", and its training loss is {self.loss:.4g} (guessing: {guessing:.3f})" if self.loss is not None else ""
        return f"its accuracy is {percent(self.nas_accuracy)}, within two standard errors of chance ({percent(chance)}){loss}"

    def why_unlearnt(self, classes: int) -> str | None:
        """Return why the network seems to have learnt nothing; None if it has, or if too few images are held out to tell.

        Its loss tells too, if nothing but softened labels makes its training images harder.
        """
        guessing = math.log(classes)
        if self.nas_images >= TELLING and self.loss is not None and self.loss > (1 - MOVED) * guessing:
            return self.why_at_chance(classes) or f"its training loss is {self.loss:.3f} (guessing: {guessing:.3f})"
        return self.why_at_chance(classes)


class RacedNetwork(Record):
    """A network of the race that was trained fully, once or more. Accuracies are 0 to 1, latencies milliseconds per image.

    `design` names the known design that it is scaled from; it is None for a network of the search. `inherited` tells whether its
    trainings began with the MasterNet's weights, or with new ones. Accuracies are means over trainings; their errors are standard
    errors.
    """

    name: str
    network: str
    resolution: int
    searched: bool
    design: str | None
    trainings: int
    inherited: bool = False
    held_out_accuracy: float
    held_out_error: float
    test_accuracy: float
    test_error: float
    predicted_accuracy: float | None  # predicted accuracy, of networks of the search
    predicted_ms_per_image: float | None
    ms_per_image: float | None  # None if latencies are another machine's evidence
    interval_ms_per_image: float | None  # half of the 99.9 % confidence interval
    parameters: int
    macs: int

    @property
    def noise(self) -> float:
        """Half of the interval of its latency, as a share of it; 0 if it was not measured."""
        return (self.interval_ms_per_image or 0.0) / self.ms_per_image if self.ms_per_image else 0.0

    @property
    def too_noisy(self) -> str:
        """A remark on a latency that tells nothing; empty for others."""
        return f"too noisy to tell ({self.noise:.0%})" if self.noise > TOO_NOISY else ""

    @property
    def export(self) -> str:
        """Folder of its exports, relative to the run folder."""
        return f"networks/{self.name}/export"


class Outcome(RacedNetwork):
    """The final network for a budget, with the best known design and the best network of the search beside it."""

    budget: Budget
    budget_ms_per_image: float
    tie: bool  # its lead over the best of the other kind is less than one standard error
    lead_error: float | None = None  # standard error of that lead; None if there is no other, and in a file of an earlier version
    known: RacedNetwork | None
    best_searched: RacedNetwork | None
    unrivalled: str = ""  # why no network of the other kind stands beside it; empty in a file of an earlier version

    @property
    def exported(self) -> tuple[RacedNetwork, ...]:
        """Networks exported for the budget: the winner, and the best network of the search if a known design won."""
        return (self,) if self.searched or self.best_searched is None else (self, self.best_searched)

    @property
    def verdict(self) -> str:
        """Which network won and by how much, on the held-out images, in words."""
        other = self.known if self.searched else self.best_searched
        reached = (
            f"{self.name} reaches {100 * self.held_out_accuracy:.1f} ± {100 * self.held_out_error:.1f} % on the held-out images"
        )
        if other is None:
            return f"{reached}; {self.unrivalled}" if self.unrivalled else reached
        lead = 100 * (self.held_out_accuracy - other.held_out_accuracy)
        error = 100 * (self.lead_error or math.hypot(self.held_out_error, other.held_out_error))
        kind = "the best known design" if self.searched else "the best network of the search"
        start = ", which began with new weights" if self.inherited and not other.inherited else ""
        tie = f"; a tie, as that is less than one standard error{_speeds(self, other)}" if self.tie else ""
        return f"{reached}, {lead:.1f} ± {error:.1f} points ahead of {other.name}, {kind}{start}{tie}"


def _speeds(one: RacedNetwork, other: RacedNetwork) -> str:
    """Return by how much the other network is faster, as a user may prefer it; empty if their intervals overlap."""
    if one.ms_per_image is None or other.ms_per_image is None:
        return ""
    halves = (one.interval_ms_per_image or 0.0) + (other.interval_ms_per_image or 0.0)
    if one.ms_per_image - other.ms_per_image <= halves:
        return ""
    return f", and {other.name} has {1 - other.ms_per_image / one.ms_per_image:.0%} less latency"


class UnmetBudget(Record):
    """A budget that no network meets, and the smallest that one does, in milliseconds per image.

    If timings spread too much to tell, `measured_ms_per_image` is the nearest network's, with half of its interval. The smallest
    is `approximate` if timings of a network that is too slow spread so much.
    """

    budget: Budget
    budget_ms_per_image: float
    smallest_ms_per_image: float
    approximate: bool = False
    measured_ms_per_image: float | None = None
    interval_ms_per_image: float = 0.0

    @property
    def noise(self) -> float:
        """Half of the interval of the nearest network's latency, as a share of it; 0 if none may be within."""
        return self.interval_ms_per_image / self.measured_ms_per_image if self.measured_ms_per_image else 0.0

    @property
    def undecided(self) -> bool:
        """Return whether a network may be within the budget after all."""
        return self.measured_ms_per_image is not None

    def sentence(self, masternet_ms_per_image: float, batch: int) -> str:
        """Return this as a sentence, with both budgets in all forms."""
        masternet_ms = masternet_ms_per_image * batch
        if self.measured_ms_per_image is not None:
            return uncertified(self.budget, self.measured_ms_per_image, self.interval_ms_per_image, masternet_ms, batch)
        smallest = self.budget.smallest(self.smallest_ms_per_image * batch, masternet_ms, batch)
        return (
            f"budget {self.budget.all_forms(masternet_ms, batch)} cannot be met by any network: the smallest that can be "
            f"met is {'about ' * self.approximate}{smallest.all_forms(masternet_ms, batch)}"
        )


class TournamentWinner(Record):
    """The design that won the tournament for the MasterNet, and its latency in milliseconds per image."""

    design: str
    network: str
    ms_per_image: float


class Outcomes(Derived):
    """The result of a job, the setting in which all latencies were measured, and every network that raced to the end.

    `masternet_ms_per_image` is the latency that budgets are multiples of: that of the MasterNet in the space. `won` tells of the
    one that was trained, if a tournament found it. `failed` tells why networks could not be trained, and `tried_again`
    which of them the next command tries again. A budget has an outcome, or is `unmet`, or is `untrained`: networks were
    certified for it, and the training of every one failed. `not_within` has the known designs that are missing from budgets
    which others are within, as no scale of them is certified to be. `unlearnt` tells why raced networks seem to have learnt
    nothing, `outraced` the held-out accuracies of short trainings that no full one followed.
    """

    setting: Setting
    masternet: TrainedNetwork
    masternet_ms_per_image: float
    won: TournamentWinner | None = None
    outcomes: tuple[Outcome, ...]
    unmet: tuple[UnmetBudget, ...]
    untrained: tuple[Budget, ...] = ()
    raced: tuple[RacedNetwork, ...]
    failed: dict[str, str] = {}  # noqa: RUF012 (a field of a frozen record)
    tried_again: tuple[str, ...] = ()
    trainings: float  # cost of tournament, MasterNet, trials and race, in full trainings (T)
    cost: dict[str, float] = {}  # noqa: RUF012 (the same by parts; none in a file of an earlier version)
    spread: float = 0.0  # of the repeats of one timing of a network raced, the widest
    not_within: dict[str, tuple[Budget, ...]] = {}  # noqa: RUF012 (by design; none in a file of an earlier version)
    unlearnt: dict[str, str] = {}  # noqa: RUF012 (by name; none in a file of an earlier version)
    outraced: dict[str, float] = {}  # noqa: RUF012 (by name; none in a file of an earlier version)

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Sentences on the budgets without a network, or without a useful one."""
        ms, batch = self.masternet_ms_per_image, self.setting.batch
        unmet = (each.sentence(ms, batch) for each in self.unmet)
        failed = dict.fromkeys(self.untrained, "has no network: every training within it failed")
        useless = {
            row.budget: f"has no useful network: the best, {row.name}, has learnt nothing: {self.unlearnt[row.name]}"
            for row in self.outcomes
            if row.name in self.unlearnt
        }
        others = (failed | useless).items()
        return (*unmet, *(f"budget {budget.all_forms(ms * batch, batch)} {why}" for budget, why in others))

    @property
    def others(self) -> tuple[RacedNetwork, ...]:
        """The fully trained networks that no outcome names, the best first."""
        beside = {each.name for row in self.outcomes for each in (row, row.known, row.best_searched) if each}
        return tuple(sorted((row for row in self.raced if row.name not in beside), key=lambda row: -row.held_out_accuracy))

    @property
    def widest_interval(self) -> float:
        """Half of the widest interval of a latency that stands for a budget, as a share of the latency."""
        return max((*(row.noise for row in self.outcomes), *(each.noise for each in self.unmet)), default=0.0)

    @property
    def noise_warning(self) -> str:
        """A warning of latencies that other work has disturbed; empty if none was."""
        return noise_warning(max(self.spread, self.widest_interval))

    @property
    def not_within_note(self) -> str:
        """Tell which known designs are missing from which budgets; empty if none is."""
        alike: dict[str, list[str]] = {}  # names by their budgets
        for name, budgets in self.not_within.items():
            alike.setdefault(", ".join(map(str, budgets)), []).append(name)
        groups = [
            f"of {' and '.join(names)} {'within' if place else 'is certified within'} {budgets}"
            for place, (budgets, names) in enumerate(alike.items())
        ]
        return f"no scaled version {'; '.join(groups)}" if groups else ""

    @property
    def initial_weights_note(self) -> str:
        """Tell which networks of the race began with the MasterNet's weights; empty if none did."""
        fresh = [row.name for row in self.raced if not row.inherited]
        if len(fresh) == len(self.raced):
            return ""
        others = f", except {', '.join(fresh)}" if fresh else ""
        return f"the networks in the race began with the MasterNet's weights{others}"

    @property
    def trained_masternet_ms_per_image(self) -> float:
        """Latency of the MasterNet that was trained."""
        return self.won.ms_per_image if self.won else self.masternet_ms_per_image


def cost_in_words(parts: Mapping[str, float]) -> str:
    """Return what a search costs, in full trainings and by its parts."""
    return f"{sum(parts.values()):.1f} full trainings: " + ", ".join(f"{part} {cost:.1f}" for part, cost in parts.items())
