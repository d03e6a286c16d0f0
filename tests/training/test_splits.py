"""Images: three sets that share none, the same batches for the same seed, and a sentence for every folder that is wrong."""

from __future__ import annotations

import gc
import multiprocessing
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import timm.data  # noqa: F401  (imported early on purpose: no promise may hang on who imports timm first)
import torch
from PIL import Image
from pydantic import ValidationError

from genet.arch.space import SpaceInput
from genet.config.recipe import Data
from genet.errors import DataError
from genet.training.image_sets import ImageSet, TensorImages
from genet.training.splits import Splits, load_data

DIGITS = SpaceInput(channels=1, classes=10, resolutions=(8,))
COLOURED = SpaceInput(channels=3, classes=3, resolutions=(16,))
CLASSES = ("ant", "bee", "cat")
PER_CLASS = {"train": 5, "validation": 2}

# timm opens every image itself and leaves the closing to Python's reference counting
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def contents(images: ImageSet, resolution: int = 8) -> list[bytes]:
    """Every image of the set as bytes, in its own order."""
    return [image.numpy().tobytes() for batch, _ in images.batches(64, resolution) for image in batch]


def labels_of(images: ImageSet, batch: int, seed: int | None = None, resolution: int = 8) -> list[list[int]]:
    return [labels.tolist() for _, labels in images.batches(batch, resolution, seed)]


def batches_of(images: ImageSet, seed: int | None, batch: int = 4, resolution: int = 16) -> torch.Tensor:
    return torch.cat([pixels for pixels, _ in images.batches(batch, resolution, seed)])


def sets_of(splits: Splits) -> dict[str, ImageSet]:
    return {"train": splits.train, "nas_validation": splits.nas_validation, "test": splits.test}


# The digits


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(Data(), DIGITS, seed=0)


def test_a_fifth_of_the_digits_is_the_test_set_and_the_share_of_the_rest_is_held_out(digits: Splits) -> None:
    assert (digits.train.size, digits.nas_validation.size, digits.test.size) == (1150, 288, 359)
    half = load_data(Data(nas_validation=0.5), DIGITS, seed=0)
    assert (half.train.size, half.nas_validation.size, half.test.size) == (719, 719, 359)


def test_every_digit_is_in_exactly_one_of_the_three_sets(digits: Splits) -> None:
    counted = Counter(image for images in sets_of(digits).values() for image in contents(images))
    assert len(counted) == 1797  # all of scikit-learn's digits differ
    assert set(counted.values()) == {1}


def test_every_set_of_digits_holds_all_ten_classes(digits: Splits) -> None:
    for images in sets_of(digits).values():
        assert {label for labels in labels_of(images, 64) for label in labels} == set(range(10))


def test_every_part_of_the_training_set_is_held_out_in_turn_and_never_trained_on_then(digits: Splits) -> None:
    turns = [digits.holding_out(part) for part in range(digits.parts)]
    assert len(turns) == 3
    held_out = [set(contents(each.nas_validation)) for each in turns]
    assert len(set().union(*held_out)) == 3 * digits.nas_validation.size
    assert not any(own & set(contents(each.train)) for own, each in zip(held_out, turns, strict=True))
    assert load_data(Data(nas_validation=0.6), DIGITS, 0).parts == 1


def test_the_hold_out_depends_on_the_seed_and_the_test_set_does_not(digits: Splits) -> None:
    again, other = load_data(Data(), DIGITS, seed=0), load_data(Data(), DIGITS, seed=1)
    assert contents(again.nas_validation) == contents(digits.nas_validation)
    assert set(contents(other.nas_validation)) != set(contents(digits.nas_validation))
    assert contents(other.test) == contents(digits.test)


def test_the_digits_are_normalised_over_all_of_them(digits: Splits) -> None:
    everything = torch.cat([batches_of(images, None, 64, 8) for images in sets_of(digits).values()])
    assert everything.mean().item() == pytest.approx(0, abs=1e-4)
    assert everything.std().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 9)])
def test_a_space_that_does_not_fit_the_digits_is_refused(channels: int, classes: int) -> None:
    input_ = SpaceInput(channels=channels, classes=classes, resolutions=(8,))
    with pytest.raises(DataError, match=f"digits have 1 channel and 10 classes, but the network has {channels} and {classes}"):
        load_data(Data(), input_, seed=0)


