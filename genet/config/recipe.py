"""A recipe: one job from a search space to exported networks."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from genet.arch.network import Count, Name, NonEmpty, law
from genet.arch.space import SearchSpace
from genet.config.augment import Augmentation
from genet.storage import Record, digest

Dtype = Literal["fp32", "fp16", "bf16"]
MemoryFormat = Literal["contiguous", "channels_last"]
DEVICE_NAMES = r"auto|cpu|cuda(:\d+)?|estimate:[\w -]+"
Runtime = Literal["auto", "eager", "cudagraph", "compile", "onnxruntime", "tensorrt"]


def _budget(value: Any) -> float | str:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?x", value) and float(value[:-1]) > 0:
        number, _, fraction = value[:-1].partition(".")
        return f"{int(number)}.{fraction.rstrip('0') or '0'}x" if fraction else value  # 0.5x and 0.50x are one budget
    raise law("must be milliseconds per image above 0, or a multiple of the MasterNet's latency such as 0.5x")


Budget = Annotated[float | str, BeforeValidator(_budget)]


def budget_ms(budget: float | str, masternet_ms: float) -> float:
    """Return a budget in milliseconds per image, given the MasterNet's own milliseconds per image."""
    return float(budget[:-1]) * masternet_ms if isinstance(budget, str) else budget


def told_budget(budget: float | str, ms: float) -> str:
    """Return a budget of `ms` per image in the user's unit, and what that is in milliseconds."""
    return f"{budget} ({ms:.4g} ms/image)" if isinstance(budget, str) else f"{ms:.4g} ms/image"


def smallest_met(budget: float | str, ms: float, masternet_ms: float) -> str:
    """Return the smallest budget that a network of `ms` per image keeps, in the unit of another; four digits, rounded up."""
    value = ms / masternet_ms if isinstance(budget, str) else ms
    places = max(0, 3 - math.floor(math.log10(value)))
    text = f"{math.ceil(value * 10**places) / 10**places:.{places}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text}x" if isinstance(budget, str) else f"{text} ms/image"


def _dataset_name(name: str) -> str:
    if name not in ("digits", "folder") and "/" not in name:
        raise law("must be digits, folder, or a timm dataset name such as torch/cifar10", "folder")
    return name


class Data(Record):
    """Images: `digits` (embedded), `folder` (root/train/CLASS and root/validation/CLASS), or any timm dataset name.

    `nas_validation` is the share of the training images that the search validates on; it is never trained on,
    and the test images decide nothing: they only tell how good the trained networks are. `loading` says where training images
    are augmented: decoded once and kept on the `device`, or decoded anew each time (`stream`); `auto` keeps small ones that fit.
    """

    name: Annotated[str, AfterValidator(_dataset_name)] = "digits"
    root: str | None = None
    nas_validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    workers: Annotated[int, Field(ge=0)] = 0
    loading: Literal["auto", "device", "stream"] = "auto"

    def identity(self, images: str | None) -> str:
        """Return what decides which images there are and how they are divided, given what stands for them.

        Neither where they lie nor how many processes decode them is part of it.
        """
        return self.model_copy(update={"root": images}).model_dump_json(exclude={"workers"})


class Measure(Record):
    """How latency is measured, or where it is read from.

    `device` is `auto`, `cpu`, `cuda`, `cuda:N`, or `estimate:GPU` for a GPU that is not here. `runtime` is what runs the
    network; `auto` is CUDA graphs on a GPU and eager elsewhere. `latency` names an evidence file of another machine, whose
    rows are then used in place of measurements. `calibration_networks` random networks are measured whole to correct predictions.
    """

    device: str = "auto"
    runtime: Runtime = "auto"
    dtype: Dtype = "fp32"
    memory_format: MemoryFormat = "contiguous"
    batch: Count = 64
    calibration_networks: Annotated[int, Field(ge=3, le=20)] = 20
    latency_file: str | None = None

    @field_validator("device")
    @classmethod
    def _device_has_a_name(cls, device: str) -> str:
        if not re.fullmatch(DEVICE_NAMES, device):
            raise law("must be auto, cpu, cuda, cuda:N or estimate:GPU", "auto")
        return device

    @property
    def here(self) -> bool:
        """Return whether latency is measured on this machine."""
        return self.latency_file is None and not self.device.startswith("estimate:")


