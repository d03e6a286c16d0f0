"""A survey of networks on one device (utilization paper, section 3), and the frontiers of any two of its three figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from genet.errors import MeasurementError
from genet.latency.estimate.intensity import LayerIntensity, flops_of, intensity_of, layers_of
from genet.latency.estimate.roofline import MatrixProduct
from genet.latency.table import Rounds
from genet.latency.timing.ratio import MOST_ROUNDS, StopRule, measure_rounds
from genet.latency.workload import Workload
from genet.search.solver import pareto
from genet.storage import Record

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter

KNOWN = 0.03  # rounds are added until the utilization is known this well
Percent = Annotated[float, Field(ge=0, le=100)]
PAPER = """
tresnet_m tresnet_l tresnet_xl gernet_s gernet_m gernet_l efficientnetv2_s@384 efficientnetv2_m@416 efficientnet_b0
efficientnet_b1 efficientnet_b2@288 regnetx_002 regnetx_004 regnetx_006 regnetx_008 regnetx_016 regnetx_032 regnetx_040
regnetx_080 regnety_002 regnety_004 regnety_006 regnety_008 regnety_016 regnety_032@288 regnety_040 regnety_064 resnet18
resnet50 wide_resnet50_2 resnetrs50@220 resnetrs101@288 resnetrs152@320 resnetrs200@320 resnetrs270@352 seresnet18 seresnet34
seresnet50 seresnet101 seresnet152d@320 resnext50_32x4d resnext50d_32x4d resnext101_32x4d resnext101_32x8d seresnext26d_32x4d
seresnext26t_32x4d seresnext50_32x4d seresnext101_32x4d cspresnet50 cspresnext50@224 repvgg_a2 repvgg_b0 repvgg_b1 repvgg_b1g4
repvgg_b2 repvgg_b2g4 repvgg_b3 repvgg_b3g4 dpn68 dpn68b dpn92 dpn98 dpn107 dpn131 hrnet_w18_small hrnet_w18_small_v2 hrnet_w18
hrnet_w30 hrnet_w32 hrnet_w40 hrnet_w44 hrnet_w48 hrnet_w64 dla34 dla46_c dla46x_c dla60 dla60x dla60x_c dla60_res2net
dla60_res2next dla102 dla102x dla169 mixnet_s mixnet_m
"""  # the utilization paper's survey, except for once-for-all networks, which timm lacks, and a second resnext50

PRESETS: dict[str, dict[str, int | None]] = {  # names, and resolutions other than timm's, which follow from the paper's FLOPs
    "paper": {f"timm:{name}": int(size) if size else None for name, _, size in (each.partition("@") for each in PAPER.split())}
}


class Surveyed(Record):
    """One network. Values missing from a table from elsewhere are None.

    `peak_tflops_per_sec` is the speed of the matrix product when timed in turn with the network. `bound_share` is the
    share of the operations in layers whose intensity is above the device's ratio, so that memory does not hold them up.
    """

    model: str
    images_per_sec: PositiveFloat
    tflops_per_sec: PositiveFloat
    top1_percent: Percent | None = None
    peak_tflops_per_sec: PositiveFloat | None = None
    utilization_error: float | None = None  # standard error, relative, over the rounds
    estimate: bool | None = None  # None if a table from elsewhere does not give it
    resolution: PositiveInt | None = None
    batch: PositiveInt | None = None
    parameters: PositiveInt | None = None
    macs: PositiveInt | None = None
    intensity: PositiveFloat | None = None
    bound_share: float | None = None
    largest_batch: PositiveInt | None = None

    @property
    def utilization(self) -> float | None:
        """Share of the peak."""
        return None if self.peak_tflops_per_sec is None else self.tflops_per_sec / self.peak_tflops_per_sec


class Frontiers(Record):
    """Names of the networks that no other beats, in the survey's order; empty if no accuracies are known."""

    throughput_accuracy: tuple[str, ...]
    utilization_accuracy: tuple[str, ...]
    throughput_utilization: tuple[str, ...]

    @property
    def on_all(self) -> tuple[str, ...]:
        """Networks on all three."""
        rest = {*self.utilization_accuracy} & {*self.throughput_utilization}
        return tuple(name for name in self.throughput_accuracy if name in rest)


