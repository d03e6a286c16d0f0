"""The utilization paper's figures, survey and searches beside ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

from wave_model import paper_ops

from genet.config.reader import read_network
from genet.latency.estimate.analytic import estimate, scale_of
from genet.latency.estimate.gpus import find_gpu
from genet.latency.naming import structure_named
from genet.latency.ops import Op, network_ops
from genet.latency.workload import workload_of
from genet.statistics import spearman
from genet.storage import Journal
from genet.studies.filter.bench import Bench, read_bench
from genet.studies.filter.study import (
    Predicate,
    Reward,
    filtering_cost,
    predicate_frontier,
    search_by_filtering,
    search_by_sampling,
)
from genet.studies.fold import fold
from genet.studies.survey.survey import Surveyed, frontiers
from genet.studies.tables import read_table
from papers import Published
from papers.beside import NO_FIGURES, RANKS, Row, compared, lacking, listed, rounded
from papers.evidence import SESSION, on_gpus
from papers.utilization import FOLDED, LEFT, ON_ALL, PEAK_TFLOPS, RATIO, REWARD_POWER, SEEDS, SURVEYED, survey

APPENDIX = "table of appendix A"
BATCH = 256  # of estimates; the paper took the largest that fits
STACK = 4  # images that become one
SURVEY = "`genet survey --preset paper --device estimate:v100 --dtype fp16 --runtime tensorrt`"
# Networks that take no time to estimate: our own, at the survey's resolution, and those of which other rows need the kernels.
OWN = {"gernet_s": ("genet-light", 224), "gernet_m": ("genet-normal", 224), "gernet_l": ("genet-large", 256)}
TRACED = {"efficientnet_b0": "EfficientNet-B0", "regnety_002": "RegNetY-200MF", "regnety_006": "RegNetY-600MF"}
TRACED |= {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}
PAIRS = {"1a": "throughput_accuracy", "1b": "throughput_utilization", "1c": "utilization_accuracy"}


def rows(results: Path) -> Iterator[Row]:
    """Yield figures 1 to 6, the survey's table, and what filtering leaves."""
    yield from figure_1(results)
    yield from survey_table(results)
    yield from figure_2(results)
    yield from searches(read_bench(results / "filtering" / "space.csv"))


def surveys(results: Path) -> Iterator[tuple[str, tuple[Surveyed, ...]]]:
    """Yield what was surveyed here, by device."""
    here = read_table(results / "survey" / "cpu.csv", Surveyed, ("model",))
    yield "measured, a CPU, fp32, batch 8 (`benchmarks/results/survey/cpu.csv`)", here
    for device, path in on_gpus(results, "survey/survey.jsonl"):
        found = [record["row"] for record in Journal(path).read().records if record.get("row")]
        yield f"measured, {device}", tuple(Surveyed.model_validate(row) for row in found)


def figure_1(results: Path) -> Iterator[Row]:
    """Yield the frontiers, the range of utilization, and its agreement with accuracy."""
    published = frontiers(survey())
    how = f"published data: {len(survey())} networks of the survey, this project's frontiers"
    yield compared(ON_ALL, len(published.on_all), f"{how}: {listed(list(published.on_all))}")
    shares = [100 * row.tflops_per_sec / PEAK_TFLOPS for row in survey()]
    agreement = spearman(shares, [row.top1_percent or 0.0 for row in survey()]) or 0.0
    seed = Published("figure 1c", "utilization and accuracy, from the survey", round(agreement, 2), RANKS)
    for how, found in surveys(results):
        ours = frontiers(found)
        yield compared(ON_ALL, len(ours.on_all), f"{how}, {len(found)} networks: {listed(list(ours.on_all))}")
        for part, pair in PAIRS.items():
            what = f"networks on the frontier of {pair.replace('_', ' and ')}"
            theirs, here = (listed(list(getattr(each, pair))) for each in (published, ours))
            yield Row(f"figure {part}", what, theirs, here, how)
        known = [(100 * row.utilization, row.top1_percent) for row in found if row.utilization and row.top1_percent]
        own, accuracies = (list(column) for column in zip(*known, strict=True))
        yield compared(seed, spearman(own, accuracies) or 0.0, f"{how}, {len(known)} networks")
        theirs, here = (f"{min(each):.0f} to {max(each):.0f} %" for each in (shares, own))
        yield Row("figure 1b", "utilization, least to most, from the survey", theirs, here, how)


