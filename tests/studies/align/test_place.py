"""What a staircase offers a width: the edges beside it (tail-effect paper, equations 8a and 8b)."""

from __future__ import annotations

import pytest

from genet.latency.staircase.staircase import analyse
from genet.latency.staircase.sweep import Sweep
from genet.studies.align.place import Place, place
from genet.studies.align.subject import Movable

WIDTHS = tuple(range(8, 136, 8))


def of(ms: list[float], width: int, near: int = 128, widest: int = 128) -> Place:
    staircase = analyse(Sweep(widths=WIDTHS, ms=tuple(ms), sigma=(0.001,) * len(ms)))
    return place(movable(width, near, widest), staircase, {at: 100 * at for at in WIDTHS})


def movable(width: int, near: int, widest: int) -> Movable:
    return Movable("layer", ("layer",), width, grid=(near,), blocks=lambda width: (), widest=widest)


def stairs(tread: int) -> list[float]:
    return [1.0 + 0.5 * ((width - 1) // tread) for width in WIDTHS]


def widths(found: Place) -> tuple[int | None, int | None]:
    return found.left and found.left.width, found.right and found.right.width


def test_a_width_inside_a_step_may_move_to_the_edge_on_either_side() -> None:
    found = of(stairs(32), 48)
    assert (found.where, widths(found)) == ("inside", (32, 64))
    assert found.left
    assert found.right
    assert found.latency_gain(found.left) == pytest.approx(0.5)
    assert found.latency_gain(found.right) == pytest.approx(0.0, abs=1e-6)
    assert (found.parameter_gain(found.left), found.parameter_gain(found.right)) == (-1600, 1600)


def test_a_width_at_an_edge_may_move_a_whole_step() -> None:
    found = of(stairs(32), 64)
    assert (found.where, widths(found)) == ("edge", (32, 96))


def test_on_the_first_step_there_is_no_left_edge_and_on_the_last_the_widest_counts() -> None:
    assert widths(of(stairs(32), 16)) == (None, 32)
    assert widths(of(stairs(48), 120)) == (96, 128)
    assert widths(of(stairs(48), 128)) == (96, None)


def test_where_latency_rises_without_steps_nothing_is_offered() -> None:
    found = of([1.0 + 0.01 * width for width in WIDTHS], 64)
    assert (found.where, widths(found)) == ("no step", (None, None))


def test_where_width_costs_nothing_the_widest_is_offered() -> None:
    assert widths(of([1.0] * len(WIDTHS), 64)) == (None, 128)


def test_a_step_whose_end_nobody_saw_has_no_edge_and_fills_nobody_knows_how_much() -> None:
    found = of(stairs(48), 120)
    assert found.where == "inside"
    assert found.now.utilization is None
    assert found.right
    assert found.right.utilization is None
    assert of(stairs(48), 72).now.utilization == pytest.approx(72 / 96)


def test_an_edge_behind_the_widest_there_may_be_is_not_offered_and_one_behind_the_near_widths_is() -> None:
    assert widths(of(stairs(48), 56, near=80)) == (48, 96)
    assert widths(of(stairs(48), 56, near=80, widest=88)) == (48, 80)
    assert widths(of(stairs(48), 88, near=88, widest=88)) == (48, None)


def test_a_width_that_a_wider_one_is_as_fast_as_is_no_edge() -> None:
    dear = [4.0 if width in (56, 64) else ms for width, ms in zip(WIDTHS, stairs(32), strict=True)]
    assert (of(dear, 48).where, widths(of(dear, 48))) == ("edge", (32, 96))
    assert (of(dear, 64).where, widths(of(dear, 64))) == ("inside", (48, 96))
    assert widths(of(dear, 96)) == (48, 128)


def test_a_noisy_latency_before_the_end_of_a_step_does_not_take_its_edge_away() -> None:
    every = tuple(range(8, 1025, 8))
    ms = [1.0 + 0.5 * ((width - 1) // 128) - (0.2 if width == 504 else 0.0) - 1e-5 * width for width in every]
    staircase = analyse(Sweep(widths=every, ms=tuple(ms), sigma=(0.02,) * len(ms)))
    found = place(movable(600, 1024, 1024), staircase, dict.fromkeys(every, 1))
    assert widths(found) == (504, 640)


def test_a_small_step_is_an_edge_wherever_one_stands() -> None:
    slight = [1.0 + 0.004 * (width // 8) + (0.024 if width > 64 else 0) for width in WIDTHS]
    assert widths(of(slight, 80))[0] == 64
