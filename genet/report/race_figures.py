"""The figures of a race and of the networks that won it: first their content, then its drawing as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from genet.arch.network import Network, out_size
from genet.report.drawing import BLUE, GREY, KIND_COLOURS, NARROW, RED, figure_of, svg
from genet.search.outcome import Outcomes

SEARCHED, KNOWN = BLUE, RED  # colours of the search's networks and of known designs


class RacePoint(NamedTuple):
    """A network that was trained fully: its design, if it is a known one, its latency, and its test accuracy in percent.

    `predicted` tells that its latency was not measured.
    """

    name: str
    design: str
    ms_per_image: float
    percent: float
    error: float
    won: bool
    predicted: bool

    @property
    def description(self) -> str:
        """The point in words."""
        latency = f"{'predicted ' if self.predicted else ''}{self.ms_per_image:.4f} ms"
        return f"{self.name}: {self.percent:.1f} ± {self.error:.1f} % at {latency}"


class RaceInfo(NamedTuple):
    """The networks of the search, the known designs, the MasterNet (ms per image, percent), and the budgets in ms per image."""

    searched: tuple[RacePoint, ...]
    known: tuple[RacePoint, ...]
    masternet: tuple[float, float]
    budgets: tuple[float, ...]

    @property
    def predicted(self) -> bool:
        """Return whether there are latencies that were not measured."""
        return any(point.predicted for point in self.searched + self.known)


class ShortTraining(NamedTuple):
    """A short training: its network's name, held-out accuracy (0 to 1), and whether it is of the search or a known design."""

    name: str
    held_out: float
    searched: bool


class Rungs(NamedTuple):
    """One network's way through the race: held-out accuracy in percent after its short training, and after full ones, if any."""

    name: str
    searched: bool
    short: float | None
    full: float | None
    won: bool


def race_info(outcomes: Outcomes) -> RaceInfo:
    """Return every network raced whose latency was measured or predicted, with the MasterNet and the budgets."""
    winners = {outcome.network for outcome in outcomes.outcomes}

    def points(searched: bool) -> tuple[RacePoint, ...]:
        return tuple(
            RacePoint(
                each.name,
                each.design or "",
                ms,
                100 * each.test_accuracy,
                100 * each.test_error,
                each.network in winners,
                predicted=each.ms_per_image is None,
            )
            for each in outcomes.raced
            if each.searched == searched and (ms := each.ms_per_image or each.predicted_ms_per_image) is not None
        )

    batch, masternet_ms = outcomes.setting.batch, outcomes.masternet_ms_per_image * outcomes.setting.batch
    limits = [each.budget_ms_per_image for each in outcomes.outcomes] + [each.budget_ms_per_image for each in outcomes.unmet]
    limits += [budget.ms(masternet_ms, batch) / batch for budget in outcomes.untrained]
    masternet = (outcomes.trained_masternet_ms_per_image, 100 * outcomes.masternet.test_accuracy)
    return RaceInfo(points(True), points(False), masternet, tuple(limits))


def rungs_info(outcomes: Outcomes, short: Mapping[str, ShortTraining]) -> tuple[Rungs, ...]:
    """Return every network of the race, those in front first; `short` has the short trainings by notation.

    A name may change: a network that was a joint trial once may be raced as a known design.
    """
    winners, raced = {outcome.network for outcome in outcomes.outcomes}, {each.network: each for each in outcomes.raced}

    def rungs(network: str) -> Rungs:
        full, first = raced.get(network), short.get(network)
        named = full or short[network]
        full_percent = 100 * full.held_out_accuracy if full else None
        return Rungs(named.name, named.searched, 100 * first.held_out if first else None, full_percent, network in winners)

    found = map(rungs, dict.fromkeys((*raced, *short)))
    return tuple(sorted(found, key=lambda each: (each.full is None, -(each.full or each.short or 0.0))))


