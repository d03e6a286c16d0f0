"""What the progress tells of the time left."""

import time

from genet.progress import Count, Tracker


def test_time_left_is_known_only_once_this_run_has_done_something() -> None:
    tracker = Tracker(Count("trials", 10, done=4))
    assert tracker.left_s is None
    tracker.advance()
    assert tracker.left_s is not None


def test_work_of_an_earlier_run_counts_as_done_and_tells_nothing_of_the_pace() -> None:
    tracker = Tracker(Count("trials", 6))
    tracker.advance_by(2.0, earlier=True)
    tracker.advance_by(1.0)
    assert tracker.position == 3
    assert tracker.left_s is None
    time.sleep(0.02)
    tracker.advance_by(1.0)
    assert (tracker.left_s or 0) >= 0.04, "one of six was done in that time, and two are left"


def test_what_comes_before_the_first_strides_is_no_part_of_the_pace() -> None:
    tracker = Tracker(Count("trials", 100))
    time.sleep(0.2)  # workers start
    tracker.advance_by(0.1)
    time.sleep(0.001)
    tracker.advance_by(9.9)
    assert tracker.left_s is not None
    assert tracker.left_s < 1.8, "with the start it would be 90 x 0.02 s"
