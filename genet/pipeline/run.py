"""The whole job in reading order.

Each step reads the results of earlier steps from the run folder, does only the missing work, and leaves its own result.
"""

from __future__ import annotations

from genet.errors import EvidenceError
from genet.pipeline.context import RunContext
from genet.pipeline.distill import OpenRunner, run_planned_trials
from genet.pipeline.export import export_selected
from genet.pipeline.finish import mark_finished
from genet.pipeline.fit import fit_trials
from genet.pipeline.forecast import Forecast
from genet.pipeline.master import train_master
from genet.pipeline.profile import calibrate, check_job, measure_blocks
from genet.pipeline.race import run_race
from genet.pipeline.report import write_report
from genet.pipeline.select import select_networks
from genet.pipeline.tournament import find_masternet
from genet.search.outcome import Outcomes
from genet.trials.runners.opening import open_runner


def run_job(
    job: RunContext, runner: OpenRunner = open_runner, trainer: OpenRunner = open_runner, any_master: bool = False
) -> Outcomes:
    """Go from a recipe to trained and exported networks; `runner` opens the runner of the trials, `trainer` that of trainings.

    A tournament for the MasterNet comes before blocks are measured, which are those that may stand in its winner's place.
    For `any_master` see `distill`. EvidenceError if no network of any budget can be trained: the report tells why.
    """
    forecast = Forecast(check_job(job).seconds, job.progress, resumed=bool(job.tournament or job.table.block_rows))
    with forecast.step("tournament"):
        find_masternet(job, trainer)
    with forecast.step("profile"):
        staircases = measure_blocks(job)
    with forecast.step("calibration"):
        calibrate(job, staircases)
    with forecast.step("master"):
        train_master(job)
    with forecast.step("distill"):
        run_planned_trials(job, runner, any_master=any_master)
    fit_trials(job)
    with forecast.step("select"):
        select_networks(job)
    try:
        outcomes = run_race(job, trainer)
    except EvidenceError:
        write_report(job)  # which says why no budget has a network
        raise
    export_selected(job)
    write_report(job)
    mark_finished(job.folder, job.recipe, failed=bool(outcomes.tried_again))
    return outcomes
