"""Before any hour is spent: how large the job is, how long it will take here, and which budgets can be met at all.

The MasterNet and the network with the fewest MACs are timed whole, and one training step is timed; nothing is guessed
from the size of the machine.
"""

from __future__ import annotations

import time

import torch
from torch import nn

from genet.errors import DeviceError
from genet.files import Record
from genet.latency.clock import REPEAT_MS, REPEATS, WARM_UP_S
from genet.latency.profile import profile_network
from genet.latency.table import LatencyTable, Setting
from genet.nets.build import build
from genet.nets.data import Splits
from genet.progress import duration
from genet.spec.recipe import Budget, Recipe, Schedule, budget_ms

EXPORT_S = 5.0  # one ONNX export with its check, as measured on two CPU cores; a small share of any job


class BudgetOutlook(Record):
    """A budget beside the latencies that bound it, in milliseconds per image."""

    budget: Budget
    ms_per_image: float
    fewest_macs_ms_per_image: float

    @property
    def reachable(self) -> bool:
        """Whether the network with the fewest MACs is within the budget. Another one may be faster still."""
        return self.fewest_macs_ms_per_image <= self.ms_per_image


class Preflight(Record):
    """The size, the cost and the prospects of a job."""

    networks: int
    trials: int  # at most
    measurements: int  # at most: widths inside a step are dropped after the sweep
    sweep: int
    masternet_ms_per_image: float
    budgets: tuple[BudgetOutlook, ...]
    seconds: dict[str, float]  # expected, per step, from the start

    @property
    def total_seconds(self) -> float:
        """Expected seconds of the whole job."""
        return sum(self.seconds.values())


def preflight(recipe: Recipe, splits: Splits, table: LatencyTable, device: torch.device) -> Preflight:
    """Size the job up; takes a few seconds and keeps its measurements in the table."""
    space, batch = recipe.space, recipe.measure.batch
    widths = space.widths_on_offer()
    resolutions = space.input.resolutions
    reference = space.masternet(recipe.search_resolution)
    masternets = {r: profile_network(table, space.masternet(r), device, reference).steady_ms for r in resolutions}
    masternet = masternets[recipe.search_resolution] / batch
    fastest = min(profile_network(table, space.smallest(r), device, reference).steady_ms for r in resolutions) / batch
    sweep = {block for r in resolutions for index, kind in widths for block in space.repeated_blocks(index, kind, widths, r)}
    wanted = {block for r in resolutions for block in space.blocks(widths, r)}
    # A rough half of the widths stays at the edges, and what is measured grows with the square of their number.
    rows = len(sweep) + (len(wanted) - len(sweep)) * (0.25 if space.widths == "wave-aligned" else 1.0)
    samples = (min(space.perturb.samples, len(space.depths(index)) * len(kept)) for (index, _), kept in widths.items())
    trials = sum(samples)
    return Preflight(
        networks=space.size(widths),
        trials=trials,
        measurements=len(wanted | sweep),
        sweep=len(sweep),
        masternet_ms_per_image=masternet,
        budgets=tuple(
            BudgetOutlook(
                budget=budget,
                ms_per_image=budget_ms(budget, masternet),
                fewest_macs_ms_per_image=fastest,
            )
            for budget in recipe.select.budgets
        ),
        seconds=_seconds(recipe, splits, device, masternets, rows, trials),
    )


def _seconds(
    recipe: Recipe, splits: Splits, device: torch.device, masternets: dict[int, float], rows: float, trials: int
) -> dict[str, float]:
    """Expected seconds per step, from the timed MasterNet and one timed training step."""
    space, search = recipe.space, recipe.search_resolution
    depth = sum(superblock.depth for superblock in space.superblocks) + 2
    block_ms = max(REPEAT_MS, sum(masternets.values()) / len(masternets) / depth)
    step_s = _step_seconds(recipe, device)

    def training(schedule: Schedule) -> float:
        batch = min(schedule.batch, splits.train.size)
        return schedule.epochs * (splits.train.size // batch) * step_s * batch / recipe.master.batch

    networks = sum(training(recipe.train) * (r / search) ** 2 for r in space.input.resolutions) * len(recipe.select.budgets)
    return {
        "profile": rows * (WARM_UP_S + (REPEATS + 4) * block_ms / 1e3),
        "master": training(recipe.master),
        "distill": trials * training(recipe.distill),
        "train": networks,
        "export": EXPORT_S * len(recipe.select.budgets),
    }


def _step_seconds(recipe: Recipe, device: torch.device) -> float:
    """Seconds of one training step of the MasterNet; the faster of two after a warm-up."""
    size = recipe.search_resolution
    module = build(recipe.space.masternet(size)).to(device).train()
    images = torch.randn(recipe.master.batch, recipe.space.input.channels, size, size, device=device)
    labels = torch.zeros(len(images), dtype=torch.long, device=device)
    times = []
    try:
        for _ in range(3):
            start = time.perf_counter()
            loss = nn.functional.cross_entropy(module(images), labels)
            loss.backward()
            loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"training at {size} pixels must fit into the device's memory, and batch {recipe.master.batch} does not; "
            "lower master.batch"
        ) from None
    return min(times[1:])


def outlook(seen: Preflight, setting: Setting) -> list[str]:
    """The pre-flight in words."""
    steps = ", ".join(f"{step} {duration(seconds)}" for step, seconds in seen.seconds.items())
    lines = [
        f"device                  {setting.device.name}, batch {setting.batch}, {setting.dtype}, {setting.runtime}",
        f"networks in the space   {seen.networks:,}",
        f"trials                  at most {seen.trials}",
        f"measurements            at most {seen.measurements} blocks, {seen.sweep} of them to find the staircases",
        f"expected time           about {duration(seen.total_seconds)} from the start ({steps})",
        f"MasterNet's latency     {seen.masternet_ms_per_image:.4f} ms/image, measured",
    ]
    for budget in seen.budgets:
        verdict = "within reach" if budget.reachable else "probably out of reach"
        lines.append(
            f"budget {budget.budget!s:<16} {budget.ms_per_image:.4f} ms/image: {verdict}, the network with the "
            f"fewest MACs takes {budget.fewest_macs_ms_per_image:.4f}"
        )
    return lines
