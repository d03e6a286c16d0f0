"""The step of a training: gradients as they should be."""

from __future__ import annotations

import torch
from torch import nn

from genet.config.recipe import Schedule
from genet.training.learner import Learner


def test_a_narrow_strided_projection_has_the_gradient_of_double_precision_and_answers_as_before() -> None:
    """Without slices the process of this test dies on some processors."""
    torch.manual_seed(0)
    projection, images = nn.Conv2d(13, 48, 1, 2, bias=False), torch.randn(8, 13, 112, 112)
    exact = projection.weight.detach().double().requires_grad_()
    nn.functional.conv2d(images.double(), exact, stride=2).square().sum().backward()
    before = projection(images)
    module = nn.Sequential(projection).to(memory_format=torch.channels_last).train()
    Learner(module, Schedule(epochs=1, batch=8, learning_rate=0.1))
    module(images.to(memory_format=torch.channels_last)).square().sum().backward()
    torch.testing.assert_close(projection.weight.grad.double(), exact.grad, rtol=1e-4, atol=1e-3)
    assert torch.equal(module.eval()(images), before)
