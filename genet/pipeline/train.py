"""One network trained into a file: the MasterNet, a selected network, or any network file."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import Input, Network
from genet.config.augment import Augment, augment_at
from genet.config.reader import read_structure, read_training, to_yaml
from genet.config.recipe import Data, Schedule, Training, TrainingRecipe
from genet.errors import GenetError, RunError, first_line
from genet.export.opening import open_network
from genet.models.build import GENet
from genet.models.class_order import numbered_like
from genet.models.external import build_structure, check_unchanged, mark_structure
from genet.models.folded import Folded, unfolded
from genet.models.inherit import inherit
from genet.models.plain import baked
from genet.models.weights import (
    NETWORK_FILE,
    WEIGHTS_FILE,
    check_rebuildable,
    load_structure,
    read_labels,
    save_weights,
    write_labels,
)
from genet.names import name_differences
from genet.progress import SILENT, Progress, Tracker
from genet.search.outcome import TrainedNetwork, percent
from genet.storage import digest, read_bytes, write_atomic
from genet.training.accuracy import right_answers
from genet.training.checkpoints import Checkpoints
from genet.training.class_folders import in_order
from genet.training.distributed import SINGLE_PROCESS, ProcessGroup
from genet.training.image_identity import EarlierImages, ImageContents, ImageNote, note_of
from genet.training.image_sets import View
from genet.training.log import NO_LOG, open_log
from genet.training.loop import Epoch, EpochDone, Execution, TrainingInputs, finished, training_stages
from genet.training.splits import Splits, load_data
from genet.training.trainable import ready_to_train

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingSpec:
    """A network, its training, and its images. Every `repeat` has weights and an order of images of its own.

    `start` is the file of weights to begin with, in place of fresh ones; `numbered` gives the classes in the order of those
    weights, if that is not the usual one. `inherits` is the digest of a parent's weights, which the caller passes. A folded
    network sees `fold` images as one. `images` is the name of the images in their `Splits`, and `part` the part of the training
    images that is held out.
    """

    network: ModelSpec
    schedule: Schedule
    data: Data
    seed: int
    augment: Augment | None = None  # the recipe's; a training may have its own
    repeat: int = 0
    start: Path | None = None
    numbered: tuple[str, ...] | None = None
    inherits: str = ""
    fold: int = 1
    images: str | None = None
    part: int = 0

    @property
    def inputs(self) -> str:
        """Names everything that the result depends on, including the weights of a teacher and those to begin with."""
        return self._inputs(self.schedule.placeless if isinstance(self.schedule, Training) else self.schedule)

    @property
    def earlier_inputs(self) -> str:
        """The same of an earlier version, which named a teacher by its place."""
        return self._inputs(self.schedule)

    def _inputs(self, schedule: Schedule) -> str:
        files = (file for file in (self._teachers_weights, self.start) if file and file.exists())
        taught = "".join(f"/{digest(read_bytes(file))}" for file in files)
        folded = f"/folded {self.fold}" if self.fold > 1 else ""
        order = f"/numbered {self.numbered}" if self.numbered else ""
        look = self.augment.model_dump_json() if self.augment else "default"
        inherited = f"/inherits {self.inherits}" if self.inherits else ""
        part = f"/holding out part {self.part}" if self.part else ""
        asked = f"{schedule.model_dump_json(exclude={'init'})}/{self.data.identity(self.images)}/{look}"
        return digest(f"{self.network}/{asked}/{self._drawn}{taught}{folded}{order}{inherited}{part}")

    @property
    def input(self) -> Input:
        """The input of its images."""
        return unfolded(self.network.input, self.fold)

    @property
    def teacher(self) -> str | None:
        """The teacher's name, if there is one."""
        return self.schedule.teacher if isinstance(self.schedule, Training) else None

    @property
    def _teachers_weights(self) -> Path | None:
        return None if self.teacher is None or self.teacher.startswith("timm:") else Path(self.teacher) / WEIGHTS_FILE

    @property
    def weights_seed(self) -> int:
        """Seed of new weights."""
        return int(digest(f"{self._drawn}/{self.network}")[:12], 16)

    @property
    def order_seed(self) -> int:
        """Seed of the images' order and augmentation: the same for all networks, for a fair comparison."""
        return int(digest(f"{self._drawn}/order")[:12], 16)

    @property
    def _drawn(self) -> str:
        return f"{self.seed}/{self.repeat}" if self.repeat else f"{self.seed}"

    def view(self, world: ProcessGroup = SINGLE_PROCESS) -> View:
        """Return the training's view of its images, with this process's part of every batch."""
        training = Training.model_validate(self.schedule.model_dump())
        return View(training.augment or self.augment, training.random_erase_prob, world.rank, world.size)


