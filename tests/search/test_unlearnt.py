"""What the losses of a network that has learnt nothing tell of its training."""

from __future__ import annotations

import pytest

from genet.config.recipe import Schedule
from genet.search.unlearnt import remedy

SCHEDULE = Schedule(epochs=20, learning_rate=0.8)


UNKNOWN = ("the cause is not known, as there is no curve of its loss", "epochs=60")
HIGH, LOW = ("the learning rate is too high", "learning_rate=0.2"), ("the learning rate is too low", "learning_rate=8")
FEW = ("there are too few epochs", "epochs=60")
BY_HEART = ("it learnt the training images, but nothing that holds for the held-out ones", "")


@pytest.mark.parametrize(
    ("losses", "told"),
    [  # guessing among four has 1.386
        ((1.40, 1.90, 1.50, 1.39), HIGH),
        ((1.45, 1.40, 1.387, 1.386), HIGH),  # it fell to guessing, and no further
        ((1.388, 1.387, 1.386, 1.386), LOW),
        ((1.40, 1.39, 1.38, 1.37), FEW),
        ((1.40, 1.60, 1.38, 1.30), FEW),  # it has recovered
        ((), UNKNOWN),  # by an earlier version, which kept no curve
        ((1.40, 1.0, 0.5), BY_HEART),
    ],
)
def test_a_rate_too_high_is_told_from_one_too_low_from_too_few_epochs_and_from_other_images(
    losses: tuple[float, ...], told: tuple[str, str]
) -> None:
    found = remedy(losses, SCHEDULE, 4)
    assert (found.cause.split(": ")[-1], found.change) == told


def test_two_epochs_are_too_few_to_tell_more() -> None:
    assert remedy((1.40, 1.39), SCHEDULE.model_copy(update={"epochs": 2}), 4) == ("it was trained for only 2 epochs", "epochs=6")


def test_the_course_of_the_loss_is_told_beside_that_of_guessing() -> None:
    grew = remedy((1.40, 1.90, 1.39), SCHEDULE, 4).cause
    assert grew == "its training loss grew from 1.4 to 1.9 (guessing: 1.386): the learning rate is too high"
