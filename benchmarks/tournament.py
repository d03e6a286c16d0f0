"""The MasterNet that a tournament finds, against the one in the space, at one measured latency.

    python benchmarks/tournament.py --data CIFAR10           hours on two cores; stopped, it goes on where it was
    python benchmarks/tournament.py --study digits           minutes: shows that all of it works

Studies: `cifar10`, 5,000 images and the recipe of budgets.py, with the known designs and the paper's patterns; `digits`, with the
known designs alone. The designs of the last round and the MasterNet of the space are trained fully, from three seeds that the
tournament has not used, and tested on images that decided nothing. Writes benchmarks/results/tournament/STUDY/.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

from budgets import SEEDS, standard_error, train_all, two_workers
from trials import HERE, STUDIES, few_images

from genet.cli.console import progress
from genet.config.reader import read_recipe
from genet.config.recipe import Recipe
from genet.pipeline.context import open_run
from genet.pipeline.tournament import find_masternet, standings_of
from genet.search.outcome import percent
from genet.search.tournament import Standing, Tournament
from genet.storage import Journal, write_atomic

RESULTS = HERE / "results" / "tournament"
STUDIED = ("cifar10", "digits")


def recipe_of(study: str, images: Path | None, work: Path) -> Recipe:
    """The recipe of a study, whose space names the designs that compete."""
    if study == "digits":
        recipe = read_recipe("digits")
        return recipe.model_copy(update={"space": recipe.space.model_copy(update={"masternets": ("known",)})})
    if images is None:
        raise SystemExit("--data: got none, expected the folder of CIFAR-10, with train/CLASS and test/CLASS")
    recipe = STUDIES["fidelity"].recipe()
    data = recipe.data.model_copy(update={"root": str(few_images(images, work / "images").absolute())})
    space = recipe.space.model_copy(update={"masternets": ("known", "patterns")})
    return recipe.model_copy(update={"name": "tournament", "space": space, "data": data})


def held(recipe: Recipe, folder: Path) -> tuple[Tournament, tuple[Standing, ...]]:
    """The tournament, and how its contenders stand at the end."""
    with open_run(folder, progress(), recipe) as job:
        found = find_masternet(job, two_workers)
        assert found is not None  # the space names designs
        return found, standings_of(job)


def to_train(found: Tournament, standings: tuple[Standing, ...]) -> list[Standing]:
    """The contenders of the last round, and the MasterNet of the space."""
    own = found.contenders[0].network
    return [each for each in standings if len(each.reached) == len(found.rounds) or each.contender.network == own]


def table(recipe: Recipe, found: Tournament, standings: tuple[Standing, ...], reached: dict[tuple[str, int], float]) -> str:
    """What every contender reached in its rounds, and in full trainings where it has some."""
    own = found.contenders[0]
    full = {each.contender.network for each in to_train(found, standings)}
    cost = sum(each.epochs * len(each.trainings) for each in found.rounds) / recipe.train.epochs
    lines = [
        "# The tournament for the MasterNet",
        "",
        f"{len(found.contenders)} designs, each scaled to at most {own.ms_per_image:.4f} ms/image, as the MasterNet in the",
        f"space ({found.setting}). {recipe.space.input.classes} classes; the tournament cost {cost:.1f} full",
        f"trainings of {recipe.train.epochs} epochs. Those below are of {SEEDS} seeds that it has not used: mean test",
        "accuracy with its standard error, and the paired difference to the MasterNet in the space.",
        "",
        "| design | of its latency | held out, by rounds | full: test accuracy | against the space's own | network |",
        "|---" * 6 + "|",
    ]
    for each in standings:
        contender, rounds = each.contender, ", ".join("n/a" if share is None else percent(share) for share in each.reached)
        tested, against = "", ""
        if contender.network in full:
            scores = [100 * reached[contender.network, seed] for seed in range(SEEDS)]
            gaps = [score - 100 * reached[own.network, seed] for seed, score in enumerate(scores)]
            tested = f"{fmean(scores):.2f} ± {standard_error(scores):.2f} %"
            against = "" if contender == own else f"{fmean(gaps):+.2f} ± {standard_error(gaps):.2f}"
        notation = contender.network.replace("|", "\\|")  # a bar would end the cell
        share = contender.ms_per_image / own.ms_per_image
        name = f"**{contender.design}**" if each.state == "won" else contender.design
        lines.append(f"| {name} | {share:.3f} | {rounds} | {tested} | {against} | `{notation}` |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Hold the tournament, train anew, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--study", choices=STUDIED, default="cifar10")
    parser.add_argument("--work", type=Path, default=Path("runs/tournament-benchmark"), help="for the images' links and the run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where what is found is kept")
    arguments = parser.parse_args()
    work, results = arguments.work / arguments.study, arguments.results / arguments.study
    recipe = recipe_of(arguments.study, arguments.data, work)
    found, standings = held(recipe, work / "run")
    found.save(results / "tournament.json")
    networks = [each.contender.network for each in to_train(found, standings)]
    reached = train_all(recipe, networks, Journal(results / "trained.jsonl"))
    text = table(recipe, found, standings, reached)
    print(text)
    write_atomic(results / "table.md", text.encode())


if __name__ == "__main__":
    main()
