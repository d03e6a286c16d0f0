"""For all tests: hypothesis asserts no times, for machines are as fast as they are; and one thread for who asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

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
