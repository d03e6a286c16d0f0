"""Does the prediction hold? The regression on cheap trials against networks trained from scratch.

    python benchmarks/trials.py --data CIFAR10 --study fidelity && python benchmarks/fidelity.py

Takes the trials of both studies of `benchmarks/trials.py` and the networks trained from scratch, none of which a trial was
of, and writes benchmarks/results/STUDY/ranking.md.
"""

from __future__ import annotations

import itertools
from statistics import fmean

import numpy as np
from trials import STUDIES, TRUTH_SEEDS, Study, planned
from trials_table import Truth, predictions

from genet.choose.fidelity import agreement, ceiling, free_proxies
from genet.files import Journal, write_atomic
from genet.spec.network import Network
from genet.spec.recipe import Mode, Model
from genet.trials.results import read_results

MODELS: tuple[Model, ...] = ("auto", "paper")


def main() -> None:
    """Write and print the table of every study whose networks are trained."""
    for study in STUDIES.values():
        trained = len(Journal(study.results / "truth.jsonl").read().records)
        if trained == study.networks * len(TRUTH_SEEDS):
            text = report(study)
            print(text)
            write_atomic(study.results / "ranking.md", text.encode())


def report(study: Study) -> str:
    """The table of one study."""
    truth, recipe = Truth(study), study.recipe()
    seconds = sum(record["seconds"] for record in Journal(study.results / "truth.jsonl").read().records) / len(TRUTH_SEEDS)
    limits = ", ".join(f"{value:.2f}" for value in ceiling(truth.accuracies))
    lines = [
        "# Predicted against trained",
        "",
        f"{len(truth.networks)} networks of `{study.name}-space.yaml` on CIFAR-10 (5,000 images, 32x32), {recipe.train.epochs} "
        f"epochs from scratch with {len(TRUTH_SEEDS)} seeds each: {truth.mean.min():.1%} to {truth.mean.max():.1%}. Kendall with",
        f"their mean; one seed agrees with the mean of the others at {limits}. Standard errors over networks drawn with",
        "replacement. Evidence: seconds of all trials over those of training the networks once, one thread each "
        f"({seconds:.0f} s); the MasterNet's own training, {recipe.master.epochs} epochs, comes on top.",
        "",
        "| predicted by | trial seeds | Kendall | standard error | Spearman | evidence |",
        "|---" * 6 + "|",
    ]
    for name, values in free_proxies([Network.parse(notation) for notation in truth.networks]).items():
        found = agreement(values, truth.mean)
        lines.append(f"| {name} | | {found.kendall:.2f} | {found.error:.2f} | {found.spearman:.2f} | 0 |")
    for mode, epochs, model in itertools.product(study.modes, study.lengths, MODELS):
        lines += row(study, truth, mode, epochs, model, seconds)
    return "\n".join([*lines, ""])


def row(study: Study, truth: Truth, mode: Mode, epochs: int, model: Model, truth_seconds: float) -> list[str]:
    """One line of the table, the mean over trial seeds; none where no seed of the cell is finished."""
    by_seed = {seed: predictions(study, mode, epochs, seed, truth.networks, model) for seed in study.seeds}
    found = {seed: agreement(values, truth.mean) for seed, values in by_seed.items() if values is not None}
    if not found:
        return []
    spent = [spent_seconds(study, mode, epochs, seed) for seed in found]
    measures = ("kendall", "error", "spearman")
    kendall, error, spearman = (fmean(getattr(each, measure) for each in found.values()) for measure in measures)
    name = f"{model}, {mode} for {epochs} epoch{'s' if epochs > 1 else ''}"
    share = float(np.mean(spent)) / truth_seconds
    return [f"| {name} | {len(found)} | {kendall:.2f} | {error:.2f} | {spearman:.2f} | {share:.1%} |"]


def spent_seconds(study: Study, mode: Mode, epochs: int, seed: int) -> float:
    """What the trials of a cell took, as their journal has it."""
    results = read_results(study.evidence(mode, epochs, seed))
    return sum(results[trial.id].seconds.total for trial in planned(study.recipe(), seed))


if __name__ == "__main__":
    main()
