"""Faults of pydantic in words: file:line:column: path: rule (value), nearest legal one."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, get_origin

import yaml
from pydantic import BaseModel

from genet.config.yaml_tree import Fault, child, is_in_file, node_location

RENAMED = {  # keys of earlier versions
    "accumulate": "grad_accum_steps",
    "candidates": "measure_top_k",
    "clip": "clip_grad_norm",
    "erasing": "random_erase_prob",
    "joint": "paired_fraction",
    "joint_fraction": "paired_fraction",
    "latency": "latency_file",
    "networks": "calibration_networks",
    "samples": "trials_per_type",
    "structures": "random_samples",
}


def fault_of(model: type[BaseModel], root: yaml.Node, error: Any) -> Fault:
    """Return one pydantic error as (place, line)."""
    location = _written_location(error["loc"])
    node = root
    for depth, part in enumerate(location):
        below = child(node, part, key=error["type"] == "extra_forbidden" and depth == len(location) - 1)
        if below is None:
            break
        node = below
    dotted = ""
    for part in location:
        dotted += f"[{part}]" if isinstance(part, int) else f".{part}" if dotted else str(part)
    mark = node.start_mark
    if isinstance(error["input"], tuple):  # a list in the file, a tuple in the records
        error["input"] = list(error["input"])
    rule = _rule_and_value(model, error, location)
    place = node_location(node)
    if is_in_file(node) or not dotted:
        text = f"{place}: {dotted + ': ' if dotted else ''}{rule}"
    else:
        if error["type"] == "extra_forbidden" and " is called " not in rule:
            given = place.partition(" ")[2]
            rule = f"is not a key here{_nearest_key(model, dotted if dotted.startswith(given) else given)}"
        text = _named_by_option(place, dotted, rule, error)
    return (mark.name, mark.line, mark.column), text


def _named_by_option(option: str, dotted: str, rule: str, error: Any) -> str:
    """Return a fault of a value given by an option, such as `--set train.epochs`, with each key named once."""
    kind, _, key = option.partition(" ")
    if not key or dotted == key:
        return f"{option} {rule}"
    if dotted.startswith((f"{key}.", f"{key}[")):
        return f"{kind} {dotted} {rule}"
    rest = key.removeprefix(dotted)
    if error["type"] == "extra_forbidden" and rest.startswith("."):  # a key above the one that was given
        return f"{option} {rule}"
    if isinstance(error["input"], dict) and error["type"] != "rule" and rest.startswith("."):
        whole = "; give the whole list" if rule.startswith("must be a list") else ""
        return f"{option} is not a key here: {dotted} {rule.replace(_got(error['input']), '')}{whole}"
    return f"{option}: {dotted}: {rule}"


def _written_location(location: tuple[Any, ...]) -> list[Any]:
    """Return the location without the names that pydantic gives to the members of a union; the file has none of them."""
    written: list[Any] = []
    for part in location:
        of_union = bool(written) and (written[-1] in ("widths", "master") or "masternets" in written)
        if not (of_union and part in ("aligned", "grid", "trained", "taken", "tuned", "group", "own")):
            written.append(part)
    return written


def _rule_and_value(model: type[BaseModel], error: Any, location: list[Any]) -> str:
    """Return the rule in words, the value, and the nearest legal one if there is one."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    got = _got(value)
    match kind:
        case "multiple_of":
            step = context["multiple_of"]
            nearest = value // step * step
            return f"must be a multiple of {step}{got}; nearest {nearest or step} or {nearest + step}"
        case "missing":
            return "must be given"
        case "extra_forbidden":
            known = _keys_at(model, location[:-1])  # of all variants: a key of another variant is no typing error
            if (renamed := RENAMED.get(location[-1])) in known:
                return f"is not a key here; it is called {renamed} now"
            return "is not a key here" + ("" if location[-1] in known else did_you_mean(str(location[-1]), known))
        case "literal_error":
            legal = re.findall(r"'[^']*'|[\d.]+", str(context["expected"]))
            nearest = did_you_mean(str(value), [item.strip("'") for item in legal])
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
        case "rule":
            return f"{context['rule']}{got}" + (f"; nearest {context['nearest']}" if context["nearest"] else "")
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


def _got(value: Any) -> str:
    return f" (got {reprlib.repr(value)})"


def _keys_at(model: type[BaseModel], location: list[Any]) -> list[str]:
    """Return the legal keys of the record at `location`, found by walking the annotations."""
    current: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = _record_type(field.annotation) if field else None
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _nearest_key(model: type[BaseModel], key: str) -> str:
    """Return the known key, such as `train.epochs`, that is nearest to an unknown one, of those with a similar last part."""

    def last(whole: str) -> str:
        return whole.rpartition(".")[2]

    alike = [each for each in _whole_keys(model) if difflib.get_close_matches(last(key).lower(), [last(each)])]
    return did_you_mean(key, alike)


def _whole_keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield all keys of a record and of the records in it, such as `train.epochs`, except in lists."""
    for name, field in model.model_fields.items():
        yield above + name
        below = None if get_origin(field.annotation) is tuple else _record_type(field.annotation)
        if below:
            yield from _whole_keys(below, f"{above}{name}.")


def _record_type(annotation: Any) -> Any:
    """Return the record class inside an annotation such as `tuple[SuperBlock, ...]` or `Ratios | None`."""
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (_record_type(argument) for argument in getattr(annotation, "__args__", ()))
    return next((record for record in found if record is not None), None)


def did_you_mean(word: str, legal: Mapping[str, Any] | list[str]) -> str:
    """Return the nearest legal word as a question, nothing if none is near."""
    folded = {item.lower(): item for item in legal}
    close = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.5)
    return f"; did you mean {folded[close[0]]}?" if close else ""
