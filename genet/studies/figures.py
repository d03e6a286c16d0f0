"""Pictures of the studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from genet.report.drawing import BLUE, GREY, RED, figure_of, svg
from genet.studies.survey.survey import utilizations

if TYPE_CHECKING:
    from genet.latency.estimate.intensity import LayerIntensity
    from genet.latency.estimate.roofline import Roof
    from genet.studies.align.study import Alignment
    from genet.studies.filter.bench import BenchRow
    from genet.studies.filter.study import Filtering, SearchRun
    from genet.studies.fold import Folding
    from genet.studies.rank import StageRank
    from genet.studies.survey.survey import Frontiers, Surveyed

MOST_NAMES = 40  # names that fit below one another
FEW_POINTS = 15  # points that are named at their place
BEATEN = "steps-pre"  # step style of a frontier: networks that none of its networks beats lie above the line


def draw_alignment(found: Alignment) -> str:
    """Draw widths before and after, layer by layer, and below them the latency of each layer at both."""
    places = found.places
    figure = figure_of(max(4.0, 0.22 * len(places) + 1.5), 4.6)
    widths, times = figure.subplots(2, 1, sharex=True)
    where = range(len(places))
    chosen = [next(o for o in place.options if o.width == found.widths.get(place.name, place.now.width)) for place in places]
    for axes, before, after in (
        (widths, [place.now.width for place in places], [option.width for option in chosen]),
        (times, [place.now.ms for place in places], [option.ms for option in chosen]),
    ):
        axes.bar([x - 0.2 for x in where], before, 0.4, color=GREY, label="before")
        axes.bar([x + 0.2 for x in where], after, 0.4, color="C0", label="after")
    widths.set_ylabel("width (channels)")
    times.set_ylabel(f"{'estimated' if found.estimate else 'measured'} ms per batch of {found.batch}")
    names = [place.name for place in places] if len(places) <= MOST_NAMES else [str(x + 1) for x in where]
    times.set_xticks(list(where), names, rotation=90, fontsize=6)
    widths.legend(fontsize=6, frameon=False)
    figure.suptitle(f"{found.network} on {found.device}: {found.measured.mean:.3f} of the latency", fontsize=8)
    return svg(figure)


class Cloud(NamedTuple):
    """Networks as points of two figures each, the frontier among them, and the colour of every point."""

    x: str
    y: str
    points: tuple[tuple[str, float, float], ...]  # name, x, y
    frontier: tuple[str, ...]
    colours: tuple[str, ...]


ABOVE, BELOW = BLUE, RED  # the device's compute-to-memory ratio


def cloud_info(rows: Sequence[Surveyed], found: Frontiers, ratio: float | None) -> tuple[Cloud, ...]:
    """Return the clouds of the utilization paper's figure 1, and of 2a, which shows intensity by colour, if it is known."""
    shares = all(row.utilization is not None for row in rows)
    unit = "utilization (%)" if shares else "TFLOP/s"
    throughput = [row.images_per_sec for row in rows]
    utilization = [100 * share if shares else share for share in utilizations(rows)]
    accuracy = [row.top1_percent for row in rows]
    colours = [GREY if ratio is None or row.intensity is None else ABOVE if row.intensity > ratio else BELOW for row in rows]

    def cloud(x: str, y: str, xs: Sequence[float], ys: Sequence[float | None], frontier: tuple[str, ...]) -> Cloud:
        known = [(row.model, one, two, colour) for row, one, two, colour in zip(rows, xs, ys, colours, strict=True) if two]
        return Cloud(x, y, tuple((name, one, two) for name, one, two, _ in known), frontier, tuple(each[3] for each in known))

    clouds = (
        cloud("images per second", "top-1 accuracy (%)", throughput, accuracy, found.throughput_accuracy),
        cloud("images per second", unit, throughput, utilization, found.throughput_utilization),
        cloud(unit, "top-1 accuracy (%)", utilization, accuracy, found.utilization_accuracy),
    )
    return tuple(each for each in clouds if each.points)


