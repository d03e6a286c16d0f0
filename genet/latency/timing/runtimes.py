"""The runtimes that can serve a network. Each turns a module and its images into a work that the stopwatch can repeat.

A network's latency depends on the runtime as much as on the device, and even the order of two networks does, so the
runtime is part of every row's key. Works for a GPU enqueue on the current stream, except those that `wait` for it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from genet.device import device_fault, record_graph, side_stream
from genet.errors import DeviceError, MeasurementError, OutOfMemoryError, first_line
from genet.latency.timing.stopwatch import TimedCall


def prepare(runtime: str, parts: Sequence[tuple[nn.Module, Tensor]], kernels_alone: bool = False) -> tuple[TimedCall, ...]:
    """Return one forward pass of each module on its images as a call of the given runtime.

    With `kernels_alone` the host's time to launch a GPU's kernels is excluded, as for parts of a network.
    DeviceError if the runtime is not there, MeasurementError if it refuses a module.
    """
    works = (RUNTIMES[runtime](module, images) for module, images in parts)
    device = parts[0][1].device
    if kernels_alone and runtime in ("eager", "compile") and device.type == "cuda":
        return tuple(_captured(work, device) for work in works)
    return tuple(works)


def _cudagraph(module: nn.Module, images: Tensor) -> TimedCall:
    """Return a replay of the kernels recorded once, whose time does not include the host's launches."""
    _need_cuda("cudagraph", images)
    return _captured(partial(module, images), images.device)


def _captured(work: TimedCall, device: torch.device) -> TimedCall:
    with side_stream(device):
        for _ in range(3):
            work()
    try:
        return record_graph(work, device)
    except RuntimeError as fault:
        if device_fault(fault) == "out of memory":
            raise
        torch.cuda.synchronize(device)  # raises again if the device itself is lost
        raise MeasurementError(f"capturing the model as a CUDA graph failed: {first_line(fault)}") from fault


@contextmanager
def _refusal(failure: str) -> Iterator[None]:
    """Turn an error of a library into its refusal of the module; faults of the device pass unchanged."""
    try:
        yield
    except Exception as fault:
        if device_fault(fault):
            raise
        raise MeasurementError(f"{failure}: {first_line(fault)}") from fault


def _compile(module: nn.Module, images: Tensor) -> TimedCall:
    """Compile for these very shapes, before the clock starts."""
    names: dict[str, Any] = {}
    exec("def forward(module, images): return module(images)", names)  # separate code, as compilations are counted per code
    compiled = torch.compile(names["forward"], fullgraph=True, dynamic=False)  # a module held by it would never be freed
    work = partial(compiled, module, images)
    with _refusal("torch.compile failed to compile the model"):
        work()
    return work


def onnx_work(model: bytes, images: Tensor) -> TimedCall:
    """Return an ONNX model's answer to these images in ONNX Runtime, on the images' device. See `prepare` for its errors."""
    runtime = _import("onnxruntime", "onnxruntime")
    providers, device = _providers(runtime, images), images.device.type
    place = {"device_type": device, "device_id": images.device.index or 0}
    with _refusal("ONNX Runtime failed to run the model"):
        session = runtime.InferenceSession(model, session_options(runtime), providers=providers)
        (given,), (answer,) = session.get_inputs(), session.get_outputs()
        binding = session.io_binding()
        shape, kind = tuple(images.shape), ONNX_TYPES[images.dtype]
        binding.bind_input(given.name, element_type=kind, shape=shape, buffer_ptr=images.data_ptr(), **place)
        binding.bind_output(answer.name, device)
        session.run_with_iobinding(binding)
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceError("ONNX Runtime fell back to the processor, expected the GPU; see its own log, or use --runtime eager")

    def run(_keep: Tensor = images) -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()  # it has its own streams, which the events of another stream do not cover

    return run


def session_options(runtime: ModuleType) -> Any:
    """Return options for ONNX Runtime: as many threads as torch has, exact in INT8, and silent except for errors."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_INT8)
    return options


def _providers(runtime: ModuleType, images: Tensor) -> list[Any]:
    if images.device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise DeviceError(
            "runtime onnxruntime needs a package that reaches the GPU, got one that does not; pip install onnxruntime-gpu, "
            "or use --device cpu"
        )
    torch.cuda.synchronize(images.device)  # the images must be there before another stream reads them
    return [("CUDAExecutionProvider", {"device_id": images.device.index or 0})]


def _tensorrt(module: nn.Module, images: Tensor) -> TimedCall:
    trt = _import("tensorrt", "genet-nas[tensorrt]")
    _need_cuda("tensorrt", images)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # newer versions have no other kind
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(_onnx(module, images)):
        raise MeasurementError(f"TensorRT failed to read the model: {parser.get_error(0).desc()}")
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise MeasurementError("TensorRT failed to build an engine of the model; its own log says why")
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    if context is None:
        raise OutOfMemoryError("TensorRT got no memory for the network's activations; lower the batch")
    answer = torch.empty(tuple(context.get_tensor_shape("answer")), dtype=images.dtype, device=images.device)
    context.set_tensor_address("images", images.data_ptr())
    context.set_tensor_address("answer", answer.data_ptr())

    def run(_keep: tuple[object, ...] = (engine, images, answer)) -> None:
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise MeasurementError("TensorRT failed to enqueue the model; its own log says why")

    return _captured(run, images.device)  # on the default stream TensorRT would synchronise by itself


ONNX_TYPES = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}  # their numbers in ONNX; numpy has no bfloat16
EXACT_INT8 = ("session.x64quantprecision", "1")  # without it, sums saturate on x86 processors that lack VNNI
ONE_LAYOUT = ("onnxruntime", "tensorrt")  # ONNX knows no memory format
WAITING = ("onnxruntime",)  # their works return when the device has answered, so the host's clock times them
RUNTIMES: dict[str, Callable[[nn.Module, Tensor], TimedCall]] = {
    "eager": partial,
    "cudagraph": _cudagraph,
    "compile": _compile,
    "onnxruntime": lambda module, images: onnx_work(_onnx(module, images), images),
    "tensorrt": _tensorrt,
}


def _onnx(module: nn.Module, images: Tensor) -> bytes:
    """Return the module as ONNX, for its one batch; the tracing exporter takes milliseconds, the newer one seconds."""
    buffer = io.BytesIO()
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = images.clone(memory_format=torch.contiguous_format)
        with _refusal("exporting the model to ONNX failed"):
            torch.onnx.export(
                module,
                (plain,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                input_names=["images"],
                output_names=["answer"],
            )
    return buffer.getvalue()


def _need_cuda(runtime: str, images: Tensor) -> None:
    if images.device.type != "cuda":
        raise DeviceError(f"runtime {runtime} needs an NVIDIA GPU, got {images.device.type} here; use --runtime eager")


def _import(package: str, install: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError:
        raise DeviceError(f"runtime {package} needs its package, which is not installed; pip install '{install}'") from None
