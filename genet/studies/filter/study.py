"""Approximate filtering against sample-based searches, under one time budget (utilization paper, sections 4.2 to 4.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from genet.errors import SpecError
from genet.progress import UNSEEN, Tracker
from genet.statistics import spearman
from genet.storage import Record
from genet.studies.filter.bench import Bench, BenchRow, frontier_of
from genet.studies.filter.searchers import SEARCHERS, Searcher
from genet.studies.survey.survey import pareto_positions

Predicate = Literal["utilization", "FLOPs"]
PREDICATES: dict[Predicate, Callable[[BenchRow], float]] = {
    "utilization": lambda row: row.utilization,
    "FLOPs": lambda row: float(row.macs),
}
STUCK = 1000  # known networks proposed in a row, after which a search has converged


@dataclass(frozen=True)
class Reward:
    """The value of a sample to a search that learns: accuracy times a power of throughput over a target (equation 3)."""

    target_images_per_sec: float
    weight: float = 0.07

    def __call__(self, row: BenchRow) -> float:
        """Return the reward of one network."""
        return row.top1_percent / 100 * (row.images_per_sec / self.target_images_per_sec) ** self.weight


class SearchRun(Record):
    """The result of one search with one seed."""

    method: str
    seed: int
    trained: int  # networks whose accuracy was measured
    timed: int
    seconds: float
    frontier: tuple[str, ...]  # networks that no other found beats
    share: float  # share of the true frontier among them
    hypervolume: float  # hypervolume over the true frontier's


class MethodSummary(Record):
    """One method over all seeds: means, and standard deviations over seeds."""

    method: str
    trained: float
    timed: float
    seconds: float
    share: float
    share_deviation: float
    hypervolume: float
    hypervolume_deviation: float


class Filtering(Record):
    """The study: the correlation of predicates with accuracy, the networks they keep, and the results of every method."""

    networks: int
    true_frontier: tuple[str, ...]
    spearman: dict[str, float | None]  # of each predicate with accuracy; None where one does not vary
    left: dict[str, int]  # networks on the frontier of throughput and predicate
    budget_sec: float
    target_images_per_sec: float
    weight: float
    runs: tuple[SearchRun, ...]
    methods: tuple[MethodSummary, ...]


def predicate_frontier(rows: Sequence[BenchRow], predicate: Predicate) -> tuple[BenchRow, ...]:
    """Return networks that no other beats in throughput and in the cheap figure: those worth training."""
    return tuple(rows[place] for place in pareto_positions([(row.images_per_sec, PREDICATES[predicate](row)) for row in rows]))


def filtering_cost(bench: Bench, predicate: Predicate) -> float:
    """Return the seconds to time all networks, and to train the remaining ones."""
    return math.fsum(row.time_sec for row in bench.rows) + math.fsum(
        row.train_sec for row in predicate_frontier(bench.rows, predicate)
    )


def search_by_filtering(bench: Bench, predicate: Predicate, budget_sec: float, seed: int) -> SearchRun:
    """Time all networks (section 4.3.2), then train those on the frontier, in any order, as far as the budget goes.

    If it does not suffice to time all, half of it goes into timing and half into training.
    """
    rng = np.random.default_rng(seed)
    order = [bench.rows[place] for place in rng.permutation(len(bench.rows))]
    spent, seen = 0.0, []
    timing = math.fsum(row.time_sec for row in order)
    for row in order:
        if timing > budget_sec and spent + row.time_sec > budget_sec / 2:
            break
        spent += row.time_sec
        seen.append(row)
    trained = []
    left = predicate_frontier(seen, predicate)
    for place in rng.permutation(len(left)):
        if spent + left[place].train_sec > budget_sec * (1 + 1e-9):
            break
        spent += left[place].train_sec
        trained.append(left[place])
    return _found(bench, f"filter by {predicate}", seed, trained, len(seen), spent)


def search_by_sampling(bench: Bench, method: str, reward: Reward, budget_sec: float, seed: int) -> SearchRun:
    """Propose, train and time side by side, learn (algorithm 1), until the budget is spent; known networks cost nothing."""
    searcher: Searcher = SEARCHERS[method]([len(each) for each in bench.options], seed)
    known: dict[tuple[int, ...], BenchRow] = {}
    spent, repeats = 0.0, 0
    while repeats < STUCK and len(known) < len(bench.rows):
        choices = searcher.propose()
        row = bench.row_of[tuple(options[choice] for options, choice in zip(bench.options, choices, strict=True))]
        repeats += 1
        if choices not in known:
            cost = max(row.train_sec, row.time_sec)
            if spent + cost > budget_sec:
                break
            spent, repeats, known[choices] = spent + cost, 0, row
        searcher.learn(choices, reward(row))
    return _found(bench, method, seed, list(known.values()), len(known), spent)


def _found(bench: Bench, method: str, seed: int, trained: Sequence[BenchRow], timed: int, seconds: float) -> SearchRun:
    front = frontier_of(trained)
    true = {row.network for row in bench.true_frontier}
    return SearchRun(
        method=method,
        seed=seed,
        trained=len(trained),
        timed=timed,
        seconds=seconds,
        frontier=tuple(row.network for row in front),
        share=sum(row.network in true for row in front) / len(true),
        hypervolume=bench.hypervolume(trained) if trained else 0.0,
    )


@dataclass(frozen=True)
class Conditions:
    """The conditions of all searches: unless given, the budget is the cost of filtering, and the target the median."""

    budget_sec: float | None = None
    seeds: int = 9
    target_images_per_sec: float | None = None
    weight: float = 0.07


def study(bench: Bench, conditions: Conditions = Conditions(), tracker: Tracker = UNSEEN) -> Filtering:
    """Run every method with every seed."""
    budget = filtering_cost(bench, "utilization") if conditions.budget_sec is None else conditions.budget_sec
    least = min(max(row.train_sec, row.time_sec) for row in bench.rows)
    if budget < least:
        raise SpecError([f"--budget must suffice to train the cheapest network, {least:.6g} s (got {budget:g})"])
    target = conditions.target_images_per_sec
    if target is None:
        target = float(np.median([row.images_per_sec for row in bench.rows]))
    reward, runs = Reward(target, conditions.weight), []
    for seed in range(conditions.seeds):
        runs += [search_by_filtering(bench, predicate, budget, seed) for predicate in PREDICATES]
        runs += [search_by_sampling(bench, method, reward, budget, seed) for method in SEARCHERS]
        tracker.advance()
    accuracies = [row.top1_percent for row in bench.rows]
    return Filtering(
        networks=len(bench.rows),
        true_frontier=tuple(row.network for row in bench.true_frontier),
        spearman={name: spearman([of(row) for row in bench.rows], accuracies) for name, of in PREDICATES.items()},
        left={name: len(predicate_frontier(bench.rows, name)) for name in PREDICATES},
        budget_sec=budget,
        target_images_per_sec=target,
        weight=conditions.weight,
        runs=tuple(runs),
        methods=tuple(_method([run for run in runs if run.method == name]) for name in dict.fromkeys(run.method for run in runs)),
    )


def _method(runs: Sequence[SearchRun]) -> MethodSummary:
    def mean(of: Callable[[SearchRun], float]) -> float:
        return fmean(of(run) for run in runs)

    def deviation(of: Callable[[SearchRun], float]) -> float:
        return stdev(of(run) for run in runs) if len(runs) > 1 else 0.0

    return MethodSummary(
        method=runs[0].method,
        trained=mean(lambda run: run.trained),
        timed=mean(lambda run: run.timed),
        seconds=mean(lambda run: run.seconds),
        share=mean(lambda run: run.share),
        share_deviation=deviation(lambda run: run.share),
        hypervolume=mean(lambda run: run.hypervolume),
        hypervolume_deviation=deviation(lambda run: run.hypervolume),
    )
