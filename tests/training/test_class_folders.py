"""Image folders as people have them: what is a class, what is an image, which is which, and what their pixels mean."""

from __future__ import annotations

import os
import struct
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.utils.misc import natural_key
from torch import Tensor, nn

from genet.arch.network import Input, Network
from genet.config.augment import Augment
from genet.config.recipe import Data
from genet.errors import DataError, StorageError
from genet.export.format import TrainedModel
from genet.export.onnx_formats import calibration_reader
from genet.models.build import build
from genet.models.weights import read_labels
from genet.training.class_folders import FolderReader, in_order
from genet.training.image_sets import View
from genet.training.pixels import in_mode
from genet.training.splits import hold_out, load_data, load_test
from tests.fixtures.commands import answer
from tests.fixtures.heard import Heard

NETWORK = Network.parse("@8x3 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | Conv k1 c8 | 2")
READS = Input(channels=3, classes=2, resolution=8)
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def draw(path: Path, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, colour, colour)).save(path)
    return path


def read(root: Path) -> dict[str, list[str]]:
    """By class: the names of its images."""
    reader = FolderReader(root)
    names = {label: name for name, label in reader.class_to_idx.items()}
    found: dict[str, list[str]] = {}
    for index, (_, label) in enumerate(reader.samples):
        found.setdefault(names[label], []).append(reader.filename(index))
    return found


def test_a_class_is_a_folder_directly_in_the_split_and_images_at_any_depth_are_its_own(tmp_path: Path) -> None:
    for name in ("cat/day1/1.png", "cat/day2/1.jpg", "cat/2.PNG", "dog/1.webp"):
        draw(tmp_path / name)
    assert read(tmp_path) == {"cat": ["cat/2.PNG", "cat/day1/1.png", "cat/day2/1.jpg"], "dog": ["dog/1.webp"]}


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    for name in ("cat/1.png", ".ipynb_checkpoints/1.png", "cat/.thumbs/1.png", "readme.png"):
        draw(tmp_path / name)
    for name in ("cat/notes.txt", "cat/2.heic", "cat/3.heic", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "bird").mkdir()
    reader = FolderReader(tmp_path)
    assert list(reader.class_to_idx) == ["cat"]
    assert len(reader) == 1
    assert reader.left_out == (
        f"{tmp_path}: left out 2 .heic, 1 .txt (no images that Pillow reads); 1 files beside the class folders; "
        "hidden .ipynb_checkpoints, Thumbs.db, .thumbs; folders without images bird"
    )
    draw(tmp_path / "clean" / "cat" / "1.png")
    assert FolderReader(tmp_path / "clean").left_out is None


@pytest.mark.parametrize("link", ["cat", "", "..", "dog", "cat/old", "dog/old"])
def test_a_link_to_a_folder_that_counts_already_or_that_holds_the_split_adds_no_image(link: str, tmp_path: Path) -> None:
    own = {"cat": ["cat/1.png", "cat/old/1.png"], "dog": ["dog/1.png", "dog/old/1.png"]}
    for name in (*own["cat"], *own["dog"]):
        draw(tmp_path / "train" / name)
        draw(tmp_path / "validation" / name)
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / link)
    assert read(tmp_path / "train") == own
    assert FolderReader(tmp_path / "train").left_out == (
        f"{tmp_path / 'train'}: left out links to folders that are counted already cat/again"
    )


def test_of_links_to_one_folder_elsewhere_the_first_counts_and_the_others_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "store" / "pets" / "1.png")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "store" / "pets")
    for name in ("cat/more", "cub"):
        (tmp_path / "train" / name).symlink_to(tmp_path / "store" / "pets")
    draw(tmp_path / "train" / "cat" / "1.png")
    reader = FolderReader(tmp_path / "train")
    assert read(tmp_path / "train") == {"cat": ["cat/1.png"], "cub": ["cub/1.png"]}
    assert reader.left_out == f"{tmp_path / 'train'}: left out links to folders that are counted already dog, cat/more"


