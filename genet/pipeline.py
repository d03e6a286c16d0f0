"""The whole job in reading order: check, profile, master, distill, fit, select, train, export, report.

Each step reads what the steps before left in the run folder, does only what is missing, and leaves its own result.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from genet.choose.certificate import Choice, Selection, best_predicted, best_within
from genet.choose.outcome import Outcome, Outcomes, Trained
from genet.choose.regression import Regression, fit
from genet.choose.selection import Candidate, frontier
from genet.errors import EvidenceError, RunError
from genet.export import export, load_weights, save_weights
from genet.files import Record, digest, remove_checked, write_atomic
from genet.job import Job
from genet.latency.profile import profile_blocks, profile_network
from genet.latency.staircase import Staircase, Staircases, edges, noise, wave_aligned
from genet.latency.table import LatencyTable, setting_in
from genet.nets.build import build
from genet.nets.training import accuracy, train
from genet.preflight import Preflight, outlook, preflight
from genet.report.page import Story, card, page
from genet.runfolder import RunFolder, network_name
from genet.spec.cost import network_cost
from genet.spec.network import Block, BlockType, Network
from genet.spec.reader import to_yaml
from genet.spec.recipe import Budget, Schedule, budget_ms
from genet.spec.space import Widths
from genet.trials.finetune import FineTune
from genet.trials.plan import Trial, TrialResult, plan_trials
from genet.trials.runner import in_process, read_results, run_trials

R = TypeVar("R", bound=Record)


def run(job: Job) -> Outcomes:
    """All steps."""
    check(job)
    profile(job)
    master(job)
    distill(job)
    fit_trials(job)
    select(job)
    outcomes = train_selected(job)
    export_selected(job)
    write_report(job)
    return outcomes


def check(job: Job) -> Preflight:
    """Pre-flight: the job's size, its expected time, and whether each budget can be met."""
    job.card.save(job.folder.environment)
    seen = preflight(job.recipe, job.splits, job.table, job.device)
    for line in outlook(seen):
        job.progress.say(line)
    return seen


def profile(job: Job) -> Staircases:
    """Measure the latency of every block on offer, and keep the widths at the edges of the device's staircase.

    First the repeated block of each super-block and block type over all widths gives the staircases; then the
    blocks that the kept widths need are measured with their real input widths.
    """
    space = job.recipe.space
    offered = space.widths_on_offer()
    if not _staircases_are_this_devices(job):
        places = [(r, index, kind) for r in job.resolutions for index, kind in offered]
        if space.widths != "wave-aligned":
            places = []
        sweep = [block for r, index, kind in places for block in space.repeated_blocks(index, kind, offered, r)]
        _measure(job, sweep, "latency over widths")
        found = tuple(_staircase(job, *place, offered) for place in places)
        job.folder.forget_selection()  # it would mix another device's latencies with this one's
        Staircases(setting=job.table.setting.digest, staircases=found).save(job.folder.staircase)
    staircases = job.folder.read(job.folder.staircase, Staircases)
    wanted = [block for r in job.resolutions for block in space.blocks(job.kept_widths(staircases, r), r)]
    _measure(job, wanted, "latency of blocks on offer")
    return staircases


def _staircases_are_this_devices(job: Job) -> bool:
    if not job.folder.staircase.exists():
        return False
    return job.folder.read(job.folder.staircase, Staircases).setting == job.table.setting.digest


def _measure(job: Job, blocks: Iterable[Block], title: str) -> None:
    """Measure the blocks that the table lacks."""
    wanted = list(dict.fromkeys(blocks))
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


def master(job: Job) -> Trained:
    """Train the MasterNet, the parent of all trials."""
    if not job.folder.master.exists():
        network = job.recipe.space.masternet(job.recipe.search_resolution)
        checkpoint, weights = job.folder.master_checkpoint, job.folder.master_weights
        trained = _train(job, network, job.recipe.master, checkpoint, weights, "training the MasterNet")
        trained.save(job.folder.master)
    return job.folder.read(job.folder.master, Trained)


def _train(job: Job, network: Network, schedule: Schedule, checkpoint: Path, weights: Path, title: str) -> Trained:
    """Train a network from scratch, keep its weights and take its accuracies."""
    seed = int(digest(f"{job.recipe.seed}/{network}")[:12], 16)
    module = build(network, seed)
    resolution = network.input.resolution
    with job.progress.track(title, schedule.epochs) as tracker:

        def epoch_done(epoch: int, loss: float) -> None:
            tracker.done = epoch - 1  # a resumed training begins further on
            tracker.advance(f"loss {loss:.3f}")

        images, device = job.splits.train, job.device
        train(module, images, schedule, resolution, device, seed, checkpoint=checkpoint, epoch_done=epoch_done)
    save_weights(module, weights)
    trained = Trained(
        network=str(network),
        resolution=resolution,
        nas_accuracy=accuracy(module, job.splits.nas_validation, resolution, job.device),
        test_accuracy=accuracy(module, job.splits.test, resolution, job.device),
    )
    remove_checked(checkpoint)  # the weights are safe, so the optimizer's state is no longer needed
    return trained


