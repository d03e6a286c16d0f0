"""YAML text as a tree of nodes, each of which knows its file, line and column; and values as YAML text.

PyYAML composes the tree; its own reading of plain words is replaced, so that 1e-4 is a number and no is a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from genet.config.file_kinds import EMPTY, kind_of
from genet.errors import SpecError

Fault = tuple[tuple[str, int, int], str]  # position and line of text
NO_LINE = -1  # of a value on the command line


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads scalars as people mean them: 1e-4 is a number, no is a word."""

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
    return int(text) if len(text) < 20 else text  # no rule allows longer ones, and Python refuses to print them


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that quotes text which YAML 1.1 or this reader would take for something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as above)
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
    }


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def compose(path: Path) -> yaml.Node:
    """Return the file's node tree, with a SpecError if it is not one plain YAML document."""
    kind = kind_of(path)
    if kind and kind != EMPTY:
        raise SpecError([f"{path}: got {kind.what}, expected a text file of YAML; {kind.remedy}"])
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError([f"{path}: must be a file that exists; check the path"]) from None
    except UnicodeDecodeError:
        raise SpecError([f"{path}: got bytes that are not UTF-8, expected a text file in UTF-8"]) from None
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
        raise SpecError([f"{path}: got the control character {fault.character!r:.20}, expected plain text"]) from None
    except yaml.MarkedYAMLError as fault:
        raise SpecError([_yaml_fault(path, text, fault)]) from None
    if faults:
        raise SpecError(faults)
    if node is None:
        raise SpecError([f"{path}: must not be empty; `genet init` writes an example to start from"])
    for part in walk(node):
        part.start_mark.name = str(path)
    faults += _odd_keys(node)
    if faults:
        raise SpecError(faults)
    return node


def _odd_keys(node: yaml.Node) -> Iterator[str]:
    """Yield a fault for every key that is no plain word."""
    for part in walk(node):
        if isinstance(part, yaml.MappingNode):
            odd = (key for key, _ in part.value if not isinstance(key, yaml.ScalarNode))
            yield from (f"{node_location(key)}: a key must be a plain word" for key in odd)


def compose_value(text: str, option: str) -> yaml.Node:
    """Return the node tree of a value on the command line, whose faults name the option in place of a line."""
    try:
        if any(getattr(event, "anchor", None) for event in yaml.parse(text, _Loader)):
            raise SpecError([f"{option} must be YAML without anchors and aliases (got {text!r}); write the value out"])
        node = yaml.compose(text, _Loader) or yaml.ScalarNode("tag:yaml.org,2002:null", "")
    except (yaml.YAMLError, RecursionError):
        remedy = '; put a notation in quotes, as in ["@32x3 | Conv k3 c16 s2 | 10"]' if "|" in text else ""
        raise SpecError([f"{option} must be one value in YAML, such as 5, 0.5x or [1, 2] (got {text!r}){remedy}"]) from None
    for part in walk(node):
        part.start_mark = option_mark(option)
    if faults := list(_odd_keys(node)):
        raise SpecError(faults)
    return node


def option_mark(option: str) -> yaml.Mark:
    """Return the place of a value that stands in no file."""
    return yaml.Mark(option, 0, NO_LINE, NO_LINE, None, 0)


def compose_text(text: str, mark: yaml.Mark) -> yaml.Node:
    """Return the tree of a text that stands for a value elsewhere, whose place all its nodes name."""
    node = cast(yaml.Node, yaml.compose(text, _Loader))
    for part in walk(node):
        part.start_mark = mark
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


def yaml_of(values: Any) -> str:
    """Return values as YAML that `compose` reads back to the same ones."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=120)


def edited(text: str, values: Mapping[str, str]) -> str:
    """Return a commented YAML text with other values at keys such as `superblocks.0.width`; the comments keep their column.

    A key that stands in a comment alone, with a value to choose it by, is brought out of it.
    """
    for key, value in values.items():
        node: yaml.Node | None = yaml.compose(text, _Loader)
        for part in key.split("."):
            node = node and child(node, int(part) if part.isdecimal() else part, key=False)
        if node is not None:
            start, end = node.start_mark.index, node.end_mark.index
        else:
            last = key.rpartition(".")[2]
            offered = re.search(rf"^ *(# {last}: .*?)(?= +#|$)", text, re.MULTILINE)
            assert offered, f"the text must offer {key}"
            (start, end), value = offered.span(1), f"{last}: {value}"
        text = text[:start] + value + _shifted(text[end:], len(value) - (end - start))
    return text


def _shifted(text: str, by: int) -> str:
    """Return the rest of a text with the blanks before the comment of its first line changed by so many, one at least."""
    return re.sub(r"^([^\n#]*?) +(?=#)", lambda found: found[1] + " " * max(1, len(found[0]) - len(found[1]) - by), text, count=1)


def duplicate_keys(node: yaml.Node) -> Iterator[Fault]:
    """Yield every key that appears twice in one mapping."""
    for part in walk(node):
        if isinstance(part, yaml.MappingNode):
            seen: dict[str, yaml.Node] = {}
            for key, _ in part.value:
                if key.value in seen:
                    first = f"is on line {seen[key.value].start_mark.line + 1} too" if is_in_file(key) else "is there twice"
                    place = (key.start_mark.name, key.start_mark.line, key.start_mark.column)
                    yield place, f"{node_location(key)}: {key.value}: must be given once, but {first}"
                seen.setdefault(key.value, key)


def plain_values(node: yaml.Node) -> Any:
    """Return the tree's values; YAML's own types beyond text, numbers, truth and null stay text."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): plain_values(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain_values(value) for value in node.value]
    constructor = _Loader("")
    try:
        return constructor.construct_object(node)
    except yaml.YAMLError:
        return node.value


def child(node: yaml.Node, part: Any, key: bool) -> yaml.Node | None:
    """Return the node at one step of a location; the key's own node if the key itself is at fault."""
    found: yaml.Node | None = None
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        found = node.value[part]
    if isinstance(node, yaml.MappingNode):
        found = next((name if key else value for name, value in node.value if name.value == str(part)), None)
    return found


def walk(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield the node and everything below it."""
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from walk(key)
            yield from walk(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from walk(value)


def node_location(node: yaml.Node) -> str:
    """Return file:line:column of a node; the option that a value of the command line was given by."""
    return f"{node.start_mark.name}:{_place(node.start_mark)}" if is_in_file(node) else str(node.start_mark.name)


def is_in_file(node: yaml.Node) -> bool:
    """Return whether a node stands in a file, and not on the command line."""
    return bool(node.start_mark.line != NO_LINE)


def _place(mark: Any) -> str:
    return f"{mark.line + 1}:{mark.column + 1}"
