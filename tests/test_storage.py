"""Records, atomic writes, journals and locks: what is on the disk after a crash, a full disk or a second process."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import genet
from genet.errors import RunError, StorageError
from genet.storage import (
    FolderLock,
    Journal,
    Record,
    read_checked,
    remove_temporary,
    write_atomic,
    write_checked,
    written_atomically,
)

ROOT = Path(genet.__file__).parents[1]


class Sample(Record):
    """A record with the kinds of fields that the project's records have."""

    name: str
    sizes: tuple[int, ...]
    ratio: float | None = None


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second Python process that imports this checkout."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def output_of(code: str, *arguments: object) -> str:
    """What the process printed; it must end well."""
    process = start(code, *arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


@contextmanager
def holding(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A second process that prints `held` once it holds what it is to hold, and lets go when its input closes."""
    process = start(code, *arguments)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from genet.errors import StorageError
from genet.storage import Journal, write_atomic, write_checked

def limit(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def refused(write, *arguments):
    try:
        write(*arguments)
    except StorageError as fault:
        print(fault)
    else:
        print("written")
"""


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Records


def test_a_saved_record_loads_as_an_equal_one(tmp_path: Path) -> None:
    sample = Sample(name="é\n", sizes=(3, 1), ratio=0.1)
    sample.save(tmp_path / "new" / "sample.json")
    assert Sample.load(tmp_path / "new" / "sample.json") == sample


def test_a_record_file_cut_at_any_byte_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "sample.json"
    Sample(name="a", sizes=(1, 2), ratio=0.5).save(path)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # the last byte is the line break after the closing brace
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError, match=re.escape(f"reading {path} as a Sample failed: ")):
            Sample.load(path)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"", "the file: "),
        (b"\xff\xfe", "the file: "),
        (b'{"name": "a", "sizes": [1], "colour": 2}', "colour: "),
        (b'{"name": "a", "sizes": [1, "2"]}', "sizes.1: "),
        (b'{"name": "a", "sizes": [1], "ratio": NaN}', "ratio: "),
        (b'{"name": "a"}', "sizes: "),
    ],
)
def test_a_foreign_file_is_refused_with_the_field_at_fault(tmp_path: Path, content: bytes, where: str) -> None:
    path = tmp_path / "sample.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=re.escape(f"reading {path} as a Sample failed: {where}")):
        Sample.load(path)


def test_a_missing_record_is_a_storage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=re.escape(f"{tmp_path / 'none.json'}: cannot be read (No such file or directory)")):
        Sample.load(tmp_path / "none.json")


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Sample(name="a", sizes=()).name = "b"  # type: ignore[misc]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_record_holds_no_infinity_and_no_nan(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Sample(name="a", sizes=(), ratio=value)


# Atomic files


def test_a_write_makes_the_folders_above_and_leaves_one_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "file", b"one")
    write_atomic(tmp_path / "a" / "b" / "file", b"two")
    assert files_below(tmp_path) == {"a/b/file": b"two"}


def test_a_full_disk_keeps_the_old_file_and_leaves_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    said = output_of(LIMITED + "limit(4096)\nrefused(write_atomic, Path(sys.argv[1]), b'n' * 4097)", path)
    assert re.fullmatch(
        rf"{re.escape(str(path))}: the disk is full \([\d.]+ MiB free\); free some space and give the same command again\n", said
    )
    assert files_below(tmp_path) == {"file": b"old"}


def test_a_reader_that_has_the_old_file_open_still_reads_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"


