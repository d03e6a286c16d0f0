"""The pre-flight: how large the job is, how long it will take here, and which budgets can be met.

The MasterNet and the network with the fewest MACs are timed whole, and some of what the job repeats many times is done: rows of
the table, rounds of a network, training steps, steps of a trial in every super-block. Nothing is guessed from the machine's size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from statistics import fmean

from genet.arch.layers import is_repeated
from genet.arch.network import Block, Network, blocks
from genet.config.augment import augment_at
from genet.config.recipe import Recipe
from genet.errors import EvidenceError
from genet.latency.noise import TOO_NOISY
from genet.latency.profile import FEW, SCAN, measure_network, seconds_per_row
from genet.latency.staircase.space_sweeps import ExpectedRows, expected_rows
from genet.latency.table import LatencyTable, Setting
from genet.latency.timing.meter import Meter
from genet.latency.timing.ratio import ROUND_REPEATS
from genet.latency.workload import network_workload
from genet.models.build import build
from genet.pipeline.context import RunContext
from genet.pipeline.master import master_cost, master_schedule
from genet.pipeline.pace import Pace, measure_pace
from genet.pipeline.reach import BudgetOutlook, outlooks
from genet.progress import duration, wrapped
from genet.search.known_designs import Design, designs_of, portfolio_of
from genet.search.outcome import MASTER, RACE, TOURNAMENT, TRIALS, cost_in_words
from genet.search.race import trainings_at_most
from genet.search.tournament import cost_in_trainings
from genet.storage import Record
from genet.trials.context import TrialContext
from genet.trials.plan import plan_trials
from genet.trials.probe import expected_seconds

# Of a design for a budget, its shallower forms among them: 9 to 15 with cifar10 on the analytic V100 and H200.
SCALES_MEASURED = 14
# The same of a design for the MasterNet, for one latency alone: 9 to 21 there, and 22 with digits on a CPU.
CONTENDER_SCALES = 18
MARGIN = 24  # columns of the names in the pre-flight
PROBED = 2  # blocks of a kind whose rows are timed
# A network that was not timed before is built and, on a GPU, tried with several kernels: on an H200 0.5 to 2 s.
PREPARE_S = {"cpu": 0.08, "cuda": 0.8}
# Rounds of a certificate, on average, and certificates of a design within a budget: widened to edges, and if that fails less so.
CERTIFICATE_ROUNDS, CERTIFICATES = 10, 2  # 9.7 and 8.8 rounds in two runs of benchmarks/budgets.py on two CPU cores
EXPORT_S = 5.0  # one ONNX export with its check, as measured on two CPU cores; a small share of any job


class Preflight(Record):
    """The size, the cost and the prospects of a job."""

    images: int  # to train on
    augment: str
    networks: int
    trials: int  # at most
    rows: ExpectedRows
    masternet_ms_per_image: float
    masternet_rounds: tuple[float, ...]  # of which that is the mean
    budgets: tuple[BudgetOutlook, ...]
    seconds: dict[str, float]  # expected, per step, from the start
    cost: dict[str, float]  # of each part at most, in full trainings (T), as `Outcomes` counts them
    found: bool  # whether the MasterNet is known; if not, all other figures assume that of the space
    contenders: int  # that compete to be the MasterNet; 0 without a tournament
    advice: str = ""  # on the threads of trainings


def preflight(job: RunContext) -> Preflight:
    """Return the size of the job; takes a few seconds and keeps its measurements in the table.

    Before a tournament is over, it is sized up around the MasterNet of the space. EvidenceError if latencies come from a file
    that does not hold the MasterNet.
    """
    found = job.recipe.space.masternets is None or bool(job.tournament and job.tournament.winner)
    recipe = job.recipe.model_copy(update={"space": job.space}) if found else job.recipe
    space, table, splits = recipe.space, job.table, job.splits
    widths, batch = space.widths_on_offer(), table.setting.batch
    rows = expected_rows(space, recipe.measure.calibration_networks)
    trials = plan_trials(space, widths, recipe.search_resolution, recipe.seed, recipe.distill)
    with job.progress.track("timing a little of each kind of work", 4) as tracker:
        tracker.now("the MasterNet and the smallest networks")
        timed = partial(_whole_ms, table, job.meter, job.reference)
        timed(job.reference)
        masternet_ms = table.masternet_ms(job.reference)
        fastest_ms = [ms for r in space.input.resolutions if (ms := timed(space.smallest(r))) is not None]
        tracker.advance()
        tracker.now("steps of a training")
        pace = measure_pace(recipe, splits, job.device, recipe.train.batch)
        trained = training_seconds(recipe, splits.train.size, pace)
        tracker.advance()
        tracker.now("steps of trials")
        untrained = TrialContext(
            build(space.masternet(recipe.search_resolution)), splits, recipe.distill, recipe.search_resolution, recipe.seed
        )
        distill_s = expected_seconds(untrained, trials, job.device)
        tracker.advance()
        tracker.now("rows and rounds of latencies")
        measuring = _measuring_seconds(job, recipe, rows)
        tracker.advance()
    steps = ("tournament", "profile", "calibration", "master", "distill", "select", "designs", "race", "export")
    spent = {"distill": distill_s, "export": EXPORT_S * len(recipe.select.budgets)}
    seconds = {step: sum(part.get(step, 0.0) for part in (spent, trained, measuring)) for step in steps}
    if not recipe.space.masternets:
        del seconds["tournament"]
    return Preflight(
        images=splits.train.size,
        augment=str(augment_at(recipe.augment, recipe.data.name, recipe.search_resolution)),
        networks=space.size(widths),
        trials=len(trials),
        rows=rows,
        masternet_ms_per_image=masternet_ms / batch,
        masternet_rounds=tuple(ms / batch for ms in known.ms) if (known := table.network_row(job.reference)) else (),
        budgets=outlooks(recipe.select.budgets, masternet_ms, fastest_ms, batch),
        cost=_cost(recipe, distill_s / trained["full"]),
        found=found,
        contenders=_contenders(recipe),
        seconds=seconds,
        advice=pace.advice,
    )


def _cost(recipe: Recipe, trials: float) -> dict[str, float]:
    """Return what each part costs at most, in full trainings (T), given that of the single trials."""
    cost = {
        TOURNAMENT: cost_in_trainings(_contenders(recipe), recipe.train),
        MASTER: master_cost(recipe),
        TRIALS: trials,
        RACE: race_cost(recipe),
    }
    return {part: spent for part, spent in cost.items() if spent}


def race_cost(recipe: Recipe) -> float:
    """Return what joint trials and race cost at most, in full trainings (T)."""
    (searched, *_), joint = recipe.race.counts, recipe.search.count
    designs = sum(len(design.depths) for design in _designs(recipe))  # every form may race beside the whole
    designs += 2 if recipe.space.masternets else 0  # the winner of the tournament, if it is none of them
    networks = (searched + designs) * _resolutions(recipe)
    networks += searched if joint else 0
    return trainings_at_most(networks, len(recipe.select.budgets), joint, recipe.race, recipe.train)


def _contenders(recipe: Recipe) -> int:
    """Return how many designs compete to be the MasterNet, 0 without a tournament."""
    return len(portfolio_of(recipe.space)) if recipe.space.masternets else 0


def _resolutions(recipe: Recipe) -> int:
    """Return at how many resolutions networks race for a budget."""
    return 1 if recipe.race.effort == "quick" else len(recipe.space.input.resolutions)


def _designs(recipe: Recipe) -> tuple[Design, ...]:
    """Return the known designs that race: none on evidence from elsewhere, where they cannot be timed."""
    return () if recipe.measure.latency_file else designs_of(recipe)


def _whole_ms(table: LatencyTable, meter: Meter, reference: Network, network: Network) -> float | None:
    """Return milliseconds per batch of a whole network; None where evidence from elsewhere does not hold it."""
    try:
        return measure_network(table, meter, network, reference).ratio * table.masternet_ms(reference)
    except EvidenceError:
        return None


def _measuring_seconds(job: RunContext, recipe: Recipe, rows: ExpectedRows) -> dict[str, float]:
    """Return the expected seconds of measuring per step, from rows and rounds that are timed here; none on other evidence."""
    if not recipe.measure.here:
        return {}
    space, meter = recipe.space, job.meter
    own = list(dict.fromkeys(blocks(space.masternet(recipe.search_resolution))))
    repeated, single = ([block for block in own if is_repeated(block) == kind] for kind in (True, False))
    sweep_row_s, rest_row_s = seconds_per_row(meter, [_spread(alike or own) for alike in (repeated, single)])
    round_s = fmean(_round_seconds(meter, space.masternet(resolution)) for resolution in space.input.resolutions)

    def timings(networks: float, rounds: int) -> float:
        return networks * (rounds * round_s + PREPARE_S[job.device.type])

    (searched, *_), joint, budgets = recipe.race.counts, recipe.search.count, len(recipe.select.budgets)
    contenders = _contenders(recipe)
    scaled = (len(_designs(recipe)) + bool(contenders)) * _resolutions(recipe) * budgets  # the winner is scaled too
    selected = recipe.select.measure_top_k * len(space.input.resolutions) * budgets
    rivals = ((searched - 1) * _resolutions(recipe) + (searched if joint else 0)) * budgets
    return {
        "tournament": timings(CONTENDER_SCALES * contenders, SCAN.least) + timings(CERTIFICATES * contenders, FEW.least),
        "profile": rows.sweep * sweep_row_s + rows.rest * rest_row_s,
        "calibration": timings(rows.networks, FEW.least),
        "select": timings(selected, CERTIFICATE_ROUNDS),
        "designs": timings(SCALES_MEASURED * scaled, SCAN.least) + timings(CERTIFICATES * scaled, CERTIFICATE_ROUNDS),
        "race": timings(rivals, CERTIFICATE_ROUNDS),
    }


def _spread(alike: Sequence[Block]) -> list[Block]:
    """Return some blocks, evenly spread over a network."""
    return [alike[number * len(alike) // PROBED] for number in range(PROBED)]


def _round_seconds(meter: Meter, network: Network) -> float:
    """Measure how long a round of a network takes here, in turn with another as large; both are built anew for it."""
    began = time.monotonic()
    meter.prepare([network_workload(network)] * 2)(ROUND_REPEATS)
    return time.monotonic() - began


def training_seconds(recipe: Recipe, images: int, pace: Pace) -> dict[str, float]:
    """Return expected seconds of tournament, MasterNet, and race with its joint trials, at most; `full`: of a full training."""
    full_s, master = pace.training_s(recipe.train, images), master_schedule(recipe)
    resolutions, search = recipe.space.input.resolutions, recipe.search_resolution
    mean_share = sum((r / search) ** 2 for r in resolutions) / len(resolutions)
    return {
        "full": full_s,
        "tournament": cost_in_trainings(_contenders(recipe), recipe.train) * full_s,
        "master": pace.training_s(master, images) if master else 0.0,
        "race": race_cost(recipe) * full_s * mean_share,
    }


def _how_found(seen: Preflight, setting: Setting) -> str:
    """Return how the MasterNet's latency was found, with how far its rounds are apart."""
    if setting.estimate:
        return "estimated"
    rounds = seen.masternet_rounds
    low, high = min(rounds), max(rounds)
    busy = " (disturbed by other work)" if high - low > TOO_NOISY * low else ""
    return (
        f"the mean of {len(rounds)} measured rounds from {low:.4f} to {high:.4f}{busy}; budgets such as 0.5x are multiples of it"
    )


