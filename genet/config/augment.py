"""Augmentation of training images: the options of a recipe, and the default for images without options."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from genet.arch.network import broken_rule
from genet.storage import Described

SMALL = 64  # pixels; such images are augmented whole: ImageNet's crops would cut the object away


Share = Annotated[float, Field(gt=0, le=1)]
Range = Annotated[tuple[Share, Share], BeforeValidator(lambda found: tuple(found) if isinstance(found, list) else found)]


class Augment(Described):
    """Random changes to training images, in the order they are applied. Keys you leave out are off."""

    crop: Annotated[int, Field(ge=0)] = 0
    """Pixels of padding on every side, before a window of the original size is cut out."""
    scale: Range | None = None
    """Smallest and largest share of the area in a random window, which is cut out and resized. Not with `crop`."""
    flip: bool = False
    """Whether images are mirrored, each with a probability of one half."""
    policy: str | None = None
    """One of timm's policies, such as `original` (AutoAugment) or `rand-m9-mstd0.5`."""
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of random brightness, contrast and saturation."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Edge of a random square that is greyed, in pixels."""

    @field_validator("scale")
    @classmethod
    def _one_crop_alone(cls, scale: tuple[float, float] | None, info: ValidationInfo) -> tuple[float, float] | None:
        if scale and scale[0] > scale[1]:
            raise broken_rule("must go from the smaller share of the area to the larger")
        if scale and info.data.get("crop"):
            raise broken_rule("cannot be combined with crop; leave one of them out")
        return scale

    @property
    def in_memory(self) -> bool:
        """Return whether it can be computed for a whole batch of decoded images, where they are kept."""
        return self.scale is None and self.policy is None and not self.color_jitter

    def __str__(self) -> str:
        named = {name: value for name, value in self.model_dump(exclude_defaults=True).items() if value is not True}
        words = [f"{name} {_shares(value) if name == 'scale' else value}" for name, value in named.items()]
        return ", ".join([*words, *(["flip"] if self.flip else [])]) or "none"


def _shares(scale: tuple[float, float]) -> str:
    return f"{scale[0]:g} to {scale[1]:g}"


def _none(value: Any) -> Any:
    if value == "none":
        return Augment()
    if isinstance(value, str):
        raise broken_rule("must be none, or a mapping such as {crop: 4, flip: true}", f"{{policy: {value}}}")
    return value


Augmentation = Annotated[Augment | None, BeforeValidator(_none)]  # None: the default for the images


def augment_at(wanted: Augment | None, data_name: str | None, resolution: int) -> Augment:
    """Return the augmentation of images at a resolution: the wanted one, or that which trained best (benchmarks/README.md).

    Larger images get the augmentation of ImageNet trainings, the GENet paper's among them (section 5); unnamed images get none.
    """
    if wanted is not None:
        return wanted
    if data_name is None:
        return Augment()
    if data_name == "digits":
        return Augment(crop=resolution // 16)
    if resolution <= SMALL:
        return Augment(crop=resolution // 8, flip=True)
    return Augment(scale=(0.08, 1.0), flip=True, color_jitter=0.4)
