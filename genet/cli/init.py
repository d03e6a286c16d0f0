"""`genet init`: a commented recipe and search space to start from, chosen to suit a folder of images."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from genet.arch.network import legal_name
from genet.cli.console import Answer, progress
from genet.config.options import checked_budgets, checked_measure
from genet.config.reader import shipped_files
from genet.config.recipe import Measure
from genet.config.yaml_tree import edited
from genet.errors import RunError
from genet.names import counted, printable, quoted
from genet.pipeline.init_rules import RecipeChoice, budget_choice
from genet.pipeline.reach import outlooks
from genet.progress import wrapped
from genet.storage import write_atomic
from genet.training.inventory import take_stock


def run(arguments: argparse.Namespace) -> Answer:
    """Write a commented recipe and search space, named after the file (in legal characters)."""
    recipe: Path = arguments.file
    name = legal_name(recipe.stem)
    space = recipe.parent / f"{name}-space.yaml"
    for file in (recipe, space):
        if file.exists():
            raise RunError(f"{file} exists already, expected a new file; name another")
    if not recipe.name.isprintable():
        raise RunError(
            f"{printable(recipe.name)}: got characters that are not printable, expected a plain file name; choose another"
        )
    chosen = _choices(arguments, recipe)
    words = {"NAME": name, "FILE": quoted(Path(recipe.name))}
    for file, kind in ((space, "space"), (recipe, "recipe")):  # the longer name first, for it may be too long
        values = {key: value for choice in chosen for key, value in getattr(choice, kind).items()}
        write_atomic(file, _filled(shipped_files("templates")[kind], words, values).encode())
    for choice in chosen:
        print(wrapped(f"{choice.what:<12} {choice.why}", indent=" " * 13))
    data = "" if arguments.data else " --data FOLDER"
    print(f"wrote {recipe} and {space}; then: genet check {quoted(recipe)} && genet run {quoted(recipe)}{data}")
    return {"recipe": str(recipe), "space": str(space), "choices": {choice.what: choice.why for choice in chosen}}


def _filled(template: Path, words: Mapping[str, str], values: Mapping[str, str]) -> str:
    """Return a template's text with names and values filled in."""
    text = re.sub("|".join(words), lambda found: words[found[0]], template.read_text(encoding="utf-8"))
    if "data.root" in values:
        text = text.replace(" --data FOLDER\n# FOLDER holds", "\n# data.root holds")
    return edited(text, values)


def _choices(arguments: argparse.Namespace, recipe: Path) -> list[RecipeChoice]:
    """Return the choices: how it will be served, by the command line, and what suits the images, if they are given."""
    given = {name: value for name in ("runtime", "batch", "threads") if (value := getattr(arguments, name))}
    measure, budgets = checked_measure(given), checked_budgets(arguments.budget or ())
    served = _serving_choice(measure, [*given])
    if not arguments.data:
        return [*served, *([budget_choice(outlooks(budgets, None, (), measure.batch), given=True)] if budgets else [])]
    from genet.pipeline.design import choose_settings  # loads torch

    place, beside = Path(arguments.data).absolute(), recipe.absolute().parent
    root = os.path.relpath(place, beside) if place.is_relative_to(beside) else str(place)
    images = take_stock(Path(arguments.data), progress())
    return [*served, *choose_settings(images, root, measure, budgets, progress())]


def _serving_choice(measure: Measure, given: Sequence[str]) -> list[RecipeChoice]:
    """Return the choice of runtime, batch and threads, as far as they are given."""
    threads = f"with {counted(measure.threads, 'thread')}" if measure.threads else ""
    in_words = {"runtime": f"by {measure.runtime}", "batch": f"at batch {measure.batch}", "threads": threads}
    values = {f"measure.{name}": str(getattr(measure, name)) for name in given}
    return [RecipeChoice("served", " ".join(in_words[name] for name in given), values)] if given else []
