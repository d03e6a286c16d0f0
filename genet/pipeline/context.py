"""A run folder in use: its recipe, and the device, images and latency table once a step needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from genet.arch.external import ExternalModel
from genet.arch.network import Network
from genet.arch.space import SearchSpace, WidthsOnOffer
from genet.config.recipe import Recipe
from genet.device import DeviceCard, current, open_device, read_card
from genet.errors import DataError, GenetError, RunError, SpecError, first_line
from genet.latency.evidence import differences_in_words, read_evidence
from genet.latency.predict import Predictor
from genet.latency.profile import FEW
from genet.latency.staircase.space_sweeps import Staircases, correction_networks
from genet.latency.table import LatencyTable, NetworkRow, Setting, settings
from genet.latency.timing.meter import EvidenceMeter, Meter, open_meter
from genet.latency.workload import workload_of
from genet.names import damaged_lines
from genet.pipeline.run_folder import RunFolder
from genet.progress import Progress
from genet.search.known_designs import check_portfolio, designs_of
from genet.search.tournament import Tournament
from genet.storage import FolderLock, Journal, remove_temporary
from genet.training.image_sets import View
from genet.training.log import Log, open_log
from genet.training.splits import Splits, check_augment, load_data


@dataclass
class RunContext:
    """The context of all steps of a job on its run folder. It loads what a step asks for, and keeps it.

    It is `locked` if no other process may write into the folder, and may `remeasure` in another setting than the run's.
    """

    folder: RunFolder
    recipe: Recipe
    progress: Progress
    locked: bool = False
    remeasure: bool = False

    @cached_property
    def device(self) -> torch.device:
        """The device trained on, and measured on unless latencies come from elsewhere."""
        return open_device(self.recipe.measure.device if self.recipe.measure.here else "auto")

    @cached_property
    def card(self) -> DeviceCard:
        """Facts that could be read of the device."""
        measure = self.recipe.measure
        with current(self.device, measure.threads if measure.here else None):
            return read_card(self.device)

    @cached_property
    def log(self) -> Log:
        """The log that the recipe asks for; GenetError if its package is missing."""
        return open_log(self.recipe.log, self.folder.path)

    @cached_property
    def splits(self) -> Splits:
        """The images; RunError if the run's results were made from others."""
        recipe, input_ = self.recipe, self.recipe.space.input
        if recipe.train.augment:
            check_augment(recipe.train.augment, recipe.data, input_)
        view = View(augment=recipe.augment)
        try:
            with self.progress.awake("reading the images"):
                return self.recognised(load_data(recipe.data, input_, recipe.seed, view, self.device, progress=self.progress))
        except DataError as fault:
            if not self.locked or recipe.data.root is None or Path(recipe.data.root).exists():
                raise
            remedy = f"give --data FOLDER to genet run or genet export, or set data.root in {self.folder.recipe_file}"
            raise DataError(f"{fault}; if the images were moved, {remedy}") from None

    def recognised(self, splits: Splits) -> Splits:
        """Return the images under the name by which the run's results know them; RunError if the results were made from others.

        A locked folder records them, and its recipe names their place.
        """
        name = None
        if splits.contents:
            noted = self.folder.note_of(self.recipe.data, splits.contents)
            name = noted.name
            if self.locked:
                noted.keep(self.folder.path, self.progress)
        if self.locked:
            self.folder.adopt(self.recipe)
        return dataclasses.replace(splits, name=name)

    @cached_property
    def meter(self) -> Meter:
        """The source of latencies."""
        if self._evidence is not None:
            return EvidenceMeter(self._evidence.setting)
        return open_meter(self.recipe.measure, self.card, self.device)

    @cached_property
    def _evidence(self) -> LatencyTable | None:
        measure = self.recipe.measure
        return read_evidence(Path(measure.latency_file), measure) if measure.latency_file else None

    @cached_property
    def table(self) -> LatencyTable:
        """The latency table of this device and setting; the rows of another machine's evidence are taken into it.

        RunError if the run was measured in another setting, unless that may be measured anew.
        """
        if not self.remeasure:
            check_setting(self)
        table = LatencyTable(Journal(self.folder.latency.path, self.progress.say), self.meter.setting)
        self._say_damaged(self.folder.latency.path.name, table)
        if self._evidence is not None:
            self._say_damaged(str(self.recipe.measure.latency_file), self._evidence)
            table.adopt(self._evidence)
        return table

    def _say_damaged(self, name: str, table: LatencyTable) -> None:
        if table.damaged:
            self.progress.say(f"  {damaged_lines(name, table.damaged)}")

    @property
    def reference(self) -> Network:
        """The MasterNet that the recipe's space has, at the resolution of the search.

        Networks are timed in turn with it, and its latency is the unit of budgets such as 0.5x.
        """
        return self.recipe.space.masternet(self.recipe.search_resolution)

    @cached_property
    def tournament(self) -> Tournament | None:
        """The tournament for the MasterNet; None before it has begun, and if the space asks for none."""
        begun = self.recipe.space.masternets is not None and self.folder.tournament.exists()
        return Tournament.load(self.folder.tournament) if begun else None

    @property
    def space(self) -> SearchSpace:
        """The search space around the run's MasterNet; RunError before its tournament is over."""
        space = self.recipe.space
        if space.masternets is None:
            return space
        if self.tournament is None or self.tournament.winner is None:
            raise RunError(
                f"{self.folder.path}: the tournament for the MasterNet is not finished; `genet master RUN` finishes it"
            )
        return space.around(Network.parse(self.tournament.winner))

    @property
    def masternet(self) -> Network:
        """The MasterNet at the resolution of the search: parent of the trials."""
        return self.space.masternet(self.recipe.search_resolution)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions on offer."""
        return self.recipe.space.input.resolutions

    def kept_widths(self, staircases: Staircases, resolution: int) -> WidthsOnOffer:
        """Return the widths on offer at a resolution: those at staircase edges, or the plain grid."""
        return staircases.kept_widths(self.space.widths_on_offer(), resolution)


def predictor(job: RunContext, table: LatencyTable, kept: Mapping[int, WidthsOnOffer]) -> Predictor:
    """Predict latencies from a table, corrected by the networks that the plan has measured whole for it, and no others."""
    return Predictor(table, job.reference, calibration_rows(job, table, kept))


def calibration_rows(job: RunContext, table: LatencyTable, kept: Mapping[int, WidthsOnOffer]) -> list[NetworkRow]:
    """Return the rows of the networks that the plan has measured whole: the same whatever is measured later."""
    networks = correction_networks(job.space, kept, job.recipe.measure.calibration_networks, job.recipe.seed)
    rows = [row.first(FEW.least) for network in networks if (row := table.network_row(network))]
    return [row for row in rows if row.reference == str(job.reference)]


def check_designs(recipe: Recipe) -> None:
    """Raise SpecError for designs that cannot be read or told apart, or that do not run at a resolution of the recipe's space."""
    check_portfolio(recipe.space)
    faults = []
    for design in designs_of(recipe):
        for resolution in recipe.space.input.resolutions:
            try:
                network = design.network.at(resolution)
                if isinstance(network, ExternalModel):
                    workload_of(network).ops()
            except GenetError as fault:
                faults.append(f"race.designs: {design.name} at {resolution} pixels: {first_line(fault)}")
    if faults:
        raise SpecError(faults)


