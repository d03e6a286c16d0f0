"""A group of trials of one super-block, fine-tuned side by side.

All trials of a super-block see the same batches, so one loader feeds the group. If the part before the super-block is frozen it
answers like the MasterNet, whatever follows it: it is computed once per batch for the whole group, and nothing is back-propagated
through it. A trial's result does not depend on who else is in its group.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genet.arch.network import Network
from genet.config.recipe import Distill
from genet.models.build import GENet
from genet.models.inherit import inherit
from genet.storage import digest
from genet.training.accuracy import EVALUATION_BATCH
from genet.training.image_sets import Batch
from genet.training.learner import Learner, computing_on, learning_rate, mixed_precision, on_device, steps_unread
from genet.training.loop import epoch_seed
from genet.training.replay import Replayed
from genet.trials.checkpoint import BEGINNING, CheckpointPlace, TrialCheckpoints
from genet.trials.context import TrialContext
from genet.trials.plan import Trial
from genet.trials.results import Event, FailureKind, ProgressDelta, Seconds, TrialResult, failed, settled

NORM_IMAGES = 2048  # images read to compute the statistics of batch normalisations again
PROGRESS_EVERY_S = 1.0


def trained_parts(child: GENet, trial: Trial, distill: Distill) -> tuple[nn.Module, ...]:
    """Return the parts that the trial trains, by its mode; for a super-block that vanished, its reader."""
    indices, superblocks = (trial.index, *(change.index for change in trial.also)), child.superblocks
    readers = tuple(child.reader(index) for index in indices)
    stages = tuple(superblocks[i] if superblocks[i].blocks else reader for i, reader in zip(indices, readers, strict=True))
    match distill.mode:
        case "whole":
            return (child,)
        case "superblock":
            return stages
        case "local":
            return tuple(dict.fromkeys((*stages, *readers, child.head)))
        case "features":
            return tuple(dict.fromkeys((*stages, *readers)))


class Child:
    """One trial under way."""

    def __init__(self, trial: Trial, context: TrialContext, device: torch.device) -> None:
        child = inherit(context.parent, Network.parse(trial.network), trial.seed, trial.index if trial.fresh else None)
        whole = context.distill.mode == "whole"
        self.trial = trial
        self.rest: nn.Module = child if whole else child.suffix(trial.index)
        self.rest.to(device).to(memory_format=torch.channels_last)
        self.body = _body(child, trial)
        self.learner = Learner(self.rest, context.distill, trained_parts(child, trial, context.distill))
        self.curve: list[float] = []
        self.cools_from: int | None = None  # the epoch in which a settled trial brings its rate down to zero
        self.seconds = dict.fromkeys(Seconds.model_fields, 0.0)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        plain = {"curve": self.curve, "cools_from": self.cools_from, "seconds": self.seconds}
        return {"rest": self.rest.state_dict(), "learner": self.learner.state(), **plain}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.rest.load_state_dict(state["rest"])
        self.learner.restore(state["learner"])
        self.curve, self.cools_from, self.seconds = state["curve"], state["cools_from"], state["seconds"]

    def rate(self, schedule: Distill, batch: int, epoch: float) -> float:
        """Return the schedule's rate; a settled trial's falls to zero within one last epoch."""
        if self.cools_from is None:
            return learning_rate(schedule, batch, epoch)
        return learning_rate(schedule, batch, self.cools_from) * (1 - (epoch - self.cools_from))


def _body(network: GENet, trial: Trial) -> nn.Sequential:
    """Run from the first perturbed super-block to the first block after the last, where the shapes meet the MasterNet's again."""
    return nn.Sequential(*network.superblocks[trial.index : trial.last + 1], network.reader(trial.last))


