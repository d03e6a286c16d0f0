"""What a job tells of its rest: by the pace of the steps so far, and only of work that it did itself."""

from __future__ import annotations

from genet.pipeline.forecast import Forecast
from tests.fixtures.heard import Heard

EXPECTED = {"profile": 100.0, "master": 50.0, "distill": 200.0, "select": 10.0, "designs": 40.0, "race": 100.0, "export": 5.0}


def test_the_rest_is_told_by_the_pace_of_measuring_and_of_training_each() -> None:
    heard = Heard()
    forecast = Forecast(EXPECTED, heard, resumed=False)
    forecast.ended("tournament", 0.0)
    forecast.ended("profile", 700.0)
    forecast.ended("master", 100.0)
    measured, trained = heard.lines
    assert measured == (
        "  profile took 11 min 40 s, expected 1 min 40 s; the rest takes about 11 min 45 s by the pace so far: master 50 s, "
        "distill 3 min 20 s, select 1 min 10 s, designs 4 min 40 s, race 1 min 40 s, export 5 s"
    )
    assert "distill 6 min 40 s, select 1 min 10 s, designs 4 min 40 s, race 3 min 20 s, export 5 s" in trained


def test_nothing_is_told_of_the_first_seconds_nor_by_what_an_earlier_process_did() -> None:
    heard = Heard()
    with Forecast(EXPECTED, heard, resumed=False).step("profile"):
        pass
    Forecast(EXPECTED, heard, resumed=True).ended("profile", 700.0)
    assert heard.lines == []
