"""Several processes that train one network: the same result as one alone, up to numerical noise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genet.arch.space import SpaceInput
from genet.config.recipe import Data
from genet.models.weights import load_weights
from genet.training.accuracy import accuracy
from genet.training.splits import load_data
from tests.fixtures import one_of_several
from tests.fixtures.one_of_several import TINY


@pytest.mark.slow
def test_two_processes_train_to_the_weights_and_count_the_accuracy_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    one_of_several.main(one)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, "-m", "tests.fixtures.one_of_several", str(two)], check=True, capture_output=True, timeout=120)
    alone, together = (load_weights(TINY, folder / "tiny.safetensors") for folder in (one, two))
    for (name, wanted), found in zip(alone.state_dict().items(), together.state_dict().values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")
    splits = load_data(Data(), SpaceInput(channels=1, classes=10, resolutions=(8,)), 0)
    counted = accuracy(together, splits.test, 8, torch.device("cpu"))
    assert float((two / "accuracy").read_text()) == counted
    assert [path.name for path in two.glob("*.checkpoint*")] != [], "the first process saved"