def trained_before(spec: TrainingSpec, result: Path) -> TrainedNetwork | None:
    """Return the result of an earlier training that was exactly this one."""
    if not (result.exists() and result.with_suffix(".safetensors").exists()):
        return None
    known = TrainedNetwork.load(result)
    return known if known.inputs in (spec.inputs, spec.earlier_inputs) else None


def train_anew(
    spec: TrainingSpec,
    splits: Splits,
    execution: Execution,
    result: Path,
    tracker: Tracker,
    parent: GENet | None = None,
) -> TrainedNetwork:
    """Train a network; one that was interrupted resumes from its last checkpoint, which is beside the result.

    The tracker counts epochs. Of several processes the first writes.
    """
    world, checkpoint = execution.world, result.with_suffix(f".{spec.inputs[:8]}.checkpoint")
    log = execution.log if world.first else NO_LOG
    here = dataclasses.replace(execution, device=world.device(execution.device), checkpoint=checkpoint, log=log)
    tell = _epoch_reporter(tracker, splits.train.size)
    module, trained, _ = finished(train_by_epochs(spec, splits, here, parent), tell)
    if world.first:
        save_weights(module, result.with_suffix(".safetensors"))
        save_trained(trained, result)
        Checkpoints(checkpoint).remove()  # the result is safe, so the optimizer's state is no longer needed
    world.wait()
    return trained


def save_trained(trained: TrainedNetwork, result: Path) -> None:
    """Write the result of a training, and its curve beside it: `curves.csv` beside a network's `model.json`."""
    file = result.with_name("curves.csv" if result.stem == "model" else f"{result.stem}.curves.csv")
    if trained.curve:
        rows = [f"{epoch},{loss:.6g},{accuracy:.6g}" for epoch, loss, accuracy in trained.curve]
        write_atomic(file, "\n".join(["epoch,training_loss,training_accuracy", *rows, ""]).encode())
    else:  # it went on from a checkpoint of an earlier version, at its end
        file.unlink(missing_ok=True)
    trained.save(result)


def train_by_epochs(
    spec: TrainingSpec, splits: Splits, execution: Execution, parent: GENet | None = None
) -> Generator[Epoch, None, tuple[nn.Module, TrainedNetwork, torch.Tensor]]:
    """Train a network, from its checkpoint if there is one; yield every epoch's number, loss and accuracy.

    `parent` holds the weights that the network inherits. Return the network, without its fold, its accuracies, and which of
    this process's held-out images it classifies correctly, (N,). Nothing but the checkpoint and the log is written.
    """
    module, resolution = _initial_module(spec, parent=parent), spec.network.input.resolution
    splits = splits.holding_out(spec.part)
    teacher = teacher_of(spec, splits.labels)
    inputs = TrainingInputs(splits.train, spec.schedule, resolution, spec.order_seed, teacher)
    with closing(execution.log) as log:
        epochs = yield from log.follow(training_stages(module, inputs, execution))
        judging = [splits.nas_validation, splits.test]
        if isinstance(module, Folded):  # images of one class must not share a stack because they lie side by side
            judging = [images.shuffled(spec.seed) for images in judging]
        answers, tested = (right_answers(module, images, resolution, execution.device) for images in judging)
        right, right_of_test = execution.world.total(int(answers.sum()), int(tested.sum()))
        nas, test = right / splits.nas_validation.size, right_of_test / splits.test.size
        log.write(epochs[-1][0], {"held-out accuracy": nas, "test accuracy": test})
    trained = TrainedNetwork(
        inputs=spec.inputs,
        network=str(spec.network),
        resolution=resolution,
        nas_accuracy=nas,
        nas_images=splits.nas_validation.size,
        test_accuracy=test,
        loss=epochs[-1][1],
        curve=tuple(epoch for epoch in epochs if math.isfinite(epoch[2])),
        images=splits.contents.digest if splits.contents else None,
    )
    return (module.inside if isinstance(module, Folded) else module), trained, answers


