"""`genet check`: the cost of a network, space or recipe, or every fault of its file."""

from __future__ import annotations

import argparse
from typing import Any

from genet.arch.cost import network_cost
from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import Network
from genet.arch.space import SearchSpace
from genet.config.pretrained import check_pretrained
from genet.config.reader import read_any
from genet.config.recipe import Measure, Recipe, TrainingRecipe
from genet.errors import SpecError
from genet.latency.staircase.plan import expected_rows
from genet.pipeline.context import check_designs
from genet.search.portfolio import designs_of, known_designs

Answer = dict[str, Any]


def run(arguments: argparse.Namespace) -> Answer:
    """Report every fault of a file, or its cost."""
    record = read_any(arguments.file)
    if isinstance(record, Recipe):
        check_pretrained(record)
        check_designs(record)
    if isinstance(record, Recipe | TrainingRecipe):
        _check_images(record)
    if arguments.designs:
        return _print_designs(record)
    answer: Answer = {"name": record.name}
    if isinstance(record, TrainingRecipe):
        answer |= record.train.model_dump(mode="json", exclude_none=True)
        return _printed(answer)
    if isinstance(record, ExternalModel):
        reads = record.input
        answer |= {"notation": str(record), "layers_of_other_widths": len(record.layers), "size": reads.resolution}
        answer |= {"blocks_removed": len(record.removed)} if record.removed else {}
        return _printed(answer | {"digest": record.digest})
    if isinstance(record, Network):
        network = record
    else:
        space = record.space if isinstance(record, Recipe) else record
        widths, networks = (
            space.widths_on_offer(),
            (record.measure if isinstance(record, Recipe) else Measure()).calibration_networks,
        )
        network = space.masternet(record.search_resolution if isinstance(record, Recipe) else max(space.input.resolutions))
        expected = expected_rows(space, networks)
        answer |= {
            "networks": space.size(widths),
            "block_types": len(widths),
            "trials_at_most": space.perturb.trials_per_type * len(widths),
            "blocks_to_measure_about": expected.rows,
            "networks_to_measure": expected.networks,
        }
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
    if isinstance(record, Recipe) and record.measure.device.startswith("estimate:") and not record.measure.latency_file:
        from genet.pipeline.cost_estimate import estimated_outlooks

        answer |= {f"budget {each.budget}": each.prospect for each in estimated_outlooks(record)}
    return _printed(answer)


def _print_designs(record: ModelSpec | SearchSpace | Recipe | TrainingRecipe) -> Answer:
    """List the designs that a race holds the search against, as they are published."""
    if not isinstance(record, Recipe | SearchSpace):
        raise SpecError([f"{record.name}: got --designs for a single network, expected a recipe or a search space; leave it out"])
    designs = designs_of(record) if isinstance(record, Recipe) else known_designs(record)
    for design in designs:
        print(f"{design.name}\n  {design.network}")
    return {"designs": {design.name: str(design.network) for design in designs}}


def _check_images(recipe: Recipe | TrainingRecipe) -> None:
    """Raise DataError if a training of the recipe would refuse how its images are augmented or loaded."""
    asked = recipe.augment or recipe.train.augment or recipe.data.loading == "device"
    if asked:  # otherwise torch need not be loaded
        from genet.training.data import check_augment

        reads = recipe.space.input if isinstance(recipe, Recipe) else None
        check_augment(recipe.augment, recipe.data, reads)
        if recipe.train.augment:
            check_augment(recipe.train.augment, recipe.data, reads)


def _printed(answer: Answer) -> Answer:
    for key, value in answer.items():
        print(f"{key.replace('_', ' '):<22} {value:,}" if isinstance(value, int) else f"{key.replace('_', ' '):<22} {value}")
    return answer