def test_a_link_to_itself_is_no_folder_and_no_traceback(tmp_path: Path) -> None:
    draw(tmp_path / "cat" / "1.png")
    for place in (tmp_path / "loop", tmp_path / "cat" / "loop"):
        place.symlink_to(place)
    assert read(tmp_path) == {"cat": ["cat/1.png"]}
    assert FolderReader(tmp_path).left_out == f"{tmp_path}: left out 1 without a suffix (no images that Pillow reads)"


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_called_like_an_image_is_left_out_and_waited_for_by_nobody(tmp_path: Path, linked: bool) -> None:
    draw(tmp_path / "split" / "cat" / "1.png")
    pipe = tmp_path / "split" / "cat" / "2.png"
    os.mkfifo(tmp_path / "pipe" if linked else pipe)
    if linked:
        pipe.symlink_to(tmp_path / "pipe")
    assert read(tmp_path / "split") == {"cat": ["cat/1.png"]}
    assert FolderReader(tmp_path / "split").left_out == f"{tmp_path / 'split'}: left out pipes, sockets or devices cat/2.png"


def test_a_split_without_any_class_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"got no image in any folder, expected one folder per class; .*1 files beside"):
        FolderReader(tmp_path)


@given(st.lists(st.text(alphabet="aAbB19", min_size=1, max_size=4), unique=True))
def test_names_have_one_order_whatever_order_they_come_in(names: list[str]) -> None:
    assert in_order(names) == in_order(reversed(names)) == in_order(set(names))


def test_numbers_in_names_count_by_their_value() -> None:
    assert in_order(["class10", "class2", "Class2", "b"]) == ("b", "Class2", "class2", "class10")


@pytest.mark.parametrize("packed", [False, True])
def test_a_networks_own_labels_number_the_classes(tmp_path: Path, packed: bool) -> None:
    for split in ("train", "validation"):
        for colour, name in ((0, "dark"), (255, "bright")):
            for number in range(4):
                draw(tmp_path / split / name / f"{number}.png", colour)
        if packed:
            with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
                for name in ("dark", "bright"):
                    tar.add(tmp_path / split / name, name)
            (tmp_path / split).rename(tmp_path / f"unpacked-{split}")
    data = Data(name="folder", root=str(tmp_path), nas_validation=0.25)

    def bright(pixels: object, labels: object) -> set[int]:
        return {int(label) for image, label in zip(pixels, labels, strict=True) if image.mean() > 0}  # type: ignore[call-overload]

    for labels, expected in ((None, 0), (("bright", "dark"), 0), (("dark", "bright"), 1)):
        assert bright(*next(load_test(data, READS, labels=labels).batches(8, 8))) == {expected}
        splits = load_data(data, READS, 0, labels=labels)
        assert bright(*next(splits.train.batches(8, 8))) == {expected}
        assert splits.labels == (labels or ("bright", "dark"))


COMPOSED, DECOMPOSED = "K\u00e4fer", "Ka\u0308fer"


@pytest.mark.parametrize(("packed", "labels"), [((), None), (("train",), None), (("validation",), (COMPOSED, "cat"))])
def test_a_class_is_one_whether_its_letters_are_composed_or_not(
    tmp_path: Path, packed: tuple[str, ...], labels: tuple[str, ...] | None
) -> None:
    for split, beetle in (("train", DECOMPOSED), ("validation", COMPOSED)):
        for colour, name in ((0, "cat"), (255, beetle)):
            draw(tmp_path / split / name / "1.png", colour)
            draw(tmp_path / split / name / "2.png", colour)
        if split in packed:
            with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
                tar.add(tmp_path / split, "")
            (tmp_path / split).rename(tmp_path / f"unpacked-{split}")
    splits = load_data(Data(name="folder", root=str(tmp_path), nas_validation=0.5), READS, 0, labels=labels)
    assert splits.labels == (labels or ("cat", COMPOSED))
    for images in (splits.train, splits.nas_validation, splits.test):
        for pixels, found in images.batches(8, 8):
            bright = [int(label) for image, label in zip(pixels, found, strict=True) if image.mean() > 0]
            assert set(bright) <= {splits.labels.index(COMPOSED)}


