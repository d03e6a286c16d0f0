"""From the predicted frontier to a network that is certified to be within the budget.

A sum of blocks is a prediction. Before a network is named it is measured whole, in turn with the MasterNet, until the confidence
interval of its latency is clear of the budget. If it breaks the budget, its measurement corrects the predictions, and the
selection is solved again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from genet.config.budget import Budget
from genet.errors import EvidenceError, MeasurementError
from genet.latency.noise import TOO_NOISY
from genet.latency.table import Setting
from genet.search.solver import Candidate
from genet.statistics import half_interval, intervals_per_deviation
from genet.storage import Derived, Record

INTERIM_LOOKS = (3, 6, 12, 20)  # rounds after which a network is judged; the last is the most that it gets
WIDEST = 0.1  # interval that is expected of a network at most: a noisier machine certifies by chance
ALL_ABOVE = 10  # rounds that are all above a budget: once in a thousand times by chance, if half of all were below
FAR_ABOVE = 2.0  # times a budget: rounds that all take longer are not disturbed ones of a network within it
PATIENCE = 4  # times `measure_top_k`: so many measurements before a budget counts as out of reach


class Certificate(Record):
    """A network's latency, measured whole: the mean of its rounds and half the width of its confidence interval.

    `within` is True if the interval is within the budget, False if it is above, and most rounds too, or if all of many rounds
    are, or all are far above: a few disturbed ones widen an interval or lift it. Else it is None.
    """

    ms: float
    interval_ms: float
    within: bool | None

    @property
    def too_noisy(self) -> bool:
        """Return whether the latency is too uncertain to be of use."""
        return self.interval_ms > TOO_NOISY * self.ms


class SelectedNetwork(Record):
    """The answer to one budget at one resolution. Latencies are milliseconds per image.

    `within` is True for a network that is certified, False if none is: the one named is then the fastest measured. None means
    that nothing was measured here, and the prediction decides. `interval_ms_per_image` is half of the confidence interval.
    A network is `undecided` if its timings spread too much to tell whether it is within; it is not certified then.
    """

    budget: Budget
    budget_ms_per_image: float
    resolution: int
    network: str
    predicted_accuracy: float
    predicted_ms_per_image: float
    measured_ms_per_image: float | None
    interval_ms_per_image: float | None
    within: bool | None
    undecided: bool = False


class Selection(Derived):
    """All choices of a run, in the order of budgets and resolutions, and the setting they were measured in."""

    setting: Setting
    masternet_ms_per_image: float
    prediction_error: float | None  # mean relative error of predictions on networks left out of the correction
    choices: tuple[SelectedNetwork, ...]

    @property
    def answers(self) -> tuple[SelectedNetwork, ...]:
        """The choices whose networks are not known to break their budgets."""
        return tuple(choice for choice in self.choices if choice.within is not False)

    @property
    def undecided(self) -> tuple[Budget, ...]:
        """The budgets that no network is certified for, though one may be within them."""
        met = {choice.budget for choice in self.answers}
        return tuple(dict.fromkeys(choice.budget for choice in self.choices if choice.undecided and choice.budget not in met))

    @property
    def unmet(self) -> tuple[str, ...]:
        """Sentences on budgets that no network meets at any resolution, with the smallest that one does, in the same unit."""
        met = {choice.budget for choice in self.answers}
        return tuple(self._missed(budget) for budget in dict.fromkeys(c.budget for c in self.choices) if budget not in met)

    def _missed(self, budget: Budget) -> str:
        nearest = min((choice for choice in self.choices if choice.budget == budget), key=certain_ms)
        batch, measured = self.setting.batch, nearest.measured_ms_per_image
        masternet_ms = self.masternet_ms_per_image * batch
        if budget in self.undecided:
            straddling = [choice for choice in self.choices if choice.budget == budget and choice.undecided]
            ms, half = min((each.measured_ms_per_image or 0.0, each.interval_ms_per_image or 0.0) for each in straddling)
            return uncertified(budget, ms, half, masternet_ms, batch)
        how = "predicted" if measured is None else "estimated" if self.setting.estimate else "measured"
        ms = nearest.predicted_ms_per_image if measured is None else measured
        smallest = budget.smallest(certain_ms(nearest) * batch, masternet_ms, batch)
        return (
            f"budget {budget.all_forms(masternet_ms, batch)} cannot be met by any network on offer: the fastest is {how} "
            f"at {ms:.4g} ms/image; the smallest that can be met is "
            f"{'about ' * is_noisy(nearest)}{smallest.all_forms(masternet_ms, batch)}"
        )


def is_noisy(choice: SelectedNetwork) -> bool:
    """Return whether the interval of a choice's latency is so wide that its upper end tells nothing."""
    return (choice.interval_ms_per_image or 0.0) > TOO_NOISY * (choice.measured_ms_per_image or math.inf)


def certain_ms(choice: SelectedNetwork) -> float:
    """Return the upper end of the interval of a choice's ms per image, its mean if that is noisy, or else its prediction."""
    if choice.measured_ms_per_image is None:
        return choice.predicted_ms_per_image
    return choice.measured_ms_per_image + (0.0 if is_noisy(choice) else choice.interval_ms_per_image or 0.0)


