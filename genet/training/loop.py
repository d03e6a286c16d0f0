"""Training of networks: the loop behind the MasterNet and the final networks.

A run's result depends on its seed alone: batches come from (seed, epoch), so a run that continues from its last checkpoint
ends where an undisturbed one ends, bit for bit on the same machine.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Never, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from genet.config.recipe import Schedule, Training
from genet.device import device_fault, give_back_memory
from genet.errors import DataError, DeviceError, LostDeviceError, NoKernelError, NonFiniteLossError, RunError, first_line
from genet.models.external import structure_of
from genet.progress import SILENT, Progress
from genet.signals import GracefulShutdown, Terminated
from genet.storage import digest
from genet.training.checkpoints import BAD_BATCH, PREEMPTED, BadBatch, Checkpoints, Preempted
from genet.training.distributed import SINGLE_PROCESS, ProcessGroup
from genet.training.image_sets import CPU, ImageSet, TensorImages
from genet.training.learner import Learner, computing_on, learning_rate, mixed_precision, on_device, steps_unread
from genet.training.log import NO_LOG, Log
from genet.training.replay import CALLS_BEFORE, Replayed

CHECKPOINT_S = 600.0  # seconds between checkpoints in a long epoch; there is one at the end of every epoch too
PLACE = ("epoch", "step", "total", "right", "loss")  # the fields of a loop in a checkpoint besides its tensors
T = TypeVar("T")
Epoch = tuple[int, float, float]  # its number, from 1; its mean loss and accuracy, on its training images
EpochDone = Callable[[int, float, float], None]


@dataclass(frozen=True)
class TrainingInputs:
    """Everything besides the module that the result of a training depends on."""

    images: ImageSet
    schedule: Schedule
    resolution: int
    seed: int  # of the images' order and augmentation
    teacher: nn.Module | None = None

    @property
    def training(self) -> Training:
        """The schedule with the choices of a final training, which are off in a plain one."""
        return Training.model_validate(self.schedule.model_dump())


@dataclass(frozen=True)
class Execution:
    """Where a training runs, keeps its checkpoint and reports: its result does not depend on it."""

    device: torch.device = CPU
    checkpoint: Path | None = None
    world: ProcessGroup = SINGLE_PROCESS
    progress: Progress = SILENT
    log: Log = NO_LOG


def train(
    module: nn.Module, inputs: TrainingInputs, execution: Execution = Execution(), epoch_done: EpochDone | None = None
) -> float:
    """Train `module` in place, from its checkpoint if there is one; with averaged weights (EMA) it ends with these.

    Returns the mean training loss of the last epoch. NonFiniteLossError stops before the step that would spoil the weights,
    with the batch's facts beside the checkpoint; DeviceError if a batch does not fit, NoKernelError if no library can do
    its work, LostDeviceError if the device stops answering. When asked to end (SIGTERM, Ctrl-C), it saves first.
    """
    return finished(training_stages(module, inputs, execution), epoch_done)[-1][1]


def finished(stages: Generator[Epoch, None, T], epoch_done: EpochDone | None = None) -> T:
    """Run a training that yields its epochs to its end; return its result."""
    while True:
        try:
            done = next(stages)
        except StopIteration as end:
            return cast("T", end.value)
        if epoch_done:
            epoch_done(*done)


def training_stages(module: nn.Module, inputs: TrainingInputs, execution: Execution) -> Generator[Epoch, None, tuple[Epoch, ...]]:
    """Train like `train`, for a caller with work between epochs: yield the arguments of `EpochDone`, return all epochs."""
    device = execution.device
    module.to(device).to(memory_format=torch.channels_last).train()
    untrained = {name: value.clone() for name, value in module.state_dict().items()} if device.type == "cuda" else {}

    def run(deterministic: bool) -> Generator[Epoch, None, tuple[Epoch, ...]]:
        with computing_on(device, deterministic), GracefulShutdown() as ending:
            epochs = yield from TrainingLoop(module, inputs, execution, ending).run()
        module.eval()
        return epochs

    for deterministic in (True, False):
        try:
            return (yield from run(deterministic))
        except RuntimeError as fault:
            kind, message = device_fault(fault), first_line(fault)
            if kind is None:
                raise
        # By now the fault is gone, and with it the device memory that its frames held.
        if kind == "out of memory":
            raise DeviceError(_too_large(module, inputs, execution))
        if kind == "device lost":
            raise LostDeviceError(f"the device stopped answering ({message}); the same command resumes from the last checkpoint")
        execution.progress.say(
            "  this GPU lacks deterministic kernels for it: an interrupted run will end close to, not at, the same weights"
        )
        module.load_state_dict(untrained)  # the step that failed has changed statistics
    raise NoKernelError(f"training failed on {device}: {message}; another batch or resolution may have kernels")


def _too_large(module: nn.Module, inputs: TrainingInputs, execution: Execution) -> str:
    """Return an error with the largest batch that fits, found by a few steps, once the failed step's memory is freed."""
    device, world, training, resolution = execution.device, execution.world, inputs.training, inputs.resolution
    shape = next(inputs.images.on(device).batches(2 * world.size, resolution))[0].shape[1:]

    def fits(batch: int) -> bool:
        give_back_memory(device)
        blank = TensorImages(torch.zeros(batch, *shape), torch.zeros(batch, dtype=torch.long))
        brief = training.model_copy(update={"batch": batch, "epochs": CALLS_BEFORE + 2, "warmup_epochs": 0})
        try:
            with computing_on(device), GracefulShutdown() as ending:
                some = dataclasses.replace(inputs, images=blank, schedule=brief, seed=0)
                finished(TrainingLoop(module, some, Execution(device), ending).run())
        except RuntimeError as fault:
            if device_fault(fault) != "out of memory":
                raise
            return False
        return True

    each = largest_fitting(fits, 2 * training.grad_accum_steps, min(training.batch, inputs.images.size) // world.size)
    fitting = each and each * world.size
    remedy = f"batch {fitting} does; lower the schedule's batch" if fitting else "none does; lower the resolution"
    return (
        f"training at {resolution} pixels: got batch {training.batch}, expected one that fits into memory; {remedy}, "
        "or raise train.grad_accum_steps"
    )


def largest_fitting(fits: Callable[[int], bool], step: int, above: int) -> int | None:
    """Return the largest multiple of `step` below `above` that fits, or one close to it; None if there is none."""
    low, high = 0, -(-above // step)  # in steps; `high` is known not to fit
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * step) else (low, middle)
    return low * step or None


class TrainingLoop:
    """A training under way."""

    def __init__(self, module: nn.Module, inputs: TrainingInputs, execution: Execution, ending: GracefulShutdown) -> None:
        device, world, training = execution.device, execution.world, inputs.training
        images = inputs.images.on(device)
        self.module, self.device, self.world, self.ending = module, device, world, ending
        self.images, self.training, self.resolution, self.seed = images, training, inputs.resolution, inputs.seed
        self.say = execution.progress.say
        self.batch = min(training.batch, images.size)
        even = 2 * world.size * training.grad_accum_steps if training.mixup or world.size > 1 else training.grad_accum_steps
        self.batch -= self.batch % even if self.batch < training.batch else 0
        if self.batch % even or not self.batch:
            raise DataError(
                f"a batch must divide into {world.size} processes x {training.grad_accum_steps} parts of it, in pairs if images "
                f"are mixed (got {self.batch} of {images.size} images); change the schedule's batch"
            )
        self.steps = max(1, images.size // self.batch)  # per epoch
        self.joined = world.joined(module)
        self.learner = Learner(module, training, clip=training.clip_grad_norm)
        self.averaged = _averaged(module, training.ema)
        teacher = inputs.teacher and inputs.teacher.to(device).to(memory_format=torch.channels_last).eval()
        self.loss_of = _Loss(training, module, teacher)
        self.descend = Replayed(self.launch_step, device, recorded=self.learner.recordable and world.size == 1)
        self.checkpoints = Checkpoints(execution.checkpoint) if execution.checkpoint else None
        self.epoch, self.step, self.total, self.right = 0, 0, 0.0, 0.0  # whole epochs, steps of the next, its sums up to `read`
        self.read = 0  # steps of this epoch whose losses and right answers are in the sums
        self.answered = torch.zeros((), device=device)  # right answers since
        self.loss = math.nan  # of the last whole epoch
        self.epochs: list[Epoch] = []  # the whole ones
        self.saved = time.monotonic()

    def run(self) -> Generator[Epoch, None, tuple[Epoch, ...]]:
        """Train from the current state to the end, and release the recorded graph; yield every epoch, return all of them."""
        try:
            return (yield from self._run())
        finally:
            self.descend.forget()

    def _run(self) -> Generator[Epoch, None, tuple[Epoch, ...]]:
        state = self.checkpoints.read() if self.checkpoints else None
        if state:
            self.restore(state)
        if self.checkpoints and self.world.first:
            damaged = " and ".join(file.name for file in self.checkpoints.damaged)
            if damaged:
                self.say(f"  {damaged}: damaged and left out")
            if state or damaged:
                self.say(
                    f"  resuming after {self.epoch} epochs and {self.step} steps"
                    if state
                    else "  starting again from the first epoch"
                )
            self.checkpoints.delete_end_notes()
        place = float(self.epoch * self.steps + self.step)
        (places,) = self.world.total(place)
        if places != place * self.world.size:
            raise RunError("the processes resumed from different checkpoints, expected the same one; let them share the folder")
        while self.epoch < self.training.epochs:
            try:
                for pixels, labels in self.batches():
                    self.take(pixels, labels)
            except RuntimeError:
                if self.ending.asked:  # the signal also reached the processes that decode images
                    self.end()
                raise
            self.close_account()
            self.loss, right = self.total / self.steps, self.right
            self.epoch, self.step, self.total, self.right, self.read = self.epoch + 1, 0, 0.0, 0.0, 0
            self.epochs.append((self.epoch, self.loss, right / (self.steps * self.batch)))
            self.save()
            yield self.epochs[-1]
        if self.descend.refused:
            self.say(f"  its steps could not be recorded as a CUDA graph, and were launched one by one ({self.descend.refused})")
        if self.averaged is not None:
            self.module.load_state_dict(self.averaged.module.state_dict())
        return tuple(self.epochs) or ((self.epoch, self.loss, math.nan),)  # of a checkpoint of an earlier version

    def batches(self, skip: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the epoch's batches from the next step on, or after a number of them."""
        order = epoch_seed(self.seed, self.epoch)
        batches = self.images.batches(self.batch, self.resolution, order, self.step if skip is None else skip)
        return on_device(batches, self.device)

    def take(self, pixels: Tensor, labels: Tensor) -> None:
        """Take one step; save and stop if asked to."""
        self.learner.set_rate(self.rate(self.step))
        self.descend(*self.loss_of.mixed(pixels, labels, epoch_seed(self.seed, self.epoch) + self.step))
        self.step += 1
        due = self.step - self.read >= steps_unread(self.device) or self.step == self.steps
        if due or (self.ending.asked and self.world.size == 1):
            self.close_account()
            (asked,) = self.world.total(float(self.ending.asked))
            if asked:
                self.end()
            if self.step < self.steps and time.monotonic() - self.saved > CHECKPOINT_S:
                self.save()

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of this epoch."""
        return learning_rate(self.training, self.batch, self.epoch + (step + 0.5) / self.steps)

    def launch_step(self, mixed: Tensor, targets: Tensor) -> None:
        """Take one step on the device alone; it may be recorded."""
        self.learner.forget()
        parts = self.training.grad_accum_steps
        value = torch.zeros((), device=self.device)
        for number, (seen, wanted) in enumerate(zip(mixed.chunk(parts), targets.chunk(parts), strict=True), start=1):
            share = len(seen) / len(mixed)
            with self.apart(number < parts):
                with mixed_precision(self.device):
                    logits = self.joined(seen)
                    loss = share * self.loss_of(logits, seen, wanted)
                self.learner.add(loss)
            value += loss.detach()
            self.answered += (logits.argmax(1) == (wanted.argmax(1) if wanted.ndim > 1 else wanted)).sum()
        self.learner.descend(self.world.mean(value))
        if self.averaged is not None:
            self.averaged.update(self.module)

    def close_account(self) -> None:
        """Read the results of the steps since the last time.

        NonFiniteLossError if one of them would have spoilt the weights; none was taken since.
        """
        if self.step == self.read:
            return
        *tally, right = torch.cat([self.learner.tally(), self.answered[None]]).tolist()
        self.answered.zero_()
        (right,) = self.world.total(right)
        account = self.learner.account(tally)
        if account.bad is not None:
            fault = NonFiniteLossError(account.fault(self.read, self.epoch))
            self.note(fault, self.read + account.good, account.bad)
            raise fault
        self.total, self.right, self.read = self.total + account.loss, self.right + right, self.step

    def end(self) -> Never:
        """Save and stop; the rest of the epoch follows when the training is resumed."""
        self.save()
        if self.checkpoints and self.world.first:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            Preempted(epochs=self.epoch, steps=self.step, at=at).save(self.checkpoints.beside(PREEMPTED))
        self.world.wait()  # the others stay until the first has saved, or they would seem to have failed
        if self.ending.asked:
            self.ending.end()
        raise Terminated  # another process was asked to end

    def apart(self, more: bool) -> Any:
        """Let gradients travel between processes with the last part of a batch only."""
        return self.joined.no_sync() if more and isinstance(self.joined, nn.parallel.DistributedDataParallel) else nullcontext()

    def save(self) -> None:
        """Save a checkpoint from the first process, if a path is configured; all steps are accounted for."""
        self.close_account()
        if self.checkpoints and self.world.first:
            averaged = {"averaged": self.averaged.module.state_dict()} if self.averaged is not None else {}
            place = {name: getattr(self, name) for name in PLACE} | {"epochs": self.epochs}
            state = {"module": self.module.state_dict(), "learner": self.learner.state(), **place, **averaged}
            self.checkpoints.write(state)
        self.saved = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.module.load_state_dict(state["module"])
        self.learner.restore(state["learner"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["averaged"])
        for name in PLACE:
            setattr(self, name, state[name])
        self.epochs = list(state.get("epochs", ()))  # an earlier version kept none
        self.read = self.step

    def note(self, fault: NonFiniteLossError, step: int, loss: float) -> None:
        """Write the facts of the epoch's batch of that step (from 0) beside the checkpoint, and return the message."""
        if not (self.checkpoints and self.world.first):
            return
        pixels, labels = next(self.batches(skip=step))
        finite = pixels.isfinite()
        file = self.checkpoints.beside(BAD_BATCH)
        BadBatch(
            epoch=self.epoch + 1,
            step=step + 1,
            learning_rate=self.rate(step),
            loss=str(loss),
            labels=tuple(labels.tolist()),
            finite_pixels=float(finite.float().mean()),
            largest_pixel=str(float(pixels.abs().max())),
        ).save(file)
        fault.args = (f"{fault}; details of the batch are in {file}",)


class _Loss:
    """Cross-entropy with the labels, softened, mixed and taught as the training asks."""

    def __init__(self, training: Training, module: nn.Module, teacher: nn.Module | None) -> None:
        self._training, self._teacher = training, teacher
        self._classes = structure_of(module).input.classes if training.mixup else None

    def mixed(self, pixels: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return images and targets: labels as they are, or shares of classes if images are mixed."""
        if not self._training.mixup:
            return pixels, labels
        from timm.data import Mixup

        np.random.seed(seed % 2**32)  # timm draws from numpy's global generator
        mix = Mixup(self._training.mixup, label_smoothing=self._training.label_smoothing, num_classes=self._classes)
        found: tuple[Tensor, Tensor] = mix(pixels.clone(), labels)
        return found

    def __call__(self, logits: Tensor, pixels: Tensor, targets: Tensor) -> Tensor:
        smoothing = 0.0 if targets.is_floating_point() else self._training.label_smoothing
        loss = nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad():
            taught = self._teacher(pixels).softmax(1)
        return 0.5 * loss + 0.5 * nn.functional.cross_entropy(logits, taught)


def _averaged(module: nn.Module, decay: float | None) -> Any:
    """Return timm's averaged weights; None if none are asked for."""
    if decay is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(module, decay=decay)


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch's order and augmentation."""
    return int(digest(f"{seed}/{epoch}")[:12], 16)
