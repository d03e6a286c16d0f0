"""Figures of the three papers that the summary puts beside ours. Copied numbers; where each is from is said with it."""

from __future__ import annotations

# GENet, arXiv 2006.14090, table 7: V100, PyTorch, FP16, batch 64, milliseconds per image. GENets at 192, 192 and 256 pixels.
GENET_TABLE_7 = {
    "genet-light": 0.09,
    "genet-normal": 0.20,
    "genet-large": 0.33,
    "timm:resnet34": 0.22,
    "timm:resnet152": 0.94,
    "timm:regnety_002": 0.22,
    "timm:regnety_006": 0.25,
    "timm:mobilenetv2_140": 0.24,
    "timm:efficientnet_b0": 0.35,
    "timm:efficientnet_b2": 0.64,
    "timm:efficientnet_b3": 1.12,
}
# The same, table 3: how many times as long as the GENet of about the same accuracy, V100.
GENET_TABLE_3 = (
    ("genet-light", "timm:resnet34", 2.2),
    ("genet-light", "timm:regnety_006", 3.1),
    ("genet-light", "timm:mobilenetv2_140", 2.4),
    ("genet-normal", "timm:resnet152", 4.7),
    ("genet-normal", "timm:efficientnet_b2", 3.2),
    ("genet-large", "timm:efficientnet_b3", 3.3),
)
# Tail effect, MLSys 2021 (Yu et al.), table 2: Titan-V, batch 128; change of latency by aligning what was pruned.
TAIL_TABLE_2 = {
    "hrank-vgg16": "-17.7%",
    "hrank-resnet56": "-11.3% and -16.3%",
    "sfp30-resnet56": "-13.7%",
    "sfp40-resnet56": "-17.3%",
}
# The same, table 3: Titan-V, batch 1; milliseconds before and after growing width and resolution, times the FLOP/s.
TAIL_TABLE_3 = {
    "timm:efficientnet_b0": "12.6 -> 12.7 ms, 61.9 -> 414.2 GFLOP/s",
    "timm:efficientnet_b1": "17.8 -> 18.0 ms, 78.7 -> 442.7 GFLOP/s",
    "timm:efficientnet_b2": "18.2 -> 18.4 ms, 109.9 -> 547.3 GFLOP/s",
}
# The same, sections 5.4: what figures 9 to 11 show.
TAIL_FIGURES = {
    9: "a staircase at every batch size, higher at larger ones; more steps with more filters",
    10: "a staircase at every resolution",
    11: "a staircase for dense 1x1, 3x3 and 5x5 filters, a nearly straight line for depthwise ones",
}
# Utilization (Kosaian and Phanishayee), its survey: V100, TensorRT, FP16, the best batch; images/s and TFLOP/s.
UTILIZATION_SURVEY = {
    "gernet_s": (31344, 46.65),
    "gernet_m": (12411, 74.58),
    "gernet_l": (8167, 74.43),
    "resnet18": (22409, 81.30),
    "resnet50": (8722, 71.34),
    "regnety_002": (42493, 16.96),
    "regnety_006": (23535, 28.30),
    "regnety_008": (19957, 31.82),
    "efficientnet_b0": (11612, 8.96),
    "efficientnet_b1": (6250, 9.29),
    "efficientnet_b2": (4518, 9.83),
    "repvgg_b3": (1526, 88.88),
    "wide_resnet50": (4002, 91.23),
    "tresnet_m": (8445, 96.86),
}
