"""Commands whose standard output is closed, full, no longer read, or of few letters: they end as ever, or say why not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHECK = f"{sys.executable} -m genet check genet-light"
TABLE = f"""{sys.executable} -c '
from genet.cli.streams import outlast_streams
outlast_streams()
from genet.cli.console import progress, table
table(["head"], [["cell"]])
progress().say("said")
'"""


def in_a_shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.parametrize("command", [pytest.param(f"{CHECK} --json", marks=pytest.mark.slow), TABLE])
@pytest.mark.parametrize("streams", [pytest.param(">&-", marks=pytest.mark.slow), "<&- >&- 2>&-", "2> /dev/full"])
def test_what_nobody_can_read_disturbs_nothing(command: str, streams: str) -> None:
    ended = in_a_shell(f"{command} {streams}")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("command", [CHECK, f"{sys.executable} -m genet --version"])
def test_an_answer_that_finds_no_room_is_a_fault_of_one_line(command: str) -> None:
    ended = in_a_shell(f"{command} > /dev/full")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("standard output: got 'No space left on device'")


@pytest.mark.slow
def test_a_fault_keeps_its_code_when_nobody_can_read_it() -> None:
    assert in_a_shell(f"{sys.executable} -m genet check nowhere.yaml >&- 2>&-").returncode == 2
    assert in_a_shell(f"{sys.executable} -m genet nonsense 2> /dev/full").returncode == 2


def test_a_reader_that_had_enough_does_not_end_the_work() -> None:
    ended = in_a_shell(f"{TABLE.replace('table(', 'import time; time.sleep(0.1); table(')} | true; exit ${{PIPESTATUS[0]}}")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_file_opened_later_never_gets_what_a_closed_stream_was_told() -> None:
    code = "import os; from genet.cli.streams import outlast_streams; outlast_streams(); raise SystemExit(os.open(os.devnull, 0))"
    assert in_a_shell(f"{sys.executable} -c '{code}' <&- >&- 2>&-").returncode > 2


def test_letters_that_an_output_lacks_are_escaped() -> None:
    code = 'from genet.cli.streams import outlast_streams; outlast_streams(); print("K\\u00e4fer \\udcfc")'
    ended = in_a_shell(f"{sys.executable} -c '{code}'", PYTHONIOENCODING="ascii")
    assert (ended.stdout, ended.stderr) == ("K\\xe4fer \\udcfc\n", "")
