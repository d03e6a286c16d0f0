"""The weights of an aligned network: their origin, the part of them that a cut keeps, and the accuracy they reach."""

from __future__ import annotations

import argparse
import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from genet.arch.external import ExternalModel
from genet.cli.console import progress
from genet.cli.images import images_named
from genet.cli.naming import weights_of
from genet.device import open_device
from genet.errors import GenetError, SpecError
from genet.export.timm_form import shown_to
from genet.models.external import build_structure, pretrained
from genet.models.weights import drawn_anew, load_structure, read_labels
from genet.search.outcome import percent
from genet.studies.align.criteria import CRITERIA, Scores, kept_channels, norms, ranks
from genet.studies.align.importance import AT_ONCE, IMAGES, Importance, importance_of
from genet.studies.align.module_subject import ModuleSubject
from genet.studies.align.renewal import renewed
from genet.studies.align.subject import Widths
from genet.training.data import load_data, load_test
from genet.training.evaluation import EVALUATION_BATCH, top
from genet.training.images import FirstImages, ImageSet, View

RANK_IMAGES = 500  # images that the ranks of feature maps are averaged over
Answer = dict[str, Any]
LOOKS = ("rank", "taylor")  # criteria that look at images


def source_of(arguments: argparse.Namespace, structure: ExternalModel) -> nn.Module:
    """Return the network with its weights: those beside its file, its function's or timm's.

    Use fresh ones if the weights are not needed, or with --untrained. GenetError if there are no trained ones.
    """
    weights = weights_of(arguments.what)
    if weights:
        return load_structure(structure, weights)
    timms = structure.source.startswith("timm:")
    if arguments.untrained or not (arguments.into or arguments.data) or not (timms or structure.changed):
        return build_structure(structure)
    module, without = (None, "none lie beside it") if structure.changed else pretrained(structure)
    if module is None or without:
        raise GenetError(
            f"{arguments.what}: got no trained weights ({without}), expected some, of which the best are kept; give a folder "
            "with network.yaml and model.safetensors, or --untrained for fresh ones"
        )
    return module


@dataclass(frozen=True)
class Kept:
    """A builder of the network with other widths, the images to measure its accuracy on, if any, and its labels.

    `labels` are the names of its classes, if they lie beside its weights. `importance` is measured at its first call, on training
    images, and `renewed` takes statistics anew from them.
    """

    subject: ModuleSubject
    scores: Scores
    images: ImageSet | None
    labels: tuple[str, ...] | None = None
    importance: Callable[[], Importance] | None = None
    renewed: Callable[[nn.Module], nn.Module] = lambda module: module

    def build(self, new: Widths, removed: Sequence[str] = ()) -> nn.Module:
        """Build the network with new widths: the best channels are kept, and new ones change no answer."""
        subject, widths = self.subject, {**self.subject.cut, **new}
        return subject.build(widths, kept_channels(subject.tied, widths, self.scores), removed)

    def accuracy(self, module: nn.Module, resolution: int | None = None) -> float:
        """Return the accuracy on the test images, by the device that this machine computes fastest on."""
        assert self.images is not None
        device, size = open_device("auto"), resolution or self.subject.resolution
        answering = copy.deepcopy(module).to(device).eval()
        with progress().track("test images", math.ceil(self.images.size / EVALUATION_BATCH)) as tracker:

            def answers(pixels):  # type: ignore[no-untyped-def]
                tracker.advance()
                return answering(pixels)

            return top(answers, (1,), self.images, size, device)[0]

    def compared(self, module: nn.Module, before: float, resolution: int | None = None) -> Answer:
        """Return the accuracy before, and that of a network built of its weights, untrained as it is."""
        after = self.accuracy(module, resolution)
        print(f"accuracy: {percent(before)} -> {percent(after)} of the test images, before it is trained on")
        return {"accuracy": [before, after]}


def kept(arguments: argparse.Namespace, subject: ModuleSubject) -> Kept:
    """Return what happens to its weights; images needed for that are looked for at once, before anything is measured."""
    weights, reads = weights_of(arguments.what), subject.network.input
    labels = read_labels(weights.parent) if weights else None
    if not arguments.data:
        if arguments.criterion in LOOKS:
            raise SpecError([f"--criterion {arguments.criterion} must have images to look at: give --data FOLDER (got none)"])
        return Kept(subject, _norms(arguments, subject), None, labels)
    data = images_named(arguments.data)
    theirs = not weights and subject.network.source.startswith("timm:")
    shown = shown_to(subject.source) if theirs else None
    images = load_test(data, reads, shown, labels, progress())
    if arguments.criterion not in LOOKS and arguments.objective != "importance":
        return Kept(subject, _norms(arguments, subject), images, labels)
    splits = load_data(data, reads, 0, View(shown=shown), labels=labels, progress=progress())
    if arguments.criterion == "rank":
        return Kept(subject, _ranks(subject, splits.train), images, labels)
    if not (weights or theirs) and drawn_anew(subject.source, subject.network):
        raise GenetError(
            f"{arguments.what}: got weights that are drawn anew at every call, expected trained ones, whose channels differ in "
            "importance; give a folder with network.yaml and model.safetensors"
        )
    some = FirstImages(splits.train.shuffled(0), min(IMAGES, splits.train.size))
    importance = _importance(subject, some)
    again = functools.partial(renewed, images=some, resolution=subject.resolution, device=open_device("auto"))
    return Kept(subject, lambda group: importance().of(group), images, labels, importance, again)


def _norms(arguments: argparse.Namespace, subject: ModuleSubject) -> Scores:
    return norms(subject.source, CRITERIA.index(arguments.criterion) + 1)


def _ranks(subject: ModuleSubject, images: ImageSet) -> Scores:
    batches = images.batches(min(RANK_IMAGES, images.size), subject.resolution, shuffle_seed=0)
    found = functools.cache(lambda: ranks(subject.source, next(batches)[0]))
    return lambda group: found()(group)


def _importance(subject: ModuleSubject, images: FirstImages) -> Callable[[], Importance]:
    """Return a function that measures the importance of all channels and blocks, once."""

    @functools.cache
    def measured() -> Importance:
        with progress().track("training images, for the importance of channels", math.ceil(images.size / AT_ONCE)) as tracker:
            return importance_of(subject, images, open_device("auto"), tracker)

    return measured
