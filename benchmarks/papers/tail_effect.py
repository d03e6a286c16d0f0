"""Figures of the tail-effect paper (Yu et al., MLSys 2021, arXiv 2011.03897)."""

from __future__ import annotations

from dataclasses import dataclass

from papers import Published

# Table 1, with our key of each GPU: multiprocessors (none is printed for the Nano), peak TFLOP/s.
TABLE_1 = (
    ("titan-v", "Titan-V", 80, 14.9),
    ("p6000", "Quadro P6000", 30, 12.0),
    ("jetson-nano", "Jetson Nano", None, 0.24),
)


@dataclass(frozen=True)
class Configuration:
    """One line of tables 2, 4 and 5: million parameters and MACs (called FLOPs), accuracy, milliseconds per batch."""

    parameters: float
    macs: float | None
    top1_percent: float
    ms: float


@dataclass(frozen=True)
class Pruned:
    """A pruned network as it was, and what alignment made of it; `widths` names ours, `change` is the latency's, as printed."""

    name: str
    widths: str
    before: Configuration
    after: tuple[tuple[Configuration, float], ...]


HRANK_VGG16 = Configuration(1.90, 67.0, 93.1, 2.50)
HRANK_RESNET56 = Configuration(0.48, 65.9, 93.6, 4.20)
TABLE_2 = (
    Pruned("VGG16, HRank", "hrank-vgg16", HRANK_VGG16, ((Configuration(2.85, 104.1, 92.9, 2.05), -17.7),)),
    Pruned(
        "ResNet-56, HRank",
        "hrank-resnet56",
        HRANK_RESNET56,
        ((Configuration(0.50, 79.1, 93.8, 3.72), -11.3), (Configuration(0.50, 75.1, 93.5, 3.51), -16.3)),
    ),
    Pruned(
        "ResNet-56, SOFT-1",
        "sfp30-resnet56",
        Configuration(0.53, 68.8, 93.1, 4.08),
        ((Configuration(0.43, 71.4, 93.2, 3.52), -13.7),),
    ),
    Pruned(
        "ResNet-56, SOFT-2",
        "sfp40-resnet56",
        Configuration(0.45, 53.1, 92.3, 3.64),
        ((Configuration(0.43, 66.0, 92.3, 3.01), -17.3),),
    ),
)
# Its FLOP/s, Titan-V at batch 128: TFLOP/s before and after.
THROUGHPUT_2 = {"hrank-vgg16": (2.41, 3.90), "hrank-resnet56": (0.83, 1.00), "sfp30-resnet56": (0.88, 0.91)}
THROUGHPUT_2 |= {"sfp40-resnet56": (0.68, 0.79)}


@dataclass(frozen=True)
class Grown:
    """One EfficientNet of table 3: top-1 before and after; per GPU milliseconds at batch 1 and GFLOP/s, before and after."""

    name: str
    top1_percent: tuple[float, float]
    titan_v: tuple[float, float, float, float]
    p6000: tuple[float, float, float, float]


TABLE_3 = (
    Grown("efficientnet_b0", (77.52, 81.49), (12.6, 12.7, 61.9, 414.2), (13.8, 14.1, 56.5, 373.0)),
    Grown("efficientnet_b1", (79.38, 82.08), (17.8, 18.0, 78.7, 442.7), (19.8, 19.9, 70.7, 396.0)),
    Grown("efficientnet_b2", (80.18, 82.72), (18.2, 18.4, 109.9, 547.3), (19.9, 20.4, 100.5, 488.2)),
)


@dataclass(frozen=True)
class Elsewhere:
    """A pruned network of tables 4 and 5: our widths and key of the GPU, figures before and after, the latency's change."""

    where: str
    what: str
    widths: str | None
    gpu: str
    parameters: tuple[float, float]
    gflops: tuple[float, float]
    top1_percent: tuple[float, float]
    ms: float
    change: float


NANO, VGG16, RESNET56 = "jetson-nano", "hrank-vgg16", "hrank-resnet56"
ELSEWHERE = (
    Elsewhere("table 4", "VGG16, HRank, P6000", VGG16, "p6000", (1.90, 2.04), (1680, 1860), (93.1, 92.9), 4.15, -27.2),
    Elsewhere("table 4", "ResNet-56, HRank, P6000", RESNET56, "p6000", (0.48, 0.50), (840, 1000), (93.6, 93.7), 5.84, -9.0),
    Elsewhere("table 5", "VGG16, HRank, Nano", VGG16, NANO, (1.90, 2.04), (35.5, 39.4), (93.1, 92.9), 60.5, -20.5),
    Elsewhere("table 5", "ResNet-56, HRank-1, Nano", RESNET56, NANO, (0.48, 0.50), (25.6, 28.8), (93.6, 93.7), 82.1, -17.1),
    Elsewhere("table 5", "ResNet-56, HRank-2, Nano", None, NANO, (0.24, 0.39), (16.7, 24.3), (92.3, 92.5), 67.2, -13.3),
)
CORES = Published("figure 2", "a drawing of the Titan-V: 5,120 cores in so many multiprocessors", 80)
STEP = Published("figure 5", "filters from one step of the latency to the next, Titan-V, one filter per thread block", 80)
# Figure 6: the edges of the middle tread.
UTILIZATION_6 = (
    Published("figure 6", "utilization behind a step, Titan-V", 73, "%"),
    Published("figure 6", "utilization before the next step, Titan-V", 93, "%"),
)
THROUGHPUT_6 = Published(
    "figure 6", "throughput before the next step, 11.8 TFLOP/s, over that behind the last, 8.5", round(11.8 / 8.5, 2)
)
FIGURE_7 = (-17.7, (93.1, 92.9))  # VGG16 pruned by HRank: change of latency, accuracy before and after
# Figures 9 to 11: what they show.
SHOWN = {
    9: "a staircase at every batch size, higher at larger ones; more steps with more filters",
    10: "a staircase at every resolution",
    11: "a staircase for dense 1x1, 3x3 and 5x5 filters, a nearly straight line for depthwise ones",
}
