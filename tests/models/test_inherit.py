"""What a child gets from its parent: all of it where it grew, the most important channels where it shrank."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genet.arch.network import Network, SuperBlock
from genet.errors import GenetError
from genet.models.blocks import ConvNorm
from genet.models.build import GENet, build
from genet.models.inherit import inherit

KINDS = ("XX", "BL", "DW")
POSITIONS = (0, 1, 2)
RATIO = {"XX": None, "BL": 0.5, "DW": 2.0}
LARGER_RATIO = {"BL": 1.0, "DW": 2.5}
WIDTHS, DEPTHS, STRIDES = (16, 16, 32), (2, 2, 1), (2, 1, 2)  # the second super-block begins with an identity
LIVE = [1, 3, 4, 6, 9, 10, 12, 15, 17, 18, 20, 23, 24, 27, 29, 30]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_position = pytest.mark.parametrize("position", POSITIONS)


def network_of(superblocks: tuple[SuperBlock, ...], rest: str = "@12x3 | Conv k3 c8 s1 | {} | Conv k1 c16 | 5") -> Network:
    return Network.parse(rest.format(" | ".join(map(str, superblocks))))


def superblock(kind: str, width: int, depth: int, stride: int, kernel: int = 3, ratio: float | None = None) -> SuperBlock:
    fields = {"type": kind, "width": width, "depth": depth, "stride": stride, "kernel": kernel}
    return SuperBlock.model_validate(fields | {"ratio": ratio or RATIO[kind]})


def parent_network(kinds: tuple[str, ...], widths: tuple[int, ...] = WIDTHS, kernel: int = 3) -> Network:
    parts = zip(kinds, widths, DEPTHS, STRIDES, strict=True)
    return network_of(tuple(superblock(kind, width, depth, stride, kernel) for kind, width, depth, stride in parts))


def changed(network: Network, position: int, **fields: object) -> Network:
    superblocks = list(network.superblocks)
    superblocks[position] = SuperBlock.model_validate(superblocks[position].model_dump() | fields)
    return network_of(tuple(superblocks))


@pytest.fixture(scope="session")
def parent_of(randomise):
    """A parent whose weights look trained, of three super-blocks of the given kinds."""

    def make(network: Network, seed: int = 1) -> GENet:
        return randomise(build(network, seed), seed)

    return make


def assert_same_function(parent: GENet, child: GENet) -> None:
    images = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        wanted, got = parent.eval()(images), child.eval()(images)
    assert (wanted[0] - wanted[1]).abs().max() > 1e-3 * wanted.abs().max()  # the logits do depend on the image
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")}


def differing(one: torch.nn.Module, other: torch.nn.Module) -> list[str]:
    ones, others = state_of(one), state_of(other)
    return [name for name in ones if not torch.equal(ones[name], others[name])]


# Growth


@every_kind
@every_position
def test_a_deeper_child_computes_its_parents_function(kind: str, position: int, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    child = inherit(parent, changed(parent.network, position, depth=DEPTHS[position] + 2))
    assert_same_function(parent, child)


@every_kind
@every_position
@pytest.mark.parametrize("kernel", [5, 7])
def test_a_child_with_a_larger_kernel_computes_its_parents_function(kind: str, position: int, kernel: int, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    child = inherit(parent, changed(parent.network, position, kernel=kernel))
    assert_same_function(parent, child)


@every_kind
@every_position
@pytest.mark.parametrize("more", [16, 48])
def test_a_wider_child_computes_its_parents_function(kind: str, position: int, more: int, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    child = inherit(parent, changed(parent.network, position, width=WIDTHS[position] + more))
    assert_same_function(parent, child)


@pytest.mark.parametrize("kind", LARGER_RATIO)
@every_position
def test_a_child_with_a_larger_ratio_computes_its_parents_function(kind: str, position: int, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    child = inherit(parent, changed(parent.network, position, ratio=LARGER_RATIO[kind]))
    assert_same_function(parent, child)


@every_kind
def test_a_child_of_the_same_structure_is_its_parent_bit_for_bit_whatever_the_seed(kind: str, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    assert differing(inherit(parent, parent.network, seed=9), parent) == []


def test_a_child_at_another_resolution_computes_its_parents_function(parent_of) -> None:
    parent = parent_of(parent_network(KINDS))
    child = inherit(parent, network_of(parent.network.superblocks, "@16x3 | Conv k3 c8 s1 | {} | Conv k1 c16 | 5"))
    assert_same_function(parent, child)


@st.composite
def growths(draw: st.DrawFn) -> tuple[Network, Network]:
    """A parent and a child that only grew: any kinds, and any growth of every super-block at once."""
    kinds = tuple(draw(st.sampled_from(KINDS)) for _ in POSITIONS)
    before = parent_network(kinds)
    superblocks = []
    for old in before.superblocks:
        superblocks.append(
            superblock(
                old.type,
                old.width + draw(st.sampled_from([0, 16, 32])),
                old.depth + draw(st.integers(0, 2)),
                old.stride,
                draw(st.sampled_from([3, 5, 7])),
                draw(st.sampled_from([RATIO[old.type], LARGER_RATIO.get(old.type)])),
            )
        )
    return before, network_of(tuple(superblocks))


@given(networks=growths(), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_growth_of_all_super_blocks_at_once_computes_the_parents_function(networks, seed, parent_of) -> None:
    before, after = networks
    parent = parent_of(before, seed)
    assert_same_function(parent, inherit(parent, after, seed + 1))


def test_growth_in_two_generations_computes_the_first_parents_function(parent_of) -> None:
    parent = parent_of(parent_network(KINDS))
    child = inherit(parent, changed(parent.network, 0, width=32, depth=3), seed=1)
    assert_same_function(parent, inherit(child, changed(child.network, 1, width=32, kernel=5), seed=2))


@every_kind
def test_where_growth_lets_a_projection_fall_away_the_body_beside_it_is_inherited_all_the_same(kind: str, parent_of) -> None:
    """No child with an identity there can compute what its parent's projection did; this much it can keep."""
    before = network_of((superblock(kind, 16, 1, 2), superblock(kind, 32, 1, 1)))
    parent = parent_of(before)
    child = inherit(parent, changed(before, 0, width=32))
    ours, theirs = child.superblocks[1].blocks[0], parent.superblocks[1].blocks[0]
    assert (ours.shortcut, theirs.shortcut is None) == (None, False)
    assert torch.equal(ours.convs[0].conv.weight[:, :16], theirs.convs[0].conv.weight)
    assert not ours.convs[0].conv.weight[:, 16:].any()
    assert [differing(one, other) for one, other in zip(ours.convs[1:], theirs.convs[1:], strict=True)] == [[]] * (
        len(ours.convs) - 1
    )


