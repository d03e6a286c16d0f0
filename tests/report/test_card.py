"""The card: the lines that prepare an image do what the package does, and the formats are told with what they were timed on."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genet.arch.cost import network_cost
from genet.arch.network import Network
from genet.config.preprocessing import preprocessing_at
from genet.export.manifest import ExportedFormat, ExportLatencies, Exports, FormatLatency
from genet.report.page import Card, card
from genet.training.pixels import Preprocess
from tests.fixtures.raced import WON, outcomes

TURNED = 6  # of the EXIF tag: a quarter
ORIENTATION = 0x0112


def card_of(
    channels: int,
    resolution: int,
    threads: int | None = 2,
    left_out: dict[str, str] | None = None,
    tested: bool = True,
    raced: bool = False,
) -> str:
    """The card of a network that reads such images, with one format."""
    network = Network.parse(f"@{resolution}x{channels} | Conv k3 c8 s1 | XX k3 c8 s2 d1 | 10", name="it")
    form = ExportedFormat(
        format="onnx",
        purpose="all",
        loading="options.intra_op_num_threads = THREADS",
        files={},
        batches=(1,),
        relative_error=(0.0,),
        accuracy=0.5 if tested else None,
        test_images=10 if tested else None,
        source=None,
        packages={},
    )
    served = (FormatLatency(format="onnx", runtime="onnxruntime", ms=3.0, spread=0.01),)
    serving = ExportLatencies(device="some device", threads=threads, batch=4, served=served)
    exports = Exports(inputs="", network=str(network), exported=(form,), left_out=left_out or {}, serving=serving)
    facts = Card(network, network_cost(network), exports, preprocessing_at(channels, resolution), None)
    return card(dataclasses.replace(facts, outcomes=outcomes(), raced=WON) if raced else facts)


def test_it_says_why_the_certified_latency_and_those_of_the_formats_differ() -> None:
    assert "ratio to the MasterNet" not in card_of(1, 8), "a network from elsewhere was not certified"
    text = card_of(1, 8, raced=True)
    assert "ratio to the MasterNet, timed in turn in eager, times the MasterNet's first measurement.\n" in text
    assert "later, in the runtimes below, when the machine may have been faster or slower.\n" in text


def drawn(size: tuple[int, int], mode: str) -> Image.Image:
    """A picture of noise; if it may be transparent, half of it is."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4)).astype(np.uint8)
    pixels[..., 3] = 255 * (np.arange(size[0]) % 2)
    return Image.fromarray(pixels if mode == "RGBA" else pixels[..., :3]).convert(mode)


@pytest.mark.parametrize(
    ("file", "size", "mode", "channels", "resolution"),
    [
        ("wide.png", (211, 97), "RGB", 3, 96),  # the middle 87.5 %, with an odd rest on one side
        ("high.png", (61, 90), "RGB", 3, 128),  # enlarged
        ("turned.jpg", (90, 50), "RGB", 3, 32),
        ("clear.png", (50, 40), "RGBA", 3, 33),
        ("few colours.gif", (77, 50), "P", 3, 64),
        ("grey.png", (45, 100), "L", 1, 24),
        ("coloured.png", (45, 46), "RGB", 1, 72),
    ],
)
def test_its_lines_prepare_an_image_as_the_package_does_by_pillow_and_numpy_alone(
    file: str,
    size: tuple[int, int],
    mode: str,
    channels: int,
    resolution: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    drawn(size, mode).save(tmp_path / file, **({"exif": exif} if file == "turned.jpg" else {}))
    lines = textwrap.dedent(card_of(channels, resolution).split("to 8 bits first):\n")[1].split("Then, in")[0])
    found: dict[str, np.ndarray] = {}
    with monkeypatch.context() as alone:
        alone.chdir(tmp_path)
        for name in ("genet", "timm", "torch", "torchvision"):
            alone.setitem(sys.modules, name, None)
        exec(lines.replace("image.png", file), found)
    wanted = Preprocess(Network.parse(f"@{resolution}x{channels} | Conv k3 c8 s1 | XX k3 c8 s2 d1 | 10").input)(tmp_path / file)
    assert found["images"].dtype == np.float32
    assert found["images"].shape == tuple(wanted.shape) == (1, channels, resolution, resolution)
    assert np.abs(found["images"] - wanted.numpy()).max() < 1e-6


def test_it_tells_accuracy_and_latency_of_every_format_and_what_they_were_timed_on() -> None:
    text = card_of(3, 32)
    assert "| onnx | all | 0.0e+00 | 50.0% | 0.7500 in onnxruntime, 1.0 % |" in text
    assert "on some device, 2 threads, batch 4, fp32 images" in text
    assert "    options.intra_op_num_threads = 2" in text
    assert "measured with 2 threads: the lines for ONNX Runtime set the same number" in text
    assert "no images were given" not in text
    assert "no images were given; `genet export FOLDER --data IMAGES` measures it" in card_of(3, 32, tested=False)
    on_gpu = card_of(3, 32, threads=None)
    assert "measured on the GPU, with the images in its memory: the lines for ONNX Runtime request the GPU" in on_gpu
    assert "set_num_threads" not in on_gpu


def test_its_loop_prints_the_latency_of_calls_that_are_warm_at_the_batch_that_was_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, seconds, calls = card_of(1, 8), [0.0], list[int]()
    assert "with calls back to back, as the mean of 6 to 30 repeats" in text
    lines = textwrap.dedent(text.split("times all formats, for longer.\n")[1].split("##")[0])

    def network(batch: np.ndarray) -> None:
        calls.append(len(batch))
        seconds[0] += 1.0 if len(calls) <= 20 else 0.028 if len(calls) > 115 else 0.008  # cold at first, disturbed now and then

    monkeypatch.setattr("time.perf_counter", lambda: seconds[0])
    exec(lines, {"np": np, "images": np.zeros((1, 1, 8, 8), np.float32), "network": network})
    monkeypatch.undo()
    printed = capsys.readouterr().out
    assert {*calls} == {4}
    assert printed == "2.2500 ms per image; half of the calls take at most 2.0000, 99 of 100 at most 7.0000\n"
    assert "perf_counter" not in card_of(1, 8, threads=None), "on a GPU the images are in its memory"


def test_it_says_why_a_format_is_missing() -> None:
    assert "Left out: timm: plain timm has no such model." in card_of(3, 32, left_out={"timm": "plain timm has no such model"})
