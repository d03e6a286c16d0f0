"""Race: the entrants are trained from scratch by successive halving, and per budget the best of all within it wins."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from genet.choose.outcome import Outcomes, Trained, percent
from genet.choose.race import (
    FINALISTS,
    Entrant,
    Entrants,
    Score,
    finalists,
    in_doubt,
    luck_of_trainings,
    outcomes,
    raced,
    short_training,
)
from genet.device import give_back_memory, open_device
from genet.errors import DataError, DeviceError, EvidenceError, NonFiniteLossError
from genet.files import Record, digest, write_atomic, write_checked
from genet.job import Job
from genet.nets.checkpoints import Checkpoints
from genet.nets.data import Splits
from genet.nets.weights import WEIGHTS_FILE, weights_bytes, write_labels
from genet.spec.foreign import read_notation
from genet.spec.reader import to_yaml
from genet.spec.recipe import Schedule
from genet.steps.distill import OpenRunner, finished_trials
from genet.steps.entrants import find_entrants
from genet.steps.learn import lesson_of
from genet.steps.train import Lesson, learn, trained_before
from genet.trials.finetune import told
from genet.trials.results import TRIED_AGAIN, Event, Failure, FailureKind, Stride
from genet.trials.workers import open_runner


class Finished(Record):
    """A training of the race, as its journal keeps it; `id` names all that it depends on. Accuracies are 0 to 1."""

    id: str
    name: str
    network: str
    epochs: int
    repeat: int
    held_out: float | None = None
    test: float | None = None
    seconds: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True)
class Training:
    """A network to be trained, and the file that its checkpoints are named after."""

    name: str
    lesson: Lesson
    checkpoint: Path
    keep: bool  # its weights

    @property
    def id(self) -> str:
        """Names all that its result depends on."""
        return self.lesson.inputs


@dataclass(frozen=True)
class Ended:
    """What comes back from whoever trained: the journal's line, and the weights of a training that keeps them."""

    finished: Finished
    trained: Trained | None = None
    weights: bytes | None = None

    @property
    def id(self) -> str:
        """Names the training."""
        return self.finished.id

    @property
    def failure(self) -> Failure | None:
        """How it failed; None if it did not."""
        return self.finished.failure


@dataclass(frozen=True)
class FullTraining:
    """The work of a runner: networks trained from scratch, one after the other, with every failure told by kind."""

    splits: Splits
    device: str

    silence_s: float | None = None

    def on(self, device: str, share: float = 1.0) -> FullTraining:
        """See `Work`."""
        return dataclasses.replace(self, device=device)

    def failed(self, task: Training, kind: FailureKind, message: str) -> Ended:
        """See `Work`."""
        return Ended(_line(task, failure=Failure(kind=kind, message=message)))

    def __call__(self, tasks: Sequence[Training]) -> Iterator[Event]:
        """Train each network, from its checkpoint if there is one.

        LostDeviceError if the device stops answering: only another process can go on.
        """
        for task in tasks:
            walked = 0.0
            try:
                for event in self._trained(task):
                    walked += event.tasks if isinstance(event, Stride) else 0.0
                    yield event
            except NonFiniteLossError as fault:
                yield self.failed(task, "non-finite loss", str(fault))
            except DeviceError as fault:
                yield self.failed(task, "out of memory", str(fault))
            except DataError as fault:
                yield self.failed(task, "data", str(fault))
            except Exception as fault:
                yield self.failed(task, *told(fault))
            yield Stride(1 - walked)

    def _trained(self, task: Training) -> Iterator[Event]:
        device, began, epochs = open_device(self.device), time.monotonic(), task.lesson.schedule.epochs
        give_back_memory(device)
        learning = learn(task.lesson, self.splits, device, task.checkpoint)
        walked = 0
        while True:
            try:
                epoch, *_ = next(learning)
            except StopIteration as end:
                module, trained = end.value
                break
            yield Stride((epoch - walked) / epochs, earlier=epoch - walked > 1)
            walked = epoch
        line = _line(task, held_out=trained.nas_accuracy, test=trained.test_accuracy, seconds=time.monotonic() - began)
        yield Ended(line, trained, weights_bytes(module) if task.keep else None)


