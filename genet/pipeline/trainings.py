"""Whole networks trained, each once: a journal tells which are finished, and a runner trains the others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from genet.arch.external import read_notation
from genet.config.reader import to_yaml
from genet.config.recipe import Schedule
from genet.device import give_back_memory, open_device
from genet.errors import DeviceError, EvidenceError, LostDeviceError, NoKernelError, NonFiniteLossError
from genet.models.build import GENet
from genet.models.weights import WEIGHTS_FILE, weights_bytes, write_labels
from genet.pipeline.context import RunContext
from genet.pipeline.distill import OpenRunner
from genet.pipeline.master import Parent, training_spec
from genet.pipeline.train import TrainingSpec, save_trained, train_by_epochs, trained_before
from genet.search.outcome import TrainedNetwork, percent
from genet.search.race import short_training
from genet.search.scores import packed_answers
from genet.storage import Journal, Record, write_atomic, write_checked
from genet.training.checkpoints import Checkpoints
from genet.training.log import NO_LOG, Log
from genet.training.loop import Execution
from genet.training.splits import Splits
from genet.trials.results import TRIED_AGAIN, Event, Failure, FailureKind, ProgressDelta
from genet.trials.work import classify_failure

PASSING = (*TRIED_AGAIN, "out of memory")  # failures that the next command tries again: a device that others fill may have room


class FinishedTraining(Record):
    """A training of a whole network, as the journal keeps it; `id` names all that it depends on. Accuracies are 0 to 1."""

    id: str
    name: str
    network: str
    epochs: int
    repeat: int
    held_out: float | None = None
    held_out_images: int = 0
    part: int = 0  # of the training images, which was held out
    right: str = ""  # which of the images held out it classifies correctly, packed
    test: float | None = None
    test_images: int = 0
    seconds: float = 0.0  # of all its epochs, by the pace of those that the last process ran; 0 if it ran none
    failure: Failure | None = None
    inherited: bool = False  # it began with the MasterNet's weights


@dataclass(frozen=True)
class TrainingTask:
    """A network to be trained, and the file that its checkpoints are named after."""

    name: str
    spec: TrainingSpec
    checkpoint: Path
    keep: bool  # its weights

    @property
    def id(self) -> str:
        """Return a digest of everything that its result depends on."""
        return self.spec.inputs

    @property
    def logged_as(self) -> str:
        """Its name in a log: the network's own for the training that keeps its weights."""
        repeat = f"-{self.spec.repeat}" if self.spec.repeat else ""
        return self.checkpoint.parent.name if self.keep else f"{self.name}-{self.spec.schedule.epochs}-epochs{repeat}"


@dataclass(frozen=True)
class TrainingResult:
    """What comes back from whoever trained: the journal's line, and the weights of a training that keeps them."""

    finished: FinishedTraining
    trained: TrainedNetwork | None = None
    weights: bytes | None = None

    @property
    def id(self) -> str:
        """Names the training."""
        return self.finished.id

    @property
    def failure(self) -> Failure | None:
        """Return how it failed; None if it did not."""
        return self.finished.failure