HEADLESS = "@12x3 | Conv k3 c8 s1 | {} | 5"


@every_kind
@pytest.mark.parametrize("more", [0, 16])
def test_a_wider_child_without_a_head_computes_its_parents_function(kind: str, more: int, parent_of) -> None:
    """Its classifier reads the new channels with weight zero."""
    before = parent_network((kind,) * 3)
    parent = parent_of(network_of(before.superblocks, HEADLESS))
    wider = changed(before, 2, width=WIDTHS[2] + more).superblocks
    assert_same_function(parent, inherit(parent, network_of(wider, HEADLESS), seed=5))


# Shrinking


def scale_only(parent: GENet, position: int, keep: list[int]) -> None:
    """Let the channels to keep be scaled more, each by one of the batch normalisations that write them, of either sign."""
    stage = parent.superblocks[position]
    writers = [block.convs[-1].bn for block in stage.blocks]
    writers += [block.shortcut.bn for block in stage.blocks if block.shortcut is not None]
    with torch.no_grad():
        for writer in writers:
            writer.weight.uniform_(0.1, 0.2, generator=torch.Generator().manual_seed(0))
        for channel, writer, sign in zip(keep, itertools.cycle(writers), itertools.cycle((1, -1, -1)), strict=False):
            writer.weight[channel] = sign * 2.0


