"""The figures of a report: first their content (records that tests can check), then its drawing as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from genet.latency.staircase.space_sweeps import PlacedStaircase, Staircases
from genet.report.drawing import BLUE, GREY, KIND_COLOURS, NARROW, figure_of, svg
from genet.search.certificate import Selection
from genet.search.regression import Regression
from genet.search.solver import Candidate
from genet.trials.results import TrialResult


class StairPanel(NamedTuple):
    """The staircases of one super-block at one resolution."""

    title: str
    stairs: tuple[PlacedStaircase, ...]


class TrialPoint(NamedTuple):
    """One trial: its super-block (from 1), kind, and change of accuracy against the MasterNet fine-tuned likewise, in points."""

    superblock: int
    kind: str
    points: float


class FrontierLine(NamedTuple):
    """The predicted frontier of one resolution: milliseconds per image, accuracy in percent."""

    resolution: int
    ms_per_image: tuple[float, ...]
    percent: tuple[float, ...]


class FrontierInfo(NamedTuple):
    """Frontiers, the chosen networks (measured latency, predicted accuracy) and the budgets, all per image."""

    lines: tuple[FrontierLine, ...]
    chosen: tuple[tuple[float, float], ...]
    budgets: tuple[float, ...]


class CurvePanel(NamedTuple):
    """The trials of one super-block (from 1): held-out accuracy in percent after every epoch, controls apart."""

    superblock: int
    trials: tuple[tuple[float, ...], ...]
    controls: tuple[tuple[float, ...], ...]


class Effect(NamedTuple):
    """What the regression makes of a change: points of accuracy, with its standard error."""

    label: str
    kind: str
    points: float
    error: float


def staircase_info(staircases: Staircases, resolution: int) -> tuple[StairPanel, ...]:
    """Return one panel per super-block."""
    panels: dict[int, list[PlacedStaircase]] = {}
    for stair in staircases.staircases:
        if stair.resolution == resolution and stair.staircase:
            panels.setdefault(stair.superblock, []).append(stair)
    return tuple(StairPanel(f"super-block {index + 1}", tuple(stairs)) for index, stairs in sorted(panels.items()))


def trial_info(trials: Sequence[TrialResult], accuracy: float) -> tuple[TrialPoint, ...]:
    """Return the finished perturbations, each against its control, with fresh weights if its type changed.

    Without a control, they count against the MasterNet before any fine-tuning.
    """
    found = [(trial, trial.accuracy) for trial in trials if trial.accuracy is not None]
    inherited = {trial.index: (trial.superblock.type, reached) for trial, reached in found if trial.reference}
    fresh = {trial.index: reached for trial, reached in found if trial.fresh}
    points = []
    for trial, reached in found:
        own, control = inherited.get(trial.index, (trial.superblock.type, accuracy))
        if trial.superblock.type != own:
            control = fresh.get(trial.index, control)
        if not (trial.control or trial.also):
            points.append(TrialPoint(trial.index + 1, trial.superblock.type, 100 * (reached - control)))
    return tuple(points)


def frontier_info(fronts: Mapping[int, Sequence[Candidate]], selection: Selection | None, batch: int) -> FrontierInfo:
    """Return the candidates of the selection, and its choice."""
    lines = tuple(
        FrontierLine(
            resolution,
            tuple(candidate.predicted_ms / batch for candidate in front),
            tuple(100 * candidate.predicted_accuracy for candidate in front),
        )
        for resolution, front in fronts.items()
    )
    choices = selection.choices if selection else ()
    chosen = tuple(
        (choice.measured_ms_per_image, 100 * choice.predicted_accuracy)
        for choice in choices
        if choice.within and choice.measured_ms_per_image is not None
    )
    return FrontierInfo(lines, chosen, tuple(dict.fromkeys(choice.budget_ms_per_image for choice in choices)))


def curve_info(trials: Sequence[TrialResult]) -> tuple[CurvePanel, ...]:
    """Return one panel per super-block whose trials have curves: of one epoch nothing could be drawn but points."""
    found: dict[int, tuple[list[tuple[float, ...]], list[tuple[float, ...]]]] = {}
    for trial in trials:
        if len(trial.curve) > 1 and trial.accuracy is not None:
            curve = tuple(100 * accuracy for accuracy in trial.curve)
            found.setdefault(trial.index, ([], []))[trial.control].append(curve)
    return tuple(CurvePanel(index + 1, tuple(own), tuple(controls)) for index, (own, controls) in sorted(found.items()))


def effect_info(regression: Regression) -> tuple[Effect, ...]:
    """Return the effects of a doubled width and of one more block, per super-block and block type."""
    return tuple(
        Effect(f"{each.index + 1} {each.block_type}, {what}", each.block_type.kind, 100 * found.value, 100 * found.error)
        for each in regression.gradients
        for what, found in (("width x 2", each.per_doubling), ("one more block", each.per_block))
    )


def unclear_stairs(panels: Sequence[StairPanel]) -> str:
    """Return how many staircases noise hides, in words; empty if there are none."""
    stairs = [place.staircase for panel in panels for place in panel.stairs if place.staircase]
    unclear = sum(stair.unclear for stair in stairs)
    return f"{unclear} of {len(stairs)} staircases are too noisy to tell steps (dotted)" if unclear else ""


def draw_staircases(panels: Sequence[StairPanel]) -> str:
    """Draw latency over width: a line per block type, filled points at the widths kept; dotted if noise hides its steps."""
    figure = figure_of(2.6 * len(panels) + 0.8, 2.7)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for place in panel.stairs:
            stair, colour = place.staircase, KIND_COLOURS[place.block_type[:2]]
            if stair is None:
                continue
            label = f"{place.block_type}, too noisy to tell ({stair.eps:.0%})" if stair.unclear else place.block_type
            axes.plot(stair.widths, stair.ms, ":" if stair.unclear else "-", color=colour, linewidth=1, label=label)
            axes.plot(stair.widths, stair.ms, "o", markersize=3, markerfacecolor="white", color=colour)
            kept = {width: ms for width, ms in zip(stair.widths, stair.ms, strict=True) if width in place.kept}
            axes.plot(list(kept), list(kept.values()), "o", markersize=4, color=colour)
        axes.set_title(panel.title, fontsize=9)
        axes.set_xlabel("width (channels)")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=6, frameon=False)
    figure.axes[0].set_ylabel("ms per batch")
    return svg(figure)


def draw_trials(points: Sequence[TrialPoint]) -> str:
    """Draw the change of accuracy per super-block; the dashed line is the control, the MasterNet fine-tuned likewise."""
    figure = figure_of(NARROW, 2.6)
    axes = figure.subplots()
    for offset, (kind, colour) in enumerate(KIND_COLOURS.items()):
        own = [point for point in points if point.kind == kind]
        where = [point.superblock + 0.18 * (offset - 1) for point in own]
        axes.plot(where, [point.points for point in own], "o", markersize=4, alpha=0.7, color=colour, label=kind)
    axes.axhline(0, color=GREY, linewidth=1, linestyle="--")
    axes.set_xticks(sorted({point.superblock for point in points}))
    axes.set_xlabel("super-block")
    axes.set_ylabel("points against its control")
    axes.legend(fontsize=7, frameon=False)
    return svg(figure)


def draw_frontier(info: FrontierInfo) -> str:
    """Draw predicted accuracy over latency, with budgets as vertical lines and the chosen networks as crosses."""
    figure = figure_of(NARROW, 2.8)
    axes = figure.subplots()
    for shade, line in enumerate(info.lines):
        axes.step(line.ms_per_image, line.percent, where="post", color=f"C{shade}", label=f"{line.resolution} px, predicted")
    for budget in info.budgets:
        axes.axvline(budget, color=GREY, linewidth=1, linestyle="--")
    if info.chosen:
        axes.plot(*zip(*info.chosen, strict=True), "x", color="black", label="selected: predicted accuracy, measured latency")
    axes.set_xlabel("ms per image")
    axes.set_ylabel("predicted accuracy (%)")
    axes.legend(fontsize=7, frameon=False)
    return svg(figure)


def draw_trial_curves(panels: Sequence[CurvePanel]) -> str:
    """Draw accuracy over epochs, a panel per super-block; dashed are controls."""
    figure = figure_of(1.7 * len(panels) + 0.8, 2.2)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True):
        for curve in panel.trials:
            axes.plot(range(1, len(curve) + 1), curve, "o-", markersize=2, linewidth=0.7, alpha=0.6, color=BLUE)
        for curve in panel.controls:
            axes.plot(range(1, len(curve) + 1), curve, "--", linewidth=1.2, color="black")
        axes.set_title(f"super-block {panel.superblock}", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
    figure.axes[0].set_ylabel("held-out accuracy (%)")
    return svg(figure)


def draw_effects(effects: Sequence[Effect]) -> str:
    """Draw the regression's effects with their standard errors, a row each."""
    figure = figure_of(NARROW, 0.6 + 0.17 * len(effects))
    axes = figure.subplots()
    for row, effect in enumerate(effects):
        colour = KIND_COLOURS[effect.kind]
        axes.errorbar(effect.points, row, xerr=effect.error, fmt="o", markersize=3, linewidth=1, color=colour)
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(effects)), [effect.label for effect in effects])
    axes.invert_yaxis()
    axes.set_xlabel("change of accuracy, points")
    return svg(figure)
