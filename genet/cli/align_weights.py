"""The weights of an aligned network: their origin, the part of them that a cut keeps, and the accuracy they reach."""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from genet.arch.external import ExternalModel
from genet.cli.console import progress
from genet.cli.naming import images_named, weights_of
from genet.device import open_device
from genet.errors import GenetError, SpecError
from genet.export.timm_form import shown_to
from genet.models.external import build_structure, pretrained
from genet.models.weights import load_structure, read_labels
from genet.studies.align.criteria import CRITERIA, Scores, kept_channels, norms, ranks
from genet.studies.align.module_subject import ModuleSubject
from genet.studies.align.subject import Widths
from genet.training.data import load_data, load_test
from genet.training.evaluation import EVALUATION_BATCH, top
from genet.training.images import ImageSet

RANK_IMAGES = 500  # images that the ranks of feature maps are averaged over


def source_of(arguments: argparse.Namespace, structure: ExternalModel) -> nn.Module:
    """Return the network with its weights: those beside its file, its function's or timm's.

    Use fresh ones if the weights are not needed, or with --untrained. GenetError if there are no trained ones.
    """
    weights = weights_of(arguments.what)
    if weights:
        return load_structure(structure, weights)
    timms = structure.source.startswith("timm:")
    if arguments.untrained or not (arguments.into or arguments.data) or not (timms or structure.layers):
        return build_structure(structure)
    module, without = (None, "none lie beside it") if structure.layers else pretrained(structure)
    if module is None or without:
        raise GenetError(
            f"{arguments.what}: got no trained weights ({without}), expected some, of which the best are kept; give a folder "
            "with network.yaml and model.safetensors, or --untrained for fresh ones"
        )
    return module


@dataclass(frozen=True)
class Kept:
    """A builder of the network with other widths, the images to measure its accuracy on, if any, and its labels.

    `labels` are the names of its classes, if they lie beside its weights.
    """

    subject: ModuleSubject
    scores: Callable[[nn.Module], Scores]
    images: ImageSet | None
    labels: tuple[str, ...] | None = None

    def build(self, new: Widths) -> nn.Module:
        """Build the network with new widths: the channels of the best filters are kept, and new ones change no answer."""
        subject, widths = self.subject, {**self.subject.cut, **new}
        return subject.build(widths, kept_channels(subject.tied, widths, self.scores(subject.source)))

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


def kept(arguments: argparse.Namespace, subject: ModuleSubject) -> Kept:
    """Return what happens to its weights; images needed for that are looked for at once, before anything is measured."""
    weights, reads = weights_of(arguments.what), subject.network.input
    labels = read_labels(weights.parent) if weights else None
    if not arguments.data:
        return Kept(subject, _criterion(arguments, subject), None, labels)
    data = images_named(arguments.data)
    theirs = not weights and subject.network.source.startswith("timm:")
    images = load_test(data, reads, shown_to(subject.source) if theirs else None, labels, progress().say)
    return Kept(subject, _criterion(arguments, subject), images, labels)


def _criterion(arguments: argparse.Namespace, subject: ModuleSubject) -> Callable[[nn.Module], Scores]:
    """Return the criterion by which a cut keeps channels."""
    if arguments.criterion != "rank":
        return lambda weights: norms(weights, CRITERIA.index(arguments.criterion) + 1)
    if not arguments.data:
        raise SpecError(["--criterion rank must have images to look at: give --data FOLDER (got none)"])
    reads = subject.network.input
    splits = load_data(images_named(arguments.data), reads, 0, say=progress().say)
    batches = splits.train.batches(min(RANK_IMAGES, splits.train.size), reads.resolution, shuffle_seed=0)
    images = next(batches)[0]
    return lambda weights: ranks(weights, images)
