"""FoldedCNNs: several images stacked along their channels are one input of a wider network (utilization paper, section 3.3).

Of N images of C channels a network folded by f sees N / f inputs of f C channels. Every layer is sqrt(f) times as wide, and the
classifier answers for f images at once. That is nearly the same arithmetic on 1 / sqrt(f) of the activations, so if memory moves
mostly these, arithmetic intensity grows by sqrt(f).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch.nn.modules.batchnorm import _BatchNorm

from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import MULTIPLE, Input, Network
from genet.errors import GenetError, SpecError
from genet.latency.estimate.roofline import MatrixProduct
from genet.latency.trace import module_ops
from genet.latency.workload import workload_of
from genet.models.external import build_structure, channels, count_logits
from genet.storage import Record
from genet.studies.survey.survey import Surveyed, SurveyEntry, survey_in_turn

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter


def fold(structure: ModelSpec, f: int) -> ModelSpec:
    """Return the network that sees f images as one: f times the channels and classes, and sqrt(f) times the width throughout.

    GenetError if its layers cannot be that wide: widths are rounded if f is not a square, and sums may then not fit.
    """
    if f < 2:
        raise SpecError([f"--images-per-fold: got {f}, expected at least 2, such as 4"])
    return _fold_own(structure, f) if isinstance(structure, Network) else _fold_external(structure, f)


def _folded(input_: Input, f: int) -> Input:
    return input_.model_copy(update={"channels": input_.channels * f, "classes": input_.classes * f})


def _wider(width: int, f: int, step: int = 1) -> int:
    """Return sqrt(f) times the width; a multiple of `step`, and of eight if the root is not an integer."""
    root = math.isqrt(f)
    if root * root == f and width * root % step == 0:
        return width * root
    step = math.lcm(step, MULTIPLE)
    return max(step, step * round(width * math.sqrt(f) / step))


def _fold_own(network: Network, f: int) -> Network:
    superblocks = tuple(
        block.model_copy(update={"width": _wider(block.width, f, round(MULTIPLE / min(1.0, block.ratio or 1.0)))})
        for block in network.superblocks
    )
    stem, head = (part and part.model_copy(update={"width": _wider(part.width, f)}) for part in (network.stem, network.head))
    return network.model_copy(
        update={
            "name": f"{network.name}-folded{f}",
            "input": _folded(network.input, f),
            "stem": stem,
            "superblocks": superblocks,
            "head": head,
        }
    )


def _fold_external(network: ExternalModel, f: int) -> ExternalModel:
    """Fold every layer by itself: tied layers stay tied, as all grow alike."""
    input_, image = network.input, network.input.image
    module = build_structure(network)
    ops = module_ops(module, image)
    pixels = math.prod(image)
    first = {op.name for op in ops if op.kind == "conv" and op.in_width == input_.channels and op.read == pixels}
    last = [op.name for op in ops if op.macs and op.width == input_.classes and op.rows == 1][-1:]
    if not first or not last:
        raise GenetError(f"{network.name}: got other layers at its ends, expected a convolution first and a classifier last")
    layers: dict[str, tuple[int, int]] = {}
    for name, part in module.named_modules():
        widths = channels(part)
        if widths:
            written = widths[0] * f if name in last else _wider(widths[0], f)
            read = widths[1] * f if name in first else _wider(widths[1], f)
            layers[name] = (written, written if isinstance(part, _BatchNorm) else read)
    found = network.model_copy(update={"name": f"{network.name}-folded{f}", "input": _folded(input_, f), "layers": layers})
    root = math.isqrt(f)
    try:
        classes = count_logits(build_structure(found), (input_.channels * f, *image[1:]), found.name)
    except GenetError as fault:
        failure = f"running {network.name} with all its layers {math.sqrt(f):.3g} times as wide failed"
        raise GenetError(
            f"{failure}: {fault}{'' if root * root == f else '; try a square, such as --images-per-fold 4'}"
        ) from None
    if classes != input_.classes * f:
        raise GenetError(f"{network.name}: got {classes} logits, expected {input_.classes * f}, for {f} images at once")
    return found


class Folding(Record):
    """One network surveyed before and after: `after` counts stacked images, f times fewer."""

    network: str
    f: int
    before: Surveyed
    after: Surveyed

    @property
    def flops(self) -> float:
        """Arithmetic for the same images, relative to before."""
        return _flops(self.after) / _flops(self.before)

    @property
    def traffic(self) -> float:
        """Bytes moved for the same images, relative to before; sqrt(f) times fewer if only activations move."""
        return self.flops * (self.before.intensity or 0.0) / (self.after.intensity or math.inf)

    @property
    def speed(self) -> float:
        """Images per second, relative to before."""
        return self.f * self.after.images_per_sec / self.before.images_per_sec

    @property
    def speed_error(self) -> float | None:
        """Its standard error, from those of both utilizations; None for estimates."""
        one, other = self.before.utilization_error, self.after.utilization_error
        return None if one is None or other is None else self.speed * math.hypot(one, other)


def _flops(row: Surveyed) -> int:
    return (row.macs or 0) * (row.batch or 0)


def compare(structure: ModelSpec, f: int, meter: Meter, product: MatrixProduct, ratio: float) -> Folding:
    """Survey a network on the meter's batch of images, which f divides, in turn with the folded one on as many in stacks of f."""
    images = meter.setting.batch
    sides = ((structure, images), (fold(structure, f), images // f))
    entries = [SurveyEntry(workload_of(each), meter.at(batch), product.at(batch)) for each, batch in sides]
    before, after = survey_in_turn(entries, ratio)
    return Folding(network=structure.name, f=f, before=before, after=after)
