"""Export: a trained network in every format, each loaded again and compared, with the card that holds the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genet.choose.outcome import Outcomes, Trained
from genet.errors import RunError
from genet.export.exports import FORMATS, check_formats, export
from genet.export.format import Subject
from genet.export.record import Exports
from genet.files import write_atomic
from genet.job import Job
from genet.nets.build import GENet
from genet.nets.data import Splits, load_data
from genet.nets.weights import WEIGHTS_FILE, load, load_weights
from genet.progress import Progress, Tracker
from genet.report.card import Card, card
from genet.spec.network import Network
from genet.spec.reader import read_training, to_yaml
from genet.spec.recipe import Data


def export_selected(job: Job, formats: Sequence[str] = (), name: str | None = None) -> tuple[Path, ...]:
    """Export the network of every budget, or the one of this name, in the formats named or in all.

    RunError where no trained network is called so.
    """
    check_formats(formats)
    outcomes = job.folder.read(job.folder.results, Outcomes)
    folders = {outcome.export: outcome for outcome in outcomes.outcomes if name in (None, outcome.name, outcome.network)}
    if not folders:
        names = ", ".join(dict.fromkeys(outcome.name for outcome in outcomes.outcomes))
        raise RunError(f"--network must be one of the trained networks, {names or 'of which there is none'} (got {name!r})")
    with job.progress.track("exports, each loaded again and compared", len(folders) * len(formats or FORMATS)) as tracker:
        for number, (place, first) in enumerate(folders.items()):
            folder = (job.folder.path / place).parent
            tracker.resume_at(number * len(formats or FORMATS))
            network = Network.parse(first.network, name=first.name)
            exports = _exported(load_weights(network, folder / WEIGHTS_FILE), folder, formats, job.splits, tracker)
            facts = Card(
                network,
                exports,
                data=job.recipe.data.name,
                training=to_yaml(job.recipe.train),
                trained=Trained.load(folder / "model.json"),
                outcomes=outcomes,
                answers=tuple(outcome for outcome in outcomes.outcomes if outcome.export == place),
            )
            write_atomic(folder / "card.md", card(facts).encode())
    return tuple(job.folder.path / place for place in folders)


def export_folder(folder: Path, formats: Sequence[str], data: Data | None, progress: Progress) -> Exports:
    """Export the network in a folder of its own; on the images given, or those it was trained on where its recipe is there."""
    check_formats(formats)
    if not (folder / WEIGHTS_FILE).exists():
        raise RunError(
            f"{folder}: must hold trained weights, and holds a network alone; `genet train {folder}/network.yaml --recipe RECIPE "
            f"--into {folder}` trains it"
        )
    module = load(folder)
    network = module.network
    recipe = read_training(folder / "recipe.yaml") if (folder / "recipe.yaml").exists() else None
    images = data or (recipe.data if recipe else None)
    splits = load_data(images, network.input, recipe.seed if recipe else 0) if images else None
    with progress.track("exports, each loaded again and compared", len(formats or FORMATS)) as tracker:
        exports = _exported(module, folder, formats, splits, tracker)
    facts = Card(
        network,
        exports,
        data=images.name if images else None,
        training=to_yaml(recipe.train) if recipe else None,
        trained=Trained.load(folder / "model.json") if (folder / "model.json").exists() else None,
    )
    write_atomic(folder / "card.md", card(facts).encode())
    return exports


def _exported(module: GENet, folder: Path, formats: Sequence[str], splits: Splits | None, tracker: Tracker) -> Exports:
    subject = Subject(module, splits.train if splits else None)
    return export(subject, folder / "export", formats, splits.test if splits else None, tracker.advance)
