"""The regression: what it must learn, and what must not fool it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.choose.regression import Regression, fit
from genet.errors import EvidenceError
from genet.spec.network import BlockType, SuperBlock
from genet.spec.space import superblock_of
from genet.trials.plan import Change, Trial
from genet.trials.results import TrialResult, failed

XX, DW = BlockType("XX", 3), BlockType("DW", 3, 2.0)
MASTERNET = (superblock_of(XX, 32, 3, 2), superblock_of(DW, 64, 2, 2))
MOVES = [(16, 2), (16, 4), (64, 2), (64, 4), (32, 5), (64, 3)]


def trial(index: int, superblock: SuperBlock, accuracy: float | None) -> TrialResult:
    planned = Trial(index=index, superblock=superblock, network=f"{index}{superblock}", seed=0)
    return failed(planned, "bug", "out of luck") if accuracy is None else TrialResult(**dict(planned), accuracy=accuracy)


def trials(kind: BlockType, per_block: float, per_doubling: float, shift: float) -> list[TrialResult]:
    """Trials of super-block 1 whose accuracies are exactly linear in depth and log-width."""
    found = []
    for width, depth in MOVES:
        doublings = {16: -1, 32: 0, 64: 1}[width]
        accuracy = 0.8 + shift + per_block * (depth - 3) + per_doubling * doublings
        found.append(trial(0, superblock_of(kind, width, depth, 2), accuracy))
    return found


def gains(regression: Regression) -> list[float]:
    return [regression.gain(0, superblock_of(kind, w, d, 2)) for kind in (XX, DW) for w, d in MOVES]


def test_slopes_of_linear_accuracies_are_found() -> None:
    regression = fit(MASTERNET, 0.8, trials(XX, per_block=0.01, per_doubling=0.02, shift=0.0))
    (gradient,) = regression.gradients
    assert gradient.per_block == pytest.approx(0.01, rel=0.1)
    assert gradient.per_doubling == pytest.approx(0.02, rel=0.1)
    assert gradient.trials == len(MOVES)


def test_the_masternets_own_superblock_gains_nothing() -> None:
    regression = fit(MASTERNET, 0.8, trials(XX, 0.01, 0.02, shift=-0.03))
    assert regression.gain(0, MASTERNET[0]) == 0


@given(st.floats(-0.2, 0.2))
def test_what_fine_tuning_costs_every_trial_changes_no_prediction(cost: float) -> None:
    free = fit(MASTERNET, 0.8, [*trials(XX, 0.01, 0.02, 0), *trials(DW, 0.0, 0.01, -0.04)])
    paid = fit(MASTERNET, 0.8, [*trials(XX, 0.01, 0.02, cost), *trials(DW, 0.0, 0.01, -0.04 + cost)])
    assert gains(paid) == pytest.approx(gains(free), abs=1e-9)


def test_a_type_that_is_worse_at_every_size_is_predicted_worse() -> None:
    regression = fit(MASTERNET, 0.8, [*trials(XX, 0.0, 0.0, -0.01), *trials(DW, 0.0, 0.0, -0.05)])
    assert regression.gain(0, superblock_of(DW, 32, 3, 2)) == pytest.approx(-0.04)


def test_noise_without_a_trend_is_shrunk_to_no_trend() -> None:
    noisy = [
        trial(0, superblock_of(XX, width, depth, 2), 0.8 + 0.02 * sign)
        for (width, depth), sign in zip(MOVES, [1, -1, -1, 1, 1, -1], strict=True)
    ]
    regression = fit(MASTERNET, 0.8, noisy)
    assert regression.penalty == 100.0
    assert abs(regression.gradients[0].per_doubling) < 0.002


def test_failed_trials_are_left_out() -> None:
    good = trials(XX, 0.01, 0.02, 0)
    bad = [trial(0, superblock_of(XX, 48, 3, 2), None)]
    assert fit(MASTERNET, 0.8, [*good, *bad]) == fit(MASTERNET, 0.8, good)


def test_the_order_of_the_trials_does_not_matter() -> None:
    some = [*trials(XX, 0.01, 0.02, 0), *trials(DW, 0.0, 0.01, -0.04)]
    forwards, backwards = fit(MASTERNET, 0.8, some), fit(MASTERNET, 0.8, some[::-1])
    assert gains(backwards) == pytest.approx(gains(forwards), abs=1e-12)


def test_one_trial_alone_gives_an_intercept_and_no_slopes() -> None:
    regression = fit(MASTERNET, 0.8, [trial(0, superblock_of(DW, 64, 4, 2), 0.75)])
    (gradient,) = regression.gradients
    assert (gradient.per_block, gradient.per_doubling) == (0, 0)
    assert gradient.intercept == pytest.approx(-0.05)
    assert regression.left_out_error is None


def test_all_trials_failed_is_said() -> None:
    with pytest.raises(EvidenceError, match="at least one finished trial"):
        fit(MASTERNET, 0.8, [trial(0, MASTERNET[0], None)])


def test_nothing_is_predicted_of_a_block_type_without_trials() -> None:
    regression = fit(MASTERNET, 0.8, trials(XX, 0.01, 0.02, 0))
    assert regression.gain(0, superblock_of(DW, 32, 3, 2)) is None


def test_joint_trials_and_a_control_that_stands_alone_teach_nothing_about_changes() -> None:
    alone = trial(1, MASTERNET[1], 0.7).model_copy(update={"control": True})
    joint = trial(0, superblock_of(XX, 64, 3, 2), 0.1)
    joint = joint.model_copy(update={"also": (Change(index=1, superblock=superblock_of(DW, 32, 2, 2)),)})
    plain = trials(XX, 0.01, 0.02, 0)
    assert fit(MASTERNET, 0.8, [*plain, alone, joint]).gradients == fit(MASTERNET, 0.8, plain).gradients


def test_a_control_that_stands_alone_still_takes_the_cost_of_fine_tuning_out_of_other_types(tmp_path: Path) -> None:
    control = trial(0, MASTERNET[0], 0.7).model_copy(update={"control": True})
    regression = fit(MASTERNET, 0.8, [*trials(DW, 0.0, 0.0, -0.1), control])
    assert regression.gain(0, superblock_of(DW, 32, 3, 2)) == pytest.approx(0.0)
    regression.save(tmp_path / "regression.json")
    assert Regression.load(tmp_path / "regression.json") == regression


def test_a_control_is_one_more_trial_of_the_masternets_own_type() -> None:
    control = trial(0, MASTERNET[0], 0.75).model_copy(update={"control": True})
    (gradient,) = fit(MASTERNET, 0.8, [*trials(XX, 0.0, 0.0, -0.05), control]).gradients
    assert gradient.trials == len(MOVES) + 1
    assert gradient.intercept == pytest.approx(-0.05)
