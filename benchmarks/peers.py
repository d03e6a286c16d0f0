"""One table of everybody: searches and tools at one measured latency, on one device, with the same images and the same training.

    python benchmarks/peers.py --data CIFAR10          hours on two cores; stopped, it goes on where it was
    python benchmarks/peers.py --study digits          minutes: shows that all of it works, no more

Tools that are not installed are rows that say so: pip install torch-pruning nvidia-modelopt 'torchprofile==0.0.4' requests.
What a search hands out, its random rival and the best known design come from the races of budgets.py, which are run first unless
they lie among its results. `genet align`, FastNAS and Torch-Pruning cut the MasterNet of the same space, trained fully once. Each
is asked for the budget by its own knob: a latency, a share of the FLOPs, a share of the MACs; then the knob is turned until the
network is surely as fast, timed in turn with the MasterNet. All networks are trained from three seeds by the recipe's `train`:
from new weights, which compares their shapes, and cut ones from the weights that they keep too, as their makers advise.
Run it in the root of a checkout. Writes benchmarks/results/peers/STUDY/.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import budgets
from budgets import RANDOM, SEEDS, ended, method_results, race, random_search, selected, standard_error, train_all
from cutting import CUT, MASTERNET, Row, cut_by_all, fastnas, folder_of, torch_pruning, trained_masternet
from pruning import Bench
from trials import HERE

from genet.arch.external import ExternalModel, read_notation
from genet.arch.network import Input
from genet.config.budget import Budget
from genet.config.reader import read_recipe
from genet.config.recipe import Recipe, Search, Select
from genet.latency.timing.meter import meter_of
from genet.latency.workload import workload_of
from genet.models.weights import WEIGHTS_FILE
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes
from genet.search.race import Entrants
from genet.storage import Journal, Record, write_atomic
from genet.studies.align.study import ratio_of

RESULTS = HERE / "results" / "peers"
RACED = "whole-0"  # the study of budgets.py whose races are compared on CIFAR-10
SMALL_EPOCHS, SMALL_TRIALS = 4, 4  # of the study of digits
WAYS = {
    "handed out": "genet run",
    "best of the search": "genet run, its search alone",
    "best known design": "known designs scaled, the best by a race",
    RANDOM: RANDOM,
}


class Timed(Record):
    """A network's latency in a setting, timed in turn with the MasterNet."""

    network: str
    setting: str
    ms_per_image: float
    share: float
    error: float


def timed_all(bench: Bench, networks: list[str], journal: Journal) -> dict[str, Timed]:
    """Every network's latency; what the journal holds of this setting is not timed again."""
    setting = bench.meter.setting
    known = {each.network: each for each in map(Timed.model_validate, journal.read().records) if each.setting == setting.digest}
    for network in dict.fromkeys(networks):
        if network not in known:
            ratio = ratio_of(workload_of(read_notation(network, "network")), bench.subject.workload({}), bench.meter)
            each = Timed(
                network=network,
                setting=setting.digest,
                ms_per_image=ratio.ms / setting.batch,
                share=ratio.mean,
                error=ratio.error,
            )
            journal.append(each.model_dump(mode="json"))
            known[network] = each
    return known


@dataclass(frozen=True)
class Study:
    """A recipe with the function that builds its MasterNet, and the folders of its races."""

    masternet: str
    recipe: Recipe
    raced: Path
    work: Path


def study_of(name: str, images: Path | None, work: Path) -> Study:
    """The study of a name."""
    if name == "digits":
        recipe = read_recipe("digits")
        small = {
            "name": "peers-digits",
            "select": Select(budgets=(Budget.parse("0.8x"),)),
            "search": Search(joint_trials=SMALL_TRIALS),
            "train": recipe.train.model_copy(update={"epochs": SMALL_EPOCHS}),
        }
        return Study("digits", recipe.model_copy(update=small), RESULTS / name, work / name)
    if images is None:
        raise SystemExit("--data: got none, expected the folder of CIFAR-10, with train/CLASS and test/CLASS")
    place = Path("runs/budgets-benchmark") / RACED  # of budgets.py: a race that was stopped there goes on
    return Study("fidelity", budgets.recipe_of(RACED, images, place), budgets.RESULTS / RACED, place)


