"""Does `genet` find the edges of a device's latency staircase, and with how many measurements?

    python benchmarks/staircases.py [--data FOLDER]

Prints and writes benchmarks/results/staircases.md. The first part draws its staircases from the wave model, so it knows
the truth; the second takes real latencies of TensorRT convolutions on a V100 from FOLDER.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genet.latency.staircase.staircase import analyse, tail_effect_candidates
from genet.latency.staircase.sweep import Sweep, next_widths
from genet.storage import write_atomic

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/staircases.md"
REAL = "v100_tensorrt_fp16_conv.csv.gz"
REAL_NOISE = 0.01  # of one row of the real table, which gives none
GRID = tuple(range(32, 1025, 8))
JUMP = 0.04  # a true edge: without noise, the next width is slower by more than this beyond the memory slope
SLOPES = (0.0, 1.0, 2.5)  # times the traffic of a convolution's own output; an eager block passes over it more often
NOISES = (0.005, 0.01, 0.02)
SEEDS = 3


class Device(NamedTuple):
    """Streaming multiprocessors, dense FP16 peak (FLOP/s) and memory bandwidth (bytes/s)."""

    name: str
    sms: int
    peak: float
    bandwidth: float


class Layer(NamedTuple):
    """A convolution at batch 64 but for its width: output pixels per side, input channels, kernel."""

    device: Device
    pixels: int
    channels: int
    kernel: int


DEVICES = (Device("V100", 80, 112e12, 900e9), Device("T4", 40, 65e12, 320e9), Device("H200", 132, 989e12, 4800e9))
SHAPES = ((7, 512, 3), (7, 1280, 1), (14, 256, 3), (14, 640, 1), (28, 128, 3))
LAYERS = tuple(Layer(device, *shape) for device in DEVICES for shape in SHAPES)
# Rows and columns of a GEMM tile, and the share of the peak that it reaches.
TILES = ((256, 128, 0.99), (128, 128, 0.88), (256, 64, 0.80), (128, 64, 0.51), (64, 64, 0.46))


def waves_ms(layer: Layer, width: int) -> float:
    """Equation 3 of the tail-effect paper with tiles for blocks: the fastest tile's waves, in ms."""
    device, rows, depth = layer.device, 64 * layer.pixels**2, layer.channels * layer.kernel**2
    times = []
    for tile_rows, tile_columns, share in TILES:
        resident = 1 if tile_rows * tile_columns > 128 * 64 else 2
        blocks = math.ceil(rows / tile_rows) * math.ceil(width / tile_columns)
        wave = resident * 2 * tile_rows * tile_columns * depth * device.sms / (device.peak * share * depth / (depth + 192))
        times.append(math.ceil(blocks / (device.sms * resident)) * wave)
    return min(times) * 1000 + 0.005


def slope_ms(layer: Layer) -> float:
    """The memory traffic of one more output channel in FP16, in ms."""
    return 64 * layer.pixels**2 * 2 / layer.device.bandwidth * 1000


def true_curve(layer: Layer, slope: float) -> tuple[np.ndarray, set[int]]:
    """Noise-free latency over GRID, and its true edges."""
    waves = np.array([waves_ms(layer, width) for width in GRID])
    ms = waves + slope * slope_ms(layer) * np.array(GRID)
    return ms, {GRID[i] for i in np.flatnonzero(np.diff(waves) > JUMP * ms[:-1])}


def sample(grid: tuple[int, ...], measure: Callable[[int], float], sigma: float) -> dict[int, float]:
    """The latencies that adaptive sampling asks for."""
    measured: dict[int, float] = {}
    while asked := next_widths(grid, measured, sigma):
        measured |= {width: measure(width) for width in asked}
    return measured


def found_edges(measured: dict[int, float], sigma: float | None) -> set[int]:
    """The edges of a sweep; sigma is None where the sweep itself has to tell its noise."""
    widths = tuple(sorted(measured))
    ms = tuple(measured[width] for width in widths)
    return set(analyse(Sweep(widths=widths, ms=ms, sigma=None if sigma is None else (sigma,) * len(ms))).edges)


class Score:
    """Hits, false edges and missed edges, summed over staircases."""

    def __init__(self) -> None:
        self.hits = self.false = self.missed = 0

    def add(self, found: set[int], true: set[int]) -> None:
        self.hits += len(found & true)
        self.false += len(found - true)
        self.missed += len(true - found)

    @property
    def f1(self) -> float:
        return 2 * self.hits / max(1, 2 * self.hits + self.false + self.missed)


def synthetic() -> list[str]:
    """Part one: F1 of the edges at their exact place on the grid, over 15 layers and three seeds."""
    lines = [
        "| memory slope | noise | exhaustive F1 | adaptive F1 | measurements: mean | most |",
        "|---|---|---|---|---|---|",
    ]
    for slope, noise in itertools.product(SLOPES, NOISES):
        whole, adaptive, shares = Score(), Score(), []
        for number, layer in enumerate(LAYERS):
            ms, true = true_curve(layer, slope)
            for seed in range(SEEDS):
                noisy = ms * (1 + noise * np.random.default_rng([number, seed]).standard_normal(len(ms)))
                curve = dict(zip(GRID, noisy.tolist(), strict=True))
                whole.add(found_edges(curve, None), true)
                measured = sample(GRID, curve.__getitem__, noise)
                adaptive.add(found_edges(measured, noise), true)
                shares.append(len(measured) / len(GRID))
        shown = f"{whole.f1:.3f} | {adaptive.f1:.3f} | {np.mean(shares):.0%} | {max(shares):.0%}"
        lines.append(f"| x{slope:g} | {noise:.1%} | {shown} |")
    return lines


