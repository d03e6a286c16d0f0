"""The audit of paired trials: what it finds, and when it has nothing to say."""

from __future__ import annotations

import pytest

from genet.arch.network import BlockType
from genet.arch.space import superblock_of
from genet.trials.plan import Change
from genet.trials.results import TrialResult, additivity

WIDE, OWN = (superblock_of(BlockType("XX", 3), width, 1, 1) for width in (32, 16))


def result(index: int, accuracy: float | None, control: bool = False, also: int | None = None) -> TrialResult:
    """A trial that widens super-block `index`, and perhaps another."""
    changes = () if also is None else (Change(index=also, superblock=WIDE),)
    superblock = OWN if control else WIDE
    return TrialResult(
        index=index, superblock=superblock, also=changes, control=control, network=f"{index}{also}", seed=0, accuracy=accuracy
    )


CONTROLS = [result(0, 0.80, control=True), result(1, 0.82, control=True)]


def test_effects_that_add_up_have_no_interaction() -> None:
    found = additivity([*CONTROLS, result(0, 0.83), result(1, 0.81), result(0, 0.82, also=1)])
    assert found is not None
    assert (found.paired_trials, found.interaction, found.effect) == (1, pytest.approx(0.0), pytest.approx(0.02))


def test_what_a_pair_is_more_than_its_parts_is_its_interaction() -> None:
    found = additivity([*CONTROLS, result(0, 0.83), result(1, 0.81), result(0, 0.85, also=1)])
    assert found is not None
    assert found.interaction == pytest.approx(0.03)


@pytest.mark.parametrize("lost", range(5))
def test_a_pair_with_a_part_or_a_control_missing_tells_nothing(lost: int) -> None:
    whole = [*CONTROLS, result(0, 0.83), result(1, 0.81), result(0, 0.82, also=1)]
    assert additivity(whole) is not None
    assert additivity([each for number, each in enumerate(whole) if number != lost]) is None
