"""What the tests of trainings share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def always_one_thread(one_thread: None) -> None:
    """For all tests of this folder."""
