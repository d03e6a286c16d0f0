"""`genet init`: a commented recipe and search space to start from, for images that it looks at."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genet.arch.network import Network, legal_name
from genet.cli.console import progress
from genet.config.budget import Budget
from genet.config.reader import read_space, shipped_files
from genet.config.recipe import Measure
from genet.config.yaml_tree import edited
from genet.errors import GenetError, RunError
from genet.names import check_utf8, shown, typed
from genet.pipeline.init_rules import Choice, Suited
from genet.storage import write_atomic
from genet.training.inventory import Inventory, take_stock

Answer = dict[str, Any]


def run(arguments: argparse.Namespace) -> Answer:
    """Write a commented recipe and search space, named after the file as far as its name is legal."""
    recipe: Path = arguments.file
    name = legal_name(recipe.stem)
    space = recipe.parent / f"{name}-space.yaml"
    for file in (recipe, space):
        if file.exists():
            raise RunError(f"{file} exists already, expected a new file; name another")
    if not recipe.name.isprintable():
        raise RunError(f"{shown(recipe.name)}: got characters that are not printable, expected a plain file name; choose another")
    chosen = _choices(arguments, recipe)
    words = {"NAME": name, "FILE": typed(Path(recipe.name))}
    for file, kind in ((space, "space"), (recipe, "recipe")):  # the longer name first, for it may be too long
        values = {key: value for choice in chosen for key, value in getattr(choice, kind).items()}
        write_atomic(file, _filled(shipped_files("templates")[kind], words, values).encode())
    for choice in chosen:
        print(textwrap.fill(f"{choice.what:<12} {choice.why}", 80, subsequent_indent=" " * 13, break_long_words=False))
    data = "" if arguments.data else " --data FOLDER"
    print(f"wrote {recipe} and {space}; then: genet check {typed(recipe)} && genet run {typed(recipe)}{data}")
    return {"recipe": str(recipe), "space": str(space), "choices": {choice.what: choice.why for choice in chosen}}


def _filled(template: Path, words: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Return a template's text with names and values filled in."""
    text = re.sub("|".join(words), lambda found: words[found[0]], template.read_text(encoding="utf-8"))
    if "data.root" in values:
        text = text.replace(" --data FOLDER\n# FOLDER holds", "\n# data.root holds")
    return edited(text, values)


def _choices(arguments: argparse.Namespace, recipe: Path) -> list[Choice]:
    """Return what is chosen: what the command line says of serving, and what suits the images, if they are given."""
    given = {name: value for name in ("runtime", "batch") if (value := getattr(arguments, name))}
    if not (given or arguments.budget or arguments.data):
        return []
    from genet.cli.measuring import checked_budgets, checked_measure  # loads torch

    measure, budgets = checked_measure(given), checked_budgets(arguments.budget or ())
    if not arguments.data:
        return [*_served(measure, [*given]), *_budgeted(budgets, None, measure)]
    images = take_stock(Path(arguments.data), progress())
    suited = Suited(images, read_space(shipped_files("templates")["space"]))
    limits_ms = [budget.ms(math.nan, measure.batch) for budget in budgets if not budget.relative]
    space, masternet_ms = suited.around(max(limits_ms, default=None), lambda network: _ms(network, measure))
    served = [*_served(measure, [*given]), *_budgeted(budgets, masternet_ms, measure)]
    return [_images(images, recipe), *suited.choices(), space, *served]


def _images(images: Inventory, recipe: Path) -> Choice:
    """Return the place of the images, seen from the recipe if they lie below it, with what they are."""
    place, beside = Path(images.root).absolute(), recipe.absolute().parent
    root = os.path.relpath(place, beside) if place.is_relative_to(beside) else str(place)
    train, test = (f"{sum(counts.values()):,}" for counts in (images.train, images.test))
    colours = "grey" if images.grey else "in colour"
    told = f"{len(images.train)} classes, {train} images to train on and {test} to test on, {colours}"
    return Choice("images", told, {"data.root": json.dumps(check_utf8(root), ensure_ascii=False)})


def _served(measure: Measure, given: Sequence[str]) -> list[Choice]:
    """Return the choice of runtime and batch, as far as they are given."""
    told = {"runtime": f"by {measure.runtime}", "batch": f"at batch {measure.batch}"}
    values = {f"measure.{name}": str(getattr(measure, name)) for name in given}
    return [Choice("served", " ".join(told[name] for name in given), values)] if given else []


def _budgeted(budgets: Sequence[Budget], masternet_ms: float | None, measure: Measure) -> list[Choice]:
    """Return the choice of budgets, told in all forms that are known."""
    others = [budget.others(masternet_ms, measure.batch) for budget in budgets]
    told = ", ".join(f"{budget}{f' ({each})' if each else ''}" for budget, each in zip(budgets, others, strict=True))
    return [Choice("budget", told, {"select.budgets": f"[{', '.join(map(str, budgets))}]"})] if budgets else []


def _ms(network: Network, measure: Measure) -> float | None:
    """Return a network's ms per batch here; None, with a printed reason, if it cannot be timed."""
    from genet.cli.measuring import meter_of
    from genet.latency.workload import whole

    try:
        return meter_of(measure).prepare([whole(network)])()[0].ms
    except GenetError as fault:
        print(f"  not timed here, so that the space does not depend on the budget: {fault}")
        return None
