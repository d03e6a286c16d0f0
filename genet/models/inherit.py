"""The MasterNet's weights in a perturbed child, so that a trial starts close to the trained network.

Every layer of the child is a selection of the parent's channels plus new ones. New channels are read with weight zero, new blocks
start as their shortcut and larger kernels are padded with zeros, so a child that only grew (deeper, wider, larger kernel or
ratio) computes the parent's function exactly, unless its growth turns a projection into an identity, which has no weights to
inherit. A child that shrank keeps the channels that the batch normalisations scale most. A super-block of another kind inherits
the projection beside it only. If one has vanished, the next layer reads through the projection that began it, if there was one.

The input of a child's layer is described by a channel map, or by a matrix (the parent's channels, the child's) if the former are
made of several of the latter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genet.arch.network import Network
from genet.arch.space import may_inherit
from genet.errors import GenetError
from genet.models.blocks import ConvNorm, ResidualBlock, fused
from genet.models.build import GENet, Stage, build

NEW = -1  # in a channel map: the child's channel has no ancestor in the parent


@torch.no_grad()
def inherit(parent: GENet, network: Network, seed: int = 0, fresh: int | None = None) -> GENet:
    """Return `network` as a module with the parent's weights; new weights depend on the seed alone.

    A super-block of another type inherits only the layers beside its blocks, and so does the one at `fresh` (from 0).
    Stem, head and the number of super-blocks must be the parent's (GenetError otherwise); any super-block may differ.
    """
    old = parent.network
    if not may_inherit(network, old):
        raise GenetError(f"a child must have its parent's stem, head and number of super-blocks, got {network} for {old}")
    child = build(network, seed)
    child.stem.load_state_dict(parent.stem.state_dict())
    incoming, importance = torch.arange(network.stem.width), parent.stem.bn.weight.abs()
    for index, (stage, ancestor, new, before) in enumerate(
        zip(child.superblocks, parent.superblocks, network.superblocks, old.superblocks, strict=True)
    ):
        if not ancestor.blocks:
            incoming = _begin(stage, incoming, importance)
            continue
        importance = _stream_importance(ancestor)
        if not stage.blocks:
            incoming = _skip(ancestor, incoming)
            continue
        if stage.blocks[0].shortcut is None and ancestor.blocks[0].shortcut is None:
            outgoing = _nearest(incoming)  # an identity joins the two super-blocks channel by channel
        else:
            outgoing = _channel_map(importance, new.width)
        _inherit_stage(stage, ancestor, incoming, outgoing, learnt=new.type == before.type and index != fresh)
        incoming = outgoing
    if child.final_conv is not None and parent.final_conv is not None:
        outgoing = torch.arange(child.final_conv.conv.out_channels)
        _inherit_conv(child.final_conv, parent.final_conv, incoming, outgoing)
        incoming = outgoing
    if network.input.classes == old.input.classes:
        child.head.fc.weight.copy_(_columns(parent.head.fc.weight, incoming))
        child.head.fc.bias.copy_(parent.head.fc.bias)
    return child


def _begin(stage: Stage, incoming: Tensor, importance: Tensor) -> Tensor:
    """Initialise a super-block that the parent lacks to pass its input through, as far as it can; return its output's map."""
    if not stage.blocks or stage.blocks[0].shortcut is None:
        return incoming
    projection, before = stage.blocks[0].shortcut, _matrix(incoming, len(importance))
    passed = _channel_map(importance @ before.abs(), projection.conv.out_channels)
    _select_channels(projection, torch.arange(before.shape[1]), passed)
    return _columns(before, passed)


def _skip(ancestor: Stage, incoming: Tensor) -> Tensor:
    """Return the map of the input after a vanished super-block: the output of its first shortcut."""
    projection = ancestor.blocks[0].shortcut
    return incoming if projection is None else _columns(fused(projection).conv.weight[:, :, 0, 0], incoming)