@dataclass(frozen=True)
class Entry:
    """A line of the table, but for its accuracies and latency."""

    budget: str
    peer: str
    network: str | None
    knob: str
    trainings: float
    minutes: float
    writes: str
    loads: str


def raced_entries(study: Study, raced: dict[str, Outcomes]) -> Iterator[Entry]:
    """What the races handed out, and what they cost: `search`, and `random`."""
    found, epochs = raced["search"], study.recipe.train.epochs
    lines = {name: Journal(study.raced / f"{name}-race.jsonl").read().records for name in raced}
    minutes = {name: epochs * seconds_per_epoch(own) / 60 for name, own in lines.items()}
    entrants = Entrants.load(study.raced / "search-entrants.json").entrants
    designs = {entrant.network for entrant in entrants if entrant.design}
    of_designs = sum(line["epochs"] for line in lines["search"] if line["network"] in designs) / epochs
    selection = Selection.load(study.raced / "search-selection.json")
    for way in method_results(found, {RANDOM: raced["random"]}, selection):
        if way.way not in WAYS or way.trainings is None:
            continue
        cost = of_designs if way.way == "best known design" else way.trainings
        pace = minutes["random" if way.way == RANDOM else "search"]
        yield Entry(
            way.budget, WAYS[way.way], way.network, "certified", cost, cost * pace, "2 commands", "yes: ONNX, timm, torch.export"
        )


def seconds_per_epoch(lines: Sequence[dict[str, Any]]) -> float:
    """The pace of a race, by its trainings of known length: failures, and what was trained elsewhere, have none."""
    timed = [line for line in lines if line["seconds"]]
    return sum(line["seconds"] for line in timed) / sum(line["epochs"] for line in timed)


def cut_entries(rows: list[Row], masternet: Row) -> Iterator[Entry]:
    """What the tools made of the MasterNet; its training is part of what they cost."""
    writes = {
        "genet align": "3 commands",
        "FastNAS": f"{lines_of(fastnas)} lines, a training, the turning",
        "Torch-Pruning": f"{lines_of(torch_pruning, Bench.magnitude)} lines, a training, the turning",
    }
    yield Entry("", MASTERNET, masternet.network, "", 1.0, masternet.minutes, "", "")
    for row in rows:
        target = Budget.parse(row.budget).amount
        knob = row.why if row.first is None else told_of_knob(row.first / target)
        loads = "no" if row.alone is False else "yes: torch.save" if row.alone else "yes: ONNX, torch.export"
        yield Entry(
            row.budget,
            row.peer,
            row.network,
            knob,
            1.0,
            row.minutes + masternet.minutes,
            writes[row.peer],
            loads if row.network else "",
        )


def told_of_knob(share: float) -> str:
    """Whether a budget was kept before anybody turned the knob, and by how much."""
    return f"broken by {share - 1:.0%}" if share > 1 else f"kept, {1 - share:.0%} below"


def lines_of(*functions: Callable[..., object]) -> int:
    """Lines of code, without docstrings."""
    return sum(len(inspect.getsource(each).splitlines()) - 1 for each in functions)


Scores = dict[tuple[str, int], float]


def table(study: Study, entries: list[Entry], timed: dict[str, Timed], anew: Scores, kept: Scores) -> str:
    """All peers by budget."""
    recipe = study.recipe
    lines = [
        "# Everybody at one measured latency",
        "",
        f"{recipe.space.input.classes} classes, {recipe.train.epochs} epochs, {SEEDS} seeds: mean test accuracy and standard",
        "error. Seeds are of the last training; each search and each cut was made once. From its weights: trained on from those",
        "that a cut kept, so twice as long in all. Latencies are timed in turn with the MasterNet. Cost is over all budgets for",
        "a search, for each budget for a tool that cuts, with the training of the MasterNet in it; minutes are of one worker,",
        "for searches by the pace of their races. Lines are those of benchmarks/cutting.py. Why who wins: [notes](notes.md).",
        "",
        "| budget | peer | test accuracy | from its weights | against genet run | ms/image | of the MasterNet's "
        "| by its own knob | cost | minutes | a user writes | loads without the tool |",
        "|---" * 12 + "|",
    ]
    handed = {each.budget: each.network for each in entries if each.peer == WAYS["handed out"]}
    for each in sorted(entries, key=lambda entry: -Budget.parse(entry.budget or "1x").amount):
        if each.network is None:
            lines.append(f"| {each.budget} | {each.peer} | | | | | | {each.knob} | | | {each.writes} | |")
            continue
        latency, first = timed[each.network], handed.get(each.budget)
        own, rival = scores(anew, each.network), scores(anew, first)
        gaps = [a - b for a, b in zip(own, rival, strict=False)] if each.network != first else []
        cells = [each.budget, each.peer, points(own), points(scores(kept, each.network)), points(gaps, "+")]
        cells += [f"{latency.ms_per_image:.4f}", f"{latency.share:.3f} ± {latency.error:.3f}", each.knob]
        lines.append(f"| {' | '.join([*cells, f'{each.trainings:.1f} T', f'{each.minutes:.0f}', each.writes, each.loads])} |")
    return "\n".join([*lines, "", *winners(entries, anew, handed), ""])