def distill(job: Job) -> tuple[TrialResult, ...]:
    """Run the trials: perturbed networks with the MasterNet's weights, fine-tuned. Returns all results so far."""
    trials = planned_trials(job)
    done = read_results(job.folder.trials)
    missing = [trial for trial in trials if trial.id not in done]
    with job.progress.track("trials", len(trials), len(trials) - len(missing)) as tracker:
        if missing:
            job.folder.read(job.folder.master, Trained)
            masternet = load_weights(job.recipe.space.masternet(job.recipe.search_resolution), job.folder.master_weights)
            work = FineTune(masternet, job.splits, job.recipe.distill, job.recipe.search_resolution, job.device)
            done = run_trials(missing, job.folder.trials, in_process, work, lambda found: tracker.advance(_note(found)))
    return tuple(done[trial.id] for trial in trials)


def planned_trials(job: Job) -> tuple[Trial, ...]:
    """The trials of this run; they depend on the recipe and on the staircases found."""
    staircases = job.folder.read(job.folder.staircase, Staircases)
    resolution = job.recipe.search_resolution
    return plan_trials(job.recipe.space, job.kept_widths(staircases, resolution), resolution, job.recipe.seed)


def _note(result: TrialResult) -> str:
    found = f"failed: {result.failure}" if result.accuracy is None else f"{result.accuracy:.1%}"
    return f"super-block {result.index + 1} as {result.superblock}: {found}"


def fit_trials(job: Job) -> Regression:
    """Fit the pseudo-gradients to the trials in the journal."""
    trained = job.folder.read(job.folder.master, Trained)
    results = read_results(job.folder.trials)
    planned = [results[trial.id] for trial in planned_trials(job) if trial.id in results]
    regression = fit(job.recipe.space.superblocks, trained.nas_accuracy, planned)
    regression.save(job.folder.regression)
    return regression


def select(job: Job) -> Selection:
    """For each budget and resolution the best predicted network whose measured latency is within the budget."""
    if not job.folder.selection.exists():
        fronts = frontiers(job, job.table)
        budgets = _budgets_ms(job, job.table, job.recipe.select.budgets)
        pairs = [(budget, resolution) for budget in budgets for resolution in fronts]
        choices = []
        with job.progress.track("selecting and measuring whole networks", len(pairs)) as tracker:
            for budget, resolution in pairs:
                choices.append(_certified(job, budget, budgets[budget], fronts[resolution]))
                tracker.advance()
        Selection(choices=tuple(choices)).save(job.folder.selection)
    return job.folder.read(job.folder.selection, Selection)


def answer(job: Job, budgets: tuple[Budget, ...]) -> Selection:
    """The best predicted network for other budgets from what is on disk: no device, nothing written."""
    setting = setting_in(job.folder.latency)
    if setting is None:
        raise RunError(
            f"{job.folder.path}: a selection needs measured latencies, and there are none; `genet profile RUN` measures"
        )
    table = LatencyTable(job.folder.latency, setting)
    fronts = frontiers(job, table)
    choices = []
    for budget, ms in _budgets_ms(job, table, budgets).items():
        for front in fronts.values():
            scale = _scale(job, table, front[0].resolution)
            candidate = best_predicted(ms, front, scale)
            measured = table.measured_ms(Network.parse(candidate.network))
            choices.append(_choice(job, budget, ms, candidate, scale, measured))
    return Selection(choices=tuple(choices))


def frontiers(job: Job, table: LatencyTable) -> dict[int, tuple[Candidate, ...]]:
    """The exact frontier of every resolution, from what is on disk."""
    regression = job.folder.read(job.folder.regression, Regression)
    staircases = job.folder.read(job.folder.staircase, Staircases)
    found = {}
    for resolution in job.resolutions:
        widths = job.kept_widths(staircases, resolution)
        found[resolution] = frontier(job.recipe.space, widths, resolution, regression.accuracy, regression.gain, table.ms)
    return found


def _budgets_ms(job: Job, table: LatencyTable, budgets: tuple[Budget, ...]) -> dict[Budget, float]:
    """Budgets in milliseconds per batch."""
    masternet = job.recipe.space.masternet(job.recipe.search_resolution)
    measured = table.measured_ms(masternet)
    if measured is None:
        measured = profile_network(table, masternet, job.device, masternet)
    batch = table.setting.batch
    return {budget: budget_ms(budget, measured / batch) * batch for budget in budgets}


def _scale(job: Job, table: LatencyTable, resolution: int) -> float:
    """Measured over predicted latency of the MasterNet: the first correction of every prediction."""
    masternet = job.recipe.space.masternet(resolution)
    measured = table.measured_ms(masternet)
    return 1.0 if measured is None else measured / table.predict_ms(masternet)


def _certified(job: Job, budget: Budget, ms: float, front: tuple[Candidate, ...]) -> Choice:
    masternet = job.recipe.space.masternet(job.recipe.search_resolution)

    def measure(candidate: Candidate) -> float:
        return profile_network(job.table, Network.parse(candidate.network), job.device, masternet)

    scale = _scale(job, job.table, front[0].resolution)
    candidate, measured = best_within(ms, front, scale, measure, job.recipe.select.candidates)
    return _choice(job, budget, ms, candidate, scale, measured)


