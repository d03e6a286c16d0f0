"""Augmentation: every crop is a window of the padded image, and an image looks the same whoever asks for it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genet.arch.space import SpaceInput
from genet.config.augment import Augment, augment_at
from genet.config.preprocessing import Preprocessing
from genet.config.recipe import Data
from genet.errors import DataError
from genet.training import splits as loading
from genet.training.augmentation import BITS, hashed_bits, seed_augmentation, training_transform
from genet.training.image_sets import FileImages, TensorImages, View
from genet.training.splits import load_data
from tests.fixtures.heard import Heard

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

SIZE, CROP = 8, 2
READS = SpaceInput(channels=3, classes=2, resolutions=(SIZE,))
PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3, 1.0)


def coordinates() -> Tensor:
    """An image (3, SIZE, SIZE) in bytes whose every pixel tells its row and column; no value is black."""
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return torch.stack([10 * rows + 10, 10 * columns + 10, torch.full_like(rows, 200)]).to(torch.uint8)


def windows(crop: int, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every look that a crop and a flip may give the image: its bytes, and how it comes about."""
    padded = torch.nn.functional.pad(coordinates(), (crop,) * 4)
    found = {}
    for top in range(2 * crop + 1):
        for left in range(2 * crop + 1):
            window = padded[:, top : top + SIZE, left : left + SIZE]
            found[window.numpy().tobytes()] = (top, left, False)
            if flip:
                found[window.flip(2).numpy().tobytes()] = (top, left, True)
    return found


def kept(augment: Augment, count: int = 400) -> list[bytes]:
    """What so many copies of the image look like where they are augmented in memory."""
    images = coordinates().expand(count, -1, -1, -1).clone()
    as_they_are = torch.ones(3), torch.zeros(3)  # bytes are padded with black
    sets = TensorImages(images, torch.zeros(count, dtype=torch.long), View(augment), as_they_are)
    return [image.to(torch.uint8).numpy().tobytes() for batch, _ in sets.batches(100, SIZE, shuffle_seed=3) for image in batch]


def streamed(augment: Augment, count: int = 400) -> list[bytes]:
    """The same where every image is decoded."""
    transform = training_transform(3, SIZE, augment, 0.0, PLAIN)
    image, found = Image.fromarray(coordinates().permute(1, 2, 0).numpy()), []
    for seed in range(count):
        seed_augmentation(seed)
        found.append((transform(image) * 255).round().to(torch.uint8).numpy().tobytes())
    return found


@pytest.mark.parametrize("way", [kept, streamed])
@pytest.mark.parametrize("augment", [Augment(), Augment(crop=CROP), Augment(flip=True), Augment(crop=CROP, flip=True)])
def test_every_look_is_a_window_of_the_padded_image_and_every_window_occurs(way: object, augment: Augment) -> None:
    legal, seen = windows(augment.crop, augment.flip), way(augment)  # type: ignore[operator]
    assert set(seen) == set(legal)
    flipped = sum(legal[look][2] for look in seen) / len(seen)
    assert flipped == pytest.approx(0.5, abs=0.1) if augment.flip else not flipped


@pytest.mark.parametrize("way", [kept, streamed])
def test_a_cutout_greys_a_square_of_its_size_and_no_more(way: object) -> None:
    sizes = set()
    for look in way(Augment(cutout=4), 200):  # type: ignore[operator]
        changed = (np.frombuffer(look, np.uint8).reshape(3, SIZE, SIZE) != coordinates().numpy()).any(0)
        rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        sizes.add((len(rows), len(columns)))
    assert max(sizes) == (4, 4)
    assert {height for height, _ in sizes} <= {2, 3, 4}  # less at the edge


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_erasing_takes_a_rectangle_of_so_many_images(share: float) -> None:
    images = TensorImages(torch.ones(600, 1, 16, 16), torch.zeros(600, dtype=torch.long), View(erasing=share))
    pixels, _ = next(images.batches(600, 16, shuffle_seed=0))
    erased = (pixels == 0).flatten(1).any(1)
    assert float(erased.float().mean()) == pytest.approx(share, abs=0.06)
    assert not share or 0.02 <= float((pixels[erased] == 0).float().mean((1, 2, 3)).mean()) <= 1 / 3


def noise(view: View) -> TensorImages:
    return TensorImages(torch.randn(60, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), torch.arange(60), view)


def looks(images: TensorImages, batch: int, seed: int) -> dict[int, bytes]:
    """By label, which names the image here."""
    return {
        int(label): image.numpy().tobytes()
        for pixels, labels in images.batches(batch, SIZE, seed)
        for image, label in zip(pixels, labels, strict=True)
    }


def test_how_an_image_looks_depends_on_the_seed_and_the_image_alone() -> None:
    view = View(Augment(crop=CROP, flip=True, cutout=3), 0.5)
    alone = looks(noise(view), 60, 7)
    assert looks(noise(view), 20, 7) == alone
    parts = [looks(noise(view._replace(rank=rank, ranks=2)), 20, 7) for rank in range(2)]
    assert {**parts[0], **parts[1]} == alone
    assert looks(noise(view).shuffled(1), 60, 7) == alone
    assert sum(look == alone[label] for label, look in looks(noise(view), 60, 8).items()) < 6