def unfriendly() -> list[str]:
    """Edges that stand at no round width, as on a device with 80 processors and a filter per block (figure 5), or anywhere."""
    lines = ["| edges | number | exhaustive F1 | adaptive F1 | measurements |", "|---|---|---|---|---|"]
    for name, number in (("every 160", 6), ("every 80", 12), ("anywhere", 4), ("anywhere", 8)):
        whole, adaptive, shares = Score(), Score(), []
        for seed in range(12):
            draw = np.random.default_rng(seed)
            stride = 160 if number == 6 else 80
            drawn = draw.choice(GRID[1:-1], number, replace=False).tolist()
            true = set(drawn if name == "anywhere" else range(stride, 1024, stride))
            ms = np.array([1 + 0.003 * width + 0.6 * sum(edge < width for edge in true) for width in GRID])
            curve = dict(zip(GRID, (ms * (1 + 0.01 * draw.standard_normal(len(ms)))).tolist(), strict=True))
            measured = sample(GRID, curve.__getitem__, 0.01)
            whole.add(found_edges(curve, None), true)
            adaptive.add(found_edges(measured, 0.01), true)
            shares.append(len(measured) / len(GRID))
        lines.append(f"| {name} | {number} | {whole.f1:.3f} | {adaptive.f1:.3f} | {np.mean(shares):.0%} |")
    return lines


def flat_agreement() -> tuple[int, int]:
    """On how many noise-free flat staircases the candidates are exactly equation 4's."""
    same = 0
    for layer in LAYERS:
        curve, _ = true_curve(layer, 0)
        staircase = analyse(Sweep(widths=GRID, ms=tuple(curve.tolist())))
        same += staircase.candidates == tail_effect_candidates(staircase)
    return same, len(LAYERS)


def real_curves(path: Path) -> list[tuple[str, dict[int, float]]]:
    """(batch, latency over width) of every layer of the table that was measured at six widths or more."""
    groups: dict[tuple[str, ...], dict[int, float]] = {}
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if row["conv"] != "Depthwise":
                key = tuple(value for name, value in row.items() if name not in ("out_channels", "latency_ms"))
                groups.setdefault(key, {})[int(row["out_channels"])] = float(row["latency_ms"])
    return [(key[1], dict(sorted(curve.items()))) for key, curve in groups.items() if len(curve) >= 6]


def real(curves: Iterable[tuple[str, dict[int, float]]]) -> list[str]:
    """Part two, by batch size: edges from what adaptive sampling asks for against edges from all widths."""
    scores: dict[str, Score] = {}
    counts: dict[str, list[tuple[int, int]]] = {}
    for batch, curve in curves:
        measured = sample(tuple(curve), curve.__getitem__, REAL_NOISE)
        scores.setdefault(batch, Score()).add(found_edges(measured, REAL_NOISE), found_edges(curve, REAL_NOISE))
        counts.setdefault(batch, []).append((len(measured), len(curve)))
    lines = ["| batch | layers | widths | edges | found | false | F1 | measured |", "|---|---|---|---|---|---|---|---|"]
    for batch, score in sorted(scores.items(), key=lambda item: int(item[0])):
        asked, of = np.sum(counts[batch], axis=0)
        numbers = f"{score.hits + score.missed} | {score.hits} | {score.false} | {score.f1:.3f} | {asked / of:.0%}"
        lines.append(f"| {batch} | {len(counts[batch])} | {of / len(counts[batch]):.1f} | {numbers} |")
    return lines


def main() -> None:
    """Print and write the evidence."""
    parser = argparse.ArgumentParser(description="Edges found in synthetic and in real latency staircases.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data", metavar="FOLDER")
    data = parser.parse_args().data / REAL
    same, of = flat_agreement()
    lines = ["# Edges of latency staircases", "", "`python benchmarks/staircases.py`", "", "## Synthetic", ""]
    lines += ["Wave model with autotuned tiles, 15 layers of three devices, 125 widths, three seeds; F1 at the exact width.", ""]
    lines += [*synthetic(), "", "Edges away from round widths, 1 % noise, with slope:", "", *unfriendly(), ""]
    lines += [f"Candidates are exactly the peaks of U x T (equation 4) on {same} of {of} flat noise-free staircases.", ""]
    lines += ["## Real: V100, TensorRT, FP16", ""]
    if data.exists():
        lines += [
            "Truth here is what all widths give. They are ten to a layer and mostly double from one to the next: nearly every",
            "interval holds a step, so the flattest passes for the slope and sampling stops early. Sampling is for grids of",
            "24 widths and more; of so short a list all widths have to be measured.",
            "",
        ]
        lines += real(real_curves(data))
    else:
        lines += [f"Skipped: no {REAL} in the data folder."]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    write_atomic(RESULT, text.encode())


if __name__ == "__main__":
    main()
