"""Master and fit: the parent of the trials, and the regression of accuracy on them."""

from __future__ import annotations

from pathlib import Path

from genet.arch.external import ModelSpec
from genet.config.pretrained import check_pretrained
from genet.config.recipe import Model, PretrainedMaster, Schedule
from genet.errors import RunError
from genet.models.weights import WEIGHTS_FILE, load_weights, read_labels, save_weights, weights_bytes
from genet.pipeline.context import RunContext
from genet.pipeline.distill import finished_trials, planned_trials
from genet.pipeline.train import TrainingTask, train_anew, trained_before
from genet.search.fit import fit
from genet.search.outcome import Trained
from genet.search.regression import Regression
from genet.storage import digest
from genet.training.datasets import check_labels
from genet.training.distributed import SINGLE_PROCESS, ProcessGroup
from genet.training.evaluation import accuracy
from genet.training.loop import Execution

WITHOUT: dict[Model, str] = {
    "auto": "what they cannot tell is taken from the slopes that all super-blocks share",
    "paper": "its slopes are the smallest of many that fit; --model auto shares slopes among super-blocks",
}


def train_master(job: RunContext) -> Trained:
    """Train the MasterNet, the parent of all trials; or take one that was trained before."""
    master = job.recipe.master
    if isinstance(master, PretrainedMaster):
        return _take_master(job, Path(master.folder))
    return train_network(job, job.masternet, master, job.folder.master, "training the MasterNet")


def _take_master(job: RunContext, folder: Path) -> Trained:
    """Copy a trained network of the MasterNet's structure into the run, with its accuracies on the run's images.

    SpecError if it is another network, RunError if it is not the one that the run's trials started from.
    """
    recipe, splits, weights = job.recipe, job.splits, job.folder.master.with_suffix(".safetensors")
    if job.folder.master.exists() and weights.exists() and not (folder / WEIGHTS_FILE).exists():
        return Trained.load(job.folder.master)  # the run has its own copy
    check_pretrained(recipe)
    ours, labels = job.masternet, read_labels(folder)
    module = load_weights(ours, folder / WEIGHTS_FILE)
    if labels and splits.labels and {*labels} == {*splits.labels}:
        places = [labels.index(label) for label in splits.labels]
        for tensor in module.head.fc.parameters():  # its answers come in the order of the run's classes
            tensor.data = tensor.data[places]
    else:
        check_labels(labels, splits.labels, str(recipe.data.root or recipe.data.name))
    inputs = digest(f"{digest(weights_bytes(module))}/{ours}/{recipe.data.identity(splits.name)}/{recipe.seed}")
    known = job.folder.read_current(job.folder.master, Trained, inputs)
    if known and weights.exists():
        return known
    if job.folder.master.exists() and job.folder.trials.read().records:
        raise RunError(
            f"master.from: {folder} must hold the weights that the run's trials started from; give --new-run for new trials"
        )
    size, sets = ours.input.resolution, (splits.nas_validation, splits.test)
    nas, test = (accuracy(module, images, size, job.device) for images in sets)
    save_weights(module, weights)
    trained = Trained(
        inputs=inputs,
        network=str(ours),
        resolution=size,
        nas_accuracy=nas,
        nas_images=sets[0].size,
        test_accuracy=test,
        images=splits.contents.digest if splits.contents else None,
    )
    trained.save(job.folder.master)
    return trained


def train_network(
    job: RunContext, network: ModelSpec, schedule: Schedule, result: Path, title: str, world: ProcessGroup = SINGLE_PROCESS
) -> Trained:
    """Train a network from scratch, unless `result` and the weights beside it show that this training is done."""
    lesson = lesson_of(job, network, schedule)
    known = trained_before(lesson, result)
    world.wait()  # all processes have checked before the first of them writes
    if known:
        return known
    splits = job.splits.seen_as(lesson.view(world))
    log = job.log.under(result.parent.name if result.stem == "model" else result.stem)
    with job.progress.track(title, schedule.epochs) as tracker:
        execution = Execution(job.device, world=world, progress=job.progress, log=log)
        return train_anew(lesson, splits, execution, result, tracker)


def lesson_of(job: RunContext, network: ModelSpec, schedule: Schedule, repeat: int = 0) -> TrainingTask:
    """Return a network trained on the job's images."""
    return TrainingTask(network, schedule, job.recipe.data, job.recipe.seed, job.recipe.augment, repeat, images=job.splits.name)


def fit_trials(job: RunContext, model: Model | None = None) -> Regression:
    """Fit the regression to the trials in the journal, and report missing evidence; the recipe's model if none is named."""
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


def current_regression(job: RunContext) -> Regression:
    """Return the run's regression; fitted anew, and not saved, if its trials or the MasterNet have changed since."""
    known = job.folder.read(job.folder.regression, Regression)
    return known if known.inputs == _evidence_digest(job, known.model) else _fitted(job, known.model)


def _fitted(job: RunContext, model: Model) -> Regression:
    trained = job.folder.read(job.folder.master, Trained)
    inputs = _evidence_digest(job, model)
    return fit(job.masternet, trained.nas_accuracy, finished_trials(job), trained.nas_images, model, inputs)


def _evidence_digest(job: RunContext, model: Model) -> str:
    master = job.folder.read(job.folder.master, Trained)
    found = ((result.id, result.accuracy) for result in finished_trials(job))
    return digest(f"{model}/{master.inputs}/{master.nas_accuracy}/{sorted(found, key=str)}")