def pareto_positions(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Return the positions of points that none dominates, by being as good in both and better in one; equal points stay."""
    if not points:
        return ()
    values = np.array(points, dtype=float)
    best = {points[position] for position in pareto(-values[:, 0], values[:, 1])}
    return tuple(position for position, point in enumerate(points) if point in best)


def frontiers(rows: Sequence[Surveyed]) -> Frontiers:
    """Return the frontiers of figure 1; a network without accuracy is left out of those that need it."""
    throughput = [row.images_per_sec for row in rows]
    utilization = utilizations(rows)

    def names(one: Sequence[float], two: Sequence[float | None]) -> tuple[str, ...]:
        known = [(row.model, (x, y)) for row, x, y in zip(rows, one, two, strict=True) if y is not None]
        return tuple(known[position][0] for position in pareto_positions([point for _, point in known]))

    accuracy = [row.top1_percent for row in rows]
    return Frontiers(
        throughput_accuracy=names(throughput, accuracy),
        utilization_accuracy=names(utilization, accuracy),
        throughput_utilization=names(throughput, utilization),
    )


def utilizations(rows: Sequence[Surveyed]) -> tuple[float, ...]:
    """Return the utilization of every network; TFLOP/s, which rank alike, if the peak of one of them is not known."""
    shares = tuple(row.utilization for row in rows if row.utilization is not None)
    return shares if len(shares) == len(rows) else tuple(row.tflops_per_sec for row in rows)


class SurveyEntry(NamedTuple):
    """A network to survey, on a meter that sets its batch, with the matrix product in that batch."""

    workload: Workload
    meter: Meter
    product: MatrixProduct


def survey(workload: Workload, meter: Meter, product: MatrixProduct, ratio: float) -> Surveyed:
    """Time a network in turn with the matrix product; `ratio` is the device's compute-to-memory ratio."""
    return survey_in_turn([SurveyEntry(workload, meter, product)], ratio)[0]


def survey_in_turn(entries: Sequence[SurveyEntry], ratio: float) -> tuple[Surveyed, ...]:
    """Time networks for a comparison in turn, round by round, and the matrix product with each of them.

    The figures are medians over the rounds: a round disturbed by other work on the machine does not affect them.
    """
    layers = [_layers(entry) for entry in entries]
    stop = StopRule(lambda rounds: _error(rounds) <= KNOWN, most=MOST_ROUNDS).at(entries[0].meter)
    in_turn = zip(*(measure_rounds([workload, product.workload], meter) for workload, meter, product in entries), strict=True)
    rounds = next(each for each in in_turn if all(map(stop, each)))
    return tuple(_surveyed(*each, ratio) for each in zip(entries, layers, rounds, strict=True))


def _layers(entry: SurveyEntry) -> tuple[LayerIntensity, ...]:
    """Return the layers that count; MeasurementError if there are none, or operations that do not count."""
    workload, setting = entry.workload, entry.meter.setting
    layers = layers_of(workload.ops(), setting.batch, setting.dtype)
    if not flops_of(layers):
        raise MeasurementError(f"{workload.name}: got no convolutions or linear layers, expected at least one")
    uncounted = next((op.name for op in workload.ops() if op.kind == "product"), None)
    if uncounted:
        raise MeasurementError(
            f"{workload.name}: got products of activations ({uncounted}), which are not counted, expected a convolutional network"
        )
    return layers


def _surveyed(entry: SurveyEntry, layers: Sequence[LayerIntensity], rounds: Rounds, ratio: float) -> Surveyed:
    workload, product, setting = entry.workload, entry.product, entry.meter.setting
    ms, flops = median(rounds.ms), flops_of(layers)
    return Surveyed(
        model=workload.name.removeprefix("timm:"),
        images_per_sec=1e3 * setting.batch / ms,
        tflops_per_sec=flops / ms * 1e-9,
        peak_tflops_per_sec=product.tflops_per_sec(median(rounds.reference_ms)),
        utilization_error=_error(rounds) if len(rounds.ms) > 1 else None,
        estimate=setting.estimate,
        resolution=workload.image[-1],
        batch=setting.batch,
        parameters=sum(parameter.numel() for parameter in workload.build().parameters()),
        macs=flops // (2 * setting.batch),
        intensity=intensity_of(layers),
        bound_share=sum(layer.flops for layer in layers if layer.intensity > ratio) / flops,
    )


def _error(rounds: Rounds) -> float:
    """Return the relative standard error of the utilization."""
    ratios = [1 / ratio for ratio in rounds.ratios]
    return stdev(ratios) / fmean(ratios) / math.sqrt(len(ratios))
