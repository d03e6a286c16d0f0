"""`genet distill`: run the trials, and show their progress."""

from __future__ import annotations

import argparse
import time
from functools import partial

from genet.cli.console import Answer, progress, table
from genet.errors import RunError
from genet.pipeline.context import RunContext, open_run, read_run
from genet.pipeline.distill import finished_trials, planned_trials, request_trials, run_planned_trials, trial_pace
from genet.pipeline.explain import explain_selection, propose_trials
from genet.pipeline.search_state import SearchState
from genet.pipeline.select import select_networks
from genet.progress import duration
from genet.search.outcome import percent
from genet.trials.results import SuperBlockProgress, progress_by_superblock
from genet.trials.runners.opening import open_runner
from genet.trials.runners.runner import Runner


def run(arguments: argparse.Namespace) -> Answer:
    """Run the missing trials, or print their progress."""
    if arguments.status:
        if arguments.extra or arguments.retry:
            raise RunError("--status only shows the progress, while --extra and --retry run trials; give them without --status")
        return _print_status(read_run(arguments.run, progress()))
    with open_run(arguments.run, progress()) as job:
        if arguments.extra:
            _ask_for_more(job, arguments.extra)
        results = run_planned_trials(job, partial(trial_runner, arguments), arguments.retry, arguments.any_master)
        _print_standings(job)
        return {"trials": len(results), "failed": sum(result.accuracy is None for result in results)}


def _ask_for_more(job: RunContext, count: int) -> None:
    """Add the trials that `genet select RUN --suggest` names to the plan, unless earlier additions have not run yet."""
    if len(finished_trials(job)) < len(planned_trials(job)):
        extra = job.folder.more_trials
        asked = f"; delete {extra} to withdraw the extra trials requested before" if extra.exists() else ""
        job.progress.say(f"  some planned trials have not run yet: they run first, and none are added{asked}")
        return
    selection, state = select_networks(job), SearchState(job, job.table)
    proposals = propose_trials(state, explain_selection(state, selection), count)
    if len(proposals) < count:
        job.progress.say(f"  only {len(proposals)} of {count} more trials are added: no other would tell anything")
    request_trials(job, [proposal.trial for proposal in proposals])
    minutes = sum(proposal.seconds for proposal in proposals) / 60
    job.progress.say(
        f"  {len(proposals)} more trials, to separate the selected networks from the next best: about {minutes:.1f} min"
    )


def trial_runner(arguments: argparse.Namespace, device: str) -> Runner:
    """Return the runner of the trials that the command line asks for."""
    return open_runner(device, arguments.runner, arguments.workers, arguments.trials_per_gpu, arguments.address)


def _print_status(job: RunContext) -> Answer:
    """Print the progress of the trials from the files on disk, without disturbing the process that runs them."""
    found = _print_standings(job)
    seen = trial_pace(job)
    if seen:
        ago, left = time.time() - seen.updated, "n/a" if seen.left_s is None else duration(seen.left_s)
        print(f"{seen.position:.1f} of {seen.total} trials, {seen.workers} at work, {left} left, as of {duration(ago)} ago")
    else:
        print("no process is running the trials; `genet distill RUN` continues them")
    return {
        "superblocks": [standing.model_dump(mode="json") for standing in found],
        "pace": seen.model_dump(mode="json") if seen else None,
    }


def _print_standings(job: RunContext) -> tuple[SuperBlockProgress, ...]:
    found = progress_by_superblock(planned_trials(job), finished_trials(job))
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
    table(["super-block", "trials", "failed", "control", "best", "as", "seconds each"], rows)
    return found
