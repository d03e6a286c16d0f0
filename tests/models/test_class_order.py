"""Logits in the order of other labels, of any network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from genet.arch.network import Network
from genet.models.build import build
from genet.models.class_order import numbered_like

OURS = build(Network.parse("@8x1 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | 3")).eval()
OTHERS = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize("network", [OURS, OTHERS], ids=["super-blocks", "other code's"])
def test_the_logits_of_any_network_come_in_the_order_wanted(network: nn.Module) -> None:
    images = torch.randn(4, 1, 8, 8)
    found = numbered_like(copy.deepcopy(network), ("a", "b", "c"), ("c", "a", "b"))
    assert found is not None
    assert torch.allclose(found.eval()(images), network(images)[:, [2, 0, 1]], atol=1e-6)


def test_unnamed_classes_are_the_same_and_others_are_not() -> None:
    assert numbered_like(OTHERS, None, ("a", "b", "c")) is OTHERS
    assert numbered_like(OTHERS, ("a", "b", "c"), ("a", "b", "d")) is None
