"""`genet export`: trained networks in the formats of other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path

from genet.cli.console import Answer, progress, say_untimed, table
from genet.config.reader import read_training
from genet.config.recipe import Data, Recipe
from genet.errors import GenetError
from genet.export.exports import check_formats
from genet.export.manifest import EVIDENCE_FILE, Exports
from genet.latency.noise import with_interval
from genet.models.weights import NETWORK_FILE
from genet.names import quoted
from genet.pipeline.context import open_run
from genet.pipeline.export import export_folder, export_selected
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.shortfalls import unmet_budgets
from genet.search.outcome import percent
from genet.storage import FolderLock, remove_temporary
from genet.training.inventory import images_in, images_named


def run(arguments: argparse.Namespace) -> Answer:
    """Export the networks of a run, or the one in a folder."""
    what, formats = arguments.what, tuple(arguments.format or ())
    check_formats(formats)
    if (what / EVIDENCE_FILE).exists():
        raise GenetError(
            f"{what}: got an export, expected the folder of the trained network; genet export {quoted(what.parent)} adds formats"
        )
    if not ((what / NETWORK_FILE).exists() or RunFolder(what).recipe_file.exists()):
        raise GenetError(
            f"{what}: got a folder without recipe.yaml or network.yaml, expected a run folder or the folder of a trained "
            "network; name another"
        )
    if RunFolder(what).results.exists() or not (what / NETWORK_FILE).exists():
        with open_run(what, progress(), _with_images(what, arguments.data) if arguments.data else None) as job:
            folders = export_selected(job, formats, arguments.network)
            unmet = () if arguments.network else unmet_budgets(job.folder)
    elif what.absolute().parent.name == "networks" and RunFolder(what.absolute().parent.parent).recipe_file.exists():
        run = quoted(what.parent.parent)
        raise GenetError(
            f"{what}: got a network inside a run, expected the run, which knows its images; genet export {run} --network "
            f"{quoted(Path(what.name))}"
        )
    elif arguments.network:
        raise GenetError(f"--network: got {what}, which holds a single network, expected a run folder; leave it out")
    else:
        with FolderLock(what):
            remove_temporary(what)
            export_folder(what, formats, _images_for(what, arguments.data) if arguments.data else None, progress())
        folders, unmet = (what / "export",), ()
    found = [Exports.load(folder / EVIDENCE_FILE) for folder in folders]
    for folder, exports in zip(folders, found, strict=True):
        _print_exports(folder, exports)
    return {
        "exports": [str(folder) for folder in folders],
        "formats": {str(folder): each.model_dump(mode="json") for folder, each in zip(folders, found, strict=True)},
        "met": bool(folders) or not unmet,
        "shortfalls": (*unmet, *(line for each in found for line in each.failures if not formats)),
    }


def _with_images(run: Path, folder: str) -> Recipe:
    """Return a run's recipe, with its images now in this folder."""
    recipe = RunFolder(run).recipe()
    if recipe.data.name == "digits":
        raise GenetError(f"--data: got {run}, a run on digits, expected a run on a folder of images; leave it out")
    return recipe.model_copy(update={"data": images_in(recipe.data, folder)})


def _images_for(folder: Path, named: str) -> Data:
    """Return the named images, split like those that the network in the folder was trained on."""
    file, images = folder / "recipe.yaml", images_named(named)
    trained_on = read_training(file).data if file.exists() else images
    return images if "digits" in (images.name, trained_on.name) else images_in(trained_on, named)


def _print_exports(folder: Path, exports: Exports) -> None:
    serving = exports.serving
    print(folder if serving is None else f"{folder}\n  latencies: {serving.setting}")
    rows = [
        [
            each.format,
            next(reversed(each.files)),
            f"{max(each.relative_error):.1e}",
            "" if each.accuracy is None else percent(each.accuracy),
            with_interval(serving.ms_per_image(each.format) if serving else None),
        ]
        for each in exports.exported
    ]
    table(["format", "file", "logits differ by", "test accuracy", "ms/image"], rows)
    if serving:
        say_untimed(serving)
    for name, why in exports.left_out.items():
        print(f"  {name} is left out: {why}")
