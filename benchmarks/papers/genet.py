"""Figures of GENet (Lin et al., 2020, arXiv 2006.14090). Its tables 7 to 9 lie beside this module as CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from papers import Published

# Our names of its networks; neither timm nor this project has the others (DNANet, DFNet, OFANet).
OURS = {
    "GENet-light": "genet-light",
    "GENet-normal": "genet-normal",
    "GENet-large": "genet-large",
    "ResNet-34": "timm:resnet34",
    "ResNet-152": "timm:resnet152",
    "RegNetY-200MF": "timm:regnety_002",
    "RegNetY-600MF": "timm:regnety_006",
    "MobileNetV2-1.4": "timm:mobilenetv2_140",
    "EfficientNet-B0": "timm:efficientnet_b0",
    "EfficientNet-B2": "timm:efficientnet_b2",
    "EfficientNet-B3": "timm:efficientnet_b3",
}
GENETS = ("GENet-light", "GENet-normal", "GENet-large")

# Table 1 has the first four of table 6's networks: top-1 after 120 epochs. Section 4.1: all take about 0.34 ms/image.
TABLE_6 = (77.6, 77.6, 77.5, 77.4, 77.4, 77.3, 77.3, 77.2, 77.1, 77.0, 76.9, 76.9, 76.8, 76.7, 76.6, 76.5, 76.3, 76.0, 76.0, 75.8)
IN_TABLE_1 = 4
DESIGNED_FOR = 0.34

TABLE_2 = (
    Published("table 2", "GENet-light, FLOPs at 192 pixels, which are MACs", 552, "M"),
    Published("table 2", "GENet-normal, FLOPs at 192 pixels, which are MACs", 2200, "M"),
    Published("table 2", "GENet-large, FLOPs at 256 pixels, which are MACs", 4600, "M"),
    Published("table 2", "GENet-light, parameters", 8.17, "M"),
    Published("table 2", "GENet-normal, parameters", 21, "M"),
    Published("table 2", "GENet-large, parameters", 31, "M"),
)

# Table 3: how many times as long as the GENet of about the same accuracy: V100 fp16 at batch 64, T4 fp16 and int8 at batch 32.
TABLE_3 = (
    ("GENet-light", "ResNet-34", (2.2, 2.3, 1.9)),
    ("GENet-light", "RegNetY-600MF", (3.1, 2.0, 2.2)),
    ("GENet-light", "MobileNetV2-1.4", (2.4, 2.1, 2.0)),
    ("GENet-light", "DNANet-2a", (1.9, 1.7, 1.6)),
    ("GENet-light", "OFANet-9ms", (1.4, 1.5, 1.5)),
    ("GENet-normal", "ResNet-152", (4.7, 4.2, 3.7)),
    ("GENet-normal", "EfficientNet-B2", (3.2, 5.3, 6.8)),
    ("GENet-normal", "OFANet-595M", (2.1, 2.8, 4.2)),
    ("GENet-large", "EfficientNet-B3", (3.3, 5.4, 6.4)),
)

# Table 4: budget in ms/image, kernel, pixels, top-1. It prints 3x3 at 224 pixels twice.
TABLE_4 = (
    (0.34, 5, 192, 78.9),
    (0.34, 5, 224, 79.2),
    (0.34, 5, 288, 78.9),
    (0.34, 3, 192, 79.7),
    (0.34, 3, 224, 79.7),
    (0.34, 3, 256, 79.8),
    (0.34, 3, 288, 79.1),
    (0.20, 5, 192, 77.1),
    (0.20, 5, 224, 77.5),
    (0.20, 3, 160, 77.6),
    (0.20, 3, 192, 78.2),
    (0.20, 3, 224, 77.7),
    (0.20, 3, 224, 77.7),
    (0.20, 3, 256, 77.7),
)
PROFILING_NET = Published("table 5", "ProfilingNet-132, 3x3 convolutions (section 3.3)", 132)
SEARCH = Published("section 5", "cost of the search, 24 V100 for 60 hours", 24 * 60, "GPU hours")


@dataclass(frozen=True)
class Latencies:
    """A row of tables 7 to 9: top-1, and milliseconds per image by batch."""

    model: str
    top1_percent: float
    ms_per_image: dict[int, float]


@cache
def latencies(number: int) -> tuple[Latencies, ...]:
    """Return the rows of one of tables 7 (V100, fp16, PyTorch), 8 (T4, fp16, TensorRT) and 9 (T4, int8, TensorRT)."""
    lines = (Path(__file__).parent / f"genet_table{number}.csv").read_text().splitlines()
    prefix = "ms_per_image_b"
    return tuple(
        Latencies(
            row["model"],
            float(row["top1_percent"]),
            {int(name.removeprefix(prefix)): float(ms) for name, ms in row.items() if name.startswith(prefix)},
        )
        for row in csv.DictReader(lines)
    )