def test_a_file_that_just_fits_is_written(tmp_path: Path) -> None:
    said = output_of(LIMITED + "limit(4096)\nrefused(write_atomic, Path(sys.argv[1]), b'n' * 4096)", tmp_path / "file")
    assert said == "written\n"
    assert files_below(tmp_path) == {"file": b"n" * 4096}


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageError, match=re.escape(f"{tmp_path / 'file' / 'below'}: cannot be written")):
        write_atomic(tmp_path / "file" / "below", b"new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=re.escape(f"{tmp_path / 'folder'}: cannot be written")):
        write_atomic(tmp_path / "folder", b"new")
    assert files_below(tmp_path) == {"file": b"old"}


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(
    ("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
def test_modes_follow_the_umask(tmp_path: Path, umask: Callable[[int], int], mask: int, file_mode: int, folder_mode: int) -> None:
    umask(mask)
    write_atomic(tmp_path / "file", b"")
    with written_atomically(tmp_path / "folder"):
        pass
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == file_mode
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == folder_mode
    assert os.umask(mask) == mask


def test_a_folder_shows_only_when_its_block_has_ended_well(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    with written_atomically(folder) as temporary:
        (temporary / "a").write_bytes(b"1")
        assert not folder.exists()
    assert files_below(tmp_path) == {"export/a": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("one_name_each", [False, True])
def test_a_new_folder_replaces_our_files_in_the_old_one_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_name_each: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    if one_name_each:
        monkeypatch.setattr(os, "link", refuse)
    for name in ("old", "new"):
        with written_atomically(tmp_path / "export", {"old"}) as temporary:
            (temporary / name).write_bytes(b"1")
        (tmp_path / "export" / "deep").mkdir(exist_ok=True)
        (tmp_path / "export" / "deep" / name).write_bytes(b"mine")
    assert files_below(tmp_path) == {"export/new": b"1", "export/deep/old": b"mine", "export/deep/new": b"mine"}


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_nothing_new_and_keeps_the_old_folder(tmp_path: Path, fault: type[BaseException]) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "old").write_bytes(b"1")

    def fail(folder: Path) -> None:
        with written_atomically(folder) as temporary:
            (temporary / "half").write_bytes(b"2")
            raise fault("in the block")

    for folder in ("export", "fresh"):
        with pytest.raises(fault, match="in the block"):
            fail(tmp_path / folder)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert files_below(tmp_path) == {"export/old": b"1"}


KILLED_AT_EVERY_STEP = """
import json, os, signal, sys
from pathlib import Path
from genet.storage import read_bytes, read_checked, write_atomic, write_checked, written_atomically

def replace(folder, value):
    with written_atomically(folder, "abc") as temporary:
        for name in "abc":
            (temporary / name).write_text(value)

root, what = Path(sys.argv[1]), sys.argv[2]
write = {
    "file": lambda value: write_atomic(target, value.encode()),
    "pair": lambda value: write_checked(target, value.encode()),
    "folder": lambda value: replace(target, value),
}[what]
steps = 0

def kill_at(step):
    def hook(event, arguments):
        global steps
        if event == "open" or event.startswith(("os.", "shutil.", "tempfile.")):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
    return hook

def state():
    try:
        if what == "folder":
            return [(target / name).read_text() if (target / name).exists() else "" for name in "abc"]
        return (read_checked if what == "pair" else read_bytes)(target).decode()
    except Exception as fault:
        return repr(fault)

killed, states = True, []
while killed:
    target = root / str(len(states)) / "target"
    write("old")
    process = os.fork()
    if process == 0:
        sys.addaudithook(kill_at(len(states) + 1))
        write("new")
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    states.append(state())
print(json.dumps(states))
"""


def states_after_kills(tmp_path: Path, what: str) -> list[object]:
    """What a reader finds when the writer is killed before its 1st, 2nd, ... system step; last, after no kill."""
    states = json.loads(output_of(KILLED_AT_EVERY_STEP, tmp_path, what))
    assert len(states) > 4, "too few steps were seen for the kills to mean anything"
    return states


def test_a_kill_at_any_step_of_a_write_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    *killed, finished = states_after_kills(tmp_path, "file")
    assert finished == "new"
    assert set(killed) == {"old", "new"}


def test_a_kill_at_any_step_of_a_checked_write_leaves_a_readable_pair(tmp_path: Path) -> None:
    *killed, finished = states_after_kills(tmp_path, "pair")
    assert finished == "new"
    assert [state for state in killed if state not in ("old", "new")] == []


def test_a_kill_at_any_step_of_a_folder_replacement_leaves_no_half_folder(tmp_path: Path) -> None:
    *killed, finished = states_after_kills(tmp_path, "folder")
    assert finished == ["new"] * 3
    assert [state for state in killed if state not in (["old"] * 3, ["new"] * 3, [""] * 3)] == []


# Checksums


def test_checked_bytes_read_back(tmp_path: Path) -> None:
    write_checked(tmp_path / "weights", bytes(range(256)))
    assert read_checked(tmp_path / "weights") == bytes(range(256))


def test_a_checksum_file_is_what_sha256sum_checks(tmp_path: Path) -> None:
    write_checked(tmp_path / "weights", b"data")
    subprocess.run(["sha256sum", "--check", "--strict", "weights.sha256"], cwd=tmp_path, check=True, capture_output=True)


def test_one_flipped_bit_anywhere_is_detected(tmp_path: Path) -> None:
    path, data = tmp_path / "weights", b"sixteen bytes of"
    write_checked(path, data)
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(StorageError, match=re.escape(f"{path} does not match its SHA-256 in weights.sha256")):
            read_checked(path)


def test_one_flipped_digit_of_the_checksum_is_detected(tmp_path: Path) -> None:
    path, beside = tmp_path / "weights", tmp_path / "weights.sha256"
    write_checked(path, b"data")
    whole = beside.read_bytes()
    for position in range(64):
        beside.write_bytes(whole[:position] + (b"0" if whole[position : position + 1] != b"0" else b"1") + whole[position + 1 :])
        with pytest.raises(StorageError, match="does not match its SHA-256"):
            read_checked(path)


@pytest.mark.parametrize("content", [None, b""])
def test_data_without_a_checksum_is_not_read(tmp_path: Path, content: bytes | None) -> None:
    write_checked(tmp_path / "weights", b"data")
    (tmp_path / "weights.sha256").unlink()
    if content is not None:
        (tmp_path / "weights.sha256").write_bytes(content)
    with pytest.raises(StorageError, match=r"weights\.sha256"):
        read_checked(tmp_path / "weights")


# Journals

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
records = st.dictionaries(st.text(), values, max_size=3)


@given(st.lists(records, max_size=4))
def test_a_journal_reads_back_what_was_appended_in_order(appended: list[dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal")
        for record in appended:
            journal.append(record)
        assert list(journal.read().records) == appended
        assert journal.read().damaged == ()


def test_a_journal_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    content = Journal(tmp_path / "none").read()
    assert (content.records, content.damaged) == ((), ())
    assert not (tmp_path / "none").exists()


THREE = [{"trial": 1, "loss": 0.25}, {"trial": 2, "name": "BL k3"}, {"trial": 3, "loss": None}]


def journal_of(path: Path, *records: dict[str, object]) -> Journal:
    journal = Journal(path)
    for record in records:
        journal.append(record)
    return journal


def test_a_journal_cut_at_any_byte_keeps_every_whole_line_and_the_next_append(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", *THREE)
    whole = journal.path.read_bytes()
    for length in range(len(whole) + 1):
        journal.path.write_bytes(whole[:length])
        kept = THREE[: whole[:length].count(b"\n")]
        assert list(journal.read().records) == kept
        assert journal.read().damaged == ()
        journal.append({"trial": 4})
        assert list(journal.read().records) == [*kept, {"trial": 4}]
        assert journal.read().damaged == ()


def test_a_torn_line_longer_than_the_backward_step_is_cut_off_too(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", THREE[0], {"long": "x" * 200_000})
    for cut in (1, 65_536, 65_537, 150_000):
        journal.path.write_bytes(journal.path.read_bytes()[:-cut])
        journal.append(THREE[2])
        assert list(journal.read().records) == [THREE[0], THREE[2]]
        journal = journal_of(tmp_path / f"after-{cut}", THREE[0], {"long": "x" * 200_000})


def flipped_bits(data: bytes, first: int, last: int) -> Iterator[bytes]:
    for position in range(first * 8, last * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        yield bytes(changed)


def test_one_flipped_bit_in_a_line_is_reported_by_number_and_costs_no_other_line(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", *THREE)
    whole = journal.path.read_bytes()
    first = whole.index(b"\n") + 1
    for changed in flipped_bits(whole, first, whole.index(b"\n", first)):
        journal.path.write_bytes(changed)
        assert journal.read().damaged == (2,)
        assert list(journal.read().records) == [THREE[0], THREE[2]]


def test_a_bit_that_flips_into_a_line_break_is_reported_and_costs_no_other_line(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", {"trial": 1}, {"name": "J"}, {"trial": 3})
    journal.path.write_bytes(journal.path.read_bytes().replace(b"J", b"\n"))
    assert journal.read().damaged == (2, 3)
    assert list(journal.read().records) == [{"trial": 1}, {"trial": 3}]


def test_a_flipped_line_break_is_reported_and_costs_the_two_lines_that_it_joined(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", *THREE, {"trial": 4})
    whole = journal.path.read_bytes()
    end = whole.index(b"\n", whole.index(b"\n") + 1)
    for changed in flipped_bits(whole, end, end + 1):
        journal.path.write_bytes(changed)
        assert journal.read().damaged == (2,)
        assert list(journal.read().records) == [THREE[0], {"trial": 4}]


def test_an_append_leaves_a_damaged_line_as_evidence(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", *THREE)
    damaged = journal.path.read_bytes().replace(b"BL k3", b"BL k5")
    journal.path.write_bytes(damaged)
    journal.append({"trial": 4})
    assert journal.path.read_bytes().startswith(damaged)
    assert journal.read().damaged == (2,)


def test_a_value_that_is_no_json_is_refused_and_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", *THREE)
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({"loss": float("nan")})
    assert list(journal.read().records) == THREE


def test_an_append_that_meets_a_full_disk_loses_no_earlier_record(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", *THREE)
    room = journal.path.stat().st_size + 20
    code = LIMITED + "limit(int(sys.argv[2]))\nrefused(Journal(Path(sys.argv[1])).append, {'trial': 4})"
    assert "the disk is full" in output_of(code, journal.path, room)
    assert list(journal.read().records) == THREE
    assert journal.read().damaged == ()
    journal.append({"trial": 5})
    assert list(journal.read().records) == [*THREE, {"trial": 5}]


HOLD_JOURNAL = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_of_a_journal_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", *THREE)
    with holding(HOLD_JOURNAL, journal.path):
        with pytest.raises(RunError, match=re.escape(f"{journal.path}: another process is appending to it")):
            journal.append({"trial": 4})
        assert list(journal.read().records) == THREE
    journal.append({"trial": 4})
    assert list(journal.read().records) == [*THREE, {"trial": 4}]


APPEND_MANY = """
import sys
from pathlib import Path
from genet.errors import RunError
from genet.storage import Journal
print("held", flush=True)
sys.stdin.readline()
for number in range(30):
    while True:
        try:
            Journal(Path(sys.argv[1])).append({"writer": sys.argv[2], "number": number})
            break
        except RunError:
            pass
"""


def test_two_writers_that_try_again_lose_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with holding(APPEND_MANY, journal.path, "a") as one, holding(APPEND_MANY, journal.path, "b") as other:
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert (one.wait(60), other.wait(60)) == (0, 0)
    content = journal.read()
    assert content.damaged == ()
    for writer in "ab":
        assert [record["number"] for record in content.records if record["writer"] == writer] == list(range(30))


def test_an_append_to_a_shared_journal_waits_for_the_other_writer_and_its_lock_goes_with_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genet.storage, "QUIET_S", 0.0)
    journal, said = journal_of(tmp_path / "journal", *THREE), []
    with holding(HOLD_JOURNAL, journal.path) as holder:

        def waiting(text: str) -> None:
            said.append(text)
            holder.kill()

        Journal(journal.path, waiting).append({"trial": 4})
    assert said == [f"  {journal.path}: another process is appending to it: waiting for up to 60 s"]
    assert list(journal.read().records) == [*THREE, {"trial": 4}]


def test_an_append_to_a_shared_journal_gives_up_on_a_writer_that_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genet.storage, "PATIENCE_S", 0.05)
    journal, said = journal_of(tmp_path / "journal", *THREE), list[str]()
    with holding(HOLD_JOURNAL, journal.path), pytest.raises(RunError, match="another process is appending to it"):
        Journal(journal.path, said.append).append({"trial": 4})
    assert (said, list(journal.read().records)) == ([], THREE)


def test_an_append_returns_what_others_have_added_since_and_cuts_what_one_of_them_left_torn(tmp_path: Path) -> None:
    other, journal = journal_of(tmp_path / "journal", THREE[0]), Journal(tmp_path / "journal")
    assert list(journal.read().records) == THREE[:1]
    other.append(THREE[1])
    other.path.write_bytes(other.path.read_bytes() + b'{"sha256":"killed here')
    assert journal.append(THREE[2]) == (THREE[1],)
    assert journal.append({"trial": 4}) == ()
    assert other.append({"trial": 5}) == (THREE[2], {"trial": 4})
    assert list(journal.read().records) == [*THREE, {"trial": 4}, {"trial": 5}]
    assert journal.read().damaged == ()


APPEND_MANY_SHARED = """
import sys
from pathlib import Path
from genet.storage import Journal
print("held", flush=True)
sys.stdin.readline()
journal, seen = Journal(Path(sys.argv[1]), print), []
for number in range(100):
    seen += journal.append({"writer": sys.argv[2], "number": number})
print(len(seen) + len(journal.append({"writer": sys.argv[2], "number": 100})))
"""


def test_writers_side_by_side_lose_nothing_and_hear_of_each_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with holding(APPEND_MANY_SHARED, journal.path, "a") as one, holding(APPEND_MANY_SHARED, journal.path, "b") as other:
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        heard = [int(process.communicate(timeout=60)[0]) for process in (one, other)]
    content = journal.read()
    assert (len(content.records), content.damaged) == (202, ())
    for writer in "ab":
        assert [record["number"] for record in content.records if record["writer"] == writer] == list(range(101))
    assert max(heard) == 101  # the one that ended last has heard of all


def test_a_child_forked_during_an_append_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom genet.storage import Journal\n"
        "def fork(handle):\n    if os.fork() == 0:\n        print(os.getpid(), flush=True)\n    time.sleep(60)\n"
        "os.fsync = fork\nJournal(Path(sys.argv[1])).append({})"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "journal")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(RunError, match="one writer at a time"):
            Journal(tmp_path / "journal").append({})
        parent.kill()
        parent.wait()
        Journal(tmp_path / "journal").append({})
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


# Folder locks

HOLD_FOLDER = """
import sys
from pathlib import Path
from genet.storage import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_while_a_run_folder_is_held(tmp_path: Path) -> None:
    refusal = re.escape(f"{tmp_path / 'run'}: another process is working in it")
    with holding(HOLD_FOLDER, tmp_path / "run"):
        for _ in range(2):
            with pytest.raises(RunError, match=refusal), FolderLock(tmp_path / "run"):
                pass


def test_a_run_folder_is_free_again_when_its_holder_ends(tmp_path: Path) -> None:
    with holding(HOLD_FOLDER, tmp_path / "run") as holder:
        assert holder.stdin is not None
        holder.stdin.close()
        assert holder.wait(60) == 0
        holder.stdin = None
        with FolderLock(tmp_path / "run"):
            pass


def test_a_run_folder_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    with holding(HOLD_FOLDER, tmp_path / "run") as holder:
        os.kill(holder.pid, signal.SIGKILL)
        assert holder.wait(60) == -signal.SIGKILL
        with FolderLock(tmp_path / "run"):
            pass


def test_a_run_folder_is_free_again_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in the block"), FolderLock(tmp_path / "run"):
        raise ValueError("in the block")
    with FolderLock(tmp_path / "run"):
        pass


def test_a_lock_leaves_no_folder_that_it_made_and_nobody_wrote_to(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with FolderLock(tmp_path / "mine" / "runs" / "net"):
        pass
    with FolderLock(tmp_path / "mine"):
        pass
    with FolderLock(tmp_path / "runs" / "net"):
        write_atomic(tmp_path / "runs" / "net" / "a", b"1")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.name != ".lock"} == {
        "mine",
        "runs",
        "runs/net",
        "runs/net/a",
    }


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    """Such as a data loader's worker, which outlives its parent by some seconds."""
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom genet.storage import FolderLock\n"
        "with FolderLock(Path(sys.argv[1])):\n"
        "    if os.fork() == 0:\n        print(os.getpid(), flush=True)\n    time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(RunError, match="another process is working in it"), FolderLock(tmp_path):
            pass
        parent.kill()
        parent.wait()
        with FolderLock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_an_export_that_a_kill_interrupted_while_it_was_replaced_is_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = tmp_path / "networks" / "net-1" / "export"
    export.mkdir(parents=True)
    (export / "notes.txt").write_text("the user's own")
    replace, moved = Path.replace, list[Path]()

    def killed_between(path: Path, target: Path) -> Path:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed_between)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # a killed process clears nothing away
    with pytest.raises(KeyboardInterrupt), written_atomically(export) as folder:
        (folder / "model.onnx").write_bytes(b"new")
    monkeypatch.undo()
    assert not export.exists()
    remove_temporary(tmp_path)
    assert [file.name for file in export.iterdir()] == ["notes.txt"]
    assert [file.name for file in export.parent.iterdir()] == ["export"]
