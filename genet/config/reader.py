"""YAML files as records, with every fault of a file at once: file:line:column: path: rule (value), nearest legal one.

pydantic finds the faults in plain values; the YAML node tree that PyYAML composes tells the place of each.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import ValidationError

import genet
from genet.arch.external import FUNCTION, ExternalModel, LayerWidths, ModelSpec
from genet.arch.network import Network
from genet.arch.space import DesignGroup, SearchSpace
from genet.config.faults import RENAMED, did_you_mean, fault_of
from genet.config.overrides import Override, overridden
from genet.config.recipe import Data, PretrainedMaster, Recipe, Training, TrainingRecipe, TunedMaster
from genet.config.yaml_tree import (
    child,
    compose,
    compose_text,
    duplicate_keys,
    node_location,
    option_mark,
    plain_values,
    walk,
    yaml_of,
)
from genet.errors import SpecError
from genet.names import check_utf8, some_of
from genet.storage import Record

R = TypeVar("R", bound=Record)
NETWORKS = "search_spaces/networks"
SEARCH_KEYS = {"space", "distill", "master", "select", "race"}  # keys that the recipe of one training does not have


def read_network(source: str | Path) -> Network:
    """Return a network by file, folder or the name of one that comes with genet; SpecError lists every fault."""
    inside = Path(source) / "network.yaml"
    return _record(Network, compose(_find(inside if inside.is_file() else source, NETWORKS)))


def read_structure(source: str | Path) -> ModelSpec:
    """Return a network by file, folder or name, made of super-blocks or built by other code. SpecError lists every fault."""
    inside = Path(source) / "network.yaml"
    if inside.parent.is_dir() and not inside.is_file() and str(source) not in shipped_files(NETWORKS):
        raise SpecError([no_network_in(inside.parent)])
    node = compose(_find(inside if inside.is_file() else source, NETWORKS))
    return _record(ExternalModel, node) if "source" in _keys(node) else _record(Network, node)


def no_network_in(folder: Path) -> str:
    """Return the fault of a folder that is to hold a network and does not: if it is that of a run, its networks are named."""
    own = [str(file.parent) for file in sorted(folder.glob("networks/*/network.yaml"))]
    if own or (folder / "recipe.yaml").exists():
        rest = f"name one of its networks, {some_of(own)}" if own else "it has none yet; genet run resumes it"
        return f"{folder}: got the folder of a run, expected that of a network; {rest}"
    got = "a folder without network.yaml" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
    return f"{folder}: got {got}, expected a network's folder, which has network.yaml; name another"


def read_space(source: str | Path) -> SearchSpace:
    """Return a search space by file or name. SpecError lists every fault."""
    return _record(SearchSpace, _with_masternets(compose(_find(source, "search_spaces"))))


def read_recipe(source: str | Path, overrides: Sequence[Override] = ()) -> Recipe:
    """Return a recipe by file or name, with some values overridden; its `space` may be a name, a file beside it, or in place."""
    return _recipe(compose(_find(source, "recipes")), overrides)


def with_overrides(recipe: Recipe, overrides: Sequence[Override]) -> Recipe:
    """Return a recipe with some values overridden; files and folders among these are searched for here."""
    if not overrides:
        return recipe
    return _recipe(compose_text(to_yaml(recipe), option_mark(f"recipe {recipe.name}")), overrides)


def read_kept_recipe(file: Path) -> Recipe:
    """Return the recipe that genet wrote into a run folder; keys of earlier versions are read by their new names."""
    node = compose(file)
    for key in (key for part in walk(node) if isinstance(part, yaml.MappingNode) for key, _ in part.value):
        key.value = RENAMED.get(key.value, key.value)
    return _recipe(node)


def read_training(source: str | Path) -> TrainingRecipe:
    """Return a recipe for the training of a single network, by file or name."""
    return _training(compose(_find(source, "recipes/training")))


def read_widths(
    source: str | Path,
    layers: Mapping[str, int],
    tied: Mapping[str, str],
    fixed: Mapping[str, str],
    units: Mapping[str, int],
) -> dict[str, int]:
    """Return widths to cut layers to, by file or name. SpecError lists every fault.

    `layers` are the widths that they are cut from; layers with the same name in `tied` must be cut alike, in units of so many
    channels each, and layers in `fixed` must stay, for the reason it gives.
    """
    node = compose(_find(source, "search_spaces/widths"))
    widths = _record(LayerWidths, node).widths
    faults, seen = [], dict[str, str]()
    for key, value in getattr(child(node, "widths", key=False), "value", ()):
        name, first = key.value, seen.setdefault(tied.get(key.value, key.value), key.value)
        if name not in layers:
            near = did_you_mean(name, layers)
            faults.append(f"{node_location(key)}: widths.{name}: must be a convolution of the network{near}")
        elif name in fixed and widths[name] != layers[name]:
            faults.append(
                f"{node_location(value)}: widths.{name}: must stay {layers[name]}, as {fixed[name]} (got {widths[name]})"
            )
        elif widths[name] > layers[name]:
            most = layers[name]
            faults.append(
                f"{node_location(value)}: widths.{name}: must be at most the present width (got {widths[name]}); nearest {most}"
            )
        elif widths[name] % units.get(name, 1):
            unit, below = units[name], widths[name] // units[name] * units[name]
            faults.append(
                f"{node_location(value)}: widths.{name}: must be a multiple of {unit}, as its channels come in groups "
                f"(got {widths[name]}); nearest {below or unit} or {below + unit}"
            )
        elif name not in fixed and widths[name] * units[first] != widths[first] * units[name]:
            faults.append(
                f"{node_location(value)}: widths.{name}: must equal that of {first}, whose channels it shares (got "
                f"{widths[name]}); nearest {widths[first] * units[name] // units[first]}"
            )
    if faults:
        raise SpecError(faults)
    return widths


def read_any(source: str | Path, overrides: Sequence[Override] = ()) -> ModelSpec | SearchSpace | Recipe | TrainingRecipe:
    """Return a recipe (has `space`), a space (`perturb` or `widths`), a training (`train`), or else a network.

    Of names that several have, a recipe's comes first. Values are overridden in a recipe alone.
    """
    node = compose(_find(source, NETWORKS, "search_spaces", "recipes/training", "recipes"))
    keys = _keys(node)
    if keys & SEARCH_KEYS:
        return _recipe(node, overrides)
    if "train" in keys:
        return _training(node)
    if keys & {"perturb", "widths"}:
        return _record(SearchSpace, _with_masternets(node))
    return _record(ExternalModel, node) if "source" in keys else _record(Network, node)


def _keys(node: yaml.Node) -> set[str]:
    return {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()


def _recipe(node: yaml.Node, overrides: Sequence[Override] = ()) -> Recipe:
    """Return a recipe's tree as a record; the folders it names, like the space, are searched for beside the file."""
    spaces, others = ([each for each in overrides if (each.key == "space") == space] for space in (True, False))
    whole = overridden(_with_space(overridden(node, spaces)), others)
    if space := child(whole, "space", key=False):
        _with_masternets(space)
    recipe = _record(Recipe, whole)
    master = recipe.master
    if isinstance(master, PretrainedMaster | TunedMaster):
        master = master.model_copy(update={"folder": _beside_the_file(node, master.folder)})
    designs = tuple(_design(node, design) for design in recipe.race.designs)
    race = recipe.race.model_copy(update={"designs": designs})
    return recipe.model_copy(update={"master": master, "race": race, **_located(node, recipe.data, recipe.train)})


