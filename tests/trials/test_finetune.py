"""One trial: what it trains, that it depends on its own seed alone, and how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genet.nets.build import build
from genet.nets.data import load_data
from genet.spec.recipe import Schedule
from genet.trials.finetune import FineTune
from genet.trials.plan import plan_trials
from tests.tiny import tiny_recipe


@pytest.fixture
def work(tmp_path: Path) -> FineTune:
    recipe = tiny_recipe(tmp_path)
    splits = load_data(recipe.data, recipe.space.input, 0)
    return FineTune(build(recipe.space.masternet(16)), splits, recipe.distill, 16, torch.device("cpu"))


def test_a_trials_result_depends_on_the_trial_alone(work: FineTune, tmp_path: Path) -> None:
    space = tiny_recipe(tmp_path).space
    first, second, *_ = plan_trials(space, space.widths_on_offer(), 16, 0)
    alone = work(first)
    work(second)
    again = work(first)
    assert alone.model_copy(update={"seconds": 0}) == again.model_copy(update={"seconds": 0})
    assert alone.accuracy is not None
    assert 0 <= alone.accuracy <= 1


def test_a_trial_leaves_the_masternet_as_it_was(work: FineTune, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in work.parent.state_dict().items()}
    space = tiny_recipe(tmp_path).space
    work(plan_trials(space, space.widths_on_offer(), 16, 0)[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in work.parent.state_dict().items())


def test_a_loss_that_is_not_finite_is_a_failed_trial_and_never_accuracy_zero(work: FineTune, tmp_path: Path) -> None:
    space = tiny_recipe(tmp_path).space
    absurd = FineTune(work.parent, work.splits, Schedule(epochs=5, learning_rate=1e30), 16, work.device)
    result = absurd(plan_trials(space, space.widths_on_offer(), 16, 0)[0])
    assert result.accuracy is None
    assert "the loss must stay finite" in str(result.failure)
