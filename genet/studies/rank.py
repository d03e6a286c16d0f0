"""Intrinsic rank: how fast the singular values of a stage's last convolution fall (GENet paper, section 3.3, figure 4).

Bottlenecks and depthwise blocks are low-rank forms of full convolutions. If a trained layer has nearly full rank they lose much,
and a full convolution is the better use of a GPU; if not, they lose little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from genet.errors import EvidenceError
from genet.latency.trace import module_ops
from genet.models.build import GENet
from genet.storage import Record

ENERGY = 0.9  # share of the sum of squares in the effective rank
HIGH = 0.5  # share of the output channels: a bottleneck of half the width passes no more
BESIDE = ("downsample", "shortcut", "conv_head", "final_conv")  # in the names of layers that end no stage

Advice = Literal["full convolution", "bottleneck or depthwise"]


class StageRank(Record):
    """A stage's last convolution as a matrix of (output channels, input channels x kernel area), and its singular values.

    The largest is 1; they descend. `rank` of them hold 90 % of the energy; of a noise matrix of the same size, `noise_rank` do.
    """

    stage: int
    layer: str
    shape: tuple[int, int]
    singular_values: tuple[float, ...]
    rank: int
    noise_rank: int

    @property
    def share(self) -> float:
        """The rank over the output channels, as figure 4 counts."""
        return self.rank / self.shape[0]

    @property
    def advice(self) -> Advice | None:
        """Block type advised by section 3.3; None if fewer values are read than channels written, which bounds the rank."""
        if min(self.shape) < self.shape[0]:
            return None
        return "full convolution" if self.share >= HIGH else "bottleneck or depthwise"


def stage_ranks(module: nn.Module, image: tuple[int, int, int]) -> tuple[StageRank, ...]:
    """Return the rank of every stage of a network that reads images of (channels, height, width).

    EvidenceError if it has no stages that end in a convolution.
    """
    layers = _own_stages(module) if isinstance(module, GENet) else _stages(module, image)
    if not layers:
        raise EvidenceError("a network needs convolutions after its stem to have ranks, got none")
    return tuple(_rank(number, name, module.get_submodule(name)) for number, name in enumerate(layers, start=1))


def _own_stages(module: GENet) -> Sequence[str]:
    """Return the last convolution of every super-block's last block."""
    names = {id(part): name for name, part in module.named_modules()}
    return [names[id(stage.blocks[-1].convs[-1].conv)] for stage in module.superblocks if stage.blocks]


def _stages(module: nn.Module, image: tuple[int, int, int]) -> Sequence[str]:
    """Return the last convolution of every stage that timm names; else of every size that blocks write, the stem left out."""
    ops = [op for op in module_ops(module, image) if op.kind == "conv" and op.rows > 1]
    convs = [op for op in ops[1:] if not any(word in op.name for word in BESIDE)]
    named = [info["module"] for info in getattr(module, "feature_info", ()) if isinstance(info, dict)]
    stages = [[op.name for op in convs if op.name.startswith(f"{place}.")] for place in named]
    if sum(map(bool, stages)) > 1:
        return [names[-1] for names in stages if names]
    block_rows = {op.name.rpartition(".")[0]: op.rows for op in convs}  # of a block's last convolution
    last = {block_rows[op.name.rpartition(".")[0]]: op.name for op in convs}
    return [last[rows] for rows in sorted(last, reverse=True)]


@torch.no_grad()
def _rank(number: int, name: str, layer: nn.Module) -> StageRank:
    weight = layer.get_parameter("weight").detach().double().cpu()
    matrix = weight.reshape(len(weight), -1)
    drawn = torch.randn(matrix.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values, noise = (torch.linalg.svdvals(each) for each in (matrix, drawn))
    if not float(values[0]) > 0:
        raise EvidenceError(f"{name}: got weights that are all zero, expected some that are not")
    return StageRank(
        stage=number,
        layer=name,
        shape=(matrix.shape[0], matrix.shape[1]),
        singular_values=tuple((values / values[0]).tolist()),
        rank=_effective(values),
        noise_rank=_effective(noise),
    )


def _effective(values: Tensor) -> int:
    """Return the number of the descending singular values that hold 90 % of the energy."""
    energy = torch.cumsum(values**2, 0) / (values**2).sum()
    return int((energy < ENERGY).sum()) + 1
