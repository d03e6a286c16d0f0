"""The selection: is it exact, what does it take on the GENet paper's own space, and what are aligned widths worth?

    python benchmarks/selection.py                 all parts, about 15 minutes on two CPU cores
    python benchmarks/selection.py exact paper     some of them: exact, paper, growth, alignment

Writes benchmarks/results/selection/PART.md. `paper` and `growth` take latencies from the wave model of a V100, and gains that
are made up (drawn once per super-block and block type): how long a selection takes hardly depends on them.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from genet.arch.network import Network, SuperBlock
from genet.arch.space import MultipleOf, SearchSpace
from genet.cli.console import progress
from genet.config.reader import read_recipe
from genet.config.recipe import Recipe
from genet.latency.predict import Predictor
from genet.latency.profile import measure_network
from genet.latency.staircase.space_sweeps import Staircases
from genet.pipeline.context import RunContext, open_run, predictor
from genet.pipeline.profile import profile_device
from genet.pipeline.run_folder import RunFolder
from genet.progress import Progress
from genet.search.choice_tables import ChoiceTables, Predicted, tabulate_choices
from genet.search.solver import Candidate, ExactSolver, frontier, random_search
from genet.storage import write_atomic

RESULTS = Path(__file__).parent / "results" / "selection"
INSTANCES, STRUCTURES, ONE_BY_ONE, BEST = 200, 1_000_000, 2_000, 12
GROWTH_STEPS = (64, 32, 16, 8)
BUDGETS = (0.9, 0.7, 0.5)  # of the MasterNet's latency


def exact() -> str:
    """The optimum of random instances against integer programming's."""
    space, worst, sizes = read_recipe("digits").space, 0.0, []
    for seed in range(INSTANCES):
        draw = random.Random(seed)
        small = space.model_copy(update={"superblocks": space.superblocks[: draw.choice([2, 3])]})
        widths = {key: tuple(sorted(draw.sample(kept, min(4, len(kept))))) for key, kept in small.widths_on_offer().items()}
        noise = np.random.default_rng(seed)
        gains: dict[tuple[int, SuperBlock], float] = {}
        tables = tabulate_choices(
            small,
            widths,
            32,
            Predicted(
                0.9,
                lambda i, s, gains=gains, draw=draw: gains.setdefault((i, s), draw.gauss(0, 0.02)),  # type: ignore[misc]
                lambda _, reads, noise=noise: noise.uniform(0.1, 2.0, len(reads)),  # type: ignore[misc]
            ),
        )
        front = frontier(tables)
        limit = front[0].predicted_ms + (front[-1].predicted_ms - front[0].predicted_ms) * draw.random()
        best = max(candidate.predicted_accuracy for candidate in front if candidate.predicted_ms <= limit)
        worst = max(worst, abs(best - optimum(tables, limit)))
        sizes.append(math.prod(len(table.choices) for table in tables.superblocks))
    return (
        f"# The optimum against integer programming\n\n{INSTANCES} random instances of {min(sizes):,} to {max(sizes):,} "
        f"networks, each with a random budget: the largest difference between the frontier's best and `scipy.optimize.milp`'s is "
        f"{worst:.1e} of accuracy.\n"
    )


