"""`genet check`: the cost of a network, space or recipe, or every fault of its file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from genet.arch.cost import network_cost
from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import Network
from genet.arch.space import SearchSpace
from genet.cli.console import Answer, progress
from genet.cli.recipe_overrides import recipe_overrides
from genet.config.pretrained import check_pretrained
from genet.config.reader import read_any
from genet.config.recipe import Measure, Recipe, TrainingRecipe
from genet.device import check_threads, open_device
from genet.errors import DeviceError, EvidenceError, GenetError, SpecError
from genet.latency.evidence import read_evidence
from genet.latency.staircase.space_sweeps import expected_rows
from genet.names import counted, some_of
from genet.pipeline.context import check_designs
from genet.pipeline.reach import BudgetOutlook, estimated_outlooks, outlooks, recorded_outlooks
from genet.pipeline.run_folder import RunFolder, default_folder
from genet.progress import duration, wrapped
from genet.search.known_designs import check_portfolio, designs_of, known_designs, portfolio_of
from genet.search.outcome import TELLING
from genet.training.inventory import Inventory, check_images, images_in
from genet.trials.plan import plan_trials

T = TypeVar("T")
UNKNOWN = "known after genet run has measured, which is its first step"
WHOLE = ("notation", "images")  # printed on one line, however long
FEW = 10  # images to train on: a class with fewer is named
AT_ONCE = 4e9  # MACs of the images of one timed training step on a processor at most, so that a step takes a second or so
MOST_IMAGES = 20_000  # with more, no batch is decoded to time a step
Checked = ModelSpec | SearchSpace | Recipe | TrainingRecipe


def run(arguments: argparse.Namespace) -> Answer:
    """Report every fault of a file, or its cost and its images."""
    record = _read(arguments)
    images, budgets = _checked(record)
    if arguments.designs:
        return _print_designs(record)
    answer: Answer = {"name": record.name}
    if isinstance(record, Recipe | TrainingRecipe):
        answer |= _image_counts(record, images)
    if isinstance(record, TrainingRecipe):
        answer |= record.train.model_dump(mode="json", exclude_none=True)
        return _printed(answer)
    if isinstance(record, ExternalModel):
        input_ = record.input
        answer |= {"notation": str(record), "layers_of_other_widths": len(record.layers), "size": input_.resolution}
        answer |= {"blocks_removed": len(record.removed)} if record.removed else {}
        return _printed(answer | {"digest": record.digest})
    if isinstance(record, Network):
        network = record
    else:
        space = record.space if isinstance(record, Recipe) else record
        widths = space.widths_on_offer()
        networks = (record.measure if isinstance(record, Recipe) else Measure()).calibration_networks
        network = space.masternet(record.search_resolution if isinstance(record, Recipe) else max(space.input.resolutions))
        expected = expected_rows(space, networks)
        if isinstance(record, Recipe):  # which adds controls and paired ones
            trials = len(plan_trials(space, widths, record.search_resolution, record.seed, record.distill))
        else:
            trials = space.perturb.trials_per_type * len(widths)
        answer |= {
            "networks": space.size(widths),
            "block_types": len(widths),
            "trials_at_most": trials,
            "blocks_to_measure_about": expected.rows,
            "networks_to_measure": expected.networks,
        }
        answer |= {"masternets": len(portfolio_of(space))} if space.masternets else {}
    cost = network_cost(network)
    size = network.input.resolution
    answer |= {
        "notation": str(network),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "bytes": cost.bytes(),
        "size": size,
        "digest": network.digest,
    }
    for each in budgets:
        unknown = ": ".join(filter(None, (each.others, UNKNOWN)))
        answer[f"budget {each.budget}"] = unknown if each.reachable is None else each.prospect
    if isinstance(record, Recipe) and images:
        answer["expected_time"] = _expected_time(record, images, cost.macs)
    return _printed(answer)


def _read(arguments: argparse.Namespace) -> Checked:
    """Return the record of a file or a notation; a recipe with the values of the command line, which no other record takes."""
    file, overrides = arguments.file, recipe_overrides(arguments)
    record: Checked = Network.parse(file) if "|" in file else read_any(file, overrides)
    wanted = "expected the recipe of a search; leave it out"
    faults = [] if isinstance(record, Recipe) else [f"{each.option}: got {file}, {wanted}" for each in overrides]
    if arguments.data and isinstance(record, Recipe | TrainingRecipe):
        record = record.model_copy(update={"data": images_in(record.data, arguments.data)})
    elif arguments.data:
        faults.append(f"--data: got {file}, which has no images, expected a recipe; leave it out")
    if faults:
        raise SpecError(faults)
    return record


def _checked(record: Checked) -> tuple[Inventory | None, tuple[BudgetOutlook, ...]]:
    """Return a recipe's images and budgets as far as they are known; SpecError with every fault beyond those of the file."""
    faults: list[str] = []

    def tried(check: Callable[[], T]) -> T | None:
        try:
            return check()
        except GenetError as fault:
            faults.extend(map(str, fault.args))
            return None

    images, budgets = None, None
    if isinstance(record, SearchSpace):
        tried(lambda: check_portfolio(record))
    if isinstance(record, Recipe):
        tried(lambda: check_threads(record.measure.threads if record.measure.here else None))
        tried(lambda: check_pretrained(record))
        tried(lambda: check_designs(record))
        budgets = tried(lambda: _budgets(record))
    if isinstance(record, Recipe | TrainingRecipe):
        tried(lambda: _check_augment(record))
        input_ = record.space.input if isinstance(record, Recipe) else None
        images = tried(lambda: check_images(record.data, input_, record.seed, progress()))
    if faults:
        raise SpecError(dict.fromkeys(faults))
    return images, budgets or ()


