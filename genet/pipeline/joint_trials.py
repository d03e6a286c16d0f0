"""Rounds of joint trials: short trainings of whole networks near the budgets, each round chosen by the results so far.

A joint trial is a short training of the race. Half of them are spread so that they say most about all effects. Then each budget
in turn gets the network that is best in one sample of the posterior after all short trainings so far, among the neighbours of its
best networks (Thompson sampling). Latencies are predicted; those of the neighbours are corrected by the measured error of the
best. The best few of each budget are certified, and go on to the race.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from genet.arch.external import read_notation
from genet.arch.network import Network
from genet.arch.space import may_inherit
from genet.config.budget import Budget
from genet.errors import MeasurementError
from genet.latency.profile import FEW, measure_network
from genet.names import counted
from genet.pipeline.context import RunContext
from genet.pipeline.entrants import EntrantFinder
from genet.pipeline.run_folder import network_name
from genet.pipeline.search_state import SearchState
from genet.search.candidates import fits, near_budget, neighbours, pool_of
from genet.search.race import Entrant, Entrants, JointTrial
from genet.search.rounds import Evidence, Quota, ranked, search
from genet.search.surrogate import Pool, score
from genet.storage import digest

PARENTS = 3  # networks of a budget whose neighbours are considered
CERTIFIED = 4  # joint trials tried for every one that goes on, in case some break the budget
TARGET_SHARE = 0.96  # of a budget that joint trials are predicted to take at most: closer to it, certainty is often not reached

ENTRANTS = "short trainings of the entrants"

Train = Callable[[Mapping[str, str], str], Mapping[str, float]]  # names by network, title -> held-out accuracies
Known = Callable[[Mapping[str, str]], Collection[str]]  # the same names -> those that have had a short training


def run_joint_trials(job: RunContext, found: Entrants, train: Train, trained: Known) -> Entrants:
    """Run the joint trials that the recipe asks for, and return the entrants with those of them that go on in the race.

    What is known is neither proposed nor certified again; what was proposed and is not trained is taken back if fewer are asked
    for by now. Per budget as many go on as the race takes of the search's networks.
    """
    if not job.recipe.search.count or not found.entrants:
        return found.model_copy(update={"promoted": ()})
    trials = _JointTrials(job, found, train)
    with job.progress.awake("choosing joint trials"):
        trials.run(trained)
    return trials.with_promoted()


class _JointTrials:
    """The joint trials of a run under way."""

    def __init__(self, job: RunContext, found: Entrants, train: Train) -> None:
        self._job, self._found, self._train = job, found, train
        self._finder = EntrantFinder(SearchState(job, job.table), dict.fromkeys(entrant.budget for entrant in found.entrants))
        slower = [(e.budget, self._finder.slower(e.network, e.ms_per_image)) for e in found.entrants if e.design is None]
        self._slower = {budget: [each for own, each in slower if each and own == budget] for budget in self._finder.limits}
        self._ms_per_image = {e.network: e.ms_per_image or e.predicted_ms_per_image or math.inf for e in found.entrants}
        self._networks: dict[str, Network] = {}  # of the space's shape that were trained, by notation
        self._reached: dict[str, float] = {}
        self._near = {budget: self._near_budget(budget) for budget in self._finder.limits}

    def _near_budget(self, budget: Budget) -> _NearBudget:
        state, limits = self._finder.state, self._finder.limits
        resolutions = sorted({entrant.resolution for entrant in self._found.entrants if entrant.budget == budget})
        target_ms = state.limit_ms(budget) * TARGET_SHARE
        return _NearBudget(
            state, resolutions, target_ms, limits[budget], self._ms_per_image, partial(self._slower_than_predicted, budget)
        )

    def _slower_than_predicted(self, budget: Budget, best: Network | None) -> float:
        """Return how many times its predicted latency the best network near a budget takes; if none is known, what is selected.

        It is measured for this, if latencies are of this machine.
        """
        usual = self._usual(budget)
        if best is None or self._job.recipe.measure.latency_file:
            return usual
        state = self._finder.state
        try:
            row = measure_network(state.table, self._job.meter, best, self._job.reference, FEW)
        except MeasurementError:
            return usual
        return self._finder.slower(str(best), row.ratio * state.reference_ms / state.batch) or usual

    def _usual(self, budget: Budget) -> float:
        return median(self._slower.get(budget) or [1.0])

    def run(self, trained: Known) -> None:
        """Run rounds until every budget has its share of the joint trials, or no other network is near it."""
        count, places = self._job.recipe.search.count, len(self._near)
        shares = {budget: len(range(place, count, places)) for place, budget in enumerate(self._near)}
        self._learn({entrant.network: entrant.name for entrant in self._found.entrants}, ENTRANTS)
        self._drop_untrained(shares, trained)
        self._learn_joint(self._found.joint, "joint trials of earlier rounds")
        known = Counter(trial.budget for trial in self._found.joint)
        quotas = [Quota(near, shares[budget], known[budget]) for budget, near in self._near.items()]
        found = search(quotas, self._evidence, self._run_round, self._job.recipe.seed)
        for budget, done in zip(self._near, found, strict=True):
            if done < shares[budget]:
                self._job.progress.say(
                    f"  only {counted(done, 'joint trial')} for {budget}: no other network is near that latency"
                )

    def _run_round(self, proposals: Sequence[tuple[int, Network]]) -> Evidence[Network]:
        """Save the proposals, so that a later command can resume them, and train them."""
        budgets, number = list(self._near), 1 + max((trial.round for trial in self._found.joint), default=0)
        new = tuple(JointTrial(network=str(network), budget=budgets[place], round=number) for place, network in proposals)
        self._found = self._found.model_copy(update={"joint": (*self._found.joint, *new)})
        self._found.save(self._job.folder.entrants)
        self._learn_joint(new, f"joint trials, round {number}")
        return self._evidence

    @property
    def _evidence(self) -> Evidence[Network]:
        scores = score(np.array([self._reached[notation] for notation in self._networks]))
        return Evidence(list(self._networks.values()), scores.tolist())

    def _drop_untrained(self, shares: Mapping[Budget, int], trained: Known) -> None:
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
        evidence = f"{sorted(self._reached.items())}/{self._job.recipe.race.counts}/{self._finder.state.table.setting.digest}"
        inputs = digest(f"{self._found.inputs}/{evidence}")
        if self._found.promoted_inputs == inputs:
            return self._found
        promoted = list[Entrant]()
        with self._job.progress.track("certifying the best joint trials of each budget", len(self._near)) as tracker:
            self._finder.tracker = tracker
            for budget in self._near:
                promoted += self._promoted(budget)
                tracker.advance()
        self._found = self._found.model_copy(update={"promoted": tuple(promoted), "promoted_inputs": inputs})
        self._found.save(self._job.folder.entrants)
        return self._found

    def _promoted(self, budget: Budget) -> list[Entrant]:
        count, *_ = self._job.recipe.race.counts
        entered, here = {entrant.network for entrant in self._found.entrants}, not self._job.recipe.measure.latency_file
        best = self._near[budget].within(self._evidence)
        joint = [network for network in best if str(network) not in entered]
        found = list[Entrant]()
        for network in joint[: CERTIFIED * count]:
            if len(found) < count:
                named, predicted = self._named(network), self._predicted_ms_per_image(network)
                certificate = self._finder.certificate(budget, named, patient=False) if here else None
                if certificate or not here:
                    entrant = self._finder.entrant(named, certificate, None, budget, predicted)
                    found.append(entrant.model_copy(update={"predicted_ms_per_image": predicted}))
        if joint and not found:
            self._job.progress.say(f"  no joint trial for {budget} goes on to the race: none of the best is certified")
        return found

    def _learn(self, names: Mapping[str, str], title: str) -> None:
        """Give networks a short training, and keep those that can be compared with the space's."""
        self._reached |= self._train(names, title)
        networks = [read_notation(notation, name) for notation, name in names.items() if notation in self._reached]
        self._networks |= {str(each): each for each in networks if isinstance(each, Network) and self._comparable(each)}

    def _comparable(self, network: Network) -> bool:
        """Return whether its super-blocks are like the space's, one by one, and its weights began as those of joint trials do."""
        begins_alike = self._job.recipe.train.init == "scratch" or may_inherit(network, self._job.masternet)
        return begins_alike and fits(network, self._job.space)

    def _learn_joint(self, trials: Sequence[JointTrial], title: str) -> None:
        networks = [self._named(Network.parse(trial.network)) for trial in trials]
        for trial, network in zip(trials, networks, strict=True):  # taken to be within the budget that it was proposed for
            ms = self._predicted_ms_per_image(network) * self._usual(trial.budget) / TARGET_SHARE
            self._ms_per_image.setdefault(str(network), min(ms, self._finder.limits.get(trial.budget, ms)))
        self._learn({str(network): network_name(network) for network in networks}, title)

    def _predicted_ms_per_image(self, network: Network) -> float:
        return self._finder.state.predicted_ms(network) / self._finder.batch

    def _named(self, network: Network) -> Network:
        return network.model_copy(update={"name": self._job.recipe.space.name})


