"""Which channels a cut keeps: those whose filters weigh most, or whose feature maps have the highest rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genet.studies.align.tied import Tied

CRITERIA = ("l1", "l2", "rank")
Scores = Callable[[str], Tensor]  # a convolution's name to one number per filter


def kept_channels(module: nn.Module, tied: Tied, widths: Mapping[str, int], scores: Scores) -> dict[str, list[int]]:
    """For every group that is cut, the channels with the highest scores, summed over the convolutions that write them."""
    found = {}
    for group in tied.groups:
        count = widths.get(group.name, group.width)
        if count < group.width:
            total = torch.zeros(group.width)
            for member in group.members:
                if member.side == "out" and isinstance(module.get_submodule(member.layer), nn.Conv2d):
                    total += scores(member.layer)[[places[0] for places in member.places]]
            found[group.name] = sorted(total.topk(count).indices.tolist())
    return found


def norms(module: nn.Module, power: int) -> Scores:
    """The L1 norm of a filter (Li et al., 2016), or its L2 norm, which soft filter pruning takes (He et al., 2018)."""

    def scores(layer: str) -> Tensor:
        weight = module.get_submodule(layer).weight
        assert isinstance(weight, Tensor)
        return weight.detach().flatten(1).norm(p=power, dim=1)

    return scores


def ranks(module: nn.Module, images: Tensor) -> Scores:
    """The mean rank of a filter's maps after normalisation and ReLU (HRank: Lin et al., 2020)."""
    found = dict(_ranks(module, images))
    return found.__getitem__


@torch.inference_mode()
def _ranks(module: nn.Module, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Follow each convolution's output to the normalisation that reads it; without one its own output counts."""
    maps: dict[str, Tensor] = {}
    written: dict[int, tuple[str, Tensor]] = {}  # keeps the tensors, so that no other can take their identity
    handles = []

    def convolved(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            maps[name], written[id(output)] = output.clone(), (name, output)

        return hook

    def normalised(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if id(inputs[0]) in written:
            maps[written[id(inputs[0])][0]] = output.clone()

    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            handles.append(part.register_forward_hook(convolved(name)))
        elif isinstance(part, _BatchNorm):
            handles.append(part.register_forward_hook(normalised))
    module.eval()(images)
    for handle in handles:
        handle.remove()
    for name, output in maps.items():
        yield name, torch.linalg.matrix_rank(output.relu()).float().mean(dim=0)
