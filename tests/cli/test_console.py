"""Tables of every command: 80 columns, nothing cut, no column without a value; and noise in words."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.cli.console import noise, table

WORDS = st.text("abcdefghij.0123456789", max_size=30)
TABLES = st.integers(1, 9).flatmap(
    lambda columns: st.lists(st.lists(WORDS, min_size=columns, max_size=columns), min_size=2, max_size=5)
)


@given(TABLES)
def test_a_table_is_never_wider_than_80_columns_and_cuts_nothing(drawn: list[list[str]]) -> None:
    head, *rows = ([f"{place}:{text}" for place, text in enumerate(row)] for row in drawn)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        table(head, rows)
    printed = out.getvalue()
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 80
    joined = "".join(printed.split())
    for text in (text for row in (head, *rows) for text in row[1:]):
        assert text in joined


def test_columns_without_a_value_are_left_out_and_those_without_room_come_below(capsys: pytest.CaptureFixture[str]) -> None:
    head = ["layer", "ms", "waves", "lost", "why", "where"]
    rows = [["conv1", "1.5", "", "n/a", "w" * 40, "x" * 30], ["conv2", "2.5", "n/a", "", "v" * 40, "y" * 30]]
    table(head, rows)
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines() if line.startswith("layer")] == [
        ["layer", "ms", "why"],
        ["layer", "where"],
    ]
    assert "waves" not in printed


def test_a_table_without_rows_has_its_first_heading(capsys: pytest.CaptureFixture[str]) -> None:
    table(["layer", "ms"], [])
    assert capsys.readouterr().out.split()[0] == "layer"


def test_repeats_that_spread_too_far_tell_nothing() -> None:
    assert (noise(0.012), noise(0.35)) == ("1.2%", "too noisy to tell (35%)")
