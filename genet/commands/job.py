"""Commands on a run folder: the whole job and each of its steps."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

from genet import pipeline
from genet.choose.outcome import percent
from genet.commands.measuring import checked_measure
from genet.commands.naming import images_in
from genet.commands.printing import progress, table
from genet.commands.race import answer_of, print_outcomes, training_runner
from genet.errors import RunError
from genet.job import Job, open_job, read_job
from genet.names import check_utf8
from genet.progress import duration
from genet.runfolder import default_folder
from genet.spec.reader import read_recipe
from genet.spec.recipe import Recipe
from genet.trials.runner import Runner
from genet.trials.standing import Standing, standings
from genet.trials.workers import check_options, open_runner

Answer = dict[str, Any]


def run(arguments: argparse.Namespace) -> Answer:
    """`genet run`: the whole job, or what of it is left."""
    check_options(arguments.runner, arguments.workers, arguments.address)
    recipe = _override(read_recipe(arguments.recipe), arguments)
    folder = arguments.run or default_folder(recipe.name, arguments.fresh)
    if arguments.run and arguments.fresh and folder.exists():
        raise RunError(f"{folder}: --fresh must name a new folder, and this one exists; give another --run")

    with open_job(folder, progress(), recipe) as job:
        job.progress.say(f"{recipe.name} in {folder}")
        trials, trainings = partial(trial_runner, arguments), partial(training_runner, arguments)
        outcomes = pipeline.run(job, trials, trainings, arguments.any_master)
        print_outcomes(outcomes, job.folder.path)
        print(f"\nreport: {job.folder.report}")
        told = {"run": str(folder), "report": str(job.folder.report), "shortfalls": pipeline.shortfalls(job)}
    return {**told, **answer_of(outcomes)}


def _override(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with what the command line says; checked again like the file."""

    data, measure = recipe.data, recipe.measure.model_dump()
    if arguments.data:
        data = images_in(data, arguments.data)
    if arguments.device:
        measure |= {"device": arguments.device, "latency": None}
    if arguments.latency:
        measure["latency"] = check_utf8(str(Path(arguments.latency).absolute()))
    return recipe.model_copy(update={"data": data, "measure": checked_measure(measure)})


def step(arguments: argparse.Namespace) -> Answer:
    """`genet profile|master|distill`: one step on a run folder."""
    if arguments.step == "distill" and arguments.status:
        if arguments.more or arguments.retry:
            raise RunError("--status only looks, and --more and --retry run trials; give them without --status")
        return _print_status(read_job(arguments.run, progress()))
    with open_job(arguments.run, progress()) as job:
        match arguments.step:
            case "profile":
                return _print_profile(job)
            case "master":
                return _print_master(job)
            case _:
                if arguments.more:
                    _ask_for_more(job, arguments.more)
                results = pipeline.distill(job, partial(trial_runner, arguments), arguments.retry, arguments.any_master)
                _print_standings(job)
                return {"trials": len(results), "failed": sum(result.accuracy is None for result in results)}


def _ask_for_more(job: Job, count: int) -> None:
    """Take the trials into the plan that `genet select RUN --next` names, unless what was asked for before is not run yet."""
    if len(pipeline.finished_trials(job)) < len(pipeline.planned_trials(job)):
        asked = f"; delete {job.folder.more_trials} to withdraw those asked for" if job.folder.more_trials.exists() else ""
        job.progress.say(f"  planned trials are not run yet: these first, without more{asked}")
        return
    selection = pipeline.select(job)
    proposals = pipeline.proposals(job, pipeline.explanations(job, selection, job.table), count)
    if len(proposals) < count:
        job.progress.say(f"  of {count} more trials there are {len(proposals)}: no other would tell anything")
    pipeline.ask_for(job, [proposal.trial for proposal in proposals])
    minutes = sum(proposal.seconds for proposal in proposals) / 60
    job.progress.say(f"  {len(proposals)} more trials, to tell the selected networks from the next best: about {minutes:.1f} min")


def report(arguments: argparse.Namespace) -> Answer:
    """`genet report`: the page about what there is so far."""
    path = pipeline.write_report(read_job(arguments.run, progress()))
    print(path)
    return {"report": str(path)}


def _print_profile(job: Job) -> Answer:
    stairs = pipeline.profile(job).staircases
    offered = {(index, str(kind)): len(widths) for (index, kind), widths in job.recipe.space.widths_on_offer().items()}
    kept = [len(stair.kept) / offered[stair.superblock, stair.block_type] for stair in stairs]
    return {
        "blocks": len(job.table),
        "failed": sum(row.failure is not None for row in job.table.block_rows),
        "networks": len(job.table.network_rows),
        "staircases": len(stairs),
        "edges": sum(len(stair.staircase.edges) for stair in stairs if stair.staircase),
        "widths_kept": sum(kept) / max(1, len(kept)),
        "noise": job.table.noise,
        "estimate": job.table.setting.estimate,
    }


def trial_runner(arguments: argparse.Namespace, device: str) -> Runner:
    """Return who runs the trials, as the command line asks."""
    return open_runner(device, arguments.runner, arguments.workers, arguments.trials_per_gpu, arguments.address)


def _print_status(job: Job) -> Answer:
    """`genet distill RUN --status`: reads what is on disk, and disturbs nobody."""
    found = _print_standings(job)
    seen = pipeline.pace(job)
    if seen:
        ago, left = time.time() - seen.updated, "n/a" if seen.left_s is None else duration(seen.left_s)
        print(f"{seen.position:.1f} of {seen.total} trials, {seen.workers} at work, {left} left, as told {duration(ago)} ago")
    else:
        print("no process is at work on the trials; `genet distill RUN` goes on with them")
    return {
        "superblocks": [standing.model_dump(mode="json") for standing in found],
        "pace": seen.model_dump(mode="json") if seen else None,
    }


def _print_standings(job: Job) -> tuple[Standing, ...]:
    found = standings(pipeline.planned_trials(job), pipeline.finished_trials(job))
    rows = [
        [
            str(standing.index + 1),
            f"{standing.done}/{standing.planned}",
            str(standing.failed),
            *("n/a" if share is None else percent(share) for share in (standing.control, standing.best)),
            standing.best_superblock or "n/a",
            "n/a" if standing.seconds_per_trial is None else f"{standing.seconds_per_trial:.1f}",
        ]
        for standing in found
    ]
    table(["super-block", "trials", "failed", "MasterNet's own", "best", "as", "seconds each"], rows)
    return found


def _print_master(job: Job) -> Answer:
    trained = pipeline.train_master(job)
    print(f"accuracy on the images held out for the search: {percent(trained.nas_accuracy)}")
    return trained.model_dump(mode="json")
