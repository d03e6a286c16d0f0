"""What only a real GPU can show: recorded steps, of trainings and trials, compute what ordinary ones do, and so do its images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from genet.arch.network import Network
from genet.arch.space import SpaceInput
from genet.config.augment import Augment
from genet.config.recipe import Data, Distill, Schedule, Training
from genet.models.build import GENet, build
from genet.progress import SILENT, Progress
from genet.training import replay
from genet.training.image_sets import View
from genet.training.loop import EpochDone, Execution, TrainingInputs, train
from genet.training.splits import Splits, load_data
from genet.trials.context import TrialContext
from genet.trials.plan import plan_trials
from genet.trials.results import TrialResult
from genet.trials.work import FineTune
from tests.fixtures.heard import Heard
from tests.fixtures.tiny import tiny_recipe

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
GPU = torch.device("cuda", 0)
NETWORK = Network.parse("@32x1 | Conv k3 c16 s2 | XX k3 c32 s2 d2 | BL k3 c64 s2 d2 r0.5 | DW k3 c48 s1 d2 r2 | Conv k1 c64 | 10")
PLAIN = Schedule(epochs=2, batch=64, learning_rate=0.2, warmup_epochs=1)
EVERYTHING = Training(**PLAIN.model_dump(), random_erase_prob=0.3, mixup=0.2, ema=0.9, clip_grad_norm=2.0, grad_accum_steps=2)


@pytest.fixture(scope="module")
def digits() -> Splits:
    look = Augment(crop=4, flip=True, cutout=6)
    return load_data(Data(), SpaceInput(channels=1, classes=10, resolutions=(32,)), 0, View(look, 0.3), GPU)


def trained(
    digits: Splits,
    schedule: Schedule,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
    epoch_done: EpochDone | None = None,
) -> GENet:
    module = build(NETWORK, seed=1)
    teacher = build(NETWORK, seed=5) if schedule is EVERYTHING else None
    inputs = TrainingInputs(digits.train, schedule, 32, 0, teacher)
    train(module, inputs, Execution(GPU, checkpoint, progress=progress), epoch_done)
    return module


def far_apart(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of any weight, as a share of its tensor's largest."""
    theirs = other.state_dict()
    pairs = [(value.float(), theirs[name].float()) for name, value in one.state_dict().items()]
    return max(float((value - same).abs().max() / value.abs().max().clamp(min=1e-3)) for value, same in pairs)


@pytest.mark.parametrize("schedule", [PLAIN, EVERYTHING])
def test_recorded_steps_end_where_ordinary_ones_end(digits: Splits, schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Heard()
    recorded = trained(digits, schedule, progress=said)
    assert said.lines == []  # nothing refused
    monkeypatch.setattr(replay, "CALLS_BEFORE", 10**9)
    assert far_apart(recorded, trained(digits, schedule)) < 2e-2  # bf16


def test_the_same_training_ends_in_the_same_weights_and_goes_on_to_them(digits: Splits, tmp_path: Path) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop(epochs: int, _loss: float, _accuracy: float) -> None:
        raise Stop

    whole = trained(digits, EVERYTHING)
    assert far_apart(whole, trained(digits, EVERYTHING)) == 0
    with pytest.raises(Stop):
        trained(digits, EVERYTHING, checkpoint=tmp_path / "net.checkpoint", epoch_done=stop)
    assert far_apart(whole, trained(digits, EVERYTHING, checkpoint=tmp_path / "net.checkpoint")) == 0


def test_images_are_augmented_on_the_gpu_as_on_the_processor(digits: Splits) -> None:
    here = [pixels for pixels, _ in digits.train.batches(100, 32, 3)]
    there = [pixels for pixels, _ in digits.train.on(GPU).batches(100, 32, 3)]
    assert {pixels.device for pixels in there} == {GPU}
    torch.testing.assert_close(torch.cat(here), torch.cat(there).cpu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["features", "local", "whole"])
def test_recorded_trials_reach_what_ordinary_ones_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    recipe = tiny_recipe(tmp_path)
    splits = load_data(recipe.data, recipe.space.input, 0)
    parent = build(recipe.space.masternet(16), seed=1)
    train(parent, TrainingInputs(splits.train, Schedule(epochs=2, batch=64, learning_rate=0.4), 16, 0), Execution(GPU))
    context = TrialContext(
        parent.cpu(), splits, Distill.model_validate({"epochs": 2, "batch": 64, "learning_rate": 0.1, "mode": mode}), 16, seed=7
    )
    trials = [
        trial for trial in plan_trials(recipe.space, recipe.space.widths_on_offer(), 16, 0, context.distill) if trial.index == 1
    ]

    def reached() -> list[float | None]:
        return [event.accuracy for event in FineTune(context, "cuda")(trials) if isinstance(event, TrialResult)]

    recorded = reached()
    monkeypatch.setattr(replay, "CALLS_BEFORE", 10**9)
    assert recorded == pytest.approx(reached(), abs=0.03)