def scores(reached: Scores, network: str | None) -> list[float]:
    """A network's accuracies in percent, seed by seed; none if it was not trained so."""
    return [100 * reached[network, seed] for seed in range(SEEDS) if network is not None and (network, seed) in reached]


def points(values: list[float], sign: str = "") -> str:
    """A mean with its standard error."""
    return f"{fmean(values):{sign}.2f} ± {standard_error(values):.2f}" if values else ""


def winners(entries: list[Entry], anew: Scores, handed: dict[str, str | None]) -> Iterator[str]:
    """Who is best at every budget, trained from new weights, and whether `genet run` is beaten by more than a standard error."""
    for budget, first in handed.items():
        rivals = [each for each in entries if each.budget == budget and each.network]
        best = max(rivals, key=lambda each: fmean(scores(anew, each.network)))
        gaps = [a - b for a, b in zip(scores(anew, best.network), scores(anew, first), strict=True)]
        ahead = best.network != first and fmean(gaps) > standard_error(gaps)
        told = f"**{best.peer}** wins, by {points(gaps)} points" if ahead else "nobody is surely ahead of genet run"
        yield f"- {budget}: {told}."


def main() -> None:
    """Race, cut, time, train, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--study", choices=("cifar10", "digits"), default="cifar10")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/peers-benchmark"), help="for what tools leave, and the races of digits"
    )
    arguments = parser.parse_args()
    study, results = study_of(arguments.study, arguments.data, arguments.work), RESULTS / arguments.study
    recipe, work = study.recipe, arguments.work / arguments.study
    base, once = study.work / "base", partial(ended, study.work, study.raced)
    found = once("search", lambda folder: race(recipe, selected(recipe, base), folder))
    drawn = once("random", lambda folder: random_search(recipe, selected(recipe, base), folder, found.trainings))
    raced = {"search": found, "random": drawn}
    reads = recipe.space.input
    image = Input(channels=reads.channels, classes=reads.classes, resolution=recipe.search_resolution)
    structure = ExternalModel(name="masternet", source=f"benchmarks.masternets:{study.masternet}", input=image)
    cuts = Journal(results / "cut.jsonl")
    masternet = trained_masternet(recipe, structure, work / "masternet", cuts)
    bench = Bench(work / "masternet", recipe.data, meter_of(recipe.measure))
    rows = cut_by_all(bench, recipe, work, cuts)
    entries = [*cut_entries(rows, masternet), *raced_entries(study, raced)]
    networks = [each.network for each in entries if each.network]
    timed = timed_all(bench, networks, Journal(results / "timed.jsonl"))
    starts = {row.network: folder_of(work, row.peer, row.budget) / CUT / WEIGHTS_FILE for row in rows if row.network}
    anew = train_all(recipe, networks, adopted(study.raced / "trained.jsonl", results / "trained.jsonl"))
    kept = train_all(recipe, list(starts), Journal(results / "trained-on.jsonl"), starts)
    text = table(study, entries, timed, anew, kept)
    print(text)
    write_atomic(results / "table.md", text.encode())


def adopted(earlier: Path, file: Path) -> Journal:
    """The journal of trainings, with those of the races' own benchmark, which are by the same recipe and seeds."""
    journal = Journal(file)
    known = journal.read().records
    for record in Journal(earlier).read().records if earlier != file else ():
        if record not in known:
            journal.append(record)
    return journal


if __name__ == "__main__":
    main()
