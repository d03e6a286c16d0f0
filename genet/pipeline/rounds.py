"""Rounds of joint trials: whole networks near the budgets are trained shortly, chosen by what those before have taught.

A joint trial is a short training of the race. Half of them are spread, to tell most about all effects. Then each budget in turn
gets the network that is best in one of the worlds that all short trainings so far leave possible, among the neighbours of its
best networks (Thompson sampling). Their latencies are predicted; the best few of each budget are certified, and go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from genet.arch.network import Network
from genet.config.recipe import Budget
from genet.pipeline.context import RunContext
from genet.pipeline.entrants import Field
from genet.pipeline.run_folder import network_name
from genet.search.candidates import fits, near_budget, neighbours, pool_of
from genet.search.race import Entrant, Entrants, JointTrial
from genet.search.rounds import START, promising, spread
from genet.search.surrogate import fit_surrogate, score

PARENTS = 3  # networks of a budget whose neighbours are considered
CERTIFIED = 4  # of the best joint trials of a budget at most, in case some break it

Train = Callable[[Mapping[str, str]], Mapping[str, float]]  # names by network -> held-out accuracies of short trainings


def run_joint_trials(job: RunContext, found: Entrants, train: Train) -> tuple[Entrant, ...]:
    """Run the joint trials that the recipe asks for; those known are not proposed again. Returns who goes on in the race.

    These are the entrants found before, and per budget as many as the race takes of the joint trials expected to be best.
    """
    if not job.recipe.search.count or not found.entrants:
        return found.entrants
    rounds = _Rounds(job, found, train)
    rounds.run()
    searched, *_ = job.recipe.race.counts
    return (*found.entrants, *(entrant for budget in rounds.budgets for entrant in rounds.promoted(budget, searched)))


class _Rounds:
    """The joint trials of a run under way."""

    def __init__(self, job: RunContext, found: Entrants, train: Train) -> None:
        self._job, self._found, self._train = job, found, train
        self._field = Field(job, {entrant.budget: entrant.budget_ms_per_image for entrant in found.entrants})
        self.budgets = tuple(self._field.limits)
        self._ms_per_image = {
            each.network: each.ms_per_image or each.predicted_ms_per_image or math.inf for each in found.entrants
        }
        self._networks: dict[str, Network] = {}  # of the space's shape that were trained, by notation
        self._reached: dict[str, float] = {}

    def run(self) -> None:
        """Go on until there are as many joint trials as the recipe asks for, or no network near a budget is left."""
        count, seed = self._job.recipe.search.count, self._job.recipe.seed
        self._learn({entrant.network: entrant.name for entrant in self._found.entrants})
        self._learn_joint(self._found.joint)
        while (known := len(self._found.joint)) < count:
            draw, start = np.random.default_rng((seed, known)), math.ceil(START * count)
            if known < start:
                proposed = self._spread(start - known, draw)
            elif self._networks:
                turns = [self.budgets[place % len(self.budgets)] for place in range(known, count)][: len(self.budgets)]
                proposed = [trial for budget in turns for trial in self._promising(budget, draw)]
            else:  # none of those before could be trained
                break
            if not proposed:
                self._job.progress.say(f"  {known} of {count} joint trials: no other network is near a budget")
                break
            self._found = self._found.model_copy(update={"joint": (*self._found.joint, *proposed)})
            self._found.save(self._job.folder.entrants)
            self._learn_joint(proposed)

    def promoted(self, budget: Budget, count: int) -> list[Entrant]:
        """Return the first so many of the best joint trials that are certified within a budget; predicted, on other evidence."""
        joint, here = {trial.network for trial in self._found.joint}, not self._job.recipe.measure.latency_file
        found = list[Entrant]()
        for network in [each for each in self._best(budget) if str(each) in joint][:CERTIFIED]:
            if len(found) < count:
                named, predicted = self._named(network), self._ms_per_image[str(network)]
                certificate = self._field.certificate(budget, named) if here else None
                if certificate or not here:
                    entrant = self._field.entrant(named, certificate, None, budget, predicted)
                    found.append(entrant.model_copy(update={"predicted_ms_per_image": predicted}))
        return found

    def _spread(self, count: int, draw: np.random.Generator) -> list[JointTrial]:
        """Return so many networks near the budgets, divided among these, that tell most about all effects together."""
        found = list[JointTrial]()
        for place, budget in enumerate(self.budgets):
            near = self._new(self._near(budget, draw), found)
            share = len(range(place, count, len(self.budgets)))
            rows = spread(pool_of(near), np.arange(len(near)), share, draw) if near and share else ()
            found += [self._trial(near[row], budget) for row in rows]
        return found

    def _promising(self, budget: Budget, draw: np.random.Generator) -> list[JointTrial]:
        """Return the network that may be best within a budget, among the neighbours of the best that were trained."""
        parents = [(each, self._field.tables(each.input.resolution)) for each in self._best(budget)[:PARENTS]]
        near = [each for parent, offered in parents for each in neighbours(offered, parent, self._limit_ms(budget), draw)]
        new = self._new(near, ()) or self._new(self._near(budget, draw), ())
        if not new:
            return []
        trained = list(self._networks.values())
        surrogate = fit_surrogate(pool_of([*trained, *new]), np.arange(len(trained)), self._scores(trained))
        (row,) = promising(surrogate, np.arange(len(trained), len(trained) + len(new)), 1, draw)
        return [self._trial(new[row - len(trained)], budget)]

    def _near(self, budget: Budget, draw: np.random.Generator) -> list[Network]:
        """Return random networks near a budget, of all resolutions."""
        tables = [self._field.tables(resolution) for resolution in self._job.resolutions]
        return [each for offered in tables for each in near_budget(offered, self._limit_ms(budget), draw)]

    def _new(self, networks: Sequence[Network], proposed: Sequence[JointTrial]) -> list[Network]:
        """Return those that were neither trained nor proposed, each once."""
        known = {*self._ms_per_image, *(trial.network for trial in proposed)}
        return [network for notation, network in {str(each): each for each in networks}.items() if notation not in known]

    def _best(self, budget: Budget) -> list[Network]:
        """Return the trained networks within a budget, the one first that is best by what all trainings together tell."""
        trained = list(self._networks.values())
        if not trained:
            return []
        mean, _ = fit_surrogate(pool_of(trained), np.arange(len(trained)), self._scores(trained)).predict(np.arange(len(trained)))
        ranked = [trained[row] for row in np.argsort(-mean)]
        return [network for network in ranked if self._ms_per_image[str(network)] <= self._field.limits[budget]]

    def _learn(self, names: Mapping[str, str]) -> None:
        """Train networks shortly, and keep those whose super-blocks can be compared with the space's, one by one."""
        self._reached |= self._train(names)
        networks = [Network.parse(notation) for notation in names if notation in self._reached and "|" in notation]
        self._networks |= {str(network): network for network in networks if fits(network, self._job.recipe.space)}

    def _learn_joint(self, trials: Sequence[JointTrial]) -> None:
        self._ms_per_image |= {trial.network: trial.predicted_ms_per_image for trial in trials}
        self._learn({trial.network: network_name(self._named(Network.parse(trial.network))) for trial in trials})

    def _trial(self, network: Network, budget: Budget) -> JointTrial:
        ms = self._field.tables(network.input.resolution).predict(network).ms / self._field.batch
        limit = self._field.limits[budget]
        return JointTrial(network=str(network), budget=budget, budget_ms_per_image=limit, predicted_ms_per_image=ms)

    def _named(self, network: Network) -> Network:
        return network.model_copy(update={"name": self._job.recipe.space.name})

    def _limit_ms(self, budget: Budget) -> float:
        return self._field.limits[budget] * self._field.batch

    def _scores(self, trained: Sequence[Network]) -> np.ndarray:
        return score(np.array([self._reached[str(network)] for network in trained]))
