"""How good is the analytic device model? Held against published timings that none of its constants were fitted to.

    python benchmarks/wave_model.py --data FOLDER --papers FOLDER      (2 to 3 minutes on one CPU core)

FOLDER of data: timm_benchmark_rtx3090_amp_nhwc.csv (timm's results) and v100_tensorrt_fp16_conv.csv.gz (the layer timings
of Alibaba's TinyNAS as CSV). FOLDER of papers: the GENet paper's tables 7 to 9 as CSV. Writes benchmarks/results/wave_model.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import timm
import torch
from scipy.stats import spearmanr
from timm.models.efficientnet import _gen_mobilenet_v2
from torch import nn

from genet.arch.layers import Conv
from genet.config.reader import read_network
from genet.config.recipe import Dtype, Runtime
from genet.latency.estimate.analytic import LAUNCH_MS, TILES, estimate, scale_of, tiled
from genet.latency.estimate.gpus import find_gpu
from genet.latency.estimate.residual import LearnedCorrection, TimedKernels
from genet.latency.ops import Op, conv_op, network_ops
from genet.latency.trace import module_ops
from genet.storage import write_atomic

RTX3090, LAYERS = "timm_benchmark_rtx3090_amp_nhwc.csv", "v100_tensorrt_fp16_conv.csv.gz"
NETWORKS = Path(__file__).parent.parent / "search_spaces" / "networks"
BATCH = 64  # of the layers whose steps are compared
EVERY = 3  # of timm's rows, for the time it takes to trace them all
OTHER_NORMS = (nn.GroupNorm, nn.LayerNorm)
TIMM = {"ResNet-18": "resnet18", "ResNet-34": "resnet34", "ResNet-50": "resnet50", "ResNet-152": "resnet152"}
TIMM |= {f"RegNetY-{mega}00MF": f"regnety_00{mega}" for mega in (2, 4, 6, 8)} | {"MnasNet-1.0": "mnasnet_100"}
EFFICIENTNETS = {"EfficientNet-B0": 224, "EfficientNet-B1": 240, "EfficientNet-B2": 260, "EfficientNet-B3": 300}


@dataclass(frozen=True)
class Score:
    """Agreement of an estimate with measurements: rank correlation, the scale, and relative errors after it."""

    count: int
    spearman: float
    scale: float
    mean_error: float
    median_error: float
    worst: str


@dataclass(frozen=True)
class PaperTable:
    """A table of the GENet paper: its file, its setting, and the batch of its last column."""

    number: int
    file: str
    gpu: str
    dtype: Dtype
    runtime: Runtime
    batch: int

    def estimate_ms(self, ops: Sequence[Op], batch: int) -> float:
        """Milliseconds per batch in the table's setting."""
        return estimate(ops, find_gpu(self.gpu), batch, self.dtype, self.runtime).ms

    def __str__(self) -> str:
        return f"GENet paper, table {self.number}: {self.gpu.upper()}, {self.dtype}, {self.runtime}, batch {self.batch}"


PAPER_TABLES = (
    PaperTable(7, "genet_table7_v100_fp16.csv", "v100", "fp16", "eager", 64),
    PaperTable(8, "genet_table8_t4_tensorrt_fp16.csv", "t4", "fp16", "tensorrt", 32),
    PaperTable(9, "genet_table9_t4_tensorrt_int8.csv", "t4", "int8", "tensorrt", 32),
)


def main() -> None:
    """Score the tables and write the page."""
    parser = argparse.ArgumentParser(description="Score the analytic device model on published timings.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--papers", type=Path, required=True)
    given = parser.parse_args()
    needed = [given.data / RTX3090, given.data / LAYERS, *(given.papers / table.file for table in PAPER_TABLES)]
    missing = [path for path in needed if not path.is_file()]
    if missing:
        raise SystemExit(f"the benchmark needs {missing[0]}, which is not there; give the folder that has it")
    warnings.simplefilter("ignore")
    page = "\n".join([*networks_page(given.papers, given.data / RTX3090), *layers_page(given.data / LAYERS)])
    write_atomic(Path(__file__).parent / "results" / "wave_model.md", (page + "\n").encode())
    print(page)