@dataclass(frozen=True)
class TrainingWork:
    """The work of a runner: networks trained one after the other, with every failure told by kind.

    Some inherit the weights of the `parent`, others begin with new ones.
    """

    splits: Splits
    device: str
    parent: GENet | None = None
    log: Log = NO_LOG
    silence_s: float | None = None

    def on(self, device: str, share: float = 1.0) -> TrainingWork:
        """See `Work`."""
        return dataclasses.replace(self, device=device)

    def failed(self, task: TrainingTask, kind: FailureKind, message: str) -> TrainingResult:
        """See `Work`."""
        return TrainingResult(_line(task, failure=Failure(kind=kind, message=message)))

    def __call__(self, tasks: Sequence[TrainingTask]) -> Iterator[Event]:
        """Train each network, from its checkpoint if there is one.

        LostDeviceError if the device stops answering: only another process can go on.
        """
        device = open_device(self.device)
        for task in tasks:
            done = 0.0
            try:
                for event in self._trained(task, device):
                    done += event.tasks if isinstance(event, ProgressDelta) else 0.0
                    yield event
            except LostDeviceError:
                raise
            except NonFiniteLossError as fault:
                yield self.failed(task, "non-finite loss", str(fault))
            except NoKernelError as fault:
                yield self.failed(task, "no kernels", str(fault))
            except DeviceError as fault:
                yield self.failed(task, "out of memory", str(fault))
            except Exception as fault:
                yield self.failed(task, *classify_failure(fault))
            yield ProgressDelta(1 - done)

    def _trained(self, task: TrainingTask, device: torch.device) -> Iterator[Event]:
        began, epochs = time.monotonic(), task.spec.schedule.epochs
        give_back_memory(device)
        execution = Execution(device, task.checkpoint, log=self.log.under(task.logged_as))
        learning = train_by_epochs(task.spec, self.splits, execution, self.parent)
        done = here = 0
        while True:
            try:
                epoch, *_ = next(learning)
            except StopIteration as end:
                module, trained, answers = end.value
                break
            yield ProgressDelta((epoch - done) / epochs, earlier=epoch - done > 1)
            done, here = epoch, here + 1
        seconds = (time.monotonic() - began) * epochs / here if here else 0.0
        line = _reached(task, trained, self.splits.test.size).model_copy(
            update={"seconds": seconds, "right": packed_answers(answers.numpy(force=True))}
        )
        yield TrainingResult(line, trained, weights_bytes(module) if task.keep else None)


def _line(task: TrainingTask, **found: object) -> FinishedTraining:
    spec = task.spec
    facts = {"network": str(spec.network), "epochs": spec.schedule.epochs, "repeat": spec.repeat}
    facts |= {"inherited": bool(spec.inherits), "part": spec.part}
    return FinishedTraining.model_validate({"id": task.id, "name": task.name, **facts, **found})


def _reached(task: TrainingTask, trained: TrainedNetwork, test_images: int) -> FinishedTraining:
    held_out = {"held_out": trained.nas_accuracy, "held_out_images": trained.nas_images}
    return _line(task, **held_out, test=trained.test_accuracy, test_images=test_images)


