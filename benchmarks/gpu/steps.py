"""What the project's own steps cost on this device, as its trainings and trials take them, and how fast it augments images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch

from genet.arch.network import Network
from genet.config.augment import augment_at
from genet.config.reader import read_recipe
from genet.config.recipe import Recipe, Training
from genet.device import device_fault
from genet.errors import first_line
from genet.models.build import build
from genet.signals import GracefulShutdown
from genet.storage import Record
from genet.training.image_sets import TensorImages, View
from genet.training.learner import computing_on, on_device, steps_unread
from genet.training.loop import Execution, TrainingInputs, TrainingLoop
from genet.training.replay import CALLS_BEFORE, Replayed
from genet.training.splits import Splits
from genet.trials.context import TrialContext
from genet.trials.finetune import TrialGroup
from genet.trials.plan import Trial, groups, plan_trials
from gpu.bench import Bench

# The shape of ResNet-18 for 32 pixels; a network of super-blocks has a 1x1 convolution more at its end.
RESNET18 = "@{}x3 | Conv k3 c64 s1 | XX k3 c64 s1 d2 | XX k3 c128 s2 d2 | XX k3 c256 s2 d2 | XX k3 c512 s2 d2 | Conv k1 c512 | {}"
NAME, SIZE, CLASSES, IMAGES = (
    "torch/cifar10",
    32,
    10,
    50_000,
)  # of CIFAR-10; what is seen decides no time, so the images are noise
LARGE_BATCH = 1024  # beside the recipe's own
RATE = 1e-6  # labels of noise teach nothing, and at a higher rate the loss may cease to be finite
StepMode = Literal["eager", "eager, read after each step", "recorded"]
STEP_MODES: tuple[StepMode, ...] = ("eager", "eager, read after each step", "recorded")
Answers = Iterator[dict[str, object]]


class Step(Record):
    """Milliseconds of a step of `TrainingLoop`, a mean over many, images not included.

    `recorded` is how a training takes it on a GPU, its losses read every 50 steps, and `eager` the same launched kernel by
    kernel. `first_ms` is what the first calls took together, in which kernels are chosen and the step is recorded. `fault` says
    why there is no figure, or why a step that was to be recorded was launched kernel by kernel instead.
    """

    name: str
    network: str
    batch: int
    deterministic: bool  # as a training is; otherwise what that costs is seen
    autotuned: bool  # cuDNN tries its kernels first (`benchmark`), which a training does not have it do
    way: StepMode
    ms: float | None = None
    first_ms: float | None = None
    fault: str | None = None


class GroupStep(Record):
    """Milliseconds of a step of a group of trials that share a super-block; the columns are those of `Step`."""

    superblock: int
    trials: int
    mode: str
    batch: int
    way: StepMode
    ms: float | None = None
    first_ms: float | None = None
    fault: str | None = None


class Augmented(Record):
    """Images per second of an epoch of `TensorImages` on the device: shuffled, augmented and normalised, not trained on."""

    augment: str
    batch: int
    resolution: int
    images: int
    images_per_s: float


def cifar10() -> Recipe:
    """Return the recipe `cifar10`: its MasterNet, batches and trials are what is timed."""
    return read_recipe("cifar10")


def training_steps(bench: Bench) -> Answers:
    """Time steps of the MasterNet of `cifar10` and of ResNet-18 in all ways, deterministic as in a training."""
    recipe = cifar10()
    batches = (4,) if bench.small else dict.fromkeys((recipe.train.batch, LARGE_BATCH))
    for (name, network), batch in itertools.product(_networks(bench, recipe).items(), batches):
        for way in STEP_MODES if bench.cuda else STEP_MODES[:1]:
            yield {"steps": (timed_step(bench, name, network, recipe.train.model_copy(update={"batch": batch}), way),)}


def freer_steps(bench: Bench) -> Answers:
    """Time recorded steps without determinism, and with kernels that cuDNN has tried: what a training pays for it."""
    recipe = cifar10()
    for name, network in _networks(bench, recipe).items() if bench.cuda and not bench.small else ():
        for autotuned in (False, True):
            yield {"steps": (timed_step(bench, name, network, recipe.train, "recorded", False, autotuned),)}


def _networks(bench: Bench, recipe: Recipe) -> dict[str, Network]:
    """Return what steps are timed of, by name; the MasterNet may be ResNet-18 itself."""
    masternet = recipe.space.masternet(max(recipe.space.input.resolutions))
    networks = {"MasterNet of cifar10": masternet, "ResNet-18": Network.parse(RESNET18.format(SIZE, CLASSES))}
    if str(masternet) == str(networks["ResNet-18"]):
        networks = {"MasterNet of cifar10, the shape of ResNet-18": masternet}
    return {name: smallest(network) for name, network in networks.items()} if bench.small else networks


def smallest(network: Network) -> Network:
    """Return a network's stem and first super-blocks, each of one narrow block."""
    narrow = {"width": 8}
    plain = narrow | {"type": "XX", "ratio": None, "depth": 1}
    superblocks = tuple(block.model_copy(update=plain) for block in network.superblocks[:2])
    head = network.head and network.head.model_copy(update=narrow)
    parts = {"stem": network.stem.model_copy(update=narrow), "head": head}
    return network.model_copy(update={"superblocks": superblocks, **parts})


