"""Check and profile: the cost of the job and of every block on this device, and the widths worth offering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from genet.arch.network import Block, blocks
from genet.arch.space import WidthsOnOffer
from genet.device import DeviceCard
from genet.errors import EvidenceError, MeasurementError, RunError
from genet.latency.profile import FEW, MANY, measure_network, profile_blocks
from genet.latency.staircase.space_sweeps import (
    Staircases,
    correction_networks,
    find_staircases,
    rows_needed,
    staircase_sites,
    sweep_blocks,
)
from genet.names import counted
from genet.pipeline.context import RunContext, other_setting, predictor
from genet.pipeline.master import training_spec
from genet.pipeline.preflight import Preflight, outlook, preflight
from genet.pipeline.train import teacher_of
from genet.pipeline.undecided import forget_doubtful
from genet.progress import Tracker


def check_job(job: RunContext) -> Preflight:
    """Check before any hour is spent: the job's size, time and budgets, and whether a teacher is available."""
    _same_kind_of_device(job)
    if before := other_setting(job):  # whose rows are not used
        job.progress.say(f"  the run was measured in another setting before ({before}), and is measured again now")
    undecided = job.recipe.space.masternets is not None and not (job.tournament and job.tournament.winner)
    if undecided or not job.folder.master.exists():
        spec = training_spec(job, job.reference, job.recipe.train)
        teacher_of(spec, job.splits.labels)  # a missing teacher must not be found only after the search
    job.card.save(job.folder.environment)
    forget_doubtful(job)
    seen = preflight(job)
    batch = max(job.recipe.train.batch, job.recipe.distill.batch)
    for line in filter(None, (*outlook(seen, job.table.setting), job.splits.shortened(batch))):
        job.progress.say(line)
    return seen


def _same_kind_of_device(job: RunContext) -> None:
    """Raise an error if a GPU has gone missing, which must not silently turn a run into one for the CPU."""
    if job.recipe.measure.device == "auto" and job.folder.environment.exists():
        before = DeviceCard.load(job.folder.environment)
        if before.kind != job.card.kind:
            raise RunError(
                f"{job.folder.path}: got {job.card.name} as device auto, expected {before.name}, on which the run was "
                f"measured; give --device {job.card.kind} and --remeasure to measure again here"
            )


def profile_device(job: RunContext) -> Staircases:
    """Measure all that latencies are predicted from: blocks, and then whole networks."""
    staircases = measure_blocks(job)
    calibrate(job, staircases)
    return staircases


def measure_blocks(job: RunContext) -> Staircases:
    """Measure the latency of the blocks on offer, and keep the widths at the edges of the device's staircase.

    First the repeated block of each super-block and block type, at the widths where its staircase may step; then the blocks that
    the kept widths need with their real input widths.
    """
    setting = job.table.setting.digest
    if not job.folder.staircase.exists() or job.folder.read(job.folder.staircase, Staircases).setting != setting:
        if not job.recipe.measure.latency_file:
            _sweep(job)
        with job.progress.awake("finding the staircases"):
            find_staircases(job.space, job.table).save(job.folder.staircase)
    staircases = job.folder.read(job.folder.staircase, Staircases)
    wanted = [*rows_needed(job.space, _kept(job, staircases)), *blocks(job.masternet)]
    if job.recipe.measure.latency_file:
        _check_evidence(job, wanted)
    else:
        _measure(job, wanted, "latency of blocks on offer")
    return staircases


def calibrate(job: RunContext, staircases: Staircases) -> None:
    """Measure the MasterNet and random networks whole, which correct the predictions from blocks."""
    kept = _kept(job, staircases)
    if not job.recipe.measure.latency_file:
        measure_networks(job, kept)
        _say_budgets(job)
    correction = predictor(job, job.table, kept).correction
    if correction.left_out_error is not None:
        job.progress.say(
            f"  predictions: {correction.scale:.3f} x sum of blocks + {correction.kernel_ms:.3g} ms per kernel, off by "
            f"{correction.left_out_error:.1%} on average over {correction.networks} networks left out one at a time"
        )


