"""Names of files, folders and classes, as text that any file can hold, and in which every difference is visible."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from genet.errors import DataError, SpecError, first_of

T = TypeVar("T")

_UNPRINTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # they end a line, move a cursor, or are no letters
_HIDDEN = dict.fromkeys([0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, *range(0xFE00, 0xFE10)])  # printable to Python
_TWINS = str.maketrans("АВЕКМНОРСТУХаеорсухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEKMHOPCTYXaeopcyxijsABEZHIKMNOPTYXo")  # of other alphabets


def visible(text: str) -> str:
    """Return a text on one line: with escapes for control characters, and for bytes that are not UTF-8."""
    return _UNPRINTED.sub(lambda found: ascii(found[0])[1:-1].replace("\\udc", "\\x"), text)


def printable(name: str) -> str:
    """Return a name as it is if all of it is visible, else quoted, with escapes for the rest."""
    harmless = name.isprintable() and name == " ".join(name.split()) != ""
    return name if harmless else _in_quotes(name, repr)


def _in_quotes(name: str, escaped: Callable[[str], str]) -> str:
    """Return a name in quotes, with escapes for bytes that are not UTF-8 and for blanks after blanks too."""
    return escaped(name).replace("\\udc", "\\x").replace("  ", r" \x20")


def some_of(names: Sequence[str], show: Callable[[str], str] = printable) -> str:
    """Show the first five, and count the others."""
    return first_of([*map(show, names)], 5)


def fits_on_a_line(name: str) -> bool:
    """Return whether a text file can hold the name on a line of its own."""
    return not _UNPRINTED.search(name)


def by_class(folders: Mapping[str, T], place: object) -> dict[str, T]:
    """Return what class folders hold by the classes' names: composed (NFC), since systems write one name in different ways.

    DataError if a name cannot stand on a line of labels.txt, or if two are the same.
    """
    called = {folder: _composed(folder) for folder in folders}
    odd = [folder for folder, name in called.items() if not fits_on_a_line(name)]
    if odd:
        raise DataError(
            f"{place}: got class names that are not UTF-8 or hold control characters, {some_of(odd)}, expected names that each "
            "stand on a line of labels.txt; rename their folders"
        )
    twice = [name for name, count in Counter(called.values()).items() if count > 1]
    if twice:
        alike = " and ".join(_in_quotes(folder, ascii) for folder, name in called.items() if name == twice[0])
        raise DataError(
            f"{place}: got {alike}, which are one class name written in two ways, expected one folder per class; put all images "
            f"of {printable(twice[0])} into one of them"
        )
    return {name: folders[folder] for folder, name in called.items()}


def _composed(name: str) -> str:
    """Return the name in UTF-8, whatever the locale, and composed."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


def name_differences(ours: Collection[str], theirs: Collection[str]) -> tuple[str, str, str] | None:
    """Return in words the names that only we have and only they have, and a hint if some look alike; None if all are shared.

    A text is empty if there are no such names.
    """
    missing, extra = sorted({*ours} - {*theirs}), sorted({*theirs} - {*ours})
    if not missing and not extra:
        return None
    alike = {_look(name) for name in missing} & {_look(name) for name in extra}

    def with_code_points(name: str) -> str:
        return _in_quotes(name, ascii) if _look(name) in alike else printable(name)

    reason = "names that differ only in capitals, blanks, hidden characters or alphabets are different classes"
    hint = f"; {reason}, rename one" if alike else ""
    return some_of(missing, with_code_points), some_of(extra, with_code_points), hint


def _look(name: str) -> str:
    """Return a name as a reader sees it, without capitals and blanks."""
    text = unicodedata.normalize("NFKC", name).translate(_TWINS | _HIDDEN).casefold()
    return "".join(letter for letter in text if letter.isprintable() and not letter.isspace())


def check_utf8(text: str) -> str:
    """Return a text; SpecError if it holds bytes that are not UTF-8, which no file written here could hold."""
    if re.search("[\ud800-\udfff]", text):
        raise SpecError(
            [f"{visible(text)}: got bytes that are not UTF-8, expected a path in UTF-8 and a locale that reads it; rename it"]
        )
    return text


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def quoted(path: Path) -> str:
    """Return a path as one types it into a shell."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def damaged_lines(name: str | Path, damaged: Sequence[int]) -> str:
    """Return in words that lines of a journal are not used."""
    return f"{name}: damaged lines {', '.join(map(str, damaged))} are left out"
