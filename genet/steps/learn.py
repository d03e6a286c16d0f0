"""Master, distill and fit: what the trials teach about accuracy. And the one way in which this project trains a network."""

from __future__ import annotations

from pathlib import Path

from genet.choose.outcome import Trained
from genet.choose.regression import Regression, fit
from genet.errors import RunError
from genet.export import load_weights, save_weights
from genet.files import digest, remove_checked
from genet.job import Job
from genet.latency.plan import Staircases
from genet.nets.build import build
from genet.nets.training import accuracy, train
from genet.spec.network import Network
from genet.spec.recipe import Schedule
from genet.trials.finetune import FineTune
from genet.trials.plan import Trial, TrialResult, plan_trials
from genet.trials.runner import in_process, read_results, run_trials


def train_master(job: Job) -> Trained:
    """Train the MasterNet, the parent of all trials."""
    return train_network(job, job.masternet, job.recipe.master, job.folder.master, "training the MasterNet")


def train_network(job: Job, network: Network, schedule: Schedule, result: Path, title: str) -> Trained:
    """Train a network from scratch, unless `result` and the weights beside it tell that it was trained just so.

    A training that was interrupted goes on from its last whole epoch.
    """
    recipe = job.recipe
    inputs = digest(f"{network}/{schedule.model_dump_json()}/{recipe.data.model_dump_json()}/{recipe.seed}")
    weights = result.with_suffix(".safetensors")
    known = job.folder.read_current(result, Trained, inputs)
    if known and weights.exists():
        return known
    seed = int(digest(f"{recipe.seed}/{network}")[:12], 16)
    module = build(network, seed)
    resolution = network.input.resolution
    checkpoint = result.with_suffix(f".{inputs[:8]}.checkpoint")
    with job.progress.track(title, schedule.epochs) as tracker:

        def epoch_done(epoch: int, loss: float) -> None:
            tracker.resume_at(epoch - 1)
            tracker.advance(f"loss {loss:.3f}")

        images, device = job.splits.train, job.device
        train(module, images, schedule, resolution, device, seed, checkpoint=checkpoint, epoch_done=epoch_done)
    save_weights(module, weights)
    trained = Trained(
        inputs=inputs,
        network=str(network),
        resolution=resolution,
        nas_accuracy=accuracy(module, job.splits.nas_validation, resolution, job.device),
        test_accuracy=accuracy(module, job.splits.test, resolution, job.device),
    )
    trained.save(result)
    remove_checked(checkpoint)  # the result is safe, so the optimizer's state is no longer needed
    return trained


def distill(job: Job) -> tuple[TrialResult, ...]:
    """Run the trials: perturbed networks with the MasterNet's weights, fine-tuned. Returns all their results."""
    trials = planned_trials(job)
    done = {result.trial for result in finished_trials(job)}
    missing = [trial for trial in trials if trial.id not in done]
    with job.progress.track("trials", len(trials), len(trials) - len(missing)) as tracker:
        if missing:
            weights = job.folder.master.with_suffix(".safetensors")
            if not (job.folder.master.exists() and weights.exists()):
                raise RunError(f"{weights}: the trials need the MasterNet, and it is not there; `genet master RUN` trains it")
            masternet = load_weights(job.masternet, weights)
            work = FineTune(masternet, job.splits, job.recipe.distill, job.recipe.search_resolution, job.device)
            run_trials(missing, job.folder.trials, in_process, work, lambda found: tracker.advance(_note(found)))
    return finished_trials(job)


def planned_trials(job: Job) -> tuple[Trial, ...]:
    """The trials of this run; they depend on the recipe and on the staircases found."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    resolution = job.recipe.search_resolution
    return plan_trials(job.recipe.space, job.kept_widths(staircases, resolution), resolution, job.recipe.seed)


def finished_trials(job: Job) -> tuple[TrialResult, ...]:
    """The results of the planned trials so far. The journal may hold others, of other staircases."""
    results = read_results(job.folder.trials)
    return tuple(results[trial.id] for trial in planned_trials(job) if trial.id in results)


def _note(result: TrialResult) -> str:
    found = f"failed: {result.failure}" if result.accuracy is None else f"{result.accuracy:.1%}"
    return f"super-block {result.index + 1} as {result.superblock}: {found}"


def fit_trials(job: Job) -> Regression:
    """Fit the pseudo-gradients to the trials in the journal, and say which super-blocks lack evidence."""
    trained = job.folder.read(job.folder.master, Trained)
    results = finished_trials(job)
    regression = fit(job.recipe.space.superblocks, trained.nas_accuracy, results)
    missing = len(planned_trials(job)) - len(results)
    if missing:
        job.progress.say(f"  {missing} planned trials are not run yet; `genet distill RUN` runs them")
    regression.save(job.folder.regression)
    return regression