def measured_in(job: RunContext) -> Setting | None:
    """Return the setting in which the run was measured, by its staircases or by the tournament before them; None before both."""
    if job.folder.staircase.exists():
        return settings(job.folder.latency).get(job.folder.read(job.folder.staircase, Staircases).setting)
    return job.tournament.setting if job.tournament else None


def other_setting(job: RunContext) -> Setting | None:
    """Return the setting that the run was measured in if it is another one than now, as with other threads or versions."""
    before = measured_in(job)
    return before if before and before.digest != job.meter.setting.digest else None


def check_setting(job: RunContext) -> None:
    """Raise RunError if the run was measured in another setting, whose rows cannot be used."""
    if before := other_setting(job):
        was, asked = differences_in_words(before, job.meter.setting)
        raise RunError(
            f"{job.folder.path}: got {asked}, expected {was}, with which the run was measured; give genet run --remeasure "
            "to measure again, or the earlier settings"
        )


@contextmanager
def open_run(folder: Path, progress: Progress, recipe: Recipe | None = None, same_setting: bool = False) -> Iterator[RunContext]:
    """Take a run folder for this process, for the given recipe or for the one it holds.

    If the recipe's device or images are missing, its folder is not free, or it must go on in the `same_setting` and was measured
    in another, nothing changes on disk. The recipe that the folder holds goes on in the same setting in any case, which is
    checked once latencies are needed.
    """
    files = RunFolder(folder)
    job = RunContext(files, recipe or files.recipe(), progress, remeasure=recipe is not None and not same_setting)
    with progress.awake():
        if recipe:
            files.check_free_for(recipe)
            check_designs(recipe)
            _ = job.device, job.meter, job.log
            if same_setting:
                check_setting(job)
            if not files.results.exists():
                job.splits.check(recipe.search_resolution)
        with FolderLock(folder):
            remove_temporary(folder)
            job.locked = True
            if recipe:
                job.recognised(job.splits)
            yield job


def read_run(folder: Path, progress: Progress) -> RunContext:
    """Return a run folder to read from, even while another process works in it."""
    files = RunFolder(folder)
    return RunContext(files, files.recipe(), progress)