def survey_table(results: Path) -> Iterator[Row]:
    """Yield the survey's networks: estimates of those that take no time, and what was measured."""
    yield compared(SURVEYED, len(survey()), "published data: those with accuracy, images/s and TFLOP/s")
    named, gpu = {row.model: row for row in survey()}, find_gpu("v100")
    raw = {name: estimate(_ops(name), gpu, BATCH, "fp16", "tensorrt").ms for name in (*OWN, *TRACED)}
    factor = scale_of([1e3 * BATCH / named[name].images_per_sec for name in raw], list(raw.values()))
    for name, ms in raw.items():
        seed = Published(APPENDIX, f"{name}, V100, TensorRT, fp16", named[name].images_per_sec, "images/s")
        yield compared(seed, 1e3 * BATCH / (factor * ms), f"estimate:v100 x {factor:.2f}, batch {BATCH}")
    rest = [row for row in survey() if row.model not in raw]
    speeds, rates = ([getattr(row, name) for row in rest] for name in ("images_per_sec", "tflops_per_sec"))
    what = f"the other {len(rest)} networks (`benchmarks/papers/utilization_survey.csv`)"
    seen = f"{min(speeds):,.0f} to {max(speeds):,.0f} images/s, {min(rates):g} to {max(rates):g} TFLOP/s"
    yield Row(APPENDIX, what, seen, "none yet", f"an estimate: {SURVEY}")
    for how, found in surveys(results):
        for row in found:
            if row.model in named and row.utilization:
                share = 100 * named[row.model].tflops_per_sec / PEAK_TFLOPS
                yield compared(Published(APPENDIX, f"{row.model}, utilization, V100", share, "%"), 100 * row.utilization, how)
    if not list(on_gpus(results, "survey/survey.jsonl")):
        yield lacking(Published(APPENDIX, "the networks, measured on a GPU", None), SESSION.format("survey"))


def _ops(name: str) -> tuple[Op, ...]:
    if name in TRACED:
        return paper_ops(TRACED[name])
    network, size = read_network(OWN[name][0]), OWN[name][1]
    return network_ops(network.model_copy(update={"input": network.input.model_copy(update={"resolution": size})}))


def figure_2(results: Path) -> Iterator[Row]:
    """Yield the ratio of a V100, intensities, and what folding gives."""
    gpu = find_gpu("v100")
    ratio = 1e3 * (gpu.fp16_tensor_tflops or 0.0) / gpu.bandwidth_gbs
    yield compared(RATIO, ratio, "data sheet")
    for how, found in surveys(results):
        above = sum(row.intensity > ratio for row in found if row.intensity)
        yield Row("figure 2a", "networks of more FLOP/byte than that", NO_FIGURES, f"{above} of {len(found)}", how)
    folded = workload_of(fold(structure_named("timm:efficientnet_b0", 224, None), STACK)).ops()
    before = estimate(paper_ops("EfficientNet-B0"), gpu, BATCH, "fp16", "tensorrt").ms
    after = estimate(folded, gpu, BATCH // STACK, "fp16", "tensorrt").ms
    yield compared(FOLDED, before / after, f"estimate:v100, tensorrt, efficientnet_b0, batch {BATCH}")
    measured = list(on_gpus(results, "fold/fold.json"))
    for device, path in measured:
        for each in json.loads(path.read_text())["networks"]:
            seed = Published(FOLDED.where, f"the same, {each['network']}", FOLDED.value)
            yield compared(seed, each["speed"], f"measured, {device}")
    if not measured:
        why = f"{SESSION.format('fold')}; of a CPU there is a picture alone, `benchmarks/results/fold/cpu.svg`"
        yield lacking(Published(FOLDED.where, "the same, measured on a GPU", FOLDED.value), why)


def searches(bench: Bench) -> Iterator[Row]:
    """Yield section 4 on the space that was trained and timed here: 1,024 networks of five widths, digits, a CPU."""
    how = f"measured, a CPU: {len(bench.rows):,} networks trained on digits (`benchmarks/results/filtering`), not NATS-Bench"
    ranks = spearman([row.utilization for row in bench.rows], [row.top1_percent for row in bench.rows]) or 0.0
    verdict = "agrees" if ranks > 0 else "contradicts"
    yield Row("figure 3", "accuracy rises with utilization (Spearman)", "yes", f"{ranks:+.2f}", how, verdict)
    predicates: tuple[Predicate, ...] = ("utilization", "FLOPs")
    for name in predicates:
        yield compared(LEFT[name], 100 * len(predicate_frontier(bench.rows, name)) / len(bench.rows), how)
    budget, true = filtering_cost(bench, "utilization"), {row.network for row in bench.true_frontier}
    found = search_by_filtering(bench, "utilization", budget, 0)
    hits = f"{len(true & set(found.frontier))} of its {len(true)} networks"
    seen = f"{rounded(100 * found.hypervolume)} % of the true frontier's area, {hits}"
    yield Row("figure 4", "the frontier by utilization beside the true one", "close, with spurious networks", seen, how)
    what = "what filtering by utilization returns once its networks are trained"
    yield Row("figure 5", what, "close, fewer networks", seen, how)
    speeds = sorted(row.images_per_sec for row in bench.rows)
    reward = Reward(speeds[len(speeds) // 2], REWARD_POWER)
    areas = [100 * search_by_sampling(bench, "REINFORCE", reward, budget, seed).hypervolume for seed in range(SEEDS)]
    area = f"{rounded(fmean(areas))} ± {rounded(stdev(areas))} % of the true frontier's area, {rounded(min(areas))} % at worst"
    what = f"REINFORCE, {SEEDS} seeds, as long, throughput to the power {REWARD_POWER:g}"
    yield Row("figure 6", what, "close, one seed worse", area, how)
    ahead = f"{100 * found.hypervolume - fmean(areas):+.1f} points of the area"
    yield Row("section 4.5", "filtering by utilization against REINFORCE", "no significant gain", ahead, how)
    why = "its file is not at hand: `pip install -e '.[nats]'`, `genet filter --nats FILE --budget 110000`"
    yield lacking(Published("section 4.5", "both on NATS-Bench's size space, 110,000 s", None), why)