def draw_race(info: RaceInfo) -> str:
    """Draw test accuracy over latency with errors: the search, known designs, the MasterNet; winners are ringed.

    Points of predicted latency are hollow diamonds.
    """
    figure = figure_of(NARROW, 3.2)
    axes, titles = figure.subplots(), dict[str, str]()
    for label, points, colour in (("of the search", info.searched, SEARCHED), ("known designs", info.known, KNOWN)):
        for predicted, mark, fill in ((False, "o", colour), (True, "D", "white")):
            alike = [point for point in points if point.predicted == predicted]
            if alike:
                ms, percent, errors = ([getattr(point, name) for point in alike] for name in ("ms_per_image", "percent", "error"))
                drawn = axes.errorbar(
                    ms, percent, errors, fmt=mark, markersize=4, linewidth=1, color=colour, markerfacecolor=fill
                )
                drawn.set_label(f"{label}, latency predicted" if predicted else label)
        for point in points:
            titles[f"raced-{len(titles)}"] = point.description
            (dot,) = axes.plot(point.ms_per_image, point.percent, "o", markersize=8, alpha=0, color=colour)
            dot.set_gid(f"raced-{len(titles) - 1}")  # large enough to be pointed at
            axes.annotate(point.design, (point.ms_per_image, point.percent), (4, 3), textcoords="offset points", fontsize=6)
            if point.won:
                axes.plot(point.ms_per_image, point.percent, "o", markersize=9, markerfacecolor="none", color="black")
    axes.plot(*info.masternet, "*", markersize=9, color=GREY, label="MasterNet")
    for budget in info.budgets:
        axes.axvline(budget, color=GREY, linewidth=1, linestyle="--")
    axes.set_xlabel("ms per image")
    axes.set_ylabel("accuracy on test images (%)")
    axes.legend(fontsize=7, frameon=False)
    return svg(figure, titles)


def draw_rungs(rungs: Sequence[Rungs]) -> str:
    """Draw the race: a row a network, from its short training to its full ones; winners are ringed."""
    figure = figure_of(NARROW, 0.6 + 0.17 * len(rungs))
    axes = figure.subplots()
    for row, each in enumerate(rungs):
        colour = SEARCHED if each.searched else KNOWN
        if each.short is not None and each.full is not None:
            axes.plot([each.short, each.full], [row, row], color=colour, linewidth=1)
        if each.short is not None:
            axes.plot(each.short, row, "o", markersize=4, markerfacecolor="white", color=colour)
        if each.full is not None:
            axes.plot(each.full, row, "o", markersize=4, color=colour)
            if each.won:
                axes.plot(each.full, row, "o", markersize=9, markerfacecolor="none", color="black")
    axes.set_yticks(range(len(rungs)), [each.name for each in rungs])
    axes.set_ylim(len(rungs) - 0.4, -0.6)  # the best on top, and room for its ring
    axes.set_xlabel("accuracy on held-out images (%)")
    return svg(figure)


def draw_network(network: Network) -> str:
    """Draw a network's blocks to scale: as high as they are wide in channels, shaded less the more they have shrunk images."""
    from matplotlib.patches import Rectangle

    figure, place, size = figure_of(6.4, 1.2), 0.0, out_size(network.input.resolution, network.stem.stride)
    axes = figure.subplots()
    parts = [("stem", network.stem.width, GREY, 1, size)]
    for superblock in network.stages:
        size = out_size(size, superblock.stride)
        parts.append((str(superblock), superblock.width, KIND_COLOURS[superblock.type], superblock.depth, size))
    if network.head:
        parts.append(("head", network.head.width, GREY, 1, size))
    widest = max(width for _, width, *_ in parts)
    for label, width, colour, depth, pixels in parts:
        for block in range(depth):
            axes.add_patch(Rectangle((place + block, -width / 2), 0.85, width, color=colour, linewidth=0))
        axes.text(place + depth / 2, widest * 0.62, f"{pixels} px", fontsize=6, ha="center", color=GREY)
        axes.text(place + depth / 2, -widest * 0.62, _short(label), fontsize=6, ha="center", va="top")
        place += depth + 0.6
    axes.set_xlim(-0.2, place)
    axes.set_ylim(-widest * 1.05, widest * 0.85)
    axes.set_axis_off()
    return svg(figure)


def _short(label: str) -> str:
    """Return a super-block's notation on two lines: its type, and its width times its depth."""
    if " " not in label:
        return label
    kind, *_ = label.split()
    tokens = {token[0]: token[1:] for token in label.split()[1:]}
    return f"{kind} k{tokens['k']}\n{tokens['c']} x {tokens['d']}"