@dataclass(frozen=True)
class _NearBudget:
    """The networks of the space near one budget that were neither trained nor proposed.

    `target_ms` is per batch; `limit_ms` and `known_ms`, by the notation of all that were trained so far, are per image. `slower`
    tells how many times their predicted latency networks like the best one take, or usual ones.
    """

    state: SearchState
    resolutions: Sequence[int]
    target_ms: float
    limit_ms: float
    known_ms: Mapping[str, float]
    slower: Callable[[Network | None], float]

    def near(self, proposed: Sequence[Network], rng: np.random.Generator) -> list[Network]:
        """Return random networks of all resolutions."""
        tables = [self.state.choice_tables(resolution) for resolution in self.resolutions]
        target_ms = self.target_ms / self.slower(None)
        return self._new([each for offered in tables for each in near_budget(offered, target_ms, rng)], proposed)

    def alike(self, evidence: Evidence[Network], proposed: Sequence[Network], rng: np.random.Generator) -> list[Network]:
        """Return neighbours of the best networks within the budget; random ones if none of those is new."""
        within = self.within(evidence)
        target_ms = self.target_ms / self.slower(next((each for each in within if self._on_offer(each)), None))
        parents = [(each, self.state.choice_tables(each.input.resolution)) for each in within[:PARENTS]]
        close = [each for parent, offered in parents for each in neighbours(offered, parent, target_ms, rng)]
        return self._new(close, proposed) or self.near(proposed, rng)

    def pool(self, networks: Sequence[Network]) -> Pool:
        """Describe networks by their super-blocks."""
        return pool_of(networks)

    def within(self, evidence: Evidence[Network]) -> list[Network]:
        """Return those of the trained networks that are within the budget, best first."""
        return [network for network in ranked(self, evidence) if self.known_ms[str(network)] <= self.limit_ms]

    def _on_offer(self, network: Network) -> bool:
        return math.isfinite(self.state.predicted_ms(network))

    def _new(self, networks: Sequence[Network], proposed: Sequence[Network]) -> list[Network]:
        known = {*self.known_ms, *map(str, proposed)}
        return [network for notation, network in {str(each): each for each in networks}.items() if notation not in known]
