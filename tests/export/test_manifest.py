"""The record of an export: the lines that load a format run it as it was timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genet.export.format import TrainedModel
from genet.export.manifest import ExportedFormat, ExportLatencies, Exports, FormatLatency
from genet.models.build import GENet


def timed(exports: Exports, threads: int | None, ms: float | None = 1.0) -> tuple[Exports, ExportedFormat]:
    """The ONNX format of an export that was timed, with its record."""
    served = (FormatLatency(format="onnx", runtime="onnxruntime", ms=ms, failure=None if ms else "no such runtime"),)
    serving = ExportLatencies(device="some device", threads=threads, batch=1, served=served)
    return exports.model_copy(update={"serving": serving}), next(each for each in exports.exported if each.format == "onnx")


def test_the_lines_for_onnx_answer_with_as_many_threads_as_their_latency_was_measured_with(
    exported: tuple[Path, Exports], module: GENet
) -> None:
    exports, form = timed(exported[1], threads=3)
    found: dict[str, Any] = {}
    exec(exports.loading(form, str(exported[0])), found)
    assert found["session"].get_session_options().intra_op_num_threads == 3
    images = TrainedModel(module).images(2)
    with torch.inference_mode():
        wanted = module(images).numpy()
    assert np.allclose(found["network"](images.numpy()), wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("threads", "ms", "line"),
    [
        (2, 1.0, 'options, providers=["CPUExecutionProvider"]'),
        (None, 1.0, 'options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]'),
        (None, None, 'options, providers=["CPUExecutionProvider"]'),
    ],
    ids=["on a processor", "on a GPU", "not timed on a GPU"],
)
def test_the_lines_for_onnx_take_the_device_that_their_latency_is_of(
    exported: tuple[Path, Exports], threads: int | None, ms: float | None, line: str
) -> None:
    exports, form = timed(exported[1], threads, ms)
    assert line in exports.loading(form, "there")


def test_lines_without_a_latency_leave_the_threads_to_the_runtime(exported: tuple[Path, Exports]) -> None:
    lines = exported[1].loading(timed(exported[1], 3)[1], "THREADS")
    assert "intra_op_num_threads = 0 " in lines
    assert '"THREADS/model.onnx"' in lines, "a folder's own name stays"