def test_draws_are_spread_evenly_over_their_range() -> None:
    drawn = hashed_bits(torch.arange(20_000) + 12345)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 2**BITS
    shares = torch.stack([torch.bincount(column % 9, minlength=9) for column in drawn.T]) / len(drawn)
    assert shares.flatten().tolist() == pytest.approx([1 / 9] * 90, abs=0.012)
    assert torch.corrcoef((drawn.T % 9).float()).fill_diagonal_(0).abs().max() < 0.03


# Folders: decoded once, or anew


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of noise a class, of several sizes."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for number in range(12):
                shape = (SIZE + number, 2 * SIZE - number // 2, 3)
                Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(root / split / name / f"{number}.png")
    return root


def opened(folder: Path, loading: str = "auto", **view: object) -> FileImages:
    data = Data.model_validate({"name": "folder", "root": str(folder), "loading": loading})
    found = load_data(data, READS, 0, View(**view)).train  # type: ignore[arg-type]
    assert isinstance(found, FileImages)
    return found


def test_images_kept_in_memory_are_those_that_are_decoded_anew(folder: Path) -> None:
    for (some, labels), (others, theirs) in zip(
        opened(folder).batches(5, SIZE), opened(folder, "stream").batches(5, SIZE), strict=True
    ):
        torch.testing.assert_close(some, others, rtol=1e-5, atol=1e-5)
        assert torch.equal(labels, theirs)


def test_small_images_are_decoded_once_and_larger_ones_in_every_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    for way in ("auto", "stream"):
        images = opened(folder, way)
        count = [0]
        reader = images._dataset.reader
        monkeypatch.setattr(type(reader), "__getitem__", _counting(type(reader).__getitem__, count))
        for seed in range(3):
            list(images.batches(8, SIZE, seed))
            list(images.with_view(View(Augment(flip=True))).batches(8, SIZE, seed))
        decoded.append(count[0])
        monkeypatch.undo()
    once, anew = decoded
    assert (once, anew) == (opened(folder).size, 6 * (opened(folder).size // 8) * 8)


def _counting(inner: object, count: list[int]) -> object:
    def counted(self: object, index: int) -> object:
        count[0] += 1
        return inner(self, index)  # type: ignore[operator]

    return counted


def test_a_process_that_is_handed_a_set_decodes_its_own_images(folder: Path) -> None:
    images = opened(folder)
    before = next(images.batches(8, SIZE, 1))[0]
    blob = pickle.dumps(images)
    assert len(blob) < 8 * before.numel()
    assert torch.equal(next(pickle.loads(blob).batches(8, SIZE, 1))[0], before)


def test_a_set_too_large_for_the_device_is_decoded_anew_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 48 * 3 * ((SIZE + 2) ** 2 + SIZE**2)  # padded for the crop, and as decoded
    monkeypatch.setattr(loading, "total_bytes", lambda device: 4 * needed - 1)
    said = Heard()
    load_data(Data(name="folder", root=str(folder)), READS, 0, progress=said)
    assert "48 images take" in said.lines[0]
    assert "decoded again in every epoch" in said.lines[0]
    said.lines.clear()
    for memory, parts in ((4, 1), (8, 2), (12, 3)):  # each part that is held out in turn has a copy of its own
        monkeypatch.setattr(loading, "total_bytes", lambda device, memory=memory: memory * needed)
        assert load_data(Data(name="folder", root=str(folder)), READS, 0, progress=said).parts == parts
    assert said.lines == []


@pytest.mark.parametrize("policy", [{"policy": "rand-m9-mstd0.5"}, {"color_jitter": 0.4}, {"scale": (0.5, 1.0)}])
def test_what_needs_a_decoded_image_cannot_be_asked_for_on_the_device(folder: Path, policy: dict[str, object]) -> None:
    augment = Augment.model_validate(policy)
    assert not torch.equal(*(next(opened(folder, augment=augment).batches(8, SIZE, seed))[0] for seed in (1, 2)))
    with pytest.raises(DataError, match=r"kept on the device \(data.loading\), expected crop, flip or cutout alone"):
        opened(folder, "device", augment=augment)


def test_a_policy_and_a_jitter_are_both_applied() -> None:
    policy = Augment(policy="rand-m9-mstd0.5")
    both = policy.model_copy(update={"color_jitter": 0.8})
    assert streamed(policy, 20) != streamed(both, 20)


@pytest.mark.parametrize(("key", "most"), [("crop", SIZE // 2), ("cutout", SIZE - 1)])
def test_what_would_hide_the_whole_image_is_refused(folder: Path, key: str, most: int) -> None:
    assert opened(folder, augment=Augment.model_validate({key: most})).size
    with pytest.raises(DataError, match=rf"augment.{key}: got {most + 1} for images of 8 pixels, expected at most {most}"):
        opened(folder, augment=Augment.model_validate({key: most + 1}))


def test_small_images_are_cropped_and_flipped_unless_told_otherwise_and_larger_ones_as_imagenets() -> None:
    assert str(augment_at(None, "folder", 32)) == "crop 4, flip"
    assert str(augment_at(None, "folder", 224)) == "scale 0.08 to 1, color_jitter 0.4, flip"
    assert str(augment_at(Augment(), "folder", 32)) == "none"
