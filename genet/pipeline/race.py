"""Race: entrants are certified, joint trials add better ones, successive halving trains all; per budget the best one wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from genet.config.budget import Budget
from genet.errors import EvidenceError
from genet.pipeline.context import RunContext
from genet.pipeline.distill import OpenRunner, finished_trials
from genet.pipeline.entrants import find_entrants
from genet.pipeline.joint_trials import ENTRANTS, run_joint_trials
from genet.pipeline.master import master_cost, parent_of
from genet.pipeline.search_state import run_table
from genet.pipeline.trainings import FinishedTraining, Trainings
from genet.search.certificate import Selection
from genet.search.known_designs import designs_of
from genet.search.outcome import (
    MASTER,
    RACE,
    TOURNAMENT,
    TRIALS,
    Outcome,
    Outcomes,
    RacedNetwork,
    TournamentWinner,
    TrainedNetwork,
)
from genet.search.race import FINALISTS, Entrant, finalists, in_doubt, outcomes, raced_networks
from genet.search.scores import Score
from genet.storage import digest
from genet.trials.runners.opening import open_runner

UNRACED = {"joint", "promoted_inputs", "not_within"}  # of the entrants' fields: no training depends on them


def run_race(job: RunContext, runner: OpenRunner = open_runner) -> Outcomes:
    """Find the entrants, add the best joint trials, train all shortly and the best fully, and name each budget's winner.

    Joint trials belong to the race: they are its short trainings, and learn from those of the entrants. Finished trainings
    are not repeated; those that failed because of the machine or the images are.

    EvidenceError if no network of any budget can be trained; the results are written first.
    """
    masternet, _ = job.folder.read(job.folder.master, TrainedNetwork), job.splits  # the images must not have changed
    found = find_entrants(job)
    trainings = Trainings(job, runner, {each.network: each.design for each in found.entrants if each.design}, parent_of(job))
    found = run_joint_trials(job, found, trainings.train_shortly, trainings.trained_shortly)
    entrants = found.racing
    scores = _trained(job, trainings, entrants)
    winners = tuple(
        each.model_copy(update={"unrivalled": why_unrivalled(job, entrants, each)}) for each in outcomes(entrants, scores)
    )
    cost, met, raced = _cost(job, trainings), {winner.budget for winner in winners}, raced_networks(entrants, scores)
    training_ids = "/".join(sorted(task.id for task in trainings.tasks))
    result = Outcomes(
        inputs=digest(f"{found.model_dump_json(exclude=UNRACED)}/{masternet.inputs}/{training_ids}"),
        setting=found.setting,
        masternet=masternet,
        masternet_ms_per_image=found.masternet_ms_per_image,
        won=_won(job),
        outcomes=winners,
        unmet=found.unmet,
        untrained=tuple(dict.fromkeys(each.budget for each in entrants if each.budget not in met)),
        raced=raced,
        failed=trainings.failures | {name: f"not timed: {why}" for name, why in found.untimed.items()},
        tried_again=trainings.tried_again,
        trainings=sum(cost.values()),
        cost=cost,
        spread=_widest_spread(job, entrants),
        not_within=found.not_within,
        unlearnt=_unlearnt(job, raced),
        outraced=_outraced(trainings, entrants, scores),
    )
    if result != job.folder.read_current(job.folder.results, Outcomes, result.inputs):
        result.save(job.folder.results)
    if entrants and not winners:
        why = "; ".join(f"{name}: {failure}" for name, failure in trainings.failures.items())
        raise EvidenceError(f"the race failed: got no network that could be trained, expected at least one ({why})")
    job.folder.delete_race_checkpoints()
    return result


def _widest_spread(job: RunContext, entrants: Sequence[Entrant]) -> float:
    """Return the widest spread of the entrants' timings, 0 for latencies that are evidence from elsewhere."""
    networks = {entrant.network for entrant in entrants if entrant.ms_per_image is not None}
    return run_table(job).widest_spread(networks) if networks else 0.0


def why_unrivalled(job: RunContext, entrants: Sequence[Entrant], winner: Outcome) -> str:
    """Return why no network of the other kind stands beside a winner; empty if one does."""
    if (winner.known if winner.searched else winner.best_searched) is not None:
        return ""
    if winner.searched and (job.recipe.measure.latency_file or not designs_of(job.recipe)):
        return "no known design raced"
    kind = "known design" if winner.searched else "network of the search"
    if any((each.design is not None) == winner.searched and winner.budget == each.budget for each in entrants):
        return f"every training of a {kind} within the budget failed"
    undecided = not winner.searched and winner.budget in job.folder.read(job.folder.selection, Selection).undecided
    noise = ": timings spread too much to tell whether one is" if undecided else ""
    return f"no {kind} was certified to be within the budget{noise}"


