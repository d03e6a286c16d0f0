"""Entrants: per budget what the search predicts to be best, and every known design scaled to it, all certified."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import Network
from genet.config.budget import Budget
from genet.errors import MeasurementError, OutOfMemoryError, StorageError, first_line
from genet.latency.trace import structure_cost
from genet.models.external import check_unchanged
from genet.pipeline.context import RunContext
from genet.pipeline.run_folder import network_name
from genet.pipeline.scale_designs import SCALING, ScaledDesigns
from genet.pipeline.search_state import SearchState
from genet.pipeline.select import select_networks
from genet.progress import UNSEEN
from genet.search.certificate import Certificate, SelectedNetwork, Selection, certain_ms, is_noisy
from genet.search.known_designs import Design, designs_of
from genet.search.outcome import UnmetBudget
from genet.search.race import Entrant, Entrants
from genet.search.scaling import Scales
from genet.storage import digest

LOOKED_AT = 12  # next best predictions considered, in case some break the budget


def find_entrants(job: RunContext) -> Entrants:
    """Return the entrants of the race, from disk if they are current; every measurement stays in the latency table.

    On another machine's evidence no design can be timed: the search's networks race alone, which is reported.
    """
    selection = job.folder.read(job.folder.selection, Selection)
    designs = () if job.recipe.measure.latency_file else _designs(job)
    for design in designs:
        check_unchanged(design.network)
    inputs = _inputs(job, selection, designs)
    known = job.folder.read_current(job.folder.entrants, Entrants, inputs)
    if known and not known.undecided:
        return known
    if known:  # nothing was selected since
        selection = select_networks(job)
        inputs = _inputs(job, selection, designs)
    if not designs:
        job.progress.say("  latencies come from another machine, where known designs cannot be timed, so they do not race")
    fastest: dict[Budget, float] = {}
    for choice in selection.choices:
        fastest[choice.budget] = min(fastest.get(choice.budget, math.inf), certain_ms(choice))
    finder = EntrantFinder(SearchState(job, job.table), dict.fromkeys(choice.budget for choice in selection.choices))
    found, chosen = list[Entrant](), _chosen(job, selection)
    with job.progress.track("certifying the next best predictions", len(chosen)) as tracker:
        finder.tracker = tracker
        for choice in chosen:
            found += finder.searched(choice)
            tracker.advance()
    found += finder.designs(designs, _resolutions(job, selection), fastest)
    found += list(_certified_for_another(found, finder.limits))
    budgets, met = list(finder.limits), {entrant.budget for entrant in found}
    before = _before(job)
    result = Entrants(
        inputs="" if _may_pass(finder, before) else inputs,  # the next command tries again what could not be timed now
        setting=selection.setting,
        masternet_ms_per_image=selection.masternet_ms_per_image,
        entrants=_named(sorted(found, key=lambda entrant: budgets.index(entrant.budget))),
        unmet=_unmet(finder, selection, met, fastest),
        joint=before.joint if before else (),  # their results stay useful, whatever budget they were for
        untimed={name: first_line(faults[0]) for name, faults in finder.untimed.items()},
        not_within=missing_designs(designs, found, [budget for budget in budgets if budget in met]),
    )
    result.save(job.folder.entrants)
    return result


def _inputs(job: RunContext, selection: Selection, designs: Sequence[Design]) -> str:
    """Return a digest of everything that the entrants depend on."""
    shapes = "/".join((SCALING, *(f"{design.name} {design.network}" for design in designs)))
    race = job.recipe.race.model_dump_json(include={"effort", "searched"})
    return digest(f"{selection.model_dump_json()}/{race}/{shapes}")


def _certified_for_another(found: Sequence[Entrant], limits: Mapping[Budget, float]) -> Iterator[Entrant]:
    """Yield entrants of other budgets for each budget that has none of its own, if they are certified within it too."""
    for budget, limit in limits.items():
        if all(entrant.budget != budget for entrant in found):
            within = (entrant for entrant in found if budget in entrant.within)
            yield from (each.model_copy(update={"budget": budget, "budget_ms_per_image": limit}) for each in within)


def missing_designs(
    designs: Iterable[Design], found: Sequence[Entrant], budgets: Sequence[Budget]
) -> dict[str, tuple[Budget, ...]]:
    """Return the budgets that no entrant of a design is certified to be within, by its name; none for one that is within all."""
    within = {
        design.name: {budget for each in found if each.design == design.name for budget in each.within} for design in designs
    }
    missing = {name: tuple(budget for budget in budgets if budget not in own) for name, own in within.items()}
    return {name: each for name, each in missing.items() if each}


def _unmet(
    finder: EntrantFinder, selection: Selection, met: Collection[Budget], fastest: Mapping[Budget, float]
) -> tuple[UnmetBudget, ...]:
    """Return the budgets without an entrant, each with the nearest network that may be within it, if there is one."""

    def unmet(budget: Budget, limit: float) -> UnmetBudget:
        own = [choice for choice in selection.choices if choice.budget == budget]
        nearest = [(found.ms / finder.batch, found.interval_ms / finder.batch) for found in finder.undecided.get(budget, ())]
        nearest += [
            (choice.measured_ms_per_image or 0.0, choice.interval_ms_per_image or 0.0) for choice in own if choice.undecided
        ]
        least = fastest[budget]
        about = any(is_noisy(choice) and certain_ms(choice) == least for choice in own)
        plain = UnmetBudget(budget=budget, budget_ms_per_image=limit, smallest_ms_per_image=least, approximate=about)
        if not nearest:
            return plain
        ms, half = min(nearest)
        return plain.model_copy(update={"measured_ms_per_image": ms, "interval_ms_per_image": half})

    return tuple(unmet(budget, limit) for budget, limit in finder.limits.items() if budget not in met)


def _designs(job: RunContext) -> tuple[Design, ...]:
    """Return the designs that race: the recipe's, and the winner of the tournament for the MasterNet unless it is one of them."""
    designs, won = designs_of(job.recipe), job.tournament.won if job.tournament else None
    if won is None or won.design in {design.name for design in designs}:
        return designs
    return (*designs, Design(name=won.design, network=job.masternet))


