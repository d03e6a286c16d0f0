"""Whether budgets can be reached: each beside the latency of the network with the fewest MACs, as far as that is known."""

from __future__ import annotations

from collections.abc import Iterable

from genet.arch.network import Network
from genet.config.budget import Budget
from genet.config.recipe import Recipe
from genet.errors import EvidenceError
from genet.latency.estimate.gpus import find_gpu
from genet.latency.predict import Predictor
from genet.latency.table import LatencyTable
from genet.latency.workload import network_workload
from genet.storage import Record


class BudgetOutlook(Record):
    """A budget beside the latencies that bound it, in milliseconds per image; None if they are not known."""

    budget: Budget
    others: str  # its other forms
    ms_per_image: float | None
    fewest_macs_ms_per_image: float | None

    @property
    def reachable(self) -> bool | None:
        """Return whether a network is known to be within the budget. Another one may be faster than that with the fewest MACs."""
        if self.budget.relative and self.budget.amount >= 1:
            return True
        if self.ms_per_image is None or self.fewest_macs_ms_per_image is None:
            return None
        return self.fewest_macs_ms_per_image <= self.ms_per_image

    @property
    def prospect(self) -> str:
        """The budget's other forms, and whether it can be met, as far as both are known."""
        reachability = {True: "within reach", False: "probably out of reach", None: ""}[self.reachable]
        if reachability and self.fewest_macs_ms_per_image is not None:
            reachability += f", the network with the fewest MACs takes {self.fewest_macs_ms_per_image:.4g} ms/image"
        elif reachability:
            reachability += ", by the MasterNet itself"
        return ": ".join(filter(None, (self.others, reachability)))


def outlooks(
    budgets: Iterable[Budget], masternet_ms: float | None, fastest_ms: Iterable[float], batch: int
) -> tuple[BudgetOutlook, ...]:
    """Return what is known of budgets, given the ms per batch of the MasterNet and those of networks with few MACs."""
    fastest = min(fastest_ms, default=None)

    def ms_per_image(budget: Budget) -> float | None:
        if budget.relative and masternet_ms is None:
            return None
        return budget.ms(masternet_ms or 0.0, batch) / batch

    return tuple(
        BudgetOutlook(
            budget=budget,
            others=budget.others(masternet_ms, batch),
            ms_per_image=ms_per_image(budget),
            fewest_macs_ms_per_image=None if fastest is None else fastest / batch,
        )
        for budget in budgets
    )


def estimated_outlooks(recipe: Recipe) -> tuple[BudgetOutlook, ...]:
    """Return the budgets of a recipe whose device is an estimate, which needs no device and no images."""
    from genet.latency.timing.meter import EstimateMeter  # loads torch

    meter = EstimateMeter(recipe.measure, find_gpu(recipe.measure.device.removeprefix("estimate:")))

    def ms(network: Network) -> float:
        return meter.estimate(network_workload(network)).ms

    masternet = recipe.space.masternet(recipe.search_resolution)
    return outlooks(recipe.select.budgets, ms(masternet), map(ms, _smallest(recipe)), recipe.measure.batch)


def recorded_outlooks(recipe: Recipe, table: LatencyTable) -> tuple[BudgetOutlook, ...]:
    """Return the budgets by a table of measurements, as far as it tells: networks measured whole, or predicted from blocks."""
    masternet = recipe.space.masternet(recipe.search_resolution)
    if table.network_row(masternet) is None:
        return outlooks(recipe.select.budgets, None, (), recipe.measure.batch)
    rows = [row for row in table.network_rows if row.reference == str(masternet)]
    known = []
    for network in _smallest(recipe):
        row = table.network_row(network)
        if row and row in rows:
            known.append(row.ratio * table.masternet_ms(masternet))
            continue
        try:
            known.append(Predictor(table, masternet, rows).ms(network))
        except EvidenceError:  # no blocks measured yet, or a width that its staircases do not keep
            continue
    return outlooks(recipe.select.budgets, table.masternet_ms(masternet), known, table.setting.batch)


def _smallest(recipe: Recipe) -> tuple[Network, ...]:
    return tuple(map(recipe.space.smallest, recipe.space.input.resolutions))