def _unlearnt(job: RunContext, raced: Sequence[RacedNetwork]) -> dict[str, str]:
    """Return why networks seem to have learnt nothing, by their names, for those whose kept weights do."""
    kept = {row.name: TrainedNetwork.load((job.folder.path / row.export).with_name("model.json")) for row in raced}
    found = {name: trained.why_at_chance(job.recipe.space.input.classes) for name, trained in kept.items()}
    return {name: why for name, why in found.items() if why}


def _outraced(trainings: Trainings, entrants: Sequence[Entrant], scores: Mapping[str, Score]) -> dict[str, float]:
    """Return what the short trainings reached of entrants that no full one followed, by their names, the best first."""
    names = {each.network: each.name for each in entrants if each.network not in scores and each.name not in trainings.failures}
    lines = trainings.lines(task.id for task in trainings.tasks)
    reached = {names[line.network]: line.held_out for line in lines if line.network in names and line.held_out is not None}
    return dict(sorted(reached.items(), key=lambda each: -each[1]))


def _won(job: RunContext) -> TournamentWinner | None:
    """Return the winner of the tournament with its latency in the run's setting, as far as it was measured in it."""
    won = job.tournament.won if job.tournament else None
    if won is None:
        return None
    table = run_table(job)
    row = table.network_row(job.masternet)
    if row is None:
        return won
    ms = row.ratio * table.masternet_ms(job.reference) / table.setting.batch
    return won.model_copy(update={"ms_per_image": ms})


def _trained(job: RunContext, trainings: Trainings, entrants: Sequence[Entrant]) -> dict[str, Score]:
    """Train by successive halving; returns what every fully trained network reached."""
    schedule, (_, share, most) = job.recipe.train, job.recipe.race.counts
    budgets: dict[Budget, list[Entrant]] = {}
    for entrant in entrants:
        budgets.setdefault(entrant.budget, []).append(entrant)
    trainings.name({entrant.network: entrant.name for entrant in entrants})
    crowded = {budget for budget, own in budgets.items() if len({e.network for e in own}) > FINALISTS}
    names = {each.network: each.name for budget in crowded for each in budgets[budget]}
    short_accuracies = trainings.train_shortly(names, ENTRANTS)
    full: dict[tuple[str, int], FinishedTraining] = {}
    while True:  # the next best takes the place of a finalist that cannot be trained
        gone = {network for (network, _), line in full.items() if line.held_out is None}
        left = {network: accuracy for network, accuracy in short_accuracies.items() if network not in gone}
        chosen = [
            (network, 0)
            for budget, own in budgets.items()
            for network in (finalists(own, left, share) if budget in crowded else [e.network for e in own])
        ]
        if full.keys() >= set(chosen):
            break
        full |= trainings.train("full trainings", chosen, schedule)
    while True:  # a mean that has fallen may leave others in doubt
        scores = _scores(full)
        within = {budget: [entrant for entrant in entrants if budget in entrant.within] for budget in budgets}
        doubtful = {network for own in within.values() for network in in_doubt(own, scores)}
        tried = Counter(network for network, _ in full)
        again = [(network, tried[network]) for network in sorted(doubtful) if tried[network] < most]
        if not again:
            return scores
        full |= trainings.train("another training of those in doubt", again, schedule)


def _cost(job: RunContext, trainings: Trainings) -> dict[str, float]:
    """Return what each part of the search cost, in full trainings: by epochs, and single trials by the time that they took.

    A training that the race takes over from the tournament counts there alone.
    """
    epochs = job.recipe.train.epochs
    earlier = job.tournament.trainings if job.tournament else frozenset()
    held, raced = trainings.lines(earlier), trainings.lines({task.id for task in trainings.tasks} - earlier)
    full_s = [line.seconds for line in held + raced if line.epochs == epochs and line.seconds]
    trials_s = sum(trial.seconds.total for trial in finished_trials(job))
    cost = {
        TOURNAMENT: sum(line.epochs for line in held) / epochs,
        MASTER: master_cost(job.recipe),
        TRIALS: trials_s / fmean(full_s) if full_s else 0.0,
        RACE: sum(line.epochs for line in raced) / epochs,
    }
    return {part: spent for part, spent in cost.items() if spent}


def _scores(full: Mapping[tuple[str, int], FinishedTraining]) -> dict[str, Score]:
    """Return what the trainings of every network reached that has one."""
    by_network: dict[str, list[FinishedTraining]] = {}
    for (network, _), line in full.items():
        if line.held_out is not None:
            by_network.setdefault(network, []).append(line)
    return {
        network: Score(
            held_out=tuple(line.held_out for line in lines if line.held_out is not None),
            test=tuple(line.test for line in lines if line.test is not None),
            held_out_images=lines[0].held_out_images,
            test_images=lines[0].test_images,
            parts=tuple(line.part for line in lines),
            right=tuple(line.right for line in lines),
            inherited=lines[0].inherited,
        )
        for network, lines in by_network.items()
    }
