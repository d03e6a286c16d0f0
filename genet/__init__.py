"""genet designs convolutional networks for your device and your latency budget.

- `design(DATA, BUDGET)`: networks for a folder of images and a latency budget: the whole job, as a `Run`.
- `Run(FOLDER)`: the tables of a run: outcomes, networks, trials, latencies.
- `align(MODULE, EXAMPLE)`: a network that you have, with its widths at the edges of the device's staircase.
- `load(FOLDER)`: a trained network, with its labels, its preprocessing and its card.
- `measure_latency(NETWORK)`: a latency on this machine, or an estimate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genet.latency.report import LatencyReport
    from genet.pipeline.design import design
    from genet.pipeline.run_tables import Run
    from genet.studies.align.aligned import align

__version__ = "0.1.0"
__all__ = ["Run", "align", "design", "load", "measure_latency"]

_FOUND_IN = {"Run": "genet.pipeline.run_tables", "align": "genet.studies.align.aligned", "design": "genet.pipeline.design"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the command line starts without what it needs."""
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'genet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FOUND_IN[name]), name)


def __dir__() -> list[str]:
    """Return the public names, those that are not imported yet among them."""
    return [*__all__, "__version__"]


def load(folder: str | Path) -> nn.Module:
    """Return the trained network in a folder, such as `runs/NAME/networks/NAME/export`, as a torch module in eval mode.

    It has `labels`, the names of its classes in the order of its logits (None if they are unknown), `preprocess`, which makes
    a batch of image files or images of Pillow, and `card`, its card as text (None if there is none). GenetError if the folder
    holds no network, as that of a run, whose networks it names.
    """
    from genet.models.external import structure_of  # torch is imported only when a network is asked for
    from genet.models.weights import load as load_network
    from genet.models.weights import read_labels
    from genet.training.pixels import Preprocess

    module, place = load_network(folder), Path(folder)
    cards = [file for file in (place / "card.md", place.parent / "card.md") if file.is_file()]
    object.__setattr__(module, "labels", read_labels(place))
    object.__setattr__(module, "preprocess", Preprocess(structure_of(module).input))
    object.__setattr__(module, "card", cards[0].read_text(encoding="utf-8") if cards else None)
    return module


def measure_latency(network: nn.Module | str | Path, example: Tensor | None = None, **setting: Any) -> LatencyReport:
    """Measure a network's latency on this machine, whole and by layer, as `genet latency` does.

    `network` is a module with an `example` batch (images, channels, height, width), or a name as on the command line:
    `timm:resnet50`, a folder, a notation. `setting` holds the keys of a recipe's `measure`: device, runtime, dtype,
    memory_format, batch (that of the example). GenetError if it cannot be measured.
    """
    from genet.config.options import checked_measure, faults_name_arguments, standalone_measure
    from genet.errors import GenetError
    from genet.latency.report import report_latency
    from genet.latency.timing.meter import meter_of
    from genet.latency.workload import example_shape, read_workload, traced_workload
    from genet.models.plain import own_copy

    with faults_name_arguments():
        if isinstance(network, str | Path):
            if example is not None:
                raise GenetError(f"timing {network} failed: got an example, expected none beside a name; give batch=N")
            return report_latency(read_workload(str(network)), meter_of(standalone_measure(checked_measure(setting, str))))
        kind, doing = type(network).__name__, "timing a module"
        own_copy(network, doing)  # later copies succeed if this one does
        batch, *image = example_shape(example, doing)
        shape = (image[0], image[1], image[2])
        part = traced_workload(kind, shape, lambda: own_copy(network, doing), "give an example that it reads")
        part.ops()  # whether it runs at all, before anything is timed
        return report_latency(part, meter_of(standalone_measure(checked_measure({"batch": batch, **setting}, str))))
