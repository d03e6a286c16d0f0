"""What tells two networks of one function's name apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from genet.models.external import build_structure
from genet.models.fingerprint import fingerprint, same_fingerprint
from tests.fixtures import others
from tests.models.test_plain import foreign


def net(change: Callable[[others.Net], object] = lambda net: None) -> nn.Module:
    found = others.Net()
    change(found)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.mid.__setitem__(2, nn.Sigmoid()),
        lambda net: setattr(net.stem[1], "eps", 0.01),
        lambda net: setattr(net.mid[0], "padding_mode", "reflect"),
        lambda net: setattr(net, "last", others.conv(48, 48).append(nn.Dropout(0.5)).append(nn.Tanh())),
    ],
)
def test_another_network_of_the_same_weights_computes_otherwise(change: Callable[[others.Net], object]) -> None:
    assert not same_fingerprint(fingerprint(net(change), 8, 1), fingerprint(net(), 8, 1))


def test_the_weights_that_a_network_comes_with_do_not_count_and_stay_as_they_are() -> None:
    drawn = net(lambda net: nn.init.constant_(net.head.weight, float(np.random.default_rng().random())))
    drawn.stem.eval()
    before = {name: tensor.clone() for name, tensor in drawn.state_dict().items()}
    assert fingerprint(drawn, 8, 1) == fingerprint(net(), 8, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in drawn.state_dict().items())
    assert (drawn.training, drawn.stem.training, drawn.mid.training) == (True, False, True)


@pytest.mark.parametrize("name", ["parametrized", "hooked", "masked", "half", "lazy", "main_last", "Tied", "Looks"])
def test_it_is_the_same_at_every_call_of_a_function(name: str) -> None:
    first, second = (fingerprint(build_structure(foreign(getattr(others, name)), seed), 8, 1) for seed in (0, 1))
    assert first == second
    assert "nan" not in first


@pytest.mark.parametrize(("other", "same"), [("8x1:10.009:1:nan", True), ("8x1:10.02:1:nan", False), ("8x3:10:1:nan", False)])
def test_rounding_is_no_difference(other: str, same: bool) -> None:
    assert same_fingerprint(other, "8x1:10:1:nan") == same