def _line(task: Training, **found: object) -> Finished:
    lesson = task.lesson
    facts = {"network": str(lesson.network), "epochs": lesson.schedule.epochs, "repeat": lesson.repeat}
    return Finished.model_validate({"id": task.id, "name": task.name, **facts, **found})


def race(job: Job, runner: OpenRunner = open_runner) -> Outcomes:
    """Train the entrants, short and then fully, and say who wins each budget; what is trained already is not repeated.

    EvidenceError if no network of a budget can be trained.
    """
    found, masternet = find_entrants(job), job.folder.read(job.folder.master, Trained)
    asked = f"{job.recipe.train.model_dump_json()}/{job.recipe.race.model_dump_json()}/{job.recipe.seed}"
    inputs = digest(f"{found.model_dump_json()}/{masternet.inputs}/{asked}")
    known = job.folder.read_current(job.folder.results, Outcomes, inputs)
    if known:
        return known
    running = _Race(job, found, runner)
    scores = running.run()
    luck = luck_of_trainings(scores.values())
    by_network = {entrant.network: entrant for entrant in found.entrants}
    try:
        winners = outcomes(found.entrants, scores)
    except EvidenceError as fault:
        why = "; ".join(dict.fromkeys(f"{each.name}: {each.failure}" for each in running.failures))
        raise EvidenceError(f"{fault} ({why})") from None
    result = Outcomes(
        inputs=inputs,
        setting=found.setting,
        masternet=masternet,
        masternet_ms_per_image=found.masternet_ms_per_image,
        outcomes=winners,
        unmet=found.unmet,
        raced=tuple(raced(by_network[network], score, luck) for network, score in scores.items()),
        trainings=running.trainings,
    )
    result.save(job.folder.results)
    return result


