"""What suits a folder of images, from some dozens of them to ImageNet's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.config.reader import read_recipe, read_space, shipped_files
from genet.config.recipe import Recipe, Schedule
from genet.config.yaml_tree import edited
from genet.errors import GenetError
from genet.export.timm_form import timm_arguments
from genet.pipeline.init_rules import FAR, NARROWEST, REGIMES, WIDEST, BriefTiming, SettingsForImages
from genet.training.inventory import Inventory

TEMPLATES = shipped_files("templates")
TEMPLATE = read_space(TEMPLATES["space"])


def suited(classes: int, each: int, edge: int, grey: bool = False) -> SettingsForImages:
    """For so many images of every class, all of one size."""
    train = {f"class{number}": each for number in range(classes)}
    return SettingsForImages(Inventory(root="images", train=train, test=train, edges=(edge,), grey=grey), TEMPLATE)


def written(found: SettingsForImages, folder: Path, limit_ms: float | None = None) -> Recipe:
    """The recipe that is written for it, as it reads back."""
    space, *_ = found.masternet_choice(limit_ms, megamacs)
    choices = [*found.choices(), space]
    for name, file in (("recipe", "mine.yaml"), ("space", "mine-space.yaml")):
        text = TEMPLATES[name].read_text().replace("NAME", "mine")
        (folder / file).write_text(edited(text, {k: v for choice in choices for k, v in getattr(choice, name).items()}))
    return read_recipe(folder / "mine.yaml")


def megamacs(network: Network) -> BriefTiming:
    """A latency by MACs alone."""
    return BriefTiming(network_cost(network).macs / 1e6, 0.0)


@pytest.mark.parametrize(
    ("images", "size", "batch", "epochs", "held_out", "augment", "effort", "width"),
    [
        ((3, 48, 110), 64, 8, 40, 0.25, "crop 8, flip", "quick", 16),
        ((3, 13, 40), 32, 4, 40, 0.25, "crop 4, flip", "quick", 16),
        ((10, 200, 480), 96, 32, 40, 0.25, "scale 0.35 to 1, flip", "quick", 32),
        ((10, 5_000, 32), 32, 256, 60, 0.1, "crop 4, flip", "normal", 64),
        ((100, 200, 480), 128, 128, 50, 0.25, "scale 0.35 to 1, flip", "quick", 64),
        ((1000, 1_281, 375), 224, 256, 120, 0.04, "scale 0.08 to 1, color_jitter 0.4, flip", "normal", 64),
    ],
    ids=["dozens", "few", "thousands", "as CIFAR-10", "tens of thousands", "as ImageNet"],
)
def test_images_from_dozens_to_millions_get_what_suits_them(
    images: tuple[int, int, int],
    size: int,
    batch: int,
    epochs: int,
    held_out: float,
    augment: str,
    effort: str,
    width: int,
    tmp_path: Path,
) -> None:
    recipe = written(suited(*images), tmp_path)
    assert recipe.space.input.resolutions == (size,)
    assert (recipe.train.batch, recipe.train.epochs, recipe.data.nas_validation) == (batch, epochs, held_out)
    assert (str(recipe.augment), recipe.race.effort, recipe.space.superblocks[0].width) == (augment, effort, width)
    assert isinstance(recipe.master, Schedule)
    assert (recipe.master.epochs, recipe.master.batch, recipe.distill.batch) == (epochs // 2, batch, batch)


@given(st.integers(2, 2000), st.integers(2, 1500), st.integers(4, 3000), st.booleans(), st.none() | st.floats(1e-3, 1e4))
def test_whatever_the_images_are_it_reads_back_for_them_and_enlarges_none_of_32_pixels_or_more(
    tmp_path_factory: pytest.TempPathFactory, classes: int, each: int, edge: int, grey: bool, limit_ms: float | None
) -> None:
    found = suited(classes, each, edge, grey)
    recipe = written(found, tmp_path_factory.mktemp("written"), limit_ms)
    input_ = recipe.space.input
    assert (input_.classes, input_.channels) == (classes, 1 if grey else 3)
    assert input_.resolutions[0] <= max(32, edge)
    assert recipe.space.sizes(input_.resolutions[0])[-1] in range(4, 8)  # the last feature map
    assert recipe.train.batch == 4 or (1 - recipe.data.nas_validation) * classes * each // recipe.train.batch >= 7
    assert all(len(choice.why) < 140 for choice in found.choices())


def test_the_space_is_narrowed_until_its_masternet_is_near_the_budget_and_widened_for_many_images_alone() -> None:
    few, many = suited(3, 48, 110), suited(100, 1000, 480)
    for found in (few, many):
        usual = megamacs(found.space(found.regime.share).masternet(found.resolution)).ms
        for limit_ms in (usual * FAR, usual / FAR):
            assert found.masternet_choice(limit_ms, megamacs)[-1] == BriefTiming(usual, 0.0)
        *_, narrowed = found.masternet_choice(usual / 3, megamacs)
        assert narrowed is not None
        assert usual / 3 / FAR < narrowed.ms <= usual / 3 * FAR
        *_, long = found.masternet_choice(usual * 30, megamacs)
        assert long is not None
        assert (long.ms > usual) == (found is many)
    for limit_ms, share in ((1e-9, NARROWEST), (1e9, WIDEST)):
        choice, *_ = many.masternet_choice(limit_ms, megamacs)
        assert choice.why.startswith(f"{share:g} times the template's widths")


@pytest.mark.parametrize(("spread", "busy"), [(0.1, False), (0.8, True)])
def test_the_space_tells_how_far_timings_of_its_masternet_spread(spread: float, busy: bool) -> None:
    choice, *_ = suited(3, 48, 110).masternet_choice(1e9, lambda network: BriefTiming(2.0, spread))
    assert f"takes 2 ms per batch here (the shortest of timings that spread by {spread:.0%})" in choice.why
    assert choice.why.endswith("another choice may be better") is busy


def test_without_a_budget_in_milliseconds_or_a_way_to_time_it_the_space_is_that_of_the_images() -> None:
    found = suited(3, 48, 110)
    (_, plain, known), (_, untimed, unknown) = (
        found.masternet_choice(None, megamacs),
        found.masternet_choice(1e-9, lambda _: None),
    )
    assert known == megamacs(plain.masternet(found.resolution))
    assert unknown is None
    assert plain == untimed == found.space(found.regime.share)


@pytest.mark.parametrize("edge", [40, 63, 64, 110])
def test_images_whose_networks_can_have_no_timm_format_are_told_so(edge: int) -> None:
    found = suited(3, 48, edge)
    told = [choice.why for choice in found.choices() if choice.what == "formats"]
    masternet = found.space(found.regime.share).masternet(found.resolution)
    try:
        assert timm_arguments(masternet)
        assert not told
    except GenetError:
        assert told == ["all but timm, whose models halve the image in their first layer; below 64 pixels these networks do not"]


def test_the_template_itself_is_what_images_of_its_size_and_number_get() -> None:
    assert suited(10, 1000, 128).space(1.0) == TEMPLATE


def test_the_docs_tell_the_very_rules() -> None:
    page = (Path(__file__).parents[2] / "docs" / "your-own-images.md").read_text()
    for each in REGIMES:
        first = f"fewer than {each.fewer_than:,}" if each is not REGIMES[-1] else "more"
        trained = (each.edge, each.batch, each.epochs, each.epochs // 2, each.trial_epochs)
        row = (first, *trained, f"{each.rate:g}", f"{each.share:g}", each.trials_per_type, each.effort)
        assert f"| {' | '.join(map(str, row))} |" in page
