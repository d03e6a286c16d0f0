"""What a job tells of its rest: by the pace of the steps so far, and only of work that it did itself."""

from __future__ import annotations

from genet.pipeline.forecast import Forecast
from tests.fixtures.heard import Heard

EXPECTED = {"profile": 100.0, "calibration": 20.0, "master": 50.0, "distill": 200.0, "select": 10.0, "designs": 40.0}
EXPECTED |= {"race": 100.0, "export": 5.0}


def test_the_rest_is_told_by_the_pace_of_whole_networks_and_of_trainings_each_and_by_none_of_blocks() -> None:
    heard = Heard()
    forecast = Forecast(EXPECTED, heard, resumed=False)
    forecast.ended("tournament", 0.0)
    forecast.ended("profile", 700.0)  # drift had its rows repeated
    forecast.ended("calibration", 30.0)
    forecast.ended("master", 100.0)
    blocks, networks, trained = heard.lines
    assert blocks == (
        "  profile took 11 min 40 s, expected 1 min 40 s; at this pace the rest takes about 7 min 5 s: calibration "
        "20 s, master 50 s, distill 3 min 20 s, select 10 s, designs 40 s, race 1 min 40 s, export 5 s"
    )
    assert networks.endswith(": master 50 s, distill 3 min 20 s, select 15 s, designs 1 min 0 s, race 1 min 40 s, export 5 s")
    assert trained.endswith(": distill 6 min 40 s, select 15 s, designs 1 min 0 s, race 3 min 20 s, export 5 s")


def test_nothing_is_told_of_the_first_seconds_nor_by_what_an_earlier_process_did() -> None:
    heard = Heard()
    with Forecast(EXPECTED, heard, resumed=False).step("profile"):
        pass
    Forecast(EXPECTED, heard, resumed=True).ended("profile", 700.0)
    assert heard.lines == []
