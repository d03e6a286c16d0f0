"""Values on a command line in place of those in a recipe's file: put into its tree, so that its own checks judge them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import yaml

from genet.config.yaml_tree import compose_value
from genet.errors import SpecError


class Override(NamedTuple):
    """A value in YAML for a key such as `train.epochs`, and the option by which it was given."""

    option: str
    key: str
    text: str


def read_settings(texts: Iterable[str]) -> list[Override]:
    """Return what each `--set KEY=VALUE` asks for; SpecError with all that are something else."""
    parts = [(text, *text.partition("=")) for text in texts]
    faults = [text for text, key, equals, _ in parts if not equals or not re.fullmatch(r"\w+(\.\w+)*", key)]
    if faults:
        raise SpecError(f"--set must be KEY=VALUE such as train.epochs=5 (got {text!r})" for text in faults)
    return [Override(f"--set {key}", key, value) for _, key, _, value in parts]


def overridden(root: yaml.Node, overrides: Iterable[Override]) -> yaml.Node:
    """Put values into a tree, the last one of each key, and return it. SpecError with all values that are no YAML."""
    faults: list[str] = []
    for option, key, text in overrides:
        *above, last = key.split(".")
        node = root
        try:
            value = compose_value(text, option)
            for part in above:
                node = _mapping_at(node, part, option)
            _put(node, last, value, option)
        except SpecError as fault:
            faults += fault.faults
    if faults:
        raise SpecError(faults)
    return root


def _mapping_at(node: yaml.Node, key: str, option: str) -> yaml.Node:
    """Return the mapping at a key: a new one if there is nothing, or a single word such as augment's none."""
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if name.value == key and isinstance(value, yaml.MappingNode):
            return value
    made = compose_value("{}", option)
    _put(node, key, made, option)
    return made


def _put(node: yaml.Node, key: str, value: yaml.Node, option: str) -> None:
    if isinstance(node, yaml.MappingNode):  # else the file holds no mapping, of which the reader complains
        node.value = [(name, old) for name, old in node.value if name.value != key]
        node.value.append((compose_value(key, option), value))
