"""A recipe: one job from a search space to exported networks."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator

from genet.arch.network import Count, Name, NonEmpty, broken_rule
from genet.arch.space import SearchSpace
from genet.config.augment import Augmentation
from genet.config.budget import Budget
from genet.storage import Described, digest

Dtype = Literal["fp32", "fp16", "bf16", "int8"]
MemoryFormat = Literal["contiguous", "channels_last"]
DEVICE_NAMES = r"auto|cpu|cuda(:\d+)?|estimate:[\w -]+"
LogKind = Literal["tensorboard"]
Runtime = Literal["auto", "eager", "cudagraph", "compile", "onnxruntime", "tensorrt"]


def _dataset_name(name: str) -> str:
    if name not in ("digits", "folder") and "/" not in name:
        raise broken_rule("must be digits, folder, or a timm dataset name such as torch/cifar10", "folder")
    return name


class Data(Described):
    """The images. Test images decide nothing: they only show how good the trained networks are."""

    name: Annotated[str, AfterValidator(_dataset_name)] = "digits"
    """`digits` (built in), `folder` (ROOT/train/CLASS and ROOT/validation/CLASS), or a timm dataset such as `torch/cifar10`."""
    root: str | None = None
    """Folder of the images. A `torch/` dataset without a root is downloaded."""
    nas_validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training images of every class that is held out. These images judge a training, which never sees them."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that decode images. With 0, the training process decodes them."""
    loading: Literal["auto", "device", "stream"] = "auto"
    """`device` decodes training images once and keeps them there; `stream` decodes them each time; `auto` keeps small ones."""

    def identity(self, images: str | None) -> str:
        """Return all settings that decide which images there are and how they are divided; `images` replaces their folder."""
        return self.model_copy(update={"root": images}).model_dump_json(exclude={"workers"})


class Measure(Described):
    """How latency is measured, or the file it is read from."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N`, or `estimate:GPU` for a GPU you do not have."""
    runtime: Runtime = "auto"
    """The software that runs the network; `auto` is CUDA graphs on a GPU, and eager elsewhere."""
    dtype: Dtype = "fp32"
    """Number format of weights and activations. `int8` is available for estimates with runtime `tensorrt` only."""
    memory_format: MemoryFormat = "contiguous"
    """Memory layout of activations."""
    batch: Count = 64
    """Images per batch."""
    threads: Count | None = None
    """CPU threads for measuring latency: as many as you serve with. Null takes torch's number, as training always does."""
    calibration_networks: Annotated[int, Field(ge=3, le=20)] = 20
    """Number of random networks that are measured whole, to correct predictions."""
    latency_file: str | None = None
    """Latency file of another machine. Its rows replace measurements."""

    @field_validator("device")
    @classmethod
    def _device_has_a_name(cls, device: str) -> str:
        if not re.fullmatch(DEVICE_NAMES, device):
            raise broken_rule("must be auto, cpu, cuda, cuda:N or estimate:GPU", "auto")
        return device

    @field_validator("dtype")
    @classmethod
    def _int8_is_an_engines(cls, dtype: Dtype, info: ValidationInfo) -> Dtype:
        device, runtime = info.data.get("device", ""), info.data.get("runtime", "tensorrt")
        if dtype == "int8" and not (device.startswith("estimate:") and runtime == "tensorrt"):
            raise broken_rule("must be fp32, fp16 or bf16 unless device is estimate:GPU and runtime is tensorrt", "fp16")
        return dtype

    @property
    def here(self) -> bool:
        """Return whether latency is measured on this machine."""
        return self.latency_file is None and not self.device.startswith("estimate:")


