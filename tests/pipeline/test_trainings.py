"""What the journal keeps of the training of a whole network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genet.arch.network import Network
from genet.config.recipe import Data, Schedule
from genet.pipeline import trainings as step
from genet.pipeline.train import TrainingSpec
from genet.pipeline.trainings import TrainingResult, TrainingTask, TrainingWork
from genet.search.outcome import TrainedNetwork
from genet.training.splits import load_data

NETWORK = Network.parse("@8x1 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | 10")


@pytest.mark.parametrize("before", [0, 3, 4], ids=["in one go", "the last epoch alone", "to test it alone"])
def test_a_training_that_goes_on_takes_the_seconds_of_all_its_epochs(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process knows the pace of its own epochs, if it has run one."""

    def learn(spec: TrainingSpec, *_: Any) -> Iterator[Any]:
        for epoch in range(before + 1, 5):
            time.sleep(0.1)
            yield epoch, 1.0, 0.5
        trained = TrainedNetwork(inputs="", network=str(NETWORK), resolution=8, nas_accuracy=0.5, nas_images=2, test_accuracy=0.5)
        return None, trained, torch.tensor([True, False])

    monkeypatch.setattr(step, "train_by_epochs", learn)
    spec = TrainingSpec(NETWORK, Schedule(epochs=4, learning_rate=0.1), Data(), 0)
    work = TrainingWork(load_data(Data(), NETWORK.input, 0), "cpu")
    (ended,) = (
        each
        for each in work([TrainingTask("n", spec, tmp_path / "n.checkpoint", keep=False)])
        if isinstance(each, TrainingResult)
    )
    assert ended.finished.failure is None
    assert (ended.finished.seconds >= 0.4) is (before < 4)
