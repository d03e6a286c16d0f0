"""How networks are trained here: the loop behind the MasterNet and the final networks.

A run's result depends on its seed alone: batches come from (seed, epoch), so a run that continues from its last checkpoint
ends where an undisturbed one ends, bit for bit on the same machine.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Never

import numpy as np
import torch
from torch import Tensor, nn

from genet.ending import Ending, Terminated
from genet.errors import DataError, DeviceError, NonFiniteLossError, RunError, StorageError
from genet.files import Record, digest, read_checked, remove_checked, write_checked
from genet.nets.data import ImageSet
from genet.nets.learner import Learner, computing_on, learning_rate, mixed_precision, on_device
from genet.nets.world import ALONE, World
from genet.spec.recipe import Schedule, Training

EVALUATION_BATCH = 256
CHECKPOINT_S = 600.0  # within a long epoch; at the end of every epoch too
PREEMPTED, BAD_BATCH = ".preempted.json", ".bad-batch.json"
EpochDone = Callable[[int, float], None]  # epochs done, mean training loss of the last one


class BadBatch(Record):
    """The facts of a batch whose loss was not finite; pixels and labels are this process's own."""

    epoch: int
    step: int
    learning_rate: float
    loss: str
    labels: tuple[int, ...]
    finite_pixels: float  # share
    largest_pixel: str


class Preempted(Record):
    """Left beside the checkpoint by a training that was told to end (SIGTERM, Ctrl-C), until it goes on."""

    epochs: int  # whole ones done
    steps: int  # of the next
    at: str  # ISO 8601, UTC


