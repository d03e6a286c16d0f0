"""Recipes: what the evidence depends on, and writing them out."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from genet.arch.network import Network
from genet.arch.space import SearchSpace
from genet.config.reader import read_any, read_network, read_recipe, read_space, read_training, shipped_files, to_yaml
from genet.config.recipe import PretrainedMaster, Recipe, Schedule, Select
from genet.errors import SpecError
from tests.fixtures.strategies import networks, spaces


@pytest.fixture
def recipe() -> Recipe:
    return read_recipe("digits")


OTHER = Schedule(epochs=77, learning_rate=0.3)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"select": Select(budgets=(0.1,))},
        {"select": Select(budgets=("0.8x",), measure_top_k=9)},
        {"train": OTHER},
    ],
    ids=lambda change: next(iter(change)),
)
def test_name_budgets_and_final_training_leave_the_evidence_as_it_is(recipe: Recipe, change: dict[str, Any]) -> None:
    changed = recipe.model_copy(update=change)
    assert changed != recipe
    assert changed.evidence_digest == recipe.evidence_digest


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"space": read_space("cifar10")}, {"resolution": 24}, {"master": OTHER}, {"distill": OTHER}],
    ids=lambda change: next(iter(change)),
)
def test_seed_space_resolution_and_both_trainings_of_the_search_change_the_evidence(
    recipe: Recipe, change: dict[str, Any]
) -> None:
    assert recipe.model_copy(update=change).evidence_digest != recipe.evidence_digest


@pytest.mark.parametrize("change", [{"nas_validation": 0.3}, {"name": "folder"}])
def test_other_images_change_the_evidence(recipe: Recipe, change: dict[str, Any]) -> None:
    changed = recipe.model_copy(update={"data": recipe.data.model_copy(update=change)})
    assert changed.evidence_digest != recipe.evidence_digest


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("measure", {"device": "cuda:1"}),
        ("measure", {"batch": 1}),
        ("measure", {"dtype": "fp16"}),
        ("measure", {"memory_format": "channels_last"}),
        ("data", {"workers": 7}),
        ("data", {"root": "images"}),
    ],
)
def test_how_latency_is_measured_and_images_are_read_and_where_they_lie_leaves_the_evidence_of_trials_as_it_is(
    recipe: Recipe, part: str, change: dict[str, Any]
) -> None:
    changed = recipe.model_copy(update={part: getattr(recipe, part).model_copy(update=change)})
    assert changed != recipe
    assert changed.evidence_digest == recipe.evidence_digest


def test_a_training_without_a_search_has_no_masternet_to_begin_with(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {}\ntrain: {epochs: 1, learning_rate: 1, init: masternet}\n")
    with pytest.raises(SpecError, match="train: must not have init: masternet, as there is no search; leave it out"):
        read_training(tmp_path / "mine.yaml")


def test_where_a_masternet_from_elsewhere_lies_leaves_the_evidence_as_it_is(recipe: Recipe) -> None:
    one, other = (recipe.model_copy(update={"master": PretrainedMaster(folder=name)}) for name in ("trained", "moved"))
    assert one.evidence_digest == other.evidence_digest != recipe.evidence_digest


@pytest.mark.parametrize("change", [{"mode": "local"}, {"sampling": "random"}, {"paired_fraction": 0.1}, {"patience": 0}])
def test_how_trials_are_run_changes_the_evidence_and_how_long_they_may_take_does_not(
    recipe: Recipe, change: dict[str, Any]
) -> None:
    def digest_with(**fields: Any) -> str:
        return recipe.model_copy(update={"distill": recipe.distill.model_copy(update=fields)}).evidence_digest

    assert digest_with(**change) != recipe.evidence_digest
    assert digest_with(time_limit_s=60.0) == recipe.evidence_digest


def test_one_width_of_the_space_changes_the_evidence(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "changed.yaml"
    path.write_text(to_yaml(recipe).replace("width: 96", "width: 112"))
    assert read_recipe(path).evidence_digest != recipe.evidence_digest


def test_an_evidence_digest_is_twelve_hexadecimal_digits_and_survives_writing_out(recipe: Recipe, tmp_path: Path) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", recipe.evidence_digest)
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    assert read_recipe(tmp_path / "again.yaml").evidence_digest == recipe.evidence_digest


def test_the_search_resolution_is_the_one_given_or_the_spaces_largest(recipe: Recipe) -> None:
    assert recipe.search_resolution == max(recipe.space.input.resolutions) == 24
    assert recipe.model_copy(update={"resolution": 16}).search_resolution == 16


@pytest.mark.parametrize("name", shipped_files("recipes"))
def test_a_shipped_recipe_reads_back_from_what_to_yaml_writes(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    assert read_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize("name", shipped_files("search_spaces"))
def test_a_shipped_space_reads_back_from_what_to_yaml_writes(name: str, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(to_yaml(read_space(name)))
    assert read_space(tmp_path / "again.yaml") == read_space(name)


@pytest.mark.parametrize("name", shipped_files("search_spaces/networks"))
def test_a_shipped_network_reads_back_from_what_to_yaml_writes(name: str, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(to_yaml(read_network(name)))
    again = read_network(tmp_path / "again.yaml")
    assert again.model_dump() == read_network(name).model_dump()


@given(networks() | spaces())
def test_any_network_or_space_reads_back_from_what_to_yaml_writes(record: Network | SearchSpace) -> None:
    """With a head or without one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "again.yaml")
        path.write_text(to_yaml(record))
        assert read_any(path).model_dump() == record.model_dump()
    assert ("head" in to_yaml(record)) == (record.head is not None)


@pytest.mark.parametrize(
    "name",
    ["no", "null", "true", "12", "1.5", "1e5", "1e-4", "0x1", "é", "2020-01-01", "1_000"],
)
def test_a_name_that_looks_like_something_else_reads_back_as_text(recipe: Recipe, name: str, tmp_path: Path) -> None:
    named = recipe.model_copy(update={"name": name})
    (tmp_path / "again.yaml").write_text(to_yaml(named), encoding="utf-8")
    assert read_recipe(tmp_path / "again.yaml") == named
