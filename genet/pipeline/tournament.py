"""Tournament: designs scaled to the latency of the space's MasterNet compete to take its place."""

from __future__ import annotations

from collections.abc import Sequence

from genet.arch.external import ModelSpec
from genet.errors import EvidenceError, MeasurementError, first_line
from genet.latency.profile import MANY, measure_network
from genet.latency.table import NetworkRow
from genet.latency.trace import structure_cost
from genet.names import counted
from genet.pipeline.context import RunContext
from genet.pipeline.distill import OpenRunner
from genet.pipeline.master import training_spec
from genet.pipeline.run_folder import network_name
from genet.pipeline.scale_designs import SCALING, ScaledDesigns
from genet.pipeline.trainings import PASSING, Trainings, read_finished
from genet.progress import Tracker
from genet.search.known_designs import Design, portfolio_of
from genet.search.outcome import percent
from genet.search.tournament import Contender, Round, RoundResult, Standing, Tournament, ranked, standings, tournament_rounds
from genet.statistics import half_interval
from genet.storage import digest
from genet.trials.runners.opening import open_runner

LOST = tuple(kind for kind in PASSING if kind != "bug")  # no verdict on a design; a bug ends no tournament


def find_masternet(job: RunContext, runner: OpenRunner = open_runner) -> Tournament | None:
    """Hold the tournament for the MasterNet, unless it is over; None if the space names no designs for one.

    What is measured and trained already is not repeated. As soon as there are trials, which start from its winner, it is over for
    good. EvidenceError if none of a round can be trained.
    """
    if job.recipe.space.masternets is None:
        return None
    known = job.tournament
    if known and known.winner and job.folder.trials.path.exists():
        return known
    designs = portfolio_of(job.recipe.space)
    shapes = "/".join(f"{design.name} {design.network}" for design in designs)
    trained = training_spec(job, job.reference, job.recipe.train).inputs  # stands for images, schedule and seed
    inputs = digest(f"{SCALING}/{shapes}/{job.table.setting.digest}/{trained}")
    if known is None or known.inputs != inputs:
        known = _start_tournament(job, designs, inputs)
    if known.winner is not None:
        return known
    job.tournament = _run_rounds(job, known, runner)
    job.folder.staircase.unlink(missing_ok=True)  # of another MasterNet; what was measured for it stays
    job.tournament.save(job.folder.tournament)
    job.folder.delete_race_checkpoints()
    job.progress.say(f"  {summary(job)}")
    return job.tournament


def summary(job: RunContext) -> str:
    """Return how the MasterNet was found, or how far its tournament is, in a line."""
    found = job.tournament
    if found is None:
        return "the tournament for the MasterNet has not begun"
    ms, (first, *others) = f"{found.contenders[0].ms_per_image:.4f} ms/image", standings_of(job)
    if found.winner is None:
        return f"round {max(1, len(found.rounds))} of {found.planned}, {len(found.contenders)} designs of {ms}"
    if not others:
        return f"the MasterNet of the space stays: no other design is within its {ms}"
    accuracy = "" if first.error is None else f", {percent(first.reached[-1] or 0.0)} ± {100 * first.error:.1f}"
    return f"the MasterNet is {first.contender.design}, the best of {len(found.contenders)} designs of {ms}{accuracy}"


def standings_of(job: RunContext) -> tuple[Standing, ...]:
    """Return how the contenders stand, by what is on disk; none before the tournament has begun."""
    if job.tournament is None:
        return ()
    lines = read_finished(job.folder.race)
    ended = {
        each: RoundResult(accuracy=lines[each].held_out, images=lines[each].held_out_images)
        for each in job.tournament.trainings & lines.keys()
    }
    return standings(job.tournament, ended)


def _start_tournament(job: RunContext, designs: Sequence[Design], inputs: str) -> Tournament:
    """Scale every design to the latency of the space's MasterNet; a design with no scale that fast does not take part."""
    try:
        measure_network(job.table, job.meter, job.reference, job.reference, MANY)
        found = _contenders(job, designs)
    except EvidenceError as fault:
        if not job.recipe.measure.latency_file:
            raise
        raise EvidenceError(
            f"the tournament for the MasterNet failed: {first_line(fault)}; run this recipe on that machine to measure it, "
            "or leave masternets out"
        ) from None
    begun = Tournament(
        inputs=inputs, setting=job.table.setting, contenders=found, planned=len(tournament_rounds(len(found), job.recipe.train))
    )
    begun.save(job.folder.tournament)
    return begun