def test_what_only_one_split_or_only_the_network_has_is_told_apart(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog ", "validation/cat", "validation/dog"):
        draw(tmp_path / name / "1.png")
    data = Data(name="folder", root=str(tmp_path))
    with pytest.raises(
        DataError, match="expected the same: only train has 'dog ' and only validation has 'dog'; names that differ"
    ):
        load_data(data, READS, 0)
    with pytest.raises(
        DataError, match=r"lack 'dog\\xa0' and have 'dog' in addition, expected the network's own classes; names that differ"
    ):
        load_test(data, READS, labels=("cat", "dog\u00a0"))


@pytest.mark.parametrize("labels", [None, ("cat", "dog")])
def test_a_test_of_a_network_without_names_of_classes_says_which_it_takes(tmp_path: Path, labels: tuple[str, ...] | None) -> None:
    for name in ("dog", "cat"):
        draw(tmp_path / "validation" / name / "1.png")
    said = Heard()
    load_test(Data(name="folder", root=str(tmp_path)), READS, labels=labels, progress=said)
    law = "  the network has no labels.txt: its logits are assumed to be the classes in order of name: cat, dog"
    assert said.lines == ([] if labels else [law])


def test_an_image_may_be_called_anything_and_is_shown_on_one_line(tmp_path: Path) -> None:
    for name in ("cat/1", "cat/2", "dog/1", "dog/M\udcfc\nll"):
        for split in ("train", "validation"):
            draw(tmp_path / split / f"{name}.png")
    data = Data(name="folder", root=str(tmp_path), nas_validation=0.5)
    assert load_data(data, READS, 0).test.size == 4
    (tmp_path / "validation" / "dog" / "M\udcfc\nll.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"^'.*/dog/M\\xfc\\nll.png': got a file that does not decode"):
        list(load_test(data, READS).batches(8, 8))


@pytest.mark.parametrize("text", ["cat\nK\u00e4fer\n", "cat\nKa\u0308fer\n", "\ufeffcat\r\nK\u00e4fer\r\n"])
def test_labels_are_read_as_the_classes_are(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert read_labels(tmp_path) == ("cat", COMPOSED)


def test_labels_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"M\xfcll\n")
    with pytest.raises(StorageError, match=r"labels.txt: got bytes that are not UTF-8"):
        read_labels(tmp_path)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_every_class_keeps_an_image_to_train_on_and_gives_its_share(sizes: list[int], share: float, seed: int) -> None:
    targets = np.repeat(np.arange(len(sizes)), sizes)
    train, held_out = hold_out(targets, share, seed)
    assert sorted([*train, *held_out]) == list(range(len(targets)))
    for label, size in enumerate(sizes):
        given_away = int((targets[held_out] == label).sum())
        assert given_away <= size - 1
        assert abs(min(size - 1, size * share) - given_away) <= 1.0 + 1e-9
    assert len(held_out) <= round(share * len(targets))


def test_a_class_too_small_to_hold_an_image_out_is_named(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        for name, count in (("common", 20), ("rare", 1)):
            for number in range(count):
                draw(tmp_path / split / name / f"{number}.png")
    said = Heard()
    splits = load_data(Data(name="folder", root=str(tmp_path), nas_validation=0.3), READS, 0, progress=said)
    assert said.lines == ["  too few images to hold one out for the search: rare"]
    assert 1 in {int(label) for _, labels in splits.train.batches(4, 8) for label in labels}


# Pixels


def grey(image: Image.Image) -> int:
    return int(in_mode(image, "L").getpixel((0, 0)))  # type: ignore[arg-type]


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    for value, expected in ((0, 0), (257 * 100, 100), (65535, 255)):
        Image.fromarray(np.full((4, 4), value, np.uint16)).save(tmp_path / "deep.png")
        with Image.open(tmp_path / "deep.png") as image:
            assert grey(image) == expected
            assert in_mode(image, "RGB").getpixel((0, 0)) == (expected,) * 3


def test_12_bits_in_a_tiff_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    (tmp_path / "deep.tiff").write_bytes(twelve_bits(4095, 0))
    with Image.open(tmp_path / "deep.tiff") as image:
        assert [in_mode(image, "L").getpixel((x, 0)) for x in (0, 1)] == [255, 0]


def twelve_bits(one: int, other: int) -> bytes:
    """A TIFF of two pixels, which Pillow reads but does not write."""
    tags = ((256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    pixels = (one << 12 | other).to_bytes(3, "big") + b"\0"
    return b"II*\0" + struct.pack("<I", 12) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("suffix", ["tiff", "im"])
@pytest.mark.parametrize("largest", [255, 65535])
def test_32_bits_are_refused_whatever_their_values(suffix: str, largest: int, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, largest]], np.int32)).save(tmp_path / f"deep.{suffix}")
    with Image.open(tmp_path / f"deep.{suffix}") as image, pytest.raises(ValueError, match="32-bit numbers of unknown range"):
        in_mode(image, "L")


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bits_are_16_bits_in_every_format_and_when_turned(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)).save(tmp_path / f"deep.{suffix}")
    with Image.open(tmp_path / f"deep.{suffix}") as image:
        image.getexif()[0x0112] = 6
        assert grey(image) == 100


def test_transparent_places_are_white_whatever_colour_they_hide(tmp_path: Path) -> None:
    assert grey(Image.new("RGBA", (2, 2), (0, 0, 0, 0))) == 255
    assert grey(Image.new("LA", (2, 2), (0, 255))) == 0
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 10, 10])
    assert grey(palette) == 10
    palette.info["transparency"] = 0
    assert grey(palette) == 255