def _initial_module(spec: TrainingSpec, progress: Progress = SILENT, parent: GENet | None = None) -> nn.Module:
    """Return the network with fresh weights, or with those it begins with; changes to other authors' modules are reported."""
    network = spec.network
    if spec.inherits and isinstance(network, Network):
        assert parent is not None, "whoever trains a network that inherits has its parent"
        return inherit(parent, network, spec.weights_seed).train()
    module = load_structure(network, spec.start).train() if spec.start else build_structure(network, spec.weights_seed)
    if isinstance(network, ExternalModel):
        for remark in filter(None, (baked(module), ready_to_train(module, network))):
            progress.say(f"  {network.name}: {remark}")
    if spec.fold == 1:
        return module
    return mark_structure(Folded(module, spec.fold), network.model_copy(update={"input": spec.input}))


def train_network(
    folder: Path,
    network: ModelSpec,
    recipe: TrainingRecipe,
    execution: Execution,
    start: Path | None = None,
    fold: int = 1,
) -> TrainedNetwork:
    """Train any network into a folder of its own, from scratch or from the weights in `start`, or folded.

    A finished training of exactly this kind is not repeated.

    RunError if the folder holds another network or the training of another recipe, GenetError if a user's function has
    changed since the network was imported.
    """
    check_unchanged(network)
    world, progress = execution.world, execution.progress
    labels = read_labels(start.parent) if start else None
    numbered = labels if labels and labels != in_order(labels) else None
    spec = TrainingSpec(
        network, recipe.train, recipe.data, recipe.seed, recipe.augment, start=start, numbered=numbered, fold=fold
    )
    result, device = folder / "model.json", world.device(execution.device)
    splits = load_data(recipe.data, spec.input, recipe.seed, spec.view(world), device, labels, progress)
    noted = None
    if splits.contents:
        noted = note_in(folder, recipe.data, splits.contents, "put them back, or give another --into FOLDER")
        spec = dataclasses.replace(spec, images=noted.name)
    known = trained_before(spec, result)
    if not known:
        execution = dataclasses.replace(execution, log=open_log(recipe.log, folder))
        _check_free(folder, spec, recipe)
        teacher_of(spec, splits.labels)  # nothing is written for a training that is not possible
        module = _initial_module(spec, progress)
        check_rebuildable(module.inside if isinstance(module, Folded) else module, network)
        splits.check(network.input.resolution)
    world.wait()  # all processes have checked before the first of them writes
    if world.first and noted:
        noted.keep(folder, progress)
    if known:
        if world.first:
            update_image_place(folder / "recipe.yaml", recipe.data.root)
        return known
    if world.first:
        write_atomic(folder / "network.yaml", to_yaml(network).encode())
        write_atomic(folder / "recipe.yaml", to_yaml(recipe).encode())
        write_labels(folder, splits.labels)
    look = augment_at(spec.view().augment, recipe.data.name, network.input.resolution)
    progress.say(f"  {splits.sizes}; augmentation: {look}")
    if remark := splits.shortened(recipe.train.batch):
        progress.say(remark)
    with progress.track(f"training {network.name}", recipe.train.epochs) as tracker:
        return train_anew(spec, splits, execution, result, tracker)


def note_in(folder: Path, data: Data, contents: ImageContents, remedy: str) -> ImageNote:
    """Return the note that a training's folder keeps of these images; RunError if it was trained on others."""
    result, made = folder / "model.json", None
    if (result.exists() or any(folder.glob("model.*.checkpoint*"))) and (folder / "recipe.yaml").exists():
        images = TrainedNetwork.load(result).images if result.exists() else None
        made = EarlierImages(read_training(folder / "recipe.yaml").data.root, images, tested=result.exists())
    return note_of(folder, data, contents, made, remedy)


