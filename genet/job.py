"""A run folder at work: its recipe, and the device, images and latency table once a step asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from genet.device import DeviceCard, open_device, read_card
from genet.files import FolderLock
from genet.latency.staircase import Staircases
from genet.latency.table import LatencyTable, Setting
from genet.nets.data import Splits, load_data
from genet.progress import Progress
from genet.runfolder import RunFolder
from genet.spec.network import Network
from genet.spec.recipe import Recipe
from genet.spec.space import Widths


@dataclass
class Job:
    """A run folder at work: its recipe, and the device and the images once a step asks for them."""

    folder: RunFolder
    recipe: Recipe
    progress: Progress

    @cached_property
    def device(self) -> torch.device:
        """The device measured and trained on."""
        return open_device(self.recipe.measure.device)

    @cached_property
    def card(self) -> DeviceCard:
        """What could be read of the device."""
        return read_card(self.device)

    @cached_property
    def splits(self) -> Splits:
        """The images."""
        return load_data(self.recipe.data, self.recipe.space.input, self.recipe.seed)

    @cached_property
    def table(self) -> LatencyTable:
        """The latency table of this device and setting."""
        table = LatencyTable(self.folder.latency, Setting.of(self.card, self.recipe.measure))
        if table.damaged:
            lines = ", ".join(map(str, table.damaged))
            self.progress.say(f"  latency.jsonl: damaged lines {lines} are left out and measured anew")
        return table

    @property
    def masternet(self) -> Network:
        """The MasterNet at the resolution of the search: parent of the trials, measure of budgets such as 0.5x."""
        return self.recipe.space.masternet(self.recipe.search_resolution)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions on offer."""
        return self.recipe.space.input.resolutions

    def kept_widths(self, staircases: Staircases, resolution: int) -> Widths:
        """The widths on offer at a resolution: those at staircase edges, or the plain grid."""
        offered = self.recipe.space.widths_on_offer()
        kept = {(s.superblock, s.block_type): s.kept for s in staircases.staircases if s.resolution == resolution}
        return {(index, kind): kept.get((index, str(kind)), widths) for (index, kind), widths in offered.items()}


@contextmanager
def open_job(folder: Path, progress: Progress, recipe: Recipe | None = None) -> Iterator[Job]:
    """Take a run folder for this process, for the given recipe or for the one it holds.

    A recipe whose device or images are not there, or whose folder is not free for it, changes nothing on the disk.
    """
    files = RunFolder(folder)
    job = Job(files, recipe or files.recipe(), progress)
    if recipe:
        files.check_free_for(recipe)
        _ = job.device, job.splits
    with FolderLock(folder):
        files.remove_leftovers()
        if recipe:
            files.adopt(recipe)
        yield job


def read_job(folder: Path, progress: Progress) -> Job:
    """A run folder to read from, also while another process works in it."""
    files = RunFolder(folder)
    return Job(files, files.recipe(), progress)
