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

from genet.arch.network import Network
from genet.config.recipe import DistillMode, RegressionModel, Schedule
from genet.search.validation import agreement, ceiling, free_proxies, perfect_prediction
from genet.storage import Journal, write_atomic
from genet.trials.results import additivity, read_results

MODELS: tuple[RegressionModel, ...] = ("auto", "paper")


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
    schedule = recipe.master
    assert isinstance(schedule, Schedule)  # the study trains its MasterNet
    seconds = sum(record["seconds"] for record in Journal(study.results / "truth.jsonl").read().records) / len(TRUTH_SEEDS)
    limits = ", ".join(f"{value:.2f}" for value in ceiling(truth.accuracies))
    noise = 100 * float(np.sqrt(truth.accuracies.var(1, ddof=1).mean() / len(TRUTH_SEEDS)))
    lines = [
        "# Predicted against trained",
        "",
        f"{len(truth.networks)} networks of `{study.name}-space.yaml` on CIFAR-10 (5,000 images, 32x32), {recipe.train.epochs} "
        f"epochs from scratch with {len(TRUTH_SEEDS)} seeds each: {truth.mean.min():.1%} to {truth.mean.max():.1%}.",
        f"Kendall with their mean, whose standard error is {noise:.2f} points: a prediction without fault could expect "
        f"{perfect_prediction(truth.accuracies):.2f},",
        f"and one seed agrees with the mean of the others at {limits}. Standard errors over networks drawn with replacement.",
        f"Evidence: seconds of all trials over those of training the networks once, one thread each ({seconds:.0f} s); the",
        f"MasterNet's own training, {schedule.epochs} epochs, comes on top.",
        "",
        "| predicted by | trial seeds | Kendall | standard error | Spearman | evidence |",
        "|---" * 6 + "|",
    ]
    for name, values in free_proxies([Network.parse(notation) for notation in truth.networks]).items():
        found = agreement(values, truth.mean)
        lines.append(f"| {name} | | {found.kendall:.2f} | {found.error:.2f} | {found.spearman:.2f} | 0 |")
    for mode, epochs, model in itertools.product(study.modes, study.lengths, MODELS):
        lines += row(study, truth, mode, epochs, model, seconds)
    return "\n".join([*lines, "", *interactions(study, truth), ""])


def row(study: Study, truth: Truth, mode: DistillMode, epochs: int, model: RegressionModel, truth_seconds: float) -> list[str]:
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


def interactions(study: Study, truth: Truth) -> list[str]:
    """Do effects add up? Trained accuracy over the predicted sum of effects: a line, or a bend, which all pairs share."""
    lines = [
        "Do effects add up? Accuracy trained over accuracy predicted by `auto`, a sum of effects, as a line and with a bend (its",
        "square: one interaction for all pairs of super-blocks). Error on networks left out one at a time, points, mean over",
        "trial seeds; beside it what paired trials, where there are any, differ by from the sum of their parts, in points.",
        "",
        "| evidence | slope of the line | error of the line | with a bend | paired trials | their interaction | their effect |",
        "|---" * 7 + "|",
    ]
    for mode, epochs in itertools.product(study.modes, study.lengths):
        by_seed = {seed: predictions(study, mode, epochs, seed, truth.networks) for seed in study.seeds}
        fits = [bends(values, truth.mean) for values in by_seed.values() if values is not None]
        if fits:
            slope, line, bend = np.mean(fits, axis=0)
            finished = [seed for seed, values in by_seed.items() if values is not None]
            audits = [additivity(read_results(study.evidence(mode, epochs, seed)).values()) for seed in finished]
            found = [audit for audit in audits if audit]
            paired: tuple[str, ...] = ("", "", "")
            if found:
                rms = (100 * fmean(getattr(audit, name) for audit in found) for name in ("interaction", "effect"))
                paired = (str(sum(audit.paired_trials for audit in found)), *(f"{value:.2f}" for value in rms))
            name = f"{mode} for {epochs} epoch{'s' if epochs > 1 else ''}"
            lines.append(f"| {name} | {slope:.2f} | {100 * line:.2f} | {100 * bend:.2f} | {' | '.join(paired)} |")
    return lines


def bends(predicted: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    """Slope of a line through predicted and found accuracies; left-out errors of it and of a parabola, root mean square."""
    x = predicted - predicted.mean()
    errors = []
    for matrix in (np.column_stack([np.ones_like(x), x]), np.column_stack([np.ones_like(x), x, x**2])):
        hat = matrix @ np.linalg.pinv(matrix)
        errors.append(float(np.sqrt(np.mean(((found - hat @ found) / (1 - np.diag(hat))) ** 2))))
    return float(x @ (found - found.mean()) / (x @ x)), errors[0], errors[1]


def spent_seconds(study: Study, mode: DistillMode, epochs: int, seed: int) -> float:
    """What the trials of a cell took, as their journal has it."""
    results = read_results(study.evidence(mode, epochs, seed))
    return sum(results[trial.id].seconds.total for trial in planned(study.recipe(), seed))


if __name__ == "__main__":
    main()
