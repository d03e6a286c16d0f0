"""Image folders as people have them: the folders that are classes, the files that are images, and their order.

A class is a folder directly in the split's folder, by its name as `by_class` reads it; images at any depth below it are its own.
Hidden files and folders, folders without images, loose files, special files and files that Pillow does not read are left out,
counted and named. So is a link to a folder that is read by itself or by another link: no image counts twice, and none for two
classes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from genet.errors import DataError
from genet.names import by_class, printable, some_of
from genet.training.image_identity import list_classes

NOT_ALONE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow lists these formats, but needs other programs to read them
SYSTEM_FILES = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names as people do, numbers by their value; names that differ only in case by the plain name, for a total order."""
    return tuple(sorted(names, key=lambda name: (_by_numbers(name), name)))


def _by_numbers(name: str) -> list[tuple[str, int]]:
    """Split a name into pairs of a text and the number behind it; it sorts like timm's key, whose import takes seconds."""
    texts_and_numbers = re.split(r"(\d+)", name.lower())
    return list(zip(texts_and_numbers[::2], [*map(int, texts_and_numbers[1::2]), -1], strict=True))


class FolderReader:
    """The images of a split, class by class, as timm's datasets read them.

    `classes` gives the order of the classes; without it they are `in_order`. DataError if the folder holds no class.
    """

    def __init__(self, root: Path, classes: Sequence[str] | None = None) -> None:
        self.root, self._readable = root, _readable()
        self._others: Counter[str] = Counter()  # files that are not images, by suffix
        self._hidden: list[str] = []
        self._special: list[str] = []  # pipes, sockets and devices: reading one may never end
        self._again: list[str] = []  # folders that were already read
        self._seen = {root.resolve(), *root.resolve().parents}
        entries = self._visible_entries(root)
        folders = {entry.name: entry for entry in entries if _is_folder(entry)}
        found: dict[str, list[tuple[str, int]]] = {name: [] for name in folders}
        self._links = [(name, Path(entry)) for name, entry in folders.items() if entry.is_symlink()]  # read after all others
        for name, entry in folders.items():
            if not entry.is_symlink():
                self._look_into(name, Path(entry), found[name])
        for name, link in self._links:  # grows while they are read
            self._look_into(name, link, found[name])
        self._loose = sum(Path(entry).is_file() for entry in entries)
        self._empty = [name for name, files in found.items() if not files and name not in self._again]
        images = by_class({name: files for name, files in found.items() if files}, root)
        names = in_order(images)
        if not names:
            raise DataError(f"{root}: got no image in any folder, expected one folder per class; {self.left_out or 'add images'}")
        ordered = tuple(classes) if classes and set(classes) == set(names) else names
        self.class_to_idx = {name: label for label, name in enumerate(ordered)}
        self.samples = [(file, self.class_to_idx[name]) for name in names for file, _ in images[name]]
        above = f"{root}{os.sep}"
        self.contents = list_classes((name, file.removeprefix(above), size) for name in names for file, size in images[name])

    def __getitem__(self, index: int) -> tuple[BytesIO, int]:
        path, label = self.samples[index]
        return BytesIO(Path(path).read_bytes()), label

    def __len__(self) -> int:
        return len(self.samples)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name an image by its path in the folder, in full, or by its last part."""
        path = Path(self.samples[index][0])
        return path.name if basename else str(path if absolute else path.relative_to(self.root))

    def is_empty(self, index: int) -> bool:
        """Return whether an image's file exists and is empty."""
        try:
            return Path(self.samples[index][0]).stat().st_size == 0
        except OSError:
            return False

    @property
    def left_out(self) -> str | None:
        """The files left out, in words; None if there are none."""
        suffixes = ", ".join(f"{count} {printable(suffix)}" for suffix, count in sorted(self._others.items()))
        parts = [f"{suffixes} (no images that Pillow reads)"] if suffixes else []
        parts += [f"pipes, sockets or devices {some_of(self._special)}"] if self._special else []
        parts += [f"{self._loose} files beside the class folders"] if self._loose else []
        parts += [f"hidden {some_of(self._hidden)}"] if self._hidden else []
        parts += [f"folders without images {some_of(self._empty)}"] if self._empty else []
        parts += [f"links to folders that are counted already {some_of(self._again)}"] if self._again else []
        return f"{self.root}: left out {'; '.join(parts)}" if parts else None

    def _visible_entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return the entries of a folder, in order, without hidden ones or the system's own."""
        with os.scandir(folder) as found:
            entries = {entry.name: entry for entry in found}
        hidden = [name for name in in_order(entries) if name.startswith(".") or name in SYSTEM_FILES]
        self._hidden += [name for name in hidden if name not in self._hidden]
        return [entries[name] for name in in_order(entries) if name not in hidden]

    def _look_into(self, name: str, folder: Path, found: list[tuple[str, int]]) -> None:
        """Take all images of a class below a folder, with their sizes in bytes, unless the folder was read before."""
        real = folder.resolve()
        if real in self._seen:
            self._again.append(str(folder.relative_to(self.root)))
            return
        self._seen.add(real)
        for entry in self._visible_entries(folder):
            path, suffix = Path(entry), Path(entry).suffix.lower()
            if _is_folder(entry) and entry.is_symlink():
                self._links.append((name, path))
            elif _is_folder(entry):
                self._look_into(name, path, found)
            elif _is_special(entry):
                self._special.append(str(path.relative_to(self.root)))
            elif suffix in self._readable:
                found.append((entry.path, _size(entry)))
            else:
                self._others[suffix or "without a suffix"] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is not."""
    return Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry exists and is no file; a link to nothing is reported when it is decoded."""
    is_file = Path(entry).is_file() if entry.is_symlink() else entry.is_file()
    return not is_file and Path(entry).exists()


def _readable() -> frozenset[str]:
    """Return the suffixes of formats that Pillow opens without other programs."""
    suffixes = Image.registered_extensions()
    return frozenset(suffix for suffix, name in suffixes.items() if name in Image.OPEN and name not in NOT_ALONE)


def _size(entry: os.DirEntry[str]) -> int:
    """Return the bytes of a file; -1 for one that cannot be reached, which is reported when it is decoded."""
    try:
        return entry.stat().st_size
    except OSError:
        return -1
