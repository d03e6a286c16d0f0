"""A whole design in one call: a recipe that suits images, a way of serving and budgets, and the job that it describes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genet.arch.network import legal_name
from genet.arch.space import SearchSpace
from genet.config.budget import Budget
from genet.config.options import checked_budgets, checked_measure, faults_name_arguments
from genet.config.overrides import Override, overrides_of_serving
from genet.config.reader import read_recipe, read_space, shipped_files, to_yaml, with_overrides
from genet.config.recipe import Measure, Recipe
from genet.config.yaml_tree import compose, edited, plain_values
from genet.errors import SpecError
from genet.names import check_utf8
from genet.pipeline.context import open_run
from genet.pipeline.finish import finished_before
from genet.pipeline.init_rules import RecipeChoice, SettingsForImages, budget_choice, measured_choices
from genet.pipeline.init_timing import BriefTimer
from genet.pipeline.reach import outlooks
from genet.pipeline.run import run_job
from genet.pipeline.run_folder import RunFolder, default_folder
from genet.pipeline.run_tables import Run
from genet.progress import SILENT, Progress, on_screen
from genet.storage import Record
from genet.training.inventory import Inventory, images_in, take_stock

OneBudget = str | float | Budget
NOTHING: Mapping[str, Any] = {}


@faults_name_arguments()
def design(
    data: str | Path | None = None,
    budget: OneBudget | Sequence[OneBudget] = (),
    *,
    recipe: str | Path | Recipe | None = None,
    space: str | Path | SearchSpace | None = None,
    folder: str | Path | None = None,
    overrides: Mapping[str, Any] = NOTHING,
    quiet: bool = True,
    **setting: Any,
) -> Run:
    """Design networks for a folder of images and return the run, as `genet init --data` and `genet run` do.

    `budget` is one such as `5ms`, `0.2ms/image` or `0.5x`, or several; `setting` holds the keys of a recipe's `measure`:
    device, runtime, dtype, memory_format, batch, threads. All other settings are chosen to suit the images, or come from
    `recipe`: a file, the name of one that comes with genet, or a record, whose images `data` replaces. `space` and
    `overrides`, values by keys such as `train.epochs`, change the recipe. If `folder` (by default `runs/NAME`)
    holds a run already, it is resumed, with its own recipe and images if none are given. `quiet=False` shows the progress.
    """
    budgets = list(budget) if isinstance(budget, Sequence) and not isinstance(budget, str) else [budget]
    checked, measure = checked_budgets(budgets, str), checked_measure(setting, str)
    changes = overrides_of_serving([*map(str, checked)], {name: _text(value) for name, value in setting.items()}, str)
    if space is not None:
        space = space if isinstance(space, SearchSpace) else read_space(space)
        changes.append(Override("space", "space", to_yaml(space)))
    changes += [Override(f"overrides {key}", key, _text(value)) for key, value in overrides.items()]
    progress = SILENT if quiet else on_screen()
    if recipe is not None:
        wanted = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
        files = RunFolder(Path(folder or default_folder(wanted.name, fresh=False)))
    elif data is not None:
        name = legal_name(Path(data).resolve().name)
        files = RunFolder(Path(folder or default_folder(name, fresh=False)))
        there = files.recipe_file.exists()
        wanted = files.recipe() if there else recipe_for_images(name, Path(data), measure, checked, progress)
    elif folder is not None and (files := RunFolder(Path(folder))).recipe_file.exists():
        wanted = files.recipe()
    else:
        raise SpecError(["data: got none, expected a folder of images; give one, or a recipe, or the folder of a run"])
    wanted = with_overrides(wanted, changes)
    if data is not None:
        wanted = wanted.model_copy(update={"data": images_in(wanted.data, str(data))})
    if not finished_before(files, wanted):
        with open_run(files.path, progress, wanted, same_setting=True) as job:
            run_job(job)
    return Run(files.path)


def _text(value: Any) -> str:
    """Return a value of a program as YAML."""
    return to_yaml(value) if isinstance(value, Record) else json.dumps(value, default=str, ensure_ascii=False)


def recipe_for_images(name: str, data: Path, measure: Measure, budgets: Sequence[Budget], progress: Progress) -> Recipe:
    """Return a recipe that suits a folder of images: the template's, with what is chosen."""
    choices = choose_settings(take_stock(data, progress), str(data.absolute()), measure, budgets, progress)
    templates, named = shipped_files("templates"), {"name": json.dumps(name)}
    of_space = {key: text for choice in choices for key, text in choice.space.items()}
    of_recipe = {key: text for choice in choices for key, text in choice.recipe.items()}
    space = edited(templates["space"].read_text(encoding="utf-8"), named | of_space)
    values = named | {"space": space} | of_recipe
    return read_recipe(templates["recipe"], [Override(key, key, text) for key, text in values.items()])


def choose_settings(
    images: Inventory, root: str, measure: Measure, budgets: Sequence[Budget], progress: Progress
) -> list[RecipeChoice]:
    """Return the settings that suit a folder of images, named `root` in the recipe, from latencies that are timed here."""
    suited = SettingsForImages(images, read_space(shipped_files("templates")["space"]))
    limits_ms = [budget.ms(math.nan, measure.batch) for budget in budgets if not budget.relative]
    timer = BriefTimer(measure, progress)
    choice, space, masternet = suited.masternet_choice(max(limits_ms, default=None), timer)
    smallest = timer(space.smallest(suited.resolution), masternet) if masternet else None
    fastest_ms = [min(masternet.ms, smallest.ms)] if masternet and smallest else []
    known = outlooks(budgets or _usual_budgets(), masternet and masternet.ms, fastest_ms, measure.batch)
    measured = measured_choices(masternet, smallest, measure.batch) if masternet else []
    return [_located(images, root), *suited.choices(), choice, *measured, budget_choice(known, given=bool(budgets))]


def _usual_budgets() -> tuple[Budget, ...]:
    """Return the template's budgets."""
    template: Any = plain_values(compose(shipped_files("templates")["recipe"]))
    return checked_budgets(template["select"]["budgets"])


def _located(images: Inventory, root: str) -> RecipeChoice:
    """Return the place of the images, with what they are."""
    train, test = (f"{sum(counts.values()):,}" for counts in (images.train, images.test))
    colours = "grey" if images.grey else "in colour"
    description = f"{len(images.train)} classes, {train} images to train on and {test} to test on, {colours}"
    return RecipeChoice("images", description, {"data.root": json.dumps(check_utf8(root), ensure_ascii=False)})