def uncertified(budget: Budget, ms_per_image: float, interval_ms_per_image: float, masternet_ms: float, batch: int) -> str:
    """Return the sentence on a budget that the nearest network measured may or may not be within; the last two are per batch."""
    certain = ms_per_image + interval_ms_per_image
    larger = budget.smallest(certain * batch, masternet_ms, batch)
    calm = interval_ms_per_image <= TOO_NOISY * ms_per_image
    measured = (
        f"{ms_per_image:.4g} ± {interval_ms_per_image:.4g} ms/image ({interval_ms_per_image / ms_per_image:.1%})"
        if calm
        else f"{ms_per_image:.4g} ms/image on average, at most {certain:.4g}"
    )
    return (
        f"budget {budget.all_forms(masternet_ms, batch)} could not be certified: the nearest network was measured at "
        f"{measured}, which leaves open whether it is within; stop other programs and give the same command again to "
        "measure anew" + (f", or take {larger.all_forms(masternet_ms, batch)}" if calm else "")
    )


def certificate_of(ratios: Sequence[float], reference_ms: float, budget_ms: float, reference_error: float = 0.0) -> Certificate:
    """Judge the rounds of a network: its latency over the reference's, in each.

    `reference_error` is half the relative interval of the reference's own latency, 0 for budgets that are multiples of it.
    """
    mean = statistics.fmean(ratios)
    half = math.hypot(half_interval(ratios), reference_error * mean)
    low, high, limit = min(mean - half, statistics.median(ratios)), mean + half, budget_ms / reference_ms
    far = min(ratios) > FAR_ABOVE * (1 + reference_error) * limit
    above = low > limit or far or (len(ratios) >= ALL_ABOVE and min(ratios) * (1 - reference_error) > limit)
    within = True if high <= limit else False if above else None
    return Certificate(ms=mean * reference_ms, interval_ms=half * reference_ms, within=within)


def could_be_within(ratios: Sequence[float], limit: float, most: int, reference_error: float = 0.0) -> bool:
    """Return whether `most` rounds would certify a network if they had the mean and the spread of these.

    `limit` is the budget over the reference's latency; `reference_error` as in `certificate_of`.
    """
    mean = statistics.fmean(ratios)
    return mean + math.hypot(statistics.stdev(ratios) * intervals_per_deviation(most), reference_error * mean) <= limit


def expected_interval(rounds: Iterable[Sequence[float]], most: int) -> float:
    """Return half the interval that `most` rounds of a network leave, as a share of its latency, by the rounds of others.

    Their median, so that a disturbed round of one does not count; a tenth at most, and 0 without any.
    """
    spreads = [statistics.stdev(each) / statistics.fmean(each) for each in rounds if len(each) > 1]
    return min(WIDEST, statistics.median(spreads) * intervals_per_deviation(most)) if spreads else 0.0


class Certified(NamedTuple):
    """A candidate, as predicted before it was measured, with its certificate."""

    candidate: Candidate
    certificate: Certificate


def best_certified(
    budget_ms: float,
    solve: Callable[[], Sequence[Candidate]],
    certify: Callable[[Candidate], Certificate],
    count: int,
) -> Certified:
    """Return the best candidate that is certified to be within the budget; all in ms per batch.

    `solve` gives the frontier, and is asked anew after every measurement, which has corrected the predictions. The error of the
    last one is taken to hold for its neighbours too, so that the next candidate is the best that should fit. About `count`
    candidates are measured. If none should fit, up to `count` of the fastest are measured, and if none did, finally the very
    fastest; if none is certified, the fastest one that may be within is returned, else the fastest one measured, and its
    certificate says so.
    """
    seen: dict[str, Certified] = {}
    failures: dict[str, MeasurementError] = {}
    slower, hopeless = 1.0, 0
    while len(seen) + len(failures) < (count if _within(seen) else PATIENCE * count):
        best = max((found.candidate.predicted_accuracy for found in _within(seen)), default=-math.inf)
        front = solve()
        if not front:
            raise EvidenceError("a selection needs candidates, got an empty frontier")
        better = [
            candidate
            for candidate in front
            if candidate.network not in {*seen, *failures} and candidate.predicted_accuracy > best
        ]
        last = not _within(seen) and len(seen) + len(failures) == PATIENCE * count - 1
        promising = [] if last else [candidate for candidate in better if candidate.predicted_ms * slower <= budget_ms]
        if not better or (not promising and (_within(seen) or hopeless == count)):
            break
        if promising:
            chosen = max(promising, key=lambda candidate: candidate.predicted_accuracy)
        else:
            chosen, hopeless = min(better, key=lambda candidate: candidate.predicted_ms), hopeless + 1
        try:
            found = certify(chosen)
        except MeasurementError as fault:
            failures[chosen.network] = fault
            continue
        seen[chosen.network] = Certified(chosen, found)
        slower = (found.ms + (found.interval_ms if found.within is None else 0.0)) / chosen.predicted_ms
    if not seen:
        raise next(iter(failures.values()))
    fitting = _within(seen)
    if fitting:
        return max(fitting, key=lambda found: found.candidate.predicted_accuracy)
    undecided = [found for found in seen.values() if found.certificate.within is None]
    return min(undecided or seen.values(), key=lambda found: found.certificate.ms)


def _within(seen: dict[str, Certified]) -> list[Certified]:
    return [found for found in seen.values() if found.certificate.within]
