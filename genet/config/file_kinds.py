"""The kind of a file that people take for a network: read from its first bytes and table of contents, and never unpickled."""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from genet.errors import WEIGHTS_UNDER, StorageError
from genet.storage import read_bytes

HEAD = 1 << 20  # bytes that identify a file
SIGN = 64  # of them, in which a text shows its kind
LONGEST_HEADER = 1 << 26
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the start of files of torch.save before they became zip archives
TENSORS = r"collections OrderedDict|torch\._utils _rebuild\w*|torch \w+"  # the parts of a pickle of tensors alone
ELSEWHERE = "genet reads PyTorch networks: import the function that builds one"
EXPORTED = "genet eval {file} --data D runs it as it is; to import it, import the function that built its network"


@dataclass(frozen=True)
class FileKind:
    """The kind of a file, as in `a web page`, and what to do with it instead."""

    what: str
    remedy: str


EMPTY = FileKind("an empty file", "save or download it again")


def kind_of(file: Path) -> FileKind | None:
    """Return the kind of a file that could be mistaken for a network; None if it is missing, unreadable or of unknown kind."""
    try:
        head = read_bytes(file, HEAD)
    except StorageError:
        return None
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:SIGN].lower()
    if not start:
        return EMPTY
    if start.startswith((b"<!doctype html", b"<html")):
        return FileKind("a web page, as left by a failed download", "download the file again")
    if start.startswith(b"version https://git-lfs"):
        return FileKind("a Git LFS pointer instead of the file", "fetch the file: git lfs pull")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(file)
    if re.match(rb"\x80[\x02-\x05]", head):
        return _pickle(file, head)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < LONGEST_HEADER:
        return _safetensors(file, int.from_bytes(head[:8], "little"))
    if re.match(rb"\x08[\x00-\x1f]\x12", head) or file.suffix == ".onnx":
        return FileKind("an ONNX file", EXPORTED.format(file=file))
    marks = {b"\x89HDF": "an HDF5 file, as Keras writes", b"\x1f\x8b": "a gzip archive", b"\x93NUMPY": "an array of numpy"}
    found = next((what for mark, what in marks.items() if head.startswith(mark)), None)
    found = "a tar archive" if head[257:262] == b"ustar" else found
    return FileKind(found, ELSEWHERE) if found else None


def _archive(file: Path) -> FileKind:
    """Return the kind of a zip archive by the names in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            inside = {name.partition("/")[2] or name: name for name in names}
            if any(name.startswith("code/") for name in inside):
                return FileKind("a TorchScript program", "import the function that built its network")
            if "archive_format" in inside or "serialized_exported_program.json" in names:
                return FileKind("a program of torch.export", EXPORTED.format(file=file))
            if "model.weights.h5" in names:
                return FileKind("a Keras file", ELSEWHERE)
            if "data.pkl" in inside:
                return _pickled(file, "a PyTorch file", io.BytesIO(archive.read(inside["data.pkl"])))
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return FileKind("a damaged or truncated archive, as PyTorch writes", "save or download it again")
    arrays = all(name.endswith(".npy") for name in names)
    return FileKind("arrays of numpy", ELSEWHERE) if arrays else FileKind("a zip archive", "unpack it")


def _pickle(file: Path, head: bytes) -> FileKind:
    opened = io.BytesIO(head)
    if not head.startswith(LEGACY):
        return _pickled(file, "a pickle", opened)
    for _ in range(3):  # its magic number, its version and the machine's number formats
        _read_pickle(opened)
    return _pickled(file, "a PyTorch file", opened)


def _pickled(file: Path, what: str, opened: IO[bytes]) -> FileKind:
    """Return a pickle's kind by the calls of unpickling: tensors, alone or in a dictionary, or objects of some code."""
    pickled = _read_pickle(opened)
    objects = [name.replace(" ", ".") for name in pickled.called if not re.fullmatch(TENSORS, name)]
    loaded = f"torch.load({str(file)!r}{', weights_only=False' if objects else ''})"
    if what == "a pickle":
        loaded = f"pickle.load(open({str(file)!r}, 'rb'))"
    if objects and pickled.called[0].replace(" ", ".") == objects[0] and not pickled.dictionary:
        return FileKind(f"{what} of a whole {objects[0]}", _import_remedy(f"return {loaded}"))
    if "torch._utils _rebuild_tensor_v2" not in pickled.called:
        return FileKind(f"{what} without tensors", "genet import --help says what a network can be")
    beside = f", with objects such as {objects[0]}" if objects else ""
    key = next((each for each in WEIGHTS_UNDER if each in pickled.words), None)
    if key:
        return FileKind(f"{what} of weights under {key!r}, without the network{beside}", _weights(f"{loaded}[{key!r}]"))
    return FileKind(f"{what} of weights, without the network{beside}", _weights(loaded))


@dataclass(frozen=True)
class _Pickled:
    """The names in a pickle: functions and classes as `module name`, and texts; and whether it is a dictionary alone."""

    called: tuple[str, ...]
    words: tuple[str, ...]
    dictionary: bool


def _read_pickle(opened: IO[bytes]) -> _Pickled:
    called: list[str] = []
    words: list[str] = []
    codes: list[str] = []
    with suppress(ValueError, EOFError, OSError):  # from a damaged one, the undamaged part
        for code, argument, _ in pickletools.genops(opened):
            codes += [code.name] * (code.name not in ("PROTO", "FRAME") and not codes)
            if code.name == "GLOBAL":
                called.append(str(argument))
            elif code.name == "STACK_GLOBAL":
                called.append(" ".join(words[-2:]))
            elif isinstance(argument, str):
                words.append(argument)
    return _Pickled(tuple(called), tuple(words), codes == ["EMPTY_DICT"])


def _safetensors(file: Path, length: int) -> FileKind:
    try:
        header = json.loads(read_bytes(file, 8 + length)[8:])
    except ValueError:
        return FileKind("a damaged or truncated safetensors file", "save or download it again")
    tensors = len(header.keys() - {"__metadata__"})
    what = f"a safetensors file of {tensors} tensors, without the network"
    folder = file.absolute().parent
    if any((folder / name).is_file() for name in ("network.yaml", "config.json")):
        return FileKind(what, f"name its folder, {file.parent}")
    return FileKind(what, _weights(f"safetensors.torch.load_file({str(file)!r})"))


def _weights(loaded: str) -> str:
    return _import_remedy(f"build the network, load_state_dict({loaded}) and return it")


def _import_remedy(what: str) -> str:
    return f"in nets.py let net() {what}, then: genet import nets:net"
