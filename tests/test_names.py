"""Names of classes, files and folders: written in two ways it is one, two are never told alike, and none breaks a line."""

from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from genet.errors import DataError, SpecError
from genet.names import by_class, check_utf8, name_differences, printable, quoted, visible

COMPOSED, DECOMPOSED = "K\u00e4fer", "Ka\u0308fer"
BYTES = "M\udcfcll"  # Latin-1, as Python reads it


def test_a_name_composed_or_decomposed_is_one_class() -> None:
    assert by_class({DECOMPOSED: 1, "cat": 2}, "train") == {COMPOSED: 1, "cat": 2}


def test_two_folders_that_are_one_class_are_both_named_with_what_tells_them_apart() -> None:
    with pytest.raises(DataError, match=r"^train: got 'Ka\\u0308fer' and 'K\\xe4fer', which are one .* of Käfer into one"):
        by_class({DECOMPOSED: 1, COMPOSED: 2}, "train")


@pytest.mark.parametrize(
    ("name", "told"), [(BYTES, r"'M\xfcll'"), ("a\nb", r"'a\nb'"), ("a\u2028b", r"'a\u2028b'"), ("\x1b[31m", r"'\x1b[31m'")]
)
def test_a_class_that_no_line_of_text_can_name_is_refused_and_shown(name: str, told: str) -> None:
    with pytest.raises(DataError) as refusal:
        by_class({name: 1, "cat": 2}, "train")
    assert f"not UTF-8 or hold control characters, {told}, expected" in str(refusal.value)


def test_a_name_in_utf8_is_read_as_such_whatever_the_locale() -> None:
    assert by_class({COMPOSED.encode().decode("ascii", "surrogateescape"): 1}, "train") == {COMPOSED: 1}


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ("dog ", "dog", ("'dog '", "'dog'")),
        ("big  dog", "big dog", (r"'big \x20dog'", "'big dog'")),
        ("big\u00a0dog", "big dog", (r"'big\xa0dog'", "'big dog'")),
        ("dog\u200b", "dog", (r"'dog\u200b'", "'dog'")),
        ("\u2764\ufe0f", "\u2764", (r"'\u2764\ufe0f'", r"'\u2764'")),
        ("Dog", "dog", ("'Dog'", "'dog'")),
        ("\u0441\u0430t", "cat", (r"'\u0441\u0430t'", "'cat'")),  # Cyrillic
    ],
)
def test_names_that_look_alike_are_told_apart_and_said_to_differ(ours: str, theirs: str, told: tuple[str, str]) -> None:
    assert name_differences(["bird", ours], ["bird", theirs]) == (*told, name_differences([ours], [theirs])[2])  # type: ignore[index]
    assert "are different classes" in name_differences([ours], [theirs])[2]  # type: ignore[index]


def test_names_that_look_different_are_told_as_they_are() -> None:
    assert name_differences([COMPOSED, "none"], [COMPOSED]) == ("none", "", "")
    assert name_differences([COMPOSED], ["cat"]) == (COMPOSED, "cat", "")
    assert name_differences(["cat", "dog"], ["dog", "cat"]) is None


@given(*[st.text(alphabet="aA\u00e4\u0430 \u00a0\u00ad\u200b\ufeff\u0308\u3164", min_size=1, max_size=4)] * 2)
def test_no_two_classes_are_told_alike(ours: str, theirs: str) -> None:
    ours, theirs = (unicodedata.normalize("NFC", name) for name in (ours, theirs))
    assume(ours != theirs)
    first, second, _ = name_differences([ours], [theirs])  # type: ignore[misc]
    seen = [" ".join("".join(c for c in told if c.isprintable()).split()) for told in (first, second)]
    assert seen[0] != seen[1]


def test_nothing_that_is_shown_ends_a_line_or_hides() -> None:
    assert [printable(name) for name in ("cat", COMPOSED, "", "a\nb", " a")] == ["cat", COMPOSED, "''", r"'a\nb'", "' a'"]
    assert visible(f"a\nb\x1b {BYTES} {COMPOSED}") == rf"a\nb\x1b M\xfcll {COMPOSED}"


def test_a_path_that_is_not_utf8_is_refused() -> None:
    assert check_utf8(COMPOSED) == COMPOSED
    with pytest.raises(SpecError, match=r"^M\\xfcll: got bytes that are not UTF-8"):
        check_utf8(BYTES)


def test_a_path_is_typed_so_that_a_shell_and_a_command_take_it_as_one() -> None:
    assert [quoted(Path(name)) for name in ("a.yaml", "a b.yaml", "it's", "-a.yaml")] == [
        "a.yaml",
        "'a b.yaml'",
        "'it'\"'\"'s'",
        "./-a.yaml",
    ]


def test_a_fault_of_several_lines_comes_whole_from_another_process() -> None:
    fault = pickle.loads(pickle.dumps(SpecError(["one", "two"])))
    assert (fault.faults, str(fault)) == (("one", "two"), "one\ntwo")
