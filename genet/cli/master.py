"""`genet master`: the MasterNet, the tournament that finds it if the space asks for one, and their progress."""

from __future__ import annotations

import argparse
from functools import partial

from genet.cli.console import Answer, progress, table
from genet.cli.race import training_runner
from genet.pipeline.context import RunContext, open_run, read_run
from genet.pipeline.master import train_master
from genet.pipeline.tournament import find_masternet, standings_of, summary
from genet.search.outcome import TrainedNetwork, percent
from genet.storage import is_locked


def run(arguments: argparse.Namespace) -> Answer:
    """Find and train the run's MasterNet, and print its accuracy; or print the standing of its tournament."""
    if arguments.status:
        return _print_status(read_run(arguments.run, progress()))
    with open_run(arguments.run, progress()) as job:
        find_masternet(job, partial(training_runner, arguments))
        trained = train_master(job)
    print(f"accuracy on the images held out for the search: {percent(trained.nas_accuracy)}")
    return trained.model_dump(mode="json")


def _print_status(job: RunContext) -> Answer:
    """Print how the contenders stand, from the files on disk, without disturbing the process that trains them."""
    found, standings = job.tournament, standings_of(job)
    if found:
        rows = [
            [
                each.contender.design,
                f"{each.contender.ms_per_image:.4f}",
                *("" if share is None else percent(share) for share in each.reached),
                *[""] * (len(found.rounds) - len(each.reached)),
                each.state,
            ]
            for each in standings
        ]
        table(["design", "ms/image", *(f"{each.epochs} epochs" for each in found.rounds), ""], rows)
    if job.recipe.space.masternets:
        print(summary(job))
    trained = TrainedNetwork.load(job.folder.master) if job.folder.master.exists() else None
    if trained and found and trained.network != found.winner:
        trained = None  # of an earlier tournament
    if trained:
        print(f"the MasterNet is trained: {percent(trained.nas_accuracy)} on the images held out for the search")
    elif is_locked(job.folder.path):
        print("the MasterNet is not trained yet; a process is working in the folder")
    else:
        print("the MasterNet is not trained yet; `genet master RUN` trains it")
    return {
        "tournament": found.model_dump(mode="json") if found else None,
        "standings": [each.model_dump(mode="json") for each in standings],
        "masternet": trained.model_dump(mode="json") if trained else None,
    }
