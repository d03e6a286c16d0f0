"""Master and fit: the parent of the trials, and what they teach about accuracy. And the way in which networks are trained."""

from __future__ import annotations

from pathlib import Path

from genet.choose.fit import fit
from genet.choose.outcome import Trained
from genet.choose.regression import Regression
from genet.export import save_weights
from genet.files import digest, remove_checked
from genet.job import Job
from genet.nets.build import build
from genet.nets.training import accuracy, train
from genet.progress import Tracker
from genet.spec.network import Network
from genet.spec.recipe import Model, Schedule
from genet.steps.distill import finished_trials, planned_trials

WITHOUT: dict[Model, str] = {
    "auto": "what they cannot tell is taken from the slopes that all super-blocks share",
    "paper": "its slopes are the smallest of many that fit; --model auto shares slopes among super-blocks",
}


def train_master(job: Job) -> Trained:
    """Train the MasterNet, the parent of all trials."""
    return train_network(job, job.masternet, job.recipe.master, job.folder.master, "training the MasterNet")


def train_network(job: Job, network: Network, schedule: Schedule, result: Path, title: str) -> Trained:
    """Train a network from scratch, unless `result` and the weights beside it tell that it was trained just so."""
    known = trained_before(job, network, schedule, result)
    if known:
        return known
    with job.progress.track(title, schedule.epochs) as tracker:
        return train_anew(job, network, schedule, result, tracker)


def trained_before(job: Job, network: Network, schedule: Schedule, result: Path, repeat: int = 0) -> Trained | None:
    """What a training left that was just this one."""
    known = job.folder.read_current(result, Trained, _inputs(job, network, schedule, repeat))
    return known if known and result.with_suffix(".safetensors").exists() else None


def train_anew(
    job: Job, network: Network, schedule: Schedule, result: Path, tracker: Tracker, repeat: int = 0, before: int = 0
) -> Trained:
    """Train a network from scratch; one that was interrupted goes on from its last whole epoch.

    Every `repeat` has a seed of its own. The tracker counts epochs, of which `before` are other networks'.
    """
    inputs, weights = _inputs(job, network, schedule, repeat), result.with_suffix(".safetensors")
    seed = int(digest(f"{_drawn(job, repeat)}/{network}")[:12], 16)
    module = build(network, seed)
    resolution = network.input.resolution
    checkpoint = result.with_suffix(f".{inputs[:8]}.checkpoint")

    def epoch_done(epoch: int, loss: float) -> None:
        tracker.resume_at(before + epoch - 1)
        tracker.advance(f"loss {loss:.3f}")

    images, device = job.splits.train, job.device
    train(module, images, schedule, resolution, device, seed, checkpoint=checkpoint, epoch_done=epoch_done)
    save_weights(module, weights)
    trained = Trained(
        inputs=inputs,
        network=str(network),
        resolution=resolution,
        nas_accuracy=accuracy(module, job.splits.nas_validation, resolution, job.device),
        nas_images=job.splits.nas_validation.size,
        test_accuracy=accuracy(module, job.splits.test, resolution, job.device),
    )
    trained.save(result)
    remove_checked(checkpoint)  # the result is safe, so the optimizer's state is no longer needed
    return trained


def _inputs(job: Job, network: Network, schedule: Schedule, repeat: int) -> str:
    return digest(f"{network}/{schedule.model_dump_json()}/{job.recipe.data.model_dump_json()}/{_drawn(job, repeat)}")


def _drawn(job: Job, repeat: int) -> str:
    return f"{job.recipe.seed}/{repeat}" if repeat else f"{job.recipe.seed}"


def fit_trials(job: Job, model: Model | None = None) -> Regression:
    """Fit the regression to the trials in the journal, and say where evidence is lacking; the recipe's model if none is named."""
    regression = _fitted(job, model or job.recipe.fit.model)
    missing = len(planned_trials(job)) - len(finished_trials(job))
    if missing:
        job.progress.say(f"  {missing} planned trials are not run yet; `genet distill RUN` runs them")
    for gradient in regression.gradients:
        if gradient.missing:
            job.progress.say(
                f"  super-block {gradient.index + 1} as {gradient.block_type}: {gradient.trials} finished trials for "
                f"{gradient.unknowns} unknowns, {gradient.missing} are missing; {WITHOUT[regression.model]}"
            )
    regression.save(job.folder.regression)
    return regression


def current_regression(job: Job) -> Regression:
    """The run's regression; fitted anew, and not saved, where its trials or the MasterNet have changed since."""
    known = job.folder.read(job.folder.regression, Regression)
    return known if known.inputs == _evidence_digest(job, known.model) else _fitted(job, known.model)


def _fitted(job: Job, model: Model) -> Regression:
    trained = job.folder.read(job.folder.master, Trained)
    inputs = _evidence_digest(job, model)
    return fit(job.masternet, trained.nas_accuracy, finished_trials(job), trained.nas_images, model, inputs)


def _evidence_digest(job: Job, model: Model) -> str:
    master = job.folder.read(job.folder.master, Trained)
    found = ((result.id, result.accuracy) for result in finished_trials(job))
    return digest(f"{model}/{master.inputs}/{master.nas_accuracy}/{sorted(found, key=str)}")
