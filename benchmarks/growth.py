"""What a search takes on more GPUs, computed from what was measured on one: the tables of docs/scaling.md.

    python benchmarks/growth.py            seconds

Trials are divided as `genet.trials.plan.groups` does. A trial of a group of n takes `own + shared / n`, by the measured costs of
trials that share their images and their frozen part, and of those that run alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from trials import HERE, Costs

from genet.config.reader import read_recipe
from genet.search.race import FINALISTS, SHORT
from genet.search.rounds import START
from genet.storage import Journal
from genet.trials.plan import Trial, groups, plan_trials
from genet.trials.results import read_results

RESULTS = HERE / "results"
JOB = RESULTS / "nvidia-h200" / "job" / "search"
GPUS = (1, 8, 64, 1000)
# A search and a race of normal effort: entrants are those selected, as many joint trials if there are any, and known designs.
BUDGETS, JOINT, SEARCHED, DESIGNS = 3, 12, 2, 5
TOGETHER = 7  # trials of a super-block, on average, when those of results/trials/costs-cpu.json were timed
DRIVER = 2421  # results a second: results/scaling-cpu.md
# Seconds of the H200's search by its log.txt: widths, blocks, networks, selection, designs; exports, and the rest of 294.
MEASURING_S, ENDS_S = 41 + 34 + 12 + 5 + 43, 26 + 41
MASTERNET_S = 10 * 45_000 / 39_550  # its epochs, images, and images a second


@dataclass(frozen=True)
class Sharing:
    """The cost of a trial in a group: its own, and what the group shares, in any unit of time."""

    own: float
    shared: float

    @classmethod
    def of(cls, together: float, alone: float) -> Sharing:
        """From a trial among TOGETHER, and alone."""
        shared = (together - alone) / (1 / TOGETHER - 1)
        return cls(alone - shared, shared)

    def of_trial(self, group: int) -> float:
        """Of one trial of a group."""
        return self.own + self.shared / group


@dataclass(frozen=True)
class Job:
    """The work of a search, in the same unit: of the MasterNet's training T, and of trials by the size of their groups."""

    trials: Sequence[Trial]
    sharing: Sharing
    training: float
    joint: int
    resolutions: int
    measuring: float = 0.0
    ends: float = 0.0

    def parts(self, gpus: int) -> dict[str, float]:
        """What each part takes on so many GPUs."""
        free = [0.0] * gpus  # when each is
        for group in groups(self.trials, gpus):
            heapq.heapreplace(free, free[0] + len(group) * self.sharing.of_trial(len(group)))
        entrants = (SEARCHED + (SEARCHED if self.joint else 0) + DESIGNS) * self.resolutions
        finals = BUDGETS * (max(FINALISTS, math.ceil(entrants / 3)) + 1)
        short = SHORT * self.training
        at_once = math.ceil(START * self.joint)
        rounds = math.ceil((self.joint - at_once) / BUDGETS)
        return {
            "measuring": self.measuring,
            "MasterNet": self.training,
            "trials": max(free),
            "joint trials": short * (math.ceil(at_once / gpus) + rounds * math.ceil(BUDGETS / gpus)),
            "race, short": short * math.ceil(BUDGETS * entrants / gpus),
            "race, full": self.training * math.ceil(finals / gpus),
            "second trainings": self.training * math.ceil(finals / gpus),
            "ends": self.ends,
        }


def cifar10() -> Job:
    """The search on CIFAR-10 that an H200 has run, in seconds, with joint trials and a race of normal effort."""
    found = list(read_results(Journal(JOB / "run" / "trials.jsonl")).values())
    costs = Costs.load(RESULTS / "trials" / "costs-cpu.json")
    cpu = Sharing.of(costs.of("local", 1), costs.of("local, each alone", 1))
    size = len(groups(found, 1)[0])
    scale = fmean(each.seconds.total for each in found) / cpu.of_trial(size)
    return Job(found, Sharing(scale * cpu.own, scale * cpu.shared), MASTERNET_S, JOINT, 1, MEASURING_S, ENDS_S)


def imagenet() -> Job:
    """The paper's own search, in full trainings; its trials by their share of an epoch of the whole network on a CPU."""
    recipe = read_recipe("genet-imagenet")
    space, costs = recipe.space, Costs.load(RESULTS / "trials" / "costs-cpu.json")
    trials = plan_trials(space, space.widths_on_offer(), recipe.search_resolution, 0, recipe.distill)
    epoch = Sharing.of(costs.of("superblock", 1), costs.of("superblock, each alone", 1))
    share = recipe.distill.epochs / recipe.train.epochs / costs.of("whole", 1)
    return Job(trials, Sharing(share * epoch.own, share * epoch.shared), 1.0, 0, len(space.input.resolutions))


def table(job: Job, digits: int) -> list[str]:
    """A line per number of GPUs; the longest part is in bold."""
    names = [name for name, value in job.parts(1).items() if value]
    lines = [f"| GPUs | {' | '.join(names)} | total | speed-up |", "|---" * (len(names) + 3) + "|"]
    alone = sum(job.parts(1).values())
    for gpus in GPUS:
        parts = job.parts(gpus)
        longest, total = max(parts.values()), sum(parts.values())
        cells = [f"**{parts[name]:.{digits}f}**" if parts[name] == longest else f"{parts[name]:.{digits}f}" for name in names]
        lines.append(f"| {gpus:,} | {' | '.join(cells)} | {total:.{digits}f} | {alone / total:.1f} |")
    return lines


def page() -> list[str]:
    """Both tables, and when the driver would be the bottleneck."""
    small, large = cifar10(), imagenet()
    busy = DRIVER * small.sharing.of_trial(1)
    return [
        *table(small, 0),
        "",
        *table(large, 1),
        "",
        f"Trials of {small.sharing.of_trial(1):.1f} s each, one per GPU, occupy the driver from {busy:,.0f} GPUs on.",
    ]


if __name__ == "__main__":
    print("\n".join(page()))
