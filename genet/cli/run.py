"""`genet run`: the whole job, from a recipe to exported networks."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from genet.cli.console import Answer, progress
from genet.cli.final_table import answer_of, print_outcomes
from genet.cli.recipe_overrides import recipe_overrides
from genet.config.reader import read_recipe
from genet.config.recipe import Recipe
from genet.errors import RunError
from genet.names import quoted
from genet.pipeline.finish import finished_before
from genet.pipeline.run_folder import RunFolder, default_folder
from genet.pipeline.shortfalls import list_shortfalls
from genet.search.outcome import Outcomes
from genet.training.inventory import images_in


def run(arguments: argparse.Namespace) -> Answer:
    """Run the job, or resume it; print the results of a finished one without torch, a device or images."""
    if Path(arguments.recipe).is_dir():
        raise _folder_error(Path(arguments.recipe))
    recipe = _recipe(arguments)
    folder = arguments.run or default_folder(recipe.name, arguments.new_run)
    if arguments.run and arguments.new_run and folder.exists():
        raise RunError(f"{folder} exists already, expected a new folder for --new-run; give another --run")
    files = RunFolder(folder)
    finish = None if arguments.remeasure else finished_before(files, recipe)
    if finish:
        print(f"{recipe.name} in {folder}: done on {finish.when}, nothing to do")
        return _print_results(files, files.read(files.results, Outcomes))
    return _print_results(files, _run_job(recipe, folder, arguments))


def _run_job(recipe: Recipe, folder: Path, arguments: argparse.Namespace) -> Outcomes:
    from genet.cli.distill import trial_runner  # all of these load torch
    from genet.cli.race import training_runner
    from genet.pipeline.context import open_run
    from genet.pipeline.run import run_job
    from genet.trials.runners.opening import check_options

    check_options(arguments.runner, arguments.workers, arguments.address)
    files = RunFolder(folder)
    before = files.recipe().select.budgets if files.results.exists() else ()
    left = [f"--budget {budget}" for budget in before if budget not in recipe.select.budgets]
    with open_run(folder, progress(), recipe, same_setting=not arguments.remeasure) as job:
        job.progress.say(f"{recipe.name} in {folder}")
        if left:
            job.progress.say(f"  final table and report will lack the earlier budgets; add {' '.join(left)} to keep them")
        trials, trainings = partial(trial_runner, arguments), partial(training_runner, arguments)
        return run_job(job, trials, trainings, arguments.any_master)


def _print_results(files: RunFolder, outcomes: Outcomes) -> Answer:
    """Print the final table, and return it for programs."""
    print_outcomes(outcomes, files.path)
    print(f"\nreport: {files.report}")
    answer = {"run": str(files.path), "report": str(files.report), "shortfalls": list_shortfalls(files)}
    return {**answer, **answer_of(outcomes)}


def _folder_error(folder: Path) -> RunError:
    """Return the error for a folder in place of a recipe."""
    file = RunFolder(folder).recipe_file
    if not file.exists():
        return RunError(f"{folder}: got a folder, expected a recipe; name the recipe's file")
    return RunError(
        f"{folder}: got the folder of a run, expected a recipe; genet run {quoted(file)} --run {quoted(folder)} resumes it"
    )


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """Return the recipe with the values of the command line, which its own checks judge like the file's."""
    recipe = read_recipe(arguments.recipe, recipe_overrides(arguments))
    return recipe.model_copy(update={"data": images_in(recipe.data, arguments.data)}) if arguments.data else recipe
