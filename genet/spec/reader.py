"""YAML files into records, with every fault of a file at once: file:line:column: path: law (value), nearest legal one.

pydantic finds the faults in plain values; the YAML node tree that PyYAML composes tells where each one stands.
"""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

import genet
from genet.errors import SpecError
from genet.files import Record
from genet.spec.network import Network
from genet.spec.recipe import Data, Recipe, Taken, Training, TrainingRecipe
from genet.spec.space import SearchSpace

R = TypeVar("R", bound=Record)


class _Loader(yaml.SafeLoader):
    """YAML with the scalars people mean: 1e-4 is a number, no is a word."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own way to start from none)


for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | str:
    text = str(loader.construct_scalar(node))
    return int(text) if len(text) < 20 else text  # no law allows longer ones, and Python refuses to print them


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or this reader would take for something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as above)
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
    }


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_network(source: str | Path) -> Network:
    """A network by file, by a folder's network.yaml, or by the name of one that comes along. SpecError lists every fault."""
    inside = Path(source) / "network.yaml"
    return _record(Network, _compose(_find(inside if inside.is_file() else source, "search_spaces/networks")))


def read_space(source: str | Path) -> SearchSpace:
    """A search space by file or name. SpecError lists every fault."""
    return _record(SearchSpace, _compose(_find(source, "search_spaces")))


def read_recipe(source: str | Path) -> Recipe:
    """A recipe by file or name; its `space` may be a name, a file beside it, or written out in place."""
    return _recipe(_compose(_find(source, "recipes")))


def read_training(source: str | Path) -> TrainingRecipe:
    """A recipe for the training of a single network, by file or name."""
    return _training(_compose(_find(source, "recipes/training")))


def read_any(source: str | Path) -> Network | SearchSpace | Recipe | TrainingRecipe:
    """A recipe (it has `space`), a search space (`perturb` or `widths`), the training of one network (`train`), or a network."""
    node = _compose(_find(source, "recipes/training", "recipes", "search_spaces", "search_spaces/networks"))
    keys = {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
    if keys & {"space", "distill", "master", "select"}:
        return _recipe(node)
    if "train" in keys:
        return _training(node)
    if keys & {"perturb", "widths"}:
        return _record(SearchSpace, node)
    return _record(Network, node)


def _recipe(node: yaml.Node) -> Recipe:
    """A recipe's tree as a record; the folders it names, like the space, are looked for beside the file."""
    recipe = _record(Recipe, _with_space(node))
    master = recipe.master
    if isinstance(master, Taken):
        master = Taken(folder=_beside_the_file(node, master.folder))
    return recipe.model_copy(update={"master": master, **_located(node, recipe.data, recipe.train)})


def _training(node: yaml.Node) -> TrainingRecipe:
    recipe = _record(TrainingRecipe, node)
    return recipe.model_copy(update=_located(node, recipe.data, recipe.train))


def _located(node: yaml.Node, data: Data, train: Training) -> dict[str, Record]:
    """The folders of the images and of a teacher, looked for beside the file."""
    if data.root is not None:
        data = data.model_copy(update={"root": _beside_the_file(node, data.root)})
    if train.teacher is not None and not train.teacher.startswith("timm:"):
        train = train.model_copy(update={"teacher": _beside_the_file(node, train.teacher)})
    return {"data": data, "train": train}


def _beside_the_file(node: yaml.Node, folder: str) -> str:
    return str((Path(node.start_mark.name).parent / folder).absolute())


def to_yaml(record: Record) -> str:
    """The record as YAML that the reader reads back to an equal record."""
    values = record.model_dump(mode="json", exclude_none=True, by_alias=True)
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=120)


def shipped_files(folder: str) -> dict[str, Path]:
    """Name -> file of the recipes or spaces that come with the project, from a checkout or from a wheel."""
    package = Path(genet.__file__).parent
    for root in (package, package.parent):
        if (root / folder).is_dir():
            return {path.stem: path for path in sorted((root / folder).glob("*.yaml"))}
    return {}


def _find(source: str | Path, *folders: str) -> Path:
    """The file that `source` names: a path, or the bare name of a shipped file."""
    path = Path(source)
    if path.suffix or path.is_file() or len(path.parts) != 1:
        return path
    shipped = {name: file for folder in folders for name, file in shipped_files(folder).items()}
    if str(source) in shipped:
        return shipped[str(source)]
    raise SpecError([f"{source}: must be a file or one of {', '.join(shipped)}{_did_you_mean(str(source), shipped)}"])


