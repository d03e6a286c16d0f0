"""Check and profile: what the job will cost, what every block costs on this device, and which widths are worth offering."""

from __future__ import annotations

from collections.abc import Iterable

from genet.device import DeviceCard
from genet.errors import RunError
from genet.job import Job
from genet.latency.profile import profile_blocks, profile_network
from genet.latency.staircase import Staircase, Staircases, edges, noise, wave_aligned
from genet.preflight import Preflight, outlook, preflight
from genet.spec.network import Block, BlockType, blocks
from genet.spec.space import Widths


def check(job: Job) -> Preflight:
    """Pre-flight: the job's size, its expected time, and whether each budget can be met."""
    _same_kind_of_device(job)
    job.card.save(job.folder.environment)
    seen = preflight(job.recipe, job.splits, job.table, job.device)
    for line in outlook(seen, job.table.setting):
        job.progress.say(line)
    return seen


def _same_kind_of_device(job: Job) -> None:
    """A GPU that has gone missing must not turn a run into one for the CPU without a word."""
    if job.recipe.measure.device == "auto" and job.folder.environment.exists():
        before = DeviceCard.load(job.folder.environment)
        if before.kind != job.card.kind:
            raise RunError(
                f"{job.folder.path}: was measured on {before.name}, and device auto finds {job.card.name} now; "
                f"give --device {job.card.kind} to measure anew here"
            )


def profile(job: Job) -> Staircases:
    """Measure the latency of every block on offer, and keep the widths at the edges of the device's staircase.

    First the repeated block of each super-block and block type over all widths gives the staircases; then the
    blocks that the kept widths need are measured with their real input widths, and the MasterNet whole.
    """
    space = job.recipe.space
    offered = space.widths_on_offer()
    setting = job.table.setting.digest
    if not job.folder.staircase.exists() or job.folder.read(job.folder.staircase, Staircases).setting != setting:
        places = [(r, index, kind) for r in job.resolutions for index, kind in offered]
        if space.widths != "wave-aligned":
            places = []
        sweep = [block for r, index, kind in places for block in space.repeated_blocks(index, kind, offered, r)]
        _measure(job, sweep, "latency over widths")
        found = tuple(_staircase(job, *place, offered) for place in places)
        Staircases(setting=setting, staircases=found).save(job.folder.staircase)
    staircases = job.folder.read(job.folder.staircase, Staircases)
    wanted = [block for r in job.resolutions for block in space.blocks(job.kept_widths(staircases, r), r)]
    masternets = [job.masternet, *(space.masternet(r) for r in job.resolutions)]
    wanted += [block for network in masternets for block in blocks(network)]
    _measure(job, wanted, "latency of blocks on offer")
    for network in masternets:
        profile_network(job.table, network, job.device, reference=job.masternet)
    return staircases


def _measure(job: Job, asked: Iterable[Block], title: str) -> None:
    """Measure the blocks that the table lacks."""
    wanted = list(dict.fromkeys(asked))
    missing = len(job.table.missing(wanted))
    with job.progress.track(title, len(wanted), len(wanted) - missing) as tracker:
        profile_blocks(job.table, wanted, job.device, job.recipe.seed, tracker.advance)


def _staircase(job: Job, resolution: int, index: int, kind: BlockType, offered: Widths) -> Staircase:
    """One staircase from the table; the MasterNet's own width always stays."""
    widths = offered[index, kind]
    sweep = job.recipe.space.repeated_blocks(index, kind, offered, resolution)
    ms = tuple(job.table.ms(block) for block in sweep)
    eps = noise([job.table.spread(block) for block in sweep])
    own = {job.recipe.space.superblocks[index].width} & set(widths)
    return Staircase(
        superblock=index,
        resolution=resolution,
        block_type=str(kind),
        widths=widths,
        ms=ms,
        eps=eps,
        edges=edges(widths, ms, eps),
        kept=tuple(sorted({*wave_aligned(widths, ms, eps), *own})),
    )
