"""Layers of a network that must change their width together: Torch-Pruning's dependency graph, read into records.

Residual additions, concatenations, flattening, and convolutions with their channels in groups tie layers; a group is everything
that one width decides.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from genet.arch.network import out_size
from genet.errors import GenetError, first_line
from genet.latency.ops import Op
from genet.latency.trace import module_ops
from genet.models.external import count_logits
from genet.studies.align.layer import Axis, Layer

Side = Literal["out", "in"]


@dataclass(frozen=True)
class Member:
    """A layer's axis in a group: for each unit of the group, its positions on the axis."""

    layer: str
    side: Side
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Layers that one width decides, named by the first of them; `fixed` says why the width must stay, None if it may move.

    The width is in channels that the first convolution writes. They come and go in units: of one channel, or of all that a
    convolution with groups of channels keeps together.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    fixed: str | None
    convolutions: tuple[str, ...]  # that write these channels

    @property
    def units(self) -> int:
        """The number of units."""
        return max(len(member.places) for member in self.members)

    @property
    def unit(self) -> int:
        """Channels of the width in each."""
        return self.width // self.units


@dataclass(frozen=True)
class ChannelGroups:
    """A network's layers and groups, in running order."""

    layers: Mapping[str, Layer]
    groups: tuple[ChannelGroup, ...]

    def of(self, name: str) -> ChannelGroup:
        """Return a group by its name."""
        return next(group for group in self.groups if group.name == name)


def find_channel_groups(module: nn.Module, image: tuple[int, int, int], name: str) -> ChannelGroups:
    """Read the groups of a network by running it once on a blank image of (channels, height, width).

    GenetError if it does not run on such images, has no convolutions, or packages are missing.
    """
    try:
        import torch_pruning as tp
    except ImportError:
        raise GenetError(
            "genet align needs Torch-Pruning for this network, which is not installed; pip install 'genet-nas[align]'"
        ) from None
    module = module.eval()
    example = torch.zeros(1, *image)
    count_logits(module, image, name)
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    if not convolutions:
        raise GenetError(f"{name}: got no convolutions to align; genet align is for convolutional networks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = copy.deepcopy(module)
            ops = _named_by_layer(module_ops(module, image), module)
            with torch.enable_grad():
                for parameter in module.parameters():
                    parameter.requires_grad_(True)
                graph = tp.DependencyGraph().build_dependency(module, example_inputs=example, verbose=False)
                found = list(graph.get_all_groups(root_module_types=[nn.Conv2d]))
        except Exception as fault:  # any error of tracing a user's network
            raise GenetError(
                f"{name}: tracing which of its layers are tied failed ({first_line(fault)}); give a network whose "
                "forward takes one tensor, returns one, and does not depend on the values in it"
            ) from None
    names = {id(part): place for place, part in (*module.named_modules(), *module.named_parameters())}
    order = {op.name: index for index, op in reversed(list(enumerate(ops)))}
    shared = _shared(module)
    read = (_group(each, module, names, order, ops) for each in found)
    groups = sorted((_free_of(shared, group) for group in read), key=lambda group: order.get(group.name, -1))
    groups = list(_bundled(groups, module))
    return ChannelGroups(dict(_layers(module, ops, groups)), tuple(groups))


def _shared(module: nn.Module) -> dict[str, str]:
    """Return layers that share a parameter with another layer, and that layer; a copy with other widths would separate them."""
    owners: dict[nn.Parameter, list[str]] = {}
    for name, part in module.named_modules():
        for parameter in part.parameters(recurse=False):
            owners.setdefault(parameter, []).append(name)
    return {
        name: f"{one} and {other} share a weight" for one, *more in owners.values() for other in more for name in (one, other)
    }


def _free_of(shared: dict[str, str], group: ChannelGroup) -> ChannelGroup:
    """Return the group, fixed if a layer of it shares a weight."""
    why = next((shared[member.layer] for member in group.members if member.layer in shared), None)
    return dataclasses.replace(group, fixed=group.fixed or why)


def _named_by_layer(ops: tuple[Op, ...], module: nn.Module) -> tuple[Op, ...]:
    """Return the ops, with those of a convolution that has modules inside named by it alone."""
    names = {f"{name}.convolution": name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)}
    return tuple(dataclasses.replace(op, name=names.get(op.name, op.name)) for op in ops)