def _distance(target: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the distance of an answer from the target.

    For activations that is the mean squared difference as a share of the target's variance. A classifier has no batch
    normalisation to keep such steps small, so logits are compared with the target's classes by cross-entropy.
    """
    if target.dim() == 2:
        chances = target.softmax(1)
        return lambda found: nn.functional.cross_entropy(found, chances)
    spread = target.var()
    return lambda found: nn.functional.mse_loss(found, target) / spread


def fine_tune(
    context: TrialContext, trials: Sequence[Trial], device: torch.device, deterministic: bool = True
) -> Iterator[Event]:
    """Run trials of one super-block side by side; yield each result as soon as it is there, and progress in between.

    A loss that is not finite fails its own trial only. Errors of memory or data are the whole group's, and are raised.
    Trials with checkpoints must all be equally advanced.
    """
    group = TrialGroup(context, trials, device, deterministic)
    try:
        yield from group.run()
    finally:
        group.descend.forget()


class TrialGroup:
    """The trials under way, and their common state."""

    def __init__(self, context: TrialContext, trials: Sequence[Trial], device: torch.device, deterministic: bool = True) -> None:
        self.context, self.device, self.size, self.deterministic = context, device, len(trials), deterministic
        self.children = [Child(trial, context, device) for trial in trials]  # trials still under way
        index, distill = trials[0].index, context.distill
        parent = copy.deepcopy(context.parent)  # children inherit from a copy that does not move
        parent.to(device).to(memory_format=torch.channels_last).eval()
        self.prefix: nn.Module = nn.Identity() if distill.mode == "whole" else parent.prefix(index)
        self.targets: dict[int, nn.Module] = {}  # by the last super-block perturbed; empty if labels are learnt
        if distill.mode == "features":
            self.targets = {trial.last: _body(parent, trial) for trial in trials}
        self.loss_of = nn.CrossEntropyLoss(label_smoothing=distill.label_smoothing)
        self.train, self.held_out = context.splits.train.on(device), context.splits.nas_validation.on(device)
        self.batch = min(distill.batch, self.train.size)
        self.steps = max(1, self.train.size // self.batch)  # per epoch
        self.seed = int(digest(f"{context.seed}/{index}")[:12], 16)
        self.checkpoints = TrialCheckpoints(context, device)
        self.start = self.checkpoints.place(trials[0])
        if self.start != BEGINNING:
            for child in self.children:
                child.restore(self.checkpoints.read(child.trial, device))
        self.descend = self._recorded()
        self.unread = 0  # steps whose losses were not read yet
        self.unreported, self.reported_at, self.lap = 0.0, time.monotonic(), time.perf_counter()

    def _recorded(self) -> Replayed:
        """Return a recorded step of the children still under way."""
        return Replayed(self.launch_step, self.device, all(child.learner.recordable for child in self.children))

    def run(self) -> Iterator[Event]:
        """Train epoch by epoch, until every trial has its result."""
        epochs = self.context.distill.epochs
        if self.start != BEGINNING:
            done_before = (self.start.epoch + self.start.step / self.steps) / epochs  # of every trial, by its checkpoint
            yield ProgressDelta(done_before * self.size, earlier=True)
        for epoch in range(self.start.epoch, epochs):
            first = self.start.step if epoch == self.start.epoch else 0
            for step, batch in enumerate(self._batches(epoch, first), start=first):
                yield from self.step(batch, epoch, step)
                yield from self._progress_events(at_least_s=PROGRESS_EVERY_S)
                if self.checkpoints.due:
                    yield from self._close_accounts(epoch, step + 1)
                    self.checkpoints.write(
                        {child.trial: child.state for child in self.children}, CheckpointPlace(epoch, step + 1)
                    )
            for child in self._end_epoch(epoch) if self.children else ():
                self._drop(child)
                self.unreported += 1 - (epoch + 1) / epochs
                found = {"accuracy": child.curve[-1], "curve": tuple(child.curve), "seconds": Seconds(**child.seconds)}
                yield TrialResult(**dict(child.trial), group=self.size, **found)
            yield from self._progress_events()
            if not self.children:
                return

    def training_images(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Return the training images of an epoch, shuffled and augmented alike for all trials of the super-block."""
        return on_device(self.train.batches(self.batch, self.context.resolution, epoch_seed(self.seed, epoch), skip), self.device)

    def _batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """Yield an epoch's batches to train on, as long as there are children to train."""
        batches = self.training_images(epoch, skip)
        while self.children:
            if not self.unread:
                self.lap = time.perf_counter()  # time of the caller between two steps does not count
            batch = next(batches, None)
            self._charge("images", self.children, within=True)
            if batch is None:
                return
            yield batch

    def step(self, batch: Batch, epoch: int, step: int) -> Iterator[Event]:
        """Train all children on one batch, and yield those that failed."""
        distill = self.context.distill
        for child in self.children:
            child.learner.set_rate(child.rate(distill, self.batch, epoch + (step + 0.5) / self.steps))
        with computing_on(self.device, self.deterministic):
            self.descend(*batch)
        self.unread += 1
        if self.unread >= steps_unread(self.device) or step + 1 == self.steps:
            yield from self._close_accounts(epoch, step + 1)

    def launch_step(self, pixels: Tensor, labels: Tensor) -> None:
        """Take one step of every child, on the device alone; it may be recorded."""
        with mixed_precision(self.device), torch.no_grad():
            shared = self.prefix(pixels)
            distances = {last: _distance(body(shared).float()) for last, body in self.targets.items()}
        self._charge("prefix", self.children, within=True)
        for child in self.children:
            with mixed_precision(self.device):
                if self.targets:
                    loss = distances[child.trial.last](child.body(shared).float())
                else:
                    loss = self.loss_of(child.rest(shared), labels)
            child.learner.step(loss)
            self._charge("training", [child], within=True)

    def _close_accounts(self, epoch: int, done: int) -> Iterator[Event]:
        """Read the results of the steps since the last time, `done` of the epoch's in all; yield the children that failed."""
        if not (self.unread and self.children):
            return
        distill, first, whole = self.context.distill, done - self.unread, self.steps * self.context.distill.epochs
        tallies = torch.stack([child.learner.tally() for child in self.children]).tolist()
        self._charge("training", self.children)
        for child, tally in zip(list(self.children), tallies, strict=True):
            account, before = child.learner.account(tally), (epoch * self.steps + first) / whole
            if account.bad is not None:
                yield self._failure(child, "non-finite loss", account.fault(first, epoch), before)
            elif distill.time_limit_s and sum(child.seconds.values()) > distill.time_limit_s:
                yield self._failure(
                    child,
                    "time limit",
                    f"the trial did not end within {distill.time_limit_s:g} s; raise distill.time_limit_s or lower its epochs",
                    before,
                )
            else:
                self.unreported += self.unread / whole
        self.unread = 0

    def _drop(self, child: Child) -> None:
        """Remove a child that has its result."""
        self.children.remove(child)
        self.descend.forget()
        self.descend = self._recorded()

    def _end_epoch(self, epoch: int) -> list[Child]:
        """Measure every child's accuracy after an epoch; return those that have finished, and let settled ones cool down."""
        distill, self.lap = self.context.distill, time.perf_counter()
        last = [child for child in self.children if epoch + 1 == distill.epochs or child.cools_from == epoch]
        if last:
            self._take_statistics(last)
        self._validate()
        for child in self.children:
            if child.cools_from is None and settled(child.curve[distill.warmup_epochs :], distill.patience):
                child.cools_from = epoch + 1
        return last

    def _take_statistics(self, children: Sequence[Child]) -> None:
        """Average the statistics of all batch normalisations with a new input over training images."""
        norms = [part for child in children for part in child.rest.modules() if isinstance(part, nn.BatchNorm2d)]
        usual = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
        with computing_on(self.device, self.deterministic), mixed_precision(self.device), torch.no_grad():
            batches = self.training_images(self.context.distill.epochs)
            for number, (pixels, _) in enumerate(itertools.islice(batches, math.ceil(NORM_IMAGES / self.batch)), start=1):
                for norm in norms:
                    norm.momentum = 1 / number  # a plain average over all batches; None would wait for the GPU in each
                shared = self.prefix(pixels)
                for child in children:
                    child.rest(shared)
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
        self._charge("statistics", children)

    def _validate(self) -> None:
        """Add a point to every child's learning curve."""
        images, children = self.held_out, self.children
        right = torch.zeros(len(children), dtype=torch.long, device=self.device)
        for child in children:
            child.rest.eval()
        with computing_on(self.device, self.deterministic), mixed_precision(self.device), torch.inference_mode():
            for pixels, labels in on_device(images.batches(EVALUATION_BATCH, self.context.resolution), self.device):
                shared = self.prefix(pixels)
                for number, child in enumerate(children):
                    right[number] += (child.rest(shared).argmax(1) == labels).sum()
        for child, count in zip(children, right.tolist(), strict=True):
            child.curve.append(count / images.size)
            child.rest.train()
        self._charge("validation", children)

    def _failure(self, child: Child, kind: FailureKind, message: str, done: float) -> TrialResult:
        self._drop(child)
        self.unreported += 1 - done
        return failed(child.trial, kind, message, self.size, Seconds(**child.seconds))

    def _progress_events(self, at_least_s: float = 0.0) -> Iterator[Event]:
        """Yield the work done since the last report, every now and then."""
        if time.monotonic() - self.reported_at >= at_least_s:
            yield ProgressDelta(self.unreported)
            self.unreported, self.reported_at = 0.0, time.monotonic()

    def _charge(self, kind: str, children: Sequence[Child], within: bool = False) -> None:
        """Charge the seconds since the last call to these children, in equal parts.

        Calls `within` a step count on the processor alone: on a GPU that would mean waiting. There the next call outside charges
        the whole steps.
        """
        if self.device.type == "cuda":
            if within:
                return
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        for child in children:
            child.seconds[kind] += (now - self.lap) / len(children)
        self.lap = now
