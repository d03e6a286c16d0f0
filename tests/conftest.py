"""For all tests: hypothesis asserts no times, for machines are as fast as they are; one thread, or a finished run, on demand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from genet.progress import Progress
from genet.runfolder import RunFolder
from genet.spec.reader import read_recipe
from tests.tiny import write_recipe

settings.register_profile("genet", deadline=None)
settings.load_profile("genet")


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
    """A tiny run from start to end."""
    from genet import pipeline
    from genet.job import open_job

    folder = tmp_path_factory.mktemp("tiny")
    with open_job(folder / "run", Progress(), read_recipe(write_recipe(folder))) as job:
        pipeline.run(job)
    return RunFolder(folder / "run")


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to change."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")
