"""Groups of layers that one width decides, and networks with other widths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genet.arch.external import ExternalModel
from genet.arch.network import Input
from genet.errors import GenetError
from genet.models.cifar import resnet56, vgg16
from genet.models.external import build_structure
from genet.studies.align.channel_groups import ChannelGroups, find_channel_groups
from genet.studies.align.module_subject import ModuleSubject
from genet.studies.align.resize import resized
from tests.fixtures import align_networks as nets

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'genet-nas[align]'")

IMAGE = (3, 16, 16)
TANGLED = nets.tangled().eval()
TIED = find_channel_groups(TANGLED, IMAGE, "tangled")


def subject(module: nn.Module, size: int = 16, source: str = "own:net") -> ModuleSubject:
    reads = Input(channels=3, classes=5, resolution=size)
    return ModuleSubject(ExternalModel(name="own", source=source, input=reads), module)


def ties(tied: ChannelGroups) -> dict[str, set[str]]:
    return {group.name: {member.layer for member in group.members if not member.layer.endswith(".1")} for group in tied.groups}


def test_layers_tied_by_additions_concatenations_depthwise_convolutions_and_flattening_are_one_group() -> None:
    assert ties(TIED) == {
        "stem.0": {"stem.0", "outer.0", "inner.0", "wide.0"},
        "inner.0": {"inner.0", "outer.0"},
        "wide.0": {"wide.0", "deep.0", "left.0", "right.0"},
        "left.0": {"left.0", "last.0"},
        "right.0": {"right.0", "last.0"},
        "last.0": {"last.0", "hidden"},
    }
    assert not any(group.fixed for group in TIED.groups)


SOME = st.fixed_dictionaries({group.name: st.integers(2, 2 * group.width) for group in TIED.groups})


@given(SOME)
def test_a_resized_network_runs_and_has_the_parameters_that_the_closed_form_says(widths: dict[str, int]) -> None:
    module = resized(TANGLED, TIED, widths)
    assert module(torch.randn(2, *IMAGE)).shape == (2, 5)
    assert sum(parameter.numel() for parameter in module.parameters()) == subject(TANGLED).parameters(widths)


@given(st.fixed_dictionaries({group.name: st.integers(0, 24) for group in TIED.groups}))
def test_a_widened_network_computes_what_it_did_before(more: dict[str, int]) -> None:
    wider = resized(TANGLED, TIED, {group.name: group.width + more[group.name] for group in TIED.groups})
    images = torch.randn(4, *IMAGE)
    assert torch.allclose(wider(images), TANGLED(images), atol=1e-5)


def test_channels_of_no_weight_can_be_cut_off_without_a_change() -> None:
    module = nets.tangled().eval()
    for group in TIED.groups:
        for member in group.members:
            part = module.get_submodule(member.layer)
            if member.side == "in" and not isinstance(part, nn.BatchNorm2d):
                for place in (place for channel in member.places[1::2] for place in channel):
                    part.weight.data[:, place] = 0
    kept = {group.name: range(0, group.width, 2) for group in TIED.groups}
    halved = resized(module, TIED, {group.name: group.width // 2 for group in TIED.groups}, kept)
    images = torch.randn(4, *IMAGE)
    assert torch.allclose(halved(images), module(images), atol=1e-5)


def test_a_convolution_in_groups_keeps_or_loses_each_of_them_with_the_channels_that_it_reads() -> None:
    module = nets.bundled().eval()
    found = subject(module, source="tests.fixtures.align_networks:bundled")
    first, last = found.movable
    assert (first.name, first.layers, first.width, first.multiple) == ("0.0", ("0.0", "1.0", "2.0"), 16, 8)
    assert last.name == "3.0"
    assert [str(block) for block in first.blocks(8)] == [
        "Conv k3 c3>8 s1 @16",
        "Conv k3 c8>16 s1 @16 g2",
        "Conv k3 c16>4 s1 @16",
        "Conv k3 c4>24 s1 @16",
    ]
    module.get_submodule("3.0").weight.data[:, :4] = 0  # nothing reads what the first half writes
    images = torch.randn(2, *IMAGE)
    assert torch.allclose(found.build({"0.0": 8}, {"0.0": [1]})(images), module(images), atol=1e-5)
    wider = found.build({"0.0": 24, "3.0": 30})
    assert (wider.get_submodule("1.0").groups, wider.get_submodule("2.0").groups) == (6, 3)
    assert torch.allclose(wider(images), module(images), atol=1e-5)
    for widths in ({"0.0": 8}, {"0.0": 24, "3.0": 12}):
        built = found.build(widths)
        assert sum(p.numel() for p in built.parameters()) == found.parameters(widths)
        again = build_structure(found.described(built, "again")).eval()
        again.load_state_dict(built.state_dict())
        assert torch.equal(again(images), built.eval()(images))


def test_a_convolution_whose_groups_nothing_can_follow_stays_and_so_do_those_that_feed_it() -> None:
    found = subject(nn.Sequential(nets.conv(3, 16), nets.conv(16, 8, groups=8), nets.conv(8, 24), nn.Flatten(), nn.LazyLinear(5)))
    assert [movable.name for movable in found.movable] == ["2.0"]
    assert {*found.fixed.values()} == {"1.0 has 8 groups of channels"}


@pytest.mark.parametrize("build", [vgg16, resnet56])
def test_the_networks_that_pruning_is_shown_on_are_tied_throughout(build) -> None:  # type: ignore[no-untyped-def]
    found = subject(build(), 32)
    assert not found.fixed
    layers = [layer for movable in found.movable for layer in movable.layers]
    assert sorted(layers) == sorted(name for name, part in found.source.named_modules() if isinstance(part, nn.Conv2d))


@pytest.mark.parametrize(
    ("module", "law"),
    [
        (nets.linear(), "got no convolutions to align"),
        (nets.Branching(), "expected one tensor"),
        (nets.broken(), "its module 1.0 failed on images of 1 x 3 x 16 x 16"),
    ],
)
def test_a_network_that_cannot_be_aligned_is_refused_with_the_reason(module: nn.Module, law: str) -> None:
    with pytest.raises(GenetError, match=law):
        find_channel_groups(module, IMAGE, "own")


FORMS = ["sum and parts", "itself", "halves", "known width", "padded", "shuffled", "normalised", "channels last", "without scale"]
FORMS += ["around groups"]


@pytest.mark.parametrize("form", FORMS)
def test_whatever_a_forward_does_what_may_move_can_be_widened_without_a_change_and_cut(form: str) -> None:
    torch.manual_seed(0)
    module = nets.Forms(form).eval()
    found = subject(module)
    free = [group for group in found.tied.groups if not group.fixed]
    assert len({group.name for group in found.tied.groups}) == len(found.tied.groups)
    assert free
    images = torch.randn(2, *IMAGE)
    for more in (5, 8):
        steps = {group.name: -(-more // group.unit) * group.unit for group in free}
        widths = {group.name: group.width + steps[group.name] for group in free}
        assert torch.allclose(found.build(widths)(images), module(images), atol=1e-5)
        widths = {group.name: group.width - steps[group.name] for group in free}
        narrow = found.build(widths)
        assert narrow(images).shape == (2, 5)
        assert sum(p.numel() for p in narrow.parameters()) == found.parameters(widths)


@pytest.mark.parametrize(
    ("form", "layer"),
    [
        ("sum and parts", "c.0[0:20]"),
        ("halves", "stem.0[0:16]"),
        ("known width", "stem.0"),
        ("padded", "stem.0[0:32]"),
        ("shuffled", "stem.0"),
        ("normalised", "stem.0"),
        ("channels last", "last.0"),
    ],
)
def test_a_width_that_the_forward_depends_on_stays_and_the_reason_is_told(form: str, layer: str) -> None:
    torch.manual_seed(0)  # of some weights the answer hardly depends on what is normalised
    assert subject(nets.Forms(form)).fixed[layer]


def test_a_convolution_with_a_module_inside_moves_like_any_other() -> None:
    found = subject(nets.own_convolution())
    assert {"0", "2.0"} == {movable.name for movable in found.movable}
    wider = found.build({"0": 24})
    assert isinstance(wider[0], nets.Activated)
    assert wider[0].out_channels == 24


def test_all_layers_that_stay_are_named_and_so_is_a_parameter_of_the_networks_own() -> None:
    assert subject(nets.Gained()).fixed == dict.fromkeys(("stem.0", "deep.0"), "gain is a parameter outside any layer")


def test_a_tensor_that_is_concatenated_with_itself_moves() -> None:
    assert not subject(nets.Forms("itself")).fixed
