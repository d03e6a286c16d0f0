"""Export: a trained network in every format, each loaded again and compared, with the card that holds the evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from genet.arch.external import read_notation
from genet.arch.network import Input
from genet.config.preprocessing import preprocessing_at, preprocessing_of
from genet.config.reader import read_training, to_yaml
from genet.config.recipe import Data, Measure, Recipe, TrainingRecipe
from genet.device import current, open_device
from genet.errors import DataError, RunError
from genet.export.exports import FORMATS, check_formats, export
from genet.export.format import TrainedModel
from genet.export.format_latency import with_latencies
from genet.export.manifest import Exports
from genet.latency.trace import cost_of, structure_cost
from genet.models.external import structure_of
from genet.models.weights import WEIGHTS_FILE, load, load_structure, read_labels, write_labels
from genet.pipeline.context import RunContext
from genet.pipeline.train import note_in, update_image_place
from genet.progress import Progress, Tracker
from genet.report.page import Card, card
from genet.search.outcome import Outcomes, TrainedNetwork
from genet.storage import digest, write_atomic
from genet.training.image_identity import ImageContents, relocated
from genet.training.splits import Splits, load_data

TIMED = 1  # the step after the formats of a network


def export_selected(job: RunContext, formats: Sequence[str] = (), name: str | None = None) -> tuple[Path, ...]:
    """Export the winner of every budget and the best searched network beside it, or the one of this name, in all formats or some.

    Their formats are timed at the batch of the run's latencies. There is none if no network meets a budget. RunError if none has
    this name.
    """
    check_formats(formats)
    outcomes = job.folder.read(job.folder.results, Outcomes)
    known = {each.name: each for outcome in outcomes.outcomes for each in outcome.exported}
    chosen = {each.name: each for each in known.values() if name in (None, each.name, each.network)}
    if not chosen and name is not None:
        names = f"one of {', '.join(known)}" if known else "another run, as no budget of this one has a network"
        raise RunError(f"exporting {name} failed: got no such network, expected {names}")
    recipe, count, images = job.recipe, len(_all(formats)) + TIMED, _ExportImages(job.recipe.data, job.splits, job.recipe.seed)
    with job.progress.track("exports (each loaded again and compared)", len(chosen) * count) as tracker:
        for number, raced in enumerate(chosen.values(), start=1):
            folder = (job.folder.path / raced.export).parent
            network = read_notation(raced.network, raced.name)
            module = load_structure(network, folder / WEIGHTS_FILE)
            exports = _exported(module, folder, formats, images, job.splits.labels, tracker)
            tracker.now("timing the formats")
            with current(job.device, recipe.measure.threads):
                exports = with_latencies(exports, folder / "export", job.device, recipe.measure.batch)
            tracker.resume_at(number * count)
            for form, why in exports.left_out.items():
                job.progress.say(f"  {raced.name}: {form} is left out: {why}")
            facts = Card(
                network,
                structure_cost(network),
                exports,
                preprocessing_of(recipe.data, network.input.channels, network.input.resolution),
                job.splits.labels,
                data=images.description,
                training=_trained_by(recipe, job.splits),
                trained=TrainedNetwork.load(folder / "model.json"),
                outcomes=outcomes,
                raced=raced,
                answers=tuple(each for each in outcomes.outcomes if raced.name in {every.name for every in each.exported}),
            )
            write_atomic(folder / "card.md", card(facts).encode())
    return tuple(job.folder.path / raced.export for raced in chosen.values())


def export_folder(folder: Path, formats: Sequence[str], data: Data | None, progress: Progress) -> Exports:
    """Export the network in a folder of its own; on the given images, or those it was trained on if its recipe is there.

    Only the latter give the names of the classes, which are written beside the network. RunError if they have changed since. Its
    formats are timed at the batch of a recipe that names none.
    """
    check_formats(formats)
    device = open_device("auto")
    module = load(folder)
    network, cost = structure_of(module), cost_of(module)  # a network that the card cannot describe is not exported
    input_ = network.input
    recipe = read_training(folder / "recipe.yaml") if (folder / "recipe.yaml").exists() else None
    source, seed = data or (relocated(recipe.data, folder) if recipe else None), recipe.seed if recipe else 0
    labels = read_labels(folder)
    images = _images_of(source, input_, seed, labels, folder if data is None else None, progress) if source else None
    if recipe and images and images.splits.contents:
        images = _recognised(images, folder, images.splits.contents, progress)
    if labels is None and images and images.own:
        labels = images.splits.labels
        write_labels(folder, labels)
    with progress.track("exports (each loaded again and compared)", len(_all(formats)) + TIMED) as tracker:
        exports = _exported(module, folder, formats, images, labels, tracker)
        tracker.now("timing the formats")
        exports = with_latencies(exports, folder / "export", device, Measure().batch)
        tracker.end_here()
    facts = Card(
        network,
        cost,
        exports,
        preprocessing_of(source, input_.channels, input_.resolution)
        if source
        else preprocessing_at(input_.channels, input_.resolution),
        labels,
        data=images.description if images else None,
        training=_trained_by(recipe, images.splits if images and images.own else None) if recipe else None,
        trained=TrainedNetwork.load(folder / "model.json") if (folder / "model.json").exists() else None,
    )
    write_atomic(folder / "card.md", card(facts).encode())
    return exports


@dataclass(frozen=True)
class _ExportImages:
    """Images to calibrate, compare and test with, and their identity."""

    data: Data
    splits: Splits
    seed: int
    own: bool = True  # those that the network was trained on

    @property
    def source(self) -> str:
        """Return a digest of the images."""
        return digest(f"{self.data.identity(self.splits.name)}/{self.seed}/{self.splits.test.size}")[:12]

    @property
    def description(self) -> str:
        """Tell which images the network was trained, chosen and tested on."""
        if self.own:
            return f"{self.data.name}: {self.splits.sizes}"
        return f"not known; calibrated and tested on images of {Path(self.data.root or self.data.name).name}"


def _images_of(
    data: Data, input_: Input, seed: int, labels: tuple[str, ...] | None, by_recipe_in: Path | None, progress: Progress
) -> _ExportImages:
    try:
        splits = load_data(data, input_, seed, labels=labels, progress=progress)
    except DataError as fault:
        where = f"; {by_recipe_in / 'recipe.yaml'} names these images; give --data FOLDER for others" if by_recipe_in else ""
        raise DataError(f"{fault}{where}") from None
    return _ExportImages(data, splits, seed, own=by_recipe_in is not None)


def _recognised(images: _ExportImages, folder: Path, contents: ImageContents, progress: Progress) -> _ExportImages:
    """Return the images under the name by which the network's folder knows them; its recipe names their place from then on.

    RunError if they are others than the network was trained on, unless they were requested.
    """
    try:
        noted = note_in(
            folder, images.data, contents, "put them back, or give --data FOLDER with others to calibrate and test on"
        )
    except RunError:
        if images.own:
            raise
        return images
    noted.keep(folder, progress)
    update_image_place(folder / "recipe.yaml", images.data.root)
    return dataclasses.replace(images, splits=dataclasses.replace(images.splits, name=noted.name), own=True)


def _exported(
    module: nn.Module,
    folder: Path,
    formats: Sequence[str],
    images: _ExportImages | None,
    labels: tuple[str, ...] | None,
    tracker: Tracker,
) -> Exports:
    into = folder / "export"
    if images is None:
        return export(TrainedModel(module, labels=labels), into, formats, tracker)
    input_ = structure_of(module).input
    preprocessing = preprocessing_of(images.data, input_.channels, input_.resolution)
    return export(TrainedModel(module, images.splits, images.source, preprocessing, labels), into, formats, tracker)


def _all(formats: Sequence[str]) -> set[str]:
    """Return the wanted formats, which always include the network's own."""
    return {"safetensors", *(formats or FORMATS)}


def _trained_by(recipe: Recipe | TrainingRecipe, splits: Splits | None) -> str:
    """Return the final training with the augmentation and the batch that it had, as YAML."""
    batch = min(recipe.train.batch, splits.train.size) if splits else recipe.train.batch
    return to_yaml(recipe.train.model_copy(update={"augment": recipe.train.augment or recipe.augment, "batch": batch}))
