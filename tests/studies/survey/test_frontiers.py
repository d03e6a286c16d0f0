"""Frontiers: what no other network beats, by the definition and on the paper's own table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genet.studies.survey.survey import Surveyed, frontiers, pareto_positions

FEW = st.integers(0, 5).map(float)  # ties and duplicates are frequent


def beaten(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return other[0] >= one[0] and other[1] >= one[1] and other != one


@given(st.lists(st.tuples(FEW, FEW), max_size=40))
def test_a_frontier_holds_exactly_what_no_other_beats(points: list[tuple[float, float]]) -> None:
    expected = tuple(place for place, one in enumerate(points) if not any(beaten(one, other) for other in points))
    assert pareto_positions(points) == expected


def test_equal_networks_stay_together() -> None:
    rows = [Surveyed(model=name, images_per_sec=10, tflops_per_sec=2, top1_percent=70) for name in ("one", "other")]
    found = frontiers(rows)
    assert found.on_all == ("one", "other")


def test_a_network_without_accuracy_is_on_no_frontier_that_needs_one() -> None:
    known = Surveyed(model="known", images_per_sec=10, tflops_per_sec=2, top1_percent=70)
    fast = Surveyed(model="fast", images_per_sec=20, tflops_per_sec=3)
    found = frontiers([known, fast])
    assert found.throughput_accuracy == found.utilization_accuracy == ("known",)
    assert found.throughput_utilization == ("fast",)


def test_utilization_counts_against_each_networks_own_peak_once_all_have_one() -> None:
    """The second did more per second, on a device that was slower at that moment by less."""
    rows = [
        Surveyed(model="one", images_per_sec=10, tflops_per_sec=2.0, peak_tflops_per_sec=3),
        Surveyed(model="other", images_per_sec=10, tflops_per_sec=2.2, peak_tflops_per_sec=4),
    ]
    assert frontiers(rows).throughput_utilization == ("one",)
    assert frontiers([rows[0].model_copy(update={"peak_tflops_per_sec": None}), rows[1]]).throughput_utilization == ("other",)
