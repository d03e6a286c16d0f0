"""Latency over batch, width, resolution and kernel: GENet's figures 2a and 3, the tail-effect paper's figures 9 to 11."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from genet.latency.timing.curves import Curves, measure_curves
from genet.latency.timing.meter import Meter
from genet.report.latency_figures import draw_curves
from genet.storage import Record, write_atomic
from gpu.bench import Bench, command

BATCHED = ("timm:resnet50", "timm:resnet152", "timm:mobilenetv2_100", "timm:efficientnet_b0")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
WIDTHS = (32, 64, 96, 128, 192, 256)
RATIOS = (1, 2, 4)  # widths of the depthwise or of the reading convolution over those that are bottlenecks, 1/r in the figure
PIXELS = 224
Swept = tuple[tuple[str, ...], str, tuple[int, ...]]  # names, variable, values


class Figure(Record):
    """Curves that belong to a figure of a paper."""

    figure: str
    curves: tuple[Curves, ...]


def blocks(bench: Bench) -> None:
    """Time networks over the batch, and chains of blocks over their width at 224 pixels; kept curve by curve."""
    over_batch: Swept = (("XX k3 c8 @8",), "batch", (1, 2)) if bench.small else (BATCHED, "batch", BATCHES)
    chains = chains_of((32, 64), 4)[:2] if bench.small else chains_of(WIDTHS, PIXELS)

    def meter_at(batch: int | None) -> Meter:
        bench.give_back()  # what the last value took
        return bench.meter(batch=batch) if batch else bench.meter()

    figures: dict[str, list[Swept]] = {"figure-2a": [over_batch], "figure-3": chains}
    for name, sweeps in figures.items():
        file = bench.folder / f"{name}.json"
        found = list(Figure.load(file).curves) if file.exists() else []
        for names, variable, values in sweeps[len(found) :]:
            curves = measure_curves(
                names,
                variable,
                values,
                meter_at,
                None,
            )
            found.append(curves)
            Figure(figure=f"GENet, {name.replace('-', ' ')}", curves=tuple(found)).save(file)
            write_atomic(bench.folder / f"{name}-{len(found)}.svg", draw_curves(curves).encode())


def chains_of(widths: Sequence[int], pixels: int) -> list[Swept]:
    """Return figure 3's sweeps: 5 XX blocks against 10 of the others, with the width of DW that of its depthwise convolution."""
    plain = (f"XX k3 c64 d5 @{pixels}", *(f"BL k3 c64 d10 r{1 / ratio:g} @{pixels}" for ratio in RATIOS))
    depthwise = [((f"DW k3 c64 d10 r{ratio} @{pixels}",), "width", tuple(width // ratio for width in widths)) for ratio in RATIOS]
    return [(plain, "width", tuple(widths)), *depthwise]


class Stairs(Record):
    """The staircase of a layer over its filters."""

    figure: int
    layer: str
    batch: int
    pattern: str
    widths: tuple[int, ...]
    ms: tuple[float, ...]
    edges: tuple[int, ...]


class AllStairs(Record):
    """Those measured so far."""

    stairs: tuple[Stairs, ...] = ()


def filters(bench: Bench) -> None:
    """Time layers of VGG16 over their number of filters: by batch, by resolution and by the shape of the filter."""
    file, evidence = bench.folder / "stairs.json", bench.folder / "latency.jsonl"
    found = AllStairs.load(file) if file.exists() else AllStairs()
    known = {(each.figure, each.layer, each.batch) for each in found.stairs}
    for figure, layer, widths, batch in layers(bench.small):
        if (figure, layer, batch) in known:
            continue
        options = [*bench.options(batch=batch), "--widths", widths, "--evidence", str(evidence)]
        answer = json.loads(command("staircase", layer, *options, "--json").splitlines()[-1])
        stairs = Stairs(
            figure=figure, layer=layer, batch=batch, **{name: answer[name] for name in ("pattern", "widths", "ms", "edges")}
        )
        found = AllStairs(stairs=(*found.stairs, stairs))
        found.save(file)
        bench.give_back()


def layers(small: bool = False) -> list[tuple[int, str, str, int]]:
    """Return figure, layer, widths and batch: VGG16's third and fifth convolution read 64 and 128 channels."""
    if small:
        return [(9, "Conv k3 c8>16 @4", "8..24:8", 2)]
    third, fifth = "Conv k3 c64>64 @{}", "Conv k3 c128>128 @{}"
    by_batch = [
        (9, layer.format(size), widths, batch)
        for batch, (layer, size, widths) in itertools.product(
            (1, 16, 64, 256), ((third, 112, "8..256:8"), (fifth, 56, "8..512:8"))
        )
    ]
    by_size = [(10, fifth.format(pixels // 4), "8..512:8", 1) for pixels in (128, 256, 512, 1024)]
    by_shape = [(11, f"Conv k{kernel} c512>512 @28", "8..512:8", 64) for kernel in (1, 3, 5)]
    return [*by_batch, *by_shape, (11, "Depthwise k3 c512 @28", "8..512:8", 64), *by_size]