def _design(node: yaml.Node, design: str) -> str:
    """Return a design's file or folder, searched for beside the recipe; any other text stays as it is."""
    beside = "" if design.startswith("timm:") or "|" in design else _beside_the_file(node, design)
    return beside if beside and Path(beside).exists() else design


def _training(node: yaml.Node) -> TrainingRecipe:
    if of_a_search := sorted(_keys(node) & SEARCH_KEYS):
        holds, given = ", ".join(TrainingRecipe.model_fields), ", ".join(of_a_search)
        raise SpecError(
            [
                f"{node.start_mark.name}: got the recipe of a search (it has {given}), expected one for the training of a "
                f"single network, which holds {holds}; give one such as {', '.join(shipped_files('recipes/training'))}, or a "
                "file with only name, data and train"
            ]
        )
    recipe = _record(TrainingRecipe, node)
    return recipe.model_copy(update=_located(node, recipe.data, recipe.train))


def _located(node: yaml.Node, data: Data, train: Training) -> dict[str, Record]:
    """Return the folders of the images and of a teacher, searched for beside the file."""
    if data.root is not None:
        data = data.model_copy(update={"root": _beside_the_file(node, data.root)})
    if train.teacher is not None and not train.teacher.startswith("timm:"):
        train = train.model_copy(update={"teacher": _beside_the_file(node, train.teacher)})
    return {"data": data, "train": train}


