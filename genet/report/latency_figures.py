"""Pictures of latency by itself: curves over batch, size or width, and one staircase with its utilization and throughput."""

from __future__ import annotations

from genet.latency.staircase.staircase import Staircase
from genet.latency.timing.curves import Curve, Curves
from genet.report.drawing import GREY, figure_of, svg

UNITS = {"batch": "batch size", "size": "resolution (pixels)", "width": "width (channels)"}
NAME_LENGTH = 40


def draw_curves(curves: Curves) -> str:
    """Draw latency over the variable; for width also over the number of parameters, to compare at equal capacity."""
    panels = 2 if curves.variable == "width" else 1
    figure = figure_of(4.6 * panels + 0.6, 3.2)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for curve in curves.curves:
        points = _points(curve, per_image=curves.batch is None)
        label = curve.name if len(curve.name) <= NAME_LENGTH else curve.name[: NAME_LENGTH - 1] + "…"
        axes[0].plot([value for value, _, _ in points], [ms for _, _, ms in points], "o-", markersize=3, label=label)
        if panels == 2:
            axes[1].plot([size / 1e6 for _, size, _ in points], [ms for _, _, ms in points], "o-", markersize=3)
    axes[0].set_xlabel(UNITS[curves.variable])
    axes[0].set_ylabel("ms per image" if curves.batch is None else f"ms per batch of {curves.batch}")
    if curves.variable == "batch":
        axes[0].set_xscale("log", base=2)
        axes[0].set_yscale("log")
    if panels == 2:
        axes[1].set_xlabel("parameters (million)")
    axes[0].legend(fontsize=6, frameon=False)
    figure.suptitle(curves.device + (", estimated" if curves.estimate else ""), fontsize=8)
    return svg(figure)


def _points(curve: Curve, per_image: bool) -> list[tuple[int, int, float]]:
    """Return value, parameters and milliseconds of the points that fitted into memory."""
    rows = zip(curve.values, curve.parameters, curve.ms, strict=True)
    return [(value, size, ms / (value if per_image else 1)) for value, size, ms in rows if ms is not None]


def draw_staircase(stairs: Staircase, title: str) -> str:
    """Draw latency, utilization U and throughput T over width (tail-effect paper, figure 6), candidates filled."""
    lines: list[tuple[str, tuple[float, ...]]] = [
        ("ms per batch", stairs.ms),
        ("U (%)", tuple(100 * u for u in stairs.utilization)),
    ]
    if stairs.throughput:
        lines.append(("T (TFLOP/s)", tuple(2 * rate / 1e12 for rate in stairs.throughput)))
    figure = figure_of(6.4, 1.5 * len(lines) + 0.9)
    for axes, (name, values) in zip(figure.subplots(len(lines), 1, sharex=True, squeeze=False)[:, 0], lines, strict=True):
        axes.plot(stairs.widths, values, "o-", markersize=3, linewidth=0.8, markerfacecolor="white", color="C0")
        kept = [(width, value) for width, value in zip(stairs.widths, values, strict=True) if width in stairs.candidates]
        axes.plot(*zip(*kept, strict=True), "o", markersize=4, color="C0")
        for edge in stairs.edges:
            axes.axvline(edge, color=GREY, linewidth=0.5, linestyle=":")
        axes.set_ylabel(name)
    figure.axes[0].plot(stairs.widths, stairs.fitted_ms, color="C3", linewidth=0.8, label="fitted treads")
    figure.axes[0].legend(fontsize=6, frameon=False)
    figure.axes[-1].set_xlabel("width (channels)")
    figure.suptitle(title if len(title) < 110 else title[:109] + "…", fontsize=7)
    return svg(figure)