def draw_clouds(clouds: Sequence[Cloud], title: str) -> str:
    """Draw one panel per cloud, its frontier joined by a line; a browser shows each point's name."""
    figure = figure_of(3.1 * len(clouds) + 0.4, 3.0)
    titles: dict[str, str] = {}
    for number, (axes, cloud) in enumerate(zip(figure.subplots(1, len(clouds), squeeze=False)[0], clouds, strict=True)):
        line = sorted((x, y) for name, x, y in cloud.points if name in cloud.frontier)
        axes.plot(*zip(*line, strict=True), color="black", linewidth=0.8, drawstyle=BEATEN)
        for place, ((name, x, y), colour) in enumerate(zip(cloud.points, cloud.colours, strict=True)):
            titles[f"point-{number}-{place}"] = f"{name}: {x:.6g} {cloud.x}, {y:.4g} {cloud.y}"
            edge = "black" if name in cloud.frontier else colour
            axes.plot([x], [y], "o", markersize=3.5, color=colour, markeredgecolor=edge, gid=f"point-{number}-{place}")
            if len(cloud.points) <= FEW_POINTS:
                axes.annotate(name, (x, y), xytext=(3, 2), textcoords="offset points", fontsize=4.5)
        axes.set_xlabel(cloud.x)
        axes.set_ylabel(cloud.y)
    figure.suptitle(f"{title}{_colour_legend([colour for cloud in clouds for colour in cloud.colours])}", fontsize=7)
    return svg(figure, titles)


def _colour_legend(colours: Sequence[str]) -> str:
    return "\nblue: arithmetic intensity above the device's ratio, red: below" if {*colours} & {ABOVE, BELOW} else ""


def draw_folds(found: Sequence[Folding], ratio: float, title: str) -> str:
    """Draw an arrow for every network from its place before folding to that after it (utilization paper, figure 2b)."""
    figure = figure_of(5.2, 3.4)
    axes = figure.subplots()
    titles = {}
    for place, one in enumerate(found):
        sides = [(1, one.before), (one.f, one.after)]
        points = [(f * side.images_per_sec, 100 * (side.utilization or 0)) for f, side in sides]
        arrow = {"arrowstyle": "->", "color": GREY, "linewidth": 0.8}
        axes.annotate("", xy=points[1], xytext=points[0], arrowprops=arrow)
        for name, (x, y), (_, side) in zip(("before", "after"), points, sides, strict=True):
            titles[f"{name}-{place}"] = f"{one.network}, {name}: {x:.4g} images per second, {y:.1f} % utilization"
            colour = ABOVE if (side.intensity or 0) > ratio else BELOW
            axes.plot([x], [y], "o", markersize=3.5, color=colour, gid=f"{name}-{place}")
        if len(found) <= FEW_POINTS:
            axes.annotate(one.network, points[1], xytext=(3, 2), textcoords="offset points", fontsize=5)
    axes.set_xscale("log")
    axes.set_xlabel("images per second")
    axes.set_ylabel("utilization (%)")
    figure.suptitle(f"{title}{_colour_legend([ABOVE])}", fontsize=7)
    return svg(figure, titles)


def draw_shades(rows: Sequence[Surveyed]) -> str:
    """Draw throughput and accuracy with utilization as the shade of each point (utilization paper, figure 3)."""
    known = [(row, row.top1_percent, shade) for row, shade in zip(rows, utilizations(rows), strict=True) if row.top1_percent]
    figure = figure_of(5.2, 3.2)
    axes = figure.subplots()
    shares = all(row.utilization is not None for row in rows)
    unit = "% utilization" if shares else "TFLOP/s"
    values = [100 * shade if shares else shade for _, _, shade in known]
    x, y = [row.images_per_sec for row, _, _ in known], [accuracy for _, accuracy, _ in known]
    figure.colorbar(axes.scatter(x, y, c=values, s=12, cmap="viridis_r"), label=unit)
    titles = {}
    for place, ((row, accuracy, _), value) in enumerate(zip(known, values, strict=True)):  # invisible points for the pointer
        titles[f"shade-{place}"] = (
            f"{row.model}: {row.images_per_sec:.6g} images per second, {accuracy:.4g} %, {value:.3g} {unit}"
        )
        axes.plot([row.images_per_sec], [accuracy], "o", markersize=4, alpha=0, gid=f"shade-{place}")
    axes.set_xlabel("images per second")
    axes.set_ylabel("top-1 accuracy (%)")
    return svg(figure, titles)


