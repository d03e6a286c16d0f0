"""What the progress tells of the time left."""

import time

from genet.progress import Count, Tracker


def test_time_left_is_known_only_once_this_run_has_done_something() -> None:
    tracker = Tracker(Count("trials", 10, done=4))
    assert tracker.left_s is None
    tracker.advance()
    assert tracker.left_s is not None


def test_work_of_an_earlier_run_counts_as_done_and_tells_nothing_of_the_pace() -> None:
    tracker = Tracker(Count("trials", 4))
    tracker.walk(2.0, earlier=True)
    assert tracker.position == 2
    assert tracker.left_s is None
    time.sleep(0.02)
    tracker.walk(1.0)
    assert (tracker.left_s or 0) >= 0.02, "one of four was done in that time, and one is left"