def _budgets(recipe: Recipe) -> tuple[BudgetOutlook, ...]:
    """Return the budgets by an estimate, by the recipe's evidence, or by what its run has measured."""
    measure, budgets, run = recipe.measure, recipe.select.budgets, RunFolder(default_folder(recipe.name, fresh=False))
    if measure.latency_file:
        return recorded_outlooks(recipe, read_evidence(Path(measure.latency_file), measure))
    if not measure.here:
        return estimated_outlooks(recipe)
    try:
        table = read_evidence(run.latency.path, measure)
    except EvidenceError:  # nothing measured yet, or in several settings
        return outlooks(budgets, None, (), measure.batch)
    return outlooks(budgets, None, (), measure.batch) if table.setting.estimate else recorded_outlooks(recipe, table)


def _image_counts(recipe: Recipe | TrainingRecipe, images: Inventory | None) -> Answer:
    """Return the counts of a recipe's images, with notes about anything unusual."""
    if images is None:
        images_in_words = "not given; check them with --data FOLDER" if recipe.data.name == "folder" else recipe.data.name
        return {"images": images_in_words}
    division = images.divided(recipe.data.nas_validation, recipe.seed)
    train, held_out, test = (sum(each[place] for each in division.values()) for place in range(3))
    sizes = [each.train for each in division.values()]
    few = [f"{name} ({each.train})" for name, each in division.items() if each.train < FEW]
    unheld = [name for name, each in division.items() if not each.held_out]
    notes = [f"few images to train on: {some_of(few)}"] if few else []
    notes += [f"classes too small to hold out an image for the search: {some_of(unheld)}"] if unheld else []
    if held_out < TELLING:
        notes.append(
            f"with only {counted(held_out, 'image')} held out, accuracies have a standard error of up to "
            f"{50 / math.sqrt(held_out):.0f} points"
        )
    if isinstance(recipe, Recipe):
        resolution, channels = max(recipe.space.input.resolutions), recipe.space.input.channels
        if images.edge < resolution:
            notes.append(
                f"half of the images have at most {images.edge} pixels on their shorter edge, and are enlarged to {resolution}"
            )
        if images.grey and channels == 3:
            notes.append("all images that were checked are grey, but the space has three channels")
    return {
        "images": images.root,
        "classes": len(division),
        "images_to_train": train,
        "of_a_class": f"{min(sizes):,}" + (f" to {max(sizes):,}" if min(sizes) < max(sizes) else ""),
        "images_held_out": held_out,
        "images_to_test": test,
        "notes": notes,
    }