def draw_roofline(layers: Sequence[tuple[LayerIntensity, float]], roof: Roof, title: str) -> str:
    """Draw layers with their milliseconds under the roof, the limits of memory and of computation."""
    figure = figure_of(5.6, 3.6)
    axes = figure.subplots()
    intensities = [layer.intensity for layer, _ in layers]
    low, high = min([*intensities, roof.ratio]) / 2, max([*intensities, roof.ratio]) * 2
    axes.plot([low, roof.ratio, high], [roof.at(low), roof.at(roof.ratio), roof.at(high)], color="black", linewidth=1)
    titles = {}
    for place, (layer, ms) in enumerate(layers):
        rate = layer.flops / ms * 1e-9
        titles[f"layer-{place}"] = f"{layer.name}: {layer.intensity:.1f} FLOP/byte, {rate:.4g} TFLOP/s, {ms:.4f} ms"
        colour = ABOVE if layer.intensity > roof.ratio else BELOW
        axes.plot([layer.intensity], [rate], "o", markersize=3.5, color=colour, alpha=0.7, gid=f"layer-{place}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic intensity (FLOP per byte)")
    axes.set_ylabel("TFLOP/s")
    figure.suptitle(f"{title}{_colour_legend([ABOVE])}", fontsize=7)
    return svg(figure, titles)


def draw_ranks(found: Sequence[StageRank], title: str) -> str:
    """Draw the singular values of every stage's last convolution by rank, both as shares (GENet paper, figure 4)."""
    figure = figure_of(5.2, 3.4)
    axes = figure.subplots()
    for one in found:
        where = [place / one.shape[0] for place in range(1, len(one.singular_values) + 1)]
        axes.plot(where, one.singular_values, linewidth=1, label=f"stage {one.stage}: rank {one.share:.0%}")
    axes.set_xlabel("place of the singular value, over output channels")
    axes.set_ylabel("singular value, over the largest")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=6, frameon=False)
    figure.suptitle(title, fontsize=8)
    return svg(figure)


def draw_filtering(rows: Sequence[BenchRow], found: Filtering) -> str:
    """Draw the true frontier and the results of every method, with the seed of its median (utilization paper, figures 4 to 6)."""
    known = {row.network: row for row in rows}
    typical = [_median_run(found, method) for method in dict.fromkeys(run.method for run in found.runs)]
    figure = figure_of(2.6 * len(typical) + 0.4, 2.9)
    for axes, run in zip(figure.subplots(1, len(typical), sharey=True, squeeze=False)[0], typical, strict=True):
        x, y = [row.images_per_sec for row in rows], [row.top1_percent for row in rows]
        axes.plot(x, y, ".", markersize=1, color="#d9dde3", rasterized=True)  # thousands, in every panel
        for name, networks, colour in (("true frontier", found.true_frontier, BELOW), ("found", run.frontier, ABOVE)):
            points = sorted(known[network].point for network in networks)
            line = {"markersize": 3, "linewidth": 0.7, "drawstyle": BEATEN}
            axes.plot([x for x, _ in points], [y for _, y in points], ".-", color=colour, label=name, **line)
        axes.set_title(f"{run.method}: {run.hypervolume:.3f} of the hypervolume", fontsize=7)
        axes.set_xlabel("images per second")
    figure.axes[0].set_ylabel("top-1 accuracy (%)")
    figure.axes[0].legend(fontsize=6, frameon=False)
    return svg(figure)


def _median_run(found: Filtering, method: str) -> SearchRun:
    runs = sorted((run for run in found.runs if run.method == method), key=lambda run: run.hypervolume)
    return runs[len(runs) // 2]
