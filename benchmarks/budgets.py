"""What a job hands out within a budget against the best known design, random search with the same race, and less of a search.

    python benchmarks/budgets.py --data CIFAR10               hours on two cores; stopped, it goes on where it was, and races
                                                              whose *-results.json lie among the results are not repeated
    python benchmarks/budgets.py --data CIFAR10 --study halves

Studies: `all`, 5,000 images of CIFAR-10's ten classes; `halves`, those of the first five, so that nothing is fitted to one set;
`whole-0`, `whole-1` and `whole-2`, the images of `all` and a tournament for the MasterNet, each from a seed of its own.
Random search races as many random networks of the space around the tournament's winner, within a tenth below each budget, as cost
what the whole search costs (in `whole-0` of the space as written). The search without joint trials starts from the MasterNet in
the space. The networks of each way are then trained from three new seeds, and the table is written. Writes
benchmarks/results/budgets/STUDY/.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType

import numpy as np
import torch
from trials import HERE, STUDIES, few_images

from genet.arch.cost import network_cost
from genet.arch.external import read_notation
from genet.arch.network import Network
from genet.cli.console import progress
from genet.config.budget import Budget
from genet.config.recipe import Recipe, Search, Select
from genet.device import keep_memory
from genet.pipeline.context import RunContext, open_run
from genet.pipeline.distill import run_planned_trials
from genet.pipeline.entrants import find_entrants
from genet.pipeline.fit import fit_trials
from genet.pipeline.master import train_master
from genet.pipeline.profile import profile_device
from genet.pipeline.race import run_race
from genet.pipeline.run_folder import network_name
from genet.pipeline.search_state import SearchState
from genet.pipeline.select import select_networks
from genet.pipeline.tournament import find_masternet
from genet.pipeline.train import TrainingSpec, train_by_epochs
from genet.search.candidates import near_budget
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes
from genet.search.race import Entrant, Entrants
from genet.search.tournament import Tournament
from genet.storage import Journal, Record, write_atomic, written_atomically
from genet.training.loop import Execution, finished
from genet.training.splits import load_data
from genet.trials.runners.opening import open_runner
from genet.trials.runners.runner import Runner

RESULTS = HERE / "results" / "budgets"
BUDGETS = tuple(map(Budget.parse, ("0.8x", "0.6x", "0.4x")))
SEEDS, FIRST_SEED = 3, 100  # seeds that no race has used
PER_NETWORK = 1.05  # full trainings that a network of a race costs on average: all short, a third fully, some twice
RANDOM, TOURNAMENT = "random search, the same race", "the tournament alone"


class Study(Record):
    """The images and the search of a study."""

    classes: int = 10
    masternets: tuple[str, ...] | None = None
    seed: int = 0

    @property
    def single(self) -> str:
        """Return what the lesser search goes without."""
        return "without joint trials" if self.masternets is None else "without tournament and joint trials"


PORTFOLIO = ("known", "patterns")
STUDIED = {
    "all": Study(),
    "halves": Study(classes=5),
    **{f"whole-{seed}": Study(masternets=PORTFOLIO, seed=seed) for seed in range(3)},
}


class MethodResult(Record):
    """The network that one way of choosing arrives at for a budget, and its measured share of the MasterNet's latency."""

    budget: str
    way: str
    name: str
    network: str
    share: float
    trainings: float | None  # that the way costs, in full trainings, over all budgets; None if they were not counted


def two_workers(_device: str) -> Runner:
    """Trials and trainings in two processes of one thread each."""
    return open_runner("cpu", "processes", workers=2)


def recipe_of(name: str, images: Path, work: Path) -> Recipe:
    """The recipe of a study, on the few images that it takes of CIFAR-10."""
    recipe, study = STUDIES["fidelity"].recipe(), STUDIED[name]
    data = recipe.data.model_copy(update={"root": str(few_images(images, work / "images", study.classes).absolute())})
    read = recipe.space.input.model_copy(update={"classes": study.classes})
    space = recipe.space.model_copy(update={"input": read, "masternets": study.masternets})
    named = {"name": f"budgets-{name}", "seed": study.seed, "space": space, "data": data}
    return recipe.model_copy(update={**named, "select": Select(budgets=BUDGETS)})


