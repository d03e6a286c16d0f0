"""Rounds of joint trials: whole networks near the budgets are trained shortly, chosen by what those before have taught.

A joint trial is a short training of the race. Half of them are spread, to tell most about all effects. Then each budget in turn
gets the network that is best in one of the worlds that all short trainings so far leave possible, among the neighbours of its
best networks (Thompson sampling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from genet.arch.network import Network
from genet.config.recipe import Budget
from genet.pipeline.context import RunContext
from genet.pipeline.entrants import Field
from genet.search.candidates import fits, near_budget, neighbours, pool_of
from genet.search.race import Entrant, Entrants
from genet.search.rounds import START, promising, spread
from genet.search.surrogate import fit_surrogate, score

PARENTS = 3  # networks of a budget whose neighbours are considered
TRIED = 6  # proposals certified for one place, in case some break the budget

Train = Callable[[Sequence[Entrant]], Mapping[str, float]]  # held-out accuracies of short trainings, by network


def run_joint_trials(job: RunContext, found: Entrants, train: Train) -> tuple[Entrant, ...]:
    """Run the joint trials that the recipe asks for; those known are not proposed again. Returns who goes on in the race.

    These are the entrants found before, and per budget as many as the race takes of those expected to be best.
    """
    if not job.recipe.search.count:
        return found.entrants
    rounds = _Rounds(job, found, train)
    entrants = rounds.run().entrants
    by_network = {entrant.network: entrant for entrant in entrants}
    field = [entrant for entrant in entrants if not entrant.joint]
    searched, *_ = job.recipe.race.counts
    for budget, limit_ms in dict.fromkeys((entrant.budget, entrant.budget_ms_per_image) for entrant in field):
        joint = [by_network[str(network)] for network in rounds.best(budget)]
        best = [entrant for entrant in joint if entrant.joint][:searched]
        field += [entrant.model_copy(update={"budget": budget, "budget_ms_per_image": limit_ms}) for entrant in best]
    return tuple(field)


class _Rounds:
    """The joint trials of a run under way."""

    def __init__(self, job: RunContext, found: Entrants, train: Train) -> None:
        self._job, self._found, self._train = job, found, train
        self._field = Field(job, {entrant.budget: entrant.budget_ms_per_image for entrant in found.entrants})
        self._budgets = list(self._field.limits)
        self._networks: dict[str, Network] = {}  # of the space's shape that were trained, by notation
        self._reached: dict[str, float] = {}
        self._taken = {entrant.network for entrant in found.entrants}
        self._here = not job.recipe.measure.latency_file

    def run(self) -> Entrants:
        """Go on until there are as many joint trials as the recipe asks for, or none of a round can be certified."""
        count = self._job.recipe.search.count
        known = [entrant for entrant in self._found.entrants if entrant.joint]
        self._learn(self._found.entrants)
        start = math.ceil(START * count)
        while self._budgets and len(known) < count:
            draw = np.random.default_rng((self._job.recipe.seed, len(known)))
            if len(known) < start:
                wanted = {budget: len(share) for budget, share in self._shares(start - len(known)).items()}
                proposed = [each for budget, some in wanted.items() for each in self._spread(budget, some, draw)]
            elif not self._networks:  # none of those before could be trained
                break
            else:
                budgets = [self._budgets[place % len(self._budgets)] for place in range(len(known), count)][: len(self._budgets)]
                proposed = [each for budget in budgets for each in self._promising(budget, draw)]
            if not proposed:
                self._job.progress.say(
                    f"  {len(known)} joint trials instead of {count}: no other network is certified near a budget"
                )
                break
            known += proposed
            self._found = self._found.model_copy(update={"entrants": (*self._found.entrants, *proposed)})
            self._found.save(self._job.folder.entrants)
            self._learn(proposed)
        return self._found

    def _shares(self, count: int) -> dict[Budget, range]:
        """Divide so many trials among the budgets."""
        return {budget: range(place, count, len(self._budgets)) for place, budget in enumerate(self._budgets)}

    def _learn(self, entrants: Sequence[Entrant]) -> None:
        """Train networks shortly, and keep those that places can be compared of."""
        self._reached |= self._train(entrants)
        for entrant in entrants:
            if entrant.network in self._reached and "|" in entrant.network:
                network = Network.parse(entrant.network)
                if fits(network, self._job.recipe.space):
                    self._networks[entrant.network] = network

    def _spread(self, budget: Budget, count: int, draw: np.random.Generator) -> list[Entrant]:
        """Return networks near a budget that tell most about all effects together."""
        near = self._near(budget, draw)
        if not near or not count:
            return []
        chosen = spread(pool_of(near), np.arange(len(near)), TRIED + count, draw)
        return self._certified([near[row] for row in chosen], budget, count)

    def _promising(self, budget: Budget, draw: np.random.Generator) -> list[Entrant]:
        """Return the network that may be best within a budget, among the neighbours of the best that were trained."""
        limit_ms, parents = self._limit_ms(budget), self.best(budget)[:PARENTS]
        tables = [(parent, self._field.tables(parent.input.resolution)) for parent in parents]
        near = [each for parent, offered in tables for each in neighbours(offered, parent, limit_ms, draw)]
        near = near or self._near(budget, draw)
        new = list({str(each): each for each in near if str(each) not in self._reached}.values())
        if not new:
            return []
        trained = list(self._networks.values())
        surrogate = fit_surrogate(pool_of([*trained, *new]), np.arange(len(trained)), self._scores(trained))
        rows = promising(surrogate, np.arange(len(trained), len(trained) + len(new)), TRIED, draw)
        return self._certified([new[row - len(trained)] for row in dict.fromkeys(rows.tolist())], budget, 1)

    def _near(self, budget: Budget, draw: np.random.Generator) -> list[Network]:
        """Return random networks near a budget, of all resolutions."""
        tables = [self._field.tables(resolution) for resolution in self._job.resolutions]
        return [each for offered in tables for each in near_budget(offered, self._limit_ms(budget), draw)]

    def _limit_ms(self, budget: Budget) -> float:
        return self._field.limits[budget] * self._field.batch

    def _predicted_ms(self, network: Network) -> float:
        return self._field.tables(network.input.resolution).predict(network).ms / self._field.batch

    def _scores(self, trained: Sequence[Network]) -> np.ndarray:
        return score(np.array([self._reached[str(network)] for network in trained]))

    def best(self, budget: Budget) -> list[Network]:
        """Return the trained networks within a budget, the one first that is best by what all trainings together tell."""
        within = {entrant.network for entrant in self._found.entrants if budget in entrant.within}
        trained = list(self._networks.values())
        if not trained:
            return []
        mean, _ = fit_surrogate(pool_of(trained), np.arange(len(trained)), self._scores(trained)).predict(np.arange(len(trained)))
        ranked = [trained[row] for row in np.argsort(-mean)]
        return [network for network in ranked if str(network) in within]

    def _certified(self, networks: Sequence[Network], budget: Budget, count: int) -> list[Entrant]:
        """Return the first so many that are certified to be within a budget; on evidence from elsewhere, predicted to be."""
        found = list[Entrant]()
        for network in networks:
            if len(found) == count:
                break
            if str(network) in self._taken:
                continue
            named = network.model_copy(update={"name": self._job.recipe.space.name})
            certificate = self._field.certificate(budget, named) if self._here else None
            if certificate is None and self._here:
                continue
            self._taken.add(str(network))
            entrant = self._field.entrant(named, certificate, None, budget, self._predicted_ms(named))
            found.append(entrant.model_copy(update={"joint": True}))
        return found
