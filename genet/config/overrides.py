"""Values of a command line or a program that replace those of a recipe, put into its tree so that its checks apply to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import yaml

from genet.config.options import Spelling, as_option
from genet.config.yaml_tree import compose_value
from genet.errors import SpecError


class Override(NamedTuple):
    """A value in YAML for a key such as `train.epochs`, and the option by which it was given.

    An option of two words ends with the key, and a fault below or above names that; one of a single word stands for the key.
    """

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


def overrides_of_serving(budgets: Sequence[str], setting: Mapping[str, str], spelled: Spelling = as_option) -> list[Override]:
    """Return what budgets, and values in YAML for keys of `measure`, ask for. A device measures by itself, without evidence."""
    found = [Override(spelled("budget"), "select.budgets", f"[{', '.join(budgets)}]")] if budgets else []
    found += [Override(spelled("device"), "measure.latency_file", "null")] if "device" in setting else []
    return found + [Override(spelled(name), f"measure.{name}", text) for name, text in setting.items()]


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
