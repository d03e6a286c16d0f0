"""The network for ONNX Runtime and TensorRT: fp32, fp16, INT8 with explicit quantization; fused, any batch size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genet.errors import GenetError, StorageError, first_line
from genet.export.format import Format, Forward, TrainedModel, quiet
from genet.latency.timing.runtimes import EXACT_INT8, session_options
from genet.names import some_of
from genet.storage import read_checked

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATION_IMAGES, CALIBRATION_BATCH = 512, 32
FILES = {"onnx": "model.onnx", "onnx-fp16": "model.fp16.onnx", "onnx-int8": "model.int8.onnx"}


def _fp16(subject: TrainedModel) -> dict[str, bytes]:
    """Return the model in fp16 except for images and logits, which stay in fp32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with quiet():
        model = OnnxModel(convert_float_to_float16(_parsed(subject.onnx), keep_io_types=True))
        model.topological_sort()  # the conversion leaves its casts at the end
    return {FILES["onnx-fp16"]: model.model.SerializeToString()}


def _int8(subject: TrainedModel) -> dict[str, bytes]:
    """Quantize symmetrically, biases in fp32, as TensorRT expects: weights per channel, activations per tensor.

    The ranges of activations come from training images.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder) / FILES["onnx-int8"]
        quantize_static(
            _parsed(subject.onnx),
            file,
            calibration_reader(subject),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
        return {file.name: file.read_bytes()}


def calibration_reader(subject: TrainedModel) -> Any:
    """Return training images in a random order, as ONNX Runtime requests them."""
    from onnxruntime.quantization import CalibrationDataReader

    if subject.splits is None:
        raise GenetError(str(_needs_images(subject)))
    images = subject.splits.train
    batch, size = min(CALIBRATION_BATCH, images.size), subject.network.input.resolution
    batches: Iterator[tuple[Tensor, Tensor]] = iter(images.batches(batch, size, shuffle_seed=0))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left = CALIBRATION_IMAGES

        def get_next(self) -> dict[str, Any] | None:
            found = next(batches, None) if self.left > 0 else None
            if found is None:
                return None
            self.left -= len(found[0])
            return {"images": found[0].numpy()}

    return Reader()


def _needs_images(subject: TrainedModel) -> str | None:
    return None if subject.splits else "it needs training images to calibrate on; give --data FOLDER"


def _parsed(data: bytes) -> ModelProto:
    import onnx

    return onnx.load_from_string(data)


def open_session(model: bytes | Path, name: str) -> Any:
    """Open an ONNX model in ONNX Runtime, on the processor, with as many threads as torch has; StorageError if it is not one.

    The weights of a file may lie in another one beside it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise GenetError(f"running {name} needs ONNX Runtime, which is not installed; pip install onnxruntime") from None
    given = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(given, session_options(onnxruntime), providers=["CPUExecutionProvider"])
    except Exception as fault:  # onnxruntime raises exceptions of its own C++ binding
        if isinstance(model, Path) and (lacking := _lacking(model)):
            raise StorageError(
                f"{name}: got no {some_of(lacking)}, expected its weights beside it; copy it into {model.parent} too"
            ) from None
        raise StorageError(f"ONNX Runtime failed to open {name} ({first_line(fault)})") from None


def _lacking(file: Path) -> list[str]:
    """Return the missing files beside an ONNX model that should hold its weights."""
    import onnx

    try:
        model = onnx.load(file, load_external_data=False)
    except Exception:  # any error of protobuf for a file that is not a model
        return []
    places = {each.value for weight in model.graph.initializer for each in weight.external_data if each.key == "location"}
    return sorted(place for place in places if not (file.parent / place).exists())


def session_forward(session: Any) -> Forward:
    """Return a session's answer to images."""
    name = session.get_inputs()[0].name

    def forward(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.contiguous().numpy()})[0])

    return forward


def _format(name: str, purpose: str, files: Callable[[TrainedModel], dict[str, bytes]], tolerance: float, **more: Any) -> Format:
    """Return an ONNX format: one file, which ONNX Runtime opens."""
    place = FILES[name]

    def forward(folder: Path) -> Forward:
        file = folder / place
        return session_forward(open_session(read_checked(file), str(file)))

    exact = f'options.add_session_config_entry("{EXACT_INT8[0]}", "{EXACT_INT8[1]}")  # for processors without VNNI\n'
    loading = (
        "import onnxruntime\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.intra_op_num_threads = THREADS  # as its latency was measured; 0: as many as there are cores\n"
        f"{exact if name == 'onnx-int8' else ''}"
        f'session = onnxruntime.InferenceSession("FOLDER/{place}", options, providers=PROVIDERS)\n'
        'network = lambda images: session.run(["logits"], {"images": images})[0]'
    )
    return Format(name, purpose, place, files, forward, loading, tolerance, **more)


ONNX = _format(
    "onnx", "ONNX Runtime, TensorRT and others, in fp32", lambda subject: {FILES["onnx"]: subject.onnx}, tolerance=1e-4
)
ONNX_FP16 = _format("onnx-fp16", "TensorRT, strongly typed: fp16 except for images and logits", _fp16, tolerance=0.05)
ONNX_INT8 = _format(
    "onnx-int8",
    "INT8 with explicit Q/DQ nodes, calibrated on up to 512 training images; for devices with INT8 units",
    _int8,
    tolerance=0.5,
    refuses=_needs_images,
)