def reader_of(module: GENet, position: int) -> ConvNorm:
    """The first convolution that reads the output of a super-block."""
    stages = module.superblocks
    return stages[position + 1].blocks[0].convs[0] if position + 1 < len(stages) else module.final_conv


@every_kind
@every_position
def test_a_narrower_child_keeps_the_channels_that_the_batch_normalisations_scale_most(kind, position, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3, widths=(32, 32, 32)))
    scale_only(parent, position, LIVE)
    child = inherit(parent, changed(parent.network, position, width=16))
    for ours, theirs in zip(child.superblocks[position].blocks, parent.superblocks[position].blocks, strict=True):
        for name in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(getattr(ours.convs[-1].bn, name), getattr(theirs.convs[-1].bn, name)[LIVE])
    assert torch.equal(reader_of(child, position).conv.weight, reader_of(parent, position).conv.weight[:, LIVE])


def test_the_classifier_of_a_narrower_child_without_a_head_reads_the_channels_that_were_kept(parent_of) -> None:
    before = parent_network(KINDS, widths=(32, 32, 32))
    parent = parent_of(network_of(before.superblocks, HEADLESS))
    scale_only(parent, 2, LIVE)
    child = inherit(parent, network_of(changed(before, 2, width=16).superblocks, HEADLESS))
    assert torch.equal(child.head.fc.weight, parent.head.fc.weight[:, LIVE])
    assert torch.equal(child.head.fc.bias, parent.head.fc.bias)


@every_kind
def test_super_blocks_that_an_identity_joins_keep_the_same_channels(kind: str, parent_of) -> None:
    """The identity adds channel by channel, so a channel must mean the same on both sides of it."""
    network = parent_network((kind,) * 3, widths=(32, 32, 32))
    parent = parent_of(network)
    scale_only(parent, 0, LIVE)
    scale_only(parent, 1, list(range(16)))
    child = inherit(parent, changed(changed(network, 0, width=16), 1, width=16))
    assert child.superblocks[1].blocks[0].shortcut is None
    ancestors = []
    for ours, theirs in zip(child.superblocks[:2], parent.superblocks[:2], strict=True):
        known = theirs.blocks[0].convs[-1].bn.running_mean.tolist()  # all differ, so each names its channel
        ancestors.append([known.index(mean) for mean in ours.blocks[0].convs[-1].bn.running_mean.tolist()])
    assert ancestors[0] == ancestors[1]


@pytest.mark.parametrize("kind", ["BL", "DW"])
@every_position
def test_a_child_with_a_smaller_ratio_keeps_the_inner_channels_that_are_scaled_most(kind, position, parent_of) -> None:
    large = LARGER_RATIO[kind]
    network = parent_network((kind,) * 3)
    parent = parent_of(changed(network, position, ratio=large))
    inner = round(network.superblocks[position].width * RATIO[kind])
    keep = []
    with torch.no_grad():
        for number, block in enumerate(parent.superblocks[position].blocks):
            draw = torch.Generator().manual_seed(number)
            for conv in block.convs[:-1]:
                chosen = torch.randperm(len(conv.bn.weight), generator=draw)[:inner].sort().values
                conv.bn.weight.uniform_(0.1, 0.2, generator=draw)
                conv.bn.weight[chosen] = -2.0 if number else 2.0
                keep.append(chosen)
    child = inherit(parent, network)
    pairs = zip(child.superblocks[position].blocks, parent.superblocks[position].blocks, strict=True)
    for (ours, theirs), (first, second) in zip(pairs, zip(keep[::2], keep[1::2], strict=True), strict=True):
        second = first if kind == "DW" else second  # a depthwise channel is its own input's
        assert torch.equal(ours.convs[0].conv.weight, theirs.convs[0].conv.weight[first])
        middle = theirs.convs[1].conv.weight[second]
        assert torch.equal(ours.convs[1].conv.weight, middle if kind == "DW" else middle[:, first])
        assert torch.equal(ours.convs[2].conv.weight, theirs.convs[2].conv.weight[:, second])