def outlook(seen: Preflight, setting: Setting) -> list[str]:
    """Return the pre-flight in words, in lines of at most 80 columns."""
    facts = {
        "latencies": str(setting),
        "training images": f"{seen.images:,}, augmentation: {seen.augment}",
        "networks in the space": f"{seen.networks:,}",
        "trials": f"at most {seen.trials}",
        "measurements": f"about {seen.rows.rows} blocks, {seen.rows.sweep} of them to find the staircases, and "
        f"{seen.rows.networks} whole networks",
        "tournament": f"{seen.contenders} designs for the MasterNet, at most {seen.cost.get(TOURNAMENT, 0):.1f} full trainings"
        + ("" if seen.found else "; all other figures assume the MasterNet of the space"),
        "cost": f"at most {cost_in_words(seen.cost)}",
        "expected time": f"about {duration(sum(seen.seconds.values()))} from the start: "
        + ", ".join(f"{step} {duration(seconds)}" for step, seconds in seen.seconds.items()),
        "MasterNet's latency": f"{seen.masternet_ms_per_image:.4f} ms/image, {_how_found(seen, setting)}",
    }
    if not seen.contenders:
        del facts["tournament"]
    if seen.advice:
        facts["threads"] = seen.advice
    facts |= {f"budget {each.budget}": each.prospect for each in seen.budgets}
    told = (wrapped(f"{name:<{MARGIN - 1}} {fact}", indent=" " * MARGIN) for name, fact in facts.items())
    return [line for lines in told for line in lines.splitlines()]