def _group(found: Any, module: nn.Module, names: dict[int, str], order: dict[str, int], ops: tuple[Op, ...]) -> ChannelGroup:
    """Return a group of Torch-Pruning's: its members that are layers, and any obstacle to moving."""
    width = len(found[0].idxs)
    members: dict[tuple[str, Side], list[set[int]]] = {}
    why = None
    for item in found._group:  # the pairs of the iteration do not tell which channel of the group an index belongs to
        target = item.dep.target.module
        place = names.get(id(target))
        if isinstance(target, nn.Parameter):
            why = f"{place or item.dep.target.name} is a parameter outside any layer"
        if place is None or isinstance(target, nn.Parameter):
            continue
        side: Side = "in" if _reads(item.dep.handler.__name__, target) else "out"
        places = members.setdefault((place, side), [set() for _ in range(width)])
        for index, root in zip(item.idxs, item.root_idxs, strict=True):
            if root < width:
                places[root].add(int(index))
            else:
                why = f"{place} takes its channels apart or mixes them"
        why = why or _obstacle(place, target, ops)
    record = tuple(
        Member(layer, side, tuple(tuple(sorted(each)) for each in places)) for (layer, side), places in members.items()
    )
    why = why or next((reason for member in record if (reason := _entangled(member))), None)
    writers = [m.layer for m in record if m.side == "out" and isinstance(module.get_submodule(m.layer), nn.Conv2d)]
    if not any(member.side == "in" for member in record):
        why = why or "its channels are the network's answer"
    writers = sorted(writers, key=lambda layer: order.get(layer, len(order)))
    partly = next((layer for layer in writers if module.get_submodule(layer).out_channels != width), None)
    if partly is None:
        return ChannelGroup(writers[0], width, record, why, tuple(writers))
    written = (member.places for member in record if (member.layer, member.side) == (writers[0], "out"))
    first = min(index for places in written for channel in places for index in channel)
    name = f"{writers[0]}[{first}:{first + width}]"  # one of several groups of its channels
    return ChannelGroup(name, width, record, why or f"{partly} writes other channels too", tuple(writers))


def _bundled(groups: Sequence[ChannelGroup], module: nn.Module) -> Iterator[ChannelGroup]:
    """Yield the groups, with those as one that a convolution with groups of channels ties: of these each is cut as a whole."""
    starts = np.cumsum([0, *(len(group.members[0].places) for group in groups)])
    links, stuck = list[tuple[int, int]](), dict[str, str]()
    for name, part in module.named_modules():
        if not (isinstance(part, nn.Conv2d) and _has_groups(part)):
            continue
        read, written = (_channels_at(groups, starts, name, side) for side in ("in", "out"))
        if (len(read), len(written)) != (part.in_channels, part.out_channels):
            stuck[name] = f"{name} has {part.groups} groups of channels"
            continue
        for one in range(part.groups):
            together = [*_share(read, one, part.groups), *_share(written, one, part.groups)]
            links += [(together[0], other) for other in together[1:]]
    rows, columns = np.array(links, int).reshape(-1, 2).T
    _, units = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), (starts[-1], starts[-1])), directed=False)
    belongs = [np.searchsorted(starts, one, side="right") - 1 for one in (rows, columns)]
    _, clusters = connected_components(coo_array((np.ones(len(rows)), belongs), (len(groups), len(groups))), directed=False)
    for cluster in dict.fromkeys(clusters.tolist()):
        chosen = np.flatnonzero(clusters == cluster).tolist()
        parts = [(groups[index], units[starts[index] : starts[index + 1]]) for index in chosen]
        why = next((stuck[member.layer] for group, _ in parts for member in group.members if member.layer in stuck), None)
        every = np.concatenate([each for _, each in parts])
        if not why and len(np.unique(every)) < len(every):
            merged = _merged(parts)
            why = merged.fixed
            if not why:
                yield merged
                continue
        yield from (dataclasses.replace(group, fixed=why or group.fixed) for group, _ in parts)


def _has_groups(layer: nn.Conv2d) -> bool:
    """Return whether a convolution has its channels in groups, of more than one."""
    return layer.groups > 1 and not layer.groups == layer.in_channels == layer.out_channels


def _channels_at(groups: Sequence[ChannelGroup], starts: np.ndarray, layer: str, side: Side) -> dict[int, int]:
    """Return the channel, counted over all groups, at each position of a layer's axis."""
    return {
        position: int(start) + channel
        for group, start in zip(groups, starts, strict=False)
        for member in group.members
        if (member.layer, member.side) == (layer, side)
        for channel, places in enumerate(member.places)
        for position in places
    }


def _share(channels: Mapping[int, int], one: int, groups: int) -> list[int]:
    """Return the channels of one of a convolution's groups."""
    each = len(channels) // groups
    return [channels[position] for position in range(one * each, (one + 1) * each)]


def _merged(parts: Sequence[tuple[ChannelGroup, np.ndarray]]) -> ChannelGroup:
    """Return groups as one whose units are the channels with the same number."""
    numbers = dict.fromkeys(int(unit) for _, units in parts for unit in units)
    place_of = {unit: index for index, unit in enumerate(numbers)}
    axes: dict[tuple[str, Side], list[list[int]]] = {}
    for group, units in parts:
        for member in group.members:
            axis = axes.setdefault((member.layer, member.side), [[] for _ in numbers])
            for unit, places in zip(units, member.places, strict=True):
                axis[place_of[int(unit)]] += places
    members = tuple(Member(*axis, tuple(tuple(sorted(each)) for each in places)) for axis, places in axes.items())
    first = parts[0][0]
    why = next((group.fixed for group, _ in parts if group.fixed), None)
    why = why or next((reason for member in members if (reason := _entangled(member))), None)
    if len(numbers) < 2:
        why = why or f"{first.name} mixes all of its channels"
    width = len(numbers) * len(axes[first.convolutions[0], "out"][0])
    return ChannelGroup(first.name, width, members, why, tuple(layer for group, _ in parts for layer in group.convolutions))


