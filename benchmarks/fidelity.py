"""Does the prediction hold? The regression on cheap trials against networks trained from scratch.

    python benchmarks/trials.py --data CIFAR10 && python benchmarks/fidelity.py

Takes the trials and the networks that `benchmarks/trials.py` has trained, none of which a trial was of, and writes
benchmarks/results/fidelity/ranking.md.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from statistics import fmean

import numpy as np
from trials import HERE, LENGTHS, MODES, SEEDS, TRUTH_SEEDS, Parent, evidence, planned
from trials import RESULTS as TRIALS
from trials_table import Truth, predictions

from genet.choose.fidelity import agreement, ceiling, free_proxies
from genet.choose.regression import Model
from genet.files import Journal, write_atomic
from genet.spec.network import Network
from genet.spec.reader import read_recipe
from genet.spec.recipe import Mode, Recipe
from genet.trials.results import read_results

RESULTS = Path(__file__).parent / "results" / "fidelity"
MODELS: tuple[Model, ...] = ("auto", "paper")


def main() -> None:
    """Write and print the table."""
    recipe = read_recipe(HERE / "trials.yaml")
    truth, reached = Truth(recipe), Parent.load(TRIALS / "masternet.json").accuracy
    seconds = sum(record["seconds"] for record in Journal(TRIALS / "truth.jsonl").read().records) / len(TRUTH_SEEDS)
    limits = ", ".join(f"{value:.2f}" for value in ceiling(truth.accuracies))
    lines = [
        "# Predicted against trained",
        "",
        f"{len(truth.networks)} networks of `trials-space.yaml` on CIFAR-10 (5,000 images, 32x32), {recipe.train.epochs} epochs",
        f"from scratch with {len(TRUTH_SEEDS)} seeds each: {truth.mean.min():.1%} to {truth.mean.max():.1%}. Kendall with their",
        f"mean; one seed agrees with the mean of the others at {limits}. Standard errors over networks drawn with",
        "replacement. Evidence: seconds of all trials over those of training the networks once, one thread each",
        f"({seconds:.0f} s).",
        "",
        "| predicted by | trial seeds | Kendall | standard error | Spearman | evidence |",
        "|---" * 6 + "|",
    ]
    for name, values in free_proxies([Network.parse(notation) for notation in truth.networks]).items():
        found = agreement(values, truth.mean)
        lines.append(f"| {name} | | {found.kendall:.2f} | {found.error:.2f} | {found.spearman:.2f} | 0 |")
    for mode, epochs, model in itertools.product(MODES, LENGTHS, MODELS):
        lines += row(recipe, truth, reached, mode, epochs, model, seconds)
    text = "\n".join([*lines, ""])
    print(text)
    write_atomic(RESULTS / "ranking.md", text.encode())


def row(recipe: Recipe, truth: Truth, reached: float, mode: Mode, epochs: int, model: Model, truth_seconds: float) -> list[str]:
    """One line of the table, the mean over trial seeds; none where no seed of the cell is finished."""
    by_seed = {seed: predictions(recipe, reached, mode, epochs, seed, truth.networks, model) for seed in SEEDS}
    found = {seed: agreement(values, truth.mean) for seed, values in by_seed.items() if values is not None}
    if not found:
        return []
    spent = [spent_seconds(recipe, mode, epochs, seed) for seed in found]
    kendall, error, spearman = (
        fmean(getattr(each, name) for each in found.values()) for name in ("kendall", "error", "spearman")
    )
    name = f"{model}, {mode} for {epochs} epoch{'s' if epochs > 1 else ''}"
    share = float(np.mean(spent)) / truth_seconds
    return [f"| {name} | {len(found)} | {kendall:.2f} | {error:.2f} | {spearman:.2f} | {share:.1%} |"]


def spent_seconds(recipe: Recipe, mode: Mode, epochs: int, seed: int) -> float:
    """What the trials of a cell took, as their journal has it."""
    results = read_results(evidence(mode, epochs, seed))
    return sum(results[trial.id].seconds.total for trial in planned(recipe, seed))


if __name__ == "__main__":
    main()
