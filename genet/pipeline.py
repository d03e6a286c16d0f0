"""The whole job in reading order.

Each step reads what the steps before left in the run folder, does only what is missing, and leaves its own result.
"""

from __future__ import annotations

from genet.choose.outcome import Outcomes
from genet.job import Job
from genet.steps.distill import OpenRunner, ask_for, distill, finished_trials, pace, planned_trials
from genet.steps.entrants import find_entrants
from genet.steps.explain import explanations, proposals
from genet.steps.export import export_folder, export_selected
from genet.steps.finish import shortfalls, train_selected, unmet_budgets, write_report
from genet.steps.learn import current_regression, fit_trials, train_master
from genet.steps.measure import check, profile
from genet.steps.race import race
from genet.steps.select import answer, select, table_of_evidence, table_on_disk
from genet.steps.train import train_network_into
from genet.steps.validate import validate_predictions
from genet.trials.workers import open_runner

__all__ = [
    "answer",
    "ask_for",
    "check",
    "current_regression",
    "distill",
    "explanations",
    "export_folder",
    "export_selected",
    "find_entrants",
    "finished_trials",
    "fit_trials",
    "pace",
    "planned_trials",
    "profile",
    "proposals",
    "race",
    "run",
    "select",
    "shortfalls",
    "table_of_evidence",
    "table_on_disk",
    "train_master",
    "train_network_into",
    "train_selected",
    "unmet_budgets",
    "validate_predictions",
    "write_report",
]


def run(job: Job, runner: OpenRunner = open_runner, trainer: OpenRunner = open_runner, any_master: bool = False) -> Outcomes:
    """From a recipe to trained and exported networks; `runner` opens who runs the trials, `trainer` who runs the race.

    For `any_master` see `distill`.
    """
    check(job)
    profile(job)
    train_master(job)
    distill(job, runner, any_master=any_master)
    fit_trials(job)
    select(job)
    outcomes = race(job, trainer)
    export_selected(job)
    write_report(job)
    return outcomes