def test_a_share_that_leaves_a_set_empty_is_refused() -> None:
    with pytest.raises(DataError, match="there must be two images to train on and one in every other set"):
        load_data(Data(nas_validation=1e-6), DIGITS, seed=0)


def test_however_much_is_held_out_an_image_of_every_class_is_trained_on() -> None:
    assert load_data(Data(nas_validation=1 - 1e-6), DIGITS, seed=0).train.size == 10


@pytest.mark.parametrize("resolution", [8, 12, 16])
@pytest.mark.parametrize("seed", [None, 3])
def test_the_digits_come_at_the_resolution_asked_for(digits: Splits, resolution: int, seed: int | None) -> None:
    pixels, labels = next(digits.train.batches(10, resolution, seed))
    assert (pixels.shape, pixels.dtype, labels.shape) == ((10, 1, resolution, resolution), torch.float32, (10,))


# Batches of images in memory


def numbered(size: int) -> TensorImages:
    """`size` images whose label is their number."""
    return TensorImages(torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1), torch.arange(size))


def test_without_a_seed_all_images_come_once_in_order_the_short_batch_too() -> None:
    assert labels_of(numbered(10), 4, None) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_epoch_shows_no_image_twice_and_drops_only_the_short_batch() -> None:
    batches = labels_of(numbered(10), 4, seed=1)
    shown = [label for labels in batches for label in labels]
    assert [len(labels) for labels in batches] == [4, 4]
    assert len(set(shown)) == 8
    assert set(shown) <= set(range(10))


def test_an_epoch_of_whole_batches_shows_every_image() -> None:
    shown = [label for labels in labels_of(numbered(12), 4, seed=1) for label in labels]
    assert sorted(shown) == list(range(12))
    assert shown != sorted(shown)


def test_a_set_smaller_than_a_batch_is_one_batch_of_all_its_images() -> None:
    assert [sorted(labels) for labels in labels_of(numbered(3), 8, seed=1)] == [[0, 1, 2]]


def test_the_order_depends_on_the_shuffle_seed_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        one = labels_of(numbered(40), 4, seed=7)
        torch.manual_seed(2)
        again = labels_of(numbered(40), 4, seed=7)
    assert one == again
    assert labels_of(numbered(40), 4, seed=8) != one


def test_every_image_keeps_its_label_when_shuffled() -> None:
    for pixels, labels in numbered(10).batches(4, 2, shuffle_seed=1):
        assert pixels.mean((1, 2, 3)).tolist() == labels.tolist()


# Image folders


@pytest.fixture
def files_closed() -> Iterator[None]:
    """Lets the files that an error still held on to go while their warning is filtered."""
    yield
    gc.collect()