def _compose(path: Path) -> yaml.Node:
    """The file's node tree, with a SpecError for whatever keeps it from being one plain YAML document."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError([f"{path}: must be a file that exists; check the path"]) from None
    except UnicodeDecodeError:
        raise SpecError([f"{path}: must be a text file in UTF-8, and holds other bytes"]) from None
    except OSError as fault:
        raise SpecError([f"{path}: must be a readable file ({fault.strerror})"]) from None
    try:
        faults = [
            f"{path}:{_place(event.start_mark)}: anchors and aliases (& and *) are not allowed; write the value out"
            for event in yaml.parse(text, _Loader)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)
        ]
        node = None if faults else yaml.compose(text, _Loader)
    except RecursionError:
        raise SpecError([f"{path}: must be nested less deeply"]) from None
    except yaml.reader.ReaderError as fault:
        raise SpecError([f"{path}: must be plain text, and holds the control character {fault.character!r:.20}"]) from None
    except yaml.MarkedYAMLError as fault:
        raise SpecError([_yaml_fault(path, text, fault)]) from None
    if faults:
        raise SpecError(faults)
    if node is None:
        raise SpecError([f"{path}: must not be empty; `genet init` writes an example to start from"])
    for part in _walk(node):
        part.start_mark.name = str(path)
    for part in _walk(node):
        if isinstance(part, yaml.MappingNode):
            odd = (key for key, _ in part.value if not isinstance(key, yaml.ScalarNode))
            faults += [f"{_where(key)}: a key must be a plain word" for key in odd]
    if faults:
        raise SpecError(faults)
    return node


def _yaml_fault(path: Path, text: str, fault: yaml.MarkedYAMLError) -> str:
    mark = fault.problem_mark
    if mark is None:
        return f"{path}: must be YAML: {fault.problem}"
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if "\t" in line[: mark.column + 1]:
        column = line.index("\t") + 1
        return f"{path}:{mark.line + 1}:{column}: a tab is not allowed in YAML; indent with spaces"
    return f"{path}:{_place(mark)}: must be YAML: {fault.problem}"


def _with_space(node: yaml.Node) -> yaml.Node:
    """Graft the tree of the named search space in the place of its name; its marks keep naming their own file."""
    if not isinstance(node, yaml.MappingNode):
        return node
    for index, (key, value) in enumerate(node.value):
        if key.value == "space" and isinstance(value, yaml.ScalarNode):
            here = Path(value.start_mark.name).parent
            try:
                node.value[index] = (key, _compose(_find(_beside(here, value.value), "search_spaces")))
            except SpecError as fault:
                raise SpecError(f"{_where(value)}: space: {line}" for line in fault.faults) from None
    return node


def _beside(folder: Path, name: str) -> str | Path:
    """A relative file named in a YAML file is looked for beside that file."""
    return folder / name if (folder / name).is_file() else name


def _record(model: type[R], node: yaml.Node) -> R:
    """Validate the tree; SpecError with all faults in the order of the file."""
    faults = list(_duplicate_keys(node))
    try:
        # JSON mode takes lists for tuples while staying strict about numbers and strings.
        return_value = model.model_validate_json(json.dumps(_plain(node), default=str), strict=True)
        if not faults:
            return return_value
    except ValidationError as fault:
        faults += [_fault(model, node, error) for error in fault.errors()]
    faults.sort(key=lambda fault: fault[0])
    raise SpecError(dict.fromkeys(line for _, line in faults))


_Fault = tuple[tuple[str, int, int], str]


def _fault(model: type[BaseModel], root: yaml.Node, error: Any) -> _Fault:
    """One pydantic error as (place, line)."""
    location = _written_location(error["loc"])
    node = root
    for depth, part in enumerate(location):
        child = _child(node, part, key=error["type"] == "extra_forbidden" and depth == len(location) - 1)
        if child is None:
            break
        node = child
    dotted = ""
    for part in location:
        dotted += f"[{part}]" if isinstance(part, int) else f".{part}" if dotted else str(part)
    mark = node.start_mark
    if isinstance(error["input"], tuple):  # a list of the file, as the records hold it
        error["input"] = list(error["input"])
    law = _law(model, error, location)
    return (mark.name, mark.line, mark.column), f"{_where(node)}: {dotted + ': ' if dotted else ''}{law}"


def _written_location(location: tuple[Any, ...]) -> list[Any]:
    """The location without the names that pydantic gives to the members of a union; the file knows none of them."""
    written: list[Any] = []
    for part in location:
        of_union = bool(written) and (written[-1] in ("widths", "master") or "budgets" in written)
        if not (of_union and part in ("aligned", "grid", "trained", "taken", "float", "str")):
            written.append(part)
    return written


def _law(model: type[BaseModel], error: Any, location: list[Any]) -> str:
    """The law in words, the value, and the nearest legal one where there is one."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    got = f" (got {reprlib.repr(value)})"
    match kind:
        case "multiple_of":
            step = context["multiple_of"]
            nearest = value // step * step
            return f"must be a multiple of {step}{got}; nearest {nearest or step} or {nearest + step}"
        case "missing":
            return "must be given"
        case "extra_forbidden":
            known = _keys_at(model, location[:-1])  # of all ways to write it: a key of another way is no slip
            return "is not a key here" + ("" if location[-1] in known else _did_you_mean(str(location[-1]), known))
        case "literal_error":
            legal = re.findall(r"'[^']*'|[\d.]+", str(context["expected"]))
            nearest = _did_you_mean(str(value), [item.strip("'") for item in legal])
            if not nearest and isinstance(value, int | float) and not isinstance(value, bool):
                numbers = [float(item) for item in legal if item[0] != "'"]
                nearest = f"; nearest {min(numbers, key=lambda number: abs(number - value)):g}" if numbers else ""
            return f"must be {context['expected'].replace(chr(39), '')}{got}{nearest}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}{got}; nearest {context['ge']:g}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}{got}; nearest {context['le']:g}"
        case "greater_than":
            return f"must be above {context['gt']:g}{got}"
        case "less_than":
            return f"must be below {context['lt']:g}{got}"
        case "too_long":
            return f"must have {context['max_length']} entries{got}"
        case "law":
            return f"{context['law']}{got}" + (f"; nearest {context['nearest']}" if context["nearest"] else "")
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a mapping of keys to values{got}"
        case "tuple_type" | "list_type":
            return f"must be a list{got}"
        case "finite_number":
            return f"must be a finite number{got}"
    wanted = {"int": "a whole number", "float": "a number", "string": "text", "bool": "true or false"}
    for prefix, words in wanted.items():
        if kind.startswith(prefix):
            return f"must be {words}{got}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}{got}"


