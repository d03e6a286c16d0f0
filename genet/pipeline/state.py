"""What a job knows at one moment: the latencies of what is on offer, their predictor, and the regression of accuracies."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from statistics import fmean

from genet.arch.external import ModelSpec
from genet.arch.space import Widths
from genet.config.recipe import Budget, budget_ms
from genet.errors import EvidenceError
from genet.latency.evidence import read_evidence
from genet.latency.predict import Predictor
from genet.latency.profile import measure_network
from genet.latency.staircase.plan import Staircases, find_staircases
from genet.latency.table import LatencyTable, NetworkRow, find_setting
from genet.pipeline.context import RunContext, predictor
from genet.pipeline.learn import current_regression
from genet.search.certificate import Certificate, certificate, could_be_clear
from genet.search.regression import Regression
from genet.search.solver import Candidate, ExactSolver, filter_by_utilization, frontier, random_search
from genet.search.tables import ChoiceTables, tabulate_choices
from genet.statistics import half_interval

INTERIM_LOOKS = (3, 6, 12, 20)  # rounds after which a network is judged
FUTILE = 6  # rounds after which one that is too close to its budget may be given up


def run_table(job: RunContext) -> LatencyTable:
    """Return the latency table that the staircases were found in, regardless of this machine's device."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    return LatencyTable(job.folder.latency, find_setting(job.folder.latency, staircases.setting))


def evidence_table(job: RunContext, path: Path) -> LatencyTable:
    """Return the latency table of another device; damaged lines of the file are reported."""
    table = read_evidence(path)
    if table.damaged:
        job.progress.say(f"  {path}: damaged lines {', '.join(map(str, table.damaged))} are left out")
    job.progress.say(f"  latencies of {table.setting}")
    return table


class SearchState:
    """What a job knows by a latency table: its own unless another is given. Latencies are milliseconds per batch.

    Everything is read or made once, when it is needed first; `learn` corrects what is predicted from then on.
    """

    def __init__(self, job: RunContext, table: LatencyTable | None = None) -> None:
        self.job, self.table = job, table or run_table(job)
        self._offers: dict[int, ChoiceTables] = {}  # by resolution
        self._solved: dict[int, ExactSolver] = {}

    @property
    def batch(self) -> int:
        """Images per batch."""
        return self.table.setting.batch

    @cached_property
    def masternet_ms(self) -> float:
        """Milliseconds per batch of the MasterNet."""
        return self.table.masternet_ms(self.job.masternet)

    @cached_property
    def regression(self) -> Regression:
        """The regression of accuracies, fitted anew if the trials have changed."""
        return current_regression(self.job)

    @cached_property
    def kept(self) -> dict[int, Widths]:
        """The widths on offer at every resolution, by the table's own staircases; they may differ from the run's."""
        staircases = self.job.folder.read(self.job.folder.staircase, Staircases)
        if staircases.setting != self.table.setting.digest or self.table.path != self.job.folder.latency.path:
            staircases = find_staircases(self.job.recipe.space, self.table)
        return {resolution: self.job.kept_widths(staircases, resolution) for resolution in self.job.resolutions}

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor of whole networks' latencies."""
        return predictor(self.job, self.table, self.kept)

    def learn(self, row: NetworkRow) -> None:
        """Correct the predictions by one more network measured whole."""
        self.predictor.learn(row)
        self._offers.clear()
        self._solved.clear()

    def offers(self, resolution: int) -> ChoiceTables:
        """Return what the space offers at a resolution, with its predictions."""
        if resolution not in self._offers:
            self._offers[resolution] = tabulate_choices(
                self.job.recipe.space,
                self.kept[resolution],
                resolution,
                self.regression.accuracy,
                self.regression.gain,
                self.predictor.reading_ms,
                self.predictor.correction.host_ms,
            )
        return self._offers[resolution]

    def solver(self, resolution: int) -> ExactSolver:
        """Return the exact answers to all budgets at a resolution."""
        if resolution not in self._solved:
            self._solved[resolution] = ExactSolver(self.offers(resolution))
        return self._solved[resolution]

    def frontier(self, resolution: int) -> tuple[Candidate, ...]:
        """Return the candidates at a resolution: the exact frontier, or the best of random structures if the recipe says so."""
        offered, how = self.offers(resolution), self.job.recipe.select
        found = frontier(offered) if how.method == "exact" else random_search(offered, how.random_samples, self.job.recipe.seed)
        return filter_by_utilization(found) if how.filter else found

    @property
    def frontiers(self) -> dict[int, tuple[Candidate, ...]]:
        """The candidates at every resolution; block types without evidence are left out."""
        return {resolution: self.frontier(resolution) for resolution in self.kept}

    def limit_ms(self, budget: Budget) -> float:
        """Return a budget in milliseconds per batch."""
        return budget_ms(budget, self.masternet_ms / self.batch) * self.batch

    def measure(self, network: ModelSpec, budget: Budget, patient: bool = True) -> NetworkRow:
        """Measure a network in turn with the MasterNet until its interval is clear of a budget; 20 rounds at most.

        If not `patient`, stop as soon as 20 rounds are unlikely to certify it. MeasurementError if it cannot be timed.
        """
        most, limit_ms = INTERIM_LOOKS[-1], self.limit_ms(budget)

        def enough(row: NetworkRow) -> bool:
            rounds = len(row.ms)
            if rounds not in INTERIM_LOOKS:  # checking often would make chance look like certainty
                return False
            found = self.judge(row, budget)
            given_up = not patient and rounds >= FUTILE and not could_be_clear(found, limit_ms, rounds, most)
            return rounds == most or found.within is not None or given_up

        return measure_network(self.table, self.job.meter, network, self.job.masternet, enough)

    def judge(self, row: NetworkRow, budget: Budget) -> Certificate:
        """Judge a network by a budget: a multiple of the MasterNet's latency by ratios to it, which no drift can affect.

        A budget in milliseconds must hold at the speed at which the MasterNet was measured and at that of the network's own
        rounds, whichever is slower, and bears the uncertainty of the MasterNet's latency too.
        """
        reference, limit_ms = self.table.network_row(self.job.masternet), self.limit_ms(budget)
        if reference is None or row.reference != str(self.job.masternet):
            raise EvidenceError(f"{row.network}: got a latency on its own, expected one measured in turn with the MasterNet")
        if isinstance(budget, str):
            return certificate(row.ratios, reference.mean_ms, limit_ms)
        slower = max(reference.mean_ms, fmean(row.reference_ms))
        return certificate(row.ratios, slower, limit_ms, half_interval(reference.ms) / reference.mean_ms)