def silence(parent: GENet, position: int, keep: list[int]) -> None:
    """Let every channel of a super-block's output be zero, but for the channels to keep."""
    stage = parent.superblocks[position]
    dead = [channel for channel in range(stage.blocks[0].convs[-1].conv.out_channels) if channel not in keep]
    with torch.no_grad():
        for block in stage.blocks:
            for writer in (block.convs[-1], block.shortcut):
                if writer is not None:
                    writer.bn.weight[dead] = 0
                    writer.bn.bias[dead] = 0


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, KINDS)), ids="-".join)
@pytest.mark.parametrize("position", [0, 2])
def test_channels_that_are_always_zero_fall_away_without_a_change_of_the_function(kinds, position, parent_of) -> None:
    """Inner channels shrink with the width in BL and DW, so that only the ratio is kept: it doubles here."""
    other, kind = kinds
    network = parent_network((kind, other, kind), widths=(32, 32, 32))
    parent = parent_of(network)
    silence(parent, position, LIVE)
    if kind == "XX":  # its inner width is its width
        with torch.no_grad():
            dead = [channel for channel in range(32) if channel not in LIVE]
            for block in parent.superblocks[position].blocks:
                block.convs[0].bn.weight[dead] = 0
                block.convs[0].bn.bias[dead] = 0
    ratio = None if kind == "XX" else RATIO[kind] * 2
    assert_same_function(parent, inherit(parent, changed(network, position, width=16, ratio=ratio)))


@every_kind
@every_position
@pytest.mark.parametrize(("before", "after"), [(5, 3), (7, 5), (7, 3)])
def test_a_smaller_kernel_is_the_centre_of_its_parents(kind, position, before, after, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3, kernel=before))
    child = inherit(parent, changed(parent.network, position, kernel=after))
    cut = (before - after) // 2
    shrunk = 0
    for ours, theirs in zip(child.superblocks[position].blocks, parent.superblocks[position].blocks, strict=True):
        for one, other in zip(ours.convs, theirs.convs, strict=True):
            if other.conv.kernel_size == (before, before):
                assert torch.equal(one.conv.weight, other.conv.weight[:, :, cut:-cut, cut:-cut])
                shrunk += 1
            else:
                assert torch.equal(one.conv.weight, other.conv.weight)
    assert shrunk == DEPTHS[position] * (2 if kind == "XX" else 1)


@every_kind
@every_position
def test_a_shallower_child_keeps_the_first_blocks(kind: str, position: int, parent_of) -> None:
    depths = changed(parent_network((kind,) * 3), position, depth=3)
    parent = parent_of(depths)
    child = inherit(parent, changed(depths, position, depth=1))
    assert differing(child.superblocks[position].blocks[0], parent.superblocks[position].blocks[0]) == []
    assert len(child.superblocks[position].blocks) == 1


# None at all


UNSTRIDED = ("@12x3 | Conv k3 c16 s2 | {} | Conv k1 c16 | 5", "@12x3 | Conv k3 c16 s2 | {} | 5")
every_rest = pytest.mark.parametrize("rest", UNSTRIDED, ids=["head", "no head"])


def still(kind: str, widths: tuple[int, ...], rest: str, depths: tuple[int, ...] = (2, 2, 2)) -> Network:
    """Super-blocks that do not stride."""
    return network_of(tuple(superblock(kind, w, d, 1) for w, d in zip(widths, depths, strict=True)), rest)


def without_bodies(parent: GENet, position: int) -> None:
    """Let a super-block be its first shortcut, and that a sum of channels alone."""
    with torch.no_grad():
        for block in parent.superblocks[position].blocks:
            block.convs[-1].bn.weight.zero_()
            block.convs[-1].bn.bias.zero_()
            if block.shortcut is not None:
                block.shortcut.conv.weight.abs_()
                block.shortcut.bn.weight.abs_()
                block.shortcut.bn.bias.zero_()
                block.shortcut.bn.running_mean.zero_()


