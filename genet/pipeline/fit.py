"""Fit: the regression of accuracy on the trials, kept until they or the MasterNet change."""

from __future__ import annotations

from genet.config.recipe import RegressionModel
from genet.names import counted
from genet.pipeline.context import RunContext
from genet.pipeline.distill import finished_trials, planned_trials
from genet.search.fit import fit
from genet.search.outcome import TrainedNetwork
from genet.search.regression import Regression
from genet.storage import digest

WITHOUT: dict[RegressionModel, str] = {
    "auto": "slopes that all super-blocks share stand in for the rest",
    "paper": "many slopes fit, and the smallest are taken; --model auto shares slopes among super-blocks",
}


def fit_trials(job: RunContext, model: RegressionModel | None = None) -> Regression:
    """Fit the regression to the trials in the journal, and report missing evidence; the recipe's model if none is named."""
    regression = _fitted(job, model or job.recipe.fit.model)
    missing = len(planned_trials(job)) - len(finished_trials(job))
    if missing:
        job.progress.say(f"  {counted(missing, 'planned trial')} left to run; `genet distill RUN` runs them")
    if regression.lacking:
        job.progress.say(f"  too few finished trials of {regression.lacking}: {WITHOUT[regression.model]}")
    regression.save(job.folder.regression)
    return regression


def current_regression(job: RunContext) -> Regression:
    """Return the run's regression; fitted again, and not saved, if its trials or the MasterNet have changed since."""
    known = job.folder.read(job.folder.regression, Regression)
    return known if known.inputs == _evidence_digest(job, known.model) else _fitted(job, known.model)


def _fitted(job: RunContext, model: RegressionModel) -> Regression:
    trained = job.folder.read(job.folder.master, TrainedNetwork)
    inputs = _evidence_digest(job, model)
    with job.progress.awake("fitting the regression"):
        return fit(job.masternet, trained.nas_accuracy, finished_trials(job), trained.nas_images, model, inputs)


def _evidence_digest(job: RunContext, model: RegressionModel) -> str:
    master = job.folder.read(job.folder.master, TrainedNetwork)
    found = ((result.id, result.accuracy) for result in finished_trials(job))
    return digest(f"{model}/{master.inputs}/{master.nas_accuracy}/{sorted(found, key=str)}")
