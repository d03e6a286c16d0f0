"""Master: train the MasterNet, the parent of all trials, or take one that was trained before."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

from genet.arch.external import ModelSpec
from genet.arch.space import may_inherit
from genet.config.pretrained import check_pretrained
from genet.config.recipe import PretrainedMaster, Recipe, Schedule, TunedMaster
from genet.errors import NonFiniteLossError, RunError
from genet.models.build import GENet, build
from genet.models.class_order import numbered_like
from genet.models.weights import WEIGHTS_FILE, load, load_weights, read_labels, save_weights, weights_bytes
from genet.names import quoted
from genet.pipeline.context import RunContext
from genet.pipeline.train import TrainingSpec, train_anew, trained_before
from genet.search.outcome import TrainedNetwork
from genet.search.unlearnt import lower_rate
from genet.storage import digest
from genet.training.accuracy import accuracy
from genet.training.distributed import SINGLE_PROCESS, ProcessGroup
from genet.training.image_sources import check_labels
from genet.training.loop import Execution

TITLE = "training the MasterNet"


class Parent(NamedTuple):
    """A network whose weights others begin with, and a digest of them."""

    module: GENet
    weights: str


def train_master(job: RunContext) -> TrainedNetwork:
    """Train the MasterNet, the parent of all trials, from new weights or from others; or take one that was trained before."""
    try:
        return _trained_or_taken(job)
    except NonFiniteLossError as fault:
        schedule = master_schedule(job.recipe)
        command = f"; next: {anew_with(job, lower_rate(schedule))}" if schedule else ""
        raise NonFiniteLossError(f"{fault}{command}") from fault


def anew_with(job: RunContext, change: str) -> str:
    """Return the command that trains the MasterNet with another value, such as `epochs=60`.

    It keeps what was measured, unless trials started from the MasterNet: then it is for a new run.
    """
    run = "--new-run" if job.folder.trials.read().records else f"--run {quoted(job.folder.path)}"
    return f"genet run {quoted(job.folder.recipe_file)} {run} --set master.{change}"


def _trained_or_taken(job: RunContext) -> TrainedNetwork:
    master, own = job.recipe.master, job.folder.master
    if not isinstance(master, PretrainedMaster | TunedMaster):
        return train_unless_done(job, training_spec(job, job.masternet, master), own, TITLE, None)
    folder = Path(master.folder)
    if own.exists() and own.with_suffix(".safetensors").exists() and not (folder / WEIGHTS_FILE).exists():
        return TrainedNetwork.load(own)  # the run has its own copy
    check_pretrained(job.recipe)
    return _take_master(job, folder) if isinstance(master, PretrainedMaster) else _tune_master(job, master.schedule, folder)


def master_schedule(recipe: Recipe) -> Schedule | None:
    """Return how the MasterNet is trained, from new weights or from others; None if it is taken as it is."""
    master = recipe.master
    return master.schedule if isinstance(master, TunedMaster) else master if isinstance(master, Schedule) else None


def master_cost(recipe: Recipe) -> float:
    """Return what training the MasterNet costs, in full trainings (T)."""
    master = master_schedule(recipe)
    return master.epochs / recipe.train.epochs if master else 0.0


def _tune_master(job: RunContext, schedule: Schedule, folder: Path) -> TrainedNetwork:
    """Train the MasterNet from the weights in a folder; RunError if the run's trials started from others.

    A classifier for other classes gets new weights.
    """
    module = cast("GENet", load(folder))
    if numbered_like(module, read_labels(folder), job.splits.labels) is None:
        module.head = build(module.network, job.recipe.seed).head
    parent = _parent(module)
    spec = training_spec(job, job.masternet, schedule, parent=parent)
    if trained_before(spec, job.folder.master) is None:
        _check_no_trials(job, folder)
    return train_unless_done(job, spec, job.folder.master, TITLE, parent)


def _parent(module: GENet) -> Parent:
    return Parent(module, digest(weights_bytes(module)))


def parent_of(job: RunContext) -> Parent | None:
    """Return the trained MasterNet if the networks of the run begin with its weights; None if they begin with new ones."""
    if job.recipe.train.init == "scratch":
        return None
    job.folder.read(job.folder.master, TrainedNetwork)
    return _parent(load_weights(job.masternet, job.folder.master.with_suffix(".safetensors")))


def _check_no_trials(job: RunContext, folder: Path) -> None:
    """Raise RunError if trials started from other weights than those in the folder."""
    if job.folder.master.exists() and job.folder.trials.read().records:
        raise RunError(
            f"master.from: got other weights in {folder}, expected those that the run's trials started from; give "
            "--new-run for new trials"
        )


def _take_master(job: RunContext, folder: Path) -> TrainedNetwork:
    """Copy a trained network of the MasterNet's structure into the run, with its accuracies on the run's images.

    SpecError if it is another network, RunError if it is not the one that the run's trials started from.
    """
    recipe, splits, weights = job.recipe, job.splits, job.folder.master.with_suffix(".safetensors")
    ours, labels = job.masternet, read_labels(folder)
    module = load_weights(ours, folder / WEIGHTS_FILE)
    if numbered_like(module, labels, splits.labels) is None:
        check_labels(labels, splits.labels, str(recipe.data.root or recipe.data.name))
    inputs = digest(f"{digest(weights_bytes(module))}/{ours}/{recipe.data.identity(splits.name)}/{recipe.seed}")
    known = job.folder.read_current(job.folder.master, TrainedNetwork, inputs)
    if known and weights.exists():
        return known
    _check_no_trials(job, folder)
    size, sets = ours.input.resolution, (splits.nas_validation, splits.test)
    nas, test = (accuracy(module, images, size, job.device) for images in sets)
    save_weights(module, weights)
    trained = TrainedNetwork(
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


def train_unless_done(
    job: RunContext,
    spec: TrainingSpec,
    result: Path,
    title: str,
    parent: Parent | None,
    world: ProcessGroup = SINGLE_PROCESS,
) -> TrainedNetwork:
    """Train a network, unless `result` and the weights beside it show that this is done; `parent` holds what it inherits."""
    known = trained_before(spec, result)
    world.wait()  # all processes have checked before the first of them writes
    if known:
        return known
    splits = job.splits.with_view(spec.view(world))
    log = job.log.under(result.parent.name if result.stem == "model" else result.stem)
    with job.progress.track(title, spec.schedule.epochs) as tracker:
        execution = Execution(job.device, world=world, progress=job.progress, log=log)
        return train_anew(spec, splits, execution, result, tracker, parent.module if parent else None)


def training_spec(
    job: RunContext, network: ModelSpec, schedule: Schedule, repeat: int = 0, parent: Parent | None = None
) -> TrainingSpec:
    """Return the training of a network on the job's images, from a parent's weights if there is one that it may inherit."""
    recipe = job.recipe
    inherits = parent.weights if parent and may_inherit(network, parent.module.network) else ""
    return TrainingSpec(
        network, schedule, recipe.data, recipe.seed, recipe.augment, repeat, inherits=inherits, images=job.splits.name
    )
