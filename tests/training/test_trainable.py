"""A network that answers otherwise while it is trained: trained by its logits, or refused before anything is spent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from genet.errors import GenetError
from genet.models.external import build_structure
from genet.training.trainable import ready_to_train
from tests.fixtures import others
from tests.models.test_plain import foreign

AUXILIARY = [(others.main_first, 0), (others.main_last, 2), (others.named, 0), (others.by_name, "out"), (others.nested, 0)]


@pytest.mark.parametrize(("function", "main"), AUXILIARY)
def test_of_several_answers_the_logits_that_it_is_used_for_are_trained(function: Callable[[], nn.Module], main: object) -> None:
    module, images = build_structure(foreign(function)), torch.randn(4, 1, 8, 8)
    told = ready_to_train(module, foreign(function))
    assert told == f"trained by its logits, [{main!r}] of its output in training mode; its auxiliary heads stay untrained"
    logits = module.train()(images)
    logits.sum().backward()
    learns = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert learns == {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert learns == {name for name, _ in others.plain().named_parameters()}
    assert module.eval()(images).shape == logits.shape == (4, 10)


@pytest.mark.parametrize("function", [others.plain, others.half_frozen, others.Convolutional, others.lazy])
def test_a_network_that_always_answers_with_logits_is_left_as_it_is(function: Callable[[], nn.Module]) -> None:
    module = build_structure(foreign(function))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert ready_to_train(module, foreign(function)) is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("function", "law"),
    [
        (
            others.features_alone,
            r"got 2 x 48 in training mode, expected the same logits \(2 x 10\) as in eval mode; let its",
        ),
        (others.second_alone, r"got 2 x 10 in training mode, .*; let its forward return them in training mode too"),
        (others.Taught, r"failed in training mode when given only images \(labels, please\); let its forward"),
        (others.frozen, "got weights that are all frozen, expected some to train; set requires_grad"),
        (others.Always, "returned a dict, expected one tensor of logits; wrap it in a module"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused(function: Callable[[], nn.Module], law: str) -> None:
    with pytest.raises(GenetError, match=law) as refused:
        ready_to_train(build_structure(foreign(function)), foreign(function))
    assert "\n" not in str(refused.value)


def test_a_network_for_other_classes_than_its_file_says_is_refused() -> None:
    wrong = foreign(others.plain)
    wrong = wrong.model_copy(update={"input": wrong.input.model_copy(update={"classes": 7})})
    with pytest.raises(GenetError, match="got 10 logits, expected 7"):
        ready_to_train(build_structure(wrong), wrong)
