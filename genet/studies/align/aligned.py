"""The alignment of a network in one call: a module, or a network by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genet.arch.external import FUNCTION, ExternalModel, ModelSpec
from genet.arch.network import Input, Network, legal_name
from genet.config.options import faults_name_arguments
from genet.errors import EvidenceError, GenetError, SpecError
from genet.export.timm_form import timm_preprocessing
from genet.latency.naming import structure_named, weights_of
from genet.latency.timing.meter import meter_of
from genet.latency.workload import example_shape
from genet.models.external import count_logits
from genet.models.fingerprint import fingerprint
from genet.models.plain import own_copy, with_plain_weights
from genet.pipeline.run_folder import RunFolder
from genet.progress import SILENT, Progress, on_screen
from genet.studies.align import TOLERANCE
from genet.studies.align.kept import KeptWeights, SourceNetwork, by_norm, kept_with_images, source_of
from genet.studies.align.module_subject import ModuleSubject, ResizableNetwork
from genet.studies.align.objective import ObjectiveMode
from genet.studies.align.prune import Pruning
from genet.studies.align.steps import EVIDENCE, align_by_paper, measure_for, places_of, prune_to_share, rows_of, run_of
from genet.studies.align.study import Alignment, Goal, Solver
from genet.studies.align.subject import NetworkSubject, Scope
from genet.studies.align.verdict import final_alignment, goal_faults, has_useful_edge, importance_faults, no_edge
from genet.training.inventory import images_named


@dataclass(frozen=True)
class Aligned:
    """An aligned network. Latencies are milliseconds per batch, timed in turn.

    `network` is its record, `found` holds all figures, and `shortfall` tells why a target was not met. `module` has the weights
    that were kept, in eval mode, on the device and in the number format of the given module's first parameter; None for a network
    of super-blocks, which is trained anew, and for a name without weights.
    """

    network: ModelSpec
    module: nn.Module | None
    found: Alignment | Pruning
    shortfall: str = ""

    def __repr__(self) -> str:
        ms = f"{self.before_ms:.4g} to {self.ms:.4g} ms per batch, ratio {self.ratio:.3f}"
        missed = f", {self.shortfall}" if self.shortfall else ""
        return f"Aligned({self.network.name}: {ms}, {len(self.widths)} widths{missed})"

    @property
    def widths(self) -> dict[str, int]:
        """The new widths, by the name of the first layer of each group."""
        return dict(self.found.widths)

    @property
    def before_ms(self) -> float:
        """The latency before."""
        return self.found.measured.before_ms

    @property
    def ms(self) -> float:
        """The latency after."""
        return self.found.measured.ms

    @property
    def ratio(self) -> float:
        """The latency after over that before, the mean of all rounds."""
        return self.found.measured.mean


@faults_name_arguments()
def align(
    network: nn.Module | str | Path,
    example: Tensor | None = None,
    *,
    mode: ObjectiveMode = "latency",
    target_ratio: float | None = None,
    param_tolerance: float = TOLERANCE,
    solver: Solver = "greedy",
    data: str | Path | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    evidence: str | Path = EVIDENCE,
    quiet: bool = True,
    **setting: Any,
) -> Aligned:
    """Move a network's widths to the edges of the device's latency staircase, as `genet align` does.

    `network` is a module with an `example` batch (images, channels, height, width), which is not changed, or a name as on the
    command line. The options are those of `genet align`; with `data`, a folder of images or `digits`, the most important channels
    and blocks are kept at `target_ratio`. `setting` holds the keys of a recipe's `measure`. Measurements are kept in
    `evidence`. EvidenceError if no other widths are certain to be better.
    """
    goal, scope = Goal(mode, target_ratio, param_tolerance, solver), Scope(_patterns(include), _patterns(exclude))
    faults = [*goal_faults(goal, str), *(importance_faults(goal, "data", str) if data is not None else ())]
    if faults:
        raise SpecError(faults)
    progress = SILENT if quiet else on_screen()
    if isinstance(network, str | Path):
        start = _named(str(network), example, scope, data is not None)
    else:
        start = _module(network, example, scope)
    scope.check(start.subject.layers, str)
    kept = _kept(start, data, progress)
    meter = meter_of(measure_for({**start.setting, **setting}, start.run, str))
    rows = rows_of(Path(evidence), meter, start.run, progress)
    if kept is not None and kept.importance is not None and target_ratio is not None:
        pruned = prune_to_share(kept, rows, meter, target_ratio, progress, str)
        module = kept.renewed(kept.build(pruned.widths, pruned.removed))
        return Aligned(_described(kept.subject, module, pruned.removed), start.as_given(module), pruned)
    places = places_of(start.subject, rows, meter, progress)
    if not has_useful_edge(places, goal):
        raise EvidenceError(no_edge(start.subject, goal, meter))
    found = align_by_paper(start.subject, places, meter, goal, progress)
    found, why = final_alignment(found, start.subject, goal, meter, spelled=str)
    if kept is None:
        assert isinstance(start.subject, NetworkSubject)
        structure = start.subject.at(found.widths)
        return Aligned(structure.model_copy(update={"name": f"{start.subject.name}-aligned"}), None, found, why)
    module = kept.build(found.widths)
    return Aligned(_described(kept.subject, module), start.as_given(module) if start.weighted else None, found, why)


@dataclass(frozen=True)
class _AlignInput:
    """The network to align, the origin of its weights, and what it says of measuring.

    It is `weighted` if its weights are worth handing out, and `like` is a parameter of the module that was given.
    """

    subject: ResizableNetwork
    source: SourceNetwork | None = None
    weighted: bool = False
    like: Tensor | None = None
    run: RunFolder | None = None
    setting: dict[str, Any] = field(default_factory=dict)

    def as_given(self, module: nn.Module) -> nn.Module:
        """Return a module on the device and in the number format of the one given; it was cut on the processor in fp32."""
        return module if self.like is None else module.to(self.like.device, self.like.dtype)


def _named(what: str, example: Tensor | None, scope: Scope, trained: bool) -> _AlignInput:
    """Return a network by its name, with trained weights if they are needed."""
    if example is not None:
        raise GenetError(f"aligning {what} failed: got an example, expected none beside a name; give batch=N")
    if re.fullmatch(FUNCTION, what) and not what.startswith("timm:"):
        raise GenetError(f"aligning {what} failed: got the name of a function, expected its network; give that and an example")
    structure, run = structure_named(what), run_of(what)
    if isinstance(structure, Network):
        if trained:
            raise SpecError(
                [
                    "data: got a network of super-blocks, which is trained from scratch, expected an external model, which keeps "
                    "its weights; leave it out"
                ]
            )
        return _AlignInput(NetworkSubject(structure, scope), run=run)
    source = source_of(what, structure, trained, "the module itself with its weights")
    subject = ModuleSubject(structure, source.module, scope=scope)
    return _AlignInput(subject, source, trained or weights_of(what) is not None, run=run)


def _module(network: nn.Module, example: object, scope: Scope) -> _AlignInput:
    """Return a copy of a module, told apart from others of its class by its answer to a fixed image."""
    own = own_copy(network, "aligning a module")
    batch, channels, size, _ = example_shape(example, "aligning a module", square=True)
    kind = type(network)
    name = legal_name(kind.__name__)
    module = with_plain_weights(own, name).eval()
    input_ = Input(channels=channels, classes=count_logits(module, (channels, size, size), name), resolution=size)
    try:
        word = fingerprint(module, size, channels)
    except Exception:  # it fails with other weights than its own
        word = None
    structure = ExternalModel(name=name, source=f"{kind.__module__}:{kind.__name__}", computes=word, input=input_)
    preprocessing = timm_preprocessing(module) if getattr(module, "pretrained_cfg", None) else None
    source = SourceNetwork(module, getattr(network, "labels", None), preprocessing)
    like = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), None)
    return _AlignInput(ModuleSubject(structure, module, scope=scope), source, weighted=True, like=like, setting={"batch": batch})


def _kept(start: _AlignInput, data: str | Path | None, progress: Progress) -> KeptWeights | None:
    """Return what is kept of the weights; None for a network of super-blocks."""
    if start.source is None or not isinstance(start.subject, ModuleSubject):
        return None
    if data is None:
        return KeptWeights(start.subject, by_norm(start.subject))
    return kept_with_images(start.subject, start.source, images_named(str(data)), "taylor", progress)


def _described(subject: ModuleSubject, module: nn.Module, removed: Sequence[str] = ()) -> ExternalModel:
    return subject.described(module, f"{subject.name}-aligned", removed=removed)


def _patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