def update_image_place(file: Path, root: str | None) -> None:
    """Update the recipe of a finished training with the present folder of its images."""
    recorded = read_training(file) if file.exists() else None
    if recorded and recorded.data.root != root:
        data = recorded.data.model_copy(update={"root": root})
        write_atomic(file, to_yaml(recorded.model_copy(update={"data": data})).encode())


def _check_free(folder: Path, spec: TrainingSpec, recipe: TrainingRecipe) -> None:
    if not (any(folder.glob("model.*.checkpoint*")) or (folder / "model.json").exists()):
        if (folder / WEIGHTS_FILE).exists():
            raise RunError(
                f"{folder}: got weights from elsewhere, expected an empty folder or files of this training; give another "
                "--into FOLDER"
            )
        file = folder / NETWORK_FILE
        if file.exists() and read_structure(file) != spec.network:
            raise RunError(f"{file}: got the file of another training, expected that of this one; give another --into FOLDER")
        return  # no training was paid for here
    if any(folder.glob(f"model.{spec.inputs[:8]}.checkpoint*")):
        return
    same: dict[str, Callable[[Path], bool]] = {
        "network.yaml": lambda file: file.read_text() == to_yaml(spec.network),
        "recipe.yaml": lambda file: _without_place(read_training(file)) == _without_place(recipe),
    }
    for name, is_same in same.items():
        if (folder / name).exists() and not is_same(folder / name):
            raise RunError(
                f"{folder / name}: got the file of another training, expected that of this one; give another --into FOLDER"
            )


def _without_place(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return the recipe without the place of its images, which are identified by their content, and without its log."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": None}), "log": None})


def _epoch_reporter(tracker: Tracker, images: int) -> EpochDone:
    """Report every epoch on the tracker."""
    before, began = tracker.done, time.monotonic()

    def epoch_done(epoch: int, loss: float, accuracy: float) -> None:
        nonlocal began
        now = time.monotonic()
        pace, began = images / (now - began), now
        tracker.resume_at(before + epoch - 1)
        tracker.advance(f"loss {loss:.3f}, training accuracy {percent(accuracy)}, {pace:.0f} images/s")

    return epoch_done


def teacher_of(spec: TrainingSpec, labels: tuple[str, ...] | None) -> nn.Module | None:
    """Return the teacher of a training that has one, answering in the order of the images' labels.

    GenetError if it is not available, cannot process the network's images, or has other classes.
    """
    name = spec.teacher
    if name is None:
        return None
    try:
        opened, input_ = open_network(name, CPU), spec.input
    except GenetError as fault:
        raise GenetError(f"teacher: got {name} ({fault}), expected timm:MODEL or a trained network's folder") from None
    teacher = opened.forward
    if not isinstance(teacher, nn.Module):
        raise GenetError(f"teacher: got {name}, a file for {opened.runtime}, expected timm:MODEL or a trained network's folder")
    try:
        with torch.inference_mode():
            teacher.eval()(torch.zeros(1, *input_.image))
    except RuntimeError as fault:
        raise GenetError(
            f"teacher: {name} failed on images of {input_.channels} x {input_.resolution} x {input_.resolution} "
            f"({first_line(fault)})"
        ) from None
    if opened.input.classes != input_.classes:
        found_classes = opened.input.classes
        raise GenetError(
            f"teacher: got {name} for {found_classes} classes, expected one for the network's {input_.classes} classes"
        )
    differ = name_differences(labels, opened.labels) if labels and opened.labels else None
    if differ:
        lacking, extra, hint = differ
        classes = f"lacks {lacking or 'none'} and has {extra or 'none'} in addition"
        raise GenetError(f"teacher: got {name}, which {classes}, expected the classes of the images{hint or '; name another'}")
    return numbered_like(teacher, opened.labels, labels)
