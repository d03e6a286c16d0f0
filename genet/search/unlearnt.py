"""What to change in the training of a network that has learnt nothing, as far as the curve of its loss tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from genet.config.recipe import Schedule
from genet.names import counted

FEWEST = 3  # epochs of a curve that tells anything
MOVED = 0.02  # share of the loss of guessing: one that rises by more grew
FELL = 0.005  # the same of one that falls
BY_HEART = 0.25  # the same of one that learnt the training images, whatever others say
LOWER, HIGHER, LONGER = 1 / 4, 10, 3  # times a learning rate, or epochs


class Remedy(NamedTuple):
    """Why a network has probably learnt nothing, and the value of its schedule to change, such as `epochs=60`, if one helps."""

    cause: str
    change: str


def remedy(losses: Sequence[float], schedule: Schedule, classes: int) -> Remedy:
    """Return the likely cause by the training losses of all epochs: the learning rate, too few epochs, or the images."""
    guessing, longer = math.log(classes), f"epochs={LONGER * schedule.epochs}"
    if len(losses) < FEWEST <= schedule.epochs:
        return Remedy("the cause is not known, as there is no curve of its loss", longer)
    if len(losses) < FEWEST:
        return Remedy(f"it was trained for only {counted(schedule.epochs, 'epoch')}", longer)
    first, last, worst = losses[0], losses[-1], max(losses)
    course = f"from {first:.4g} to {last:.4g} (guessing: {guessing:.4g})"
    if last < (1 - BY_HEART) * guessing:
        return Remedy(
            f"its training loss fell {course}: it learnt the training images, but nothing that holds for the held-out ones", ""
        )
    if last < min(first, guessing) * (1 - FELL):
        return Remedy(f"its training loss fell slowly, {course}: there are too few epochs", longer)
    if worst > max(first, guessing) * (1 + MOVED):
        course = f"from {first:.4g} to {worst:.4g} (guessing: {guessing:.4g})"
        return Remedy(f"its training loss grew {course}: the learning rate is too high", lower_rate(schedule))
    if worst - min(losses) < FELL * guessing:
        return Remedy(f"its training loss went {course}: the learning rate is too low", _rate(HIGHER * schedule.learning_rate))
    return Remedy(f"its training loss went {course} and stopped there: the learning rate is too high", lower_rate(schedule))


def lower_rate(schedule: Schedule) -> str:
    """Return the change to a lower learning rate."""
    return _rate(LOWER * schedule.learning_rate)


def _rate(value: float) -> str:
    return f"learning_rate={value:.3g}"
