"""Commands on files: check what a user wrote, and write a start for one."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from genet.errors import RunError, SpecError
from genet.files import write_atomic
from genet.job import check_designs
from genet.latency.plan import expected_rows
from genet.names import shown, typed
from genet.spec.cost import network_cost
from genet.spec.designs import designs_of, known_designs
from genet.spec.foreign import Foreign, Structure
from genet.spec.network import Network, legal_name
from genet.spec.reader import read_any, shipped_files
from genet.spec.recipe import Measure, Recipe, TrainingRecipe
from genet.spec.space import SearchSpace
from genet.spec.taken import check_taken

Answer = dict[str, Any]


def check(arguments: argparse.Namespace) -> Answer:
    """`genet check`: every fault of a file, or what it costs."""
    record = read_any(arguments.file)
    if isinstance(record, Recipe):
        check_taken(record)
        check_designs(record)
    if isinstance(record, Recipe | TrainingRecipe):
        _check_images(record)
    if arguments.designs:
        return _print_designs(record)
    answer: Answer = {"name": record.name}
    if isinstance(record, TrainingRecipe):
        answer |= record.train.model_dump(mode="json", exclude_none=True)
        return _printed(answer)
    if isinstance(record, Foreign):
        reads = record.input
        answer |= {"notation": str(record), "layers_of_other_widths": len(record.layers), "size": reads.resolution}
        return _printed(answer | {"digest": record.digest})
    if isinstance(record, Network):
        network = record
    else:
        space = record.space if isinstance(record, Recipe) else record
        widths, networks = space.widths_on_offer(), (record.measure if isinstance(record, Recipe) else Measure()).networks
        network = space.masternet(record.search_resolution if isinstance(record, Recipe) else max(space.input.resolutions))
        expected = expected_rows(space, networks)
        answer |= {
            "networks": space.size(widths),
            "block_types": len(widths),
            "trials_at_most": space.perturb.samples * len(widths),
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
    if isinstance(record, Recipe) and record.measure.device.startswith("estimate:") and not record.measure.latency:
        from genet.preflight import estimated_outlooks

        answer |= {f"budget {each.budget}": each.prospect for each in estimated_outlooks(record)}
    return _printed(answer)


def _print_designs(record: Structure | SearchSpace | Recipe | TrainingRecipe) -> Answer:
    """List the designs that a race holds the search against, as they are published."""
    if not isinstance(record, Recipe | SearchSpace):
        raise SpecError([f"{record.name}: got --designs for a single network, expected a recipe or a search space; leave it out"])
    designs = designs_of(record) if isinstance(record, Recipe) else known_designs(record)
    for design in designs:
        print(f"{design.name}\n  {design.network}")
    return {"designs": {design.name: str(design.network) for design in designs}}


def _check_images(recipe: Recipe | TrainingRecipe) -> None:
    """DataError if a training of the recipe would refuse how its images are augmented or loaded."""
    asked = recipe.augment or recipe.train.augment or recipe.data.loading == "device"
    if asked:  # else torch need not be loaded for it
        from genet.nets.data import check_augment

        reads = recipe.space.input if isinstance(recipe, Recipe) else None
        check_augment(recipe.augment, recipe.data, reads)
        if recipe.train.augment:
            check_augment(recipe.train.augment, recipe.data, reads)


def _printed(answer: Answer) -> Answer:
    for key, value in answer.items():
        print(f"{key.replace('_', ' '):<22} {value:,}" if isinstance(value, int) else f"{key.replace('_', ' '):<22} {value}")
    return answer


def init(arguments: argparse.Namespace) -> Answer:
    """`genet init`: a commented recipe and search space, which are named after the file as far as names go."""
    recipe: Path = arguments.file
    name = legal_name(recipe.stem)
    space = recipe.parent / f"{name}-space.yaml"
    for file in (recipe, space):
        if file.exists():
            raise RunError(f"{file}: must not exist yet, and does; name another file")
    if not recipe.name.isprintable():
        raise RunError(f"{shown(recipe.name)}: got hidden characters in a file's name, expected such as are seen; name another")
    words = {"NAME": name, "FILE": typed(Path(recipe.name))}
    for file, shipped in ((space, "space"), (recipe, "recipe")):  # the longer name first, for it may be too long
        text = shipped_files("templates")[shipped].read_text(encoding="utf-8")
        write_atomic(file, re.sub("|".join(words), lambda found: words[found[0]], text).encode())
    print(f"wrote {recipe} and {space}; then: genet check {typed(recipe)} && genet run {typed(recipe)} --data FOLDER")
    return {"recipe": str(recipe), "space": str(space)}
