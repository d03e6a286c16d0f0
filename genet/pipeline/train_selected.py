"""Train selected networks by hand, before the race that would train them."""

from __future__ import annotations

from genet.arch.external import ModelSpec, read_notation
from genet.arch.network import Network
from genet.config.reader import to_yaml
from genet.errors import RunError
from genet.models.weights import write_labels
from genet.pipeline.context import RunContext
from genet.pipeline.master import parent_of, train_unless_done, training_spec
from genet.pipeline.run_folder import network_name
from genet.search.certificate import Selection
from genet.search.outcome import TrainedNetwork
from genet.search.race import Entrants
from genet.storage import write_atomic
from genet.training.distributed import SINGLE_PROCESS, ProcessGroup


def train_selected(job: RunContext, name: str | None = None, world: ProcessGroup = SINGLE_PROCESS) -> dict[str, TrainedNetwork]:
    """Train the selected networks, or the one of this name or notation, so that the race finds them trained.

    Returns them by name. RunError if none has this name, or none was selected.
    """
    selection = job.folder.read(job.folder.selection, Selection)
    networks: dict[str, ModelSpec] = {  # two budgets may share one
        choice.network: Network.parse(choice.network, name=job.recipe.space.name) for choice in selection.answers
    }
    if job.folder.entrants.exists():
        entrants = job.folder.read(job.folder.entrants, Entrants).racing
        others = {each.network: read_notation(each.network, each.design or job.recipe.space.name) for each in entrants}
        networks = others | networks if name else networks
    chosen = [network for network in networks.values() if name in (None, network_name(network), str(network))]
    if not networks:
        raise RunError(
            f"training {name or 'the selected networks'} failed: got a run without selected networks, as none was certified to "
            "be within a budget, expected at least one; see `genet select RUN`"
        )
    if not chosen:
        names = ", ".join(map(network_name, networks.values()))
        raise RunError(f"training {name} failed: got no such network, expected one of {names}")
    return {network_name(network): _trained(job, network, world) for network in chosen}


def _trained(job: RunContext, network: ModelSpec, world: ProcessGroup) -> TrainedNetwork:
    folder = job.folder.network(network)
    if world.first:
        write_atomic(folder / "network.yaml", to_yaml(network).encode())
        write_labels(folder, job.splits.labels)
    parent = parent_of(job)
    spec = training_spec(job, network, job.recipe.train, parent=parent)
    return train_unless_done(job, spec, folder / "model.json", f"training {network_name(network)}", parent, world)
