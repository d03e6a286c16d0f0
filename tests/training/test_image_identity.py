"""Which images there are: the same wherever they lie, and in words what has changed."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from genet.arch.network import Input
from genet.config.recipe import Data
from genet.errors import RunError
from genet.progress import SILENT
from genet.training.image_identity import NOTE, EarlierImages, ImageContents, list_classes, note_of, relocated
from genet.training.splits import load_data

READS = Input(channels=3, classes=2, resolution=8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for split in ("train", "validation"):
        for colour, label in enumerate(("cat", "dog")):
            for number in range(4):
                file = tmp_path / "images" / split / label / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (90 * colour + number, 0, 0)).save(file)
    return tmp_path / "images"


def data_in(root: Path) -> Data:
    return Data(name="folder", root=str(root), nas_validation=0.25)


def contents_of(root: Path) -> ImageContents:
    found = load_data(data_in(root), READS, 0).contents
    assert found is not None
    return found


def test_images_are_the_same_wherever_they_lie_and_packed_too(images: Path, tmp_path: Path) -> None:
    before = contents_of(images)
    images.rename(tmp_path / "elsewhere")
    assert contents_of(tmp_path / "elsewhere") == before
    for split in ("train", "validation"):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
            tar.add(tmp_path / "elsewhere" / split, ".")
    assert contents_of(tmp_path).digest == before.digest


def rename_class(root: Path) -> None:
    for split in ("train", "validation"):
        (root / split / "dog").rename(root / split / "ant")


def replace_by_a_larger_one(root: Path) -> None:
    Image.effect_noise((8, 8), 99).save(root / "train" / "cat" / "0.png")


def many(root: Path) -> None:
    for split in ("train", "validation"):
        (root / split / "cat" / "3.png").rename(root / split / "dog" / "4.png")
    (root / "train" / "dog" / "0.png").unlink()
    (root / "validation" / "dog" / "5.png").write_bytes(b"")


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (rename_class, "class ant is new, class dog is gone"),
    (lambda root: shutil.copy(root / "train/cat/0.png", root / "train/cat/4.png"), "train/cat has 5 images, had 4"),
    (lambda root: (root / "validation/dog/3.png").unlink(), "validation/dog has 3 images, had 4"),
    (replace_by_a_larger_one, "train/cat has images of other names or sizes"),
    (lambda root: (root / "train/cat/0.png").rename(root / "train/cat/9.png"), "train/cat has images of other names or sizes"),
    (
        many,
        "class cat has 3 images, had 4, train/dog has images of other names or sizes, validation/dog has 6 images, had 4",
    ),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=[told for _, told in CHANGES])
def test_what_has_changed_is_told_in_words(images: Path, change: Callable[[Path], object], told: str) -> None:
    before = contents_of(images)
    change(images)
    now = contents_of(images)
    assert now.digest != before.digest
    assert now.changes_since(before) == told


def test_of_many_changes_three_are_named() -> None:
    before, now = (list_classes((str(number), f"{name}/{number}", 1) for number in range(9)) for name in "ab")
    told = ImageContents(train=now, validation=now).changes_since(ImageContents(train=before, validation=before))
    assert told.count("has images of other names or sizes") == 3
    assert told.endswith(" and 6 more changes")


def test_other_pixels_under_the_same_name_and_size_are_not_noticed(images: Path) -> None:
    """By design: reading every byte of a million images would take as long as an epoch."""
    before = contents_of(images)
    file = images / "train" / "cat" / "0.png"
    file.write_bytes(bytes(len(file.read_bytes())))
    assert contents_of(images) == before


def test_every_folder_is_listed_once_to_load_and_to_know_the_images(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, scandir = Counter[str](), os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (seen.update([str(folder)]), scandir(folder))[1])
    contents_of(images)
    assert set(seen.values()) == {1}
    assert len(seen) == 6


def test_an_image_that_cannot_be_reached_does_not_keep_the_others_from_being_listed(images: Path) -> None:
    (images / "train" / "cat" / "lost.png").symlink_to("nowhere")
    assert contents_of(images).train["cat"].images == 5


# What a folder notes


def test_a_name_that_decomposes_its_letters_is_the_same_name() -> None:
    assert (
        list_classes([("é", "é/1.png", 3)])["é"].digest
        == list_classes([("é", "e\N{COMBINING ACUTE ACCENT}/1.png", 3)])["é"].digest
    )


def noted(folder: Path, root: Path, made: EarlierImages | None, contents: ImageContents | None = None) -> str | None:
    found = note_of(folder, data_in(root), contents or contents_of(root), made, "put them back")
    found.keep(folder, SILENT)
    return found.name


def test_as_long_as_nothing_is_made_of_images_they_may_change(images: Path, tmp_path: Path) -> None:
    first = noted(tmp_path / "run", images, None)
    rename_class(images)
    assert noted(tmp_path / "run", images, None) not in (first, None)


def test_results_stay_with_their_images_wherever_these_lie(images: Path, tmp_path: Path) -> None:
    made = EarlierImages(str(images), None)
    name = noted(tmp_path / "run", images, None)
    images.rename(tmp_path / "moved")
    assert noted(tmp_path / "run", tmp_path / "moved", made) == name
    rename_class(tmp_path / "moved")
    with pytest.raises(RunError, match=r"run: got other images \(class ant is new, .*\), expected those that .*; put them back$"):
        noted(tmp_path / "run", tmp_path / "moved", made)


def test_an_earlier_version_knew_images_by_their_place_and_its_results_count_until_those_there_change(
    images: Path, tmp_path: Path
) -> None:
    assert data_in(images).identity(str(images)) == (
        f'{{"name":"folder","root":"{images}","nas_validation":0.25,"loading":"auto"}}'
    )
    made = EarlierImages(str(images), None)
    shutil.copytree(images, tmp_path / "other")
    with pytest.raises(RunError, match=f"got other images .its own are in {images}"):
        noted(tmp_path / "run", tmp_path / "other", made)
    images.rename(tmp_path / "moved")
    assert noted(tmp_path / "run", tmp_path / "moved", made) == str(images)
    (tmp_path / "moved").rename(images)
    assert noted(tmp_path / "run", images, made) == str(images)
    rename_class(images)
    with pytest.raises(RunError, match="class ant is new"):
        noted(tmp_path / "run", images, made)


def test_a_note_that_is_lost_is_written_anew_if_the_results_are_of_these_images(images: Path, tmp_path: Path) -> None:
    name = noted(tmp_path / "run", images, None)
    (tmp_path / "run" / NOTE).unlink()
    assert noted(tmp_path / "run", images, EarlierImages("/gone", name)) == name
    (tmp_path / "run" / NOTE).unlink()
    rename_class(images)
    with pytest.raises(RunError, match=r"images\.json, which recorded them, is missing"):
        noted(tmp_path / "run", images, EarlierImages("/gone", name))


def test_images_that_moved_together_with_the_folder_are_found_beside_it(images: Path, tmp_path: Path) -> None:
    noted(tmp_path / "runs" / "job", images, None)
    there = tmp_path / "there"
    shutil.copytree(tmp_path / "runs", there / "runs")
    recorded = data_in(images)
    assert relocated(recorded, there / "runs" / "job") == recorded, "a folder that moved alone"
    shutil.copytree(images, there / "images")
    assert relocated(recorded, there / "runs" / "job").root == str(there / "images")
    assert relocated(recorded, tmp_path / "runs" / "job") == recorded
    elsewhere = data_in(tmp_path / "pictures")
    assert relocated(elsewhere, there / "runs" / "job") == elsewhere, "a recipe that was told of another place"
