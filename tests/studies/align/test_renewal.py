"""Statistics of batch normalisations after a cut."""

from __future__ import annotations

import copy

import torch

from genet.studies.align.kept import with_new_statistics
from genet.training.image_sets import TensorImages
from tests.fixtures import align_networks as nets

PIXELS = torch.randn(256, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 3


def test_statistics_become_those_of_the_images_and_nothing_else_changes() -> None:
    module = nets.residual().eval()
    before = copy.deepcopy(module.state_dict())
    found = with_new_statistics(module, TensorImages(PIXELS, torch.zeros(256, dtype=torch.long)), 8, torch.device("cpu"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    convolution, norm = found.stem[0], found.stem[1]
    assert torch.allclose(norm.running_mean, convolution(PIXELS).mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, convolution(PIXELS).var((0, 2, 3)), rtol=1e-2)
    assert not found.training
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.endswith(("mean", "var", "tracked"))