def _kept(job: RunContext, staircases: Staircases) -> dict[int, WidthsOnOffer]:
    """Return the widths on offer at every resolution."""
    return {resolution: job.kept_widths(staircases, resolution) for resolution in job.resolutions}


def _sweep(job: RunContext) -> None:
    """Measure the sweeps, all places in turn, until all steps are located."""
    everywhere = staircase_sites(job.space)
    own = [superblock.width for superblock in job.space.superblocks]
    if not everywhere:
        return
    marked = 0
    with job.progress.track("latency over widths", len({block for place in everywhere for block in place.sweep})) as tracker:
        while True:
            wanted = [block for place in everywhere for block in sweep_blocks(place, own[place.superblock], job.table)]
            if not wanted:
                break
            marked += _profile(job, wanted, tracker)
        tracker.end_here()  # the widths inside steps need no measurement
    _say_marked(job, marked)


def _measure(job: RunContext, asked: Iterable[Block], title: str) -> None:
    """Measure the blocks missing from the table."""
    wanted = list(dict.fromkeys(asked))
    missing = len(job.table.missing(wanted))
    with job.progress.track(title, len(wanted), len(wanted) - missing) as tracker:
        marked = _profile(job, wanted, tracker)
    _say_marked(job, marked)
    failed = [row for block in wanted if (row := job.table.block_row(block)) and row.failure]
    if failed:
        job.progress.say(f"  {counted(len(failed), 'block')} could not be measured, and left out, such as {failed[0].failure}")


def _profile(job: RunContext, wanted: Iterable[Block], tracker: Tracker) -> int:
    *middle, _ = blocks(job.masternet)  # the last one, with its classes, has no block notation for users
    sentinel = middle[len(middle) // 2]
    return profile_blocks(job.table, job.meter, wanted, sentinel, job.recipe.seed, tracker)


def _say_marked(job: RunContext, marked: int) -> None:
    if marked:
        job.progress.say(f"  the machine's speed changed by over 2 % during {marked} timings; they are corrected")


def _say_budgets(job: RunContext) -> None:
    """Say how long the MasterNet takes by all its rounds, and the budgets that are multiples of it."""
    batch, masternet_ms = job.table.setting.batch, job.table.masternet_ms(job.reference)
    row = job.table.network_row(job.reference)
    rounds, relative = len(row.ms) if row else 0, [budget for budget in job.recipe.select.budgets if budget.relative]
    told = "".join(f", {budget} is {budget.ms(masternet_ms, batch) / batch:.4f}" for budget in relative)
    job.progress.say(f"  the MasterNet takes {masternet_ms / batch:.4f} ms/image over {rounds} rounds{told}")


def measure_networks(job: RunContext, kept: Mapping[int, WidthsOnOffer]) -> None:
    """Measure the reference, the MasterNet at every resolution, and random networks, whole."""
    networks = (
        job.reference,
        *correction_networks(job.space, kept, job.recipe.measure.calibration_networks, job.recipe.seed),
    )
    with job.progress.track("random networks measured whole", len(networks)) as tracker:
        for network in networks:
            stop = MANY if network == job.reference else FEW
            try:
                measure_network(job.table, job.meter, network, job.reference, stop)
            except MeasurementError as fault:
                if network == job.reference:
                    raise
                job.progress.say(f"  {fault}")
            tracker.advance()


def _check_evidence(job: RunContext, wanted: list[Block]) -> None:
    """Raise EvidenceError unless the evidence of another machine covers this space: missing rows cannot be measured here."""
    lacking = []
    for block in dict.fromkeys(wanted):
        try:
            job.table.ms(block)
        except EvidenceError:
            lacking.append(block)
    if lacking:
        raise EvidenceError(
            f"reading {job.recipe.measure.latency_file} failed: got no row for {len(lacking)} blocks of this space, such "
            f"as {lacking[0]}, expected one for each; measure them on {job.table.setting.device.name} with `genet profile "
            "RUN` of this recipe"
        )
