"""Writing to disk: frozen records, atomic files, append-only journals, and one writer per run folder.

Every write in the project goes through this module, so a kill, a full disk or a second process leaves
either the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from genet.errors import RunError, StorageError

TEMPORARY = ".genet-"  # name of unfinished files, so that no other files are ever taken for leftovers
BEFORE = ".before"  # ends the name of a folder that is being replaced
PATIENCE_S = 60.0  # an append takes milliseconds: a process that holds its lock for so long is stopped or hangs
QUIET_S = 3.0  # of waiting, before it is reported


def digest(data: bytes | str) -> str:
    """Return the SHA-256 of bytes or text, as 64 hexadecimal digits."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


class Record(BaseModel):
    """A frozen record, which the steps exchange. It can be read from and written to a JSON file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed; pydantic's own silently accepts a field that does not exist."""
        if unknown := (update or {}).keys() - type(self).model_fields.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)

    def save(self, path: Path) -> None:
        """Write the record as indented JSON, atomically."""
        write_atomic(path, (self.model_dump_json(indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the record back; a damaged or foreign file is a StorageError that names it."""
        try:
            return cls.model_validate_json(read_bytes(path), strict=True)
        except ValidationError as fault:
            first = fault.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise StorageError(
                f"reading {path} as a {cls.__name__} failed: {where}: {first['msg']}; delete the file to make it again"
            ) from None


class Described(Record):
    """A record that users write: the text below a field explains it, here and in the docs."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Derived(Record):
    """A record with the digest of its inputs: it is valid only as long as they are unchanged."""

    inputs: str


def read_bytes(path: Path, most: int = -1) -> bytes:
    """Return the file's bytes, or the first of them; StorageError if it is missing or unreadable."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as fault:
        raise StorageError(f"{path}: cannot be read ({fault.strerror})") from None


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: temporary file in the same folder, fsync, rename, fsync of the folder."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{TEMPORARY}{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)


@contextlib.contextmanager
def written_atomically(folder: Path, ours: Collection[str] = ()) -> Iterator[Path]:
    """Yield a temporary sibling to fill; renamed to `folder` when the block succeeds, removed when it fails.

    Of the files that were in `folder`, `ours` are replaced or gone, and all others are in it again; StorageError if one of
    these has the name of a new file.
    """
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{TEMPORARY}{folder.name}."))
    try:
        yield temporary
        with _explained(folder):
            temporary.chmod(0o777 & ~_umask())
            before = temporary.with_name(temporary.name + BEFORE)
            if folder.exists():
                _carry_over(folder, temporary, ours)
                folder.replace(before)
            temporary.replace(folder)
            _sync_folder(folder.parent)
            shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_temporary(folder: Path) -> None:
    """Delete the temporary files below a folder that a killed writer has left, and put back what it was about to replace."""
    for earlier in folder.rglob(f"{TEMPORARY}*{BEFORE}"):
        name, _, _ = earlier.name.removeprefix(TEMPORARY).removesuffix(BEFORE).rpartition(".")
        if not earlier.with_name(name).exists():
            earlier.rename(earlier.with_name(name))
    for leftover in folder.rglob(f"{TEMPORARY}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _carry_over(folder: Path, into: Path, ours: Collection[str]) -> None:
    """Link the files of a folder except `ours` into another one."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if str(name) in ours or (path.is_dir() and not path.is_symlink()):
            continue
        if os.path.lexists(into / name):
            raise StorageError(f"{path}: got a file that genet did not write, expected none of that name; move it away")
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, into / name, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(path, into / name, follow_symlinks=False)


def write_checked(path: Path, data: bytes) -> None:
    """Write `data` atomically with its SHA-256 beside it: one flipped byte in a tensor would load silently.

    The checksum file first lists the new digest above the old ones, so that a kill between the two writes leaves a
    file that matches one of them.
    """
    beside, line = _checksum_file(path), f"{digest(data)}  {path.name}\n".encode()
    if path.exists() and beside.exists():
        write_atomic(beside, line + read_bytes(beside))
    else:
        write_atomic(beside, line)
    write_atomic(path, data)
    write_atomic(beside, line)


def read_checked(path: Path) -> bytes:
    """Read what `write_checked` wrote; StorageError if no listed checksum matches the file."""
    data = read_bytes(path)
    beside = _checksum_file(path)
    if digest(data).encode() not in read_bytes(beside).split():
        raise StorageError(f"{path} does not match its SHA-256 in {beside.name}; restore it from a copy, or make it again")
    return data


def read_from_elsewhere(path: Path) -> bytes:
    """Read a file of any origin; check it if its checksum is beside it."""
    return read_checked(path) if _checksum_file(path).exists() else read_bytes(path)


def remove_checked(path: Path) -> None:
    """Delete a file of `write_checked` with its checksum, if it is there."""
    path.unlink(missing_ok=True)
    _checksum_file(path).unlink(missing_ok=True)


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@dataclass(frozen=True, slots=True)
class JournalContent:
    """The content of a journal: its records in order, and the numbers (from 1) of lines whose checksum fails."""

    records: tuple[dict[str, Any], ...]
    damaged: tuple[int, ...]


class Journal:
    """Append-only JSON lines, a checksum on every line, one writer at a time.

    A killed writer leaves a torn last line, which is not read, and is cut off before the next append.
    A damaged line elsewhere is left as evidence and its number is reported; the others are used.

    With `waiting` several processes may share it: an append waits for another's to end, and `waiting` is called if it takes long.
    Without it, a second writer is refused.
    """

    def __init__(self, path: Path, waiting: Callable[[str], None] | None = None) -> None:
        self.path, self._waiting = path, waiting
        self._seen = 0  # bytes read or appended by this process

    def read(self) -> JournalContent:
        """Return all whole records. A journal that does not exist yet is empty."""
        content = read_bytes(self.path) if self.path.exists() else b""
        *lines, torn = content.split(b"\n")
        self._seen = len(content) - len(torn)
        records, damaged = [], []
        for number, line in enumerate(lines, start=1):
            record = _parse_line(line)
            if record is None:
                damaged.append(number)
            else:
                records.append(record)
        return JournalContent(tuple(records), tuple(damaged))

    def append(self, record: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """Add one record, which is on disk when this returns; return the records that others have added since the last call."""
        line = _format_line(record)
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            with self.path.open("a+b") as file, _locked(file.fileno(), self._refusal, self._waiting):
                end = self._cut_torn_line(file.fileno())
                others = os.pread(file.fileno(), max(0, end - self._seen), self._seen)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                self._seen = end + len(line)
            if new:
                _sync_folder(self.path.parent)
        return tuple(found for each in others.split(b"\n") if (found := _parse_line(each)) is not None)

    @property
    def _refusal(self) -> str:
        return f"{self.path}: another process is appending to it, expected one writer at a time; wait for it to end"

    @staticmethod
    def _cut_torn_line(handle: int) -> int:
        """Truncate after the last line break, reading backwards so that long journals stay cheap to append to; return the end."""
        size = end = os.fstat(handle).st_size
        while end > 0:
            start = max(0, end - 65536)
            position = os.pread(handle, end - start, start).rfind(b"\n")
            if position >= 0:
                end = start + position + 1
                break
            end = start
        if end != size:
            os.ftruncate(handle, end)
        return end


_lock_handles: set[int] = set()  # handles of the locks this process holds


def _release_in_child() -> None:
    """Close the locks in a forked child, such as a data loader's worker, which would keep them if its parent is killed."""
    while _lock_handles:
        os.close(_lock_handles.pop())


os.register_at_fork(after_in_child=_release_in_child)


class FolderLock:
    """Held while a process works in a run folder; a second process is refused. It ends with the process, even a killed one.

    A folder that it created is removed with it if nothing was written there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        with _explained(self._folder):
            self._made = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(
                    self._handle,
                    f"{self._folder}: another process is working in it, expected one at a time; wait, or give another folder",
                )
            except BaseException:
                os.close(self._handle)
                raise
            _lock_handles.add(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # another process may put something there at this moment
            if self._made and [file.name for file in self._folder.iterdir()] == [".lock"]:
                (self._folder / ".lock").unlink()
                for folder in self._made:
                    folder.rmdir()
        _lock_handles.discard(self._handle)
        os.close(self._handle)


def is_locked(folder: Path) -> bool:
    """Return whether a process works in a run folder at this moment."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _format_line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f'{{"sha256":"{digest(body)[:16]}","record":{body}}}\n'.encode()


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the line's record, or None if anything of it differs from what `_format_line` wrote."""
    try:
        record = json.loads(line)["record"]
        return record if _format_line(record) == line + b"\n" else None
    except (ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _locked(handle: int, refusal: str, waiting: Callable[[str], None] | None) -> Iterator[None]:
    """Hold a lock in this process alone: a child forked meanwhile must not keep it. Closing the file releases it."""
    _lock(handle, refusal, waiting)
    _lock_handles.add(handle)
    try:
        yield
    finally:
        _lock_handles.discard(handle)


def _lock(handle: int, refusal: str, waiting: Callable[[str], None] | None = None) -> None:
    """Take a lock, waiting for some time if the wait can be reported; RunError with the refusal if another process keeps it."""
    began, reported = time.monotonic(), False
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        waited = time.monotonic() - began
        if waiting is None or waited > PATIENCE_S:
            raise RunError(refusal)
        if waited >= QUIET_S and not reported:
            waiting(f"  {refusal.partition(', expected')[0]}: waiting for up to {PATIENCE_S:.0f} s")
            reported = True
        time.sleep(0.01)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError of a write into one sentence with the free space."""
    try:
        yield
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.exists())).free / 2**20
            why = f"{path}: the disk is full ({free:.1f} MiB free); free some space and give the same command again"
            raise StorageError(why) from None
        raise StorageError(f"{path}: cannot be written ({fault.strerror}); choose another or change its permissions") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """Return the process's umask; reading it requires setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
