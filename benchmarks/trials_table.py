"""What `benchmarks/trials.py` found: modes and lengths of trials against networks trained from scratch.

    python benchmarks/trials_table.py

Cells that are not finished stay empty.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from statistics import fmean

import numpy as np
from scipy.stats import kendalltau
from trials import STUDIES, TRUTH_SEEDS, Costs, Parent, Study, planned, truth_networks

from genet.arch.network import Network
from genet.config.recipe import DistillMode, RegressionModel
from genet.search.fit import fit
from genet.search.validation import agreement, ceiling, free_proxies, perfect_prediction
from genet.storage import Journal
from genet.trials.results import Seconds, read_results

PAPER_EPOCHS = 30
HELD_OUT = 4000  # images


def predictions(
    study: Study, mode: DistillMode, epochs: int, seed: int, networks: list[str], model: RegressionModel = "auto"
) -> np.ndarray | None:
    """What the regression on one cell's trials predicts for the networks; None where the cell is not finished."""
    recipe, results = study.recipe(), read_results(study.evidence(mode, epochs, seed))
    if any(trial.id not in results for trial in planned(recipe, seed)):
        return None
    masternet = recipe.space.masternet(recipe.search_resolution)
    reached = Parent.load(study.results / "masternet.json").accuracy
    regression = fit(masternet, reached, results.values(), HELD_OUT, model)
    return np.array([regression.accuracy_of(Network.parse(notation)) for notation in networks])


class Truth:
    """Accuracies of the networks trained from scratch: networks x seeds."""

    def __init__(self, study: Study) -> None:
        self.networks = [str(network) for network in truth_networks(study)]
        found = {(r["network"], r["seed"]): r["accuracy"] for r in Journal(study.results / "truth.jsonl").read().records}
        self.accuracies = np.array([[found[network, seed] for seed in TRUTH_SEEDS] for network in self.networks])
        self.mean = self.accuracies.mean(1)


def tau(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's rank correlation."""
    return float(kendalltau(one, other).statistic)


def standard_error(statistic: Callable[[np.ndarray], float], size: int) -> float:
    """Over 1,000 draws of the networks with replacement."""
    draw = np.random.default_rng(0)
    return float(np.nanstd([statistic(draw.integers(0, size, size)) for _ in range(1000)]))


def main() -> None:
    """Write and print the table."""
    study = STUDIES["trials"]
    truth, costs = Truth(study), Costs.load(study.results / "costs-cpu.json")
    reached = Parent.load(study.results / "masternet.json").accuracy
    low, high, deviation = truth.mean.min(), truth.mean.max(), 100 * math.sqrt(truth.accuracies.var(1, ddof=1).mean())
    limits = ", ".join(f"{each:.2f}" for each in ceiling(truth.accuracies))
    lines = [
        "# What a trial trains, and for how long",
        "",
        f"{len(truth.networks)} networks x {len(TRUTH_SEEDS)} seeds trained from scratch: {low:.1%} to {high:.1%}; standard "
        f"deviation of one seed {deviation:.2f} points. MasterNet {reached:.1%}. Costs: {costs.device}.",
        f"Agreement of one seed with the mean of the others, Kendall: {limits}. With the mean of all, a prediction without fault",
        f"could expect {perfect_prediction(truth.accuracies):.2f}.",
        "",
        *proxy_table(truth),
        "",
        *mode_table(study, truth, costs),
        "",
        costs_table(costs.seconds),
        "",
    ]
    (study.results / "table.md").write_text("\n".join(lines))
    print("\n".join(lines))


def proxy_table(truth: Truth) -> list[str]:
    """How well the truth is ranked by what costs nothing."""
    lines = ["| what costs nothing | Kendall | standard error |", "|---|---|---|"]
    for name, proxy in free_proxies([Network.parse(notation) for notation in truth.networks]).items():
        found = agreement(proxy, truth.mean)
        lines.append(f"| {name} | {found.kendall:.2f} | {found.error:.2f} |")
    return lines


def mode_table(study: Study, truth: Truth, costs: Costs) -> list[str]:
    """Cost and Kendall of every mode and length, over all trial seeds that are finished; differences are paired."""
    found = {
        (mode, epochs): [p for seed in study.seeds if (p := predictions(study, mode, epochs, seed, truth.networks)) is not None]
        for mode, epochs in itertools.product(study.modes, study.lengths)
    }

    def fidelity(cell: tuple[DistillMode, int], networks: np.ndarray) -> float:
        return fmean(tau(predicted[networks], truth.mean[networks]) for predicted in found[cell])

    def lead(cell: tuple[DistillMode, int], networks: np.ndarray) -> float:
        return fidelity(whole, networks) - fidelity(cell, networks)

    size = len(truth.networks)
    everybody = np.arange(size)
    whole = max((cell for cell in found if cell[0] == "whole" and found[cell]), key=lambda cell: fidelity(cell, everybody))
    paper = costs.of("superblock, each alone", PAPER_EPOCHS)
    lines = [
        f"Against the whole network at its best length, {whole[1]} epochs, and the paper's way, the super-block alone for "
        f"{PAPER_EPOCHS} epochs ({paper:.0f} s):",
        "",
        "| mode | epochs | seconds per trial | times cheaper than whole | than the paper's | trial seeds | Kendall "
        "| standard error | less than whole's by | standard error | spread of a trial, points |",
        "|---" * 11 + "|",
    ]
    for cell, predicted in found.items():
        if predicted:
            seconds, mine = costs.of(*cell), fidelity(cell, everybody)
            error = standard_error(partial(fidelity, cell), size)
            less = standard_error(partial(lead, cell), size)
            cells = [*map(str, cell), f"{seconds:.1f}", f"{costs.of(*whole) / seconds:.1f}", f"{paper / seconds:.1f}"]
            cells += [
                str(len(predicted)),
                f"{mine:.2f}",
                f"{error:.2f}",
                f"{fidelity(whole, everybody) - mine:+.2f}",
                f"{less:.2f}",
            ]
            lines.append(f"| {' | '.join([*cells, spread(study, *cell)])} |")
    return lines


def costs_table(costs: Mapping[str, Mapping[str, float]]) -> str:
    """Where the seconds of a trial of one epoch go."""
    kinds = list(Seconds.model_fields)
    lines = [f"| seconds per trial of 1 epoch | {' | '.join(kinds)} | in all |", "|---" * (2 + len(kinds)) + "|"]
    for way, seconds in costs.items():
        parts = " | ".join(f"{seconds[kind]:.3f}" for kind in kinds)
        lines.append(f"| {way} | {parts} | {sum(seconds.values()):.3f} |")
    return "\n".join(lines)


def spread(study: Study, mode: DistillMode, epochs: int) -> str:
    """Standard deviation of a trial's accuracy over seeds, in points, once what all trials of a seed share is taken out."""
    trials = planned(study.recipe(), 0)
    found = [read_results(study.evidence(mode, epochs, seed)) for seed in study.seeds]
    finished = [results for results in found if all(trial.id in results for trial in trials)]
    if len(finished) < 2:
        return ""
    reached = [[results[trial.id].accuracy for trial in trials] for results in finished]
    rows = np.array([[np.nan if share is None else share for share in row] for row in reached])
    return f"{100 * math.sqrt(np.nanmean((rows - np.nanmean(rows, axis=1, keepdims=True)).var(0, ddof=1))):.2f}"


if __name__ == "__main__":
    main()