@every_kind
@every_position
@every_rest
@pytest.mark.parametrize("widths", [(16, 16, 16), (32, 48, 16), (48, 48, 48)], ids=str)
def test_where_a_super_block_that_was_its_shortcut_vanished_the_function_stays(kind, position, rest, widths, parent_of) -> None:
    """What follows reads through the projection that fell away, if there was one."""
    parent = parent_of(still(kind, widths, rest))
    without_bodies(parent, position)
    depths = tuple(0 if place == position else 2 for place in range(3))
    assert_same_function(parent, inherit(parent, still(kind, widths, rest, depths)))


@every_kind
@every_position
@every_rest
@pytest.mark.parametrize("more", [0, 16, 48])
def test_a_super_block_in_the_place_of_none_starts_as_the_parents_function(kind, position, rest, more, parent_of) -> None:
    parent = parent_of(still(kind, (16, 16, 16), rest, tuple(0 if place == position else 1 for place in range(3))))
    widths = tuple(16 + more * (place == position) for place in range(3))
    assert_same_function(parent, inherit(parent, still(kind, widths, rest, (1, 1, 1))))


def test_a_narrower_super_block_in_the_place_of_none_passes_on_what_the_batch_normalisations_scale_most(parent_of) -> None:
    parent = parent_of(still("XX", (32, 8, 32), UNSTRIDED[0], (2, 0, 1)))
    scale_only(parent, 0, LIVE)
    child = inherit(parent, still("XX", (32, 16, 32), UNSTRIDED[0], (2, 1, 1)))
    projection, reader = child.superblocks[1].blocks[0].shortcut, child.superblocks[2].blocks[0].convs[0]
    assert torch.equal(projection.conv.weight[:, :, 0, 0], torch.eye(32)[LIVE])
    assert torch.equal(reader.conv.weight, parent.superblocks[2].blocks[0].convs[0].conv.weight[:, LIVE])


@st.composite
def families(draw: st.DrawFn) -> tuple[Network, Network]:
    """Two networks that differ in any way that a child may from its parent."""
    made = []
    for _ in range(2):
        kinds, widths, depths = ([draw(st.sampled_from(values)) for _ in range(3)] for values in (KINDS, (16, 32, 48), (0, 1, 2)))
        parts = zip(kinds, widths, depths, strict=True)
        made.append(tuple(superblock(kind, width, depth, 1) for kind, width, depth in parts))
    rest = draw(st.sampled_from(UNSTRIDED))
    return network_of(made[0], rest), network_of(made[1], rest)


@given(networks=families())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_child_of_any_parent_answers_with_finite_logits(networks, parent_of) -> None:
    before, after = networks
    child = inherit(parent_of(before), after).eval()
    with torch.inference_mode():
        assert child(torch.randn(2, 3, 12, 12)).isfinite().all()


