"""What every export format keeps: its files are listed with their sums, and the lines of its card give the network's logits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from genet.export.exports import FORMATS
from genet.export.format import TrainedModel
from genet.export.manifest import ExportedFormat, Exports
from genet.models.build import GENet
from genet.storage import digest

FIRST = ("safetensors", "onnx")  # that are loaded in a process of their own by every run of the tests
APART = {"safetensors": (), "timm": ("genet",), "pt2": ("genet", "timm")}  # what each must run without; ONNX without torch too
RUN = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import numpy
{images}
{loading}
answers = network(images)
numpy.save({answers!r}, getattr(answers, "detach", lambda: answers)())
"""
TORCH_IMAGES = "import torch\nimages = torch.from_numpy(numpy.load({file!r}))"
NUMPY_IMAGES = "images = numpy.load({file!r})"


def of(exports: Exports, name: str) -> ExportedFormat:
    return next(each for each in exports.exported if each.format == name)


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_its_files_are_there_with_the_sums_listed_and_a_checksum_beside_each(exported: tuple[Path, Exports], name: str) -> None:
    folder, exports = exported
    files = of(exports, name).files
    assert files
    for file, known in files.items():
        assert digest((folder / file).read_bytes()) == known
        assert (folder / f"{file}.sha256").read_text() == f"{known}  {Path(file).name}\n"


def test_its_logits_were_compared_at_one_and_many_images(exported: tuple[Path, Exports], name: str) -> None:
    found, law = of(exported[1], name), FORMATS[name].tolerance
    assert found.batches == (1, 7, 64)
    assert all(0 <= error <= law for error in found.relative_error)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_loaded_again_it_answers_as_the_network_does(
    exported: tuple[Path, Exports],
    module: GENet,
    name: str,
    batch: int,
) -> None:
    images = TrainedModel(module).images(batch)
    with torch.inference_mode():
        wanted, found = module(images), FORMATS[name].forward(exported[0])(images)
    allowed = FORMATS[name].tolerance * (2 if name == "onnx-int8" else 1)  # random images are none it was calibrated for
    assert found.dtype == torch.float32
    assert float((wanted - found).abs().max()) <= allowed * float(wanted.abs().max())
    assert batch == 1 or np.ptp(wanted.numpy(), axis=0).min() > 1e-3, "the logits do depend on the image"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in FIRST)) for name, form in FORMATS.items() if form.loading],
)
def test_the_lines_of_its_card_load_it_in_a_process_of_its_own(
    exported: tuple[Path, Exports],
    module: GENet,
    tmp_path: Path,
    name: str,
) -> None:
    images, answers = tmp_path / "images.npy", tmp_path / "answers.npy"
    pixels = TrainedModel(module).images(3)
    np.save(images, pixels.numpy())
    own = TORCH_IMAGES if name in APART else NUMPY_IMAGES
    script = RUN.format(
        blocked=APART.get(name, ("genet", "timm", "torch")),
        images=own.format(file=str(images)),
        loading=exported[1].loading(of(exported[1], name), str(exported[0])),
        answers=str(answers),
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=tmp_path, capture_output=True, timeout=120)
    with torch.inference_mode():
        wanted = module(pixels).numpy()
    allowed = FORMATS[name].tolerance * (2 if name == "onnx-int8" else 1)  # random images are none it was calibrated for
    assert np.abs(np.load(answers) - wanted).max() <= allowed * np.abs(wanted).max()
