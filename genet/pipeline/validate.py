"""Validate: train networks that the regression never saw, and compare the predictions with them."""

from __future__ import annotations

from collections.abc import Sequence

from genet.arch.network import Network
from genet.config.recipe import Schedule
from genet.errors import EvidenceError, MeasurementError, NonFiniteLossError
from genet.latency.profile import measure_network
from genet.names import counted
from genet.pipeline.context import RunContext
from genet.pipeline.distill import planned_trials
from genet.pipeline.master import parent_of, training_spec
from genet.pipeline.search_state import SearchState
from genet.pipeline.train import train_anew, trained_before
from genet.search.race import short_training
from genet.search.regression import Regression
from genet.search.solver import frontier
from genet.search.validation import Validation, ValidationNetwork, ValidationResult, validate, validation_networks
from genet.training.loop import Execution

TITLE = "training the networks, epochs"
FEWEST = 4  # networks, of which one is of the frontier


def validate_predictions(job: RunContext, count: int, epochs: int | None = None, trainings: int = 1) -> Validation:
    """Train `count` networks, each `trainings` times, and measure them; earlier work is not repeated.

    They are trained as the recipe trains what it selects, for a quarter of its epochs unless told otherwise.
    """
    if count < FEWEST:
        raise EvidenceError(f"a validation needs at least {FEWEST} networks, got {count}; try `--n 20`")
    usual, epochs = job.recipe.train, epochs or max(1, job.recipe.train.epochs // 4)
    schedule = usual if epochs == usual.epochs else short_training(usual, epochs / usual.epochs)
    state = SearchState(job, job.table)
    if state.regression != job.folder.read(job.folder.regression, Regression):
        job.progress.say("  the trials have changed since the last fit: fitting again for this")
    offered = state.choice_tables(job.recipe.search_resolution)
    known = {str(job.masternet), *(trial.network for trial in planned_trials(job))}
    chosen = validation_networks(offered, frontier(offered), known, count, job.recipe.seed)
    measured = _measured_ms(state, chosen)
    accuracies = _accuracies(job, [subject for subject in chosen if subject.network in measured], schedule, trainings)
    verdicts = [
        ValidationResult(subject=subject, accuracies=accuracies[subject.network], measured_ms=measured[subject.network])
        for subject in chosen
        if len(accuracies.get(subject.network, ())) == trainings
    ]
    if len(verdicts) < FEWEST:
        raise EvidenceError(f"a validation needs at least {FEWEST} networks that could be trained, got {len(verdicts)}")
    found = validate(verdicts, schedule.epochs, inputs=state.regression.inputs)
    found.save(job.folder.validation)
    return found


def _accuracies(
    job: RunContext, chosen: Sequence[ValidationNetwork], schedule: Schedule, trainings: int
) -> dict[str, tuple[float, ...]]:
    """Return NAS validation accuracies: of every network one per training.

    One that cannot be trained is reported and left out.
    """
    wanted = [(Network.parse(s.network, name=job.recipe.space.name), k) for k in range(trainings) for s in chosen]
    parent = parent_of(job)
    specs = {each: training_spec(job, each[0], schedule, each[1], parent) for each in wanted}
    before = {each: trained_before(spec, job.folder.validated(*each)) for each, spec in specs.items()}
    done = sum(schedule.epochs for known in before.values() if known)
    missing = len(wanted) - done // schedule.epochs
    job.progress.say(
        f"  {counted(missing, 'training')} of {counted(schedule.epochs, 'epoch')} to run; those that are finished survive a stop"
    )
    accuracies: dict[str, tuple[float, ...]] = {}
    splits = job.splits.with_view(training_spec(job, job.masternet, schedule).view())
    module = parent.module if parent else None
    with job.progress.track(TITLE, schedule.epochs * len(wanted), done) as tracker:
        for network, repeat in wanted:
            known, file = before[network, repeat], job.folder.validated(network, repeat)
            if known is None:
                try:
                    execution = Execution(job.device, log=job.log.under(file.stem))
                    known = train_anew(specs[network, repeat], splits, execution, file, tracker, module)
                except NonFiniteLossError as fault:
                    job.progress.say(f"  {network}: left out, {fault}")
                    continue
                finally:
                    done += schedule.epochs
                    tracker.resume_at(done)
            accuracies[str(network)] = (*accuracies.get(str(network), ()), known.nas_accuracy)
    return accuracies


def _measured_ms(state: SearchState, chosen: Sequence[ValidationNetwork]) -> dict[str, float | None]:
    """Return milliseconds per batch to compare with predictions, None if latencies are another machine's evidence.

    A network that cannot be measured is reported and left out.
    """
    job = state.job
    if not job.recipe.measure.here:
        return dict.fromkeys(subject.network for subject in chosen)
    found: dict[str, float | None] = {}
    with job.progress.track("measuring networks that no trial has trained", len(chosen)) as tracker:
        for subject in chosen:
            try:
                row = measure_network(state.table, job.meter, Network.parse(subject.network), job.reference)
                found[subject.network] = row.ratio * state.reference_ms
            except MeasurementError as fault:
                job.progress.say(f"  {subject.network}: left out, {fault}")
            tracker.advance()
    return found
