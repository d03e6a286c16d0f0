"""What a job knows at one moment: the latencies of what is on offer, their predictor, and the regression of accuracies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from statistics import fmean

from genet.arch.external import ModelSpec
from genet.arch.network import Network
from genet.arch.space import WidthsOnOffer
from genet.config.budget import Budget
from genet.errors import EvidenceError
from genet.latency.evidence import read_evidence
from genet.latency.predict import Predictor
from genet.latency.profile import measure_network
from genet.latency.staircase.space_sweeps import Staircases, find_staircases
from genet.latency.table import LatencyTable, NetworkRow, Rounds, find_setting
from genet.latency.timing.ratio import StopRule
from genet.names import damaged_lines
from genet.pipeline.context import RunContext, calibration_rows, predictor
from genet.pipeline.fit import current_regression
from genet.search.certificate import INTERIM_LOOKS, Certificate, certificate_of, could_be_within, expected_interval
from genet.search.choice_tables import ChoiceTables, Predicted, tabulate_choices
from genet.search.regression import Regression
from genet.search.solver import Candidate, ExactSolver, filter_by_utilization, random_search
from genet.statistics import half_interval

FUTILE = 6  # rounds after which one that is too close to its budget may be given up


def run_table(job: RunContext) -> LatencyTable:
    """Return the latency table that the staircases were found in, regardless of this machine's device."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    return LatencyTable(job.folder.latency, find_setting(job.folder.latency, staircases.setting))


def evidence_table(job: RunContext, path: Path) -> LatencyTable:
    """Return the latency table of another device; damaged lines of the file are reported."""
    table = read_evidence(path)
    if table.damaged:
        job.progress.say(f"  {damaged_lines(path, table.damaged)}")
    job.progress.say(f"  latencies of {table.setting}")
    return table