def _choice(job: Job, budget: Budget, ms: float, candidate: Candidate, scale: float, measured: float | None) -> Choice:
    batch = job.recipe.measure.batch
    return Choice(
        budget=budget,
        budget_ms_per_image=ms / batch,
        resolution=candidate.resolution,
        network=candidate.network,
        predicted_accuracy=candidate.predicted_accuracy,
        predicted_ms_per_image=candidate.predicted_ms * scale / batch,
        measured_ms_per_image=None if measured is None else measured / batch,
        within=None if measured is None else measured <= ms,
    )


def train_selected(job: Job) -> Outcomes:
    """Train every selected network from scratch; per budget the resolution that is best after training wins."""
    if not job.folder.results.exists():
        selection = job.folder.read(job.folder.selection, Selection)
        masternet = job.folder.read(job.folder.master, Trained)
        trained = {network: _trained(job, network) for network in _selected(job, selection)}
        outcomes = []
        for budget in job.recipe.select.budgets:
            choices = [choice for choice in selection.choices if choice.budget == budget and choice.within]
            if choices:
                outcomes.append(max((_outcome(job, choice, trained) for choice in choices), key=lambda o: o.nas_accuracy))
        masternet_ms = _budgets_ms(job, job.table, ("1x",))["1x"] / job.table.setting.batch
        Outcomes(masternet=masternet, masternet_ms_per_image=masternet_ms, outcomes=tuple(outcomes)).save(job.folder.results)
    return job.folder.read(job.folder.results, Outcomes)


def _selected(job: Job, selection: Selection) -> list[Network]:
    """The networks to train, each once, though two budgets may have chosen the same."""
    notations = dict.fromkeys(choice.network for choice in selection.choices if choice.within)
    return [Network.parse(notation, name=job.recipe.space.name) for notation in notations]


def _trained(job: Job, network: Network) -> Trained:
    folder = job.folder.network(network)
    result = folder / "trained.json"
    if not result.exists():
        write_atomic(folder / "network.yaml", to_yaml(network).encode())
        title = f"training {network_name(network)}"
        _train(job, network, job.recipe.train, folder / "checkpoint", folder / "model.safetensors", title).save(result)
    return job.folder.read(result, Trained)


def _outcome(job: Job, choice: Choice, trained: dict[Network, Trained]) -> Outcome:
    network = Network.parse(choice.network, name=job.recipe.space.name)
    cost, result = network_cost(network), trained[network]
    if choice.measured_ms_per_image is None:
        raise EvidenceError(f"{network}: a selected network must have been measured whole; `genet select RUN` measures it")
    return Outcome(
        budget=choice.budget,
        budget_ms_per_image=choice.budget_ms_per_image,
        name=network_name(network),
        network=choice.network,
        resolution=choice.resolution,
        predicted_accuracy=choice.predicted_accuracy,
        nas_accuracy=result.nas_accuracy,
        test_accuracy=result.test_accuracy,
        predicted_ms_per_image=choice.predicted_ms_per_image,
        measured_ms_per_image=choice.measured_ms_per_image,
        parameters=cost.parameters,
        macs=cost.macs,
        export=str(job.folder.network(network).relative_to(job.folder.path) / "export"),
    )


def export_selected(job: Job) -> tuple[Path, ...]:
    """Export the network of every budget; each export is loaded again and compared before it counts."""
    outcomes = job.folder.read(job.folder.results, Outcomes)
    folders = []
    with job.progress.track("exports, each loaded again and compared", len(outcomes.outcomes)) as tracker:
        for outcome in outcomes.outcomes:
            folder = job.folder.path / outcome.export
            network = Network.parse(outcome.network, name=outcome.name)
            if not folder.exists():
                export(load_weights(network, folder.parent / "model.safetensors"), folder)
            write_atomic(folder.parent / "card.md", card(outcome, outcomes, job.recipe, job.table.setting).encode())
            folders.append(folder)
            tracker.advance(outcome.name)
    return tuple(folders)


def write_report(job: Job) -> Path:
    """One self-contained page about the whole run; what is not there yet is left out."""
    files = job.folder
    setting = setting_in(files.latency)
    if setting is None:
        raise RunError(f"{files.path}: a report needs measurements, and there are none; `genet profile RUN` measures")
    table = LatencyTable(files.latency, setting)
    story = Story(
        recipe=job.recipe,
        setting=setting,
        measurements=len(table),
        staircases=_if_there(files, files.staircase, Staircases),
        masternet=_if_there(files, files.master, Trained),
        trials=tuple(read_results(files.trials).values()),
        regression=_if_there(files, files.regression, Regression),
        fronts=frontiers(job, table) if files.regression.exists() else {},
        selection=_if_there(files, files.selection, Selection),
        outcomes=_if_there(files, files.results, Outcomes),
    )
    write_atomic(files.report, page(story).encode())
    return files.report


def _if_there(files: RunFolder, path: Path, record: type[R]) -> R | None:
    return files.read(path, record) if path.exists() else None
