"""Strategies of search on networks that others trained: how far behind the best within a budget each one ends.

    python benchmarks/tabular.py TABLE.csv.gz --trials 32 --noise 0.5 --seeds 16 --json

TABLE is Accel-NASBench (MnasNet-like networks on ImageNet, budgets in A100 time) or NAS-Bench-Macro (CIFAR-10, budgets in MACs).
A trial is a network's accuracy with noise; of NAS-Bench-Macro that of one of its three seeds. Reading a network again at half the
noise costs four trials, and counts among them. Regret is how many points of true accuracy the choice is behind the best network
within the budget, over the quantiles .2, .5 and .8 of cost. Strategies:

    genet         all of `genet.search.rounds`: a spread start, then rounds
    single        one change at a time, with the prior of size
    paper         one change at a time, without it
    random_race   random networks within the budget, and the four that read best once more
    free          the network with the most MACs within the budget, which costs no trial
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from genet.search.rounds import NEAR, Evidence, Quota, best, race, ranked, search, single_changes
from genet.search.surrogate import Pool, fit_surrogate, score

QUANTILES = (0.2, 0.5, 0.8)
FINALISTS, PRICE = 4, 4  # of a race, and trials that one of them costs
DRAWN_NEAR = 0.85  # of the budget: what random search draws from
CENTRES = 10  # networks nearest to the middle of the table, one of which single changes start from


@dataclass(frozen=True)
class Table:
    """Networks with their cost, and their true accuracies (0 to 1) by seed of their training."""

    pool: Pool
    macs: np.ndarray
    costs: np.ndarray
    accuracies: np.ndarray  # (networks, seeds)

    @property
    def truth(self) -> np.ndarray:
        """Mean true accuracies."""
        return np.asarray(self.accuracies.mean(1))


def read_table(file: Path) -> Table:
    """Read either table; ValueError for another."""
    with gzip.open(file, "rt") as text:
        rows = list(csv.DictReader(text))
    parameters, macs = (np.array([float(row[name]) for row in rows]) for name in ("params", "macs"))
    if "choices" in rows[0]:
        choices = np.array([[int(choice) for choice in row["choices"].zfill(8)] for row in rows])
        features = [np.column_stack([choices[:, place] == 1, choices[:, place] == 2]).astype(float) for place in range(8)]
        reached = np.array([[float(row[f"top1_seed{seed}"]) for seed in range(3)] for row in rows])
        return Table(Pool.of(features, macs, parameters), macs, macs, reached / 100)
    if "blocks" in rows[0]:
        blocks = np.array([[[int(value) for value in re.findall(r"\d+", b)] for b in row["blocks"].split()] for row in rows])
        expansion, kernel, layers, attention = np.moveaxis(blocks, 2, 0)
        features = [
            np.column_stack([np.log(expansion[:, p]), kernel[:, p] / 2, np.log(layers[:, p]), attention[:, p]]) for p in range(7)
        ]
        reached = np.array([[float(row["top1_percent"])] for row in rows])
        speed = np.array([float(row["a100_images_per_s"]) for row in rows])
        return Table(Pool.of(features, macs, parameters), macs, 1e3 / speed, reached / 100)
    raise ValueError(f"reading {file} failed: got columns {', '.join(rows[0])}, expected choices or blocks; give another table")


@dataclass(frozen=True)
class Question:
    """A table, a budget and so many trials, for one strategy with one source of chance."""

    table: Table
    budget: float
    trials: int
    noise: float  # of accuracy, 0 to 1
    draw: np.random.Generator

    def train(self, rows: np.ndarray, share: float = 1.0) -> np.ndarray:
        """Return what trials of networks read, with this share of the noise."""
        seeds = self.draw.integers(0, self.table.accuracies.shape[1], len(rows))
        return np.asarray(self.table.accuracies[rows, seeds] + share * self.draw.normal(0, self.noise, len(rows)))

    @property
    def within(self) -> np.ndarray:
        """The networks within the budget."""
        return np.flatnonzero(self.table.costs <= self.budget)


@dataclass(frozen=True)
class Rows:
    """The rows of a table that may be trained within a budget; one may be trained again."""

    asked: Question

    def near(self, _proposed: Sequence[int], _draw: np.random.Generator) -> list[int]:
        """Return all near the budget."""
        costs = self.asked.table.costs
        return [int(row) for row in self.asked.within if costs[row] >= NEAR * self.asked.budget]

    def alike(self, _evidence: Evidence[int], _proposed: Sequence[int], _draw: np.random.Generator) -> list[int]:
        """Return all within the budget."""
        return [int(row) for row in self.asked.within]

    def pool(self, rows: Sequence[int]) -> Pool:
        """Describe rows."""
        return self.asked.table.pool.take(rows)


def genet(asked: Question) -> int:
    """Search by rounds, and take the network that is best by what all trials tell."""
    rows, networks, scores = Rows(asked), list[int](), list[float]()

    def train(proposals: Sequence[tuple[int, int]]) -> Evidence[int]:
        new = [row for _, row in proposals]
        networks.extend(new)
        scores.extend(score(asked.train(np.array(new))))
        return Evidence(networks, scores)

    search([Quota(rows, asked.trials)], Evidence(networks, scores), train, int(asked.draw.integers(2**31)))
    return ranked(rows, Evidence(networks, scores))[0]


def single(asked: Question, prior: bool = True) -> int:
    """Change one thing at a time, from a network of the middle."""
    pool = asked.table.pool
    seen = pool if prior else dataclasses.replace(pool, size=np.zeros_like(pool.size), shared=np.zeros_like(pool.shared))
    middle = np.argsort(np.abs(pool.local).sum(1))[asked.draw.integers(0, CENTRES)]
    rows = single_changes(pool, int(middle), asked.trials, asked.draw)
    return best(fit_surrogate(seen, rows, score(asked.train(rows))), asked.within)


def random_race(asked: Question) -> int:
    """Train random networks within the budget, and race those that read best."""
    near = asked.within[asked.table.costs[asked.within] >= DRAWN_NEAR * asked.budget]
    rows = asked.draw.choice(near, min(len(near), asked.trials - FINALISTS * PRICE), replace=False)
    return race(rows, asked.train(rows), partial(asked.train, share=1 / math.sqrt(PRICE)), FINALISTS)


def free(asked: Question) -> int:
    """Take the network with the most MACs."""
    return int(asked.within[asked.table.macs[asked.within].argmax()])


STRATEGIES: dict[str, Callable[[Question], int]] = {
    "genet": genet,
    "single": single,
    "paper": partial(single, prior=False),
    "random_race": random_race,
    "free": free,
}


def regrets(table: Table, trials: int, noise: float, seeds: int) -> dict[str, np.ndarray]:
    """Return points of regret per strategy, over seeds and budgets."""
    found: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    for seed in range(seeds):
        for place, budget in enumerate(np.quantile(table.costs, QUANTILES)):
            most = table.truth[table.costs <= budget].max()
            for name, strategy in STRATEGIES.items():
                draw = np.random.default_rng((seed, place))
                chosen = strategy(Question(table, float(budget), trials, noise / 100, draw))
                found[name].append(100 * float(most - table.truth[chosen]))
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    """Print a table, and with --json a last line for programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--trials", type=int, default=32, help="in all, those of a race included (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.5, help="of a trial, in points (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=16, help="searches per budget (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.trials <= FINALISTS * PRICE:
        parser.error(
            f"--trials: got {arguments.trials}, expected more than {FINALISTS * PRICE}, which the race of random search costs"
        )
    found = regrets(read_table(arguments.table), arguments.trials, arguments.noise, arguments.seeds)
    means = {name: float(values.mean()) for name, values in found.items()}
    errors = {name: float(values.std(ddof=1) / math.sqrt(len(values))) for name, values in found.items()}
    print(
        f"{arguments.table.name}: {arguments.trials} trials, noise {arguments.noise} points, {arguments.seeds} seeds, 3 budgets\n"
    )
    print("| strategy | regret, points | standard error |\n|---|---|---|")
    for name in STRATEGIES:
        print(f"| {name} | {means[name]:.2f} | {errors[name]:.2f} |")
    if arguments.json:
        print(json.dumps({"regret": means, "stderr": errors}))


if __name__ == "__main__":
    main()