class SearchState:
    """What a job knows by a latency table: its own unless another is given. Latencies are milliseconds per batch.

    Everything is read or made once, when it is needed first; `learn` corrects what is predicted from then on.
    """

    def __init__(self, job: RunContext, table: LatencyTable | None = None) -> None:
        self.job, self.table = job, run_table(job) if table is None else table
        self._choice_tables: dict[int, ChoiceTables] = {}  # by resolution
        self._solved: dict[int, ExactSolver] = {}

    @property
    def batch(self) -> int:
        """Images per batch."""
        return self.table.setting.batch

    @cached_property
    def reference_ms(self) -> float:
        """Milliseconds per batch of the MasterNet that networks are timed in turn with."""
        return self.table.masternet_ms(self.job.reference)

    @cached_property
    def regression(self) -> Regression:
        """The regression of accuracies, fitted again if the trials have changed."""
        return current_regression(self.job)

    @cached_property
    def kept(self) -> dict[int, WidthsOnOffer]:
        """The widths on offer at every resolution, by the table's own staircases; they may differ from the run's."""
        staircases = self.job.folder.read(self.job.folder.staircase, Staircases)
        if staircases.setting != self.table.setting.digest or self.table.path != self.job.folder.latency.path:
            staircases = find_staircases(self.job.space, self.table)
        return {resolution: self.job.kept_widths(staircases, resolution) for resolution in self.job.resolutions}

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor of whole networks' latencies."""
        return predictor(self.job, self.table, self.kept)

    def learn(self, row: NetworkRow) -> None:
        """Correct the predictions by one more network measured whole."""
        self.predictor.learn(row)
        self._choice_tables.clear()
        self._solved.clear()

    def choice_tables(self, resolution: int) -> ChoiceTables:
        """Return what the space offers at a resolution, with its predictions."""
        if resolution not in self._choice_tables:
            known, latency = self.regression, self.predictor
            predicted = Predicted(known.accuracy, known.gain, latency.ms_by_in_width, latency.correction.host_ms)
            self._choice_tables[resolution] = tabulate_choices(self.job.space, self.kept[resolution], resolution, predicted)
        return self._choice_tables[resolution]

    def predicted_ms(self, network: Network) -> float:
        """Return what is predicted for a network of the space; infinite if it is not on offer."""
        resolution = network.input.resolution
        tables = self.choice_tables(resolution) if resolution in self.job.resolutions else None
        return tables.predict(network).ms if tables and tables.holds(network) else math.inf

    def solver(self, resolution: int) -> ExactSolver:
        """Return the exact answers to all budgets at a resolution."""
        if resolution not in self._solved:
            self._solved[resolution] = ExactSolver(self.choice_tables(resolution))
        return self._solved[resolution]

    def frontier(self, resolution: int) -> tuple[Candidate, ...]:
        """Return the candidates at a resolution: the exact frontier, or the best of random structures if the recipe says so."""
        offered, how = self.choice_tables(resolution), self.job.recipe.select
        exact = how.method == "exact"
        found = self.solver(resolution).frontier() if exact else random_search(offered, how.random_samples, self.job.recipe.seed)
        return filter_by_utilization(found) if how.filter else found

    def best(self, resolution: int, limit_ms: float, count: int) -> tuple[Candidate, ...]:
        """Return the best candidates of the recipe's method within a latency, best first."""
        how = self.job.recipe.select
        if how.method == "exact" and not how.filter:
            return self.solver(resolution).best(limit_ms, count)
        within = [each for each in self.frontier(resolution) if each.predicted_ms <= limit_ms]
        return tuple(sorted(within, key=lambda each: -each.predicted_accuracy)[:count])

    @property
    def frontiers(self) -> dict[int, tuple[Candidate, ...]]:
        """The candidates at every resolution; block types without evidence are left out."""
        return {resolution: self.frontier(resolution) for resolution in self.kept}

    def limit_ms(self, budget: Budget) -> float:
        """Return a budget in milliseconds per batch."""
        return budget.ms(self.reference_ms, self.batch)

    def margin(self, budget: Budget) -> float:
        """Return the share of a latency by which a network should be below a budget, to be certified within it.

        Only measurements of the plan count, so that the answer is the same whatever was measured since.
        """
        return math.hypot(self._scatter, self._reference_error(budget))

    @cached_property
    def _scatter(self) -> float:
        rows = calibration_rows(self.job, self.table, self.kept)
        return expected_interval([row.ratios for row in rows], INTERIM_LOOKS[-1])

    def measure(self, network: ModelSpec, budget: Budget, patient: bool = True) -> NetworkRow:
        """Measure a network in turn with the MasterNet until its interval is clear of a budget; 20 rounds at most.

        One that is within the budget is measured until its latency is known, too.
        If not `patient`, stop as soon as 20 rounds are unlikely to certify it. The MasterNet keeps its rounds, as budgets are
        multiples of them. MeasurementError if it cannot be timed.
        """
        most, own = INTERIM_LOOKS[-1], self.table.network_row(self.job.reference)
        if own is not None and network == self.job.reference:
            return own

        def decided(rounds: Rounds) -> bool:
            count = len(rounds.ms)
            if count not in INTERIM_LOOKS:  # checking often would make chance look like certainty
                return False
            found = self._certificate(rounds, budget)
            if found.within is False or (found.within and not found.too_noisy):
                return True
            limit = self.limit_ms(budget) / self._slowest_ms(rounds, budget)
            error = self._reference_error(budget)
            return not patient and count >= FUTILE and not could_be_within(rounds.ratios, limit, most, error)

        return measure_network(self.table, self.job.meter, network, self.job.reference, StopRule(decided, most=most))

    def judge(self, row: NetworkRow, budget: Budget) -> Certificate:
        """Judge a network by a budget: a multiple of the MasterNet's latency by ratios to it, which no drift can affect.

        A budget in milliseconds must hold at the speed at which the MasterNet was measured and at that of the network's own
        rounds, whichever is slower, and bears the uncertainty of the MasterNet's latency too.
        """
        if row.reference != str(self.job.reference):
            raise EvidenceError(f"{row.network}: got a latency on its own, expected one measured in turn with the MasterNet")
        return self._certificate(row, budget)

    def certificates(self, candidates: Iterable[Candidate], budget: Budget) -> dict[str, Certificate]:
        """Return the certificates of those candidates that were measured in turn with the MasterNet, by notation."""
        rows = ((each.network, self.table.network_row(Network.parse(each.network))) for each in candidates)
        reference = str(self.job.reference)
        return {network: self.judge(row, budget) for network, row in rows if row and row.reference == reference}

    def _certificate(self, rounds: Rounds, budget: Budget) -> Certificate:
        ms, error = self._slowest_ms(rounds, budget), self._reference_error(budget)
        return certificate_of(rounds.ratios, ms, self.limit_ms(budget), error)

    def _slowest_ms(self, rounds: Rounds, budget: Budget) -> float:
        """Return the MasterNet's latency, for a budget in milliseconds the longer one of its own rounds and the network's."""
        return self.reference_ms if budget.relative else max(self.reference_ms, fmean(rounds.reference_ms))

    def _reference_error(self, budget: Budget) -> float:
        """Return half the relative interval of the MasterNet's latency, which a multiple of it does not bear."""
        own = self.table.network_row(self.job.reference)
        return half_interval(own.ms) / own.mean_ms if own is not None and not budget.relative else 0.0