def _reads(handler: str, layer: nn.Module) -> bool:
    """Return whether a Torch-Pruning handler cuts what a layer reads; depthwise and normalisation have one axis."""
    depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels
    return "in_channels" in handler and not (depthwise or isinstance(layer, _BatchNorm))


def _entangled(member: Member) -> str | None:
    """Return why channels cannot be added or removed here: each must have as many positions, all its own."""
    counts = {len(places) for places in member.places}
    everywhere = [index for places in member.places for index in places]
    if counts != {len(everywhere) // len(member.places)} or 0 in counts or len(set(everywhere)) != len(everywhere):
        return f"{member.layer} takes its channels apart or mixes them"
    return None if segments(member) else f"{member.layer} reads its channels interleaved"


def segments(member: Member) -> tuple[tuple[int, int], ...]:
    """Return the indices behind which new channels go, and how many positions each takes there; empty if that is unclear.

    A flattened map has all places of a channel side by side; a tensor that is concatenated with itself, or flattened with its
    channels last, has one place in each of several runs.
    """
    size, last = len(member.places[0]), member.places[-1]
    flat = [index for places in member.places for index in places]
    if flat == list(range(flat[0], flat[0] + len(flat))):
        return ((last[-1], size),)
    runs = [[places[run] for places in member.places] for run in range(size)]
    if all(run == list(range(run[0], run[0] + len(run))) for run in runs):
        return tuple((index, 1) for index in last)
    return ()


def _obstacle(place: str, layer: nn.Module, ops: tuple[Op, ...]) -> str | None:
    """Return why a layer's width cannot change here."""
    usual = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    own = {name for name, _ in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))}
    if own - usual:
        return f"{place} has {', '.join(sorted(own - usual))} of its own"
    if isinstance(layer, (_BatchNorm, nn.Linear)):
        return None
    if not isinstance(layer, nn.Conv2d):
        return f"{place} is a {type(layer).__name__}"
    kernel, (height, width) = layer.kernel_size[0], layer.kernel_size
    plain = height == width and kernel % 2 == 1 and layer.dilation == (1, 1) and layer.stride[0] == layer.stride[1]
    shapes = [_pixels(op) for op in ops if op.kind == "conv" and op.name == place]
    if not (plain and shapes and all(rows == out_size(size, layer.stride[0]) ** 2 for size, rows in shapes if size)):
        return f"{place} is no square convolution whose padding keeps the size"
    return None if all(size for size, _ in shapes) else f"{place} reads an oblong map"


def _pixels(op: Op) -> tuple[int, int]:
    """Return the height of a square input, 0 if it is not square, and the positions of the output."""
    pixels = op.read // op.in_width
    size = math.isqrt(pixels)
    return size if size * size == pixels else 0, op.rows


def _layers(module: nn.Module, ops: tuple[Op, ...], groups: list[ChannelGroup]) -> Iterator[tuple[str, Layer]]:
    """Yield the layers that groups which may move change."""
    calls = Counter(op.name for op in ops if op.macs)
    sizes = {op.name: _pixels(op)[0] for op in ops if op.kind == "conv"}
    for name in dict.fromkeys(member.layer for group in groups if not group.fixed for member in group.members):
        part = module.get_submodule(name)

        def axis(side: Side, size: int, name: str = name) -> Axis:
            tied = {g.name: len(m.places[0]) for g in groups for m in g.members if (m.layer, m.side) == (name, side)}
            return Axis(size, tied)

        if isinstance(part, nn.Conv2d):
            kind: Literal["depthwise", "conv"] = "depthwise" if part.groups > 1 and not _has_groups(part) else "conv"
            together = part.in_channels // part.groups if _has_groups(part) else None
            shape = part.kernel_size[0], part.stride[0], sizes[name]
            writes, reads = axis("out", part.out_channels), axis("in", part.in_channels)
            yield name, Layer(name, kind, writes, reads, *shape, part.bias is not None, calls[name], together=together)
        elif isinstance(part, nn.Linear):
            writes, reads = axis("out", part.out_features), axis("in", part.in_features)
            yield name, Layer(name, "linear", writes, reads, bias=part.bias is not None)
        elif isinstance(part, _BatchNorm):
            written = axis("out", part.num_features)
            yield name, Layer(name, "norm", written, written, vectors=len(list(part.parameters())))
