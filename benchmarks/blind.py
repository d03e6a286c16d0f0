"""A blind test: twenty new networks of one latency, predicted by what a finished search knows, and then trained.

    python benchmarks/blind.py --data CIFAR10 --study whole-0      an hour on two cores, after budgets.py --study whole-0

The prediction is that of the joint trials: the surrogate, fitted to the short trainings of the search's journal. The networks are
random ones of its space within a tenth below 0.6x, by predicted latency, that the search neither trained nor proposed. They are
written down with their predictions before the first training. Each is trained once, as the race trains fully, from one new seed;
and once for a fifth and for two fifths of the epochs, which tells what such short trainings are worth.
Writes benchmarks/results/blind/STUDY/.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from budgets import RESULTS, STUDIED, recipe_of, train_all

from genet.arch.cost import network_cost
from genet.arch.external import read_notation
from genet.arch.network import Network
from genet.cli.console import progress
from genet.config.budget import Budget
from genet.config.recipe import Recipe
from genet.pipeline.context import read_run
from genet.pipeline.search_state import SearchState
from genet.search.candidates import fits, near_budget, pool_of
from genet.search.race import SHORT, short_training
from genet.search.surrogate import fit_surrogate, score
from genet.statistics import kendall, spearman
from genet.storage import Journal, Record, write_atomic

COUNT, BUDGET, SEED = 20, Budget.parse("0.6x"), 2026
SHARES = (0.2, 0.4)  # of the epochs, of short trainings that are compared
SHORT_OF = {"whole-0": 0.2}  # of the short trainings of studies that were made when they had another share of the epochs


class Prediction(Record):
    """What was said of a network before it was trained: its score, -log(error) of a short training, with a standard error."""

    network: str
    predicted_ms_per_image: float
    score: float
    standard_error: float
    macs: int
    parameters: int


def predictions(recipe: Recipe, folder: Path, journal: Journal, short: int) -> list[Prediction]:
    """Draw the networks, and predict each by the trainings of so many epochs in the journal of the race."""
    job = read_run(folder, progress())
    state = SearchState(job, job.table)
    budget_ms = state.limit_ms(BUDGET)
    reached: dict[Network, list[float]] = {}
    for line in journal.read().records:
        network = read_notation(line["network"], "network")
        if line["epochs"] == short and line["held_out"] is not None and isinstance(network, Network) and fits(network, job.space):
            reached.setdefault(network, []).append(line["held_out"])
    rng = np.random.default_rng(SEED)
    tables = state.choice_tables(recipe.search_resolution)
    near = [network.model_copy(update={"name": "network"}) for network in near_budget(tables, budget_ms, rng)]
    new = [each for each in near if each not in reached and state.predicted_ms(each) > 0.9 * budget_ms]
    drawn = [new[place] for place in rng.permutation(len(new))[:COUNT]]
    rows = [row for row, network in enumerate(reached) for _ in reached[network]]
    surrogate = fit_surrogate(
        pool_of([*reached, *drawn]), rows, score(np.array([each for line in reached.values() for each in line]))
    )
    means, errors = surrogate.predict(np.arange(len(reached), len(reached) + len(drawn)))
    return [
        Prediction(
            network=str(network),
            predicted_ms_per_image=state.predicted_ms(network) / state.batch,
            score=float(mean),
            standard_error=float(error),
            macs=network_cost(network).macs,
            parameters=network_cost(network).parameters,
        )
        for network, mean, error in zip(drawn, means, errors, strict=True)
    ]


def held_out(recipe: Recipe, share: float, said: list[Prediction], results: Path) -> tuple[int, list[float]]:
    """Epochs of a short training, and what each network then reached on the images held out."""
    schedule = short_training(recipe.train, share)
    journal = Journal(results / f"trained-{schedule.epochs}.jsonl")
    train_all(recipe.model_copy(update={"train": schedule}), [each.network for each in said], journal, seeds=1)
    reached = {line["network"]: float(line["held_out"]) for line in journal.read().records}
    return schedule.epochs, [reached[each.network] for each in said]


def table(recipe: Recipe, said: list[Prediction], reached: list[float], short: dict[int, list[float]]) -> str:
    """What was predicted beside what was reached, and how far both ways rank alike."""
    scores = [each.score for each in said]
    by = {
        "the surrogate": scores,
        "MACs": [float(each.macs) for each in said],
        "parameters": [float(each.parameters) for each in said],
        "predicted latency": [each.predicted_ms_per_image for each in said],
        **{f"a training of {epochs} epochs": values for epochs, values in short.items()},
    }
    best = max(reached)
    lines = [
        "# Twenty networks that the search never saw",
        "",
        f"Random networks of one space within a tenth below {BUDGET}, predicted before the first was trained; each trained once",
        f"for {recipe.train.epochs} epochs. Test accuracies reach from {100 * min(reached):.1f} to {100 * best:.1f} %.",
        "",
        "| ranked by | Kendall | Spearman | the best by it is behind the best of all by, points |",
        "|---|---|---|---|",
    ]
    for name, values in by.items():
        behind = 100 * (best - reached[int(np.argmax(values))])
        lines.append(f"| {name} | {kendall(values, reached) or 0:.2f} | {spearman(values, reached) or 0:.2f} | {behind:.1f} |")
    lines += ["", "| network | predicted score of a short training | test accuracy |", "|---|---|---|"]
    for each, accuracy in sorted(zip(said, reached, strict=True), key=lambda pair: -pair[0].score):
        notation = each.network.replace("|", "\\|")
        lines.append(f"| `{notation}` | {each.score:.3f} ± {each.standard_error:.3f} | {100 * accuracy:.2f} % |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Predict, write it down, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--study", choices=[name for name in STUDIED if name.startswith("whole")], default="whole-0")
    parser.add_argument("--work", type=Path, default=Path("runs/budgets-benchmark"), help="the folder given to budgets.py")
    arguments = parser.parse_args()
    results, work = RESULTS.parent / "blind" / arguments.study, arguments.work / arguments.study
    recipe = recipe_of(arguments.study, arguments.data, work)
    written = results / "predictions.json"
    if not written.exists():
        short_epochs = short_training(recipe.train, SHORT_OF.get(arguments.study, SHORT)).epochs
        journal = Journal(RESULTS / arguments.study / "search-race.jsonl")
        said = predictions(recipe, work / "search", journal, short_epochs)
        write_atomic(written, json.dumps([each.model_dump() for each in said], indent=1).encode())
    said = [Prediction.model_validate(each) for each in json.loads(written.read_text())]
    reached = train_all(recipe, [each.network for each in said], Journal(results / "trained.jsonl"), seeds=1)
    short = dict(held_out(recipe, share, said, results) for share in SHARES)
    text = table(recipe, said, [reached[each.network, 0] for each in said], short)
    print(text)
    write_atomic(results / "table.md", text.encode())


if __name__ == "__main__":
    main()
