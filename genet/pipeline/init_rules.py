"""The first recipe for a folder of images: settings that suit them, each with its reason (docs/your-own-images.md).

A choice carries the values that it changes in the templates of recipe and search space; all others stay as in the templates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from genet.arch.network import Network
from genet.arch.space import SearchSpace, SpaceInput
from genet.config.augment import SMALL
from genet.config.budget import Budget, four_digits
from genet.latency.noise import TOO_NOISY
from genet.names import counted
from genet.pipeline.reach import BudgetOutlook
from genet.search.known_designs import scaled
from genet.training.inventory import Inventory

EDGES = (32, 48, 64, 96, 128, 160, 192, 224)  # resolutions to choose from, in pixels
LAST_MAP = 4  # pixels of the last feature map at least
LARGEST_SHARE, LEAST_SHARE, ENOUGH = 0.25, 0.04, 5_000  # held out: so many images, between these shares of all
TIMINGS = 5  # of a network at most
FEWEST_STEPS, SMALLEST_BATCH = 8, 4  # steps of an epoch, if they can be had, and images of a step
MILD = 50_000  # images: with fewer ImageNet's augmentation is too strong
FAR = 2.0  # the MasterNet is narrowed if it takes so many times the budget, and widened if the budget is so many times as long
NARROWEST, WIDEST = 1 / 8, 4.0  # times the template's widths
WITHOUT_TIMM = f"all but timm, whose models halve the image in their first layer; below {SMALL} pixels these networks do not"
FLIPS = "leave flip out if left and right matter"


@dataclass(frozen=True)
class RecipeChoice:
    """Something chosen and why, with the values that it sets in the recipe and in the search space."""

    what: str
    why: str
    recipe: dict[str, str] = field(default_factory=dict)
    space: dict[str, str] = field(default_factory=dict)


class Regime(NamedTuple):
    """The settings for an amount of images: with fewer, networks are smaller, and trained more often on each image."""

    fewer_than: float  # images to train on, those held out among them
    edge: int  # resolution at most
    batch: int
    epochs: int  # of a full training; the MasterNet's has half of them
    trial_epochs: int
    rate: float  # learning rate per 256 images
    weight_decay: str
    share: float  # of the template's widths
    trials_per_type: int
    effort: str  # of joint trials and race


REGIMES = (
    Regime(500, 64, 8, 40, 4, 0.8, "5e-4", 0.25, 3, "quick"),
    Regime(5_000, 96, 32, 40, 3, 0.8, "5e-4", 0.5, 3, "quick"),
    Regime(50_000, 128, 128, 50, 2, 0.2, "5e-4", 1.0, 4, "quick"),
    Regime(500_000, 160, 256, 60, 1, 0.1, "5e-4", 1.0, 6, "normal"),
    Regime(math.inf, 224, 256, 120, 1, 0.1, "4e-5", 1.0, 6, "normal"),
)


class BriefTiming(NamedTuple):
    """A network's ms per batch: the shortest of some brief timings, and how far the longest is above it, as a share."""

    ms: float
    spread: float
    setting: str = ""  # in words
    threads: int | None = None  # with which it is clearly faster than with all; None: with all, or with those given
    by_threads: tuple[tuple[int | None, float], ...] = ()  # ms with so many, if they were compared, all of them first

    def __str__(self) -> str:
        told = f"{four_digits(self.ms)} ms per batch here (the shortest of timings that spread by {self.spread:.0%})"
        busy = self.spread > TOO_NOISY
        return told + (": other work disturbs this machine, and on a quiet one another choice may be better" if busy else "")


