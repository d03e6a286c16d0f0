"""The tail-effect paper's tables and figures beside ours."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from gpu.sweeps import AllStairs, layers
from wave_model import paper_ops

from genet.latency.estimate.analytic import estimate, waves
from genet.latency.estimate.gpus import find_gpu
from genet.latency.staircase.staircase import analyse
from genet.latency.staircase.sweep import Sweep
from genet.latency.timing.curves import read_range
from genet.latency.workload import read_workload, with_width
from genet.models.cifar import POOLED, RESNET56_BLOCKS, RESNET_WIDTHS
from genet.storage import Journal
from papers import Published
from papers.beside import NO_FIGURES, Row, compared, lacking, listed
from papers.evidence import SESSION, Alignment, aligned_at, alignments, estimated_alignments, on_gpus
from papers.tail_effect import (
    CORES,
    ELSEWHERE,
    FIGURE_7,
    SHOWN,
    STEP,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    THROUGHPUT_2,
    THROUGHPUT_6,
    UTILIZATION_6,
    Elsewhere,
    Grown,
    Pruned,
)

HARDWARE = "table of GPUs, `genet/latency/estimate/gpus.py`"
TRAINED = "hrank-resnet56"  # the pruned network that was trained here
ACCURACY = "not trained on CIFAR-10 here: `python benchmarks/align.py cifar` trains HRank's ResNet-56 alone"
AT_GPUS = "an estimate: `python benchmarks/align.py devices`"
AS_ALIGNED = ((0, ""), (1, ", aligned"))
FILTERS = range(64, 513)  # of figure 5's layer
MIDDLE = 4  # of the seven treads that so many filters have on 80 multiprocessors


def rows(results: Path) -> Iterator[Row]:
    """Yield figures 1 to 11 and tables 1 to 5."""
    yield from figures_1_to_4(results)
    yield from figures_5_and_6(results)
    vgg16, (change, tops) = TABLE_2[0], FIGURE_7
    yield from (_change("figure 7", vgg16, change, each) for each in alignments(results, vgg16.widths))
    yield lacking(_gained("figure 7", vgg16.name, *tops), ACCURACY)
    yield lacking(
        Published("figure 8", "top-1 over latency of grown EfficientNets and others, Titan-V", None),
        "accuracy on ImageNet, not trained here",
    )
    yield from figures_9_to_11(results)
    for key, name, processors, peak in TABLE_1:
        gpu = find_gpu(key)
        if processors:
            yield compared(Published("table 1", f"{name}, multiprocessors", processors), gpu.sms, HARDWARE)
        yield compared(Published("table 1", f"{name}, peak", peak, "TFLOP/s"), gpu.fp32_tflops, HARDWARE)
    for pruned in TABLE_2:
        yield from table_2(pruned, list(alignments(results, pruned.widths)))
    yield accuracy(results)
    for network in TABLE_3:
        yield from table_3(network, results)
    for each in ELSEWHERE:
        yield from table_4_or_5(each, results)


def figures_1_to_4(results: Path) -> Iterator[Row]:
    """Yield staircases of layers, and the two drawings."""
    for device, path in on_gpus(results, "staircases/staircases.json"):
        found = json.loads(path.read_text())["staircases"]
        seen = f"a staircase in {sum(each['pattern'] == 'stairs' for each in found)} of {len(found)} sweeps"
        how = f"measured, {device}, fp16, batch 64; super-blocks of the GENet paper's space, not a layer of ResNet-50"
        yield Row("figure 1", "latency over the width of a layer of ResNet-50", "a staircase", seen, how)
    yield compared(CORES, find_gpu("titan-v").sms, HARDWARE)
    for each in alignments(results, "hrank-vgg16"):
        if each.answer:
            places = each.answer["places"]
            stepped = sum(bool(place["left"] or place["right"]) for place in places)
            seen = f"{stepped} of {len(places)} layers have an edge beside their width"
            yield Row("figure 3", "layers of VGG16 at 32 pixels", "a staircase each", seen, f"{each.how}, HRank's widths")
    why = "`genet align timm:resnet50 --batch 1 --evidence latency.jsonl` sweeps them on a GPU"
    yield lacking(Published("figure 3", "layers of ResNet-50 at 224 pixels", None), why)
    what = "filters mapped to thread blocks, and blocks to waves; drawn"
    yield Row("figure 4", what, NO_FIGURES, "the wave model", "`genet/latency/estimate/analytic.py`")


def figures_5_and_6(results: Path) -> Iterator[Row]:
    """Yield the steps of equation 3, and the edges of one tread, by the wave model and from measured convolutions."""
    slots = find_gpu("titan-v").sms
    steps = [filters for filters in FILTERS if waves(filters + 1, slots) > waves(filters, slots)]
    apart = fmean(after - before for before, after in pairwise(steps))
    yield compared(STEP, apart, f"wave model of a Titan-V, {len(steps)} steps from 64 to 512 filters")
    seen = re.search(r"\| all \| (\d+) \| (\d+)% \| (\d+) \| (\d+)% \|", (results / "align" / "wave.md").read_text())
    if seen:
        shares = f"{seen[2]} % of {seen[1]} steps, and one in {seen[4]} % of {seen[3]} flat intervals"
        how = "published data: V100 convolutions, TensorRT (`benchmarks/results/align/wave.md`)"
        yield Row("figure 5", "measured steps that the model has", "all shown", shares, how)
    first, last = slots * (MIDDLE - 1) + 1, slots * MIDDLE
    for seed, filters in zip(UTILIZATION_6, (first, last), strict=True):
        share = 100 * filters / (slots * waves(filters, slots))
        yield compared(seed, share, f"wave model of a Titan-V, {filters} filters")
    yield compared(THROUGHPUT_6, last / first, f"wave model of a Titan-V, {last} over {first} filters")
    peaks = re.search(r"equation 4\) on (\d+) of (\d+)", (results / "staircases.md").read_text())
    if peaks:
        found = f"those before steps on {peaks[1]} of {peaks[2]} staircases"
        how = "made-up staircases (`benchmarks/results/staircases.md`)"
        yield Row("figure 6", "widths of most utilization times throughput", "five, those before steps", found, how)


def table_2(pruned: Pruned, found: Sequence[Alignment]) -> Iterator[Row]:
    """Yield what a pruned network costs, and what alignment makes of it on each device."""
    before = pruned.before
    measured = [(each, each.answer) for each in found if each.answer]
    for _, answer in measured[:1]:
        macs, how = macs_of(answer, aligned=False), f"counted, {pruned.widths}"
        seed = Published("table 2", f"{pruned.name}: parameters", before.parameters, "M")
        yield compared(seed, answer["parameters"][0] / 1e6, how)
        yield compared(Published("table 2", f"{pruned.name}: FLOPs, which are MACs", before.macs, "M"), macs / 1e6, how)
    for each in found:
        if each.batch == 128:
            seed = Published("table 2", f"{pruned.name}: a batch of 128, Titan-V", before.ms, "ms")
            yield compared(seed, each.before_ms, each.how)
    for after, change in pruned.after:
        yield from (_change("table 2", pruned, change, each) for each in found)
        seed = Published("table 2", f"{pruned.name}, aligned: parameters", after.parameters, "M")
        yield from (compared(seed, each.parameters[1], each.how) for each in found)
        seed = Published("table 2", f"{pruned.name}, aligned: MACs", after.macs, "M")
        yield from (compared(seed, macs_of(answer, aligned=True) / 1e6, each.how) for each, answer in measured)
    was, then = THROUGHPUT_2[pruned.widths]
    what = f"{pruned.name}: FLOP/s by aligning, {was:g} to {then:g} TFLOP/s, times"
    seed = Published("table 2", what, round(then / was, 2))
    for each, answer in measured:
        gain = macs_of(answer, aligned=True) / macs_of(answer, aligned=False) / each.ratio
        yield compared(seed, gain, each.how)
    if pruned.widths != TRAINED:
        for after, _ in pruned.after:
            yield lacking(_gained("table 2", pruned.name, before.top1_percent, after.top1_percent), ACCURACY)


def _change(where: str, pruned: Pruned, change: float, each: Alignment) -> Row:
    return compared(
        Published(where, f"{pruned.name}: latency by aligning, Titan-V", change, "%"), 100 * (each.ratio - 1), each.how
    )


def _gained(where: str, what: str, before: float, after: float) -> Published:
    return Published(where, f"{what}: accuracy, {before:g} to {after:g} %", round(after - before, 2), "%")


def accuracy(results: Path) -> Row:
    """Return what alignment did to the accuracy of the one network that was trained."""
    network = next(each for each in TABLE_2 if each.widths == TRAINED)
    by_way: dict[str, list[float]] = {}
    for record in Journal(results / "align" / "cifar.jsonl").read().records:
        by_way.setdefault(record["way"], []).append(100 * record["accuracy"])
    gained = fmean(by_way["pruned and aligned"]) - fmean(by_way["pruned"])
    how = f"trained here, {len(by_way['pruned'])} seeds, 8,100 images, 15 epochs; aligned on a CPU "
    seed = _gained("table 2", network.name, network.before.top1_percent, network.after[0][0].top1_percent)
    return compared(seed, gained, f"{how}(`benchmarks/results/align/cifar.md`)")


def macs_of(answer: Mapping[str, Any], aligned: bool) -> int:
    """Return the MACs of a pruned VGG16 or ResNet-56 at 32 pixels, before or after its alignment."""
    chosen = answer["widths"] if aligned else {}
    widths = {layer: chosen.get(place["name"], place["now"]["width"]) for place in answer["places"] for layer in place["layers"]}
    return _vgg16_macs(widths) if answer["network"] == "vgg16" else _resnet56_macs(widths)


def _vgg16_macs(widths: Mapping[str, int]) -> int:
    total, in_width, size = 0, 3, 32
    for index, name in enumerate(sorted(widths, key=lambda name: int(name.split(".")[1]))):
        total += 9 * in_width * widths[name] * size**2
        in_width = widths[name]
        size //= 2 if index in POOLED else 1
    return total + 512 * in_width + 10 * 512


def _resnet56_macs(widths: Mapping[str, int]) -> int:
    size, outer = 32, widths.get("stem.0", RESNET_WIDTHS[0])
    total = 9 * 3 * outer * size**2
    for index in range(RESNET56_BLOCKS * len(RESNET_WIDTHS)):
        usual = RESNET_WIDTHS[index // RESNET56_BLOCKS]
        narrows = index % RESNET56_BLOCKS == 0 and index > 0
        size //= 2 if narrows else 1
        inner, wide = (widths.get(f"blocks.{index}.{name}", usual) for name in ("conv1", "conv2"))
        total += (9 * outer * inner + 9 * inner * wide + outer * wide * narrows) * size**2
        outer = wide
    return total + 10 * outer


def table_3(network: Grown, results: Path) -> Iterator[Row]:
    """Yield how much larger an EfficientNet may be at its own latency, and what that does to its accuracy."""
    for device, gpus, figures in (("Titan-V", ("titan-v", "v100"), network.titan_v), ("P6000", ("p6000",), network.p6000)):
        ms, grown_ms, rate, grown_rate = figures
        what = f"{network.name}, grown: times the MACs in {grown_ms:g} ms instead of {ms:g}, {device}"
        ops, gpu = paper_ops(network.name.replace("efficientnet_b", "EfficientNet-B")), find_gpu(gpus[-1])
        seed = Published("table 3", f"{network.name}: batch 1 ({rate:g} GFLOP/s), {device}", ms, "ms")
        yield compared(seed, estimate(ops, gpu, 1, "fp32", "eager").ms, _eager(gpu.key))
        seed = Published("table 3", what, round(grown_rate * grown_ms / (rate * ms), 2))
        found = [row for gpu in gpus for row in _grown(seed, network, gpu, aligned_at(results, gpu))]
        yield from found
        if not found:
            yield lacking(seed, AT_GPUS)
        if device == "Titan-V":
            yield from (compared(seed, times, how) for times, how in _measured_growth(network, results))
    why = f"accuracy on ImageNet, not trained here: `genet align timm:{network.name} --into FOLDER`, then `genet train`"
    yield lacking(_gained("table 3", f"{network.name}, grown", *network.top1_percent), why)


def _grown(seed: Published, network: Grown, gpu: str, page: str) -> Iterator[Row]:
    how = _eager(gpu)
    said = re.search(rf"{network.name}[^\n]* at batch 1([^\n]*)", page)
    times = re.search(r"([\d.]+) times the MACs", said[1]) if said else None
    if times:
        yield compared(seed, float(times[1]), how)
    elif said:
        yield compared(seed, 1, f"{how}: none larger was as fast")


def _eager(gpu: str) -> str:
    return f"estimate:{gpu}, eager, batch 1, {find_gpu(gpu).software.host_us:g} us of the host per operation"


def _measured_growth(network: Grown, results: Path) -> Iterator[tuple[float, str]]:
    for device, path in on_gpus(results, "align/align.jsonl"):
        for record in Journal(path).read().records:
            command, answer = record["command"], record["answer"]
            if f"timm:{network.name}" in command and "--scale" in command and not isinstance(answer, str):
                yield answer["best"]["macs"] / answer["macs"], f"measured, {device}, batch 1"


def table_4_or_5(network: Elsewhere, results: Path) -> Iterator[Row]:
    """Yield a pruned network on a GPU that nobody here has: estimates. No batch is printed, so times have no difference."""
    where, what = network.where, network.what
    seeds = [Published(where, f"{what}: parameters{done}", network.parameters[place], "M") for place, done in AS_ALIGNED]
    seeds.append(Published(where, f"{what}: latency by aligning", network.change, "%"))
    time = Published(where, f"{what}: a batch", network.ms, "ms")
    found = list(estimated_alignments(results, network.widths, network.gpu)) if network.widths else []
    for each in found:
        yield dataclasses.replace(compared(time, each.before_ms, f"{each.how}, batch {each.batch}"), difference="")
        values = (*each.parameters, 100 * (each.ratio - 1))
        yield from (compared(seed, value, each.how) for seed, value in zip(seeds, values, strict=True))
    if not found:
        why = AT_GPUS if network.widths else "these widths do not come along"
        yield from (lacking(seed, why) for seed in (time, *seeds))
    was, then = network.gflops
    seed = Published(where, f"{what}: FLOP/s by aligning, {was:g} to {then:g} GFLOP/s, times", round(then / was, 2))
    yield lacking(seed, "no widths are kept to count MACs of: `genet align NETWORK --pruned WIDTHS --into FOLDER`")
    yield lacking(_gained(where, what, *network.top1_percent), ACCURACY)


Stairs = tuple[int, str, int, str, int]  # figure, layer, batch, pattern, number of edges


def figures_9_to_11(results: Path) -> Iterator[Row]:
    """Yield staircases by batch, resolution and filter: estimates of a Titan-V, and what was measured."""
    titan, modelled = find_gpu("titan-v"), list[Stairs]()
    for figure, layer, grid, batch in layers():
        widths = read_range(grid, "widths")
        ops = [read_workload(with_width(layer, width)).ops() for width in widths]
        ms = tuple(estimate(each, titan, batch, "fp32", "cudagraph").device_ms for each in ops)
        stairs = analyse(Sweep(widths=widths, ms=ms, sigma=(0.0,) * len(widths)))
        modelled.append((figure, layer, batch, stairs.pattern, len(stairs.edges)))
    settings = [("estimate:titan-v, fp32", modelled)]
    for device, path in on_gpus(results, "filters/stairs.json"):
        found = AllStairs.load(path).stairs
        measured = [(each.figure, each.layer, each.batch, each.pattern, len(each.edges)) for each in found]
        settings.append((f"measured, {device}, fp16", measured))
    for figure, shown in SHOWN.items():
        for how, every in settings:
            of_figure = sorted((each for each in every if each[0] == figure), key=_layer)
            for layer, group in groupby(of_figure, key=_layer):
                seen = listed([f"{pattern}, {edges} edges at batch {batch}" for _, _, batch, pattern, edges in group])
                yield Row(f"figure {figure}", f"latency over filters, `{layer}`", shown, seen, how)
        if len(settings) == 1:
            yield lacking(Published(f"figure {figure}", "the same layers, measured", None), SESSION.format("filters"))


def _layer(stairs: Stairs) -> str:
    return stairs[1]
