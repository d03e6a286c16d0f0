"""What a recipe has logged for TensorBoard, and what it says if that is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from genet.config.reader import read_training
from genet.config.recipe import Recipe
from genet.errors import GenetError
from genet.pipeline.context import open_run
from genet.pipeline.distill import run_planned_trials
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.train import train_network
from genet.progress import Progress
from genet.training.log import NO_LOG
from genet.training.loop import Execution
from tests.fixtures.small import NETWORK
from tests.fixtures.tiny import tiny_recipe

QUICK = "name: quick\ndata: {name: digits}\ntrain: {epochs: 2, batch: 64, learning_rate: 0.1}\n"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values in a folder of events, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-not-found]

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.fixture
def logged(tmp_path: Path) -> Recipe:
    """A recipe that asks for a log."""
    return tiny_recipe(tmp_path).model_copy(update={"log": "tensorboard"})


def test_a_training_is_logged_epoch_by_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "quick.yaml").write_text(f"{QUICK}log: tensorboard\n")
    trained = train_network(tmp_path / "one", NETWORK, read_training(tmp_path / "quick.yaml"), Execution())
    found = scalars(tmp_path / "one" / "tensorboard")
    assert [(step, pytest.approx(loss)) for step, loss in found["loss"]] == [epoch[:2] for epoch in trained.curve]
    assert found["test accuracy"] == [(2, pytest.approx(trained.test_accuracy))]
    assert {"training accuracy", "held-out accuracy"} < set(found)


def test_trials_are_logged_as_they_finish(copy: RunFolder) -> None:
    pytest.importorskip("tensorboard")
    with open_run(copy.path, Progress(), copy.recipe().model_copy(update={"log": "tensorboard"})) as job:
        copy.trials.path.unlink()
        results = run_planned_trials(job, any_master=True)
    found = scalars(copy.path / "tensorboard" / "trials")
    values = [event for name in found for event in found[name]]
    assert sorted(step for step, _ in values) == list(range(1, len(results) + 1))
    assert sorted(value for _, value in values) == pytest.approx(sorted(result.accuracy or 0 for result in results))


def test_a_log_changes_no_run(logged: Recipe) -> None:
    assert logged.evidence_digest == logged.model_copy(update={"log": None}).evidence_digest


def test_a_missing_package_is_named_before_anything_is_written(
    logged: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    (tmp_path / "quick.yaml").write_text(f"{QUICK}log: tensorboard\n")
    law = r"^log: tensorboard needs TensorBoard, .* pip install 'genet-nas\[tensorboard\]'"
    with pytest.raises(GenetError, match=law), open_run(tmp_path / "run", Progress(), logged):
        pass
    with pytest.raises(GenetError, match=law):
        train_network(tmp_path / "one", NETWORK, read_training(tmp_path / "quick.yaml"), Execution())
    assert not [*(tmp_path / "run").glob("*"), *(tmp_path / "one").glob("*")]


def test_without_a_log_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    NO_LOG.under("one").write(1, {"loss": 1.0})
    (tmp_path / "quick.yaml").write_text(QUICK)
    train_network(tmp_path / "one", NETWORK, read_training(tmp_path / "quick.yaml"), Execution())
    assert not (tmp_path / "one" / "tensorboard").exists()
