"""Accuracies on parts of the images that are held out in turn, and what they tell of which network is better."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest

from genet.search.scores import Comparison, Score, packed_answers, standard_error

IMAGES = 500


def score(*answers: np.ndarray, parts: tuple[int, ...] = ()) -> Score:
    """A network of which it is known which images every training classifies correctly."""
    reached = tuple(float(each.mean()) for each in answers)
    packed = tuple(map(packed_answers, answers))
    return Score(held_out=reached, test=reached, held_out_images=len(answers[0]), test_images=10_000, parts=parts, right=packed)


def first(right: int) -> np.ndarray:
    """Answers of which so many are right, always the same images first."""
    return np.arange(IMAGES) < right


def test_a_standard_error_has_the_luck_of_images_and_that_of_trainings() -> None:
    assert standard_error([0.9], 1000, 0.0) == pytest.approx(math.sqrt(0.09 / 1000))
    assert standard_error([0.9, 0.9], 1000, 0.0) == standard_error([0.9], 1000, 0.0)  # the same images again
    assert standard_error([0.9, 0.9], 1000, 0.0004) == pytest.approx(math.sqrt(0.09 / 1000 + 0.0002))
    assert standard_error([1.0], 50, 0.0) > 0.01


def test_a_part_of_easy_images_makes_no_network_look_better_than_one_that_it_did_not_judge() -> None:
    compared = Comparison({"twice": score(first(300), first(400), parts=(0, 1)), "once": score(first(300), parts=(0,))})
    assert compared.accuracy("twice") == pytest.approx(compared.accuracy("once")) == pytest.approx(0.6)  # of the first part
    lead, _ = compared.lead("twice", "once")
    assert lead == pytest.approx(0.0)


def test_no_accuracy_is_beyond_1_however_hard_the_other_part_is() -> None:
    compared = Comparison(
        {"most": score(first(490), first(450), parts=(0, 1)), "all": score(first(500), first(500), parts=(0, 1))}
    )
    assert (compared.accuracy("most"), compared.accuracy("all")) == (pytest.approx(0.96), 1.0)


def test_the_luck_of_trainings_that_hold_out_other_images_does_not_shrink_the_error_of_a_lead() -> None:
    """One began with inherited weights, and holds out the same images always."""
    inherited, fresh = score(first(300), first(340), first(260)), score(first(300), first(300), first(300), parts=(0, 1, 2))
    compared = Comparison({"inherited": inherited, "fresh": fresh})
    assert compared.lead("inherited", "fresh")[1] ** 2 > compared._variance * (1 + 1 / 3)


def test_images_that_both_networks_classify_alike_add_nothing_to_the_error_of_a_lead() -> None:
    alike = Comparison({"one": score(first(310)), "other": score(first(300))})
    unlike = Comparison({"one": score(first(310)), "other": score(first(300)[::-1])})
    share = 10 / IMAGES
    assert alike.lead("one", "other") == pytest.approx((share, math.sqrt(share * (1 - share) / IMAGES)))
    assert unlike.lead("one", "other")[1] > 5 * alike.lead("one", "other")[1]
    unknown = Comparison({name: score(first(300)).model_copy(update={"right": ()}) for name in ("one", "other")})
    assert unknown.lead("one", "other")[1] == pytest.approx(math.sqrt(2) * unknown.error("one"))


def test_networks_that_classify_all_of_few_images_alike_are_no_certainty() -> None:
    assert Comparison({"one": score(first(3)[:5]), "other": score(first(3)[:5])}).lead("one", "other")[1] > 0.05


def test_the_error_of_a_lead_is_that_which_leads_over_equal_networks_have() -> None:
    """Four equal networks, trained once per part: images have a difficulty, trainings a luck of their own, and one per image."""
    rng, surprises, turns = np.random.default_rng(0), [], (0, 1)
    for _ in range(150):
        difficulty = {part: rng.normal(0.3, 1.0, IMAGES) for part in turns}
        drawn = {
            name: [difficulty[part] + rng.normal(0, 0.03) + rng.normal(0, 0.8, IMAGES) > 0 for part in turns] for name in "abcd"
        }
        compared = Comparison({name: score(*answers, parts=turns) for name, answers in drawn.items()})
        lead, error = compared.lead("a", "b")
        surprises.append(lead / error)
    assert 0.8 < math.sqrt(fmean(each * each for each in surprises)) < 1.2