@dataclass(frozen=True)
class SettingsForImages:
    """The settings that suit a folder of images, and the MasterNet that a search begins with."""

    images: Inventory
    template: SearchSpace

    @property
    def count(self) -> int:
        """Images to train on, including those held out."""
        return sum(self.images.train.values())

    @property
    def regime(self) -> Regime:
        """The settings for so many images."""
        return next(each for each in REGIMES if self.count < each.fewer_than)

    @property
    def resolution(self) -> int:
        """The largest resolution that is worth its time with so many images, and that does not enlarge most of them."""
        most = min(self.regime.edge, self.images.edge)
        return max((edge for edge in EDGES if edge <= most), default=EDGES[0])

    @property
    def batch(self) -> int:
        """Images per training step: the regime's, or half of it as long as an epoch has too few steps."""
        batch, kept = self.regime.batch, self.count - round(self.held_out * self.count)
        while kept // batch < FEWEST_STEPS and batch > SMALLEST_BATCH:
            batch //= 2
        return batch

    @property
    def held_out(self) -> float:
        """The share of the images that decides: enough to tell networks apart, a quarter at most."""
        return max(LEAST_SHARE, min(LARGEST_SHARE, round(ENOUGH / self.count, 2)))

    @property
    def stem_stride(self) -> int:
        """The stride of the stem: small images are not halved by it."""
        return 1 if self.resolution < SMALL else 2

    def space(self, share: float) -> SearchSpace:
        """Return the template's space for these images, with its widths times `share`."""
        size, own = self.resolution, self.template
        whole = math.log2(size / LAST_MAP) >= 1 + len(own.superblocks)  # the stem and each super-block halve the image
        stem = own.stem.model_copy(update={"stride": self.stem_stride})
        first, *others = own.superblocks
        first = first.model_copy(update={"stride": 2 if whole else 1})
        channels, classes = 1 if self.images.grey else 3, len(self.images.train)
        input_ = SpaceInput(channels=channels, classes=classes, resolutions=(size,))
        sized = own.model_copy(update={"input": input_, "stem": stem, "superblocks": (first, *others)})
        found = scaled(sized.masternet(size), share)
        return sized.model_copy(update={"stem": found.stem, "superblocks": found.superblocks, "head": found.head})

    def choices(self) -> list[RecipeChoice]:
        """Return all choices but the space's widths."""
        regime, count, size = self.regime, self.count, self.resolution
        few = f"as there are fewer than {regime.fewer_than:,} images" if regime.fewer_than < math.inf else f"for {count:,} images"
        edge = self.images.edge
        why = f"more would gain little, {few}" if size == regime.edge else f"half of the images are no larger than {edge}"
        held_out = round(self.held_out * count)
        schedule = f"batch: {self.batch}, learning_rate: {regime.rate:g}, warmup_epochs: 5, weight_decay: {regime.weight_decay}"
        trainings = {
            name: f"{{epochs: {epochs}, {schedule}, label_smoothing: 0.1}}"
            for name, epochs in (("master", regime.epochs // 2), ("train", regime.epochs))
        }
        trials = {"epochs": regime.trial_epochs, "batch": self.batch, "learning_rate": f"{regime.rate / 4:g}"}
        return [
            RecipeChoice("resolution", f"{size} pixels; {why}"),
            *([RecipeChoice("formats", WITHOUT_TIMM)] if self.stem_stride == 1 else []),
            RecipeChoice(
                "held out",
                f"{self.held_out:g} of the training images, about {held_out:,}; they decide between networks",
                {"data.nas_validation": f"{self.held_out:g}"},
            ),
            RecipeChoice(
                "batch",
                f"{self.batch} images per training step, {counted((count - held_out) // self.batch or 1, 'step')} per epoch",
            ),
            RecipeChoice(
                "epochs",
                f"{regime.epochs} per full training, {regime.epochs // 2} for the MasterNet, {regime.trial_epochs} per trial, "
                f"{few}",
                {**trainings, **{f"distill.{key}": str(value) for key, value in trials.items()}},
            ),
            _augmentation(size, count),
            RecipeChoice(
                "effort",
                f"{regime.effort}, with {regime.trials_per_type} trials per block type, {few}",
                {"search.effort": regime.effort, "race.effort": regime.effort},
                {"perturb.trials_per_type": str(regime.trials_per_type)},
            ),
        ]

    def masternet_choice(
        self, limit_ms: float | None, timed: Callable[[Network], BriefTiming | None]
    ) -> tuple[RecipeChoice, SearchSpace, BriefTiming | None]:
        """Return the choice of the space's widths, the space, and the latency of its MasterNet.

        `limit_ms` is the largest budget in ms per batch, if there is one in milliseconds; `timed` gives the latency of a network
        where it will serve, None if it cannot be timed here.
        """
        share = usual = self.regime.share
        found = timed(self._masternet(share))
        while limit_ms and found and found.ms > FAR * limit_ms and share > NARROWEST:
            share /= 2
            found = timed(self._masternet(share))
        while limit_ms and found and FAR * found.ms < limit_ms and usual <= share < WIDEST and self.count >= MILD:
            share *= 2
            found = timed(self._masternet(share))
        description = f"{share:g} times the template's widths" if share != 1 else "the template's widths"
        description += f"; its MasterNet takes {found}" if found else ""
        space = self.space(share)
        return RecipeChoice("space", description, space=_values(space)), space, found

    def _masternet(self, share: float) -> Network:
        return self.space(share).masternet(self.resolution)


def measured_choices(masternet: BriefTiming, smallest: BriefTiming | None, batch: int) -> list[RecipeChoice]:
    """Return what the latencies of the MasterNet and of the network with the fewest MACs tell: threads, and budgets in reach."""
    found = []
    if masternet.by_threads:
        (every, every_ms), (one, one_ms) = masternet.by_threads
        chosen = f"{one}, which is faster" if masternet.threads else f"all {every}"
        told = f"{chosen}: the MasterNet takes {four_digits(one_ms)} ms per batch with {one}"
        told += f" and {four_digits(every_ms)} with {every}"
        found.append(RecipeChoice("threads", told, {"measure.threads": "1"} if masternet.threads else {}))
    found.append(
        RecipeChoice("latencies", f"on {masternet.setting}; each network is timed up to {TIMINGS} times, and the shortest counts")
    )
    if smallest:
        least = Budget(float(f"{smallest.ms:.3g}"), "ms")
        forms = least.all_forms(masternet.ms, batch)
        found.append(
            RecipeChoice("in reach", f"budgets of about {forms} or more, the latency of the network with the fewest MACs")
        )
    return found


def budget_choice(budgets: Sequence[BudgetOutlook], given: bool) -> RecipeChoice:
    """Return the choice of budgets in all known forms, marking those that seem out of reach."""

    def told(each: BudgetOutlook) -> str:
        forms = f"{each.budget} ({each.others})" if each.others else str(each.budget)
        return f"{forms}, probably out of reach" if each.reachable is False else forms

    in_words = "; ".join(map(told, budgets))
    values = {"select.budgets": f"[{', '.join(str(each.budget) for each in budgets)}]"}
    return RecipeChoice("budget", in_words, values) if given else RecipeChoice("budget", f"none given, so {in_words}")


def _augmentation(size: int, count: int) -> RecipeChoice:
    if size <= SMALL:
        description = f"shifts of up to {size // 8} pixels and flips, as is usual up to {SMALL} pixels"
        return RecipeChoice("augment", f"{description}; {FLIPS}", {"augment": f"{{crop: {size // 8}, flip: true}}"})
    if count < MILD:
        description = f"crops of at least 35 % of the area and flips, as there are fewer than {MILD:,} images"
        return RecipeChoice("augment", f"{description}; {FLIPS}", {"augment": "{scale: [0.35, 1], flip: true}"})
    usual = {"augment": "{scale: [0.08, 1], flip: true, color_jitter: 0.4}"}
    return RecipeChoice("augment", f"as in ImageNet trainings; {FLIPS}", usual)


def _values(space: SearchSpace) -> dict[str, str]:
    """Return the values of a space that differ from the template."""
    input_, head = space.input, space.head
    found = {"input.channels": input_.channels, "input.classes": input_.classes, "input.resolutions": [*input_.resolutions]}
    found |= {"stem.width": space.stem.width, "stem.stride": space.stem.stride}
    for place, superblock in enumerate(space.superblocks):
        found |= {f"superblocks.{place}.width": superblock.width, f"superblocks.{place}.stride": superblock.stride}
    return {key: str(value) for key, value in (found | ({"head.width": head.width} if head else {})).items()}
