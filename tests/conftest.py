"""For all tests: hypothesis asserts no times, for machines are as fast as they are; one thread, or a finished run, on demand."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from genet.config.reader import read_recipe
from genet.config.recipe import Data
from genet.pipeline.run_folder import RunFolder
from genet.progress import Progress
from tests.fixtures.tiny import write_recipe

if TYPE_CHECKING:
    from genet.export.manifest import Exports
    from genet.models.build import GENet
    from genet.training.splits import Splits

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes side by side: threads beyond one each would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("few", deadline=None, max_examples=12)
settings.register_profile("many", deadline=None, max_examples=300)  # pytest --hypothesis-profile many
settings.load_profile("few")


gc.disable()  # while modules are imported and tests collected: none of it is garbage


def pytest_collection_finish() -> None:
    """Collect garbage from here on, but never look at the modules and tests that are there: they are millions of objects."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """No write waits until it is on the disk itself: a test can kill a process, and cannot cut the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def brief_timings() -> Iterator[None]:
    """Timings of milliseconds: no test is about how close they come."""
    from genet.latency.estimate import roofline
    from genet.latency.timing import ratio, stopwatch
    from genet.trials import probe

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stopwatch.WARM_UP_S, "cpu", 0.001)
        patch.setitem(stopwatch.UNSETTLED_S, "cpu", 0.001)
        patch.setattr(stopwatch, "REPEAT_MS", 0.1)
        for module in (ratio, roofline):
            patch.setattr(module, "ROUND_REPEATS", 3)
        patch.setattr(stopwatch, "ROUNDS_APART", 2)
        patch.setattr(stopwatch, "PAUSE_S", 0.005)
        patch.setattr(probe, "STEPS", 1)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in one order, so that equal means equal; and small networks are slowed down by a second thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run from start to end, measured here once for all processes of the tests: to be read, and a copy to be changed."""
    from genet.pipeline.context import open_run
    from genet.pipeline.run import run_job

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            with open_run(folder / "run", Progress(), read_recipe(write_recipe(folder))) as job:
                run_job(job)
            (folder / "done").touch()
    return RunFolder(folder / "run")


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to change."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture(scope="session")
def splits() -> Splits:
    """Images for the small network."""
    from genet.training.splits import load_data
    from tests.fixtures.small import NETWORK

    return load_data(Data(), NETWORK.input, seed=0)


@pytest.fixture(scope="session")
def module() -> GENet:
    """The small network."""
    from genet.models.build import build
    from tests.fixtures.small import NETWORK, with_own_statistics

    return with_own_statistics(build(NETWORK, seed=1)).eval()


@pytest.fixture(scope="session")
def exported(module: GENet, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exports]:
    """The small network exported in every format over the remains of an older export, into a folder without parents."""
    from genet.export.exports import export
    from genet.export.format import TrainedModel

    folder = tmp_path_factory.mktemp("small") / "deep" / "export"
    (folder / "timm").mkdir(parents=True)
    (folder / "timm" / "model.safetensors").write_bytes(b"of another network")
    return folder, export(TrainedModel(module, splits, "digits", labels=splits.labels), folder)