def _contenders(job: RunContext, designs: Sequence[Design]) -> tuple[Contender, ...]:
    found: dict[str, Contender] = {}
    with job.progress.track("designs for the MasterNet, each scaled to one latency", len(designs)) as tracker:
        for design in designs:
            contender = _contender(job, design, tracker)
            if contender is not None:
                found.setdefault(contender.network, contender)
            tracker.advance()
    return tuple(found.values())


def _contender(job: RunContext, design: Design, tracker: Tracker) -> Contender | None:
    """Return a design scaled to the reference's latency, or the reference itself; None, with a report, if no scale is that fast.

    If it would have to give up more than half of its widths, it takes part with less depth.
    """
    network, limit_ms = design.network.at(job.recipe.search_resolution), job.table.masternet_ms(job.reference)
    batch = job.table.setting.batch

    def certify(scale: ModelSpec) -> NetworkRow | None:
        try:
            row = measure_network(job.table, job.meter, scale, job.reference)
        except MeasurementError:
            return None
        return row if row.ratio <= 1 else None

    if network == job.reference:
        found: tuple[ModelSpec, NetworkRow] = network, measure_network(job.table, job.meter, network, job.reference)
    else:
        scaled_designs = ScaledDesigns(job, tracker)
        forms = scaled_designs.forms(design, network.input.resolution)
        scales = scaled_designs.within(forms, limit_ms, certify, structure_cost(network).macs)
        if not scales:
            why = f" ({first_line(scaled_designs.faults[0])})" if scaled_designs.faults else ""
            job.progress.say(
                f"  {design.name}: no scaled version is within {limit_ms / batch:.4f} ms/image{why}; it does not take part"
            )
            return None
        found = scales[-1]
    scaled, row = found
    return Contender(
        design=design.name,
        name=network_name(scaled.model_copy(update={"name": design.name})),
        network=str(scaled),
        ms_per_image=row.ratio * limit_ms / batch,
        interval_ms_per_image=half_interval(row.ratios) * limit_ms / batch,
        parameters=structure_cost(scaled).parameters,
    )


def _run_rounds(job: RunContext, found: Tournament, runner: OpenRunner) -> Tournament:
    """Train round after round, and return the tournament with its winner."""
    trainings = Trainings(job, runner, {each.network: each.design for each in found.contenders})
    trainings.name({each.network: each.name for each in found.contenders})
    left = tuple(each.network for each in found.contenders)
    rounds = tournament_rounds(len(left), job.recipe.train)
    for number, (count, schedule) in enumerate(rounds, start=1):
        left = left[:count]
        begun = Round(epochs=schedule.epochs, trainings={each: trainings.task(each, schedule).id for each in left})
        if found.rounds[number - 1 : number] != (begun,):
            found = found.model_copy(update={"rounds": (*found.rounds[: number - 1], begun), "planned": len(rounds)})
            found.save(job.folder.tournament)
        title = f"tournament for the MasterNet, round {number} of {len(rounds)}"
        lines = trainings.train(title, [(network, 0) for network in left], schedule)
        ended = [(line.name, line.failure) for line in lines.values() if line.failure]
        lost = {name: str(failure) for name, failure in ended if failure.kind in LOST}
        if lost:
            why = "; ".join(f"{name}: {failure}" for name, failure in lost.items())
            raise EvidenceError(
                f"the tournament for the MasterNet failed: got no result for {counted(len(lost), 'design')} ({why}), "
                "expected one for each; give the same command to try them again, or leave them out of masternets"
            )
        left = ranked(left, {network: line.held_out for (network, _), line in lines.items() if line.held_out is not None})
        if not left:
            why = "; ".join(f"{name}: {failure}" for name, failure in trainings.failures.items())
            raise EvidenceError(
                f"the tournament for the MasterNet failed: got no design that could be trained, expected at least one ({why})"
            )
        if len(left) == 1:  # of a round in which the others failed
            break
    return found.model_copy(update={"winner": left[0]})
