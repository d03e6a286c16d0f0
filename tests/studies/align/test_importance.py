"""How much the loss depends on channels and blocks, and which blocks a network can do without."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genet.arch.external import ExternalModel
from genet.arch.network import Input
from genet.models.cifar import BasicBlock, resnet20
from genet.studies.align.branches import removable_blocks, remove_blocks
from genet.studies.align.criteria import kept_channels
from genet.studies.align.importance import Importance, importance_of
from genet.studies.align.module_subject import ModuleSubject
from genet.studies.align.subject import Scope
from genet.training.image_sets import TensorImages
from tests.fixtures import align_networks as nets

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'genet-nas[align]'")

CPU = torch.device("cpu")
DRAWN = torch.Generator().manual_seed(0)
IMAGES = TensorImages(torch.randn(20, 1, 8, 8, generator=DRAWN), torch.randint(10, (20,), generator=DRAWN))


def subject(module: nn.Module, channels: int = 1, size: int = 8) -> ModuleSubject:
    reads = Input(channels=channels, classes=10, resolution=size)
    return ModuleSubject(ExternalModel(name="own", source="own:net", input=reads), module.eval())


def measured(found: ModuleSubject, images: TensorImages = IMAGES) -> Importance:
    return importance_of(found, images, CPU)


def test_a_channels_change_is_the_sum_of_weight_times_gradient_over_the_weights_that_read_it() -> None:
    module = nets.residual().eval()
    found = measured(subject(module), TensorImages(*next(IMAGES.batches(1, 8))))
    module.zero_grad()
    nn.functional.cross_entropy(module(next(IMAGES.batches(1, 8))[0]), next(IMAGES.batches(1, 8))[1]).backward()
    stream = ("blocks.0.conv1", "blocks.1.conv1", "blocks.1.shortcut.0")
    for group, readers in (("stem.0", stream), ("blocks.1.conv1", ("blocks.1.conv2",)), ("blocks.1.conv2", ("head",))):
        parts = [module.get_submodule(layer).weight for layer in readers]
        wanted = [(part * part.grad).transpose(0, 1).flatten(1).sum(1) for part in parts]
        other = [] if group != "blocks.1.conv2" else [module.blocks[2].conv1.weight]
        wanted += [(part * part.grad).transpose(0, 1).flatten(1).sum(1) for part in other]
        assert torch.allclose(found.units[group][0], sum(wanted), rtol=1e-3, atol=1e-6)


def test_dead_channels_are_cut_first_and_the_answer_stays() -> None:
    module = nets.residual().eval()
    dead = torch.arange(1, 32, 2)
    for tensor in (module.blocks[1].bn1.weight, module.blocks[1].bn1.bias):
        tensor.data[dead] = 0
    found = subject(module)
    importance = measured(found)
    group = found.tied.of("blocks.1.conv1")
    assert importance.lost(group, (16, 32)) == (0.0, 0.0)
    assert importance.lost(group, (15,))[0] > 0
    cut = found.build({group.name: 16}, kept_channels(found.tied, {group.name: 16}, importance.of))
    images = torch.randn(4, 1, 8, 8)
    assert torch.allclose(cut(images), module(images), atol=1e-5)


def test_a_block_whose_branch_is_zero_loses_nothing_and_the_answer_stays_without_it() -> None:
    module = nets.residual().eval()
    module.blocks[2].bn2.weight.data.zero_()
    module.blocks[2].bn2.bias.data.zero_()
    found = subject(module)
    importance = measured(found)
    assert importance.lost_with("blocks.2") == 0.0 < importance.lost_with("blocks.0")
    images = torch.randn(4, 1, 8, 8)
    assert torch.allclose(found.build({}, removed=["blocks.2"])(images), module(images), atol=1e-6)


def test_more_cut_channels_never_lose_less_and_together_at_least_as_much_as_each_by_itself() -> None:
    found = subject(nets.residual())
    importance = measured(found)
    for group in found.tied.groups:
        lost = importance.lost(group, range(group.units + 1))
        assert list(lost) == sorted(lost, reverse=True)
        alone = importance.of(group).sort().values.cumsum(0)
        assert all(lost[group.units - count] >= float(alone[count - 1]) * (1 - 1e-5) for count in range(1, group.units + 1))


class Awkward(nn.Module):
    """A block that can go, and others: run twice, looked into, with a projection, with an activation that changes what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nets.conv(1, 16)
        self.twice, self.known, self.projected = BasicBlock(16, 16, 1), BasicBlock(16, 16, 1), BasicBlock(16, 16, 1)
        self.projected.shortcut = nn.Conv2d(16, 16, 1)
        self.bent, self.free, self.head = BasicBlock(16, 16, 1), BasicBlock(16, 16, 1), nn.Linear(16, 10)
        self.bent.relu = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(self.stem(x)))
        x = self.projected(self.known(x)) * self.known.conv1.weight.mean()
        return self.head(self.free(self.bent(x).relu()).mean((2, 3)))


def test_a_block_goes_only_if_an_identity_passes_on_what_it_reads_and_nothing_else_needs_it() -> None:
    assert removable_blocks(Awkward(), (1, 8, 8)) == ("free",)
    assert removable_blocks(resnet20(), (3, 32, 32)) == tuple(f"blocks.{index}" for index in (0, 1, 2, 4, 5, 7, 8))


def test_of_blocks_inside_one_another_the_innermost_go() -> None:
    inner = nn.Sequential(BasicBlock(16, 16, 1), BasicBlock(16, 16, 1))
    stage = nn.Sequential(nets.conv(1, 16), inner, nn.Flatten(), nn.Linear(1024, 10))
    assert removable_blocks(stage, (1, 8, 8)) == ("1.0", "1.1")
    assert remove_blocks(stage, ["1.0"])(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_a_block_with_a_layer_that_is_left_out_stays() -> None:
    found = ModuleSubject(subject(nets.residual()).network, nets.residual().eval(), scope=Scope(exclude=("blocks.0.conv1",)))
    assert found.removable == ("blocks.2",)
