"""The weights of an aligned network: their origin, the part of them that a cut keeps, and the accuracy they reach."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from genet.arch.external import ExternalModel
from genet.config.preprocessing import Preprocessing
from genet.config.recipe import Data
from genet.device import open_device
from genet.errors import GenetError
from genet.export.timm_form import timm_preprocessing
from genet.latency.naming import weights_of
from genet.models.external import build_structure, pretrained
from genet.models.weights import load_structure, read_labels, unsaved_random_weights
from genet.progress import SILENT, Progress
from genet.studies.align.criteria import NORMS, Scores, kept_channels, norms, ranks
from genet.studies.align.importance import AT_ONCE, IMAGES, Importance, importance_of
from genet.studies.align.module_subject import ModuleSubject
from genet.studies.align.subject import Widths
from genet.training.accuracy import EVALUATION_BATCH, top_k_accuracy
from genet.training.image_sets import FirstImages, ImageSet, View
from genet.training.learner import computing_on, on_device
from genet.training.splits import load_data, load_test

RANK_IMAGES = 500  # images that the ranks of feature maps are averaged over
RENEWED_AT_ONCE = 128  # images at a time that statistics are renewed by


@dataclass(frozen=True)
class SourceNetwork:
    """A network with its weights, the names of its classes, and its author's preprocessing of images; None if unknown.

    Weights that a user's function `built` may be drawn anew at every call.
    """

    module: nn.Module
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    built: bool = False


def source_of(what: str, structure: ExternalModel, trained: bool, way: str) -> SourceNetwork:
    """Return the network with its weights: those beside its file, its function's or timm's.

    Use fresh ones if `trained` ones are not needed. GenetError if they are, and there are none; `way` is another remedy.
    """
    weights = weights_of(what)
    if weights:
        return SourceNetwork(load_structure(structure, weights), read_labels(weights.parent))
    timms = structure.source.startswith("timm:")
    if not trained or not (timms or structure.changed):
        module = build_structure(structure)
    else:
        found, without = (None, "there are none beside it") if structure.changed else pretrained(structure)
        if found is None or without:
            raise GenetError(
                f"{what}: got no trained weights ({without}), expected some, of which the best are kept; give a folder "
                f"with network.yaml and model.safetensors, or {way}"
            )
        module = found
    return SourceNetwork(module, preprocessing=timm_preprocessing(module) if timms else None, built=not timms)


@dataclass(frozen=True)
class KeptWeights:
    """The weights that a network keeps at other widths, and the images, if any, to measure its accuracy on.

    `labels` are the names of its classes, if they are known. `importance` is measured at its first call, on training images, and
    `renewed` takes statistics anew from them.
    """

    subject: ModuleSubject
    scores: Scores
    images: ImageSet | None = None
    labels: tuple[str, ...] | None = None
    importance: Callable[[], Importance] | None = None
    renewed: Callable[[nn.Module], nn.Module] = lambda module: module

    def build(self, new: Widths, removed: Sequence[str] = ()) -> nn.Module:
        """Build the network with new widths: the best channels are kept, and new ones change no answer."""
        subject, widths = self.subject, {**self.subject.cut, **new}
        return subject.build(widths, kept_channels(subject.tied, widths, self.scores), removed)

    def accuracy(self, module: nn.Module, resolution: int | None = None, progress: Progress = SILENT) -> float:
        """Return the accuracy on the test images, by the device that this machine computes fastest on."""
        assert self.images is not None
        device, size = open_device("auto"), resolution or self.subject.resolution
        answering = copy.deepcopy(module).to(device).eval()
        with progress.track("test images", math.ceil(self.images.size / EVALUATION_BATCH)) as tracker:

            def forward(pixels):  # type: ignore[no-untyped-def]
                tracker.advance()
                return answering(pixels)

            return top_k_accuracy(forward, (1,), self.images, size, device)[0]


def by_norm(subject: ModuleSubject, criterion: str = "l1") -> Scores:
    """Return the criterion of the largest filters."""
    return norms(subject.source, NORMS.index(criterion) + 1)


def kept_with_images(
    subject: ModuleSubject, source: SourceNetwork, data: Data, criterion: str, progress: Progress
) -> KeptWeights:
    """Return what is kept by a criterion, with images to test on, and for `rank` and `taylor` to look at.

    The images are looked for at once, before anything is measured. GenetError if the weights differ in no importance.
    """
    input_, labels, preprocessing = subject.network.input, source.labels, source.preprocessing
    images = load_test(data, input_, preprocessing, labels, progress)
    if criterion in NORMS:
        return KeptWeights(subject, by_norm(subject, criterion), images, labels)
    splits = load_data(data, input_, 0, View(preprocessing=preprocessing), labels=labels, progress=progress)
    if criterion == "rank":
        return KeptWeights(subject, _ranks(subject, splits.train), images, labels)
    if source.built and unsaved_random_weights(subject.source, subject.network):
        raise GenetError(
            f"{subject.network.source}: got random weights, which differ at every call, expected trained ones, whose "
            "channels differ in importance; give a folder with network.yaml and model.safetensors"
        )
    some = FirstImages(splits.train.shuffled(0), min(IMAGES, splits.train.size))
    importance = _importance(subject, some, progress)
    again = functools.partial(with_new_statistics, images=some, resolution=subject.resolution, device=open_device("auto"))
    return KeptWeights(subject, lambda group: importance().of(group), images, labels, importance, again)


def _ranks(subject: ModuleSubject, images: ImageSet) -> Scores:
    batches = images.batches(min(RANK_IMAGES, images.size), subject.resolution, shuffle_seed=0)
    found = functools.cache(lambda: ranks(subject.source, next(batches)[0]))
    return lambda group: found()(group)


def _importance(subject: ModuleSubject, images: FirstImages, progress: Progress) -> Callable[[], Importance]:
    """Return a function that measures the importance of all channels and blocks, once."""

    @functools.cache
    def measured() -> Importance:
        with progress.track("training images, for the importance of channels", math.ceil(images.size / AT_ONCE)) as tracker:
            return importance_of(subject, images, open_device("auto"), tracker)

    return measured


@torch.no_grad()
def with_new_statistics(module: nn.Module, images: ImageSet, resolution: int, device: torch.device) -> nn.Module:
    """Return a copy whose statistics of batch normalisation are averaged anew over training images.

    What the cut channels and blocks added is missing from every later mean.
    """
    found = copy.deepcopy(module).to(device).eval()
    norms = [part for part in found.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
    with computing_on(device):
        for number, (pixels, _) in enumerate(on_device(images.on(device).batches(RENEWED_AT_ONCE, resolution), device), start=1):
            if len(pixels) == 1 and number > 1:
                break  # a map of one pixel has no variance in one image
            for norm in norms:
                norm.momentum = 1 / number  # an average over all batches
            found(pixels)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return found.cpu().eval()