def _inherit_stage(child: Stage, parent: Stage, incoming: Tensor, outgoing: Tensor, learnt: bool) -> None:
    """Fill one super-block; blocks beyond the parent's depth stay as built, equal to their shortcut."""
    for depth, (block, ancestor) in enumerate(zip(child.blocks, parent.blocks, strict=False)):
        reads = outgoing if depth else incoming
        if learnt:
            _inherit_body(block, ancestor, reads, outgoing)
        if block.shortcut is not None:
            if ancestor.shortcut is not None:
                _inherit_conv(block.shortcut, ancestor.shortcut, reads, outgoing)
            else:
                _select_channels(block.shortcut, reads, outgoing)


def _inherit_body(block: ResidualBlock, ancestor: ResidualBlock, incoming: Tensor, outgoing: Tensor) -> None:
    """Inherit convolution by convolution; each inner map is the next one's incoming map."""
    reads = incoming
    *inner, last = zip(block.convs, ancestor.convs, strict=True)
    for conv, old in inner:
        writes = reads if conv.conv.groups > 1 else _channel_map(old.bn.weight.abs(), conv.conv.out_channels)
        _inherit_conv(conv, old, reads, writes)
        reads = writes
    _inherit_conv(*last, reads, outgoing)


def _inherit_conv(child: ConvNorm, parent: ConvNorm, incoming: Tensor, outgoing: Tensor) -> None:
    """Copy the rows and columns that have an ancestor; an inherited row reads new columns with weight zero."""
    weight, source = child.conv.weight, _with_kernel(parent.conv.weight, child.conv.kernel_size[0])
    kept = outgoing != NEW
    rows = source[outgoing[kept]]
    weight[kept] = _columns(rows, incoming) if child.conv.groups == 1 else rows
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(child.bn, name)[kept] = getattr(parent.bn, name)[outgoing[kept]]


def _columns(weight: Tensor, incoming: Tensor) -> Tensor:
    """Return the weight for a layer that reads these channels: new ones with weight zero."""
    if incoming.dim() == 2:
        return torch.einsum("op...,pc->oc...", weight, incoming)
    known = (incoming != NEW).view(1, -1, *[1] * (weight.dim() - 2))
    return weight[:, incoming.clamp(min=0)] * known


def _select_channels(projection: ConvNorm, incoming: Tensor, outgoing: Tensor) -> None:
    """Return a projection in the place of the parent's identity: each inherited channel reads its own ancestor."""
    kept = outgoing != NEW
    projection.conv.weight[kept] = _matrix(incoming, int(outgoing.max()) + 1)[outgoing[kept]][:, :, None, None]
    projection.bn.weight[kept] = math.sqrt(1 + projection.bn.eps)  # a fresh batch normalisation has variance 1


def _stream_importance(stage: Stage) -> Tensor:
    """Return for each output channel of a super-block the scale of the batch normalisations that write it."""
    scales = [block.convs[-1].bn.weight.abs() for block in stage.blocks]
    scales += [block.shortcut.bn.weight.abs() for block in stage.blocks if block.shortcut is not None]
    return torch.stack(scales).sum(0)


def _channel_map(importance: Tensor, width: int) -> Tensor:
    """Return for each of `width` channels its ancestor: the most important ones in their order, or all and then new ones."""
    if width <= len(importance):
        return importance.topk(width).indices.sort().values
    return torch.cat([torch.arange(len(importance)), torch.full((width - len(importance),), NEW)])


def _matrix(incoming: Tensor, width: int) -> Tensor:
    """Return a channel map of `width` channels of the parent's as a matrix; a matrix is one already."""
    return incoming if incoming.dim() == 2 else (torch.arange(width)[:, None] == incoming).float()


def _nearest(incoming: Tensor) -> Tensor:
    """Return a matrix as a channel map, by the parent's channel with the largest share of each; a map is one already."""
    return incoming if incoming.dim() == 1 else torch.where(incoming.any(0), incoming.abs().argmax(0), NEW)


def _with_kernel(weight: Tensor, kernel: int) -> Tensor:
    """Return the weight padded with zeros, or cut, around its centre."""
    margin = (kernel - weight.shape[-1]) // 2
    return nn.functional.pad(weight, [margin] * 4)
