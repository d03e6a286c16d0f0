"""What the tests of exports share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from genet.export.manifest import Exports


@pytest.fixture
def copy(exported: tuple[Path, Exports], tmp_path: Path) -> Path:
    """A copy of the export that a test may damage."""
    shutil.copytree(exported[0], tmp_path / "export")
    return tmp_path / "export"