def _expected_time(recipe: Recipe, images: Inventory, macs: int) -> str:
    """Return how long the trainings take at most, if a few steps of one can be timed now."""
    from genet.pipeline.pace import measure_pace, steps_per_epoch
    from genet.pipeline.preflight import race_cost, training_seconds
    from genet.training.image_sets import View
    from genet.training.splits import load_data

    try:
        device = open_device(recipe.measure.device if recipe.measure.here else "auto")
    except DeviceError:
        return UNKNOWN
    if sum(images.train.values()) > MOST_IMAGES:
        return UNKNOWN
    schedule = recipe.train
    few = schedule.batch if device.type == "cuda" else min(schedule.batch, max(2, int(AT_ONCE / macs)))
    splits = load_data(recipe.data, recipe.space.input, recipe.seed, View(augment=recipe.augment), device)
    pace = measure_pace(recipe, splits, device, few)
    spent = training_seconds(recipe, splits.train.size, pace)
    count = steps_per_epoch(schedule, splits.train.size)
    steps = f"{schedule.epochs} epochs of {counted(count, 'step')}"
    timed = f"{pace.batch} images" if few == schedule.batch else f"{pace.batch} images (of a batch of {schedule.batch})"
    parts = [f"a full training {duration(spent['full'])} ({steps})", f"the MasterNet's {duration(spent['master'])}"]
    parts += [f"the tournament {duration(spent['tournament'])}"] if recipe.space.masternets else []
    race = f"joint trials and race at most {duration(spent['race'])} ({race_cost(recipe):.1f} full trainings)"
    return (
        f"{', '.join(parts)}, {race}; from steps of {timed} timed here: {1e3 * pace.step_s:,.0f} ms each, plus "
        f"{1e3 * pace.epoch_s:,.0f} ms per epoch; measuring and trials come on top" + (f"; {pace.advice}" if pace.advice else "")
    )


def _print_designs(record: ModelSpec | SearchSpace | Recipe | TrainingRecipe) -> Answer:
    """List the designs that a race holds the search against, and those that compete to be the MasterNet, as published."""
    if not isinstance(record, Recipe | SearchSpace):
        raise SpecError([f"{record.name}: got --designs for a single network, expected a recipe or a search space; leave it out"])
    designs = designs_of(record) if isinstance(record, Recipe) else known_designs(record)
    space = record.space if isinstance(record, Recipe) else record
    groups = {"designs": designs} | ({"masternets": portfolio_of(space)} if space.masternets else {})
    for group, members in groups.items():
        if group == "masternets":
            print("\ncontenders to be the MasterNet, each scaled to the latency of the first:")
        for design in members:
            print(f"{design.name}\n  {design.network}")
    return {group: {design.name: str(design.network) for design in members} for group, members in groups.items()}


def _check_augment(recipe: Recipe | TrainingRecipe) -> None:
    """Raise DataError if a training of the recipe would refuse how its images are augmented or loaded."""
    asked = recipe.augment or recipe.train.augment or recipe.data.loading == "device"
    if asked:  # otherwise torch need not be loaded
        from genet.training.splits import check_augment

        input_ = recipe.space.input if isinstance(recipe, Recipe) else None
        check_augment(recipe.augment, recipe.data, input_)
        if recipe.train.augment:
            check_augment(recipe.train.augment, recipe.data, input_)


def _printed(answer: Answer) -> Answer:
    for key, value in answer.items():
        name = key.replace("_", " ")
        for item in value if isinstance(value, list) else [value]:
            text = f"{name:<22} {item:,}" if isinstance(item, int) else f"{name:<22} {item}"
            print(text if key in WHOLE else wrapped(text, indent=" " * 23))
    return answer
