"""GENet's tables and figures beside ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from gpu.attempts import last_of_each, read_attempts
from gpu.sweeps import Figure
from wave_model import PAPER_TABLES, PaperTable, paper_ops

from genet.arch.cost import network_cost
from genet.config.reader import read_network
from genet.latency.estimate.analytic import estimate, scale_of
from genet.latency.estimate.gpus import find_gpu
from genet.latency.ops import network_ops
from genet.latency.workload import read_workload, with_width
from genet.statistics import spearman
from genet.studies.survey.survey import pareto_positions
from papers import Published
from papers.beside import NO_FIGURES, RANKS, Row, compared, lacking, listed, rounded
from papers.evidence import SESSION, on_gpus, timed_networks
from papers.genet import (
    DESIGNED_FOR,
    GENETS,
    IN_TABLE_1,
    OURS,
    PROFILING_NET,
    SEARCH,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_6,
    latencies,
)

IMAGENET = "accuracy on ImageNet, not trained here: "
TRAIN = f"{IMAGENET}`genet train {{}} --recipe RECIPE`, 120 epochs"
NOT_TO_BE_HAD = "neither timm nor this project has the network"
SLOWEST, FASTEST = 1, 64  # batches whose ratio tells a curve of figure 2a
WIDTH, PIXELS, BATCH = 256, 224, 64  # of figure 3's chains of blocks, in the middle of its range
RATIOS = (1, 2, 4)


@dataclass(frozen=True)
class Estimated:
    """A latency table at one batch: the paper's ms per image and ours, which one factor brings to the paper's level."""

    paper: dict[str, float]
    ours: dict[str, float]
    factor: float

    @property
    def agreement(self) -> str:
        """Rank correlation and mean error."""
        error = fmean(abs(self.ours[name] / self.paper[name] - 1) for name in self.ours)
        ranks = spearman([self.paper[name] for name in self.ours], list(self.ours.values())) or 0.0
        return f"Spearman {ranks:.3f}, mean error {error:.1%}"


@cache
def estimated(table: PaperTable, batch: int) -> Estimated:
    """Estimate the networks of a table that timm or this project has."""
    paper = {row.model: row.ms_per_image[batch] for row in latencies(table.number)}
    raw = {name: table.estimate_ms(paper_ops(name), batch) / batch for name in paper if paper_ops(name)}
    factor = scale_of([paper[name] for name in raw], list(raw.values()))
    return Estimated(paper, {name: factor * ms for name, ms in raw.items()}, factor)


def rows(results: Path) -> Iterator[Row]:
    """Yield figures 1 to 5, tables 1 to 9 and the cost of the search."""
    tests = "`tests/golden/test_paper_tables.py`"
    yield Row("figure 1", "MasterNet and its three blocks, drawn", NO_FIGURES, "the same", tests)
    yield from figure_2(results)
    yield from figure_3(results)
    why = "needs weights trained on ImageNet: `genet rank timm:resnet18`, `genet rank timm:resnet34`"
    yield lacking(Published("figure 4", "singular values of kernels: ResNet-18, ResNet-34, ProfilingNet-132", None), why)
    yield from figure_5(results)
    for number, top1 in enumerate(TABLE_6[:IN_TABLE_1], start=1):
        yield lacking(Published("table 1", f"Net{number}, top-1", top1, "%"), TRAIN.format(f"net{number}"))
    yield Row("table 2", "types, depths, widths, strides, kernels, ratios", "three networks", "the same", tests)
    for seed in TABLE_2:
        cost = network_cost(read_network(seed.what.split(",")[0].lower()))
        yield compared(seed, (cost.macs if "MACs" in seed.what else cost.parameters) / 1e6, "closed form")
    yield from table_3(results)
    yield from table_4()
    yield from tables_5_and_6()
    for table in PAPER_TABLES:
        yield from latency_table(table, results)
    yield from search(results)


def figure_2(results: Path) -> Iterator[Row]:
    """Yield latency over the batch, and how well MACs and parameters rank latencies."""
    table = PAPER_TABLES[0]
    for name in ("ResNet-152", "EfficientNet-B0"):
        published = next(row for row in latencies(7) if row.model == name).ms_per_image
        what = f"{name}: ms/image at batch {SLOWEST} over batch {FASTEST}, from table 7"
        slow, fast = (table.estimate_ms(paper_ops(name), batch) / batch for batch in (SLOWEST, FASTEST))
        seed = Published("figure 2a", what, round(published[SLOWEST] / published[FASTEST], 1))
        yield compared(seed, slow / fast, f"estimate:{table.gpu}, {table.runtime}")
    measured = list(on_gpus(results, "blocks/figure-2a.json"))
    for device, path in measured:
        for curve in (curve for curves in Figure.load(path).curves for curve in curves.curves):
            ms = dict(zip(curve.values, curve.ms, strict=True))
            slow_ms, fast_ms = ms.get(SLOWEST), ms.get(FASTEST)
            if slow_ms and fast_ms:
                seed = Published("figure 2a", f"{curve.name}: ms/image at batch {SLOWEST} over batch {FASTEST}", None)
                yield compared(seed, slow_ms / SLOWEST / (fast_ms / FASTEST), f"measured, {device}")
    if not measured:
        what = "ResNet-50, ResNet-152, MobileNetV2, EfficientNet-B0 over the batch, 1 to 128"
        yield lacking(Published("figure 2a", what, None), f"not measured: {SESSION.format('blocks')}")
    for where, what, column in (("figure 2b", "MACs", "macs"), ("figure 2c", "parameters", "parameters")):
        seed = Published(where, f"latency over {what}: of table 7, over our {what}", _papers_rank(column), RANKS)
        for setting, found in timed_networks(results):
            known = [found[name] for name in OURS.values() if name in found]
            ranks = spearman([each["ms_per_image"] for each in known], [each[column] for each in known])
            yield compared(seed, ranks or 0.0, f"measured, {setting}, {len(known)} networks")


def _papers_rank(column: str) -> float:
    """Return the rank correlation of table 7's latencies with the MACs or parameters of the networks that can be built."""
    ms = {row.model: row.ms_per_image[FASTEST] for row in latencies(7) if row.model in OURS}
    costs = [sum(op.macs if column == "macs" else op.weights for op in paper_ops(name) if op.macs) for name in ms]
    return round(spearman(list(ms.values()), costs) or 0.0, 2)


