"""The race: known designs and the search's best are trained alike, and per budget the best of all within it is handed out.

The images held out for the search decide, and nothing else. An accuracy's standard error has two parts: the choice of these
images, which training again does not change, and the luck of a training, which it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, variance

from genet.choose.outcome import Outcome, Raced, Unmet
from genet.errors import EvidenceError
from genet.files import Derived, Record
from genet.latency.table import Setting
from genet.spec.recipe import Budget, Schedule

SHORT = 0.2  # of the epochs, of a short training
WARM_UP = 0.25  # of them at most, to warm up
FINALISTS = 2  # at the least, per budget
IN_DOUBT = 2.0  # standard errors from the best, up to which a network is trained once more


class Entrant(Record):
    """A network in the race for a budget, with what is known of it before any training. Latencies are per image.

    `design` is the known design that it is scaled from; None for a network of the search. The measured latency is None if it is
    evidence from elsewhere that says whether a network is within its budget.
    """

    budget: Budget
    budget_ms_per_image: float
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

    def within(self, budget_ms_per_image: float) -> bool:
        """Whether it is within a budget: its own, a larger one, or one that its interval is clear of."""
        if self.budget_ms_per_image <= budget_ms_per_image:
            return True
        found = self.ms_per_image if self.ms_per_image is not None else self.predicted_ms_per_image
        return found is not None and found + (self.interval_ms_per_image or 0.0) <= budget_ms_per_image


class Entrants(Derived):
    """All networks in the race, budget by budget, and the budgets that no network meets."""

    setting: Setting
    masternet_ms_per_image: float
    entrants: tuple[Entrant, ...]
    unmet: tuple[Unmet, ...]


class Score(Record):
    """What a network reached in its full trainings; accuracies are 0 to 1, on so many images."""

    held_out: tuple[float, ...]
    test: tuple[float, ...]
    held_out_images: int
    test_images: int


def short_training(schedule: Schedule) -> Schedule:
    """Return the same training with a fifth of its epochs, of which a quarter at most warm up."""
    epochs = max(1, round(SHORT * schedule.epochs))
    warmup = min(schedule.warmup_epochs, int(WARM_UP * epochs))
    return schedule.model_copy(update={"epochs": epochs, "warmup_epochs": warmup})


def finalists(entrants: Sequence[Entrant], reached: Mapping[str, float], share: float) -> tuple[str, ...]:
    """Return the networks of one budget to train fully, by what short trainings reached: the best share, two at least.

    The best of the search and the best known design are among them, so that they are always compared.
    """
    ranked = sorted({e.network: e for e in entrants if e.network in reached}.values(), key=lambda e: -reached[e.network])
    chosen = ranked[: max(FINALISTS, math.ceil(share * len(ranked)))]
    for known in (True, False):
        kind = [entrant for entrant in ranked if (entrant.design is not None) == known]
        chosen += [entrant for entrant in kind[:1] if entrant not in chosen]
    return tuple(entrant.network for entrant in chosen)


def in_doubt(entrants: Sequence[Entrant], scores: Mapping[str, Score]) -> tuple[str, ...]:
    """Return the networks of one budget that are within two standard errors of the best, if there are several."""
    networks = dict.fromkeys(entrant.network for entrant in entrants if entrant.network in scores)
    if len(networks) < 2:
        return ()
    luck = luck_of_trainings(scores.values())
    best = max(networks, key=lambda network: fmean(scores[network].held_out))
    close = [network for network in networks if _lead(scores[best], scores[network], luck) <= IN_DOUBT]
    return tuple(close) if len(close) > 1 else ()


def luck_of_trainings(scores: Iterable[Score]) -> float:
    """Return the variance of accuracy from one training of a network to the next, pooled over all; 0 if none has two."""
    several = [score.held_out for score in scores if len(score.held_out) > 1]
    freedom = sum(len(held_out) - 1 for held_out in several)
    return sum(variance(held_out) * (len(held_out) - 1) for held_out in several) / freedom if freedom else 0.0


def standard_error(accuracies: Sequence[float], images: int, luck: float) -> float:
    """Return the standard error of a mean accuracy over trainings, all judged on the same images."""
    mean = min(1.0, max(0.0, fmean(accuracies)))
    spread = max(mean * (1 - mean), 1 / (images + 2))  # none right, or none wrong, of few images is no certainty
    return math.sqrt(spread / images + luck / len(accuracies))


def _lead(one: Score, other: Score, luck: float) -> float:
    """Return by how many standard errors of their difference one is ahead of the other."""
    errors = (standard_error(score.held_out, score.held_out_images, luck) for score in (one, other))
    return (fmean(one.held_out) - fmean(other.held_out)) / math.hypot(*errors)


def outcomes(entrants: Sequence[Entrant], scores: Mapping[str, Score]) -> tuple[Outcome, ...]:
    """Return per budget the best of all fully trained networks within it, whichever budget they were trained for.

    Beside it stand the best known design and the best network of the search. A lead over the best of the other kind of less than
    one standard error is a tie.

    EvidenceError if a budget has entrants, and none was trained.
    """
    luck, found = luck_of_trainings(scores.values()), []
    for budget, limit in dict.fromkeys((e.budget, e.budget_ms_per_image) for e in entrants):
        inside = {e.network: e for e in entrants if e.network in scores and e.within(limit)}
        if not inside:
            raise EvidenceError(f"the race for budget {budget} failed: got no network that could be trained, expected one")
        ranked = sorted(inside.values(), key=lambda entrant: -fmean(scores[entrant.network].held_out))
        best, others = ranked[0], [each for each in ranked if (each.design is None) != (ranked[0].design is None)]
        tie = bool(others) and _lead(scores[best.network], scores[others[0].network], luck) < 1
        known, searched = ([each for each in ranked if (each.design is not None) == kind] for kind in (True, False))
        found.append(
            Outcome(
                **dict(raced(best, scores[best.network], luck)),
                budget=budget,
                budget_ms_per_image=limit,
                tie=tie,
                known=raced(known[0], scores[known[0].network], luck) if known else None,
                best_searched=raced(searched[0], scores[searched[0].network], luck) if searched else None,
            )
        )
    return tuple(found)


def raced(entrant: Entrant, score: Score, luck: float) -> Raced:
    """Return what a network reached, with its latency."""
    return Raced(
        name=entrant.name,
        network=entrant.network,
        resolution=entrant.resolution,
        searched=entrant.design is None,
        design=entrant.design,
        trainings=len(score.held_out),
        held_out_accuracy=fmean(score.held_out),
        held_out_error=standard_error(score.held_out, score.held_out_images, luck),
        test_accuracy=fmean(score.test),
        test_error=standard_error(score.test, score.test_images, luck),
        predicted_accuracy=entrant.predicted_accuracy,
        predicted_ms_per_image=entrant.predicted_ms_per_image,
        ms_per_image=entrant.ms_per_image,
        interval_ms_per_image=entrant.interval_ms_per_image,
        parameters=entrant.parameters,
        macs=entrant.macs,
    )


def trainings_at_most(networks: int, budgets: int, share: float, repeats: int) -> float:
    """Return what a race of so many networks per budget costs at most, in full trainings (T)."""
    finals = max(FINALISTS, math.ceil(share * networks)) + 1  # the best of a kind may come on top
    return budgets * (SHORT * networks + min(networks, finals) * repeats)