def train(
    module: nn.Module,
    images: ImageSet,
    schedule: Schedule,
    resolution: int,
    device: torch.device,
    seed: int,
    checkpoint: Path | None = None,
    epoch_done: EpochDone | None = None,
    teacher: nn.Module | None = None,
    world: World = ALONE,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Train `module` in place, from its checkpoint where there is one; with averaged weights (EMA) it ends with these.

    NonFiniteLossError stops before the step that would spoil the weights, with the batch's facts beside the checkpoint;
    DeviceError where a batch does not fit. Told to end (SIGTERM, Ctrl-C), it saves first.
    """
    training = Training.model_validate(schedule.model_dump())
    with _memory_said(schedule, resolution), computing_on(device), Ending() as ending:
        module.to(device).to(memory_format=torch.channels_last).train()
        _Loop(module, images, training, resolution, device, seed, checkpoint, teacher, world, ending).run(epoch_done, say)
    module.eval()


class _Loop:
    """A training under way."""

    def __init__(
        self,
        module: nn.Module,
        images: ImageSet,
        training: Training,
        resolution: int,
        device: torch.device,
        seed: int,
        checkpoint: Path | None,
        teacher: nn.Module | None,
        world: World,
        ending: Ending,
    ) -> None:
        self.module, self.images, self.training, self.resolution = module, images, training, resolution
        self.device, self.seed, self.world, self.ending = device, seed, world, ending
        self.batch = min(training.batch, images.size)
        even = 2 * world.size * training.accumulate if training.mixup or world.size > 1 else training.accumulate
        self.batch -= self.batch % even if self.batch < training.batch else 0
        if self.batch % even or not self.batch:
            raise DataError(
                f"a batch must divide into {world.size} processes x {training.accumulate} parts of it, in pairs where images are "
                f"mixed (got {self.batch} of {images.size} images); change the schedule's batch"
            )
        self.steps = max(1, images.size // self.batch)  # per epoch
        self.joined = world.joined(module)
        self.learner = Learner(module, training, clip=training.clip)
        self.averaged = _averaged(module, training.ema)
        self.loss_of = _Loss(training, classes_of(module), teacher.to(device).eval() if teacher else None)
        self.checkpoints = Checkpoints(checkpoint) if checkpoint else None
        self.epoch, self.step, self.total = 0, 0, 0.0  # whole epochs, steps of the next, and its loss so far
        self.saved = time.monotonic()

    def run(self, epoch_done: EpochDone | None, say: Callable[[str], None]) -> None:
        """From where it was to the end."""
        state = self.checkpoints.read() if self.checkpoints else None
        if state:
            self.restore(state)
        if self.checkpoints and self.world.first:
            damaged = " and ".join(file.name for file in self.checkpoints.damaged)
            if damaged:
                say(f"  {damaged}: damaged, and left out")
            if state or damaged:
                say(f"  going on after {self.epoch} epochs and {self.step} steps" if state else "  beginning anew")
            self.checkpoints.forget_the_last_end()
        place = float(self.epoch * self.steps + self.step)
        (places,) = self.world.total(place)
        if places != place * self.world.size:
            raise RunError("all processes must go on from one checkpoint, and do not; let them share the folder")
        while self.epoch < self.training.epochs:
            try:
                for pixels, labels in self.shown():
                    self.descend(pixels, labels)
                    self.save_if_due()
            except RuntimeError:
                if self.ending.asked:  # the signal reached the processes that decode images too
                    self.end()
                raise
            loss = self.total / self.steps
            self.epoch, self.step, self.total = self.epoch + 1, 0, 0.0
            self.save()
            if epoch_done:
                epoch_done(self.epoch, loss)
        if self.averaged is not None:
            self.module.load_state_dict(self.averaged.module.state_dict())

    def shown(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What is left of the epoch."""
        order = epoch_seed(self.seed, self.epoch)
        batches = self.images.batches(self.batch, self.resolution, order, self.step)
        return on_device(batches, self.device)

    def descend(self, pixels: Tensor, labels: Tensor) -> None:
        """One step."""
        rate = learning_rate(self.training, self.batch, self.epoch + (self.step + 0.5) / self.steps)
        parts = self.training.accumulate
        mixed, targets = self.loss_of.mixed(pixels, labels, epoch_seed(self.seed, self.epoch) + self.step)
        value = 0.0
        for number, (seen, wanted) in enumerate(zip(mixed.chunk(parts), targets.chunk(parts), strict=True), start=1):
            share = len(seen) / len(mixed)
            with self.apart(number < parts):
                with mixed_precision(self.device):
                    loss = share * self.loss_of(self.joined(seen), seen, wanted)
                self.learner.add(loss)
            value += loss.item()
        value, ended = (each / self.world.size for each in self.world.total(value, float(self.ending.asked)))
        where = f"epoch {self.epoch + 1}, step {self.step + 1}"
        try:
            self.total += self.learner.descend(value, rate, where)
        except NonFiniteLossError as fault:
            self.note(fault, pixels, labels, rate, value)
            raise
        if self.averaged is not None:
            self.averaged.update(self.module)
        self.step += 1
        if ended:
            self.end()

    def end(self) -> Never:
        """Save and stop; what is left of the epoch is shown when it goes on."""
        self.save()
        if self.checkpoints and self.world.first:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            Preempted(epochs=self.epoch, steps=self.step, at=at).save(self.checkpoints.beside(PREEMPTED))
        self.world.wait()  # the others stay until the first has saved, or they would be thought to have failed
        if self.ending.asked:
            self.ending.end()
        raise Terminated  # another process was told

    def apart(self, more: bool) -> Any:
        """Gradients travel between processes with the last part of a batch only."""
        return self.joined.no_sync() if more and isinstance(self.joined, nn.parallel.DistributedDataParallel) else nullcontext()

    def save_if_due(self) -> None:
        """Within a long epoch."""
        if self.step < self.steps and time.monotonic() - self.saved > CHECKPOINT_S:
            self.save()

    def save(self) -> None:
        """A checkpoint, if there is a place for it; of several processes one writes it."""
        if self.checkpoints and self.world.first:
            averaged = {"averaged": self.averaged.module.state_dict()} if self.averaged is not None else {}
            place = {"epoch": self.epoch, "step": self.step, "total": self.total}
            state = {"module": self.module.state_dict(), "learner": self.learner.state(), **place, **averaged}
            self.checkpoints.write(state)
        self.saved = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.module.load_state_dict(state["module"])
        self.learner.restore(state["learner"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["averaged"])
        self.epoch, self.step, self.total = state["epoch"], state["step"], state["total"]

    def note(self, fault: NonFiniteLossError, pixels: Tensor, labels: Tensor, rate: float, loss: float) -> None:
        """Write the batch's facts beside the checkpoint, and say so."""
        if not (self.checkpoints and self.world.first):
            return
        finite = pixels.isfinite()
        file = self.checkpoints.beside(BAD_BATCH)
        BadBatch(
            epoch=self.epoch + 1,
            step=self.step + 1,
            learning_rate=rate,
            loss=str(loss),
            labels=tuple(labels.tolist()),
            finite_pixels=float(finite.float().mean()),
            largest_pixel=str(float(pixels.abs().max())),
        ).save(file)
        fault.args = (f"{fault}; the batch's facts are in {file}",)


class _Loss:
    """Cross-entropy with the labels, softened, mixed and taught as the training says."""

    def __init__(self, training: Training, classes: int, teacher: nn.Module | None) -> None:
        self._training, self._classes, self._teacher = training, classes, teacher

    def mixed(self, pixels: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Images and targets: labels as they are, or shares of classes where images are mixed."""
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


def classes_of(module: nn.Module) -> int:
    """How many classes a network tells apart: the width of its last linear layer."""
    return [part for part in module.modules() if isinstance(part, nn.Linear)][-1].out_features


class Checkpoints:
    """Two files in turn, so that a damaged one costs the way since the other, and not the training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = [path, path.with_name(path.name + ".other")]
        self.damaged: list[Path] = []  # by the last `read`

    def beside(self, mark: str) -> Path:
        """A file that is named after them."""
        return self.path.with_suffix(mark)

    def forget_the_last_end(self) -> None:
        """Delete what an earlier process left to say why it ended."""
        for mark in (PREEMPTED, BAD_BATCH):
            self.beside(mark).unlink(missing_ok=True)

    def write(self, state: dict[str, Any]) -> None:
        """Save over the older of the two; what is kept of the other is whole until this one is."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_checked(self._files[0], buffer.getvalue())
        self._files.reverse()

    def read(self) -> dict[str, Any] | None:
        """The state that has come furthest of those that are whole; None where there is none."""
        found = [(state, file) for file in self._files if (state := _whole(file))]
        self.damaged = [file for file in self._files if file.exists() and file not in [whole for _, whole in found]]
        if not found:
            return None
        state, newest = max(found, key=lambda each: (each[0]["epoch"], each[0]["step"]))
        self._files.sort(key=lambda file: file == newest)
        return state

    def remove(self) -> None:
        """Delete both, once the result is safe."""
        for file in self._files:
            remove_checked(file)


def _whole(path: Path) -> dict[str, Any] | None:
    """The state in a file; None where it is missing, damaged, or of an earlier version."""
    try:
        data = read_checked(path)
    except StorageError:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state if "step" in state else None


def _averaged(module: nn.Module, decay: float | None) -> Any:
    """timm's averaged weights; None where none are asked for."""
    if decay is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(module, decay=decay)


def accuracy(module: nn.Module, images: ImageSet, resolution: int, device: torch.device, world: World = ALONE) -> float:
    """Share of images classified rightly, 0 to 1; every image counts once, however many processes look at them."""
    module.to(device).to(memory_format=torch.channels_last).eval()
    with mixed_precision(device):
        (share,) = top(module, (1,), images, resolution, device, world)
    return share


@torch.inference_mode()
def top(
    answers: Callable[[Tensor], Tensor],
    ks: tuple[int, ...],
    images: ImageSet,
    resolution: int,
    device: torch.device,
    world: World = ALONE,
) -> tuple[float, ...]:
    """Per k: the share of images whose label is among the k likeliest of the answers, (N, classes) for (N, C, H, W)."""
    right = torch.zeros(len(ks), dtype=torch.long, device=device)
    with computing_on(device):
        for pixels, labels in on_device(images.batches(EVALUATION_BATCH, resolution), device):
            logits = answers(pixels)
            best = logits.topk(min(max(ks), logits.shape[1])).indices == labels[:, None]
            right += torch.stack([best[:, :k].any(1).sum() for k in ks])
    return tuple(total / images.size for total in world.total(*right.tolist()))


@contextmanager
def _memory_said(schedule: Schedule, resolution: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"training at {resolution} pixels must fit into the device's memory, and batch {schedule.batch} does not; "
            "lower the schedule's batch, or compute it in parts (accumulate)"
        ) from None


def epoch_seed(seed: int, epoch: int) -> int:
    """Decides an epoch's order and augmentation."""
    return int(digest(f"{seed}/{epoch}")[:12], 16)