def _keys_at(model: type[BaseModel], location: list[Any]) -> list[str]:
    """The legal keys of the record at `location`, found by walking the annotations."""
    current: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = _record_type(field.annotation) if field else None
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _record_type(annotation: Any) -> Any:
    """The record class inside an annotation such as `tuple[SuperBlock, ...]` or `Ratios | None`."""
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (_record_type(argument) for argument in getattr(annotation, "__args__", ()))
    return next((record for record in found if record is not None), None)


def _did_you_mean(word: str, legal: Mapping[str, Any] | list[str]) -> str:
    folded = {item.lower(): item for item in legal}
    close = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.5)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def _duplicate_keys(node: yaml.Node) -> Iterator[_Fault]:
    for part in _walk(node):
        if isinstance(part, yaml.MappingNode):
            seen: dict[str, yaml.Node] = {}
            for key, _ in part.value:
                if key.value in seen:
                    first = seen[key.value].start_mark.line + 1
                    place = (key.start_mark.name, key.start_mark.line, key.start_mark.column)
                    yield place, f"{_where(key)}: {key.value}: must be given once, and stands on line {first} too"
                seen.setdefault(key.value, key)


def _plain(node: yaml.Node) -> Any:
    """The tree's values; YAML's own types beyond text, numbers, truth and null stay text."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value) for value in node.value]
    constructor = _Loader("")
    try:
        return constructor.construct_object(node)
    except yaml.YAMLError:
        return node.value


def _child(node: yaml.Node, part: Any, key: bool) -> yaml.Node | None:
    """The node at one step of a location; the key's own node where the key itself is at fault."""
    found: yaml.Node | None = None
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        found = node.value[part]
    if isinstance(node, yaml.MappingNode):
        found = next((name if key else value for name, value in node.value if name.value == str(part)), None)
    return found


def _walk(node: yaml.Node) -> Iterator[yaml.Node]:
    """The node and everything below it."""
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _walk(key)
            yield from _walk(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _walk(value)


def _where(node: yaml.Node) -> str:
    return f"{node.start_mark.name}:{_place(node.start_mark)}"


def _place(mark: Any) -> str:
    return f"{mark.line + 1}:{mark.column + 1}"
