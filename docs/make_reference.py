"""Every key of recipes and search spaces as pages, made from the records that read them: python docs/make_reference.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genet.arch.space import SearchSpace
from genet.config.recipe import Recipe
from genet.storage import Record

HERE = Path(__file__).parent
PAGES: dict[str, tuple[type[Record], str, str]] = {
    "recipes.md": (
        Recipe,
        "Recipes",
        "A recipe describes a whole job: `genet run RECIPE`. `genet init my.yaml` writes one with comments. `genet check` lists\n"
        "all its faults at once, with their lines.",
    ),
    "search-spaces.md": (
        SearchSpace,
        "Search spaces",
        "A search space is a MasterNet, and how far its super-blocks may change. A recipe names it in `space`.",
    ),
}
ELSEWHERE = {"SearchSpace": "[search-spaces.md](search-spaces.md)"}
VARIANTS = {"PretrainedMaster": " (from elsewhere)", "TunedMaster": " (from elsewhere, trained further)"}  # of one key
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
Schema = dict[str, Any]


def page(name: str) -> str:
    """A page: the record's keys, then a section for each record within it."""
    record, title, opening = PAGES[name]
    schema = record.model_json_schema()
    lines = [f"# {title}", "", "<!-- made by docs/make_reference.py: change the records, not this page -->", "", opening, ""]
    lines += _table(schema, schema)
    for path, part in _parts(schema, schema, ""):
        lines += ["", f"## {path}", "", " ".join(part.get("description", "").split()), "", *_table(part, schema)]
    return "\n".join([*lines, ""])


def _table(record: Schema, whole: Schema) -> list[str]:
    rows = [
        f"| `{key}` | {_meaning(prop, whole)} | {_default(key, prop, record, whole)} | {_values(prop, whole)} |"
        for key, prop in record["properties"].items()
    ]
    return ["| key | meaning | default | values |", "|---|---|---|---|", *rows]


def _parts(record: Schema, whole: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """The records within a record, with the path of keys that leads to them."""
    for key, prop in record["properties"].items():
        for name in _names(prop):
            part, named = whole["$defs"][name], f"{path}{key}"
            if name in ELSEWHERE or "properties" not in part or (path and key == "augment"):  # told above
                continue
            yield named + VARIANTS.get(name, ""), part
            yield from _parts(part, whole, f"{named}.")


def _names(prop: Schema) -> list[str]:
    """The records that a value may be."""
    options = [prop, *prop.get("anyOf", ()), *prop.get("oneOf", ()), prop.get("items", {})]
    return [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]


def _meaning(prop: Schema, whole: Schema) -> str:
    """The key's own description; one that repeats its record's is left out of the schema."""
    own = [prop, *(whole["$defs"][name] for name in _names(prop))]
    return " ".join(next(each["description"] for each in own if "description" in each).split())


def _default(key: str, prop: Schema, record: Schema, whole: Schema) -> str:
    if key in record.get("required", ()):
        return "required"
    if prop.get("default") in (None, [], ()) or any("properties" in whole["$defs"][name] for name in _names(prop)):
        return ""
    value = prop["default"]
    return (
        f"`{', '.join(map(str, value))}`" if isinstance(value, list) else f"`{str(value).lower() if value is False else value}`"
    )


def _values(prop: Schema, whole: Schema) -> str:
    """What a value may be, in a word or two."""
    names = _names(prop)
    if names:
        found = [
            ELSEWHERE.get(name) or (f"see [{name}]" if "properties" not in whole["$defs"][name] else "keys below")
            for name in names
        ]
        return " or ".join(dict.fromkeys(found))
    return _value(prop)


def _value(option: Schema) -> str:
    if members := option.get("anyOf", option.get("oneOf")):
        return " or ".join(dict.fromkeys(_value(each) for each in members if each.get("type") != "null"))
    if "$ref" in option:  # within a list: its keys are those of its own file
        return f"a {option['$ref'].rpartition('/')[2].lower()}"
    if "enum" in option or "const" in option:
        return ", ".join(f"`{each}`" for each in option.get("enum", [option.get("const")]))
    if option.get("type") == "array":
        places = option.get("prefixItems", [option.get("items", {})])
        return "list of " + "; ".join(dict.fromkeys(_value(each) for each in places))
    kinds = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
    bounds = [f"{sign} {option[bound]:g}" for bound, sign in BOUNDS.items() if bound in option]
    return ", ".join([kinds.get(option.get("type", ""), "keys"), *bounds])


if __name__ == "__main__":
    for name in PAGES:
        (HERE / name).write_text(page(name))
