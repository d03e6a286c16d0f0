"""Entrants: per budget what the search predicts to be best, and every known design scaled to it, all certified."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from genet.choose.certificate import Certificate, Choice, Selection
from genet.choose.outcome import Unmet
from genet.choose.race import Entrant, Entrants
from genet.choose.scaling import Scales
from genet.choose.selection import Solved
from genet.errors import MeasurementError
from genet.files import digest
from genet.job import Job, predictor
from genet.latency.profile import measure_network
from genet.latency.trace import structure_cost
from genet.runfolder import network_name
from genet.spec.designs import Design, designs_of
from genet.spec.foreign import Structure
from genet.spec.network import Network
from genet.spec.recipe import Budget
from genet.steps.learn import current_regression
from genet.steps.select import judge, kept_widths, measured, offers

LOOKED_AT = 12  # of the next best predictions, in case some break the budget


def find_entrants(job: Job) -> Entrants:
    """Find who races, unless it is known; every measurement is kept in the latency table.

    On another machine's evidence no design can be timed: the search's networks race alone, and that is said.
    """
    selection = job.folder.read(job.folder.selection, Selection)
    asked = job.recipe.race.model_dump_json(include={"effort", "designs", "searched"})
    inputs = digest(f"{selection.model_dump_json()}/{asked}")
    known = job.folder.read_current(job.folder.entrants, Entrants, inputs)
    if known:
        return known
    found = [entrant for choice in selection.answers for entrant in _searched(job, choice)]
    fastest = {choice.budget: math.inf for choice in selection.choices}
    if job.recipe.measure.latency:
        job.progress.say("  latencies are another machine's evidence: known designs cannot be timed there, and do not race")
    else:
        for choice in selection.choices:
            measured = choice.measured_ms_per_image or choice.predicted_ms_per_image
            fastest[choice.budget] = min(fastest[choice.budget], measured + (choice.interval_ms_per_image or 0.0))
        found += _designs(job, selection, fastest)
    designs: dict[str, Entrant] = {}
    for entrant in found:  # a network has one name, and one that is a known design is no find of the search
        if entrant.design:
            designs.setdefault(entrant.network, entrant)
    named = {network: {"design": design.design, "name": design.name} for network, design in designs.items()}
    found = [entrant.model_copy(update=named.get(entrant.network, {})) for entrant in found]
    met = {entrant.budget for entrant in found}
    limits = {choice.budget: choice.budget_ms_per_image for choice in selection.choices}
    result = Entrants(
        inputs=inputs,
        setting=selection.setting,
        masternet_ms_per_image=selection.masternet_ms_per_image,
        entrants=tuple(found),
        unmet=tuple(
            Unmet(budget=budget, budget_ms_per_image=ms, smallest_ms_per_image=fastest[budget])
            for budget, ms in limits.items()
            if budget not in met
        ),
    )
    result.save(job.folder.entrants)
    return result


def _searched(job: Job, choice: Choice) -> Iterator[Entrant]:
    """Yield a selected network, and the next best predictions that are within its budget too."""
    count, *_ = job.recipe.race.counts
    table, kept = job.table, kept_widths(job, job.table)
    batch, regression = table.setting.batch, current_regression(job)
    offered = offers(job, predictor(job, table, kept), regression, choice.resolution, kept[choice.resolution])
    slower = (choice.measured_ms_per_image or choice.predicted_ms_per_image) / choice.predicted_ms_per_image
    limit_ms = choice.budget_ms_per_image * batch
    rivals = Solved(offered).best(limit_ms / slower, LOOKED_AT) if count > 1 else ()
    predicted = {choice.network: (choice.predicted_accuracy, choice.predicted_ms_per_image)}
    predicted |= {each.network: (each.predicted_accuracy, each.predicted_ms / batch) for each in rivals}
    found = 0
    for notation, (accuracy, ms) in predicted.items():
        network = Network.parse(notation, name=job.recipe.space.name)
        certificate = None if job.recipe.measure.latency else _certificate(job, choice.budget, limit_ms, network)
        if found == count or not (certificate or job.recipe.measure.latency or notation == choice.network):
            continue
        found += 1
        entrant = _entrant(network, None, choice.budget, choice.budget_ms_per_image, certificate, batch)
        yield entrant.model_copy(update={"predicted_accuracy": accuracy, "predicted_ms_per_image": ms})


def _designs(job: Job, selection: Selection, fastest: dict[Budget, float]) -> Iterator[Entrant]:
    """Yield every known design scaled to every budget, at every resolution; `fastest` is told what is faster still."""
    limits = {choice.budget: choice.budget_ms_per_image for choice in selection.choices}
    resolutions = (job.recipe.search_resolution,) if job.recipe.race.effort == "quick" else job.resolutions
    wanted = [(design, resolution) for design in designs_of(job.recipe) for resolution in resolutions]
    with job.progress.track("known designs, each scaled to every budget", len(wanted)) as tracker:
        for design, resolution in wanted:
            yield from _scaled(job, design, resolution, limits, fastest)
            tracker.advance()


def _scaled(
    job: Job, design: Design, resolution: int, limits: dict[Budget, float], fastest: dict[Budget, float]
) -> Iterator[Entrant]:
    """Yield a design scaled to every budget that it can meet; one that cannot be measured is said and left out."""
    networks, table, batch = design.scales(resolution), job.table, job.table.setting.batch
    masternet_ms, faults = table.masternet_ms(job.masternet), []

    def measure(network: Structure) -> float:
        try:
            return measure_network(table, job.meter, network, job.masternet).ratio * masternet_ms
        except MeasurementError as fault:
            faults.append(fault)
            return math.inf

    macs = [structure_cost(network).macs for network in networks]
    scales = Scales(networks, macs, measure, masternet_ms / structure_cost(job.masternet).macs)
    for budget, ms_per_image in limits.items():
        found = scales.widest_within(ms_per_image * batch, partial(_certificate, job, budget, ms_per_image * batch))
        if found:
            network, certificate = found
            yield _entrant(network, design.name, budget, ms_per_image, certificate, batch)
        elif scales.fastest_ms < math.inf:
            fastest[budget] = min(fastest[budget], scales.fastest_ms / batch)
    if faults:
        job.progress.say(f"  {design.name} at {resolution} pixels: could not be timed at every scale, {faults[0]}")


def _certificate(job: Job, budget: Budget, limit_ms: float, network: Structure) -> Certificate | None:
    """Certify a network; None if it is not within the budget, or cannot be measured."""
    try:
        found = judge(job, job.table, measured(job, job.table, network, budget, limit_ms), budget, limit_ms)
    except MeasurementError:
        return None
    return found if found.within else None


def _entrant(
    network: Structure, design: str | None, budget: Budget, budget_ms_per_image: float, found: Certificate | None, batch: int
) -> Entrant:
    cost = structure_cost(network)
    named = network.model_copy(update={"name": design}) if design else network
    return Entrant(
        budget=budget,
        budget_ms_per_image=budget_ms_per_image,
        design=design,
        name=network_name(named),
        network=str(network),
        resolution=network.input.resolution,
        ms_per_image=found.ms / batch if found else None,
        interval_ms_per_image=found.interval_ms / batch if found else None,
        parameters=cost.parameters,
        macs=cost.macs,
    )