# Another kind


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations(KINDS, 2)), ids="-".join)
@every_position
def test_a_super_block_of_another_kind_inherits_its_projection_and_all_outside_of_it(kind, other, position, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    child = inherit(parent, changed(parent.network, position, type=other, ratio=RATIO[other]), seed=3)
    prefix = f"stages.{position}."
    ours, theirs = state_of(child), state_of(parent)
    outside = [name for name in theirs if not name.startswith(prefix) or ".shortcut." in name]
    assert [name for name in outside if not torch.equal(ours[name], theirs[name])] == []
    assert any(".shortcut." in name and name.startswith(prefix) for name in outside) == (position != 1)


@every_kind
@every_position
def test_a_fresh_super_block_inherits_as_much_as_one_of_another_kind(kind: str, position: int, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    fresh, other = inherit(parent, parent.network, 3, position), build(parent.network, 3)
    prefix = f"stages.{position}."
    found = {name: weights for name, weights in state_of(fresh).items() if name.startswith(prefix) and ".shortcut." not in name}
    assert all(torch.equal(weights, state_of(other)[name]) for name, weights in found.items())
    rest = [name for name in differing(fresh, parent) if name not in found]
    assert rest == []


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations(KINDS, 2)), ids="-".join)
def test_a_super_block_of_another_kind_starts_as_its_shortcut(kind: str, other: str, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    child = inherit(parent, changed(parent.network, 0, type=other, ratio=RATIO[other]), seed=3).eval()
    first, second = child.superblocks[0].blocks
    images = torch.rand(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(second(first(images)), parent.superblocks[0].blocks[0].shortcut(images).clamp(min=0))


def test_a_child_with_other_classes_inherits_all_but_the_classifier(parent_of) -> None:
    parent = parent_of(parent_network(KINDS))
    child = inherit(parent, network_of(parent.network.superblocks, "@12x3 | Conv k3 c8 s1 | {} | Conv k1 c16 | 7"))
    assert child.head.fc.out_features == 7
    ours, theirs = state_of(child), state_of(parent)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == ["head.fc.weight", "head.fc.bias"]


# The parent, the seed, and what is refused


CHANGES = [
    {"depth": 4},
    {"width": 32},
    {"width": 8, "ratio": 3.0},
    {"kernel": 5},
    {"ratio": 3.0},
    {"type": "XX", "ratio": None},
]


@pytest.mark.parametrize("fields", CHANGES, ids=str)
def test_nothing_of_the_parent_is_changed_by_inheriting_nor_by_what_happens_to_the_child(fields, parent_of) -> None:
    parent = parent_of(parent_network(("DW",) * 3))
    before, network = state_of(parent), str(parent.network)
    child = inherit(parent, changed(parent.network, 0, **fields))
    with torch.no_grad():
        for tensor in (*child.parameters(), *child.buffers()):
            tensor.zero_()
    after = state_of(parent)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert str(parent.network) == network
    assert all(parameter.requires_grad for parameter in parent.parameters())


@pytest.mark.parametrize("fields", CHANGES, ids=str)
def test_the_same_seed_gives_the_same_child(fields, parent_of) -> None:
    parent = parent_of(parent_network(("DW",) * 3))
    network = changed(parent.network, 0, **fields)
    assert differing(inherit(parent, network, seed=7), inherit(parent, network, seed=7)) == []


def test_inheriting_leaves_the_global_generators_untouched(parent_of) -> None:
    parent = parent_of(parent_network(KINDS))
    before = torch.random.get_rng_state(), random.getstate()
    inherit(parent, changed(parent.network, 0, width=32, depth=3), seed=7)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()


@every_kind
def test_the_seed_decides_new_channels_and_blocks_only(kind: str, parent_of) -> None:
    parent = parent_of(parent_network((kind,) * 3))
    network = changed(parent.network, 1, width=32, depth=3)
    one, other = (inherit(parent, network, seed) for seed in (1, 2))
    assert [name for name in differing(one, other) if not name.startswith("stages.1.")] == []
    last_conv = [module.superblocks[1].blocks[0].convs[-1].conv.weight for module in (one, other)]
    assert torch.equal(last_conv[0][:16], last_conv[1][:16])
    assert not torch.equal(last_conv[0][16:], last_conv[1][16:])
    new_blocks = [module.superblocks[1].blocks[2].convs[0].conv.weight for module in (one, other)]
    assert not torch.equal(*new_blocks)


@pytest.mark.parametrize(
    "rest",
    [
        "@12x3 | Conv k3 c16 s1 | {} | Conv k1 c16 | 5",
        "@12x3 | Conv k5 c8 s1 | {} | Conv k1 c16 | 5",
        "@12x3 | Conv k3 c8 s1 | {} | Conv k1 c24 | 5",
        HEADLESS,
        "@12x3 | Conv k3 c8 s1 | XX k3 c16 s1 d1 | {} | Conv k1 c16 | 5",
    ],
    ids=["stem width", "stem kernel", "head", "no head", "number of super-blocks"],
)
def test_a_child_with_another_stem_head_or_number_of_super_blocks_is_refused(rest: str, parent_of) -> None:
    parent = parent_of(parent_network(KINDS))
    child = network_of(parent.network.superblocks, rest)
    with pytest.raises(GenetError, match="a child must have its parent's stem, head and number of super-blocks"):
        inherit(parent, child)