class _Race:
    """A race under way: what its journal holds, and who runs what it lacks."""

    def __init__(self, job: Job, found: Entrants, runner: OpenRunner) -> None:
        self._job, self._open, self._entrants = job, runner, found.entrants
        self._by_network = {entrant.network: entrant for entrant in found.entrants}
        self._budgets: dict[object, list[Entrant]] = {}
        for entrant in found.entrants:
            self._budgets.setdefault(entrant.budget, []).append(entrant)
        lines = (Finished.model_validate(record) for record in job.folder.race.read().records)
        self._finished = {line.id: line for line in lines}

    def run(self) -> dict[str, Score]:
        """Train by successive halving; returns what every fully trained network reached."""
        schedule, (_, share, most) = self._job.recipe.train, self._job.recipe.race.counts
        crowded = [budget for budget in self._budgets.values() if len({e.network for e in budget}) > FINALISTS]
        short = self._trained("short trainings", [e.network for budget in crowded for e in budget], short_training(schedule))
        reached = {network: line.held_out for network, line in short.items() if line.held_out is not None}
        chosen = [
            network
            for budget in self._budgets.values()
            for network in (finalists(budget, reached, share) if budget in crowded else [e.network for e in budget])
        ]
        full = [self._trained("full trainings", chosen, schedule)]
        for repeat in range(1, most):
            scores = self._scores(full)
            close = [network for budget in self._within() for network in in_doubt(budget, scores)]
            again = [network for network in close if len(scores[network].held_out) == repeat]
            if again:
                full.append(self._trained(f"trainings number {repeat + 1} of those in doubt", again, schedule, repeat))
        return self._scores(full)

    @property
    def failures(self) -> list[Finished]:
        """The trainings that failed."""
        return [line for line in self._finished.values() if line.failure]

    @property
    def trainings(self) -> float:
        """What the MasterNet, the trials and the race have cost, in full trainings, by the time they took."""
        epochs = self._job.recipe.train.epochs
        full = [line.seconds for line in self._finished.values() if line.epochs == epochs and line.seconds]
        spent = sum(line.seconds for line in self._finished.values())
        spent += sum(trial.seconds.total for trial in finished_trials(self._job))
        master = self._job.recipe.master
        began = master.epochs / epochs if isinstance(master, Schedule) else 0.0
        return began + spent / fmean(full) if full else began

    def _within(self) -> Iterator[list[Entrant]]:
        """Yield for every budget all entrants within it, whichever budget they are scaled to."""
        for budget in self._budgets.values():
            yield [entrant for entrant in self._entrants if entrant.within(budget[0].budget_ms_per_image)]

    def _scores(self, full: Sequence[Mapping[str, Finished]]) -> dict[str, Score]:
        splits, scores = self._job.splits, {}
        for network in full[0]:
            lines = [trained[network] for trained in full if network in trained]
            held_out = tuple(line.held_out for line in lines if line.held_out is not None)
            test = tuple(line.test for line in lines if line.test is not None)
            if held_out:
                sizes = {"held_out_images": splits.nas_validation.size, "test_images": splits.test.size}
                scores[network] = Score(held_out=held_out, test=test, **sizes)
        return scores

    def _trained(self, title: str, networks: Sequence[str], schedule: Schedule, repeat: int = 0) -> dict[str, Finished]:
        """Return the lines of some networks' trainings; what the journal lacks is run, and a failure is said."""
        tasks = [self._training(network, schedule, repeat) for network in dict.fromkeys(networks)]
        missing = [task for task in tasks if not self._known(task)]
        if missing:
            self._run(title, len(tasks), missing)
        lines = {str(task.lesson.network): self._finished[task.id] for task in tasks}
        for line in lines.values():
            if line.failure:
                self._job.progress.say(f"  {line.name}: out of the race, {line.failure}")
        return lines

    def _training(self, network: str, schedule: Schedule, repeat: int) -> Training:
        entrant = self._by_network[network]
        name = entrant.design or self._job.recipe.space.name
        lesson = lesson_of(self._job, read_notation(network, name), schedule, repeat)
        checkpoint = self._job.folder.race_under_way.absolute() / f"{entrant.name}.{lesson.inputs[:8]}.checkpoint"
        return Training(entrant.name, lesson, checkpoint, keep=schedule == self._job.recipe.train and repeat == 0)

    def _known(self, task: Training) -> bool:
        """Return whether a training is finished; one that keeps its weights may have been run by `genet train`."""
        line = self._finished.get(task.id)
        if not task.keep:
            return line is not None and (line.failure is None or line.failure.kind not in TRIED_AGAIN)
        known = trained_before(task.lesson, self._job.folder.network(task.lesson.network) / "model.json")
        if known and (line is None or line.failure):
            self._finished[task.id] = _line(task, held_out=known.nas_accuracy, test=known.test_accuracy)
        return known is not None or bool(line and line.failure and line.failure.kind not in TRIED_AGAIN)

    def _run(self, title: str, total: int, missing: Sequence[Training]) -> None:
        job = self._job
        opened = self._open(job.recipe.measure.device if job.recipe.measure.here else "auto")
        work = FullTraining(job.splits.seen_as(missing[0].lesson.view()), str(job.device))
        with (
            job.progress.track(title, total, total - len(missing)) as tracker,
            closing(opened([(task,) for task in missing], work)) as events,
        ):
            by_id = {task.id: task for task in missing}
            for event in events:
                if isinstance(event, Stride):
                    tracker.walk(event.tasks, event.earlier)
                elif isinstance(event, Ended):
                    self._keep(by_id[event.id], event)
                    line = event.finished
                    tracker.arrive(f"{line.name} {percent(line.held_out) if line.held_out is not None else 'failed'}")

    def _keep(self, task: Training, ended: Ended) -> None:
        """Write what a training left: first the weights, then the line that says that they are there."""
        if ended.weights is not None and ended.trained is not None:
            folder = self._job.folder.network(task.lesson.network)
            write_atomic(folder / "network.yaml", to_yaml(task.lesson.network).encode())
            write_labels(folder, self._job.splits.labels)
            write_checked(folder / WEIGHTS_FILE, ended.weights)
            ended.trained.save(folder / "model.json")
        self._job.folder.race.append(ended.finished.model_dump(mode="json"))
        self._finished[task.id] = ended.finished
        if ended.failure is None:
            Checkpoints(task.checkpoint).remove()
