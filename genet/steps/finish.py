"""Train and report: from the selection to trained networks, and the page that tells how they came about."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from genet.choose.certificate import Choice, Selection
from genet.choose.fidelity import Validation
from genet.choose.outcome import Outcome, Outcomes, Trained
from genet.errors import RunError
from genet.files import Record, digest, write_atomic
from genet.job import Job
from genet.latency.plan import Staircases, grid_rows
from genet.nets.weights import write_labels
from genet.nets.world import ALONE, World
from genet.report.page import Story, page
from genet.runfolder import RunFolder, network_name
from genet.spec.cost import network_cost
from genet.spec.network import Network
from genet.spec.reader import to_yaml
from genet.steps.distill import finished_trials
from genet.steps.explain import explanations
from genet.steps.learn import current_regression, train_network
from genet.steps.select import frontiers, table_on_disk
from genet.studies.survey.roof import RunRoof

R = TypeVar("R", bound=Record)


def train_selected(job: Job, world: World = ALONE) -> Outcomes:
    """Train every selected network from scratch; per budget the resolution that is best after training wins.

    The images held out for the search decide which is best; the test images only tell how good it is.
    """
    selection = job.folder.read(job.folder.selection, Selection)
    masternet = job.folder.read(job.folder.master, Trained)
    inputs = digest(f"{selection.model_dump_json()}/{masternet.inputs}/{job.recipe.train.model_dump_json()}")
    known = job.folder.read_current(job.folder.results, Outcomes, inputs)
    if known:
        return known
    networks = [Network.parse(notation, name=job.recipe.space.name) for notation in _chosen(selection)]
    trained = {network: _trained(job, network, world) for network in networks}
    outcomes = []
    for budget in job.recipe.select.budgets:
        choices = [choice for choice in selection.answers if choice.budget == budget]
        if choices:
            outcomes.append(max((_outcome(job, choice, trained) for choice in choices), key=lambda o: o.nas_accuracy))
    found = Outcomes(
        inputs=inputs,
        setting=selection.setting,
        masternet=masternet,
        masternet_ms_per_image=selection.masternet_ms_per_image,
        outcomes=tuple(outcomes),
    )
    if world.first:
        found.save(job.folder.results)
    return found


def train_one_selected(job: Job, name: str, world: World = ALONE) -> Trained:
    """Train one of the selected networks, by its name or notation; RunError where none is called so."""
    selection = job.folder.read(job.folder.selection, Selection)
    networks = [Network.parse(notation, name=job.recipe.space.name) for notation in _chosen(selection)]
    for network in networks:
        if name in (network_name(network), str(network)):
            return _trained(job, network, world)
    names = ", ".join(map(network_name, networks))
    raise RunError(f"--network must be one of the selected networks, {names or 'of which there is none'} (got {name!r})")


def _chosen(selection: Selection) -> list[str]:
    """The networks to train, each once, though two budgets may have chosen the same."""
    return list(dict.fromkeys(choice.network for choice in selection.answers))


def _trained(job: Job, network: Network, world: World) -> Trained:
    folder = job.folder.network(network)
    if world.first:
        write_atomic(folder / "network.yaml", to_yaml(network).encode())
        write_labels(folder, job.splits.labels)
    return train_network(job, network, job.recipe.train, folder / "model.json", f"training {network_name(network)}", world)


def _outcome(job: Job, choice: Choice, trained: dict[Network, Trained]) -> Outcome:
    network = Network.parse(choice.network, name=job.recipe.space.name)
    cost, result = network_cost(network), trained[network]
    return Outcome(
        budget=choice.budget,
        budget_ms_per_image=choice.budget_ms_per_image,
        name=network_name(network),
        network=choice.network,
        resolution=choice.resolution,
        predicted_accuracy=choice.predicted_accuracy,
        nas_accuracy=result.nas_accuracy,
        test_accuracy=result.test_accuracy,
        predicted_ms_per_image=choice.predicted_ms_per_image,
        measured_ms_per_image=choice.measured_ms_per_image,
        interval_ms_per_image=choice.interval_ms_per_image,
        parameters=cost.parameters,
        macs=cost.macs,
        export=str(job.folder.network(network).relative_to(job.folder.path) / "export"),
    )


def write_report(job: Job) -> Path:
    """One self-contained page about the whole run; what is not there yet is left out."""
    files, table = job.folder, table_on_disk(job)
    selection, validation = _if_there(files, files.selection, Selection), _if_there(files, files.validation, Validation)
    regression = current_regression(job) if files.regression.exists() else None
    roof = files.read_current(files.roof, RunRoof, table.setting.digest)
    story = Story(
        recipe=job.recipe,
        setting=table.setting,
        measurements=len(table),
        grid_rows=grid_rows(job.recipe.space),
        staircases=files.read(files.staircase, Staircases),
        masternet=_if_there(files, files.master, Trained),
        trials=finished_trials(job),
        regression=regression,
        fronts=frontiers(job, table) if files.regression.exists() else {},
        selection=selection,
        roof=roof.roof if roof else None,
        explanations=explanations(job, selection, table) if selection else (),
        validation=validation if validation and regression and validation.inputs == regression.inputs else None,
        outcomes=_if_there(files, files.results, Outcomes),
    )
    write_atomic(files.report, page(story).encode())
    return files.report


def _if_there(files: RunFolder, path: Path, record: type[R]) -> R | None:
    return files.read(path, record) if path.exists() else None