def _before(job: RunContext) -> Entrants | None:
    """Return the last entrants, whatever they were made from; None if there are none, or of an earlier version."""
    try:
        return Entrants.load(job.folder.entrants)
    except StorageError:
        return None


def _may_pass(finder: EntrantFinder, before: Entrants | None) -> bool:
    """Return whether a design that could not be timed may be later: for lack of memory, or if it fails so for the first time."""
    known = before.untimed if before else {}
    lacks_memory = any(isinstance(fault, OutOfMemoryError) for faults in finder.untimed.values() for fault in faults)
    return lacks_memory or any(known.get(name) != first_line(faults[0]) for name, faults in finder.untimed.items())


def _chosen(job: RunContext, selection: Selection) -> tuple[SelectedNetwork, ...]:
    """Return the selection's answers; in a quick race of every budget the one that is predicted to be best."""
    if job.recipe.race.effort != "quick":
        return selection.answers
    best = {choice.budget: choice for choice in sorted(selection.answers, key=lambda choice: choice.predicted_accuracy)}
    return tuple(best.values())


def _resolutions(job: RunContext, selection: Selection) -> dict[Budget, tuple[int, ...]]:
    """Return at which resolutions designs race for each budget: all, in a quick race that of the search's best if it has one."""
    quick = _chosen(job, selection) if job.recipe.race.effort == "quick" else ()
    chosen = {choice.budget: (choice.resolution,) for choice in quick}
    return {each.budget: chosen.get(each.budget, job.resolutions) for each in selection.choices}


