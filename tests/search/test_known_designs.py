"""The designs that compete to be the MasterNet."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from genet.arch.network import Network
from genet.arch.space import SearchSpace
from genet.config.reader import read_network, read_space, shipped_files, to_yaml
from genet.errors import SpecError
from genet.models.build import build
from genet.search.known_designs import MASTERNET, SHAPES, check_portfolio, designs_of, pattern_designs, portfolio_of
from tests.fixtures.tiny import tiny_recipe

OWN = Network.parse("@24x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | 10", "mine")
TABLE_6 = [read_network(name) for name in shipped_files("search_spaces/networks") if name.startswith("net")]


def with_masternets(*listed: str | Network, name: str = "digits") -> SearchSpace:
    return SearchSpace.model_validate({**dict(read_space(name)), "masternets": listed})


def test_patterns_for_imagenet_are_networks_of_the_papers_table_6() -> None:
    designs = {design.name: design.network.at(224) for design in pattern_designs(read_space("masternet"))}
    assert len(designs) == 20
    missing = [name for name, network in designs.items() if network not in TABLE_6]
    assert missing == ["XBDDD-4-4-4", "DDDDD-4-4-4"], "the paper tried five patterns in four layouts, but for these"
    net1, net6 = (read_network(name) for name in ("net1", "net6"))
    assert (designs["XXBDD-8-4-2"], designs["XXBD-8-6"]) == (net1, net6)


def test_patterns_take_the_kernels_and_ratios_on_offer_and_shrink_images_no_further_than_the_masternet() -> None:
    space = read_space("digits")
    for design in pattern_designs(space):
        network = design.network
        assert isinstance(network, Network)
        assert Network.parse(str(network)) == network
        assert {superblock.kernel for superblock in network.superblocks} == {3}
        assert {superblock.ratio for superblock in network.superblocks} <= {None, 0.5, 3.0}
        assert math.prod((network.stem.stride, *(each.stride for each in network.superblocks))) <= 16
    odd = space.perturb.model_copy(update={"ratio": space.perturb.ratio.model_copy(update={"BL": (0.3,)})})
    (design, *_) = pattern_designs(space.model_copy(update={"perturb": odd}))
    assert isinstance(design.network, Network)
    assert design.network.superblocks[2].ratio == 0.25, "512 channels have no 0.3 of their width"


def test_layouts_that_divide_the_same_blocks_otherwise_compete_once() -> None:
    space = read_space("masternet")
    patterns = {design.name: design.network for design in pattern_designs(space)}
    competing = portfolio_of(space.model_copy(update={"masternets": ("patterns",)}))
    assert [design.name for design in competing][:3] == [MASTERNET, "XXBBD-4-4-4", "XXDDD-8-4-2"], "Net1 is the MasterNet itself"
    assert {design.name.partition("-")[2] for design in competing[1:]} == {"8-4-2", "4-4-4"}
    for fine, coarse in (("XXDDD-8-4-2", "XXDD-8-6"), ("XXBBB-8-4-2", "XXBB-8-6"), ("DDDDD-4-4-4", "DDDDD-6-2-4")):
        one, other = build(patterns[fine].at(32), seed=0), build(patterns[coarse].at(32), seed=0)
        other.load_state_dict(dict(zip(other.state_dict(), one.state_dict().values(), strict=True)))
        images = torch.rand(1, 3, 32, 32)
        assert torch.equal(one.eval()(images), other.eval()(images))


def test_a_portfolio_begins_with_the_masternet_of_the_space_and_keeps_the_order_of_the_file() -> None:
    names = [design.name for design in portfolio_of(with_masternets(OWN, "known"))]
    assert names == [MASTERNET, "mine", *SHAPES]
    assert len(portfolio_of(with_masternets("patterns", "known"))) == 1 + 10 + 4
    assert [design.name for design in portfolio_of(read_space("digits"))] == [MASTERNET]
    check_portfolio(with_masternets(OWN, "known", "patterns"))
    check_portfolio(read_space("digits"))


@pytest.mark.parametrize(
    ("listed", "law"),
    [
        ((OWN.model_copy(update={"name": "genet"}), "known"), "two designs called genet, expected names that differ"),
        (("known", "known"), "two designs called resnet18"),
        ((OWN, OWN), "two designs called mine"),
        ((OWN.model_copy(update={"name": "masternet"}),), "two designs called masternet"),
        ((read_space("digits").masternet(24),), "no design but the space's own MasterNet, expected another to compete with it"),
    ],
)
def test_designs_of_one_name_and_a_portfolio_of_one_are_refused(listed: tuple[str | Network, ...], law: str) -> None:
    with pytest.raises(SpecError, match=law):
        check_portfolio(with_masternets(*listed))


def test_every_fault_of_a_races_own_designs_is_told_at_once_with_its_remedy(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    (tmp_path / "mine.yaml").write_text(to_yaml(Network.parse(str(OWN).replace("@24x1", "@24x3"), "mine")))
    shape = "Conv k3 c8 s2 | XX k3 c16 s2 d1"
    deeper = f"@64x1 | {shape}{' | XX k3 c16 s2 d1' * 3} | 10"
    listed = (f"@16x3 | {shape} | 3", f"@16x1 | {shape}", str(tmp_path / "mine.yaml"), deeper)
    with pytest.raises(SpecError) as told:
        designs_of(recipe.model_copy(update={"race": recipe.race.model_copy(update={"designs": listed})}))
    other, short, file, deep = (f"race.designs: {text}: " for text in listed)
    first, second, third, *rest = told.value.faults
    assert first == f"{other}got a network that reads 3 channels, expected 1; begin it with @16x1"
    assert second == f"{other}got a network for 3 classes, expected 10; end it with | 10"
    assert third.startswith(f"{short}a notation must have at least ")
    assert rest[0] == f"{file}got a network that reads 3 channels, expected 1; set input.channels to 1"
    assert rest[1].startswith(f"{deep}at 16 pixels: ")
    assert "total stride of at most the resolution 16, but it is 32" in rest[1]
    assert len(rest) == 2
