"""`benchmarks/growth.py`: the page shows what it computes, and more GPUs never take longer."""

from __future__ import annotations

from pathlib import Path

import growth
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_page_shows_what_the_command_computes() -> None:
    text = PAGE.read_text().splitlines()
    assert [line for line in growth.page() if line.startswith("|") and line not in text] == []


def test_a_trial_of_a_group_as_it_was_timed_costs_what_was_measured() -> None:
    sharing = growth.Sharing.of(together=5.0, alone=11.0)
    assert sharing.of_trial(growth.TOGETHER) == pytest.approx(5.0)
    assert sharing.of_trial(1) == pytest.approx(11.0)


@pytest.mark.parametrize("job", [growth.cifar10(), growth.imagenet()])
def test_more_gpus_never_take_longer_and_one_training_after_another_is_left(job: growth.Job) -> None:
    takes = [sum(job.parts(gpus).values()) for gpus in growth.GPUS]
    assert takes == sorted(takes, reverse=True)
    assert takes[-1] > job.measuring + job.ends + 3 * job.training