def _beside_the_file(node: yaml.Node, folder: str) -> str:
    return check_utf8(str((Path(node.start_mark.name).parent / Path(os.path.expandvars(folder)).expanduser()).absolute()))


def to_yaml(record: Record) -> str:
    """Return the record as YAML that the reader reads back to an equal record."""
    return yaml_of(record.model_dump(mode="json", exclude_none=True, by_alias=True))


def shipped_files(folder: str) -> dict[str, Path]:
    """Name -> file of the recipes or spaces that come with the project, from a checkout or from a wheel."""
    package = Path(genet.__file__).parent
    for root in (package, package.parent):
        if (root / folder).is_dir():
            return {path.stem: path for path in sorted((root / folder).glob("*.yaml"))}
    return {}


def _find(source: str | Path, *folders: str) -> Path:
    """Return the file that `source` names: a path, or the bare name of a shipped file."""
    path = Path(source)
    elsewhere = str(source).startswith("timm:") or re.fullmatch(FUNCTION, str(source))
    if elsewhere and NETWORKS in folders and not path.is_file():
        raise SpecError([f"{source}: must be a network's folder here; genet import {source} --into FOLDER makes one of it"])
    if path.suffix or path.is_file() or len(path.parts) != 1:
        return path
    shipped = {name: file for folder in folders for name, file in shipped_files(folder).items()}
    if str(source) in shipped:
        return shipped[str(source)]
    raise SpecError([f"{source}: must be a file or one of {', '.join(shipped)}{did_you_mean(str(source), shipped)}"])


def _with_space(node: yaml.Node) -> yaml.Node:
    """Replace the name of a search space by its tree, whose marks keep naming their own file."""
    if not isinstance(node, yaml.MappingNode):
        return node
    for index, (key, value) in enumerate(node.value):
        if key.value == "space" and isinstance(value, yaml.ScalarNode):
            beside = Path(value.start_mark.name).parent / value.value
            try:
                node.value[index] = (key, compose(_find(beside if beside.is_file() else value.value, "search_spaces")))
            except SpecError as fault:
                raise SpecError(f"{node_location(value)}: space: {line}" for line in fault.faults) from None
    return node


def _with_masternets(space: yaml.Node) -> yaml.Node:
    """Replace the files and notations among a space's `masternets` by their trees, whose marks keep naming their own files."""
    listed, faults = child(space, "masternets", key=False), list[str]()
    items = listed.value if isinstance(listed, yaml.SequenceNode) else []
    for place, item in enumerate(items):
        try:
            items[place] = _masternet(item)
        except SpecError as fault:
            faults += [f"{node_location(item)}: masternets[{place}]: {line}" for line in fault.faults]
    if faults:
        raise SpecError(faults)
    return space


def _masternet(item: yaml.Node) -> yaml.Node:
    """Return the tree of a network that a notation, a file or a folder beside the space gives; anything else as it is."""
    if not isinstance(item, yaml.ScalarNode) or item.value in get_args(DesignGroup):
        return item
    if "|" in item.value:
        network = Network.parse(item.value)
        return compose_text(to_yaml(network.model_copy(update={"name": f"design-{network.digest[:6]}"})), item.start_mark)
    beside = Path(item.start_mark.name).parent / item.value
    file = beside / "network.yaml" if beside.is_dir() else beside
    if not file.is_file() and item.value not in shipped_files(NETWORKS):
        return item
    tree = compose(file if file.is_file() else _find(item.value, NETWORKS))
    if "source" in _keys(tree):
        raise SpecError([f"got {item.value}, which other code builds, expected a network of super-blocks; leave it out"])
    return tree


def _record(model: type[R], node: yaml.Node) -> R:
    """Validate the tree; SpecError with all faults in the order of the file."""
    faults = list(duplicate_keys(node))
    try:
        # JSON mode takes lists for tuples while staying strict about numbers and strings.
        return_value = model.model_validate_json(json.dumps(plain_values(node), default=str), strict=True)
        if not faults:
            return return_value
    except ValidationError as fault:
        faults += [fault_of(model, node, error) for error in fault.errors()]
    faults.sort(key=lambda fault: fault[0])
    raise SpecError(dict.fromkeys(line for _, line in faults))