def write_image(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ROOT/train/CLASS/N.png and ROOT/validation/CLASS/N.png, every image of a colour of its own."""
    shade = iter(range(0, 250, 5))
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            for number in range(count):
                write_image(tmp_path / split / name / f"{number}.png", (next(shade), label * 100, 50))
    return tmp_path


def loaded(folder: Path, input_: SpaceInput = COLOURED, seed: int = 0, workers: int = 0) -> Splits:
    return load_data(Data(name="folder", root=str(folder), workers=workers), input_, seed)


def test_a_folder_gives_three_sets_with_its_classes_in_order(folder: Path) -> None:
    splits = loaded(folder)
    assert (splits.train.size, splits.nas_validation.size, splits.test.size) == (12, 3, 6)
    assert labels_of(splits.test, 4, resolution=16) == [[0, 0, 1, 1], [2, 2]]


def test_no_image_of_a_folder_is_in_two_sets(folder: Path) -> None:
    counted = Counter(image for images in sets_of(loaded(folder)).values() for image in contents(images, 16))
    assert len(counted) == 21
    assert set(counted.values()) == {1}


def test_the_hold_out_of_a_folder_depends_on_the_seed_and_its_test_set_does_not(folder: Path) -> None:
    one, again, other = loaded(folder, seed=0), loaded(folder, seed=0), loaded(folder, seed=1)
    assert contents(one.nas_validation, 16) == contents(again.nas_validation, 16) != contents(other.nas_validation, 16)
    assert contents(one.test, 16) == contents(other.test, 16)


@pytest.mark.parametrize("name", ["val", "valid", "test"])
def test_the_validation_folder_may_go_by_another_of_its_names(folder: Path, name: str) -> None:
    (folder / "validation").rename(folder / name)
    assert loaded(folder).test.size == 6


@pytest.mark.parametrize("resolution", [8, 16])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_folder_comes_at_the_resolution_asked_for(folder: Path, resolution: int, seed: int | None) -> None:
    pixels, _ = next(loaded(folder).train.batches(4, resolution, seed))
    assert (pixels.shape, pixels.dtype) == ((4, 3, resolution, resolution), torch.float32)


@pytest.mark.parametrize("seed", [None, 3])
def test_a_space_of_one_channel_reads_a_folder_in_grey(folder: Path, seed: int | None) -> None:
    splits = loaded(folder, SpaceInput(channels=1, classes=3, resolutions=(16,)))
    pixels, _ = next(splits.train.batches(4, 16, seed))
    assert pixels.shape == (4, 1, 16, 16)


def test_the_same_seed_gives_the_same_augmented_batches_and_another_seed_others(folder: Path) -> None:
    one, again, other = (batches_of(loaded(folder).train, seed) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_worker_gives_the_same_augmented_batches_for_the_same_seed(folder: Path) -> None:
    one, again = (batches_of(loaded(folder, workers=1).train, 5) for _ in range(2))
    assert torch.equal(one, again)


def test_images_are_decoded_by_no_more_processes_than_there_are_processors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genet.training.image_sets.cpus", lambda: 1)
    batches = load_data(Data(name="folder", root=str(folder), workers=3, loading="stream"), COLOURED, 0).train.batches(4, 16, 1)
    next(batches)
    assert len(multiprocessing.active_children()) == 1
    batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_augmentation_depends_on_the_seed_and_not_only_the_order(tmp_path: Path, workers: int) -> None:
    gradient = Image.fromarray(np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3))
    for split in PER_CLASS:
        for name in CLASSES:
            for number in range(3):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                gradient.save(tmp_path / split / name / f"{number}.png")
    images = loaded(tmp_path, workers=workers).train  # all images are the same, so their order shows nowhere
    assert not torch.equal(batches_of(images, 5), batches_of(images, 6))


def test_the_order_of_a_folder_depends_on_the_seed(folder: Path) -> None:
    images = loaded(folder).train
    one, again, other = (labels_of(images, 12, seed)[0] for seed in (5, 5, 6))
    assert one == again != other
    assert sorted(one) == sorted(other) == labels_of(images, 12)[0]


def test_an_epoch_of_a_folder_drops_only_the_short_batch(folder: Path) -> None:
    assert [len(labels) for labels in labels_of(loaded(folder).train, 5, seed=1, resolution=8)] == [5, 5]
    assert [len(labels) for labels in labels_of(loaded(folder).train, 20, seed=1, resolution=8)] == [12]
    assert [len(labels) for labels in labels_of(loaded(folder).train, 5, resolution=8)] == [5, 5, 2]


def test_a_class_missing_from_validation_is_named(folder: Path) -> None:
    (folder / "validation" / "bee").rename(folder / "bee")
    with pytest.raises(DataError, match=r"got different classes in train and validation, expected the same: only train has bee$"):
        loaded(folder)


def test_a_class_that_only_validation_has_is_named(folder: Path) -> None:
    write_image(folder / "validation" / "dog" / "0.png", (1, 2, 3))
    with pytest.raises(
        DataError, match=r"got different classes in train and validation, expected the same: only validation has dog$"
    ):
        loaded(folder)


def test_a_class_folder_without_an_image_counts_as_missing(folder: Path) -> None:
    for image in (folder / "validation" / "cat").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"only train has cat$"):
        loaded(folder)


def test_a_wrong_number_of_classes_is_refused_with_both_numbers(folder: Path) -> None:
    with pytest.raises(DataError, match=r"expected the search space's 4; give others, or set space\.input\.classes to 3$"):
        loaded(folder, SpaceInput(channels=3, classes=4, resolutions=(16,)))


def test_a_tar_of_each_split_holds_the_same_images_as_the_folders(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    packed = tmp_path_factory.mktemp("packed")
    for split in ("train", "validation"):
        with tarfile.open(packed / f"{split}.tar", "w") as tar:
            tar.add(folder / split, arcname=".")
    ours, theirs = loaded(folder), loaded(packed)
    for one, other in ((ours.train, theirs.train), (ours.nas_validation, theirs.nas_validation), (ours.test, theirs.test)):
        for (pixels, labels), (same, classes) in zip(one.batches(4, 16), other.batches(4, 16), strict=True):
            assert torch.equal(pixels, same)
            assert torch.equal(labels, classes)
    assert sorted(path.name for path in packed.iterdir()) == ["train.tar", "validation.tar"], "nothing is left beside them"


def test_a_class_missing_from_a_tar_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "validation" / "bee")
    with tarfile.open(folder / "validation.tar", "w") as tar:
        tar.add(folder / "validation", arcname=".")
    shutil.rmtree(folder / "validation")
    with pytest.raises(DataError, match=r"got different classes in train and validation, expected the same: only train has bee$"):
        loaded(folder)


@pytest.mark.usefixtures("files_closed")
@pytest.mark.parametrize(
    ("workers", "content"), [(0, b"no image"), (0, b""), pytest.param(1, b"no image", marks=pytest.mark.slow)]
)
def test_an_image_that_does_not_decode_is_named(folder: Path, workers: int, content: bytes) -> None:
    splits = loaded(folder, workers=workers)
    (folder / "validation" / "bee" / "1.png").write_bytes(content)
    with pytest.raises(DataError, match=r"^\S*validation/bee/1\.png: got a file that does not decode") as raised:
        contents(splits.test, 16)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("loading", ["stream", "device"])
def test_processes_that_decode_say_nothing_of_an_image_that_they_cannot_and_end_by_themselves(
    folder: Path, loading: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, stop = list[BaseProcess](), BaseProcess.terminate
    monkeypatch.setattr(BaseProcess, "terminate", lambda process: (stopped.append(process), stop(process)))
    (folder / "train" / "bee" / "0.png").write_bytes((folder / "train" / "bee" / "0.png").read_bytes()[:60])
    splits = load_data(Data(name="folder", root=str(folder), workers=2, loading=loading), COLOURED, seed=1)
    with pytest.raises(DataError, match=r"^\S*bee/0\.png: got a file that does not decode"):
        contents(splits.train, 16)
    assert not [*stopped, *multiprocessing.active_children()]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_training_that_an_image_stops_says_so_without_tracebacks_of_its_workers(folder: Path, tmp_path: Path) -> None:
    for number in range(2):
        (folder / "train" / "bee" / f"{number}.png").write_bytes(b"no image")
    recipe = tmp_path / "r.yaml"
    data = f"{{name: folder, root: {folder}, workers: 2}}"
    recipe.write_text(f"name: brief\ndata: {data}\ndevice: cpu\ntrain: {{epochs: 1, batch: 2, learning_rate: 0.1}}\n")
    network = "@16x3 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | Conv k1 c8 | 3"
    command = [sys.executable, "-m", "genet", "train", network, "--recipe", str(recipe), "--into", str(tmp_path / "net")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bee/0.png" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("files_closed")
def test_an_image_cut_in_half_is_named(folder: Path) -> None:
    splits = loaded(folder)
    path = folder / "validation" / "cat" / "0.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"^\S*validation/cat/0\.png: got a file that does not decode"):
        contents(splits.test, 16)


@pytest.mark.usefixtures("files_closed")
@pytest.mark.parametrize("loading", ["stream", "device"])
def test_a_check_names_every_image_that_does_not_decode_and_why(folder: Path, loading: str) -> None:
    """Of images to train on that are streamed it sees the header: the rest is read in the first epoch."""
    broken = {"train/ant/0": b"", "train/bee/1": b"<html>", "validation/cat/0": b"", "validation/cat/1": None}
    for name, content in broken.items():
        file = folder / f"{name}.png"
        file.write_bytes(file.read_bytes()[:60] if content is None else content)
    splits = load_data(Data(name="folder", root=str(folder), nas_validation=0.4, loading=loading), COLOURED, seed=0)
    with pytest.raises(DataError) as raised:
        splits.check(16)
    reasons = {str(Path(line.split(": ")[0]).relative_to(folder)): line.split("(")[1].split(")")[0] for line in raised.value.args}
    assert reasons.pop("validation/cat/1.png").startswith(("image file is truncated", "broken PNG", "unrecognized data"))
    assert reasons == {
        "train/ant/0.png": "it is empty",
        "train/bee/1.png": "it is not an image that Pillow reads",
        "validation/cat/0.png": "it is empty",
    }


def test_an_empty_train_folder_is_refused(folder: Path) -> None:
    for name in CLASSES:
        (folder / "train" / name).rename(folder / name)
    with pytest.raises(DataError, match="got no image in any folder, expected one folder per class"):
        loaded(folder)


@pytest.mark.parametrize(("split", "named"), [("train", "train"), ("validation", "validation, val, valid, test")])
def test_a_missing_split_folder_is_named(folder: Path, split: str, named: str) -> None:
    (folder / split).rename(folder / "elsewhere")
    with pytest.raises(DataError, match=rf"expected {named}, with one folder of images per class, or a \.tar of it; make it"):
        loaded(folder)


def test_of_a_split_given_for_the_folder_around_it_that_folder_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=rf"got folders ant, .*; give {re.escape(str(folder))}, which has both"):
        loaded(folder / "train")


def test_classes_without_a_split_around_them_are_told_where_to_go(folder: Path) -> None:
    (folder / "validation").rename(folder / "elsewhere")
    with pytest.raises(
        DataError, match=r"got folders ant, bee, cat, .*; if these are the classes, move them into \S+/train, and"
    ):
        loaded(folder / "train")


def test_sets_are_counted_and_a_batch_larger_than_the_training_set_is_told(folder: Path) -> None:
    splits = loaded(folder)
    train, held_out, test = splits.train.size, splits.nas_validation.size, splits.test.size
    assert splits.sizes == f"{train} images to train on, {held_out} held out from the training set, {test} to test on"
    assert splits.shortened(train) is None
    assert f"batch {train + 1} is reduced to {train}" in str(splits.shortened(train + 1))


def test_a_root_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist, expected the folder of the images; give --data"):
        loaded(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "what"), [("folder", "the images"), ("hfds/cifar10", "hfds/cifar10")])
def test_a_data_set_without_a_root_says_what_to_give(name: str, what: str) -> None:
    with pytest.raises(DataError, match=f"data.root: got none, expected the folder of {what}; give --data FOLDER"):
        load_data(Data(name=name), COLOURED, seed=0)


# Data sets by timm's names


def test_a_name_that_timm_does_not_know_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="nonsense"):
        load_data(Data(name="torch/nonsense", root=str(folder)), COLOURED, seed=0)


def test_a_name_that_can_be_none_of_timms_is_a_fault_of_the_recipe() -> None:
    with pytest.raises(ValidationError, match="must be digits, folder, or a timm dataset name"):
        Data(name="nonsense")


def test_a_data_set_that_is_not_where_the_root_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"torch/cifar10 in .*: got no train images, expected train/CLASS"):
        load_data(Data(name="torch/cifar10", root=str(tmp_path)), COLOURED, seed=0)


def write_mnist(root: Path, prefix: str, count: int, seed: int) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 255, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes())
    (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    write_mnist(tmp_path, "train", 20, seed=0)
    write_mnist(tmp_path, "t10k", 10, seed=1)
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_torchvision_data_set_gives_three_sets_that_share_no_image(mnist: Path, channels: int, seed: int | None) -> None:
    input_ = SpaceInput(channels=channels, classes=10, resolutions=(16,))
    splits = load_data(Data(name="torch/mnist", root=str(mnist)), input_, seed=0)
    assert (splits.train.size, splits.nas_validation.size, splits.test.size) == (16, 4, 10)
    assert next(splits.train.batches(4, 16, seed))[0].shape == (4, channels, 16, 16)
    assert len({image for images in sets_of(splits).values() for image in contents(images, 16)}) == 30