class Schedule(Described):
    """SGD with Nesterov momentum, linear warm-up, then cosine decay (GENet paper, section 5)."""

    epochs: Count
    """Passes over the training images."""
    batch: Annotated[int, Field(ge=2)] = 256
    """Images per step."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate per 256 images: a batch of 64 uses a quarter of it."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the rate rises from 0. Must be fewer than `epochs`."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 4e-5
    """Weight decay of SGD."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing: the share of each label that is spread over all classes."""

    @field_validator("warmup_epochs")
    @classmethod
    def _warm_up_ends(cls, warmup: int, info: ValidationInfo) -> int:
        if warmup >= info.data.get("epochs", warmup + 1):
            raise broken_rule(f"must be fewer than the {info.data['epochs']} epochs")
        return warmup


class Training(Schedule):
    """The final training of a network: a schedule, and the extras of the GENet paper's section 5, which are off by default."""

    augment: Augmentation = None
    """Augmentation of this training only; replaces the recipe's."""
    random_erase_prob: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the images with a random rectangle erased."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup's Beta distribution."""
    teacher: str | None = None
    """A timm model such as `timm:resnet152`, or the folder of a trained network. Soft and true labels count equally."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an average of the weights. The average is then the result."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradients; larger ones are clipped."""
    grad_accum_steps: Count = 1
    """Number of parts to split a batch into if it does not fit into memory. Each part has at least two images."""
    init: Literal["scratch", "masternet"] = "scratch"
    """Initial weights of the networks of a search: new ones, or the MasterNet's. A network inherits those if it has the same
    stem, head and number of super-blocks; other networks start from new weights."""

    @field_validator("grad_accum_steps")
    @classmethod
    def _parts_have_two_images(cls, steps: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch", 2 * steps)
        if batch % steps or batch // steps < 2:
            raise broken_rule(f"must divide the batch of {batch} into parts of two images or more")
        return steps

    @property
    def placeless(self) -> Training:
        """Return this schedule without the path of its teacher, for digests: a teacher is known by its weights."""
        here = self.teacher is not None and not self.teacher.startswith("timm:")
        return self.model_copy(update={"teacher": "a folder"}) if here else self


class PretrainedMaster(Described):
    """A MasterNet that is already trained on the recipe's own classes."""

    model_config = ConfigDict(populate_by_name=True)

    folder: Annotated[str, Field(alias="from")]
    """Folder of a network with weights (`genet import`) and exactly the MasterNet's structure."""


class TunedMaster(Schedule):
    """A MasterNet that starts from the weights of a network trained on any images, and is trained further."""

    model_config = ConfigDict(populate_by_name=True)

    folder: Annotated[str, Field(alias="from")]
    """Folder of a network with weights (`genet import`) that has the MasterNet's channels, stem, head and number of super-blocks.
    Weights of other parts are inherited if they fit. A classifier for other classes is new."""

    @property
    def schedule(self) -> Schedule:
        """The training, independent of the place of the weights."""
        return Schedule.model_validate(self.model_dump(exclude={"folder"}))


def _master_form(value: Any) -> str:
    if isinstance(value, PretrainedMaster) or (isinstance(value, dict) and [*value] == ["from"]):
        return "taken"
    return "tuned" if isinstance(value, TunedMaster) or (isinstance(value, dict) and "from" in value) else "trained"


Master = Annotated[
    Annotated[Schedule, Tag("trained")] | Annotated[PretrainedMaster, Tag("taken")] | Annotated[TunedMaster, Tag("tuned")],
    Discriminator(_master_form),
]


class TrainingRecipe(Described):
    """The training of any single network: `genet train NETWORK --recipe FILE`."""

    name: Name
    """Name of the training."""
    data: Data
    """The images."""
    augment: Augmentation = None
    """Augmentation of the training images."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    train: Training
    """The training."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    log: LogKind | None = None
    """`tensorboard` writes loss and accuracy of every epoch to the folder `tensorboard` beside the network. It needs
    `genet-nas[tensorboard]`."""

    @field_validator("train")
    @classmethod
    def _there_is_no_masternet(cls, train: Training) -> Training:
        if train.init == "masternet":
            remedy = "leave it out, and give genet train --from FOLDER"
            raise broken_rule(f"must not have init: masternet, as there is no search; {remedy}")
        return train

    @field_validator("device")
    @classmethod
    def _device_is_here(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise broken_rule("must be auto, cpu, cuda or cuda:N", "auto")
        return device


DistillMode = Literal["whole", "superblock", "local", "features"]


class Distill(Schedule):
    """The trials: how long they fine-tune a perturbed network, which parts they train, and which perturbations they try."""

    mode: DistillMode = "features"
    """The trained parts. `features`: the replaced super-block and the first block after it learn to reproduce the MasterNet's
    activations, without labels. `local`: these two and the classifier, with labels. `superblock`: the replaced super-block only
    (GENet paper, section 4.2). `whole`: the network."""
    sampling: Literal["designed", "random"] = "designed"
    """`designed` spreads perturbations over depth and width; `random` draws them as the paper does."""
    paired_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Number of paired trials (two perturbations at once), as a share of all others. They show whether effects add up."""
    patience: Annotated[int, Field(ge=0)] = 3
    """A trial ends early after this many epochs without a rise of validation accuracy, not counting the warm-up. 0: never."""
    time_limit_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which a trial is given up. A worker without progress for as long is killed, and its trials run again."""


RegressionModel = Literal["auto", "paper"]


class Fit(Described):
    """The regression that predicts accuracies from trials."""

    model: RegressionModel = "auto"
    """`paper` is the paper's form; `auto` shrinks effects towards the prediction from size alone."""


class Select(Described):
    """The selection of networks by their predictions."""

    budgets: Annotated[tuple[Budget, ...], NonEmpty]
    """Latency budgets: milliseconds per batch such as `5ms`, milliseconds per image such as `0.2ms/image` (or a number alone), or
    multiples of the MasterNet's latency such as `0.5x`."""
    measure_top_k: Count = 3
    """Number of candidates that are measured as whole networks at a time."""
    method: Literal["exact", "random"] = "exact"
    """`exact` searches all networks of the space; `random` takes the best of `random_samples`, as the paper does."""
    random_samples: Count = 100_000
    """Number of networks drawn by `method: random`."""
    filter: Literal["utilization"] | None = None
    """`utilization` keeps only candidates that no faster one beats in utilization (utilization paper, section 4.3)."""

    @field_validator("budgets")
    @classmethod
    def _budgets_differ(cls, budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
        if len(set(budgets)) < len(budgets):
            raise broken_rule("must all differ")
        return budgets


class Race(Described):
    """The networks that compete for each budget. Every known design enters, scaled to every budget."""

    effort: Literal["quick", "normal", "thorough"] = "normal"
    """Sets the counts you do not give. `quick` races only at the resolution with the best prediction."""
    designs: tuple[str, ...] = ()
    """Your own designs, in addition to the known ones: network files, notations, folders or timm models."""
    searched: Count | None = None
    """Number of networks with the best predictions that enter, per budget and resolution: 1, 2 or 4 by effort."""
    finalists: Annotated[float | None, Field(gt=0, le=1)] = None
    """Share of the entrants that is trained fully after the short trainings, at least two: 1/3, 1/3 or 1/2 by effort."""
    trainings: Count | None = None
    """Most full trainings of a network within two standard errors of the best: 1, 2 or 3 by effort."""

    @property
    def counts(self) -> tuple[int, float, int]:
        """Searched networks, share of finalists, and most trainings of one."""
        usual = {"quick": (1, 1 / 3, 1), "normal": (2, 1 / 3, 2), "thorough": (4, 1 / 2, 3)}[self.effort]
        searched, finalists, trainings = usual
        return self.searched or searched, self.finalists or finalists, self.trainings or trainings


class Search(Described):
    """The joint trials: short trainings of whole networks near the budgets, before the race, to find the best ones."""

    effort: Literal["quick", "normal", "thorough"] = "normal"
    """Sets their number if you do not give it: 6, 12 or 24."""
    joint_trials: Annotated[int, Field(ge=0)] | None = None
    """Their number; each costs two fifths of a full training. 0: only trials of single super-blocks, as in the paper."""

    @property
    def count(self) -> int:
        """Return how many joint trials there are."""
        return {"quick": 6, "normal": 12, "thorough": 24}[self.effort] if self.joint_trials is None else self.joint_trials


APART: dict[str, Any] = dict.fromkeys(("name", "measure", "fit", "select", "search", "race", "train", "log"), True)
APART |= {"data": {"workers", "root"}, "master": {"folder"}, "distill": {"time_limit_s"}}  # keys that no trial depends on


class Recipe(Described):
    """Everything a job needs; with the seed it decides every random choice."""

    name: Name
    """Name of the job; its run folder is `runs/NAME`."""
    space: SearchSpace
    """The search space: its keys, a file beside the recipe, or the name of a space that comes with genet."""
    data: Data = Data()
    """The images."""
    augment: Augmentation = None
    """Augmentation of every training. The final trainings may have their own."""
    measure: Measure = Measure()
    """How latency is measured."""
    resolution: Count | None = None
    """Resolution of the MasterNet and the trials in pixels. The default is the space's largest."""
    master: Master
    """Training of the MasterNet. With `from` it starts from the weights of another network; `from` alone uses a trained
    MasterNet as it is."""
    distill: Distill
    """The trials."""
    fit: Fit = Fit()
    """The regression."""
    select: Select
    """The selection."""
    search: Search = Search()
    """The joint trials."""
    race: Race = Race()
    """The race."""
    train: Training
    """Training of the networks that race."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    log: LogKind | None = None
    """`tensorboard` writes loss and accuracy of every epoch of every training, and trials as they finish, to the run's folder
    `tensorboard`. It needs `genet-nas[tensorboard]`."""

    @field_validator("resolution")
    @classmethod
    def _resolution_is_in_the_space(cls, resolution: int | None, info: ValidationInfo) -> int | None:
        if resolution is not None and "space" in info.data:
            offered = info.data["space"].input.resolutions
            if resolution not in offered:
                raise broken_rule(f"must be one of the space's resolutions {', '.join(map(str, offered))}")
        return resolution

    @field_validator("select")
    @classmethod
    def _budgets_differ_at_the_batch(cls, select: Select, info: ValidationInfo) -> Select:
        if "measure" in info.data:
            batch, first = info.data["measure"].batch, dict[str, Budget]()
            for budget in (each for each in select.budgets if not each.relative):
                other = first.setdefault(f"{budget.ms(math.nan, batch):.9g}", budget)
                if other is not budget:
                    raise broken_rule(f"must have budgets that differ: {other} is {budget} at batch {batch}")
        return select

    @field_validator("master")
    @classmethod
    def _a_tournament_finds_what_is_trained(cls, master: Master, info: ValidationInfo) -> Master:
        if isinstance(master, PretrainedMaster | TunedMaster) and "space" in info.data and info.data["space"].masternets:
            raise broken_rule("must be a training, as the space's masternets compete to be the MasterNet; leave one of both out")
        return master

    @field_validator("train")
    @classmethod
    def _joint_trials_are_shorter(cls, train: Training, info: ValidationInfo) -> Training:
        if train.epochs == 1 and "search" in info.data and info.data["search"].count:
            raise broken_rule("must have at least 2 epochs, as joint trials are shorter; raise epochs, or set joint_trials: 0")
        return train

    @property
    def search_resolution(self) -> int:
        """Resolution at which the MasterNet is trained and perturbed; budgets such as 0.5x refer to it."""
        return self.resolution or max(self.space.input.resolutions)

    @property
    def evidence_digest(self) -> str:
        """Names what the trials depend on, besides the images and a MasterNet from elsewhere, which are known by what they hold.

        Budgets and the final training are not part of it, so changing them repeats nothing; nor is the way of
        measuring, for every row of the latency table carries its own setting, nor a log.
        """
        tuned = "/tuned" if isinstance(self.master, TunedMaster) else ""
        return digest(self.model_dump_json(exclude=APART) + tuned)[:12]