class Trainings:
    """Trainings of a run's networks: what the journal holds, and who runs what it lacks.

    `designs` are the known designs that networks are scaled from, by notation; they name what is written of them. Networks that
    may inherit the `parent`'s weights begin with them.
    """

    def __init__(self, job: RunContext, runner: OpenRunner, designs: Mapping[str, str], parent: Parent | None = None) -> None:
        self._job, self._open, self._designs, self._parent = job, runner, designs, parent
        self._names: dict[str, str] = {}
        self._tried: set[str] = set()  # by this process: what failed is tried again by the next command
        self._finished = read_finished(job.folder.race)
        self.tasks: dict[TrainingTask, None] = {}  # needed so far

    def name(self, names: Mapping[str, str]) -> None:
        """Give networks names, by notation, before they are trained."""
        self._names |= names

    def train_shortly(self, names: Mapping[str, str], title: str) -> dict[str, float]:
        """Return the held-out accuracies of short trainings of named networks, by notation; one that failed has none."""
        self.name(names)
        short = self.train(title, [(network, 0) for network in names], short_training(self._job.recipe.train))
        return {network: line.held_out for (network, _), line in short.items() if line.held_out is not None}

    def trained_shortly(self, names: Mapping[str, str]) -> set[str]:
        """Return those of some named networks whose short training is over; none is run."""
        self.name(names)
        schedule = short_training(self._job.recipe.train)
        return {network for network in names if self._known(self.task(network, schedule))}

    def train(self, title: str, wanted: Sequence[tuple[str, int]], schedule: Schedule) -> dict[tuple[str, int], FinishedTraining]:
        """Return the lines of trainings, by network and repeat; run those that the journal lacks, and report failures."""
        tasks = {each: self.task(each[0], schedule, each[1]) for each in dict.fromkeys(wanted)}
        self.tasks |= dict.fromkeys(tasks.values())
        missing = [task for task in tasks.values() if not self._known(task)]
        self._tried |= {task.id for task in missing}
        if missing:
            self._run(title, len(tasks), missing)
        for task in missing:
            line = self._finished[task.id]
            if line.failure:
                self._job.progress.say(f"  {line.name} failed to train and is left out: {line.failure}")
        return {each: self._finished[task.id] for each, task in tasks.items()}

    def task(self, network: str, schedule: Schedule, repeat: int = 0) -> TrainingTask:
        """Return the training of a named network. Each repeat holds out other images, unless inherited weights have seen them."""
        name = self._names[network]
        model = read_notation(network, self._designs.get(network, self._job.recipe.space.name))
        spec = training_spec(self._job, model, schedule, repeat, self._parent)
        if not spec.inherits and spec.inputs not in self._finished:  # an earlier version held out the same images in repeats
            spec = dataclasses.replace(spec, part=repeat % self._job.splits.parts)
        keep = schedule == self._job.recipe.train and repeat == 0
        folder = self._job.folder.network(spec.network) if keep else self._job.folder.race_under_way
        stem = "model" if keep else name  # as `genet train` calls it
        return TrainingTask(name, spec, folder.absolute() / f"{stem}.{spec.inputs[:8]}.checkpoint", keep)

    def lines(self, ids: Iterable[str]) -> list[FinishedTraining]:
        """Return the finished ones of some trainings."""
        return [self._finished[id] for id in ids if id in self._finished]

    @property
    def failures(self) -> dict[str, str]:
        """Return why networks could not be trained, by their names."""
        return {line.name: str(line.failure) for line in self.lines(task.id for task in self.tasks) if line.failure}

    @property
    def tried_again(self) -> tuple[str, ...]:
        """Return the names of networks whose failures the next command tries again."""
        lines = self.lines(task.id for task in self.tasks)
        return tuple(line.name for line in lines if line.failure and line.failure.kind in PASSING)

    def _known(self, task: TrainingTask) -> bool:
        """Return whether a training is finished; one that keeps its weights may have been run by `genet train`."""
        line = self._finished.get(task.id)
        if task.id in self._tried:
            return True
        if not task.keep:
            return line is not None and (line.failure is None or line.failure.kind not in PASSING)
        known = trained_before(task.spec, self._job.folder.network(task.spec.network) / "model.json")
        if known and (line is None or line.failure):
            self._finished[task.id] = _reached(task, known, self._job.splits.test.size)
        return known is not None or bool(line and line.failure and line.failure.kind not in PASSING)

    def _run(self, title: str, total: int, missing: Sequence[TrainingTask]) -> None:
        job = self._job
        opened = self._open(job.recipe.measure.device if job.recipe.measure.here else "auto")
        parent = self._parent.module if self._parent else None
        work = TrainingWork(job.splits.with_view(missing[0].spec.view()), str(job.device), parent, job.log)
        with (
            job.progress.track(title, total, total - len(missing)) as tracker,
            closing(opened([(task,) for task in missing], work)) as events,
        ):
            by_id = {task.id: task for task in missing}
            for event in events:
                if isinstance(event, ProgressDelta):
                    tracker.advance_by(event.tasks, event.earlier)
                elif isinstance(event, TrainingResult):
                    self._keep(by_id[event.id], event)
                    line = event.finished
                    tracker.complete(f"{line.name} {percent(line.held_out) if line.held_out is not None else 'failed'}")

    def _keep(self, task: TrainingTask, ended: TrainingResult) -> None:
        """Write what a training left: first the weights, then the line that says that they are there."""
        if ended.weights is not None and ended.trained is not None:
            folder = self._job.folder.network(task.spec.network)
            write_atomic(folder / "network.yaml", to_yaml(task.spec.network).encode())
            write_labels(folder, self._job.splits.labels)
            write_checked(folder / WEIGHTS_FILE, ended.weights)
            save_trained(ended.trained, folder / "model.json")
        self._job.folder.race.append(ended.finished.model_dump(mode="json"))
        self._finished[task.id] = ended.finished
        if ended.failure is None:
            Checkpoints(task.checkpoint).remove()


def read_finished(journal: Journal) -> dict[str, FinishedTraining]:
    """Read the journal, the latest line of every training; a damaged line counts as a training not run."""
    found = {}
    for record in journal.read().records:
        try:
            line = FinishedTraining.model_validate(record)
        except ValidationError:
            raise EvidenceError(
                f"reading {journal.path} failed: got {record!r:.80}, expected a training; move the file away to train anew"
            ) from None
        found[line.id] = line
    return found
