"""What `benchmarks/trials.py` found: modes and lengths of trials against networks trained from scratch.

    python benchmarks/trials_table.py

Cells that are not finished stay empty.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from statistics import fmean

import numpy as np
from scipy.stats import kendalltau
from trials import HERE, LENGTHS, MODES, RESULTS, SEEDS, TRUTH_SEEDS, Costs, Parent, evidence, planned, truth_networks

from genet.choose.regression import fit
from genet.files import Journal
from genet.spec.cost import network_cost
from genet.spec.network import Network
from genet.spec.reader import read_recipe
from genet.spec.recipe import Mode, Recipe
from genet.trials.results import Seconds, read_results


def predictions(
    recipe: Recipe, parent_accuracy: float, mode: Mode, epochs: int, seed: int, networks: list[str]
) -> np.ndarray | None:
    """What the regression on one cell's trials predicts for the networks; None where the cell is not finished."""
    results = read_results(evidence(mode, epochs, seed))
    if any(trial.id not in results for trial in planned(recipe, seed)):
        return None
    regression = fit(recipe.space.superblocks, parent_accuracy, results.values())
    parsed = [Network.parse(notation) for notation in networks]
    return np.array([sum(regression.gain(i, s) or 0.0 for i, s in enumerate(network.superblocks)) for network in parsed])


class Truth:
    """Accuracies of the networks trained from scratch: networks x seeds."""

    def __init__(self, recipe: Recipe) -> None:
        self.networks = [str(network) for network in truth_networks(recipe)]
        found = {(r["network"], r["seed"]): r["accuracy"] for r in Journal(RESULTS / "truth.jsonl").read().records}
        self.accuracies = np.array([[found[network, seed] for seed in TRUTH_SEEDS] for network in self.networks])
        self.mean = self.accuracies.mean(1)

    def ceiling(self) -> list[float]:
        """Kendall's tau of every seed with the mean of the others: what no prediction can be expected to better by much."""
        seeds = range(len(TRUTH_SEEDS))
        return [tau(self.accuracies[:, seed], np.delete(self.accuracies, seed, axis=1).mean(1)) for seed in seeds]


def tau(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's rank correlation."""
    return float(kendalltau(one, other).statistic)


def standard_error(statistic: Callable[[np.ndarray], float], size: int) -> float:
    """Over 1,000 draws of the networks with replacement."""
    draw = np.random.default_rng(0)
    return float(np.nanstd([statistic(draw.integers(0, size, size)) for _ in range(1000)]))


def main() -> None:
    """The table of modes and lengths beside the ceiling and what costs nothing."""
    recipe = read_recipe(HERE / "trials.yaml")
    truth, costs = Truth(recipe), Costs.load(RESULTS / "costs-cpu.json")
    reached = Parent.load(RESULTS / "masternet.json").accuracy
    size, low, high = len(truth.networks), truth.mean.min(), truth.mean.max()
    ceiling, deviation = truth.ceiling(), 100 * truth.accuracies.std(1, ddof=1).mean()
    lines = [
        f"{size} networks x {len(TRUTH_SEEDS)} seeds trained from scratch: {low:.1%} to {high:.1%}; standard deviation of one "
        f"seed {deviation:.2f} points. MasterNet {reached:.1%}. Costs: {costs.device}.",
        "",
        f"Ceiling: Kendall of one seed with the mean of the others: {', '.join(f'{each:.2f}' for each in ceiling)}.",
        "",
        "| what costs nothing | Kendall | standard error |",
        "|---|---|---|",
    ]
    for name, proxy in proxies(truth.networks).items():
        error = standard_error(lambda k, proxy=proxy: tau(proxy[k], truth.mean[k]), size)
        lines.append(f"| {name} | {tau(proxy, truth.mean):.2f} | {error:.2f} |")
    head = [f"trial seed {seed}" for seed in SEEDS]
    lines += ["", f"| mode | epochs | seconds per trial | {' | '.join(head)} | standard error | spread of a trial, points |"]
    lines.append("|---" * (5 + len(SEEDS)) + "|")
    for mode, epochs in itertools.product(MODES, LENGTHS):
        taus, errors = [], []
        for seed in SEEDS:
            predicted = predictions(recipe, reached, mode, epochs, seed, truth.networks)
            taus.append("" if predicted is None else f"{tau(predicted, truth.mean):.2f}")
            if predicted is not None:
                errors.append(standard_error(lambda k, p=predicted: tau(p[k], truth.mean[k]), size))
        cells = [mode, str(epochs), f"{costs.of(mode, epochs):.1f}", *taus]
        cells += [f"{fmean(errors):.2f}" if errors else "", spread(recipe, mode, epochs)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", costs_table(costs.seconds)]
    text = "\n".join(lines) + "\n"
    (RESULTS / "table.md").write_text(
        "# What a trial trains, and for how long\n\n`python benchmarks/trials.py --data CIFAR10`\n\n" + text
    )
    print(text)


def costs_table(costs: Mapping[str, Mapping[str, float]]) -> str:
    """Where the seconds of a trial of one epoch go."""
    kinds = list(Seconds.model_fields)
    lines = [f"| seconds per trial of 1 epoch | {' | '.join(kinds)} | in all |", "|---" * (2 + len(kinds)) + "|"]
    for way, seconds in costs.items():
        parts = " | ".join(f"{seconds[kind]:.3f}" for kind in kinds)
        lines.append(f"| {way} | {parts} | {sum(seconds.values()):.3f} |")
    return "\n".join(lines)


def proxies(networks: list[str]) -> dict[str, np.ndarray]:
    """What can be read off a network without training anything."""
    parsed = [Network.parse(notation) for notation in networks]
    return {
        "sum of log-widths": np.array([sum(math.log2(s.width) for s in network.superblocks) for network in parsed]),
        "sum of depths": np.array([sum(s.depth for s in network.superblocks) for network in parsed]),
        "log-parameters": np.array([math.log2(network_cost(network).parameters) for network in parsed]),
        "log-MACs": np.array([math.log2(network_cost(network).macs) for network in parsed]),
    }


def spread(recipe: Recipe, mode: Mode, epochs: int) -> str:
    """Standard deviation of a trial's accuracy over seeds, in points, once what all trials of a seed share is taken out."""
    found = [read_results(evidence(mode, epochs, seed)) for seed in SEEDS]
    finished = [results for results in found if all(trial.id in results for trial in planned(recipe, 0))]
    if len(finished) < 2:
        return ""
    rows = np.array([[results[trial.id].accuracy or np.nan for trial in planned(recipe, 0)] for results in finished])
    return f"{100 * np.nanmean((rows - np.nanmean(rows, axis=1, keepdims=True)).std(0, ddof=1)):.2f}"


if __name__ == "__main__":
    main()