def select(recipe: Recipe, folder: Path) -> None:
    """The job up to its selection."""
    with open_run(folder, progress(), recipe) as job:
        find_masternet(job, two_workers)
        profile_device(job)
        train_master(job)
        run_planned_trials(job, two_workers)
        fit_trials(job)
        select_networks(job)


def race(recipe: Recipe, base: Path, folder: Path) -> Outcomes:
    """The race of a job that has selected, in a copy of its folder."""
    copied(base, folder)
    with open_run(folder, progress(), recipe) as job:
        return run_race(job, two_workers)


def lesser(recipe: Recipe) -> Recipe:
    """The same recipe, whose search starts from the MasterNet in the space and ends with the trials of single super-blocks."""
    space = recipe.space.model_copy(update={"masternets": None})
    return recipe.model_copy(update={"search": Search(joint_trials=0), "space": space})


def copied(folder: Path, into: Path) -> None:
    """Copy a run unless that was done before, but for who raced and what came of it: what was trained is not trained again."""
    if not into.exists():
        without = shutil.ignore_patterns("results.json", "entrants.json", ".lock")
        with written_atomically(into) as copy:
            shutil.copytree(folder, copy, ignore=without, dirs_exist_ok=True)


def random_search(recipe: Recipe, base: Path, folder: Path, trainings: float) -> Outcomes:
    """The same race among random networks of the space, as many as the given cost allows."""
    copied(base, folder)
    timed = folder.with_name("search") / "latency.jsonl"
    if timed.exists() and not (folder / "entrants.json").exists():  # known designs among it, which are not timed again
        shutil.copyfile(timed, folder / timed.name)
    with open_run(folder, progress(), recipe.model_copy(update={"search": Search(joint_trials=0)})) as job:
        found = find_entrants(job)
        if not found.inputs:
            raise SystemExit("a design could not be timed for now, expected all to be; the same command tries it again")
        if any(entrant.design for entrant in found.entrants):
            budgets = recipe.select.budgets
            count = max(2, round(trainings / len(budgets) / PER_NETWORK))
            drawn = tuple(entrant for budget in budgets for entrant in random_entrants(job, budget, count))
            found.model_copy(update={"entrants": drawn, "joint": ()}).save(job.folder.entrants)
        raced, epochs = run_race(job, two_workers), job.recipe.train.epochs
        lines = job.folder.race.read().records
        return raced.model_copy(update={"trainings": sum(line["epochs"] for line in lines) / epochs})  # it needs no trials


def random_entrants(job: RunContext, budget: Budget, count: int) -> Iterator[Entrant]:
    """Random networks of the space that are certified within a budget, and less than a tenth below it."""
    state, limit, resolution = SearchState(job, job.table), budget.amount, job.recipe.search_resolution
    offered, limit_ms = state.choice_tables(resolution), state.limit_ms(budget)
    rng = np.random.default_rng([job.recipe.seed, int(100 * limit)])
    near = near_budget(offered, limit_ms, rng)
    for place in rng.permutation(len(near)):
        if offered.predict(near[place]).ms <= 0.9 * limit_ms:
            continue
        network = Network.parse(str(near[place]), name="random")
        found = state.judge(state.measure(network, budget, patient=False), budget)
        if not found.within or found.ms <= 0.9 * limit_ms:
            continue
        cost = network_cost(network)
        yield Entrant(
            budget=budget,
            budget_ms_per_image=limit_ms / state.batch,
            within=tuple(each for each in BUDGETS if each.amount >= limit),
            design=None,
            name=network_name(network),
            network=str(network),
            resolution=resolution,
            ms_per_image=found.ms / state.batch,
            interval_ms_per_image=found.interval_ms / state.batch,
            parameters=cost.parameters,
            macs=cost.macs,
        )
        count -= 1
        if count == 0:
            return