def timed_step(
    bench: Bench,
    name: str,
    network: Network,
    training: Training,
    way: StepMode,
    deterministic: bool = True,
    autotuned: bool = False,
) -> Step:
    """Time a step of this network, called `name`, trained so."""
    module = build(network).to(bench.device).to(memory_format=torch.channels_last).train()
    size, once = network.input.resolution, training.model_copy(update={"learning_rate": RATE})
    with computing_on(bench.device, deterministic), _autotuned(autotuned), GracefulShutdown() as ending:
        loop = TrainingLoop(
            module, TrainingInputs(noise(bench, training.batch, size), once, size, 0), Execution(bench.device), ending
        )
        if way != "recorded":
            loop.descend = Replayed(loop.launch_step, bench.device, recorded=False)
        shown = next(loop.batches())

        def step() -> None:
            loop.take(*shown)
            if way == "eager, read after each step":
                loop.close_account()

        found = timed(bench, step, loop.descend)
    bench.give_back()
    facts = {"name": name, "network": str(network), "batch": training.batch, "way": way}
    return Step.model_validate({**facts, "deterministic": deterministic, "autotuned": autotuned, **found})


def group_steps(bench: Bench) -> Answers:
    """Time steps of the trials of the second super-block of `cifar10`, all side by side."""
    recipe, size = cifar10(), SIZE
    space, distill = recipe.space, recipe.distill.model_copy(update={"learning_rate": RATE})
    if bench.small:
        blocks = smallest(space.masternet(size)).superblocks
        perturb = space.perturb.model_copy(update={"types": None, "trials_per_type": 1})
        space = space.model_copy(update={"superblocks": blocks, "perturb": perturb})
        distill = distill.model_copy(update={"batch": 4})
    planned = plan_trials(space, space.widths_on_offer(), size, recipe.seed, distill)
    trials = next(group for group in groups(planned, workers=1) if group[0].index == 1)
    images = noise(bench, distill.batch, size)
    context = TrialContext(build(space.masternet(size)), Splits(images, images, images), distill, size, recipe.seed)
    facts = {"superblock": trials[0].index + 1, "trials": len(trials), "mode": distill.mode, "batch": distill.batch}
    for way in STEP_MODES[::2] if bench.cuda else STEP_MODES[:1]:
        yield {"group_steps": (GroupStep.model_validate({**facts, "way": way, **timed_group_step(bench, context, trials, way)}),)}
        bench.give_back()


def timed_group_step(bench: Bench, context: TrialContext, trials: Sequence[Trial], way: StepMode) -> dict[str, object]:
    """Return what a step of all these trials takes, as fields of `GroupStep`."""
    group = TrialGroup(context, trials, bench.device)
    if way != "recorded":
        group.descend = Replayed(group.launch_step, bench.device, recorded=False)
    shown, numbers = next(group.training_images(0)), itertools.count(1)

    def step() -> None:
        for _ in group.step(shown, 0, next(numbers)):
            pass

    return timed(bench, step, group.descend)


def augmentation(bench: Bench) -> Answers:
    """Time an epoch of CIFAR-10's images with the augmentation that it gets by itself, and with erasing."""
    batch = 4 if bench.small else cifar10().train.batch
    for erasing in (0.0, 0.2):
        images = noise(bench, 16 if bench.small else IMAGES, SIZE, erasing)
        looks: list[float] = []
        for epoch in range(2):  # the first resizes and pads
            wait(bench)
            start = time.perf_counter()
            for _ in on_device(images.batches(batch, SIZE, shuffle_seed=epoch), bench.device):
                pass
            wait(bench)
            looks.append(images.size // batch * batch / (time.perf_counter() - start))
        augment = f"{augment_at(None, NAME, SIZE)}" + (f", {erasing:.0%} erased" if erasing else "")
        found = Augmented(augment=augment, batch=batch, resolution=SIZE, images=images.size, images_per_s=looks[-1])
        yield {"augmented": (found,)}


def noise(bench: Bench, count: int, size: int, erasing: float = 0.0) -> TensorImages:
    """Return bytes on the device, normalised and augmented as those of CIFAR-10 are."""
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    half = torch.full((3,), 0.5)
    view = View(augment_at(None, NAME, size), erasing)
    return TensorImages(pixels, torch.randint(0, CLASSES, (count,)), view, (1 / (255 * half), -half / half)).on(bench.device)


def timed(bench: Bench, work: Callable[[], object], replayed: Replayed) -> dict[str, object]:
    """Return the mean of many calls after those that record, and what these took; a fault of the device's kernels in words.

    Among so many calls one reads losses, as in a training.
    """
    calls = 2 if bench.small else steps_unread(bench.device)
    try:
        start = time.perf_counter()
        for _ in range(CALLS_BEFORE + 2):
            work()
        wait(bench)
        first = time.perf_counter()
        for _ in range(calls):
            work()
        wait(bench)
        end = time.perf_counter()
    except RuntimeError as fault:
        if device_fault(fault) not in ("no engine", "out of memory"):
            raise
        return {"fault": first_line(fault)}
    finally:
        replayed.forget()
    return {"ms": (end - first) / calls * 1e3, "first_ms": (first - start) * 1e3, "fault": replayed.refused}


def wait(bench: Bench) -> None:
    """Have the device finish what it was told to do."""
    if bench.cuda:
        torch.cuda.synchronize(bench.device)


@contextmanager
def _autotuned(wanted: bool) -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
