"""Rounds of joint trials: whole networks near the budgets are trained shortly, chosen by what those before have taught.

A joint trial is a short training of the race. Half of them are spread, to tell most about all effects. Then each budget in turn
gets the network that is best in one of the worlds that all short trainings so far leave possible, among the neighbours of its
best networks (Thompson sampling). Their latencies are predicted; the best few of each budget are certified, and go on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import median

import numpy as np

from genet.arch.external import read_notation
from genet.arch.network import Network
from genet.arch.space import may_inherit
from genet.config.budget import Budget
from genet.pipeline.context import RunContext
from genet.pipeline.entrants import Field
from genet.pipeline.run_folder import network_name
from genet.pipeline.search_state import SearchState
from genet.search.candidates import fits, near_budget, neighbours, pool_of
from genet.search.race import Entrant, Entrants, JointTrial
from genet.search.rounds import START, promising, spread
from genet.search.surrogate import fit_surrogate, score
from genet.storage import digest

PARENTS = 3  # networks of a budget whose neighbours are considered
CERTIFIED = 4  # joint trials tried for every one that goes on, in case some break the budget
AIM = 0.96  # share of a budget that joint trials are predicted to take at most: closer to it, certainty is often not reached

Train = Callable[[Mapping[str, str]], Mapping[str, float]]  # names by network -> held-out accuracies of short trainings
Known = Callable[[Mapping[str, str]], Collection[str]]  # the same -> those that are trained shortly already


def run_joint_trials(job: RunContext, found: Entrants, train: Train, trained: Known) -> Entrants:
    """Run the joint trials that the recipe asks for, and return the entrants with those of them that go on in the race.

    What is known is neither proposed nor certified again; what was proposed and is not trained is taken back if fewer are asked
    for by now. Per budget as many go on as the race takes of the search's networks.
    """
    if not job.recipe.search.count or not found.entrants:
        return found.model_copy(update={"promoted": ()})
    rounds = _Rounds(job, found, train)
    rounds.run(trained)
    return rounds.with_promoted()


class _Rounds:
    """The joint trials of a run under way."""

    def __init__(self, job: RunContext, found: Entrants, train: Train) -> None:
        self._job, self._found, self._train = job, found, train
        self._field = Field(SearchState(job, job.table), dict.fromkeys(entrant.budget for entrant in found.entrants))
        self._budgets = tuple(self._field.limits)
        pairs = [(each.ms_per_image, each.predicted_ms_per_image) for each in found.entrants]
        self._slower = median([ms / predicted for ms, predicted in pairs if ms and predicted] or [1.0])
        self._ms_per_image = {e.network: e.ms_per_image or e.predicted_ms_per_image or math.inf for e in found.entrants}
        self._networks: dict[str, Network] = {}  # of the space's shape that were trained, by notation
        self._reached: dict[str, float] = {}

    def run(self, trained: Known) -> None:
        """Go on until every budget has its share of the joint trials, or no other network is near it."""
        count, places = self._job.recipe.search.count, len(self._budgets)
        shares = {budget: len(range(place, count, places)) for place, budget in enumerate(self._budgets)}
        self._learn({entrant.network: entrant.name for entrant in self._found.entrants})
        self._take_back(shares, trained)
        self._learn_joint(self._found.joint)
        while True:
            known = {budget: sum(trial.budget == budget for trial in self._found.joint) for budget in shares}
            turns = [budget for budget, share in shares.items() if known[budget] < share]
            proposed = list[JointTrial]()
            for budget in turns:  # each draws by itself, so that a later command repeats what this one found for it
                draw = np.random.default_rng((self._job.recipe.seed, self._budgets.index(budget), known[budget]))
                start = math.ceil(START * shares[budget]) - known[budget]
                new = self._spread(budget, start, proposed, draw) if start > 0 else self._promising(budget, proposed, draw)
                if not new:
                    shares[budget] = known[budget]
                    self._job.progress.say(f"  {known[budget]} joint trials for {budget}: no other network is near it")
                proposed += new
            if not proposed:
                return
            self._found = self._found.model_copy(update={"joint": (*self._found.joint, *proposed)})
            self._found.save(self._job.folder.entrants)
            self._learn_joint(proposed)

    def _take_back(self, shares: Mapping[Budget, int], trained: Known) -> None:
        """Forget the joint trials beyond a budget's share that were proposed and are not trained."""
        over = trained({trial.network: network_name(self._named(Network.parse(trial.network))) for trial in self._found.joint})
        kept, room = list[JointTrial](), Counter(shares)
        room.subtract(trial.budget for trial in self._found.joint if trial.network in over)
        for trial in self._found.joint:
            if trial.network not in over and room[trial.budget] <= 0:
                continue
            kept.append(trial)
            room[trial.budget] -= trial.network not in over
        if len(kept) < len(self._found.joint):
            self._found = self._found.model_copy(update={"joint": tuple(kept)})
            self._found.save(self._job.folder.entrants)

    def with_promoted(self) -> Entrants:
        """Return the entrants with the best joint trials of each budget that are certified; predicted, on other evidence."""
        evidence = f"{sorted(self._reached.items())}/{self._job.recipe.race.counts}/{self._field.state.table.setting.digest}"
        inputs = digest(f"{self._found.inputs}/{evidence}")
        if self._found.promoted_inputs == inputs:
            return self._found
        promoted = tuple(entrant for budget in self._budgets for entrant in self._promoted(budget))
        self._found = self._found.model_copy(update={"promoted": promoted, "promoted_inputs": inputs})
        self._found.save(self._job.folder.entrants)
        return self._found

    def _promoted(self, budget: Budget) -> list[Entrant]:
        count, *_ = self._job.recipe.race.counts
        entered, here = {entrant.network for entrant in self._found.entrants}, not self._job.recipe.measure.latency_file
        joint = [network for network in self._best(budget) if str(network) not in entered]
        found = list[Entrant]()
        for network in joint[: CERTIFIED * count]:
            if len(found) < count:
                named, predicted = self._named(network), self._predicted_ms_per_image(network)
                certificate = self._field.certificate(budget, named, patient=False) if here else None
                if certificate or not here:
                    entrant = self._field.entrant(named, certificate, None, budget, predicted)
                    found.append(entrant.model_copy(update={"predicted_ms_per_image": predicted}))
        if joint and not found:
            self._job.progress.say(f"  no joint trial for {budget} goes on: none of the best is certified")
        return found

    def _spread(self, budget: Budget, count: int, proposed: Sequence[JointTrial], draw: np.random.Generator) -> list[JointTrial]:
        """Return so many networks near a budget that tell most about all effects together."""
        near = self._new(self._near(budget, draw), proposed)
        rows = spread(pool_of(near), np.arange(len(near)), count, draw) if near else ()
        return [JointTrial(network=str(near[row]), budget=budget) for row in rows]

    def _promising(self, budget: Budget, proposed: Sequence[JointTrial], draw: np.random.Generator) -> list[JointTrial]:
        """Return the network that may be best within a budget, among the neighbours of the best that were trained."""
        parents = [(each, self._field.state.offers(each.input.resolution)) for each in self._best(budget)[:PARENTS]]
        near = [each for parent, offered in parents for each in neighbours(offered, parent, self._aim_ms(budget), draw)]
        new = self._new(near, proposed) or self._new(self._near(budget, draw), proposed)
        trained = list(self._networks.values())
        if not new or not trained:
            return []
        surrogate = fit_surrogate(pool_of([*trained, *new]), np.arange(len(trained)), self._scores(trained))
        (row,) = promising(surrogate, np.arange(len(trained), len(trained) + len(new)), 1, draw)
        return [JointTrial(network=str(new[row - len(trained)]), budget=budget)]

    def _near(self, budget: Budget, draw: np.random.Generator) -> list[Network]:
        """Return random networks near a budget, of all resolutions that race for it."""
        resolutions = sorted({entrant.resolution for entrant in self._found.entrants if entrant.budget == budget})
        return [each for size in resolutions for each in near_budget(self._field.state.offers(size), self._aim_ms(budget), draw)]

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
        """Train networks shortly, and keep those that can be compared with the space's."""
        self._reached |= self._train(names)
        networks = [read_notation(notation, name) for notation, name in names.items() if notation in self._reached]
        self._networks |= {str(each): each for each in networks if isinstance(each, Network) and self._comparable(each)}

    def _comparable(self, network: Network) -> bool:
        """Return whether its super-blocks are like the space's, one by one, and its weights began as those of joint trials do."""
        begins_alike = self._job.recipe.train.init == "scratch" or may_inherit(network, self._job.masternet)
        return begins_alike and fits(network, self._job.space)

    def _learn_joint(self, trials: Sequence[JointTrial]) -> None:
        networks = [self._named(Network.parse(trial.network)) for trial in trials]
        for network in networks:
            self._ms_per_image.setdefault(str(network), self._predicted_ms_per_image(network) * self._slower / AIM)
        self._learn({str(network): network_name(network) for network in networks})

    def _predicted_ms_per_image(self, network: Network) -> float:
        """Return what is predicted by the present table; infinite for what is not on offer any more."""
        size = network.input.resolution
        tables = self._field.state.offers(size) if size in self._job.resolutions else None
        return tables.predict(network).ms / self._field.batch if tables and tables.holds(network) else math.inf

    def _named(self, network: Network) -> Network:
        return network.model_copy(update={"name": self._job.recipe.space.name})

    def _aim_ms(self, budget: Budget) -> float:
        return self._field.state.limit_ms(budget) * AIM / self._slower

    def _scores(self, trained: Sequence[Network]) -> np.ndarray:
        return score(np.array([self._reached[str(network)] for network in trained]))