def optimum(tables: ChoiceTables, limit_ms: float) -> float:
    """The best accuracy within a budget, by integer programming: a binary per (super-block, width read, choice)."""
    places = [
        (index, read, int(table.widths[row, column]), row, column)
        for index, table in enumerate(tables.superblocks)
        for read, row in table.reads.items()
        for column in range(len(table.choices))
    ]
    last = len(tables.superblocks) - 1
    ms = [
        tables.superblocks[i].ms[row, column] + (tables.head[written][0] if i == last else 0.0)
        for i, _, written, row, column in places
    ]
    gains = np.array([tables.superblocks[i].gain[column] for i, *_, column in places])
    rows: list[list[float]] = [[float(i == index) for i, *_ in places] for index in range(last + 1)]
    bounds = [(1.0, 1.0)] * len(rows)
    for index in range(last):
        for width in tables.superblocks[index + 1].reads:
            rows.append([float(i == index and w == width) - float(i == index + 1 and read == width) for i, read, w, *_ in places])
            bounds.append((0.0, 0.0))
    rows.append(ms)
    bounds.append((-np.inf, limit_ms - tables.stem[0]))
    lower, upper = zip(*bounds, strict=True)
    found = milp(
        -gains,
        constraints=LinearConstraint(np.array(rows), lower, upper),
        integrality=np.ones(len(places)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    return float(tables.accuracy - found.fun)


class MadeUp:
    """Gains of no evidence, for timing: more width and depth are better, each block type has an effect of its own."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._known: dict[tuple[int, SuperBlock], float] = {}

    def __call__(self, index: int, superblock: SuperBlock) -> float:
        """The change of accuracy."""
        if (index, superblock) not in self._known:
            self._known[index, superblock] = self._made_up(index, superblock)
        return self._known[index, superblock]

    def _made_up(self, index: int, superblock: SuperBlock) -> float:
        own = self._space.superblocks[index]
        kind = (
            random.Random(f"{index}/{superblock.block_type}").gauss(0, 0.01) if superblock.block_type != own.block_type else 0.0
        )
        return kind + (0.01 + 0.002 * index) * math.log2(superblock.width / own.width) + 0.002 * (superblock.depth - own.depth)


def on_v100(recipe: Recipe, folder: Path) -> RunContext:
    """A run folder with the wave model's latencies of the recipe's space."""
    measure = recipe.measure.model_copy(update={"device": "estimate:v100"})
    files = RunFolder(folder)
    files.adopt(recipe.model_copy(update={"measure": measure}))
    job = RunContext(files, files.recipe(), Progress())
    profile_device(job)
    return job


def offers_of(job: RunContext) -> Callable[[int], ChoiceTables]:
    """Resolution -> offers, with made-up gains."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    kept = {resolution: job.kept_widths(staircases, resolution) for resolution in job.resolutions}
    prediction, space = predictor(job, job.table, kept), job.recipe.space
    predicted = Predicted(0.75, MadeUp(space), prediction.ms_by_in_width)
    return lambda resolution: tabulate_choices(space, kept[resolution], resolution, predicted)


def paper() -> str:
    """The paper's own space: the whole frontier against random generation."""
    with tempfile.TemporaryDirectory() as folder:
        job = on_v100(read_recipe("genet-imagenet"), Path(folder) / "run")
        make, lines, worse = offers_of(job), [], 0
        for resolution in job.resolutions:
            start = time.process_time()
            tables = make(resolution)
            tabulated = time.process_time()
            solution = ExactSolver(tables)
            front = solution.frontier()
            solved = time.process_time()
            solution.best((front[0].predicted_ms + front[-1].predicted_ms) / 2, BEST)
            best_s = time.process_time() - solved
            random_ones = random_search(tables, STRUCTURES, 0)
            drawn_s = time.process_time() - solved - best_s
            one_s = one_by_one(tables, job, resolution)
            gap = gaps(front, random_ones)
            worse += sum(each < -1e-9 for each in gap)
            size = math.prod(len(table.choices) for table in tables.superblocks)
            share = (solved - start) / (one_s * STRUCTURES)
            lines.append(
                f"| {resolution} | {size:.1e} | {len(front)} | {tabulated - start:.2f} | {solved - tabulated:.2f} | {best_s:.2f} "
                f"| {drawn_s:.2f} | {one_s * STRUCTURES:,.0f} | {share:.2%} | {100 * max(gap):.2f} |"
            )
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    head = (
        "| pixels | networks | on the frontier | tables, s | frontier, s | the 12 best of a budget, s "
        "| a million drawn from the tables, s | a million made one by one, s | frontier with tables over that "
        "| most points that the draw misses |"
    )
    return "\n".join(
        [
            "# The paper's own space, selected exactly",
            "",
            "`masternet.yaml`, wave-aligned widths, all types, kernels and ratios; latencies of a V100 by the wave model,",
            "gains made up. CPU seconds of one core. One by one: a structure is drawn, made and predicted as the paper does it;",
            f"{ONE_BY_ONE:,} were timed, and the figure is that times the million. Drawn from the tables: the same draw as",
            "arrays, over the tables that the exact selection made.",
            "",
            head,
            "|---" * 10 + "|",
            *lines,
            "",
            f"The exact frontier is worse than the best of a million for {worse} of {3 * len(LEVELS)} budgets. Largest memory of "
            f"the whole process, the draw included: {memory:.2f} GB.",
            "",
        ]
    )


LEVELS = np.linspace(0.05, 1.0, 20)  # of the way from the fastest to the slowest on the frontier


def gaps(front: tuple[Candidate, ...], others: tuple[Candidate, ...]) -> list[float]:
    """By how much the exact optimum is better than the best of the draw, at budgets over the whole frontier."""
    low, high = front[0].predicted_ms, front[-1].predicted_ms
    found = []
    for limit in low + (high - low) * LEVELS:
        exact_best = max(c.predicted_accuracy for c in front if c.predicted_ms <= limit)
        drawn_best = max((c.predicted_accuracy for c in others if c.predicted_ms <= limit), default=-math.inf)
        found.append(min(exact_best - drawn_best, 1.0))
    return found


def one_by_one(tables: ChoiceTables, job: RunContext, resolution: int) -> float:
    """CPU seconds to draw one structure, make its network and predict its latency and accuracy."""
    draw, gain, table = random.Random(0), MadeUp(job.recipe.space), job.table
    start = time.process_time()
    for _ in range(ONE_BY_ONE):
        network = job.recipe.space.network(tuple(draw.choice(table.choices) for table in tables.superblocks), resolution)
        table.predict_ms(network)
        sum(gain(index, superblock) for index, superblock in enumerate(network.superblocks))
    return (time.process_time() - start) / ONE_BY_ONE


def growth() -> str:
    """How time grows with the options and with the super-blocks."""
    recipe, lines = read_recipe("genet-imagenet"), []
    recipe = recipe.model_copy(update={"resolution": None})
    inputs = recipe.space.input.model_copy(update={"resolutions": (224,)})
    for step in GROWTH_STEPS:
        space = recipe.space.model_copy(update={"input": inputs, "widths": MultipleOf(multiple_of=step)})
        lines.append(timed(recipe.model_copy(update={"space": space}), f"widths in multiples of {step}"))
    for count in (5, 6, 8, 10):
        blocks = (*recipe.space.superblocks[:4], *[recipe.space.superblocks[4]] * (count - 4))
        space = recipe.space.model_copy(update={"input": inputs, "superblocks": blocks, "widths": MultipleOf(multiple_of=32)})
        lines.append(timed(recipe.model_copy(update={"space": space}), f"{count} super-blocks, multiples of 32"))
    head = "| space | choices per super-block | networks | tables, s | frontier, s | on the frontier |"
    return "\n".join(
        ["# How the selection's time grows", "", "224 pixels; otherwise as in paper.md.", "", head, "|---" * 6 + "|", *lines, ""]
    )


def timed(recipe: Recipe, name: str) -> str:
    """One line of the table of growth."""
    with tempfile.TemporaryDirectory() as folder:
        make = offers_of(on_v100(recipe, Path(folder) / "run"))
        start = time.process_time()
        tables = make(224)
        tabulated = time.process_time()
        front = frontier(tables)
        solved = time.process_time()
    counts = [len(table.choices) for table in tables.superblocks]
    print(name, counts, f"{solved - tabulated:.2f} s", flush=True)
    return (
        f"| {name} | {', '.join(map(str, counts))} | {math.prod(counts):.1e} | {tabulated - start:.2f} "
        f"| {solved - tabulated:.2f} | {len(front)} |"
    )


def alignment() -> str:
    """Widths at the edges of this machine's staircase against all multiples of 8: both selected, both measured whole."""
    recipe = read_recipe("digits")
    grid = recipe.space.model_copy(update={"widths": MultipleOf(multiple_of=8)})
    ways = {"wave-aligned": recipe, "multiples of 8": recipe.model_copy(update={"space": grid})}
    lines = []
    for name, asked in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            RunFolder(Path(folder) / "run").adopt(asked)
            with open_run(Path(folder) / "run", progress()) as job:
                start = time.perf_counter()
                profile_device(job)
                lines += [f"| {name} | {len(job.table)} | {time.perf_counter() - start:.0f} | {row} |" for row in selected(job)]
    return "\n".join(
        [
            "# What aligned widths are worth here",
            "",
            "The digits space, gains made up (the same for both). For each budget the network predicted best, measured whole.",
            "",
            "| widths | rows measured | seconds | budget | predicted, of the MasterNet's | measured | predicted accuracy |",
            "|---" * 7 + "|",
            *lines,
            "",
        ]
    )


def selected(job: RunContext) -> list[str]:
    """Per budget: the network predicted best, with its measured latency, in shares of the MasterNet's."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    resolution = job.recipe.search_resolution
    kept = {each: job.kept_widths(staircases, each) for each in job.resolutions}
    prediction: Predictor = predictor(job, job.table, kept)
    masternet_ms = job.table.masternet_ms(job.masternet)
    predicted = Predicted(0.9, MadeUp(job.recipe.space), prediction.ms_by_in_width)
    front = frontier(tabulate_choices(job.recipe.space, kept[resolution], resolution, predicted))
    rows = []
    for budget in BUDGETS:
        within = [candidate for candidate in front if candidate.predicted_ms <= budget * masternet_ms]
        best = max(within, key=lambda candidate: candidate.predicted_accuracy)
        row = measure_network(job.table, job.meter, Network.parse(best.network), job.masternet)
        rows.append(f"{budget}x | {best.predicted_ms / masternet_ms:.3f} | {row.ratio:.3f} | {best.predicted_accuracy:.4f}")
    return rows


PARTS: dict[str, Callable[[], str]] = {"exact": exact, "paper": paper, "growth": growth, "alignment": alignment}


def main() -> None:
    """Run the parts asked for and write each down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    for part in parser.parse_args().parts:
        text = PARTS[part]()
        print(text)
        write_atomic(RESULTS / f"{part}.md", text.encode())


if __name__ == "__main__":
    main()