def networks_page(papers: Path, rtx3090: Path) -> list[str]:
    """Whole networks: order, and error after one scale factor."""
    lines = ["# The analytic device model against published timings", "", "Written by `benchmarks/wave_model.py`.", ""]
    lines += ["| whole networks | n | Spearman | scale | mean error | median error | furthest |", "|---|---|---|---|---|---|---|"]
    lines += [_row(str(table), score_table(papers / table.file, table)) for table in PAPER_TABLES]
    plain, wide = score_rtx3090(rtx3090)
    lines += [_row("timm's RTX 3090, amp, channels_last, own batch and size: plain CNNs", plain)]
    lines += [_row("the same, all without attention and grouped convolution", wide), ""]
    lines += ["One scale factor per table, the median of measured over estimated; no constant was fitted to a network.", ""]
    lines += [
        "Table 7: the host's 40 us per operation are read off the table's batch-1 column. Swish counts as two kernels and a"
    ]
    lines += ["grouped convolution as one launch per group, as in PyTorch and cuDNN of 2020."]
    lines += ["Tables 8 and 9: a kernel's 20 us are read off their batch-1 columns; that swish is a pass by itself, off table 8."]
    lines += [
        f"RTX 3090: every {EVERY}rd row of timm's file. Plain CNNs have batch normalisation only, dense or depthwise convolutions"
    ]
    lines += [
        "and beside them gates (multiplications) and concatenations; the rule was drawn up after the wider set's errors were"
    ]
    lines += ["seen. Mixed precision runs group and layer normalisation in fp32, which the model does not know."]
    return lines


def score_table(path: Path, table: PaperTable) -> Score:
    """One of the paper's tables at its largest batch, the networks that are to be had."""
    names, measured, estimated = [], [], []
    for row in csv.DictReader(path.read_text().splitlines()):
        ops = paper_ops(row["model"])
        if ops:
            names.append(row["model"])
            measured.append(table.batch * float(row[f"ms_per_image_b{table.batch}"]))
            estimated.append(table.estimate_ms(ops, table.batch))
    return score(names, measured, estimated)


@cache
def paper_ops(name: str) -> tuple[Op, ...]:
    """The kernels of a network of the paper's table; none where neither timm nor the project has it."""
    if name.startswith("GENet-"):
        return network_ops(read_network(NETWORKS / f"{name.lower()}.yaml"))
    size = EFFICIENTNETS.get(name, 224)
    with torch.device("meta"):
        if name in TIMM:
            module = timm.create_model(TIMM[name])
        elif name in EFFICIENTNETS:
            module = timm.create_model(name.lower().replace("-", "_"))
        elif name.startswith("MobileNetV2-"):
            module = _gen_mobilenet_v2("mobilenetv2_100", float(name.removeprefix("MobileNetV2-")))
        else:
            return ()
    return module_ops(module, (3, size, size))


def score_rtx3090(path: Path) -> tuple[Score, Score]:
    """timm's own figures, per image, for batches differ: on plain CNNs, and on all without attention and grouped convolution."""
    found: list[tuple[bool, str, float, float]] = []
    for row in list(csv.DictReader(path.read_text().splitlines()))[::EVERY]:
        size, batch = int(row["infer_img_size"]), int(row["infer_batch_size"])
        ops, plain = cnn_ops(row["model"].split(".")[0], size)
        if ops:
            estimated = estimate(ops, find_gpu("rtx-3090"), batch, "fp16", "eager").ms / batch
            found.append((plain, row["model"], float(row["infer_step_time"]) / batch, estimated))
    narrow = [row for row in found if row[0]]
    return tuple(score(*map(list, zip(*(row[1:] for row in rows), strict=True))) for rows in (narrow, found))  # type: ignore


def cnn_ops(name: str, size: int) -> tuple[tuple[Op, ...], bool]:
    """The kernels of a timm model without attention and grouped convolution, none for others; and whether it is a plain CNN.

    Plain: batch normalisation only, and beside convolutions only gates (multiplications) and concatenations.
    """
    if not timm.is_model(name):
        return (), False
    with torch.device("meta"):
        module = timm.create_model(name)
    try:
        ops = module_ops(module, (3, size, size))
    except (RuntimeError, AssertionError, ValueError):  # a model of one fixed size, or one that computes on the host
        return (), False
    others = {op.name.rsplit(".")[-1] for op in ops if op.kind == "other"}
    attends = "_softmax" in others or any(op.kind == "product" for op in ops)
    if attends or any(op.kind == "conv" and op.groups > 1 and not op.depthwise for op in ops):
        return (), False
    return ops, not (others - {"mul", "cat"} or any(isinstance(layer, OTHER_NORMS) for layer in module.modules()))