class Schedule(Record):
    """SGD with Nesterov momentum, linear warm-up, then cosine; the paper's section 5. The rate is per 256 images."""

    epochs: Count
    batch: Annotated[int, Field(ge=2)] = 256
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 4e-5
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("warmup_epochs")
    @classmethod
    def _warm_up_ends(cls, warmup: int, info: ValidationInfo) -> int:
        if warmup >= info.data.get("epochs", warmup + 1):
            raise law(f"must be fewer than the {info.data['epochs']} epochs")
        return warmup


class Training(Schedule):
    """The training of a network that is to serve: a schedule, and what the paper's section 5 adds to it; all off by default.

    `augment` replaces the recipe's; `random_erase_prob` is the share of images that a rectangle is erased of; `mixup` the alpha
    of its Beta distribution. A `teacher`, a timm model such as `timm:resnet152` or the folder of a trained network, gives soft
    labels that count as much as the true ones. `ema` is the decay of averaged weights, which are then the result. Gradients are
    clipped to a norm of `clip_grad_norm`, and a batch may be computed in several parts (`grad_accum_steps`) where it does not fit
    at once."""

    augment: Augmentation = None
    random_erase_prob: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    teacher: str | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    grad_accum_steps: Count = 1

    @field_validator("grad_accum_steps")
    @classmethod
    def _parts_have_two_images(cls, steps: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch", 2 * steps)
        if batch % steps or batch // steps < 2:
            raise law(f"must divide the batch of {batch} into parts of two images or more")
        return steps

    @property
    def placeless(self) -> Training:
        """The same wherever a teacher's folder lies: what it teaches depends on its weights."""
        here = self.teacher is not None and not self.teacher.startswith("timm:")
        return self.model_copy(update={"teacher": "a folder"}) if here else self


class PretrainedMaster(Record):
    """A MasterNet that was trained before: the folder of a network of just its structure, with weights (`genet import`)."""

    model_config = ConfigDict(populate_by_name=True)

    folder: Annotated[str, Field(alias="from")]


def _master_form(value: Any) -> str:
    return "taken" if isinstance(value, PretrainedMaster) or (isinstance(value, dict) and "from" in value) else "trained"


Master = Annotated[Annotated[Schedule, Tag("trained")] | Annotated[PretrainedMaster, Tag("taken")], Discriminator(_master_form)]


class TrainingRecipe(Record):
    """The training of a single network, whichever it is: `genet train NETWORK --recipe FILE`."""

    name: Name
    data: Data
    augment: Augmentation = None
    device: str = "auto"
    train: Training
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("device")
    @classmethod
    def _device_is_here(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise law("must be auto, cpu, cuda or cuda:N", "auto")
        return device


Mode = Literal["whole", "superblock", "local", "features"]


class Distill(Schedule):
    """The trials: how long a perturbed network is fine-tuned, what of it is trained, and which perturbations are tried.

    `mode` is what is trained: `features`, the replaced super-block and the first block after it, which learn to reproduce the
    MasterNet's activations without labels; `local`, these two and the classifier, with labels; the replaced `superblock`
    alone (the paper's section 4.2); or the `whole` network. `sampling` spreads the perturbations over depth and
    width by plan, or draws them at random as the paper does. `joint_fraction` adds trials of two perturbations at once, as a
    share of all, to tell how far effects add up. A trial whose validation curve has not risen for `patience` epochs after
    the warm-up ends early; with 0 none does. One that has taken longer than `time_limit_s` after a step is given
    up, and a worker process that says nothing for so long is killed and its trials tried again.
    """

    mode: Mode = "features"
    sampling: Literal["designed", "random"] = "designed"
    joint_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    patience: Annotated[int, Field(ge=0)] = 3
    time_limit_s: Annotated[float, Field(gt=0)] | None = None


Model = Literal["auto", "paper"]


class Fit(Record):
    """Which regression the trials are fitted by: the `paper`'s form, or `auto`, shrunk towards plain size."""

    model: Model = "auto"


class Select(Record):
    """Latency budgets per image, and how many of the best candidates are measured as whole networks at a time.

    `method: random` is the paper's: the best of `random_samples`; `exact` needs none. `filter: utilization` leaves those
    candidates only that no faster one beats in utilization (utilization paper, section 4.3).
    """

    budgets: Annotated[tuple[Budget, ...], NonEmpty]
    measure_top_k: Count = 3
    method: Literal["exact", "random"] = "exact"
    random_samples: Count = 100_000
    filter: Literal["utilization"] | None = None

    @field_validator("budgets")
    @classmethod
    def _budgets_differ(cls, budgets: tuple[float | str, ...]) -> tuple[float | str, ...]:
        if len(set(budgets)) < len(budgets):
            raise law("must all differ")
        return budgets


class Race(Record):
    """How many networks are trained from scratch, and how far, before one is handed out.

    Of every budget and resolution enter the best `searched` predictions and every known design scaled to it, `designs` of your
    own among them: network files, notations, folders or timm models. After short trainings the best share, `finalists`, is
    trained fully, and those too close to call up to `trainings` times. `effort` decides what is not given; `quick` takes
    the resolution alone that is predicted to be best.
    """

    effort: Literal["quick", "normal", "thorough"] = "normal"
    designs: tuple[str, ...] = ()
    searched: Count | None = None
    finalists: Annotated[float | None, Field(gt=0, le=1)] = None
    trainings: Count | None = None

    @property
    def counts(self) -> tuple[int, float, int]:
        """Searched networks, share of finalists, and most trainings of one."""
        usual = {"quick": (1, 1 / 3, 1), "normal": (2, 1 / 3, 2), "thorough": (4, 1 / 2, 3)}[self.effort]
        searched, finalists, trainings = usual
        return self.searched or searched, self.finalists or finalists, self.trainings or trainings


class Search(Record):
    """How many whole networks near the budgets are trained shortly, before the race, to learn which are best.

    `effort` decides how many `joint_trials` there are, if that is not given; each costs a fifth of a full training. 0 leaves the
    search to the trials of single super-blocks, as the GENet paper does.
    """

    effort: Literal["quick", "normal", "thorough"] = "normal"
    joint_trials: Annotated[int, Field(ge=0)] | None = None

    @property
    def count(self) -> int:
        """Return how many joint trials there are."""
        return {"quick": 12, "normal": 24, "thorough": 48}[self.effort] if self.joint_trials is None else self.joint_trials


class Recipe(Record):
    """Everything a job needs; with the seed it decides every random choice."""

    name: Name
    space: SearchSpace
    data: Data = Data()
    augment: Augmentation = None  # of every training; the final ones may have their own
    measure: Measure = Measure()
    resolution: Count | None = None  # of the MasterNet and the trials; absent: the space's largest
    master: Master
    distill: Distill
    fit: Fit = Fit()
    select: Select
    search: Search = Search()
    race: Race = Race()
    train: Training
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("resolution")
    @classmethod
    def _resolution_is_in_the_space(cls, resolution: int | None, info: ValidationInfo) -> int | None:
        if resolution is not None and "space" in info.data:
            offered = info.data["space"].input.resolutions
            if resolution not in offered:
                raise law(f"must be one of the space's resolutions {', '.join(map(str, offered))}")
        return resolution

    @property
    def search_resolution(self) -> int:
        """Resolution at which the MasterNet is trained and perturbed; budgets such as 0.5x refer to it."""
        return self.resolution or max(self.space.input.resolutions)

    @property
    def evidence_digest(self) -> str:
        """Names what the trials depend on, besides the images and a MasterNet from elsewhere, which are known by what they hold.

        Budgets and the final training are not part of it, so changing them repeats nothing; nor is the way of
        measuring, for every row of the latency table carries its own setting.
        """
        apart: dict[str, Any] = dict.fromkeys(("name", "measure", "fit", "select", "search", "race", "train"), True)
        apart |= {"data": {"workers", "root"}, "master": {"folder"}, "distill": {"time_limit_s"}}
        return digest(self.model_dump_json(exclude=apart))[:12]