def ended(work: Path, results: Path, name: str, run: Callable[[Path], Outcomes]) -> Outcomes:
    """What a race arrived at, whose evidence lies among the results: it is not run again."""
    evidence = results / f"{name}-results.json"
    if evidence.exists():
        return Outcomes.load(evidence)
    found = run(work / name)
    for file in ("race.jsonl", "entrants.json", "selection.json", "tournament.json"):
        if (work / name / file).exists():
            write_atomic(results / f"{name}-{file}", (work / name / file).read_bytes())
    found.save(evidence)
    return found


def selected(recipe: Recipe, folder: Path) -> Path:
    """The folder of a job that has selected."""
    select(recipe, folder)
    return folder


def tournament_cost(held: Tournament, recipe: Recipe) -> float:
    """What a tournament cost, in full trainings."""
    return sum(each.epochs * len(each.trainings) for each in held.rounds) / recipe.train.epochs


def tournament_alone(held: Tournament, found: Outcomes, entrants: Entrants, cost: float) -> Iterator[MethodResult]:
    """The tournament's winner, as widely scaled as each budget allows: the search without a trial."""
    assert held.won is not None  # its search is over
    scaled = [each for each in entrants.entrants if each.design == held.won.design]
    for entrant in {each.budget: each for each in sorted(scaled, key=lambda each: each.macs)}.values():
        if entrant.ms_per_image is not None:
            share = entrant.ms_per_image / found.masternet_ms_per_image
            budget, network = str(entrant.budget), entrant.network
            yield MethodResult(budget=budget, way=TOURNAMENT, name=entrant.name, network=network, share=share, trainings=cost)


def method_results(found: Outcomes, others: dict[str, Outcomes], selection: Selection) -> Iterator[MethodResult]:
    """What the search, and every other way, arrives at for every budget."""
    costs = {way: other.trainings for way, other in others.items()}
    masternets = {way: other.masternet_ms_per_image for way, other in others.items()}
    for outcome in found.outcomes:
        make = partial(MethodResult, budget=str(outcome.budget))
        reached = {"handed out": outcome, "best known design": outcome.known, "best of the search": outcome.best_searched}
        for way, other in others.items():
            reached[way] = next((each for each in other.outcomes if each.budget == outcome.budget), None)
        for way, each in reached.items():
            if each is not None and each.ms_per_image is not None:
                cost = costs.get(way, found.trainings)
                yield make(
                    way=way,
                    name=each.name,
                    network=each.network,
                    share=each.ms_per_image / masternets.get(way, found.masternet_ms_per_image),
                    trainings=cost,
                )
        alone = next((choice for choice in selection.answers if choice.budget == outcome.budget), None)
        if alone is None:
            continue
        share = (alone.measured_ms_per_image or alone.predicted_ms_per_image) / selection.masternet_ms_per_image
        yield make(way="selected, without a race", name="selected", network=alone.network, share=share, trainings=None)


def train_one(recipe: Recipe, network: str, seed: int, start: Path | None) -> dict[str, object]:
    """One network by a seed of its own, from scratch or from the weights in a file; its accuracy on the test images."""
    torch.set_num_threads(1)
    keep_memory()
    spec = TrainingSpec(
        read_notation(network, "network"), recipe.train, recipe.data, recipe.seed, recipe.augment, FIRST_SEED + seed, start
    )
    splits = load_data(recipe.data, recipe.space.input, recipe.seed, spec.view())
    _, trained, _ = finished(train_by_epochs(spec, splits, Execution()))
    return {"network": network, "seed": seed, "test": trained.test_accuracy, "held_out": trained.nas_accuracy}