def figure_3(results: Path) -> Iterator[Row]:
    """Yield chains of blocks: DW and BL over XX, in latency and in parameters per millisecond."""
    gpu = find_gpu("v100")

    def modelled(text: str, width: int) -> tuple[float, int]:
        ops = read_workload(with_width(text, width)).ops()
        return estimate(ops, gpu, BATCH, "fp16", "eager").ms, sum(op.weights for op in ops if op.macs)

    yield from _chains(modelled, f"estimate:{gpu.key}, eager, batch {BATCH}")
    measured = list(on_gpus(results, "blocks/figure-3.json"))
    for device, path in measured:
        known = {
            (curve.name, width): (ms or math.nan, parameters)
            for curves in Figure.load(path).curves
            for curve in curves.curves
            for width, ms, parameters in zip(curve.values, curve.ms, curve.parameters, strict=True)
        }

        def of_curve(text: str, width: int, known: dict[tuple[str, int], tuple[float, int]] = known) -> tuple[float, int]:
            return known.get((text, width), (math.nan, 0))

        yield from _chains(of_curve, f"measured, {device}")
    if not measured:
        yield lacking(Published("figure 3", "the same chains, measured", None), SESSION.format("blocks"))


def _chains(cost: Callable[[str, int], tuple[float, int]], how: str) -> Iterator[Row]:
    """Yield the four pictures at one width, given milliseconds and parameters of a chain at a width."""
    plain_ms, plain_size = cost(f"XX k3 c64 d5 @{PIXELS}", WIDTH)
    depthwise = {ratio: cost(f"DW k3 c64 d10 r{ratio} @{PIXELS}", WIDTH // ratio) for ratio in RATIOS}
    bottleneck = {ratio: cost(f"BL k3 c64 d10 r{1 / ratio:g} @{PIXELS}", WIDTH) for ratio in RATIOS}
    for letters, kind, found in (("ac", "DW", depthwise), ("bd", "BL", bottleneck)):
        shares = [f"{rounded(ms / plain_ms)} at r {1 / ratio:g}" for ratio, (ms, _) in found.items()]
        what = f"latency of 10 {kind} blocks over 5 XX blocks, width {WIDTH}"
        yield Row(f"figure 3{letters[0]}", what, NO_FIGURES, listed(shares), how)
        dense = [f"{rounded(size / ms * plain_ms / plain_size)} at r {1 / ratio:g}" for ratio, (ms, size) in found.items()]
        what = f"parameters per millisecond of {kind} blocks over those of XX blocks"
        yield Row(f"figure 3{letters[1]}", what, NO_FIGURES, listed(dense), how)
    if not math.isnan(plain_ms + bottleneck[1][0]):
        seen, verdict = ("slower", "agrees") if bottleneck[1][0] > plain_ms else ("not slower", "contradicts")
        yield Row("figure 3b", "10 BL blocks of r 1 beside 5 XX blocks", "slower", seen, how, verdict)


def figure_5(results: Path) -> Iterator[Row]:
    """Yield how many GENets no network of the paper beats, by the paper's accuracies over our latencies."""
    for table in PAPER_TABLES:
        found = estimated(table, table.batch)
        what = f"GENets that no other network beats, of 3: {_setting(table)}, from table {table.number}"
        how = f"{_how(table)}; the paper's accuracies, {len(found.ours)} networks"
        yield compared(Published("figure 5", what, _unbeaten(found.paper)), _unbeaten(found.ours), how)
    seed = Published("figure 5", "the same: V100 fp16", _unbeaten(estimated(PAPER_TABLES[0], FASTEST).paper))
    for setting, timed in timed_networks(results):
        ms = {name: timed[ours]["ms_per_image"] for name, ours in OURS.items() if ours in timed}
        yield compared(seed, _unbeaten(ms), f"measured, {setting}; the paper's accuracies, {len(ms)} networks")


def _unbeaten(ms: dict[str, float]) -> int:
    accuracy = {row.model: row.top1_percent for row in latencies(7)}
    names = list(ms)
    return len({names[place] for place in pareto_positions([(1 / ms[name], accuracy[name]) for name in names])} & {*GENETS})


def table_3(results: Path) -> Iterator[Row]:
    """Yield speed-ups: ratios of estimates, and measured ones."""
    for ours, other, times in TABLE_3:
        if other not in OURS:
            what = f"{other} over {ours}: V100 fp16, T4 fp16, T4 int8"
            yield Row("table 3", what, listed([f"{each:g}" for each in times]), "none yet", NOT_TO_BE_HAD)
            continue
        seeds = []
        for table, value in zip(PAPER_TABLES, times, strict=True):
            seeds.append(Published("table 3", f"{other} over {ours}, {_setting(table)}", value))
            found = estimated(table, table.batch).ours
            yield compared(seeds[-1], found[other] / found[ours], f"estimate:{table.gpu}")
        for setting, timed in timed_networks(results):
            if {OURS[ours], OURS[other]} <= set(timed):
                ratio = timed[OURS[other]]["ms_per_image"] / timed[OURS[ours]]["ms_per_image"]
                yield compared(seeds[0], ratio, f"measured, {setting}")
    seen = "those of tables 7 to 9, but for RegNetY-600MF on the V100 0.31 ms/image"
    yield Row("table 3", "accuracies and latencies", seen, "see there", "as there")


def table_4() -> Iterator[Row]:
    """Yield accuracies by kernel and resolution, which need ImageNet."""
    why = f"{IMAGENET}`genet run genet-imagenet --data IMAGENET` trains what it selects at three resolutions"
    for budget in dict.fromkeys(row[0] for row in TABLE_4):
        found = [f"{kernel}x{kernel} at {pixels}: {top1:g}" for at, kernel, pixels, top1 in TABLE_4 if at == budget]
        yield Row("table 4", f"top-1 by kernel and pixels, {budget:g} ms/image", f"{listed(found)} %", "none yet", why)


def tables_5_and_6() -> Iterator[Row]:
    """Yield the convolutions of ProfilingNet-132, and latencies of the twenty designs, whose accuracies need ImageNet."""
    convolutions = [op for op in network_ops(read_network("profilingnet-132")) if op.kind == "conv"]
    dense = sum(op.kernel == (3, 3) for op in convolutions)
    how = f"counted in what table 5 prints, beside {len(convolutions) - dense} of 1x1"
    yield compared(PROFILING_NET, dense, how)
    table = PAPER_TABLES[0]
    for number in range(1, len(TABLE_6) + 1):
        ms = table.estimate_ms(network_ops(read_network(f"net{number}")), table.batch) / table.batch
        seed = Published(
            "table 6", f"Net{number}, V100, batch {table.batch}, as designed (section 4.1)", DESIGNED_FOR, "ms/image"
        )
        yield compared(seed, estimated(table, table.batch).factor * ms, _how(table))
    what = f"top-1 of Net1 to Net{len(TABLE_6)}"
    yield Row("table 6", what, f"{listed([f'{top1:g}' for top1 in TABLE_6])} %", "none yet", TRAIN.format("netN"))


def latency_table(table: PaperTable, results: Path) -> Iterator[Row]:
    """Yield a latency table: agreement at every batch, every network at the last, and what was measured on other GPUs."""
    where = f"table {table.number}"
    for batch in latencies(table.number)[0].ms_per_image:
        found = estimated(table, batch)
        what = f"{_setting(table)}, batch {batch}: {len(found.ours)} of {len(found.paper)} networks"
        yield Row(where, what, f"{len(found.paper)} latencies", found.agreement, f"estimate:{table.gpu} x {found.factor:.2f}")
    found = estimated(table, table.batch)
    for name, ms in found.paper.items():
        seed = Published(where, f"{name}, batch {table.batch}", ms, "ms/image")
        yield compared(seed, found.ours[name], _how(table)) if name in found.ours else lacking(seed, NOT_TO_BE_HAD)
    tops = [row.top1_percent for row in latencies(table.number)]
    seen = f"{min(tops):g} to {max(tops):g} %"
    yield Row(where, f"top-1 of its {len(tops)} networks", seen, "none yet", f"{IMAGENET}as published in figure 5")
    if table.number != 7:
        command = "genet latency EXPORT" if table.dtype == "int8" else "genet latency NETWORK --runtime tensorrt --dtype fp16"
        why = f"no T4 at hand: `{command} --batch {table.batch}` on one"
        yield lacking(Published(where, "measured on a T4", None), why)
        return
    for setting, timed in timed_networks(results):
        for name, ours in OURS.items():
            if ours in timed:
                seed = Published(where, f"{name}, batch {table.batch}", found.paper[name], "ms/image")
                yield compared(seed, timed[ours]["ms_per_image"], f"measured, {setting}")


def search(results: Path) -> Iterator[Row]:
    """Yield the cost of the search: the paper's on ImageNet, ours on what it was run on."""
    yield lacking(SEARCH, "not run on ImageNet: `genet run genet-imagenet --data IMAGENET`")
    for path in sorted(results.glob("*/job/attempts.jsonl")):
        for attempt in last_of_each(read_attempts(path.parent)).values():
            if attempt.status == "done":
                hours = f"{rounded(attempt.seconds / 3600)} {SEARCH.unit}"
                how = f"measured, {path.parents[1].name}; another task, so no difference"
                yield Row(SEARCH.where, "a search on CIFAR-10, race included", "none", hours, how)


def _setting(table: PaperTable) -> str:
    return f"{table.gpu.upper()} {table.dtype}"


def _how(table: PaperTable) -> str:
    return f"estimate:{table.gpu} x {estimated(table, table.batch).factor:.2f}"