def test_a_photograph_is_turned_as_its_tag_says(tmp_path: Path) -> None:
    image = Image.new("L", (4, 2))
    image.putpixel((0, 0), 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        turned = in_mode(opened, "L")
    assert (turned.size, turned.getpixel((1, 0))) == ((2, 4), 200)


def photographs(root: Path, turned: bool) -> Data:
    """Images of two classes, bright on their left or right, as a camera keeps them: upright, or lying with a tag that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    for split, count in (("train", 8), ("validation", 2)):
        for label, name in enumerate(("left", "right")):
            for number in range(count):
                pixels = np.full((12, 16, 3), 10 * number, np.uint8)
                pixels[:, 8 * label : 8 * label + 8] += 100
                image, place = Image.fromarray(pixels), root / split / name / f"{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                image.transpose(Image.Transpose.ROTATE_90).save(place, exif=exif) if turned else image.save(place)
    return Data(name="folder", root=str(root), nas_validation=0.25)


def trained_on(data: Data, loading: str) -> Iterator[object]:
    images = load_data(data.model_copy(update={"loading": loading}), READS, 0, View(augment=Augment(flip=True))).train
    return (pixels for pixels, _ in images.batches(4, 8, shuffle_seed=1))


WAYS: dict[str, Callable[[Data], Iterable[object]]] = {
    "training, decoded each time": lambda data: trained_on(data, "stream"),
    "training, kept on the device": lambda data: trained_on(data, "device"),
    "held out for the search": lambda data: (pixels for pixels, _ in load_data(data, READS, 0).nas_validation.batches(4, 8)),
    "evaluation": lambda data: (pixels for pixels, _ in load_data(data, READS, 0).test.batches(4, 8)),
    "genet eval": lambda data: (pixels for pixels, _ in load_test(data, READS).batches(4, 8)),
    "calibration": lambda data: iter(calibration_reader(TrainedModel(build(NETWORK), load_data(data, READS, 0))).get_next, None),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_turned_photograph_looks_the_same_in_every_way_in_which_images_are_read(way: str, tmp_path: Path) -> None:
    upright, turned = (list(WAYS[way](photographs(tmp_path / str(tag), tag))) for tag in (False, True))
    assert len(upright) > 0
    for one, other in zip(upright, turned, strict=True):
        np.testing.assert_array_equal(*(each["images"] if isinstance(each, dict) else each for each in (one, other)))


def test_an_onnx_file_is_evaluated_on_turned_photographs_as_they_are_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Sides(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1)

    names = {"input_names": ["images"], "output_names": ["logits"], "dynamic_axes": {"images": {0: "batch"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Sides(), (torch.zeros(2, 3, 8, 8),), tmp_path / "sides.onnx", dynamo=False, **names)
    for turned in (False, True):
        root = photographs(tmp_path / str(turned), turned).root
        assert answer(capsys, "eval", tmp_path / "sides.onnx", "--data", root)["top1"] == 1


def test_cmyk_is_converted_as_ink(tmp_path: Path) -> None:
    assert in_mode(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("values", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70000, np.int32)])
def test_numbers_of_unknown_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="its pixels"):
        in_mode(Image.fromarray(values), "L")


@given(st.lists(st.text("aBz_-. 0129", max_size=8)))
def test_names_are_in_the_order_of_timm(names: list[str]) -> None:
    assert in_order(names) == tuple(sorted(names, key=lambda name: (natural_key(name), name)))


def test_a_number_that_is_no_decimal_is_text() -> None:
    assert in_order(["m²", "m10", "m2"]) == ("m2", "m10", "m²")