def layers_page(path: Path) -> list[str]:
    """Single dense convolutions: what the waves are worth, the steps they make, and what a residual adds."""
    rows, smooth = read_layers(path)
    count = f"{len(rows)} dense convolutions, V100, TensorRT, fp16"
    lines = ["", f"| {count} | Spearman | scale | mean error | median error |", "|---|---|---|---|---|"]
    for name, estimated in (("whole waves", [row.estimated_ms for row in rows]), ("last wave by its fill", smooth)):
        found = score([], [row.measured_ms for row in rows], estimated)
        errors = f"{found.scale:.2f} | {found.mean_error:.1%} | {found.median_error:.1%}"
        lines.append(f"| {name} | {found.spearman:.3f} | {errors} |")
    ranks = steps(rows, [row.estimated_ms for row in rows]), steps(rows, smooth)
    lines += ["", f"Steps from width to width (batch 64, up to 8 px, {ranks[0][1]} steps), Spearman of measured and estimated:"]
    lines += [f"{ranks[0][0]:.2f} with whole waves, {ranks[1][0]:.2f} without.", ""]
    lines += ["| residual learned from | mean error on 4,000 other layers | median error |", "|---|---|---|"]
    random.Random(0).shuffle(rows)
    for known in (300, 1000):
        errors_left = residual_errors(rows[:known], rows[-4000:])
        lines.append(f"| {known} layers | {fmean(errors_left):.1%} | {median(errors_left):.1%} |")
    return lines


def read_layers(path: Path) -> tuple[list[TimedKernels], list[float]]:
    """The dense rows with their estimates, and the estimates in which a last wave costs only its filled share."""
    gpu, rows, smooth = find_gpu("v100"), [], []
    with gzip.open(path, "rt") as lines:
        for row in csv.DictReader(lines):
            if row["conv"] != "Regular":
                continue
            width, out_width, kernel, stride = (int(row[key]) for key in ("in_channels", "out_channels", "kernel", "stride"))
            conv, batch = Conv("", width, out_width, kernel, stride, 1, int(row["in_size"])), int(row["batch"])
            op = conv_op(conv, row["add_fused"])
            op = replace(op, read=op.read + int(row["add_fused"]) * op.written)
            ms = estimate([op], gpu, batch, "fp16", "tensorrt").ms
            rows.append(TimedKernels((op,), batch, float(row["latency_ms"]), ms))
            compute = min(total - lost for total, _, lost in (tiled(op, gpu, batch, "fp16", tile) for tile in TILES))
            smooth.append(LAUNCH_MS + max(compute, op.bytes(batch, 2) / gpu.bandwidth_gbs * 1e-6))
    return rows, smooth


def steps(rows: Sequence[TimedKernels], estimated: Sequence[float]) -> tuple[float, int]:
    """Rank correlation of the latency's ratios between neighbouring widths of one layer, at the end of a network."""
    layers: dict[tuple[object, ...], list[tuple[int, float, float]]] = {}
    for row, ms in zip(rows, estimated, strict=True):
        op = row.ops[0]
        if row.batch == BATCH and op.rows <= 64:
            key = (op.in_width, op.kernel, op.rows, op.read - (op.name == "1") * op.written, op.name)
            layers.setdefault(key, []).append((op.width, row.measured_ms, ms))
    pairs = [(a, b) for layer in layers.values() for a, b in pairwise(sorted(layer)) if a[0] < b[0]]
    ranks = spearmanr([b[1] / a[1] for a, b in pairs], [b[2] / a[2] for a, b in pairs])
    return float(ranks.statistic), len(pairs)


def residual_errors(known: Sequence[TimedKernels], asked: Sequence[TimedKernels]) -> list[float]:
    """Relative errors on layers the residual has not seen."""
    factors = LearnedCorrection(known).factors([(row.ops, row.batch) for row in asked])
    return [abs(row.estimated_ms * factor / row.measured_ms - 1) for row, factor in zip(asked, factors, strict=True)]


def score(names: Sequence[str], measured: Sequence[float], estimated: Sequence[float], scale: float | None = None) -> Score:
    """The score of estimates; with a scale given they are scaled already."""
    factor = scale_of(measured, estimated) if scale is None else 1.0
    errors = [factor * guess / true - 1 for true, guess in zip(measured, estimated, strict=True)]
    worst = max(zip(errors, names, strict=True), key=lambda pair: abs(pair[0])) if names else None
    sizes = [abs(error) for error in errors]
    furthest = "" if worst is None else f"{worst[1]} {worst[0]:+.0%}"
    ranks = float(spearmanr(measured, estimated).statistic)
    return Score(len(errors), ranks, scale or factor, fmean(sizes), median(sizes), furthest)


def _row(name: str, found: Score) -> str:
    errors = f"{found.mean_error:.1%} | {found.median_error:.1%} | {found.worst}"
    return f"| {name} | {found.count} | {found.spearman:.3f} | {found.scale:.2f} | {errors} |"


if __name__ == "__main__":
    main()
