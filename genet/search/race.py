"""The race: known designs and the search's best are trained alike, and per budget the best of all within it wins.

The images held out for the search decide, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from genet.config.budget import Budget
from genet.config.recipe import Race, Schedule, Training
from genet.latency.table import Setting
from genet.search.outcome import Outcome, RacedNetwork, UnmetBudget
from genet.search.scores import Comparison, Score, standard_error
from genet.statistics import pooled_variance
from genet.storage import Derived, Record

SHORT = 0.4  # of the epochs, of a short training: half of it ranks worse (Kendall 0.31 for 0.56, benchmarks/results/blind)
WARM_UP = 0.25  # of them at most, to warm up
FINALISTS = 2  # per budget, at least
IN_DOUBT = 2.0  # standard errors from the best, up to which a network is trained once more
TIE = 1.0  # standard errors of a lead, below which it is called one


class Entrant(Record):
    """A network in the race for a budget, with what is known of it before any training. Latencies are per image.

    `design` is the known design that it is scaled from; None for a network of the search. `within` are all budgets that it is
    certified to be within; if latencies are evidence from elsewhere, predicted to be. The measured latency is None then.
    """

    budget: Budget
    budget_ms_per_image: float
    within: tuple[Budget, ...]
    design: str | None
    name: str
    network: str
    resolution: int
    predicted_accuracy: float | None = None
    predicted_ms_per_image: float | None = None
    ms_per_image: float | None = None
    interval_ms_per_image: float | None = None
    parameters: int
    macs: int


class JointTrial(Record):
    """A whole network near a budget, proposed for a short training to learn from."""

    network: str
    budget: Budget
    round: int = 0  # of its run, from 1; 0 in a file of an earlier version


class Entrants(Derived):
    """All networks in the race, budget by budget, and the budgets that no network meets.

    `joint` are the joint trials that were proposed, and `promoted` those of them that go on in the race. `not_within` has the
    known designs that are missing from budgets which others are within, as no scale of them is certified to be. `untimed` are
    those that are missing since scales of theirs could not be timed, and why.
    """

    setting: Setting
    masternet_ms_per_image: float
    entrants: tuple[Entrant, ...]
    unmet: tuple[UnmetBudget, ...]
    joint: tuple[JointTrial, ...] = ()
    promoted: tuple[Entrant, ...] = ()
    promoted_inputs: str = ""
    untimed: dict[str, str] = {}  # noqa: RUF012 (a field of a frozen record)
    not_within: dict[str, tuple[Budget, ...]] = {}  # noqa: RUF012 (by design; none in a file of an earlier version)

    @property
    def undecided(self) -> tuple[Budget, ...]:
        """The budgets that no network is certified for, though one may be within them."""
        return tuple(each.budget for each in self.unmet if each.undecided)

    @property
    def racing(self) -> tuple[Entrant, ...]:
        """All who race."""
        return self.entrants + self.promoted


def short_training(schedule: Schedule, share: float = SHORT) -> Schedule:
    """Return the same training with two fifths of its epochs, or another share, of which a quarter at most warm up.

    Weights are not averaged: over so few epochs their average would still be mostly the first ones. A training that cannot be any
    shorter is its own short one, so that nothing is trained twice.
    """
    epochs = max(1, round(share * schedule.epochs))
    if epochs == schedule.epochs:
        return schedule
    warmup = min(schedule.warmup_epochs, int(WARM_UP * epochs))
    raw = {"ema": None} if isinstance(schedule, Training) else {}
    return schedule.model_copy(update={"epochs": epochs, "warmup_epochs": warmup, **raw})


def finalists(entrants: Sequence[Entrant], accuracies: Mapping[str, float], share: float) -> tuple[str, ...]:
    """Return the networks of one budget to train fully, by what short trainings reached: the best share, two at least.

    The best of the search and the best known design are among them, so that they are always compared.
    """
    ranked = sorted({e.network: e for e in entrants if e.network in accuracies}.values(), key=lambda e: -accuracies[e.network])
    chosen = ranked[: max(FINALISTS, math.ceil(share * len(ranked)))]
    for known in (True, False):
        kind = [entrant for entrant in ranked if (entrant.design is not None) == known]
        chosen += [entrant for entrant in kind[:1] if entrant not in chosen]
    return tuple(entrant.network for entrant in chosen)


def in_doubt(entrants: Sequence[Entrant], scores: Mapping[str, Score]) -> tuple[str, ...]:
    """Return the networks of one budget that are within two standard errors of the best, if there are several."""
    networks, compared = dict.fromkeys(each.network for each in entrants if each.network in scores), Comparison(scores)
    if len(networks) < 2:
        return ()
    best = max(networks, key=compared.accuracy)
    leads = {network: compared.lead(best, network) for network in networks}
    close = [network for network, (lead, error) in leads.items() if network == best or lead <= IN_DOUBT * error]
    return tuple(close) if len(close) > 1 else ()


def outcomes(entrants: Sequence[Entrant], scores: Mapping[str, Score]) -> tuple[Outcome, ...]:
    """Return per budget the best of all fully trained networks within it, whichever budget they were trained for.

    Beside it stand the best known design and the best network of the search. A lead over the best of the other kind of less than
    one standard error is a tie. A budget none of whose networks was trained is left out.
    """
    compared, found = Comparison(scores), []
    by_network = raced_networks(entrants, scores)
    limits: dict[Budget, float] = {}
    for entrant in entrants:
        limits.setdefault(entrant.budget, entrant.budget_ms_per_image)
    for budget, limit in limits.items():
        inside = {e.network for e in entrants if e.network in scores and budget in e.within}
        ranked = sorted((each for each in by_network if each.network in inside), key=lambda each: -each.held_out_accuracy)
        if not ranked:
            continue
        best = ranked[0]
        known, searched = (next((each for each in ranked if each.searched == kind), None) for kind in (False, True))
        other = known if best.searched else searched
        lead, error = compared.lead(best.network, other.network) if other else (0.0, None)
        found.append(
            Outcome(
                **dict(best),
                budget=budget,
                budget_ms_per_image=limit,
                tie=error is not None and lead < TIE * error,
                lead_error=error,
                known=known,
                best_searched=searched,
            )
        )
    return tuple(found)


def raced_networks(entrants: Sequence[Entrant], scores: Mapping[str, Score]) -> tuple[RacedNetwork, ...]:
    """Return the accuracies that every fully trained network reached, with its latency."""
    compared = Comparison(scores)
    test_variance = pooled_variance(score.test for score in scores.values())
    surest = sorted(entrants, key=lambda entrant: -(entrant.interval_ms_per_image or 0.0))
    by_network = {entrant.network: entrant for entrant in surest}  # of a network measured for two budgets the longer one
    return tuple(
        RacedNetwork(
            name=entrant.name,
            network=entrant.network,
            resolution=entrant.resolution,
            searched=entrant.design is None,
            design=entrant.design,
            trainings=len(score.held_out),
            inherited=score.inherited,
            held_out_accuracy=compared.accuracy(entrant.network),
            held_out_error=compared.error(entrant.network),
            test_accuracy=fmean(score.test),
            test_error=standard_error(score.test, score.test_images, test_variance),
            predicted_accuracy=entrant.predicted_accuracy,
            predicted_ms_per_image=entrant.predicted_ms_per_image,
            ms_per_image=entrant.ms_per_image,
            interval_ms_per_image=entrant.interval_ms_per_image,
            parameters=entrant.parameters,
            macs=entrant.macs,
        )
        for entrant, score in ((by_network[network], score) for network, score in scores.items())
    )


def trainings_at_most(networks: int, budgets: int, joint_trials: int, race: Race, schedule: Schedule) -> float:
    """Return what joint trials and a race of so many networks per budget cost at most, in full trainings (T)."""
    _, share, repeats = race.counts
    finals = min(networks, max(FINALISTS, math.ceil(share * networks)) + 1)  # the best of a kind may come on top
    short = short_training(schedule).epochs / schedule.epochs
    short_cost = networks * short if networks > FINALISTS or joint_trials else 0.0
    return joint_trials * short + budgets * (short_cost + finals * repeats)
