"""The one archive that brings results home: no checkpoints, never above its limit, replaced in one step."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

LIMIT_BYTES = 16 * 2**20
CHECKPOINTS = (".safetensors", ".checkpoint", ".other", ".pt", ".pt2", ".pth", ".onnx", ".data", ".bin", ".engine", ".sha256")
TEMPORARY = ".genet-"
LEFT_OUT = "left-out.txt"


class DamagedArchiveError(Exception):
    """An archive cannot be read."""


def archive_name(command: str) -> str:
    """Return what a command's archive is called."""
    return f"genet-gpu-{command}.tar.gz"


def travels(file: Path) -> bool:
    """Return whether a file belongs into the archive: weights, locks and files under way do not."""
    return not (file.suffix in CHECKPOINTS or file.name == ".lock" or any(part.startswith(TEMPORARY) for part in file.parts))


def pack(results: Path, archive: Path, limit: int = LIMIT_BYTES) -> list[str]:
    """Write a folder's files into an archive; return the names of those left out so that it stays within the limit.

    The largest are left out first, and the archive names them in `left-out.txt`.
    """
    contents: dict[str, bytes] = {}
    for file in sorted(results.rglob("*")):
        if file.is_file() and not file.is_symlink() and travels(file.relative_to(results)):
            try:
                contents[str(file.relative_to(results))] = file.read_bytes()
            except FileNotFoundError:  # replaced or removed meanwhile
                continue
    left_out: list[str] = []
    data = _packed(contents)
    while len(data) > limit and contents:
        largest = max(contents, key=lambda name: len(contents[name]))
        left_out.append(f"{largest}: {len(contents.pop(largest))} bytes")
        data = _packed({**contents, LEFT_OUT: ("\n".join(left_out) + "\n").encode()})
    archive.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=archive.parent, prefix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(data)
            written.flush()
            os.fsync(written.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(archive)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return left_out


def _packed(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as tar:
        for name, data in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def unpack(archive: Path, into: Path) -> None:
    """Unpack an archive into a folder; DamagedArchiveError if it cannot be read whole, with what could be read unpacked."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    except (tarfile.TarError, EOFError, OSError, ValueError) as fault:
        said = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise DamagedArchiveError(f"{archive}: reading the archive failed: got {said!r}, expected a whole .tar archive") from None
