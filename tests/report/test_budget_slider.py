"""What the slider of a report offers for a budget is within it, by all that is known."""

from __future__ import annotations

from genet.report.budget_slider import offers
from genet.search.certificate import Certificate
from genet.search.solver import Candidate
from tests.fixtures.raced import WON

BATCH = 2


def candidate(network: str, ms: float, accuracy: float) -> Candidate:
    return Candidate(network=network, resolution=8, predicted_ms=ms, predicted_accuracy=accuracy, parameters=1)


def test_a_measured_network_is_offered_where_its_interval_is_and_others_are_told_to_be_predicted() -> None:
    fast, good, slow = candidate("fast", 2.0, 0.7), candidate("good", 4.0, 0.8), candidate("slow", 6.0, 0.9)
    measured = {"good": Certificate(ms=8.0, interval_ms=1.0, within=True)}
    found = offers([slow, good, fast], {}, {}, BATCH)
    assert [(each.network, each.from_ms_per_image) for each in found] == [("fast", 1.0), ("good", 2.0), ("slow", 3.0)]
    assert {each.known.split(";")[0][7:] for each in found} == {"ms predicted, not measured"}
    found = offers([slow, good, fast], measured, {"good": WON}, BATCH)
    assert [(each.network, each.from_ms_per_image) for each in found] == [("fast", 2.0), ("good", 4.5), ("slow", 6.0)], (
        "the others are taken to be twice as slow as predicted too"
    )
    assert found[1].known == "4.0000 ± 0.5000 ms measured; accuracy 88.0% ± 1.2% on test images"
    assert found[2].known == "6.0000 ms predicted, not measured; accuracy 90.0% predicted, not trained"
    slower = {
        "good": Certificate(ms=15.0, interval_ms=2.0, within=True),
        "slow": Certificate(ms=6.0, interval_ms=0.1, within=True),
    }
    assert "good" not in {each.network for each in offers([fast, good, slow], slower, {}, BATCH)}, "a better one is faster"