def _named(found: Sequence[Entrant]) -> tuple[Entrant, ...]:
    """Give every network one name: that of the known design if it is one."""
    designs: dict[str, Entrant] = {}
    for entrant in found:
        if entrant.design:
            designs.setdefault(entrant.network, entrant)
    names = {network: {"design": design.design, "name": design.name} for network, design in designs.items()}
    return tuple(entrant.model_copy(update=names.get(entrant.network, {})) for entrant in found)


class EntrantFinder:
    """Certifies networks for some budgets, and enters them in the race. `limits` are the budgets in ms per image."""

    def __init__(self, state: SearchState, budgets: Iterable[Budget]) -> None:
        self.state, self.job, self.batch = state, state.job, state.batch
        self.limits = {budget: state.limit_ms(budget) / state.batch for budget in budgets}
        self.tracker = UNSEEN  # of the work that certifies
        self.untimed: dict[str, list[MeasurementError]] = {}  # designs that are missing, and why scales could not be timed
        self.undecided: dict[Budget, list[Certificate]] = {}  # of the fastest scales that may be within a budget

    def searched(self, choice: SelectedNetwork) -> Iterator[Entrant]:
        """Yield a selected network, and the next best predictions that are within its budget too."""
        count, *_ = self.job.recipe.race.counts
        slower = self.slower(choice.network, choice.measured_ms_per_image) or 1.0
        limit_ms = self.state.limit_ms(choice.budget)
        rivals = self.state.best(choice.resolution, limit_ms / slower, LOOKED_AT) if count > 1 else ()
        predicted = {choice.network: (choice.predicted_accuracy, choice.predicted_ms_per_image)}
        predicted |= {each.network: (each.predicted_accuracy, each.predicted_ms / self.batch) for each in rivals}
        found = 0
        for notation, (accuracy, ms) in predicted.items():
            if found == count:
                return
            network = Network.parse(notation, name=self.job.recipe.space.name)
            measured_here = not self.job.recipe.measure.latency_file
            selected = notation == choice.network
            certificate = self.certificate(choice.budget, network, patient=selected) if measured_here else None
            if certificate is None and measured_here and not selected:
                continue
            found += 1
            facts = {"predicted_accuracy": accuracy, "predicted_ms_per_image": ms}
            yield self.entrant(network, certificate, None, choice.budget, ms).model_copy(update=facts)

    def slower(self, notation: str, ms_per_image: float | None) -> float | None:
        """Return how many times slower a network is than is predicted; None if it was not measured or is not on offer."""
        predicted_ms = self.state.predicted_ms(Network.parse(notation))
        return ms_per_image * self.batch / predicted_ms if ms_per_image and math.isfinite(predicted_ms) else None

    def designs(
        self, designs: Sequence[Design], resolutions: dict[Budget, tuple[int, ...]], fastest: dict[Budget, float]
    ) -> Iterator[Entrant]:
        """Yield every known design scaled to every budget, at its resolutions; updates `fastest`, the least ms of a budget."""
        everywhere = sorted({each for offered in resolutions.values() for each in offered})
        wanted = [(design, resolution) for design in designs for resolution in everywhere]
        if not wanted:
            return
        with self.job.progress.track("known designs, each scaled to every budget", len(wanted)) as tracker:
            self.tracker = tracker
            for design, resolution in wanted:
                budgets = [budget for budget, offered in resolutions.items() if resolution in offered]
                yield from self._scaled(design, resolution, budgets, fastest)
                tracker.advance()

    def _scaled(self, design: Design, resolution: int, budgets: list[Budget], fastest: dict[Budget, float]) -> Iterator[Entrant]:
        """Yield a design scaled to every budget that it can meet; report the budgets that it cannot meet."""
        scaled_designs = ScaledDesigns(self.job, self.tracker)
        forms = scaled_designs.forms(design, resolution)
        whole_macs, beyond = structure_cost(design.network.at(resolution)).macs, []
        for budget in budgets:
            certify = partial(self.certificate, budget, patient=False)  # a scale that is narrower by 3 % is as good
            target_ms = self._target_ms(budget)
            found = scaled_designs.within(forms, target_ms, certify, whole_macs)
            found = self._as_it_is(design.network.at(resolution), budget, found)
            for network, certificate in found:
                yield self.entrant(network, certificate, design.name, budget)
            if found:
                continue
            ends = self._fastest(forms, budget)
            if ends and ends[1].within:
                yield self.entrant(*ends, design.name, budget)
                continue
            beyond.append(str(budget))
            if ends and ends[1].within is None:
                self.undecided.setdefault(budget, []).append(ends[1])
            if ends:
                met_ms = max(self.state.limit_ms(budget), ends[1].ms + ends[1].interval_ms)
                fastest[budget] = min(fastest[budget], met_ms / self.batch)
        if beyond:
            why = f"; some could not be timed ({first_line(scaled_designs.faults[0])})" if scaled_designs.faults else ""
            self.job.progress.say(f"  {design.name} at {resolution} pixels: no scaled version is within {', '.join(beyond)}{why}")
            if scaled_designs.faults:
                self.untimed[f"{design.name} at {resolution} pixels"] = scaled_designs.faults

    def _target_ms(self, budget: Budget) -> float:
        """Return the ms per batch up to which a scale is worth certifying: nearer to the budget 20 rounds seldom decide."""
        return self.state.limit_ms(budget) / (1 + self.state.margin(budget))

    def _as_it_is(
        self, network: ModelSpec, budget: Budget, found: list[tuple[ModelSpec, Certificate]]
    ) -> list[tuple[ModelSpec, Certificate]]:
        """Return the MasterNet, or a network that other code builds, in place of smaller scales, if it is within the budget."""
        macs = structure_cost(network).macs
        if network != self.job.reference and not isinstance(network, ExternalModel):
            return found
        if any(structure_cost(scale).macs >= macs for scale, _ in found):
            return found
        certificate = self.certificate(budget, network)
        return [(network, certificate)] if certificate else found

    def _fastest(self, forms: Sequence[Scales[ModelSpec]], budget: Budget) -> tuple[ModelSpec, Certificate] | None:
        """Return the fastest scale of all forms with its certificate; None if none can be timed."""
        found = [form.fastest for form in forms if form.fastest is not None]
        if not found:
            return None
        network, _ = min(found, key=lambda each: each[1])
        try:
            return network, self._judged(budget, network)
        except MeasurementError:
            return None

    def certificate(self, budget: Budget, network: ModelSpec, patient: bool = True) -> Certificate | None:
        """Certify a network; None if it is not within the budget, or cannot be measured. For `patient` see `SearchState`."""
        try:
            found = self._judged(budget, network, patient)
        except MeasurementError:
            return None
        return found if found.within else None

    def _judged(self, budget: Budget, network: ModelSpec, patient: bool = True) -> Certificate:
        """Return a network's certificate, whatever it says; MeasurementError if it cannot be timed."""
        self.tracker.now(f"{network.name} at {network.input.resolution} pixels, certified for {budget}")
        return self.state.judge(self.state.measure(network, budget, patient), budget)

    def entrant(
        self, network: ModelSpec, found: Certificate | None, design: str | None, budget: Budget, predicted: float = math.inf
    ) -> Entrant:
        """Return the entry of a network for a budget, with all budgets that it is within: as certified, or else as predicted."""
        row, cost = self.state.table.network_row(network), structure_cost(network)

        def within(other: Budget) -> bool:
            if found is None or row is None:
                return predicted <= self.limits[other]
            return self.state.judge(row, other).within is True

        return Entrant(
            budget=budget,
            budget_ms_per_image=self.limits[budget],
            within=tuple(other for other in self.limits if other == budget or within(other)),
            design=design,
            name=network_name(network.model_copy(update={"name": design}) if design else network),
            network=str(network),
            resolution=network.input.resolution,
            ms_per_image=found.ms / self.batch if found else None,
            interval_ms_per_image=found.interval_ms / self.batch if found else None,
            parameters=cost.parameters,
            macs=cost.macs,
        )
