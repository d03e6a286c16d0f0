"""What the progress tells of the time left, and that it is never silent."""

import io
import time

from rich.console import Console

from genet.progress import LinePrinter, Tracker, WorkItem


def test_time_left_is_known_only_once_this_run_has_done_something() -> None:
    tracker = Tracker(WorkItem("trials", 10, done=4))
    assert tracker.left_s is None
    tracker.advance()
    assert tracker.left_s is not None


def test_work_of_an_earlier_run_counts_as_done_and_tells_nothing_of_the_pace() -> None:
    tracker = Tracker(WorkItem("trials", 6))
    tracker.advance_by(2.0, earlier=True)
    tracker.advance_by(1.0)
    assert tracker.position == 3
    assert tracker.left_s is None
    time.sleep(0.02)
    tracker.advance_by(1.0)
    assert (tracker.left_s or 0) >= 0.04, "one of six was done in that time, and two are left"


def test_what_comes_before_the_first_strides_is_no_part_of_the_pace() -> None:
    tracker = Tracker(WorkItem("trials", 100))
    time.sleep(0.2)  # workers start
    tracker.advance_by(0.1)
    time.sleep(0.001)
    tracker.advance_by(9.9)
    assert tracker.left_s is not None
    assert tracker.left_s < 1.8, "with the start it would be 90 x 0.02 s"


def test_no_work_is_told_to_be_beyond_its_end() -> None:
    tracker = Tracker(WorkItem("choices", 1))
    for _ in range(4):
        tracker.advance()
    assert tracker.state.startswith("4/4, done in")


def test_work_without_an_end_in_sight_tells_what_is_done_and_ends_where_it_is() -> None:
    tracker = Tracker(WorkItem("choices", None))
    for _ in range(3):
        tracker.advance()
    assert (tracker.state, tracker.left_s) == ("3 so far", None)
    tracker.end_here()
    assert tracker.state.startswith("3/3, done in")


def test_a_step_that_takes_long_and_work_that_nothing_counts_are_not_silent() -> None:
    printed = io.StringIO()
    printer = LinePrinter(Console(file=printed, width=200), every_s=0.05)
    with printer.awake():
        time.sleep(0.12)
        with printer.track("exports", 8) as tracker:
            tracker.advance()
            time.sleep(0.12)
    lines = printed.getvalue().splitlines()
    before, during = lines[: lines.index("  exports: 0/8, starting")], lines[lines.index("  exports: 0/8, starting") :]
    assert set(before) == {"  at work, 0 s so far"}
    assert any(line.startswith("  exports: 1/8, ") and line.endswith(" left, 0 s so far") for line in during)
    time.sleep(0.12)
    assert printed.getvalue().splitlines() == lines, "nothing is told once the work is over"


def test_the_time_left_does_not_grow_while_a_step_takes_longer_than_those_before() -> None:
    tracker = Tracker(WorkItem("trials", 5))
    time.sleep(0.02)
    tracker.advance()
    told = [tracker.left_s or 0.0]
    for _ in range(5):
        time.sleep(0.02)
        told.append(tracker.left_s or 0.0)
    assert told == sorted(told, reverse=True)
    assert 0.06 <= told[-1] < told[0], "the three steps behind the one under way"
    tracker.advance()
    assert (tracker.left_s or 0.0) > told[0], "it is known by now how long a step may take"
    tracker.advance()
    tracker.advance()
    tracker._last -= 60
    assert tracker.state == "4/5, longer than expected", "and not 0 s left"


def test_work_that_nothing_counts_is_told_by_its_name_and_a_step_by_what_is_being_done() -> None:
    printed = io.StringIO()
    printer = LinePrinter(Console(file=printed, width=200), every_s=0.05)
    with printer.awake(), printer.awake("fitting the regression"):
        time.sleep(0.12)
        with printer.track("selecting", 1) as tracker:
            tracker.now("network 2")
            time.sleep(0.12)
            tracker.advance()
    lines = printed.getvalue().splitlines()
    start = lines.index("  selecting: 0/1, starting")
    assert set(lines[:start]) == {"  fitting the regression, 0 s so far"}
    assert set(lines[start + 1 : -1]) == {"  selecting: 0/1, under way  network 2, 0 s so far"}
    assert lines[-1] == "  selecting: 1/1, done in 0 s"


def test_work_in_parts_is_told_when_nothing_else_was_and_only_what_has_moved() -> None:
    printed = io.StringIO()
    printer = LinePrinter(Console(file=printed, width=200), every_s=0.2)
    with printer.tracks([WorkItem("trials", 9), WorkItem("first", 4, part=True), WorkItem("second", 5, part=True)]) as (
        whole,
        _,
        second,
    ):
        for _ in range(3):
            whole.advance()
            second.advance()
        quiet = printed.getvalue().splitlines()
        time.sleep(0.3)
        told = printed.getvalue().splitlines()[3:5]
    assert [line.split(":")[0].strip() for line in quiet] == ["trials", "first", "second"], "a step prints nothing by itself"
    assert [line.split(",")[0] for line in told] == ["  trials: 3/9", "  second: 3/5"]
    assert printed.getvalue().count("first: 0/4") == 1


def test_no_line_is_wider_than_the_console_and_a_progress_line_keeps_its_count_and_the_start_of_its_remark() -> None:
    printed = io.StringIO()
    printer = LinePrinter(Console(file=printed, width=80), every_s=0.05)
    printer.say("  distill took 27 s, expected 28 s; at this pace the rest takes about 5 min 6 s: select 19 s, race 9 s")
    with printer.track("known designs, each scaled to every budget", 5) as tracker:
        tracker.advance()
        tracker.now("genet at 24 pixels, certified for 0.8x, " + "one more remark, " * 3)
        time.sleep(0.12)
        tracker._last -= 600
        tracker.now("super-block 1 as DW k3 c160 s1 d2 r3 and super-block 2 as BL k3 c96 s2 d1 r0.5: 94.2%")
        tracker.end_here()
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:3] == [
        "  distill took 27 s, expected 28 s; at this pace the rest takes about 5 min 6 s:",
        "    select 19 s, race 9 s",
        "  known designs, each scaled to every budget: 0/5, starting",
    ]
    assert lines[3].startswith("  known designs: 1/5, ")
    assert "  genet at 24 pixels, certified for 0.8x" in lines[3]
    assert lines[-1].startswith("  known designs: 1/1, done in ")
    assert lines[-1].endswith(" r3 and sup…"), "no comma to cut it at"
