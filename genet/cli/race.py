"""`genet race`: the winner of each budget, from the search or a known design."""

from __future__ import annotations

import argparse
from functools import partial

from genet.cli.console import Answer, progress
from genet.cli.final_table import answer_of, print_outcomes
from genet.pipeline.context import open_run
from genet.pipeline.race import run_race
from genet.pipeline.shortfalls import list_shortfalls
from genet.trials.runners.opening import open_runner
from genet.trials.runners.runner import Runner


def run(arguments: argparse.Namespace) -> Answer:
    """Train the selected networks and the known designs alike; finished trainings are not repeated."""
    with open_run(arguments.run, progress()) as job:
        found = run_race(job, partial(training_runner, arguments))
        print_outcomes(found, job.folder.path)
        shortfalls = list_shortfalls(job.folder)
    return {**answer_of(found), "shortfalls": shortfalls}


def training_runner(arguments: argparse.Namespace, device: str) -> Runner:
    """Return the runner of full trainings: as for trials, but one at a time on every GPU, since each needs its whole memory."""
    return open_runner(device, arguments.runner, arguments.workers, address=arguments.address)