def train_all(
    recipe: Recipe, networks: list[str], journal: Journal, starts: Mapping[str, Path] = MappingProxyType({}), seeds: int = SEEDS
) -> dict[tuple[str, int], float]:
    """Test accuracy of every network and seed; what the journal lacks is trained, from the weights in `starts` if it has some."""
    known = {(str(record["network"]), int(record["seed"])): float(record["test"]) for record in journal.read().records}
    missing = [(network, seed) for seed in range(seeds) for network in dict.fromkeys(networks) if (network, seed) not in known]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(train_one, recipe, *each, starts.get(each[0])) for each in missing]):
            record = done.result()
            journal.append(record)
            print(record, flush=True)
    return {(str(record["network"]), int(record["seed"])): float(record["test"]) for record in journal.read().records}


def table(recipe: Recipe, found: list[MethodResult], reached: dict[tuple[str, int], float]) -> str:
    """Test accuracy of every way at every budget, and how far it is behind what is handed out, seed by seed."""
    classes = recipe.space.input.classes
    lines = [
        "# The same latency, chosen in other ways",
        "",
        f"{classes} classes of CIFAR-10, {500 * classes:,} training images, {recipe.train.epochs} epochs, {SEEDS} seeds",
        "that no race has used: mean test accuracy with its standard error, and the paired difference to what is handed out.",
        "Cost is that of the way over all budgets, in full trainings.",
        "",
        "| budget | way | of the MasterNet's latency | test accuracy | against what is handed out | cost | network |",
        "|---" * 7 + "|",
    ]
    for budget in BUDGETS:
        own = [way for way in found if way.budget == str(budget)]
        first = next((way.network for way in own if way.way == "handed out"), None)
        for way in own:
            scores = [100 * reached[way.network, seed] for seed in range(SEEDS)]
            gaps = [score - 100 * reached[str(first), seed] for seed, score in enumerate(scores)]
            behind = "" if way.network == first else f"{fmean(gaps):+.2f} ± {standard_error(gaps):.2f}"
            notation = way.network.replace("|", "\\|")  # a bar would end the cell
            cost = "" if way.trainings is None else f"{way.trainings:.1f} T"
            accuracy = f"{fmean(scores):.2f} ± {standard_error(scores):.2f} %"
            lines.append(
                f"| {budget} | {way.way} ({way.name}) | {way.share:.3f} | {accuracy} | {behind} | {cost} | `{notation}` |"
            )
    return "\n".join([*lines, ""])


def standard_error(values: list[float]) -> float:
    """That of their mean."""
    return stdev(values) / math.sqrt(len(values))


def main() -> None:
    """Search, race, train anew, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--study", choices=STUDIED, default="all")
    parser.add_argument("--work", type=Path, default=Path("runs/budgets-benchmark"), help="for the images' links and the runs")
    arguments = parser.parse_args()
    study, results, work = STUDIED[arguments.study], RESULTS / arguments.study, arguments.work / arguments.study
    recipe = recipe_of(arguments.study, arguments.data, work)
    own, base = work / "base", work / ("base" if study.masternets is None else "lesser-base")
    once, less = partial(ended, work, results), lesser(recipe)
    found = once("search", lambda folder: race(recipe, selected(recipe, own), folder))
    earlier = work / "search"  # whose trainings count, if it started from the same MasterNet
    shared = study.masternets is None and earlier.exists()
    held = Tournament.load(results / "search-tournament.json") if study.masternets else None
    cost = tournament_cost(held, recipe) if held else 0.0
    alone = list(tournament_alone(held, found, Entrants.load(results / "search-entrants.json"), cost)) if held else []
    left = found.trainings - cost
    ways: dict[str, Callable[[], Outcomes]] = {
        RANDOM: lambda: once("random", lambda folder: random_search(recipe, selected(recipe, own), folder, left)),
        study.single: lambda: once("single", lambda folder: race(less, earlier if shared else selected(less, base), folder)),
    }
    selection, journal, others = Selection.load(results / "search-selection.json"), Journal(results / "trained.jsonl"), {}
    for way in (None, *ways):
        if way:
            others[way] = ways[way]()
        reached = [*method_results(found, others, selection), *alone]
        text = table(recipe, reached, train_all(recipe, [each.network for each in reached], journal))
        print(text)
        write_atomic(results / "table.md", text.encode())


if __name__ == "__main__":
    main()
